//! Directives that decide who may pass, and the blocks that apply to some requests only.

use fairway_model::{MethodRules, NetworkSet, PathMatch, SnippetTest, Template};

use super::One;
use super::table::Context;
use crate::ingress::snippet::level::{LevelStep, LocationLevel, everyone};
use crate::ingress::snippet::{AnsweringPlace, Does, Fault};
use crate::value::Value;

impl One<'_> {
    pub(super) fn access(&mut self, text: &str) -> Result<(), Fault> {
        let allow = self.directive.name == "allow";
        let networks = match text {
            "all" => everyone(),
            text => {
                let read = NetworkSet::parse(text).filter(|_| !text.contains(','));
                self.expected(read, "all, an address or a network")?
            }
        };
        self.told(format!("{} {text}", if allow { "admit" } else { "answer 403 to" }));
        self.answers(Does::Rule(allow, networks.clone()));
        self.level.rules.push((allow, networks));
        Ok(())
    }

    pub(super) fn limit_except(&mut self) -> Result<(), Fault> {
        if self.level.except.is_some() {
            return Err(self.fault("expected it once"));
        }
        let mut methods: Vec<Box<str>> = Vec::new();
        for method in &self.directive.arguments {
            if !method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                return Err(self.fault("expected methods"));
            }
            let method = method.to_ascii_uppercase();
            if method == "GET" {
                methods.push("HEAD".into());
            }
            methods.push(method.into());
        }
        self.told(format!("rules for methods other than {}", methods.join(", ")));
        let block = self.directive.block.as_deref().unwrap_or_default();
        let outer = std::mem::replace(&mut self.reader.place, AnsweringPlace::Except);
        let inner = self.reader.level(block, Context::LimitExcept)?;
        self.reader.place = outer;
        self.level.except = Some(MethodRules { methods, rules: inner.rules });
        Ok(())
    }

    /// A `location` of a server. It has only its directives: requests that they don't answer get 404, as for a file that nginx lacks.
    pub(super) fn location(&mut self) -> Result<(), Fault> {
        let [first, second] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        let (kind, text) = if second.is_empty() { ("", &*first) } else { (&*first, &*second) };
        // nginx takes the sign and the path as one word, too.
        let (kind, text) = match (kind, text.strip_prefix('=')) {
            ("", Some(path)) if path.starts_with('/') => ("=", path),
            _ => (kind, text),
        };
        let is_path = text.starts_with('/');
        let ignores_case = kind == "~*";
        let (path, shown) = match kind {
            "" | "=" if !is_path => return Err(self.fault("expected a path; named locations are not read")),
            "=" => (PathMatch::exact(text), format!("a location for exactly {text}")),
            "" => (PathMatch::start(text), format!("a location for paths that start with {text}")),
            "~" | "~*" => {
                let case = if ignores_case { "i" } else { "-i" };
                (
                    PathMatch::regex(&format!("(?s:.*)(?{case}:{text})")),
                    format!("a location for paths that match {text}"),
                )
            }
            _ => return Err(self.fault("expected a path, = and a path, or ~ or ~* and a regex; ^~ is not read")),
        };
        let path = path.map_err(|why| self.fault(format!("the path can't be matched: {why}")))?;
        self.told(shown);
        let had_groups = self.reader.has_groups;
        let groups = match &path {
            PathMatch::Regex(_) => {
                let pattern = self.pattern(text, ignores_case)?;
                Some(pattern).filter(|pattern| pattern.group_count() > 0)
            }
            _ => None,
        };
        let block = self.directive.block.as_deref().unwrap_or_default();
        let outer = std::mem::replace(&mut self.reader.place, AnsweringPlace::Location(text.into()));
        let mut inner = self.reader.level(block, Context::Location)?;
        self.reader.place = outer;
        self.reader.has_groups = had_groups;
        if let Some(pattern) = groups {
            // The groups of the path count until another pattern matches.
            let test = SnippetTest::Matches(Template::parse("$uri"), pattern);
            inner.steps.insert(0, LevelStep::If(test, Box::default()));
        }
        self.level.locations.push(LocationLevel { path, text: text.into(), level: Box::new(inner) });
        Ok(())
    }
}
