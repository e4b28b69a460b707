//! What the directives of one level ask for, and how levels inherit: by nginx's rules, which depend on the directive.

use std::collections::BTreeSet;
use std::time::Duration;

use fairway_model::{
    AccessRules, AuthVariable, Body, ByteLimit, Change, CookieFlags, FieldEdit, ForwardPolicy, MapKey, MethodRules,
    NetworkSet, PathMatch, Respond, ResponseEdit, Snippet, SnippetEdits, SnippetIf, SnippetStep, SnippetTest,
    Substitution, Template, UpstreamTls, VariableMap,
};

use super::Answering;

/// One level: the directives at the top of a snippet, or in an `if` block.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Level {
    /// `proxy_hide_header`.
    pub(super) hide: Vec<ResponseEdit>,
    /// `proxy_pass_header`.
    pub(super) pass: Vec<ResponseEdit>,
    /// `more_set_headers` and `more_clear_headers`.
    pub(super) more: Vec<ResponseEdit>,
    /// `expires`.
    pub(super) expires: Option<Vec<ResponseEdit>>,
    /// `add_header`.
    pub(super) add: Vec<ResponseEdit>,
    /// `proxy_set_header`.
    pub(super) set_request: Vec<FieldEdit>,
    /// `more_set_input_headers` and `more_clear_input_headers`.
    pub(super) input: Vec<FieldEdit>,
    /// The rewrite phase.
    pub(super) steps: Vec<LevelStep>,
    /// `allow` and `deny`.
    pub(super) rules: Vec<(bool, NetworkSet)>,
    /// Whether this stands for a text that can't be read and may restrict access.
    pub(super) refused: bool,
    /// `limit_except`.
    pub(super) except: Option<MethodRules>,
    pub(super) substitutes: Vec<(Box<str>, Template)>,
    pub(super) substitute_once: Option<bool>,
    pub(super) substitute_types: Option<Vec<Box<str>>>,
    pub(super) substitute_last_modified: Option<bool>,
    /// `gzip off`.
    pub(super) uncompressed: Option<bool>,
    pub(super) access_log: Option<bool>,
    pub(super) satisfy_any: Option<bool>,
    pub(super) default_type: Option<Box<str>>,
    pub(super) tls_name: Option<Box<str>>,
    pub(super) tls_sni: Option<bool>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) read_timeout: Option<Duration>,
    pub(super) send_timeout: Option<Duration>,
    pub(super) max_body: Option<ByteLimit>,
    pub(super) real_ip: Option<Box<str>>,
    /// `map` and `geo`.
    pub(super) maps: Vec<VariableMap>,
    /// `auth_request_set`.
    pub(super) auth_sets: Vec<AuthVariable>,
    /// `proxy_cookie_flags`.
    pub(super) cookie_flags: Option<Vec<CookieFlags>>,
    /// `location` blocks of a server.
    pub(super) locations: Vec<LocationLevel>,
    /// Variables that it sets.
    pub(super) declares: BTreeSet<String>,
    /// Variables that it uses and that only another snippet can declare.
    pub(super) needs: BTreeSet<String>,
    /// What it asks for, in plain words, with lines.
    pub(super) words: Vec<String>,
    /// The directives that may answer a request.
    pub(super) answering: Vec<Answering>,
}

/// A `location` of a server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LocationLevel {
    /// How paths are matched.
    pub(crate) path: PathMatch,
    /// The path or pattern as written.
    pub(crate) text: Box<str>,
    pub(super) level: Box<Level>,
}

/// A step, before the inheritance of its block is resolved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LevelStep {
    Plain(SnippetStep),
    /// `return` with a text, which has the type of the level.
    Text(u16, Box<str>),
    If(SnippetTest, Box<Level>),
}

impl Level {
    /// Whether it asks for nothing.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The level of two texts one after the other.
    pub(crate) fn joined(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.hide.extend_from_slice(&other.hide);
        all.pass.extend_from_slice(&other.pass);
        all.more.extend_from_slice(&other.more);
        all.add.extend_from_slice(&other.add);
        all.set_request.extend_from_slice(&other.set_request);
        all.input.extend_from_slice(&other.input);
        all.steps.extend_from_slice(&other.steps);
        all.rules.extend_from_slice(&other.rules);
        all.substitutes.extend_from_slice(&other.substitutes);
        all.maps.extend_from_slice(&other.maps);
        all.auth_sets.extend_from_slice(&other.auth_sets);
        all.locations.extend_from_slice(&other.locations);
        all.declares.extend(other.declares.iter().cloned());
        all.needs.extend(other.needs.iter().cloned());
        all.refused |= other.refused;
        all.inherit_settings(other);
        all
    }

