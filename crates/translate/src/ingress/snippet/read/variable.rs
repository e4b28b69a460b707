//! Directives that make variables: `map`, `geo`, `auth_request_set`.

use fairway_model::{AuthPart, AuthVariable, MapKey, NetworkSet, Segment, Template, Variable, VariableMap};

use super::One;
use crate::ingress::snippet::Fault;
use crate::ingress::snippet::level::by_precedence;
use crate::value::Value;
use crate::variable::has_no_value;

impl One<'_> {
    /// Declares a variable.
    pub(super) fn variable(&mut self, name: &str) -> Result<Box<str>, Fault> {
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

    pub(super) fn map(&mut self) -> Result<(), Fault> {
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

    pub(super) fn geo(&mut self) -> Result<(), Fault> {
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

    pub(super) fn auth_set(&mut self) -> Result<(), Fault> {
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
}
