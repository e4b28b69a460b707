//! Turns received fields into the ones that are sent: of a request to its endpoint, of a response to its client.

use std::hint::cold_path;

use super::{Forwarding, Plan, Scratch};
use crate::client::ClientView;
use crate::edit::NameLengths;
use crate::field::is_same_field;
use crate::{
    Backend, Change, ClientAuth, Compressing, ConfiguredName, ExternalAuth, FieldEdit, FieldName, FieldRules,
    FieldSink, Fields, GivenField, Host, KnownField, KnownSet, RequestView, ResponseEdit, Route, Substitution,
    Template, TooLong, decimal,
};

const CONTENT_ENCODING: FieldName<'_> = FieldName::from_static("Content-Encoding");
const ETAG: FieldName<'_> = FieldName::from_static("ETag");
const HOST: FieldName<'_> = FieldName::from_static("Host");
const SERVER: FieldName<'_> = FieldName::from_static("Server");
const SET_COOKIE: FieldName<'_> = FieldName::from_static("Set-Cookie");
const VARY: FieldName<'_> = FieldName::from_static("Vary");
const X_FORWARDED_PREFIX: FieldName<'_> = FieldName::from_static("X-Forwarded-Prefix");
const SSL_CLIENT_CERT: FieldName<'_> = FieldName::from_static("ssl-client-cert");
const SSL_CLIENT_ISSUER_DN: FieldName<'_> = FieldName::from_static("ssl-client-issuer-dn");
const SSL_CLIENT_SUBJECT_DN: FieldName<'_> = FieldName::from_static("ssl-client-subject-dn");
const SSL_CLIENT_VERIFY: FieldName<'_> = FieldName::from_static("ssl-client-verify");
const X_ORIGINAL_URI: FieldName<'_> = FieldName::from_static("X-Original-URI");

/// The fields that describe the original request to a fallback (ingress-nginx, "Custom errors").
const FALLBACK: [FieldName<'_>; 7] = [
    FieldName::from_static("X-Code"),
    FieldName::from_static("X-Format"),
    FieldName::from_static("X-Namespace"),
    FieldName::from_static("X-Ingress-Name"),
    FieldName::from_static("X-Service-Name"),
    FieldName::from_static("X-Service-Port"),
    X_ORIGINAL_URI,
];

/// Fields of the client's request that are never forwarded as received: hop-by-hop fields, those that the proxy writes, instructions that
/// only a backend may give, and Expect, which the proxy answers itself.
const DROPPED: KnownSet = KnownSet::HOP_BY_HOP.union(KnownSet::X_ACCEL).with(KnownField::Host).with(KnownField::Expect);

/// Fields that only the proxy writes.
const WRITTEN: KnownSet = DROPPED.union(ClientView::written()).with(KnownField::ContentLength);

/// Fields of a response that are never forwarded.
const DROPPED_FROM_RESPONSE: KnownSet = KnownSet::HOP_BY_HOP.union(KnownSet::X_ACCEL);

/// Fields of a response that compression replaces or removes.
const REPRESENTATION: KnownSet =
    KnownSet::EMPTY.with(KnownField::ContentLength).with(KnownField::AcceptRanges).with(KnownField::Etag);

/// Evaluates templates with variables.
pub trait Expand {
    /// Appends the expansion of a template for the request, as far as it is known so far.
    ///
    /// # Errors
    ///
    /// If the result is longer than a request head may be.
    fn expand(&mut self, template: &Template, out: &mut Vec<u8>) -> Result<(), TooLong>;
}

/// Appends the value of a template; a plain copy if it has no variables.
pub(super) fn value_of(template: &Template, expand: &mut impl Expand, out: &mut Vec<u8>) -> Result<(), TooLong> {
    out.clear();
    match template.literal() {
        Some(text) => {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        }
        None => expand.expand(template, out),
    }
}