    /// This level within another one.
    pub(crate) fn within(&self, outer: &Self) -> Self {
        let mut all = self.clone();
        let inherit = |own: &mut Vec<ResponseEdit>, outer: &[ResponseEdit]| {
            if own.is_empty() {
                own.extend_from_slice(outer);
            }
        };
        inherit(&mut all.hide, &outer.hide);
        inherit(&mut all.pass, &outer.pass);
        // A location that adds a field inherits no added field.
        inherit(&mut all.add, &outer.add);
        all.more.splice(0..0, outer.more.iter().cloned());
        all.input.splice(0..0, outer.input.iter().cloned());
        if all.rules.is_empty() {
            all.rules.clone_from(&outer.rules);
        }
        if all.auth_sets.is_empty() {
            all.auth_sets.clone_from(&outer.auth_sets);
        }
        if all.substitutes.is_empty() {
            all.substitutes.clone_from(&outer.substitutes);
        }
        // Inherited directives bring their variables along.
        all.needs.extend(outer.needs.iter().cloned());
        all.refused |= outer.refused;
        all.inherit_settings(outer);
        all
    }

    /// Inherits the settings that can be set only once.
    fn inherit_settings(&mut self, outer: &Self) {
        macro_rules! inherit {
            ($($field:ident)+) => {
                $(if self.$field.is_none() {
                    self.$field.clone_from(&outer.$field);
                })+
            };
        }
        inherit!(expires except substitute_once substitute_types substitute_last_modified uncompressed access_log satisfy_any
            default_type cookie_flags tls_name tls_sni connect_timeout read_timeout send_timeout max_body real_ip);
    }

    /// The level of a host for its locations, which inherit no request fields: in ingress-nginx each location sets these itself.
    pub(crate) fn for_locations(&self) -> Self {
        Self { set_request: Vec::new(), steps: Vec::new(), locations: Vec::new(), ..self.clone() }
    }

