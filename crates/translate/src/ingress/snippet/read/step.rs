//! Directives that nginx runs one after another: `set`, `rewrite`, `return`, `if`.

use fairway_model::{AfterChange, PathChange, Respond, Segment, SnippetStep, SnippetTest};

use super::One;
use super::table::Context;
use crate::ingress::snippet::level::LevelStep;
use crate::ingress::snippet::{Does, Fault};

impl One<'_> {
    pub(super) fn answer(&mut self) -> Result<(), Fault> {
        let [first, second] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        let count = self.directive.arguments.len();
        let is_url = |text: &str| ["http://", "https://", "$scheme"].iter().any(|start| text.starts_with(start));
        if count == 1 && is_url(&first) {
            let to = self.template(&first, true)?;
            self.told(format!("redirect with 302 to {first}"));
            self.answers(Does::Redirect(302));
            self.level.steps.push(LevelStep::Plain(SnippetStep::Redirect(302, to)));
            return Ok(());
        }
        let status = first.parse::<u16>().ok().filter(|status| (200..600).contains(status));
        let status = self.expected(status, "a status from 200 to 599, or a URL")?;
        let step = match (status, count) {
            (301 | 302 | 303 | 307 | 308, 2) => {
                let to = self.template(&second, true)?;
                self.told(format!("redirect with {status} to {second}"));
                LevelStep::Plain(SnippetStep::Redirect(status, to))
            }
            (301 | 302 | 303 | 307 | 308, _) => return Err(self.fault("expected a URL after the status")),
            (444, _) => {
                self.told("answer 403, where nginx closes the connection");
                LevelStep::Plain(SnippetStep::Respond(Respond::page(403)))
            }
            (status, 2) => {
                if second.contains('$') {
                    return Err(self.fault("a body with variables is not read; use a Service that answers"));
                }
                self.told(format!("answer {status} with a text of {} bytes", second.len()));
                LevelStep::Text(status, second.into())
            }
            (status, _) => {
                self.told(format!("answer {status}"));
                let respond = if status < 400 { Respond::empty(status) } else { Respond::page(status) };
                LevelStep::Plain(SnippetStep::Respond(respond))
            }
        };
        self.answers(match &step {
            LevelStep::Plain(SnippetStep::Redirect(status, _)) => Does::Redirect(*status),
            LevelStep::Plain(SnippetStep::Respond(respond)) => Does::Respond(respond.status),
            _ => Does::Respond(status),
        });
        self.level.steps.push(step);
        Ok(())
    }

    pub(super) fn set(&mut self) -> Result<(), Fault> {
        let [name, value] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        let name = self.expected(name.strip_prefix('$').map(str::to_owned), "a variable, with `$`")?;
        let own = self.variable(&name)?;
        let value_template = self.template(&value, true)?;
        self.told(format!("the variable ${name} is \"{value}\""));
        self.level.steps.push(LevelStep::Plain(SnippetStep::Set(own, value_template)));
        Ok(())
    }

    pub(super) fn rewrite(&mut self) -> Result<(), Fault> {
        let [pattern, target] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        let is_url = ["http://", "https://", "$scheme"].iter().any(|start| target.starts_with(start));
        let then = match self.argument(2) {
            "permanent" => AfterChange::Redirect(301),
            "redirect" => AfterChange::Redirect(302),
            "" | "last" | "break" if is_url => AfterChange::Redirect(302),
            "" => AfterChange::Continue,
            "last" => AfterChange::Choose,
            "break" => AfterChange::Stay,
            _ => return Err(self.fault("expected last, break, redirect or permanent")),
        };
        let (bare, keeps_query) = target.strip_suffix('?').map_or((&*target, true), |bare| (bare, false));
        let compiled = self.pattern(&pattern, false)?;
        let template = self.template(bare, true)?;
        let words = match then {
            AfterChange::Redirect(status) => format!("redirect paths that match {pattern} with {status} to {target}"),
            // In a server, nginx looks for the location afterwards, whatever the flag.
            AfterChange::Stay if matches!(self.context, Context::Location | Context::LocationIf) => {
                format!("paths that match {pattern} become {target} for the backend")
            }
            _ => format!("paths that match {pattern} become {target}, and the route is chosen again"),
        };
        self.told(words);
        if let AfterChange::Redirect(status) = then {
            self.answers(Does::Redirect(status));
        }
        let change = PathChange { pattern: compiled, target: template, keeps_query, then };
        self.level.steps.push(LevelStep::Plain(SnippetStep::Rewrite(Box::new(change))));
        Ok(())
    }

    pub(super) fn condition(&mut self) -> Result<(), Fault> {
        let mut words: Vec<String> = self.directive.arguments.clone();
        let opened = words.first_mut().and_then(|first| first.strip_prefix('(').map(str::to_owned));
        let opened = self.expected(opened, "a condition in parentheses")?;
        words[0] = opened;
        if words[0].is_empty() {
            words.remove(0);
        }
        let closed = words.last().and_then(|last| last.strip_suffix(')').map(str::to_owned));
        let closed = self.expected(closed, "a condition in parentheses")?;
        if closed.is_empty() {
            words.pop();
        } else if let Some(last) = words.last_mut() {
            *last = closed;
        }
        let shown = words.join(" ");
        let variable = words.first().filter(|word| word.starts_with('$') && word.len() > 1).cloned();
        let what = "a variable, alone or with =, !=, ~, ~*, !~ or !~* and a value; files can't be tested";
        let variable = self.expected(variable, what)?;
        let left = self.template(&variable, true)?;
        if !matches!(left.segments(), [Segment::Variable(_)]) {
            return Err(self.fault(format!("expected {what}")));
        }
        let test = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [_] => SnippetTest::Is(left),
            [_, "=", right] => SnippetTest::Equal(left, self.template(right, true)?),
            [_, "!=", right] => SnippetTest::Unequal(left, self.template(right, true)?),
            [_, "~", right] => SnippetTest::Matches(left, self.pattern(right, false)?),
            [_, "~*", right] => SnippetTest::Matches(left, self.pattern(right, true)?),
            [_, "!~", right] => SnippetTest::MatchesNot(left, self.pattern(right, false)?),
            [_, "!~*", right] => SnippetTest::MatchesNot(left, self.pattern(right, true)?),
            _ => return Err(self.fault(format!("expected {what}"))),
        };
        self.told(format!("test whether {shown}"));
        let context = if self.context == Context::Server { Context::ServerIf } else { Context::LocationIf };
        let block = self.directive.block.as_deref().unwrap_or_default();
        let inner = self.reader.level(block, context)?;
        self.level.steps.push(LevelStep::If(test, Box::new(inner)));
        Ok(())
    }
}
