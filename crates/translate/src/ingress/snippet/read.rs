//! From directives to what they ask for: a closed table of names with their contexts, and one arm for each of them.

use std::collections::BTreeSet;

use fairway_model::decision::is_early;
use fairway_model::{
    AfterChange, AuthPart, AuthVariable, ByteLimit, Change, ConfiguredName, CookieFlags, Cookies, FieldEdit, MapKey,
    MethodRules, NetworkSet, PathChange, PathMatch, Respond, ResponseEdit, SearchRegex, Segment, SnippetStep,
    SnippetTest, Template, Variable, VariableMap,
};

use super::Fault;
use super::instead::instead;
use super::level::{Level, LevelStep, LocationLevel, by_precedence, everyone};
use super::tree::{self, Directive};
use crate::value::{NginxTime, Size, Value};
use crate::variable::has_no_value;
use crate::verdict::nearest;

/// Where a directive stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Context {
    Main = 1,
    Http = 2,
    Server = 4,
    Location = 8,
    /// `if` of a server.
    ServerIf = 16,
    /// `if` of a location.
    LocationIf = 32,
    LimitExcept = 64,
    /// The location that asks an authentication service.
    Auth = 128,
}

impl Context {
    /// That of an annotation or key, by its name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "configuration-snippet" | "location-snippet" => Self::Location,
            "server-snippet" => Self::Server,
            "http-snippet" => Self::Http,
            "main-snippet" => Self::Main,
            "auth-snippet" | "global-auth-snippet" => Self::Auth,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Main => "the top level",
            Self::Http => "`http`",
            Self::Server => "`server`",
            Self::Location => "`location`",
            Self::ServerIf => "`if` in `server`",
            Self::LocationIf => "`if` in `location`",
            Self::LimitExcept => "`limit_except`",
            Self::Auth => "the authentication request",
        }
    }
}

const H: u8 = Context::Http as u8;
const S: u8 = Context::Server as u8;
const L: u8 = Context::Location as u8;
const SI: u8 = Context::ServerIf as u8;
const LI: u8 = Context::LocationIf as u8;
const LE: u8 = Context::LimitExcept as u8;
const A: u8 = Context::Auth as u8;

/// Directives that are read: their contexts in nginx, and the fewest and most arguments.
const DIRECTIVES: &[(&str, u8, usize, usize)] = &[
    ("access_log", H | S | L | LI, 1, 1),
    ("add_header", H | S | L | LI, 2, 3),
    ("allow", H | S | L | LE, 1, 1),
    ("auth_request_set", H | S | L, 2, 2),
    ("break", S | L | SI | LI, 0, 0),
    ("client_max_body_size", H | S | L, 1, 1),
    ("default_type", H | S | L, 1, 1),
    ("deny", H | S | L | LE, 1, 1),
    ("expires", H | S | L | LI, 1, 1),
    ("geo", H, 1, 2),
    ("gzip", H | S | L | LI, 1, 1),
    ("if", S | L, 1, 16),
    ("limit_except", L, 1, 16),
    ("location", S, 1, 2),
    ("map", H, 2, 2),
    ("more_clear_headers", H | S | L | LI, 1, 64),
    ("more_clear_input_headers", H | S | L | LI, 1, 64),
    ("more_set_headers", H | S | L | LI, 1, 64),
    ("more_set_input_headers", H | S | L | LI, 1, 64),
    ("proxy_connect_timeout", H | S | L, 1, 1),
    ("proxy_cookie_flags", H | S | L, 1, 4),
    ("proxy_hide_header", H | S | L, 1, 1),
    ("proxy_pass_header", H | S | L, 1, 1),
    ("proxy_read_timeout", H | S | L, 1, 1),
    ("proxy_send_timeout", H | S | L, 1, 1),
    ("proxy_set_header", H | S | L | A, 2, 2),
    ("proxy_ssl_name", H | S | L, 1, 1),
    ("proxy_ssl_server_name", H | S | L, 1, 1),
    ("real_ip_header", H | S | L, 1, 1),
    ("return", S | L | SI | LI, 1, 2),
    ("rewrite", S | L | SI | LI, 2, 3),
    ("satisfy", H | S | L, 1, 1),
    ("set", S | L | SI | LI, 2, 2),
    ("sub_filter", H | S | L, 2, 2),
    ("sub_filter_last_modified", H | S | L, 1, 1),
    ("sub_filter_once", H | S | L, 1, 1),
    ("sub_filter_types", H | S | L, 1, 64),
];