/// Writes the fields of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestEdits<'a, 's, F> {
    /// The request as received.
    pub head: RequestView<'a, F>,
    /// The decision.
    pub plan: &'a Plan<'s>,
    /// The destination.
    pub forwarding: Forwarding<'s>,
    /// The backend.
    pub backend: &'a Backend,
    /// The backend it stands in for, if the snapshot holds that one.
    pub in_place_of: Option<&'a Backend>,
    /// Texts produced by the decision.
    pub scratch: &'a Scratch,
    /// The settings for fields.
    pub rules: &'a FieldRules,
    /// The authentication service, if this is the request to it.
    pub auth: Option<&'a ExternalAuth>,
    /// Whether the length of the body differs from that of the client's request.
    pub reframed: bool,
}

impl<'a, F: Fields<'a>> RequestEdits<'a, '_, F> {
    /// Writes all fields except those of framing and of the connection. `family` is the output of
    /// [`ClientView::write_family`] for the connection; `value` is scratch memory.
    ///
    /// # Errors
    ///
    /// If the expansion of a template is too long.
    pub fn write<S: FieldSink<F>>(
        &self,
        sink: &mut S,
        family: Option<&S::Prepared>,
        value: &mut Vec<u8>,
        expand: &mut impl Expand,
    ) -> Result<(), TooLong> {
        if let Some(auth) = self.auth {
            cold_path();
            return self.write_auth(auth, sink, value, expand);
        }
        let Self { head, rules, backend, scratch, .. } = *self;
        let error = self.plan.replaces_error();
        let client = &scratch.client;
        let mut replaced = rules.replaced_in_request.known();
        let mut lengths = NameLengths::default();
        if self.plan.edits_request() {
            // What the route sets replaces what the proxy would write itself.
            self.plan.request_edits().filter(|edit| takes_place(edit)).for_each(|edit| {
                lengths.add(edit.name().as_str());
                replaced = edit.known().map_or(replaced, |known| replaced.with(known));
            });
        }
        if !replaced.contains(KnownField::Host) {
            match &self.forwarding.rule.policy.upstream_host {
                Some(template) => {
                    value_of(template, expand, value)?;
                    sink.field(HOST, value);
                }
                None => sink.field(HOST, client.host()),
            }
        }
        client.write_fields(sink, replaced, family);
        if rules.original_uri && error.is_none() {
            sink.field(X_ORIGINAL_URI, head.raw_target);
        }
        let mut dropped = DROPPED | client.removed() | replaced;
        if error.is_some() || self.reframed {
            dropped = dropped.with(KnownField::ContentLength);
        }
        if !scratch.prefix.is_empty() {
            sink.field(X_FORWARDED_PREFIX, &scratch.prefix);
            dropped = dropped.with(KnownField::XForwardedPrefix);
        }
        if self.plan.hides_credentials {
            dropped = dropped.with(KnownField::Authorization);
        }
        if let Some(auth) = self.plan.host.and_then(Host::client_auth) {
            cold_path();
            // Not even a trusted peer knows about the certificates that are checked here.
            dropped = dropped | KnownSet::SSL_CLIENT;
            self.write_identity(auth, sink, value);
        }
        let in_place = self.is_in_place();
        let edited = !lengths.is_empty();
        // Whether fields must be inspected by name, which most requests don't need.
        let guarded_by = self.plan.guarded_by;
        let by_name = edited
            || guarded_by.is_some_and(ExternalAuth::may_replace)
            || in_place
            || scratch.trace.is_some()
            || rules.replaced_in_request.has_others()
            || !rules.client_names.is_empty()
            || !backend.request_fields.is_empty();
        sink.forward(head.fields, dropped, |_, name| by_name && self.drops_by_name(name, &lengths));
        if let Some(trace) = &scratch.trace {
            cold_path();
            let set =
                |name: &[u8]| edited && self.plan.request_edits().any(|edit| takes_place(edit) && edit.is_about(name));
            trace.write(sink, set, value);
        }
        if in_place && let Some(route) = self.plan.route {
            cold_path();
            self.tell_fallback(route, error, sink);
        }
        if let (Some(auth), Some(given)) = (self.plan.allowed_by, &scratch.given) {
            cold_path();
            for (name, value) in given.fields(auth) {
                let text = name.as_str().as_bytes();
                // The service's fields yield to what the proxy writes itself and to what the owner of the route sets.
                let of_route = || self.plan.filter_edits().any(|edit| takes_place(edit) && edit.is_about(text));
                if !WRITTEN.contains(KnownField::classify(text)) && !of_route() {
                    sink.field(name.get(), value);
                }
            }
        }
        for edit in &rules.request {
            write_edit(edit, sink, value, expand)?;
        }
        if self.plan.edits_request() {
            for edit in self.plan.request_edits() {
                write_edit(edit, sink, value, expand)?;
            }
        }
        for (name, text) in &backend.request_fields {
            if let Ok(name) = FieldName::try_from(name.as_bytes()) {
                sink.field(name, text.as_bytes());
            }
        }
        Ok(())
    }

