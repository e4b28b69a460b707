//! From directives to what they ask for: a closed [`table`] of names with their contexts, and one arm for each of them.

use std::collections::BTreeSet;

use fairway_model::decision::is_early;
use fairway_model::{
    ByteLimit, Change, ConfiguredName, FieldEdit, ResponseEdit, SearchRegex, Segment, SnippetStep, Template, Variable,
};

mod field;
mod response;
mod scope;
mod step;
mod table;
mod variable;

pub(crate) use table::Context;
use table::{DIRECTIVES, WITHOUT_EFFECT};

use super::instead::instead;
use super::level::{Level, LevelStep};
use super::tree::{self, Directive};
use super::{Answering, AnsweringPlace, Does, Fault};
use crate::value::{NginxTime, Size, Value};
use crate::variable::has_no_value;
use crate::verdict::nearest;

/// State that concerns a text as a whole.
struct Reader {
    declares: BTreeSet<String>,
    needs: BTreeSet<String>,
    words: Vec<String>,
    /// The directives that may answer a request.
    answering: Vec<Answering>,
    place: AnsweringPlace,
    /// Whether a pattern precedes, so that `$1` may have a value.
    has_groups: bool,
}

/// Reads a text.
///
/// # Errors
/// The first directive, argument or context outside the set.
pub(super) fn read(text: &str, context: Context) -> Result<Level, Fault> {
    let tree = tree::parse(text)?;
    let mut reader = Reader {
        declares: BTreeSet::new(),
        needs: BTreeSet::new(),
        words: Vec::new(),
        answering: Vec::new(),
        place: AnsweringPlace::Top,
        has_groups: false,
    };
    let level = reader.level(&tree, context)?;
    let Reader { declares, needs, words, answering, .. } = reader;
    Ok(Level { declares, needs, words, answering, ..level })
}

impl Reader {
    fn level(&mut self, directives: &[Directive], context: Context) -> Result<Level, Fault> {
        let mut level = Level::default();
        for directive in directives {
            One { reader: self, level: &mut level, directive, context }.read()?;
        }
        Ok(level)
    }
}

/// One directive as it is added to a level.
struct One<'r> {
    reader: &'r mut Reader,
    level: &'r mut Level,
    directive: &'r Directive,
    context: Context,
}