/// Directives without an effect here, and why.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("chunked_transfer_encoding", "the framing of a body is decided by the message and the client's version"),
    ("client_body_buffer_size", "bodies are streamed"),
    ("client_body_in_file_only", "bodies are streamed"),
    ("etag", "it concerns files, and there are none"),
    ("limit_conn_zone", "it does nothing without limit_conn"),
    ("limit_req_zone", "it does nothing without limit_req"),
    ("log_format", "it does nothing without an access_log that names it"),
    ("log_not_found", "it concerns files, and there are none"),
    ("log_subrequest", "there are no subrequests"),
    ("map_hash_bucket_size", "there are no such tables"),
    ("map_hash_max_size", "there are no such tables"),
    ("msie_padding", "no browser needs it"),
    ("pcre_jit", "regexes are compiled anyway"),
    ("port_in_redirect", "redirects name no port, as in ingress-nginx"),
    ("proxy_buffer_size", "use the annotation proxy-buffer-size for larger heads"),
    ("proxy_buffering", "bodies are streamed, and never written to a disk"),
    ("proxy_buffers", "bodies are streamed"),
    ("proxy_busy_buffers_size", "bodies are streamed"),
    ("proxy_cache_path", "it does nothing without proxy_cache"),
    ("proxy_headers_hash_bucket_size", "there are no such tables"),
    ("proxy_headers_hash_max_size", "there are no such tables"),
    ("proxy_ignore_headers", "no field of a backend commands the proxy"),
    ("proxy_max_temp_file_size", "there are no temporary files"),
    ("proxy_request_buffering", "use the annotation proxy-request-buffering"),
    ("proxy_socket_keepalive", "connections to backends are checked when they are used"),
    ("reset_timedout_connection", "connections that time out are closed"),
    ("rewrite_log", "explain tells what happens to a request"),
    ("sendfile", "there are no files"),
    ("server_names_hash_bucket_size", "there are no such tables"),
    ("server_names_hash_max_size", "there are no such tables"),
    ("server_tokens", "no field of the proxy names its version"),
    ("tcp_nodelay", "it is always on"),
    ("tcp_nopush", "it concerns files, and there are none"),
    ("thread_pool", "there are no such threads"),
    ("types_hash_max_size", "there are no such tables"),
    ("uninitialized_variable_warn", "a variable without a value is a finding"),
    ("variables_hash_bucket_size", "there are no such tables"),
    ("variables_hash_max_size", "there are no such tables"),
    ("worker_cpu_affinity", "the scheduler decides"),
    ("worker_priority", "use the resources of the pod"),
    ("worker_rlimit_nofile", "the limit of the container holds"),
];

/// Bytes of a text that is searched for. Each byte of a body may be compared with that many.
// No limit of its own: a longer text refuses its snippet.
const SEARCHED: usize = 1024;

/// Statuses with which `add_header` without `always` and `expires` apply.
const ORDINARY: [u16; 10] = [200, 201, 204, 206, 301, 302, 303, 304, 307, 308];

/// What there is about texts as a whole.
struct Reader {
    declares: BTreeSet<String>,
    needs: BTreeSet<String>,
    words: Vec<String>,
    /// Whether a pattern comes before, so that `$1` may mean something.
    has_groups: bool,
}