    /// Whether the backend gets this field of the client, regardless of a service's answer.
    pub fn forwards(&self, name: &[u8]) -> bool {
        let Self { head, plan, rules, scratch, .. } = *self;
        let mut dropped = DROPPED | scratch.client.removed() | rules.replaced_in_request.known();
        if !scratch.prefix.is_empty() {
            dropped = dropped.with(KnownField::XForwardedPrefix);
        }
        if plan.hides_credentials {
            dropped = dropped.with(KnownField::Authorization);
        }
        if plan.host.and_then(Host::client_auth).is_some() {
            dropped = dropped | KnownSet::SSL_CLIENT;
        }
        let is_dropped = |name: &[u8]| {
            rules.replaced_in_request.has_other(name)
                || rules.client_names.iter().any(|own| hides(own, name, &scratch.client))
                || scratch.trace.as_ref().is_some_and(|trace| trace.replaces(name))
                || plan.request_edits().any(|edit| takes_place(edit) && edit.is_about(name))
        };
        let mut own = head.fields.lines().filter(|line| is_same_field(line.name, name));
        own.any(|line| !dropped.contains(line.known) && !is_dropped(line.name))
    }

    /// Whether the request goes to another service than the one it is for.
    fn is_in_place(&self) -> bool {
        self.plan.replaces_error().is_some() || self.forwarding.in_place_of.is_some()
    }

    /// Whether a field of the client is dropped because of its name. `lengths` are those of the names that the route sets.
    #[inline(never)]
    fn drops_by_name(&self, name: &[u8], lengths: &NameLengths) -> bool {
        let Self { rules, backend, scratch, .. } = *self;
        rules.replaced_in_request.has_other(name)
            || rules.client_names.iter().any(|own| hides(own, name, &scratch.client))
            || backend.request_fields.iter().any(|(own, _)| is_same_field(own.as_bytes(), name))
            || self.plan.guarded_by.is_some_and(|auth| auth.replaces(name, scratch.given.as_deref()))
            || scratch.trace.as_ref().is_some_and(|trace| trace.replaces(name))
            || (lengths.may_have(name)
                && self.plan.request_edits().any(|edit| takes_place(edit) && edit.is_about(name)))
            || (self.is_in_place() && FALLBACK.iter().any(|own| is_same_field(own.as_bytes(), name)))
    }

    pub(super) fn write_identity<S: FieldSink<F>>(&self, auth: &ClientAuth, sink: &mut S, value: &mut Vec<u8>) {
        let Some(identity) = &self.scratch.identity else { return };
        value.clear();
        decimal::display(&identity.verified, value);
        sink.field(SSL_CLIENT_VERIFY, value);
        let certificate = if auth.passes_certificate { &*identity.escaped } else { "" };
        for (name, text) in [
            (SSL_CLIENT_SUBJECT_DN, &*identity.subject),
            (SSL_CLIENT_ISSUER_DN, &identity.issuer),
            (SSL_CLIENT_CERT, certificate),
        ] {
            if !text.is_empty() {
                sink.field(name, text.as_bytes());
            }
        }
    }