impl One<'_> {
    fn fault(&self, message: impl AsRef<str>) -> Fault {
        Fault::new(self.directive.line, &self.directive.name, message.as_ref())
    }

    fn expected<T>(&self, read: Option<T>, what: &str) -> Result<T, Fault> {
        read.ok_or_else(|| self.fault(format!("expected {what}")))
    }

    /// Records what the directive asks for, in plain words.
    fn told(&mut self, words: impl AsRef<str>) {
        let place = match self.context {
            Context::ServerIf | Context::LocationIf => "if so, ",
            Context::LimitExcept => "for them, ",
            _ if matches!(self.reader.place, AnsweringPlace::Location(_)) => "there, ",
            _ => "",
        };
        self.reader.words.push(format!("line {}: {place}{}", self.directive.line, words.as_ref()));
    }

    /// Records that the directive may answer a request.
    fn answers(&mut self, does: Does) {
        let text: Vec<_> =
            [&self.directive.name].into_iter().chain(&self.directive.arguments).map(String::as_str).collect();
        let text = crate::diagnostic::bounded(&text.join(" "));
        let Directive { line, .. } = *self.directive;
        let place = self.reader.place.clone();
        self.reader.answering.push(Answering { line, text, place, does });
    }

    fn argument(&self, at: usize) -> &str {
        self.directive.arguments.get(at).map_or("", String::as_str)
    }

    fn unknown(&self) -> Fault {
        let name = &*self.directive.name;
        match instead(name) {
            Some(instead) => self.fault(instead),
            None => match nearest(name, DIRECTIVES.iter().map(|(name, ..)| *name)) {
                Some(near) => self.fault(format!("it is not among the directives that are read; did you mean {near}?")),
                None => self.fault("it is not among the directives that are read, see docs/snippets.md"),
            },
        }
    }

    fn read(mut self) -> Result<(), Fault> {
        let name = &*self.directive.name;
        if let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(own, _)| *own == name) {
            if self.directive.block.is_some() {
                return Err(self.fault("expected no block"));
            }
            self.told(format!("{name} has no effect: {why}"));
            return Ok(());
        }
        let Some(&(_, contexts, fewest, most)) = DIRECTIVES.iter().find(|(own, ..)| *own == name) else {
            return Err(self.unknown());
        };
        if contexts & self.context as u8 == 0 {
            let message = match (name, self.context) {
                ("proxy_set_header", Context::LocationIf) => {
                    "nginx does not allow it in `if`; set a variable there, and the field outside".to_owned()
                }
                (_, Context::Auth) => "expected proxy_set_header only".to_owned(),
                (_, context) => format!("nginx does not allow it in {}", context.name()),
            };
            return Err(self.fault(message));
        }
        let count = self.directive.arguments.len();
        if !(fewest..=most).contains(&count) {
            return Err(self.fault(format!("expected {fewest} to {most} arguments, not {count}")));
        }
        if matches!(name, "if" | "limit_except" | "map" | "geo" | "location") != self.directive.block.is_some() {
            return Err(self.fault(if self.directive.block.is_some() {
                "expected no block"
            } else {
                "expected a block"
            }));
        }
        self.directive()
    }

    fn directive(&mut self) -> Result<(), Fault> {
        let first = self.argument(0).to_owned();
        match &*self.directive.name {
            "add_header" => self.add_header(),
            "more_set_headers" | "more_clear_headers" => self.more_headers(),
            "more_set_input_headers" | "more_clear_input_headers" => self.input_headers(),
            "proxy_set_header" => self.set_header(),
            "proxy_hide_header" => {
                let edit = self.edit(&first, Change::Remove)?;
                self.told(format!("the client does not get the backend's field {first}"));
                self.level.hide.push(always(edit));
                Ok(())
            }
            "proxy_pass_header" => {
                if first.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("X-Accel-")) {
                    return Err(self.fault("no field of a backend commands the proxy, and none of these passes"));
                }
                self.told(format!("the client gets the backend's field {first}"));
                if first.eq_ignore_ascii_case("Server") {
                    let value = Template::parse("$upstream_http_server");
                    let edit = self.edit(&first, Change::Set(value))?;
                    self.level.pass.push(always(edit));
                }
                Ok(())
            }
            "expires" => self.expires(&first),
            "return" => self.answer(),
            "set" => self.set(),
            "break" => {
                self.told("no further step of this kind runs");
                self.level.steps.push(LevelStep::Plain(SnippetStep::Break));
                Ok(())
            }
            "rewrite" => self.rewrite(),
            "if" => self.condition(),
            "map" => self.map(),
            "geo" => self.geo(),
            "allow" | "deny" => self.access(&first),
            "limit_except" => self.limit_except(),
            "location" => self.location(),
            "auth_request_set" => self.auth_set(),
            "proxy_cookie_flags" => self.cookie_flags(),
            "sub_filter" => self.substitute(),
            "sub_filter_once" => {
                let on = self.switch(&first)?;
                self.told(if on {
                    "only the first occurrence of each text is replaced"
                } else {
                    "all occurrences of each text are replaced"
                });
                self.level.substitute_once = Some(on);
                Ok(())
            }
            "sub_filter_last_modified" => {
                let on = self.switch(&first)?;
                self.told(format!("Last-Modified of changed bodies {}", if on { "stays" } else { "is removed" }));
                self.level.substitute_last_modified = Some(on);
                Ok(())
            }
            "sub_filter_types" => {
                let types: Vec<Box<str>> = self.directive.arguments.iter().map(|one| one.as_str().into()).collect();
                self.told(format!("texts are replaced in text/html and {}", types.join(", ")));
                self.level.substitute_types = Some(types);
                Ok(())
            }
            "gzip" => match &*first {
                "off" => {
                    self.told("responses are not compressed");
                    self.level.uncompressed = Some(true);
                    Ok(())
                }
                _ => Err(self.fault("expected off; compression is turned on by use-gzip of the ConfigMap")),
            },
            "access_log" => match &*first {
                "off" => {
                    self.told("requests are not logged");
                    self.level.access_log = Some(false);
                    Ok(())
                }
                _ => Err(self.fault("expected off; formats and files are set by the ConfigMap")),
            },
            "satisfy" => {
                let any = match &*first {
                    "any" => true,
                    "all" => false,
                    _ => return Err(self.fault("expected all or any")),
                };
                self.told(if any {
                    "address or authentication is enough"
                } else {
                    "address and authentication are needed"
                });
                self.level.satisfy_any = Some(any);
                Ok(())
            }
            "default_type" => {
                self.literal(&first)?;
                self.told(format!("texts of `return` have the type {first}"));
                self.level.default_type = Some(first.into());
                Ok(())
            }
            "proxy_ssl_name" => {
                self.literal(&first)?;
                self.told(format!("TLS to the backend is for the name {first}"));
                self.level.tls_name = Some(first.into());
                Ok(())
            }
            "proxy_ssl_server_name" => {
                let on = self.switch(&first)?;
                self.told(format!("the name is {}sent to the backend (SNI)", if on { "" } else { "not " }));
                self.level.tls_sni = Some(on);
                Ok(())
            }
            "real_ip_header" => {
                let name = self.name(&first)?;
                self.told(format!("the client's address is read from {first} of trusted peers"));
                self.level.real_ip = Some(name.as_str().into());
                Ok(())
            }
            "client_max_body_size" => {
                let size = self.expected(Size::parse(&first), Size::SYNTAX)?;
                if self.is_overruled() {
                    return Ok(());
                }
                self.told(format!("a request's body may have {first}"));
                self.level.max_body = Some(size.limit().map_or(ByteLimit::NONE, ByteLimit::of));
                Ok(())
            }
            name @ ("proxy_connect_timeout" | "proxy_read_timeout" | "proxy_send_timeout") => {
                let time = self.expected(NginxTime::parse(&first), "a time, such as `60s`")?;
                if self.is_overruled() {
                    return Ok(());
                }
                let place = match name {
                    "proxy_connect_timeout" => &mut self.level.connect_timeout,
                    "proxy_read_timeout" => &mut self.level.read_timeout,
                    _ => &mut self.level.send_timeout,
                };
                *place = Some(time.0);
                self.told(format!("{name} is {first}"));
                Ok(())
            }
            _ => Err(self.unknown()),
        }
    }

    /// Whether each location of ingress-nginx sets this itself, so that it has no effect on outer levels.
    fn is_overruled(&mut self) -> bool {
        let overruled = self.context != Context::Location;
        if overruled {
            let name = self.directive.name.clone();
            self.told(format!("{name} has no effect: each location sets it itself, as in ingress-nginx"));
        }
        overruled
    }

    fn switch(&self, text: &str) -> Result<bool, Fault> {
        match text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(self.fault("expected on or off")),
        }
    }

    fn literal(&self, text: &str) -> Result<(), Fault> {
        if text.contains('$') { Err(self.fault("expected a value without variables")) } else { Ok(()) }
    }

    fn name(&self, text: &str) -> Result<ConfiguredName, Fault> {
        let name = ConfiguredName::try_from(text).ok();
        self.expected(name, &format!("the name of a field, not \"{}\"", crate::diagnostic::bounded(text)))
    }

    fn edit(&self, name: &str, change: Change) -> Result<FieldEdit, Fault> {
        let edit = FieldEdit::new(self.name(name)?, change);
        if !edit.is_allowed() {
            let message =
                format!("{name} delimits messages or belongs to a connection, which the proxy decides itself");
            return Err(self.fault(message));
        }
        Ok(edit)
    }

    /// A text with variables. `early` is whether it is needed before there is a response.
    fn template(&mut self, text: &str, early: bool) -> Result<Template, Fault> {
        if text.len() > crate::limit::FIELD_VALUE {
            return Err(self.fault(format!("expected at most {} bytes", crate::limit::FIELD_VALUE)));
        }
        if self.directive.name != "sub_filter" && text.chars().any(char::is_control) {
            return Err(self.fault(tree::LINES_IN_BODIES_ONLY));
        }
        for (at, _) in text.match_indices('$') {
            let rest = &text[at + 1..];
            let name = rest.strip_prefix('{').map_or(rest, |inner| inner.split_once('}').map_or("", |(name, _)| name));
            if !name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') {
                return Err(self.fault("expected the name of a variable after `$`"));
            }
        }
        let template = Template::parse(text);
        for segment in template.segments() {
            let Segment::Variable(variable) = segment else { continue };
            match variable {
                Variable::Unknown(name) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                    let known = name.len() == 1 && self.reader.has_groups;
                    self.expected(known.then_some(()), &format!("a pattern before it with a group for ${name}"))?;
                }
                Variable::Unknown(name) if self.reader.declares.contains(&**name) => {}
                // Only `auth_request_set` can use such a variable, and reports any other name itself.
                Variable::Unknown(name)
                    if name.starts_with("upstream_cookie_") && self.directive.name == "auth_request_set" => {}
                Variable::Unknown(name) if has_no_value(name) => {
                    return Err(self.fault(format!("the variable ${name} of nginx has no value here")));
                }
                Variable::Unknown(name) => {
                    if self.context == Context::Auth {
                        return Err(self.fault(format!("the variable ${name} has no value here")));
                    }
                    self.reader.needs.insert(name.to_string());
                }
                known if early && !is_early(known) => {
                    return Err(self.fault(format!("a variable of \"{text}\" has no value before the response")));
                }
                _ => {}
            }
        }
        Ok(template)
    }

    fn pattern(&mut self, text: &str, ignore_case: bool) -> Result<SearchRegex, Fault> {
        let full = if ignore_case { format!("(?i){text}") } else { text.to_owned() };
        let pattern: Option<SearchRegex> = full.parse().ok();
        let what = "a regex that runs in linear time: without look-around and back-references, and not too large";
        let pattern = self.expected(pattern, what)?;
        self.reader.has_groups |= pattern.group_count() > 0;
        Ok(pattern)
    }
}

fn always(edit: FieldEdit) -> ResponseEdit {
    ResponseEdit { edit, statuses: Vec::new(), types: Vec::new() }
}