/// Reads a text.
///
/// # Errors
/// The first directive, argument or context outside the set.
pub(super) fn read(text: &str, context: Context) -> Result<Level, Fault> {
    let tree = tree::parse(text)?;
    let mut reader = Reader { declares: BTreeSet::new(), needs: BTreeSet::new(), words: Vec::new(), has_groups: false };
    let level = reader.level(&tree, context)?;
    let Reader { declares, needs, words, .. } = reader;
    Ok(Level { declares, needs, words, ..level })
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

/// One directive on its way into a level.
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

    /// Notes what the directive asks for, in plain words.
    fn told(&mut self, words: impl AsRef<str>) {
        let place = match self.context {
            Context::ServerIf | Context::LocationIf => "if so, ",
            Context::LimitExcept => "for them, ",
            _ => "",
        };
        self.reader.words.push(format!("line {}: {place}{}", self.directive.line, words.as_ref()));
    }

    fn argument(&self, at: usize) -> &str {
        self.directive.arguments.get(at).map_or("", String::as_str)
    }

    fn unknown(&self) -> Fault {
        let name = &*self.directive.name;
        match instead(name) {
            Some(instead) => self.fault(format!("it is not read; use {instead}")),
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

    /// A text with variables. `early` says that it is needed before there is a response.
    fn template(&mut self, text: &str, early: bool) -> Result<Template, Fault> {
        if text.len() > crate::limit::FIELD_VALUE {
            return Err(self.fault(format!("expected at most {} bytes", crate::limit::FIELD_VALUE)));
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
                // Only `auth_request_set` has use for it, and says so of any other name.
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

    fn add_header(&mut self) -> Result<(), Fault> {
        let [name, value] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        let always = match self.argument(2) {
            "" => false,
            "always" => true,
            _ => return Err(self.fault("expected always, or nothing, after the value")),
        };
        let template = self.template(&value, false)?;
        // Of these there is one in a response.
        let single = ["Last-Modified", "ETag"].iter().any(|own| own.eq_ignore_ascii_case(&name));
        let change = match (value.is_empty(), single) {
            (true, true) => Change::Remove,
            (_, true) => Change::Set(template),
            (_, false) => Change::Add(template),
        };
        let edit = self.edit(&name, change)?;
        let statuses = if always { Vec::new() } else { ORDINARY.to_vec() };
        let when = if always { "every response" } else { "ordinary responses" };
        self.told(format!("add to {when} the field {name}: {value}"));
        self.level.add.push(ResponseEdit { edit, statuses, types: Vec::new() });
        Ok(())
    }

    fn more_headers(&mut self) -> Result<(), Fault> {
        let clears = self.directive.name == "more_clear_headers";
        let (mut statuses, mut types): (Vec<u16>, Vec<Box<str>>) = (Vec::new(), Vec::new());
        let mut fields = Vec::new();
        let arguments = self.directive.arguments.clone();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "-s" => {
                    let list = self.expected(arguments.next(), "statuses after -s")?;
                    for status in list.split_ascii_whitespace() {
                        let status = status.parse().ok().filter(|status| (100..600).contains(status));
                        statuses.push(self.expected(status, "statuses after -s")?);
                    }
                }
                "-t" => {
                    let list = self.expected(arguments.next(), "types after -t")?;
                    types.extend(list.split_ascii_whitespace().map(Box::from));
                }
                option if option.starts_with('-') => {
                    return Err(self.fault(format!("the option {option} is not read; -s and -t are")));
                }
                _ => fields.push(argument.clone()),
            }
        }
        if fields.is_empty() {
            return Err(self.fault("expected a field"));
        }
        for field in fields {
            let (name, value) = field.split_once(':').unwrap_or((&field, ""));
            let (name, value) = (name.trim(), value.trim_start());
            if name.contains('*') {
                return Err(self.fault("a name with * is not read; name each field"));
            }
            let change = match value {
                _ if clears => Change::Remove,
                "" => Change::Remove,
                value => Change::Set(self.template(value, false)?),
            };
            let verb = if change == Change::Remove { "remove the field" } else { "set the field" };
            let mut words = format!("{verb} {name}");
            if change != Change::Remove {
                words.push_str(&format!(": {value}"));
            }
            if !statuses.is_empty() {
                words.push_str(&format!(", with the statuses {statuses:?}"));
            }
            if !types.is_empty() {
                words.push_str(&format!(", of the types {}", types.join(" ")));
            }
            let edit = self.edit(name, change)?;
            self.told(words);
            self.level.more.push(ResponseEdit { edit, statuses: statuses.clone(), types: types.clone() });
        }
        Ok(())
    }

    fn input_headers(&mut self) -> Result<(), Fault> {
        let clears = self.directive.name == "more_clear_input_headers";
        for field in self.directive.arguments.clone() {
            if field.starts_with('-') {
                return Err(self.fault(format!("the option {field} is not read")));
            }
            let (name, value) = field.split_once(':').unwrap_or((&field, ""));
            let (name, value) = (name.trim(), value.trim_start());
            if name.contains('*') {
                return Err(self.fault("a name with * is not read; name each field"));
            }
            let change =
                if clears || value.is_empty() { Change::Remove } else { Change::Set(self.template(value, true)?) };
            let edit = self.edit(name, change)?;
            self.told(format!("the backend gets {name}: {}", if clears { "" } else { value }));
            self.level.input.push(edit);
        }
        Ok(())
    }

    fn set_header(&mut self) -> Result<(), Fault> {
        let [name, value] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        if self.context != Context::Auth
            && ["Connection", "Upgrade"].iter().any(|own| own.eq_ignore_ascii_case(&name))
            && ["", "$http_upgrade", "websocket", "upgrade", "$connection_upgrade", "keep-alive", "close"]
                .iter()
                .any(|own| own.eq_ignore_ascii_case(&value))
        {
            self.told(format!("{name} has no effect: the proxy handles connections and WebSockets itself"));
            return Ok(());
        }
        let template = self.template(&value, false)?;
        if matches!(self.context, Context::Http | Context::Server) {
            self.told(format!("{name} has no effect: each location sets its own request fields, as in ingress-nginx"));
            return Ok(());
        }
        let change = if value.is_empty() { Change::Remove } else { Change::Set(template) };
        let edit = self.edit(&name, change)?;
        let who = if self.context == Context::Auth { "the authentication service" } else { "the backend" };
        let what = if value.is_empty() { "no field" } else { "the field" };
        self.told(format!("{who} gets {what} {name}{}{value}", if value.is_empty() { "" } else { ": " }));
        self.level.set_request.push(edit);
        Ok(())
    }

    fn expires(&mut self, text: &str) -> Result<(), Fault> {
        let control = match text {
            "off" => {
                self.told("the backend's Expires and Cache-Control stay");
                self.level.expires = Some(Vec::new());
                return Ok(());
            }
            "epoch" => "no-cache".to_owned(),
            "max" => "max-age=315360000".to_owned(),
            text => match text.strip_prefix('-') {
                Some(past) => {
                    self.expected(NginxTime::parse(past), "a time, epoch, max or off")?;
                    "no-cache".to_owned()
                }
                None => {
                    let time = self.expected(NginxTime::parse(text), "a time, epoch, max or off")?;
                    format!("max-age={}", time.0.as_secs())
                }
            },
        };
        let set = |name: &str, value: &str| FieldEdit::set(name, value).map_err(|_| self.fault("no field"));
        let edits = [set("Expires", "")?, set("Cache-Control", &control)?];
        let edits = edits.map(|edit| ResponseEdit { edit, statuses: ORDINARY.to_vec(), types: Vec::new() });
        self.told(format!("ordinary responses have Cache-Control: {control}, and no Expires"));
        self.level.expires = Some(edits.into());
        Ok(())
    }

    fn answer(&mut self) -> Result<(), Fault> {
        let [first, second] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        let count = self.directive.arguments.len();
        let is_url = |text: &str| ["http://", "https://", "$scheme"].iter().any(|start| text.starts_with(start));
        if count == 1 && is_url(&first) {
            let to = self.template(&first, true)?;
            self.told(format!("redirect with 302 to {first}"));
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
        self.level.steps.push(step);
        Ok(())
    }

    fn set(&mut self) -> Result<(), Fault> {
        let [name, value] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        let name = self.expected(name.strip_prefix('$').map(str::to_owned), "a variable, with `$`")?;
        let own = self.variable(&name)?;
        let value_template = self.template(&value, true)?;
        self.told(format!("the variable ${name} is \"{value}\""));
        self.level.steps.push(LevelStep::Plain(SnippetStep::Set(own, value_template)));
        Ok(())
    }

    /// Declares a variable.
    fn variable(&mut self, name: &str) -> Result<Box<str>, Fault> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid =
            !name.is_empty() && name.len() <= 128 && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(is_name);
        if !valid {
            return Err(self.fault("expected the name of a variable: letters, digits and _"));
        }
        if Variable::from_name(name) != Variable::Unknown(name.into()) || has_no_value(name) {
            return Err(self.fault(format!("${name} is a variable of nginx, which can't be set here")));
        }
        self.reader.declares.insert(name.to_owned());
        Ok(name.into())
    }

    fn rewrite(&mut self) -> Result<(), Fault> {
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
        let change = PathChange { pattern: compiled, target: template, keeps_query, then };
        self.level.steps.push(LevelStep::Plain(SnippetStep::Rewrite(Box::new(change))));
        Ok(())
    }

    fn condition(&mut self) -> Result<(), Fault> {
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
        self.told(format!("if {shown}:"));
        let context = if self.context == Context::Server { Context::ServerIf } else { Context::LocationIf };
        let block = self.directive.block.as_deref().unwrap_or_default();
        let inner = self.reader.level(block, context)?;
        self.level.steps.push(LevelStep::If(test, Box::new(inner)));
        Ok(())
    }

    fn map(&mut self) -> Result<(), Fault> {
        let source = self.argument(0).to_owned();
        let source = self.template(&source, true)?;
        let name = self.expected(self.argument(1).strip_prefix('$').map(str::to_owned), "a variable, with `$`")?;
        let (mut entries, mut default) = (Vec::new(), Template::parse(""));
        for entry in self.directive.block.as_deref().unwrap_or_default() {
            match (&*entry.name, &entry.arguments[..], &entry.block) {
                ("volatile", [], None) => {}
                ("default", [value], None) => default = self.template(value, true)?,
                ("hostnames" | "include", ..) => {
                    return Err(self.fault(format!("{} in a map is not read", entry.name)));
                }
                (key, [value], None) => {
                    let key = match key.strip_prefix('~') {
                        Some(pattern) => match pattern.strip_prefix('*') {
                            Some(pattern) => MapKey::Pattern(self.pattern(pattern, true)?),
                            None => MapKey::Pattern(self.pattern(pattern, false)?),
                        },
                        None => MapKey::Text(key.strip_prefix('\\').unwrap_or(key).into()),
                    };
                    entries.push((key, self.template(value, true)?));
                }
                _ => return Err(self.fault("expected keys with one value each")),
            }
        }
        self.told(format!("the variable ${name} depends on {source}, by {} keys", entries.len()));
        let name = self.variable(&name)?;
        self.level.maps.push(VariableMap { name, source, entries: by_precedence(entries), default });
        Ok(())
    }

    fn geo(&mut self) -> Result<(), Fault> {
        let count = self.directive.arguments.len();
        let source = if count == 2 { self.argument(0).to_owned() } else { "$remote_addr".to_owned() };
        let source = self.template(&source, true)?;
        let name = self.argument(count - 1).strip_prefix('$').map(str::to_owned);
        let name = self.expected(name, "a variable, with `$`")?;
        let (mut networks, mut default) = (Vec::new(), Template::parse(""));
        for entry in self.directive.block.as_deref().unwrap_or_default() {
            match (&*entry.name, &entry.arguments[..], &entry.block) {
                ("default", [value], None) => {
                    self.literal(value)?;
                    default = Template::parse(value);
                }
                (network, [value], None) => {
                    let read = NetworkSet::parse(network).filter(|_| !network.contains(','));
                    let read = self
                        .expected(read, "networks with one value each, or default; ranges and proxies aren't read")?;
                    self.literal(value)?;
                    networks.push((read, Template::parse(value)));
                }
                _ => return Err(self.fault("expected networks with one value each, or default")),
            }
        }
        // The narrowest network decides.
        let width = |set: &NetworkSet| set.networks().first().map_or(0, |network| network.prefix_len());
        networks.sort_by_key(|(set, _)| std::cmp::Reverse(width(set)));
        let entries = networks.into_iter().map(|(set, value)| (MapKey::Network(set), value)).collect::<Vec<_>>();
        self.told(format!("the variable ${name} depends on the address {source}, by {} networks", entries.len()));
        let name = self.variable(&name)?;
        self.level.maps.push(VariableMap { name, source, entries, default });
        Ok(())
    }

    fn access(&mut self, text: &str) -> Result<(), Fault> {
        let allow = self.directive.name == "allow";
        let networks = match text {
            "all" => everyone(),
            text => {
                let read = NetworkSet::parse(text).filter(|_| !text.contains(','));
                self.expected(read, "all, an address or a network")?
            }
        };
        self.told(format!("{} {text}", if allow { "admit" } else { "answer 403 to" }));
        self.level.rules.push((allow, networks));
        Ok(())
    }

    fn limit_except(&mut self) -> Result<(), Fault> {
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
        self.told(format!("for methods other than {}:", methods.join(", ")));
        let block = self.directive.block.as_deref().unwrap_or_default();
        let inner = self.reader.level(block, Context::LimitExcept)?;
        self.level.except = Some(MethodRules { methods, rules: inner.rules });
        Ok(())
    }

    /// A `location` of a server. Nothing but its directives is there: what they don't answer is 404, as for a file that nginx lacks.
    fn location(&mut self) -> Result<(), Fault> {
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
            "=" => (PathMatch::exact(text), format!("requests for exactly {text}:")),
            "" => (PathMatch::start(text), format!("requests for paths that start with {text}:")),
            "~" | "~*" => {
                let case = if ignores_case { "i" } else { "-i" };
                (
                    PathMatch::regex(&format!("(?s:.*)(?{case}:{text})")),
                    format!("requests for paths that match {text}:"),
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
        let mut inner = self.reader.level(block, Context::Location)?;
        self.reader.has_groups = had_groups;
        if let Some(pattern) = groups {
            // The groups of the path count until another pattern matches.
            let test = SnippetTest::Matches(Template::parse("$uri"), pattern);
            inner.steps.insert(0, LevelStep::If(test, Box::default()));
        }
        self.level.locations.push(LocationLevel { path, text: text.into(), level: Box::new(inner) });
        Ok(())
    }

    fn auth_set(&mut self) -> Result<(), Fault> {
        let [name, value] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        let name = self.expected(name.strip_prefix('$').map(str::to_owned), "a variable, with `$`")?;
        let mut parts = Vec::new();
        for segment in self.template(&value, false)?.segments() {
            parts.push(match segment {
                Segment::Literal(text) => AuthPart::Text((&**text).into()),
                Segment::Variable(Variable::UpstreamField(field)) => {
                    AuthPart::Field(self.name(&field.replace('_', "-"))?)
                }
                Segment::Variable(Variable::UpstreamStatus) => AuthPart::Status,
                Segment::Variable(Variable::Unknown(name)) if name.starts_with("upstream_cookie_") => {
                    AuthPart::Cookie(name["upstream_cookie_".len()..].into())
                }
                Segment::Variable(_) => {
                    let message = "expected $upstream_http_... with the name of a field of the authentication's answer, \
                        $upstream_cookie_... or $upstream_status";
                    return Err(self.fault(message));
                }
            });
        }
        let name = self.variable(&name)?;
        self.told(format!("the variable ${name} is {value} of the authentication's answer"));
        self.level.auth_sets.retain(|own| own.name != name);
        self.level.auth_sets.push(AuthVariable { name, parts });
        Ok(())
    }

    fn cookie_flags(&mut self) -> Result<(), Fault> {
        let arguments = self.directive.arguments.clone();
        let Some((cookies, flags)) = arguments.split_first() else { return Err(self.fault("expected a cookie")) };
        if cookies == "off" && flags.is_empty() {
            self.told("the attributes of the backend's cookies stay");
            self.level.cookie_flags = Some(Vec::new());
            return Ok(());
        }
        self.literal(cookies)?;
        let mut own = CookieFlags {
            cookies: match cookies.strip_prefix('~') {
                Some("") => Cookies::All,
                Some(pattern) => {
                    let pattern = format!("(?i){pattern}").parse::<SearchRegex>().ok();
                    Cookies::Matching(self.expected(pattern, "a regex that runs in linear time after ~")?)
                }
                None => Cookies::Named((&**cookies).into()),
            },
            ..CookieFlags::default()
        };
        for flag in flags {
            let flag = flag.to_ascii_lowercase();
            match &*flag {
                "secure" => own.secure = Some(true),
                "nosecure" => own.secure = Some(false),
                "httponly" => own.http_only = Some(true),
                "nohttponly" => own.http_only = Some(false),
                "samesite=strict" => own.same_site = Some("Strict".into()),
                "samesite=lax" => own.same_site = Some("Lax".into()),
                "samesite=none" => own.same_site = Some("None".into()),
                "nosamesite" => own.same_site = Some("".into()),
                _ => {
                    return Err(self.fault(
                        "expected secure, httponly, samesite=strict, =lax or =none, or one of them with no in front",
                    ));
                }
            }
        }
        self.told(format!("the backend's cookies {cookies} have the attributes {}", flags.join(", ")));
        self.level.cookie_flags.get_or_insert_default().push(own);
        Ok(())
    }

    fn substitute(&mut self) -> Result<(), Fault> {
        let [from, to] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        if from.is_empty() || from.len() > SEARCHED || from.contains('$') {
            let message = format!("expected a text to search for of at most {SEARCHED} bytes, without variables");
            return Err(self.fault(message));
        }
        let others: usize = self.level.substitutes.iter().map(|(from, _)| from.len()).sum();
        if others + from.len() > SEARCHED {
            return Err(self.fault(format!("expected at most {SEARCHED} bytes of texts to search for in all")));
        }
        let template = self.template(&to, false)?;
        self.told(format!("replace {from:?} in pages by {to:?}"));
        self.level.substitutes.push((from.into(), template));
        Ok(())
    }
}

fn always(edit: FieldEdit) -> ResponseEdit {
    ResponseEdit { edit, statuses: Vec::new(), types: Vec::new() }
}