    /// Writes the fields that describe the original request, and the error response if one is replaced.
    fn tell_fallback<S: FieldSink<F>>(&self, route: &Route, error: Option<u16>, sink: &mut S) {
        let service = self.in_place_of.map_or(("", ""), |backend| (&*backend.origin.name, &*backend.port));
        let mut code = Vec::with_capacity(3);
        decimal::number(u64::from(error.unwrap_or(503)), &mut code);
        let values: [&[u8]; 7] = [
            &code,
            self.head.fields.get(KnownField::Accept).unwrap_or_default(),
            route.origin.namespace.as_bytes(),
            route.origin.name.as_bytes(),
            service.0.as_bytes(),
            service.1.as_bytes(),
            if error.is_some() { self.head.raw_target } else { b"" },
        ];
        for (name, value) in FALLBACK.iter().zip(values) {
            if !value.is_empty() {
                sink.field(*name, value);
            }
        }
    }
}

/// Whether an edit replaces fields with its name.
fn takes_place(edit: &FieldEdit) -> bool {
    edit.replaces() && edit.is_allowed()
}

/// Whether to drop a field that names the client: it passes only under its own name and only from a trusted peer; other
/// spellings never pass.
pub(super) fn hides(own: &[u8], name: &[u8], client: &ClientView) -> bool {
    is_same_field(own, name) && !(client.is_trusted() && name.eq_ignore_ascii_case(own))
}

/// Writes the fields of a response, an endpoint's or the proxy's own.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEdits<'a, 's> {
    /// The decision; `None` if the request could not be read.
    pub plan: Option<&'a Plan<'s>>,
    /// The settings for fields.
    pub rules: &'a FieldRules,
    /// The cookies to set, separated by line feeds; empty for none.
    pub cookies: &'a [u8],
    /// What compression does to the response.
    pub compressing: Compressing,
    /// Fields to add: the challenge of a 401 if another service sends its page.
    pub added: &'a [(ConfiguredName, Box<str>)],
    /// Fields from the service that has allowed the request.
    pub given: &'a [GivenField],
    /// Its status.
    pub status: u16,
    /// Whether texts of its body are replaced.
    pub substituting: bool,
}

impl<'a, 's> ResponseEdits<'a, 's> {
    /// All edits that there may be, before anything is known about the response.
    pub fn unconditional(plan: Option<&'a Plan<'s>>, rules: &'a FieldRules) -> Self {
        Self {
            plan,
            rules,
            cookies: b"",
            compressing: Compressing::Never,
            added: &[],
            given: &[],
            status: 0,
            substituting: false,
        }
    }

    /// Whether a field of the response is replaced or removed, so that callers need not produce it.
    pub fn replaces(&self, field: KnownField) -> bool {
        self.rules.replaced_in_response.known().contains(field)
    }

