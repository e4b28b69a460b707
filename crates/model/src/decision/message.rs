//! The fields that a decision makes of those that came: of a request for its endpoint, of a response for its client.

use super::{Forwarding, Plan, Scratch};
use crate::client::ClientView;
use crate::field::is_same_field;
use crate::{
    Backend, Change, FieldEdit, FieldName, FieldRules, FieldSink, Fields, KnownField, KnownSet, RequestView, Route,
    Template, TooLong,
};

const HOST: FieldName<'_> = FieldName::from_static("Host");
const SERVER: FieldName<'_> = FieldName::from_static("Server");
const SET_COOKIE: FieldName<'_> = FieldName::from_static("Set-Cookie");
const X_FORWARDED_PREFIX: FieldName<'_> = FieldName::from_static("X-Forwarded-Prefix");
const X_ORIGINAL_URI: FieldName<'_> = FieldName::from_static("X-Original-URI");

/// What a fallback is told about the request that it answers (ingress-nginx, "Custom errors").
const FALLBACK: [FieldName<'_>; 6] = [
    FieldName::from_static("X-Code"),
    FieldName::from_static("X-Format"),
    FieldName::from_static("X-Namespace"),
    FieldName::from_static("X-Ingress-Name"),
    FieldName::from_static("X-Service-Name"),
    FieldName::from_static("X-Service-Port"),
];

/// Fields of the client's request that never pass as they are: this hop's, those written anew, instructions that only a backend
/// may give, and the expectation, which is answered here.
const DROPPED: KnownSet = KnownSet::HOP_BY_HOP.union(KnownSet::X_ACCEL).with(KnownField::Host).with(KnownField::Expect);

/// Fields of a response that never pass.
const DROPPED_FROM_RESPONSE: KnownSet = KnownSet::HOP_BY_HOP.union(KnownSet::X_ACCEL);

/// Evaluates templates with variables.
pub trait Expand {
    /// Appends what a template makes of the request, as far as it is known by now.
    ///
    /// # Errors
    /// If that is longer than a request's head may be.
    fn expand(&mut self, template: &Template, out: &mut Vec<u8>) -> Result<(), TooLong>;
}

/// Appends the value of a template, which is a copy where it has no variables.
fn value_of(template: &Template, expand: &mut impl Expand, out: &mut Vec<u8>) -> Result<(), TooLong> {
    out.clear();
    match template.literal() {
        Some(text) => {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        }
        None => expand.expand(template, out),
    }
}

/// What becomes of the fields of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestEdits<'a, 's, F> {
    /// The request as it came.
    pub head: RequestView<'a, F>,
    /// What was decided.
    pub plan: &'a Plan<'s>,
    /// Where it goes.
    pub forwarding: Forwarding<'s>,
    /// The backend.
    pub backend: &'a Backend,
    /// The backend in whose place it goes there, if the snapshot has that.
    pub in_place_of: Option<&'a Backend>,
    /// What the decision made.
    pub scratch: &'a Scratch,
    /// What the settings say about fields.
    pub rules: &'a FieldRules,
}

impl<'a, F: Fields<'a>> RequestEdits<'a, '_, F> {
    /// Writes all fields but those of framing and of the connection. `family` is what [`ClientView::write_family`] wrote for the
    /// connection; `value` is memory.
    ///
    /// # Errors
    /// If a template makes too much.
    pub fn write<S: FieldSink<F>>(
        &self,
        sink: &mut S,
        family: Option<&S::Prepared>,
        value: &mut Vec<u8>,
        expand: &mut impl Expand,
    ) -> Result<(), TooLong> {
        let Self { head, rules, backend, scratch, .. } = *self;
        let client = &scratch.client;
        let replaced = rules.replaced_in_request.known();
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
        if rules.original_uri {
            sink.field(X_ORIGINAL_URI, head.raw_target);
        }
        let mut dropped = DROPPED | client.removed() | replaced;
        if !scratch.prefix.is_empty() {
            sink.field(X_FORWARDED_PREFIX, &scratch.prefix);
            dropped = dropped.with(KnownField::XForwardedPrefix);
        }
        let in_place = self.forwarding.in_place_of.is_some();
        sink.forward(head.fields, dropped, |_, name| {
            rules.replaced_in_request.has_other(name)
                || rules.client_names.iter().any(|own| hides(own, name, client))
                || backend.request_fields.iter().any(|(own, _)| is_same_field(own.as_bytes(), name))
                || self.plan.request_edits().any(|edit| edit.replaces() && edit.is_allowed() && edit.is_about(name))
                || (in_place && FALLBACK.iter().any(|own| is_same_field(own.as_bytes(), name)))
        });
        if in_place && let Some(route) = self.plan.route {
            self.tell_fallback(route, sink);
        }
        for edit in rules.request.iter().chain(self.plan.request_edits()) {
            write_edit(edit, sink, value, expand)?;
        }
        for (name, text) in &backend.request_fields {
            if let Ok(name) = FieldName::try_from(name.as_bytes()) {
                sink.field(name, text.as_bytes());
            }
        }
        Ok(())
    }