    /// A name that is needed and that no level in effect declares.
    pub(crate) fn undeclared<'a>(&'a self, outer: &[&Self]) -> Option<&'a str> {
        let declared =
            |name: &&String| self.declares.contains(*name) || outer.iter().any(|level| level.declares.contains(*name));
        self.needs.iter().find(|name| !declared(name)).map(String::as_str)
    }

    /// The form of the model, if there is anything to do. `maps` are those of the `http` block.
    pub(crate) fn snippet(&self, of_host: bool, maps: &[VariableMap]) -> Option<Snippet> {
        let mut steps = self.needed_maps(maps);
        let has_maps = !steps.is_empty();
        steps.extend(self.steps.iter().map(|step| self.step(step)));
        let edits = self.edits();
        let empty = (of_host || edits.is_empty()) && (steps.is_empty() || of_host && has_maps && self.steps.is_empty());
        let except = self.except.as_ref().filter(|_| !of_host && !steps.is_empty());
        let methods = except.map(|except| except.methods.clone()).unwrap_or_default();
        (!empty).then_some(Snippet { of_host, methods, steps, edits })
    }

    /// The maps that are used, each one before the maps that use it.
    fn needed_maps(&self, maps: &[VariableMap]) -> Vec<SnippetStep> {
        let mut wanted: BTreeSet<&str> = self.needs.iter().map(String::as_str).collect();
        let mut chosen = Vec::new();
        // A map may use only earlier ones, so one pass from the end finds all.
        for map in maps.iter().rev() {
            if wanted.contains(&*map.name) {
                let values = map.entries.iter().map(|(_, value)| value).chain([&map.source, &map.default]);
                wanted.extend(values.flat_map(Template::unknown));
                chosen.push(SnippetStep::Map(Box::new(map.clone())));
            }
        }
        chosen.reverse();
        chosen
    }

    fn step(&self, step: &LevelStep) -> SnippetStep {
        match step {
            LevelStep::Plain(step) => step.clone(),
            LevelStep::Text(status, text) => {
                let content_type = self.default_type.as_deref().unwrap_or("text/html").into();
                let body = Body::Text { content_type, text: (&**text).into() };
                SnippetStep::Respond(Respond { body, ..Respond::empty(*status) })
            }
            LevelStep::If(test, block) => {
                // A block has no request fields of its own, and inherits those of its location.
                let own = Self { set_request: self.set_request.clone(), ..block.within(self) };
                let steps = block.steps.iter().map(|step| own.step(step)).collect();
                SnippetStep::If(Box::new(SnippetIf { test: test.clone(), steps, edits: own.edits() }))
            }
        }
    }

    fn edits(&self) -> SnippetEdits {
        let mut request: Vec<FieldEdit> = Vec::new();
        for edit in &self.input {
            request.retain(|other| !other.is_about(edit.name().as_str().as_bytes()));
            request.push(edit.clone());
        }
        let set = |name: &[u8]| self.set_request.iter().any(|edit| edit.is_about(name));
        request.retain(|edit| !set(edit.name().as_str().as_bytes()));
        for (at, edit) in self.set_request.iter().enumerate() {
            let again = self.set_request[..at].iter().any(|other| other.is_about(edit.name().as_str().as_bytes()));
            match edit.change() {
                // nginx sends every line that a directive sets.
                Change::Set(value) if again => {
                    request.push(FieldEdit::new(edit.name().clone(), Change::Add(value.clone())));
                }
                _ => request.push(edit.clone()),
            }
        }
        let expires = self.expires.iter().flatten();
        let response = self.hide.iter().chain(&self.pass).chain(&self.more).chain(expires).chain(&self.add);
        SnippetEdits {
            request,
            response: response.cloned().collect(),
            substitution: (!self.substitutes.is_empty()).then(|| {
                Box::new(Substitution {
                    pairs: self.substitutes.clone(),
                    once: self.substitute_once.unwrap_or(true),
                    types: self.substitute_types.clone().unwrap_or_default(),
                    last_modified: self.substitute_last_modified.unwrap_or_default(),
                })
            }),
            uncompressed: self.uncompressed.unwrap_or_default(),
        }
    }

    /// The address rules after those of the annotations, if this level has any.
    pub(crate) fn access(&self, before: Option<&fairway_model::AccessList>, or_auth: bool) -> Option<AccessRules> {
        if self.rules.is_empty() && self.except.is_none() {
            return None;
        }
        let mut rules = Vec::new();
        if let Some(list) = before {
            if !list.deny.is_empty() {
                rules.push((false, list.deny.clone()));
            }
            if let Some(allow) = &list.allow {
                rules.extend([(true, allow.clone()), (false, everyone())]);
            }
        }
        // The rules of a host are not inherited by a location that has its own.
        rules.extend_from_slice(&self.rules);
        let except = self.except.clone().map(|mut except| {
            if except.rules.is_empty() {
                except.rules.clone_from(&rules);
            }
            Box::new(except)
        });
        Some(AccessRules { rules, except, or_auth })
    }

    /// Whether it changes how requests are forwarded.
    pub(crate) fn changes_policy(&self) -> bool {
        self.connect_timeout.is_some()
            || self.read_timeout.is_some()
            || self.send_timeout.is_some()
            || self.max_body.is_some()
            || self.tls_name.is_some()
            || self.tls_sni.is_some()
    }

    /// The policy with the values that are set here.
    pub(crate) fn changed(&self, policy: &ForwardPolicy) -> ForwardPolicy {
        let tls = policy.tls.as_ref().map(|tls| {
            let name = self.tls_name.clone().or_else(|| tls.name.clone());
            std::sync::Arc::new(UpstreamTls { sni: self.tls_sni.unwrap_or(tls.sni), name, ..(**tls).clone() })
        });
        ForwardPolicy {
            connect_timeout: self.connect_timeout.unwrap_or(policy.connect_timeout),
            read_timeout: self.read_timeout.unwrap_or(policy.read_timeout),
            send_timeout: self.send_timeout.unwrap_or(policy.send_timeout),
            max_body: self.max_body.unwrap_or(policy.max_body),
            tls,
            ..policy.clone()
        }
    }

    /// The variables to set from the answer of an authentication service.
    pub(crate) fn auth_sets(&self) -> &[AuthVariable] {
        &self.auth_sets
    }

    /// The changes of the attributes of backends' cookies.
    pub(crate) fn cookie_flags(&self) -> &[CookieFlags] {
        self.cookie_flags.as_deref().unwrap_or_default()
    }

    pub(crate) fn maps(&self) -> &[VariableMap] {
        &self.maps
    }

    pub(crate) fn access_log(&self) -> Option<bool> {
        self.access_log
    }

    pub(crate) fn satisfies_any(&self) -> Option<bool> {
        self.satisfy_any
    }

    pub(crate) fn real_ip(&self) -> Option<&str> {
        self.real_ip.as_deref()
    }

    /// Whether it may keep a request from the backend: by rules about addresses, or by steps that do more than set variables.
    pub(crate) fn may_refuse(&self) -> bool {
        let acts = |step: &LevelStep| !matches!(step, LevelStep::Plain(SnippetStep::Set(..) | SnippetStep::Map(_)));
        !self.rules.is_empty() || self.except.is_some() || !self.locations.is_empty() || self.steps.iter().any(acts)
    }
}

/// All addresses.
pub(super) fn everyone() -> NetworkSet {
    ["0.0.0.0/0", "::/0"].iter().filter_map(|network| network.parse().ok()).collect()
}

/// Keys of a `map`, exact texts first, as nginx looks them up.
pub(super) fn by_precedence(entries: Vec<(MapKey, Template)>) -> Vec<(MapKey, Template)> {
    let (texts, patterns): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| matches!(key, MapKey::Text(_)));
    texts.into_iter().chain(patterns).collect()
}
