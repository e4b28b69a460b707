//! Directives that edit the fields of requests and responses.

use fairway_model::{Change, ResponseEdit};

use super::One;
use super::table::Context;
use crate::ingress::snippet::Fault;

/// Statuses with which `add_header` without `always` and `expires` apply.
pub(super) const ORDINARY: [u16; 10] = [200, 201, 204, 206, 301, 302, 303, 304, 307, 308];

impl One<'_> {
    pub(super) fn add_header(&mut self) -> Result<(), Fault> {
        let [name, value] = [self.argument(0).to_owned(), self.argument(1).to_owned()];
        let always = match self.argument(2) {
            "" => false,
            "always" => true,
            _ => return Err(self.fault("expected always, or nothing, after the value")),
        };
        let template = self.template(&value, false)?;
        // A response has only one of these fields.
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

    pub(super) fn more_headers(&mut self) -> Result<(), Fault> {
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

    pub(super) fn input_headers(&mut self) -> Result<(), Fault> {
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

    pub(super) fn set_header(&mut self) -> Result<(), Fault> {
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
}