    fn tell_fallback<S: FieldSink<F>>(&self, route: &Route, sink: &mut S) {
        let service = self.in_place_of.map_or(("", ""), |backend| (&*backend.origin.name, &*backend.port));
        let values: [&[u8]; 6] = [
            b"503",
            self.head.fields.get(KnownField::Accept).unwrap_or_default(),
            route.origin.namespace.as_bytes(),
            route.origin.name.as_bytes(),
            service.0.as_bytes(),
            service.1.as_bytes(),
        ];
        for (name, value) in FALLBACK.iter().zip(values) {
            if !value.is_empty() {
                sink.field(*name, value);
            }
        }
    }
}

/// A field that names the client passes under its own name from a trusted peer only, and in another spelling from nobody.
fn hides(own: &[u8], name: &[u8], client: &ClientView) -> bool {
    is_same_field(own, name) && !(client.is_trusted() && name.eq_ignore_ascii_case(own))
}

/// What becomes of the fields of a response, an endpoint's or one of the proxy's own.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEdits<'a, 's> {
    /// What was decided; `None` when the request could not be read.
    pub plan: Option<&'a Plan<'s>>,
    /// What the settings say about fields.
    pub rules: &'a FieldRules,
    /// The cookie that starts a session; empty for none.
    pub session_cookie: &'a [u8],
}

impl<'a, 's> ResponseEdits<'a, 's> {
    /// Whether a field of the response is replaced or removed, so that nobody needs to make it.
    pub fn replaces(&self, field: KnownField) -> bool {
        self.rules.replaced_in_response.known().contains(field)
    }

    /// The edits in the order in which they are written. What the settings set comes last, as in ingress-nginx, and replaces what the
    /// route sets.
    pub fn edits(&self) -> impl Iterator<Item = &'a FieldEdit> + use<'a, 's> {
        let Self { plan, rules, .. } = *self;
        let stays = |edit: &&FieldEdit| {
            let name = edit.name().as_str().as_bytes();
            !rules.response.iter().any(|other| other.replaces() && other.is_about(name))
        };
        plan.into_iter().flat_map(|plan| plan.response_edits(rules)).filter(stays).chain(&rules.response)
    }

    /// Writes all fields but those of framing and of the connection, without those in `drop`.
    ///
    /// # Errors
    /// If a template makes too much; what could be written is.
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
        let of_route = || self.plan.into_iter().flat_map(|plan| plan.response_edits(rules));
        let mut others = false;
        for edit in of_route().filter(|edit| edit.replaces() && edit.is_allowed()) {
            match edit.known() {
                Some(known) => dropped = dropped.with(known),
                None => others = true,
            }
        }
        sink.forward(fields, dropped, |_, name| {
            rules.replaced_in_response.has_other(name)
                || (others && of_route().any(|edit| edit.replaces() && edit.is_allowed() && edit.is_about(name)))
        });
        if !self.session_cookie.is_empty() {
            sink.field(SET_COOKIE, self.session_cookie);
        }
        let mut result = Ok(());
        for edit in self.edits() {
            result = result.and(write_edit(edit, sink, value, expand));
        }
        result
    }
}

/// Writes what an edit sets or adds. A value that comes out empty is left out.
fn write_edit<F, S: FieldSink<F>>(
    edit: &FieldEdit,
    sink: &mut S,
    value: &mut Vec<u8>,
    expand: &mut impl Expand,
) -> Result<(), TooLong> {
    if let (Change::Set(template) | Change::Add(template), true) = (edit.change(), edit.is_allowed()) {
        value_of(template, expand, value)?;
        if !value.is_empty() {
            sink.field(edit.name().get(), value);
        }
    }
    Ok(())
}
