//! The fields of the request to an authentication service. In ingress-nginx's form they are the client's, without those that only describe
//! its body or its connection, and those that describe the request. A filter of the Gateway API lists what the service gets, or gives an
//! ext_authz service everything.

use super::message::{Expand, RequestEdits, hides, value_of, write_edit};
use crate::client::ClientView;
use crate::field::is_same_field;
use crate::{
    AuthProtocol, ConfiguredName, ExternalAuth, FieldName, FieldSink, Fields, GrpcAuth, Host, HttpAuth, KnownField,
    KnownSet, Subrequest, TooLong,
};

const AUTHORIZATION: FieldName<'_> = FieldName::from_static("Authorization");
const HOST: FieldName<'_> = FieldName::from_static("Host");
const X_AUTH_REQUEST_REDIRECT: FieldName<'_> = FieldName::from_static("X-Auth-Request-Redirect");
const X_FORWARDED_FOR: FieldName<'_> = FieldName::from_static("X-Forwarded-For");
const X_ORIGINAL_METHOD: FieldName<'_> = FieldName::from_static("X-Original-Method");
const X_ORIGINAL_URI: FieldName<'_> = FieldName::from_static("X-Original-URI");
const X_ORIGINAL_URL: FieldName<'_> = FieldName::from_static("X-Original-URL");
const X_REAL_IP: FieldName<'_> = FieldName::from_static("X-Real-IP");
const X_REQUEST_ID: FieldName<'_> = FieldName::from_static("X-Request-ID");
const X_SCHEME: FieldName<'_> = FieldName::from_static("X-Scheme");
const X_SENT_FROM: FieldName<'_> = FieldName::from_static("X-Sent-From");

/// Fields of the client that the service doesn't get: those of the connection and of the body, and those that the proxy writes.
const DROPPED: KnownSet = KnownSet::HOP_BY_HOP
    .union(KnownSet::X_ACCEL)
    .union(ClientView::written())
    .with(KnownField::Host)
    .with(KnownField::Expect)
    .with(KnownField::ContentLength)
    .with(KnownField::XOriginalUrl)
    .with(KnownField::XOriginalMethod);