    /// The edits in the order in which they are written. Those of the settings come last, as in ingress-nginx, and
    /// replace what the route sets.
    pub fn edits(&self) -> impl Iterator<Item = &'a FieldEdit> + use<'a, 's> {
        self.edits_but_of_snippet().chain(self.of_snippet().iter().map(|own| &own.edit))
    }

    fn edits_but_of_snippet(&self) -> impl Iterator<Item = &'a FieldEdit> + use<'a, 's> {
        let Self { plan, rules, .. } = *self;
        let stays = |edit: &&FieldEdit| {
            let name = edit.name().as_str().as_bytes();
            !rules.response.iter().any(|other| other.replaces() && other.is_about(name))
        };
        plan.into_iter().flat_map(|plan| plan.response_edits(rules)).filter(stays).chain(&rules.response)
    }

    fn of_snippet(&self) -> &'a [ResponseEdit] {
        self.plan.and_then(Plan::snippet).map_or(&[], |edits| &edits.response)
    }

    /// Whether the value of any edit has variables; most responses have none.
    pub fn has_variables(&self) -> bool {
        let varies = |edit: &FieldEdit| edit.value().is_some_and(|value| value.literal().is_none());
        self.rules.response_varies || self.plan.is_some_and(Plan::edits_response) && self.edits().any(varies)
    }

    /// Writes all fields except those of framing and of the connection and those in `drop`.
    ///
    /// # Errors
    ///
    /// If the expansion of a template is too long; the other fields are written.
    pub fn write<'f, F: Fields<'f>, S: FieldSink<F>>(
        &self,
        fields: F,
        drop: KnownSet,
        sink: &mut S,
        value: &mut Vec<u8>,
        expand: &mut impl Expand,
    ) -> Result<(), TooLong> {
        let rules = self.rules;
        let mut dropped = DROPPED_FROM_RESPONSE | drop | rules.replaced_in_response.known();
        if !rules.server_passes {
            dropped = dropped.with(KnownField::Server);
            if let Some(server) = rules.server {
                sink.field(SERVER, server);
            }
        }
        if self.compressing.coding().is_some() {
            dropped = dropped | REPRESENTATION;
        }
        if self.substituting {
            cold_path();
            dropped = dropped | REPRESENTATION;
            if let Some(false) = self.substitution().map(|found| found.last_modified) {
                dropped = dropped.with(KnownField::LastModified);
            }
        }
        let media_type = if self.of_snippet().is_empty() { None } else { fields.get(KnownField::ContentType) };
        // Names of replaced fields besides the known ones.
        let mut others = NameLengths::default();
        let edited = self.plan.is_some_and(Plan::edits_response);
        if edited {
            dropped = dropped | self.replaced(media_type, &mut others);
        }
        let given = if self.given.is_empty() { Vec::new() } else { self.given_to(fields) };
        let rewrites = self.plan.and_then(Plan::response_rewrites);
        let gone = dropped;
        if let Some(rewrites) = rewrites {
            dropped = dropped | rewrites.fields();
        }
        sink.forward(fields, dropped, |_, name| {
            rules.replaced_in_response.has_other(name)
                || (others.may_have(name) && self.replaces_other(name, media_type))
                || given.iter().any(|one| one.replaces && is_same_field(one.name.as_str().as_bytes(), name))
        });
        if let Some(rewrites) = rewrites {
            cold_path();
            rewrites.write(fields, gone, sink, value);
        }
        if self.compressing.varies() {
            self.write_coding(fields, dropped, sink, value);
        }
        if !self.cookies.is_empty() {
            self.cookies.split(|&byte| byte == b'\n').for_each(|cookie| sink.field(SET_COOKIE, cookie));
        }
        for (name, text) in self.added {
            sink.field(name.get(), text.as_bytes());
        }
        for one in given.iter().filter(|one| !one.value.is_empty()) {
            sink.field(one.name.get(), &one.value);
        }
        if edited || !rules.response.is_empty() {
            return self.write_edits(media_type, sink, value, expand);
        }
        Ok(())
    }

    /// The service's fields that apply to a response with these fields: those of route and settings take precedence.
    #[inline(never)]
    fn given_to<'f, F: Fields<'f>>(&self, fields: F) -> Vec<&'a GivenField> {
        let applies = |one: &&GivenField| {
            let name = one.name.as_str().as_bytes();
            let has = || fields.lines().any(|line| is_same_field(line.name, name));
            one.only_with.is_none_or(|with| with == has())
                && !self.edits().any(|edit| takes_place(edit) && edit.is_about(name))
        };
        self.given.iter().filter(applies).collect()
    }

    /// The edits of the route.
    fn of_route(&self) -> impl Iterator<Item = &'a FieldEdit> + use<'a, 's> {
        let rules = self.rules;
        self.plan.into_iter().flat_map(move |plan| plan.response_edits(rules))
    }

    /// Whether a snippet's edit applies to a response with this media type.
    fn applies(&self, own: &ResponseEdit, media_type: Option<&[u8]>) -> bool {
        own.edit.is_allowed() && own.applies(self.status, media_type)
    }

    // The following are functions of their own, so that their code stays out of the way of responses without edits.

    /// The known fields that route and snippet replace; `others` gets the names of the rest.
    #[inline(never)]
    fn replaced(&self, media_type: Option<&[u8]>, others: &mut NameLengths) -> KnownSet {
        let mut known = KnownSet::EMPTY;
        let mut replace = |edit: &FieldEdit| match edit.known() {
            Some(field) => known = known.with(field),
            None => others.add(edit.name().as_str()),
        };
        self.of_route().filter(|edit| takes_place(edit)).for_each(&mut replace);
        let of_snippet = self.of_snippet().iter().filter(|own| takes_place(&own.edit));
        of_snippet.filter(|own| self.applies(own, media_type)).for_each(|own| replace(&own.edit));
        known
    }

    /// Whether route or snippet replace the field with this name.
    #[inline(never)]
    fn replaces_other(&self, name: &[u8], media_type: Option<&[u8]>) -> bool {
        let replaces = |edit: &FieldEdit| takes_place(edit) && edit.is_about(name);
        self.of_route().any(replaces)
            || self.of_snippet().iter().any(|own| replaces(&own.edit) && self.applies(own, media_type))
    }

    #[inline(never)]
    fn write_edits<F, S: FieldSink<F>>(
        &self,
        media_type: Option<&[u8]>,
        sink: &mut S,
        value: &mut Vec<u8>,
        expand: &mut impl Expand,
    ) -> Result<(), TooLong> {
        let of_snippet = self.of_snippet();
        let mut result = Ok(());
        // Edits of a snippet replace earlier ones, those of the route included.
        let is_replaced = |edit: &FieldEdit, later: &[ResponseEdit]| {
            let name = edit.name().as_str().as_bytes();
            let replaces = |other: &ResponseEdit| other.edit.replaces() && other.edit.is_about(name);
            later.iter().any(|other| replaces(other) && self.applies(other, media_type))
        };
        let mut write = |edit: &FieldEdit, applied: bool| {
            let written = match edit.value() {
                _ if applied => write_edit(edit, sink, value, expand),
                // Values come in the order of all edits, so those of edits that don't apply are consumed too.
                Some(template) if template.literal().is_none() && edit.is_allowed() => {
                    value.clear();
                    expand.expand(template, value)
                }
                _ => Ok(()),
            };
            result = std::mem::replace(&mut result, Ok(())).and(written);
        };
        self.edits_but_of_snippet().for_each(|edit| write(edit, !is_replaced(edit, of_snippet)));
        for (at, own) in of_snippet.iter().enumerate() {
            write(&own.edit, self.applies(own, media_type) && !is_replaced(&own.edit, &of_snippet[at + 1..]));
        }
        result
    }

    fn substitution(&self) -> Option<&'a Substitution> {
        self.plan.and_then(Plan::snippet)?.substitution.as_deref()
    }
}

