//! The steps of a snippet, for one request. They may allocate: only routes with a snippet pay for it.

use std::net::IpAddr;

use super::{Failure, Plan, Received, Scratch, Step, target};
use crate::{
    AfterChange, Fields, GeoVariable, KnownField, MapKey, PathChange, Respond, SearchRegex, Segment, Snippet,
    SnippetIf, SnippetStep, SnippetTest, Template, TooLong, Variable, VariableMap, append_within, decimal, path,
};

/// How often the path may change and a route be chosen again, as in nginx.
const CHANGES: u8 = 10;

static TOO_MANY: Respond = Respond::page(500);

/// The variables that steps have set, and the groups of the last pattern that matched.
#[derive(Debug, Default)]
pub struct Variables {
    values: Vec<(Box<str>, Vec<u8>)>,
    /// How often the path has changed so far.
    changes: u8,
    /// Whether the steps of the host have run.
    host_has_run: bool,
}

impl Variables {
    /// The value of a variable; `None` if it was not set.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.values.iter().find(|(own, _)| **own == *name).map(|(_, value)| &value[..])
    }

    pub(super) fn set(&mut self, name: &str, value: Vec<u8>) {
        match self.values.iter_mut().find(|(own, _)| **own == *name) {
            Some((_, place)) => *place = value,
            None => self.values.push((name.into(), value)),
        }
    }
}

/// What comes after the steps of a snippet.
pub(super) enum Outcome<'s> {
    /// The next filter.
    Next,
    /// The answer.
    Done(Step<'s>),
    /// Another choice of the route: the path has changed.
    Choose,
}

/// One run of the steps.
struct Run<'r, 's, 'a, F> {
    received: &'r Received<'a, F>,
    limit: usize,
    geo: &'r dyn Fn(GeoVariable, IpAddr, &mut Vec<u8>),
    scratch: &'r mut Scratch,
    plan: &'r mut Plan<'s>,
    variables: Box<Variables>,
    /// Whether a step has changed the path.
    changed: bool,
}

enum Flow<'s> {
    Go,
    End,
    Choose,
    Done(Step<'s>),
}

/// Runs the steps, and applies the edits.
pub(super) fn run<'s, 'a, F: Fields<'a>>(
    snippet: &'s Snippet,
    received: &Received<'a, F>,
    limit: usize,
    geo: &dyn Fn(GeoVariable, IpAddr, &mut Vec<u8>),
    scratch: &mut Scratch,
    plan: &mut Plan<'s>,
) -> Outcome<'s> {
    plan.snippet = Some(&snippet.edits);
    let is_for = |method: &[u8]| snippet.methods.iter().any(|own| own.as_bytes() == method);
    if snippet.steps.is_empty() || !(snippet.methods.is_empty() || is_for(received.head.method)) {
        return Outcome::Next;
    }
    let mut variables = scratch.variables.take().unwrap_or_default();
    if snippet.of_host && std::mem::replace(&mut variables.host_has_run, true) {
        scratch.variables = Some(variables);
        return Outcome::Next;
    }
    let mut run = Run { received, limit, geo, scratch, plan, variables, changed: false };
    let flow = run.steps(&snippet.steps);
    let (changed, mut variables) = (run.changed, run.variables);
    let chooses = match flow {
        Ok(Flow::Choose) => true,
        Ok(Flow::Go) => changed,
        // nginx chooses the location after the server's steps, however they end.
        Ok(Flow::End) => changed && snippet.of_host,
        Ok(Flow::Done(_)) | Err(_) => false,
    };
    variables.changes += u8::from(chooses);
    let outcome = match flow {
        Ok(Flow::Done(step)) => Outcome::Done(step),
        Err(failure) => Outcome::Done(Step::Fail(failure)),
        Ok(_) if chooses && variables.changes > CHANGES => Outcome::Done(Step::Respond(&TOO_MANY)),
        Ok(_) if chooses => Outcome::Choose,
        Ok(_) => Outcome::Next,
    };
    scratch.variables = Some(variables);
    outcome
}