/// Names that the service attributes to the proxy, whoever sends them.
const OWN: [FieldName<'_>; 2] = [X_AUTH_REQUEST_REDIRECT, X_SENT_FROM];

impl<'a, F: Fields<'a>> RequestEdits<'a, '_, F> {
    /// Writes the fields of the request to an authentication service.
    pub(super) fn write_auth<S: FieldSink<F>>(
        &self,
        auth: &ExternalAuth,
        sink: &mut S,
        value: &mut Vec<u8>,
        expand: &mut impl Expand,
    ) -> Result<(), TooLong> {
        match &auth.protocol {
            AuthProtocol::Subrequest(asks) => return self.write_subrequest(asks, sink, value, expand),
            AuthProtocol::Http(HttpAuth { allowed, .. }) => {
                sink.field(HOST, self.scratch.client.host());
                self.write_allowed(|name| is_same_field(AUTHORIZATION.as_bytes(), name), allowed, sink);
            }
            AuthProtocol::Grpc(GrpcAuth { allowed: Some(allowed), .. }) => self.write_allowed(|_| false, allowed, sink),
            AuthProtocol::Grpc(GrpcAuth { allowed: None, .. }) => self.write_all(sink, value),
        }
        Ok(())
    }

    /// Writes the fields of a request in the form of ingress-nginx.
    fn write_subrequest<S: FieldSink<F>>(
        &self,
        auth: &Subrequest,
        sink: &mut S,
        value: &mut Vec<u8>,
        expand: &mut impl Expand,
    ) -> Result<(), TooLong> {
        let Self { head, plan, scratch, rules, .. } = *self;
        let client = &scratch.client;
        let replaces =
            |name: &[u8]| auth.fields.iter().any(|edit| edit.is_allowed() && edit.replaces() && edit.is_about(name));
        let mut put = |name: FieldName<'_>, value: &[u8]| {
            if !value.is_empty() && !replaces(name.as_bytes()) {
                sink.field(name, value);
            }
        };
        put(HOST, auth.host.as_bytes());
        put(X_REQUEST_ID, client.request_id());
        value.clear();
        let host = head.authority.map_or(client.host(), |authority| authority.text);
        for part in [plan.scheme.as_str().as_bytes(), b"://", host] {
            value.extend_from_slice(part);
        }
        // The matched and forwarded path, not the received one: the service must not judge `/public/../admin` by its start.
        let start = value.len();
        scratch.append_target(head.query(), value);
        put(X_ORIGINAL_URL, value);
        let target = &value[start..];
        if auth.method.is_some() {
            put(X_ORIGINAL_URI, target);
            put(X_SCHEME, client.told_scheme());
        }
        if auth.request_redirect.is_none() {
            put(X_AUTH_REQUEST_REDIRECT, target);
        }
        put(X_ORIGINAL_METHOD, head.method);
        put(X_SENT_FROM, b"nginx-ingress-controller");
        let address = client.address_text();
        put(X_REAL_IP, &address);
        put(X_FORWARDED_FOR, client.forwarded_list().unwrap_or(&address));
        if let Some(template) = &auth.request_redirect {
            value_of(template, expand, value)?;
            put(X_AUTH_REQUEST_REDIRECT, value);
        }
        let mut dropped = DROPPED | client.removed();
        if let Some(demanded) = plan.host.and_then(Host::client_auth) {
            dropped = dropped | KnownSet::SSL_CLIENT;
            self.write_identity(demanded, sink, value);
        }
        sink.forward(head.fields, dropped, |_, name| {
            OWN.iter().any(|own| is_same_field(own.as_bytes(), name))
                || replaces(name)
                || scratch.trace.as_ref().is_some_and(|trace| trace.replaces(name))
                || rules.client_names.iter().any(|own| hides(own, name, client))
        });
        if let Some(trace) = &scratch.trace {
            trace.write(sink, replaces, value);
        }
        for edit in &auth.fields {
            write_edit(edit, sink, value, expand)?;
        }
        Ok(())
    }

    /// Writes the fields for a service that gets only what is listed and what is `always` sent. Fields that describe the client are
    /// Fairway's own.
    fn write_allowed<S: FieldSink<F>>(&self, always: impl Fn(&[u8]) -> bool, allowed: &[ConfiguredName], sink: &mut S) {
        let client = &self.scratch.client;
        let is_allowed = |name: &[u8]| allowed.iter().any(|own| is_same_field(own.as_str().as_bytes(), name));
        let known = allowed.iter().map(|name| KnownField::classify(name.as_str().as_bytes()));
        let known = known.fold(KnownSet::EMPTY, KnownSet::with);
        client.write_fields(sink, ClientView::written().without_all(known), None);
        let dropped = DROPPED | KnownSet::SSL_CLIENT | client.removed();
        sink.forward(self.head.fields, dropped, |_, name| {
            !(always(name) || is_allowed(name)) || self.rules.client_names.iter().any(|own| hides(own, name, client))
        });
    }

    /// Writes the fields for a service that gets all: those of the client, and those about it that a backend gets.
    fn write_all<S: FieldSink<F>>(&self, sink: &mut S, value: &mut Vec<u8>) {
        let Self { head, plan, scratch, rules, .. } = *self;
        let client = &scratch.client;
        client.write_fields(sink, KnownSet::EMPTY, None);
        if let Some(demanded) = plan.host.and_then(Host::client_auth) {
            self.write_identity(demanded, sink, value);
        }
        let dropped = DROPPED | KnownSet::SSL_CLIENT | client.removed();
        sink.forward(head.fields, dropped, |_, name| {
            rules.client_names.iter().any(|own| hides(own, name, client))
                || scratch.trace.as_ref().is_some_and(|trace| trace.replaces(name))
        });
        if let Some(trace) = &scratch.trace {
            trace.write(sink, |_| false, value);
        }
    }
}