impl ResponseEdits<'_, '_> {
    /// Writes the fields of a response whose coding depends on the client. Those in `dropped` are replaced or removed anyway.
    fn write_coding<'f, F: Fields<'f>, S: FieldSink<F>>(
        &self,
        fields: F,
        dropped: KnownSet,
        sink: &mut S,
        value: &mut Vec<u8>,
    ) {
        let is_named = |value: &[u8]| {
            value
                .split(|&byte| byte == b',')
                .map(<[u8]>::trim_ascii)
                .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"Accept-Encoding"))
        };
        if dropped.contains(KnownField::Vary) || !fields.all(KnownField::Vary).any(is_named) {
            sink.field(VARY, b"Accept-Encoding");
        }
        let Some(coding) = self.compressing.coding() else { return };
        sink.field(CONTENT_ENCODING, coding.name().as_bytes());
        if let Some(tag) = fields.get(KnownField::Etag)
            && !(self.rules.replaced_in_response.known().contains(KnownField::Etag))
        {
            // The tag no longer promises the same bytes (RFC 9110 8.8.1).
            value.clear();
            if !tag.starts_with(b"W/") {
                value.extend_from_slice(b"W/");
            }
            value.extend_from_slice(tag);
            sink.field(ETAG, value);
        }
    }
}

/// Writes the field that an edit sets or adds. An empty value is omitted.
pub(super) fn write_edit<F, S: FieldSink<F>>(
    edit: &FieldEdit,
    sink: &mut S,
    value: &mut Vec<u8>,
    expand: &mut impl Expand,
) -> Result<(), TooLong> {
    if let (Change::Set(template) | Change::Add(template), true) = (edit.change(), edit.is_allowed()) {
        let text = match template.literal() {
            Some(text) => text.as_bytes(),
            None => {
                value_of(template, expand, value)?;
                &value[..]
            }
        };
        // Whitespace around a value is not part of it (RFC 9110 5.5); an empty variable may leave one.
        let text = text.trim_ascii();
        if !text.is_empty() {
            sink.field(edit.name().get(), text);
        }
    }
    Ok(())
}