impl<'s, 'a, F: Fields<'a>> Run<'_, 's, 'a, F> {
    fn steps(&mut self, steps: &'s [SnippetStep]) -> Result<Flow<'s>, Failure> {
        for step in steps {
            match self.step(step)? {
                Flow::Go => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Go)
    }

    fn step(&mut self, step: &'s SnippetStep) -> Result<Flow<'s>, Failure> {
        Ok(match step {
            SnippetStep::Set(name, value) => {
                let value = self.value(value)?;
                self.variables.set(name, value);
                Flow::Go
            }
            SnippetStep::Map(map) => {
                let value = self.mapped(map)?;
                self.variables.set(&map.name, value);
                Flow::Go
            }
            SnippetStep::If(block) => {
                if !self.holds(block)? {
                    return Ok(Flow::Go);
                }
                self.plan.snippet = Some(&block.edits);
                self.steps(&block.steps)?
            }
            SnippetStep::Respond(respond) => Flow::Done(Step::Respond(respond)),
            SnippetStep::Redirect(status, to) => {
                let to = self.value(to)?;
                self.redirect(&to);
                Flow::Done(Step::Redirect(*status))
            }
            SnippetStep::Rewrite(change) => self.rewrite(change)?,
            SnippetStep::Break => Flow::End,
        })
    }

    fn holds(&mut self, block: &SnippetIf) -> Result<bool, Failure> {
        Ok(match &block.test {
            SnippetTest::Is(value) => !matches!(&self.value(value)?[..], b"" | b"0"),
            SnippetTest::Equal(left, right) => self.value(left)? == self.value(right)?,
            SnippetTest::Unequal(left, right) => self.value(left)? != self.value(right)?,
            SnippetTest::Matches(value, pattern) => {
                let value = self.value(value)?;
                self.matches(pattern, &value)
            }
            SnippetTest::MatchesNot(value, pattern) => {
                let value = self.value(value)?;
                !self.matches(pattern, &value)
            }
        })
    }

    /// Whether a pattern matches, with its groups as `$1` to `$9` from then on.
    fn matches(&mut self, pattern: &SearchRegex, value: &[u8]) -> bool {
        let variables = &mut self.variables;
        pattern.groups(value, |group, text| {
            const NAMES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
            if let Some(name) = NAMES.get(group) {
                variables.set(name, text.unwrap_or_default().to_vec());
            }
        })
    }

    fn mapped(&mut self, map: &VariableMap) -> Result<Vec<u8>, Failure> {
        let source = self.value(&map.source)?;
        for (key, value) in &map.entries {
            let fits = match key {
                MapKey::Text(text) => text.as_bytes().eq_ignore_ascii_case(&source),
                MapKey::Pattern(pattern) => self.matches(pattern, &source),
                MapKey::Network(networks) => {
                    let address = str::from_utf8(&source).ok().and_then(|text| text.parse().ok());
                    address.is_some_and(|address| networks.contains(address))
                }
            };
            if fits {
                return Ok(self.value(value)?);
            }
        }
        Ok(self.value(&map.default)?)
    }

    fn rewrite(&mut self, change: &'s PathChange) -> Result<Flow<'s>, Failure> {
        let matched = self.scratch.matched.clone();
        if !self.matches(&change.pattern, &matched) {
            return Ok(Flow::Go);
        }
        let (new_path, mut query) = self.rewritten(&change.target)?;
        if change.keeps_query
            && let Some(old) = self.query()
        {
            let all = query.get_or_insert_default();
            if !all.is_empty() {
                all.push(b'&');
            }
            all.extend_from_slice(&old);
        }
        let query = query.filter(|query| !query.is_empty());
        if let AfterChange::Redirect(status) = change.then {
            let mut to = new_path;
            if let Some(query) = &query {
                // The query of a variable such as `$request_uri` is part of the path here.
                to.push(if to.contains(&b'?') { b'&' } else { b'?' });
                to.extend_from_slice(query);
            }
            self.redirect(&to);
            return Ok(Flow::Done(Step::Redirect(status)));
        }
        let Scratch { path, matched, target, .. } = &mut *self.scratch;
        target.clear();
        path::encode(&new_path, target);
        match path::canonicalize(target, path) {
            Ok(path) if path.forwarded == *target => {
                matched.clear();
                matched.extend_from_slice(path.matched);
            }
            _ => return Err(Failure::Rewritten),
        }
        // The query is in the URL by now; the received one no longer counts.
        let mut escaped = Vec::new();
        if let Some(query) = &query {
            escape(query, &mut escaped);
        }
        self.scratch.query = Some(escaped.into());
        if self.scratch.target.len() > self.limit {
            return Err(TooLong.into());
        }
        self.changed = true;
        Ok(match change.then {
            AfterChange::Stay => Flow::End,
            AfterChange::Choose => Flow::Choose,
            AfterChange::Continue | AfterChange::Redirect(_) => Flow::Go,
        })
    }

    /// The query: the received one, or that of the last rewrite.
    fn query(&self) -> Option<Vec<u8>> {
        match &self.scratch.query {
            Some(query) => Some(query.to_vec()),
            None => self.received.head.query().map(<[u8]>::to_vec),
        }
    }

    /// Redirects to a URL, or to a path of the same host. No value can end the field: what is not allowed in a URI is encoded.
    fn redirect(&mut self, to: &[u8]) {
        let Scratch { client, location, .. } = &mut *self.scratch;
        location.clear();
        if to.starts_with(b"/") {
            let host = target::without_port(client.host());
            for part in [client.scheme().as_str().as_bytes(), b"://", host] {
                location.extend_from_slice(part);
            }
        }
        escape(to, location);
    }

    fn value(&self, template: &Template) -> Result<Vec<u8>, TooLong> {
        let mut out = Vec::new();
        for segment in template.segments() {
            match segment {
                Segment::Literal(text) => append_within(&mut out, text.as_bytes(), self.limit)?,
                Segment::Variable(variable) => self.variable(variable, &mut out)?,
            }
        }
        Ok(out)
    }

    /// The path and the query of a rewrite's target. As in nginx, only a `?` of the target itself begins the query, and what a group
    /// brings into the query is escaped: no part of a request's path becomes a parameter of its own.
    fn rewritten(&self, target: &Template) -> Result<(Vec<u8>, Option<Vec<u8>>), TooLong> {
        let (mut path, mut query) = (Vec::new(), None::<Vec<u8>>);
        for segment in target.segments() {
            match (segment, &mut query) {
                (Segment::Literal(text), None) => {
                    let (before, after) = text.split_once('?').map_or((&**text, None), |(a, b)| (a, Some(b)));
                    append_within(&mut path, before.as_bytes(), self.limit)?;
                    query = after.map(|after| after.as_bytes().to_vec());
                }
                (Segment::Literal(text), Some(query)) => append_within(query, text.as_bytes(), self.limit)?,
                (Segment::Variable(variable), None) => self.variable(variable, &mut path)?,
                (Segment::Variable(variable), Some(query)) if is_group(variable) => {
                    let mut text = Vec::new();
                    self.variable(variable, &mut text)?;
                    for byte in text {
                        if b" #&+;?".contains(&byte) { percent(byte, query) } else { query.push(byte) }
                    }
                    append_within(query, b"", self.limit)?;
                }
                (Segment::Variable(variable), Some(query)) => self.variable(variable, query)?,
            }
        }
        Ok((path, query))
    }

    /// Appends a value that is known before there is a response. The parser of snippets accepts no other variables.
    fn variable(&self, variable: &Variable, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let Received { head, arrival, .. } = self.received;
        let client = &self.scratch.client;
        let mut put = |bytes: &[u8]| append_within(out, bytes, self.limit);
        let mut number = [0; 20];
        let mut lines = |lines: &mut dyn Iterator<Item = &'a [u8]>, between: &[u8]| {
            for (at, line) in lines.enumerate() {
                if at > 0 {
                    put(between)?;
                }
                put(line)?;
            }
            Ok(())
        };
        let mut digits = |value: u64| {
            let mut text = Vec::new();
            decimal::number(value, &mut text);
            number[..text.len()].copy_from_slice(&text);
            text.len()
        };
        match variable {
            Variable::Unknown(name) => put(self.variables.get(name).unwrap_or_default()),
            Variable::Geo(variable) => {
                let mut text = Vec::new();
                (self.geo)(*variable, client.address(), &mut text);
                put(&text)
            }
            Variable::RemoteAddr => put(&client.address_text()),
            Variable::RemotePort => {
                let len = digits(client.port().into());
                put(&number[..len])
            }
            Variable::RequestMethod => put(head.method),
            Variable::RequestUri => put(head.raw_target),
            Variable::EscapedRequestUri => {
                let mut text = Vec::new();
                for &byte in head.raw_target {
                    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                        text.push(byte);
                    } else {
                        percent(byte, &mut text);
                    }
                }
                put(&text)
            }
            Variable::Uri => put(&self.scratch.matched),
            Variable::Args => put(&self.query().unwrap_or_default()),
            Variable::IsArgs if self.query().is_some_and(|query| !query.is_empty()) => put(b"?"),
            Variable::Scheme => put(client.scheme().as_str().as_bytes()),
            Variable::Https if client.scheme() == crate::Scheme::Https => put(b"on"),
            Variable::Host => {
                // As in nginx, the request's own, whatever a trusted peer says, without the final dot, which routing ignores too.
                let own = head.authority.map_or(client.host(), |authority| authority.text);
                let host = target::without_port(own);
                put(&host.strip_suffix(b".").unwrap_or(host).to_ascii_lowercase())
            }
            Variable::ServerName => match self.plan.host.map(|host| host.pattern().to_string()) {
                Some(name) => put(name.as_bytes()),
                None => Ok(()),
            },
            Variable::ServerPort => {
                let len = digits(arrival.local.port().into());
                put(&number[..len])
            }
            Variable::ForwardedPort => {
                let len = digits(client.forwarded_port().into());
                put(&number[..len])
            }
            Variable::RequestId => put(client.request_id()),
            Variable::ContentType => lines(&mut head.fields.all(KnownField::ContentType), b", "),
            Variable::RequestField(name) if &**name == "host" => {
                put(head.authority.map_or(client.host(), |authority| authority.text))
            }
            Variable::RequestField(name) => {
                let between: &[u8] = if &**name == "cookie" { b"; " } else { b", " };
                let mut all = head.fields.lines().filter(|line| line.is(name.as_bytes())).map(|line| line.value);
                lines(&mut all, between)
            }
            Variable::Argument(name) => {
                let query = self.query().unwrap_or_default();
                let found = query.split(|&byte| byte == b'&').find_map(|pair| {
                    let (own, rest) = pair.split_at_checked(name.len())?;
                    own.eq_ignore_ascii_case(name.as_bytes()).then(|| rest.strip_prefix(b"="))?
                });
                put(found.unwrap_or_default())
            }
            Variable::Cookie(name) => {
                let mut pairs = head.fields.all(KnownField::Cookie).flat_map(|value| value.split(|&byte| byte == b';'));
                let found = pairs.find_map(|pair| {
                    let (own, rest) = pair.trim_ascii_start().split_at_checked(name.len())?;
                    own.eq_ignore_ascii_case(name.as_bytes()).then(|| rest.strip_prefix(b"="))?
                });
                put(found.unwrap_or_default())
            }
            _ => Ok(()),
        }
    }
}

/// Whether a variable is a group of the last match.
fn is_group(variable: &Variable) -> bool {
    matches!(variable, Variable::Unknown(name) if name.len() == 1 && name.as_bytes()[0].is_ascii_digit())
}

/// Whether a variable has its value before there is a response, so that steps may use it.
pub fn is_early(variable: &Variable) -> bool {
    matches!(
        variable,
        Variable::RemoteAddr
            | Variable::Geo(_)
            | Variable::RemotePort
            | Variable::RequestMethod
            | Variable::RequestUri
            | Variable::EscapedRequestUri
            | Variable::Uri
            | Variable::Args
            | Variable::IsArgs
            | Variable::Scheme
            | Variable::Https
            | Variable::Host
            | Variable::ServerName
            | Variable::ServerPort
            | Variable::ForwardedPort
            | Variable::RequestId
            | Variable::ContentType
            | Variable::RequestField(_)
            | Variable::Argument(_)
            | Variable::Cookie(_)
    )
}

/// Appends text for a URI, with every byte that a URI may not contain percent-encoded.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        if byte <= b' ' || byte >= 0x7f || b"\"<>\\^`{|}".contains(&byte) {
            percent(byte, out);
        } else {
            out.push(byte);
        }
    }
}

fn percent(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}
