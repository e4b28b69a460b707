//! The heads that the proxy sends: the client's request as an endpoint gets it, an endpoint's response as the client gets it.

use fairway_model::field::is_same_field;
use fairway_model::{Backend, Route, Template, TooLong};

use crate::access_log::Format;
use crate::error::Failure;
use crate::http1::{
    FieldName, Framing, HeadWriter, KnownField, KnownSet, PreparedField, RequestHead, ResponseHead, Version,
};
use crate::live::Live;
use crate::respond::{Clock, Persistence};
use crate::work::Scratch;

const HOST: FieldName<'_> = FieldName::from_static("Host");
const CONNECTION: FieldName<'_> = FieldName::from_static("Connection");
const UPGRADE: FieldName<'_> = FieldName::from_static("Upgrade");
const X_FORWARDED_PREFIX: FieldName<'_> = FieldName::from_static("X-Forwarded-Prefix");
const X_ORIGINAL_URI: FieldName<'_> = FieldName::from_static("X-Original-URI");
const SET_COOKIE: FieldName<'_> = FieldName::from_static("Set-Cookie");

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

/// Fields of the endpoint's response that never pass.
const DROPPED_FROM_RESPONSE: KnownSet = KnownSet::HOP_BY_HOP.union(KnownSet::X_ACCEL);

/// A request head for an endpoint.
#[derive(Debug)]
pub(crate) struct UpstreamRequest<'a> {
    /// The client's head.
    pub(crate) head: &'a RequestHead,
    /// What it was parsed from.
    pub(crate) bytes: &'a [u8],
    /// Target, client and prefix.
    pub(crate) scratch: &'a Scratch,
    /// The snapshot.
    pub(crate) live: &'a Live,
    /// Host for the endpoint in place of the client's.
    pub(crate) upstream_host: Option<&'a Template>,
    /// The same in the form that is evaluated, if it has variables.
    pub(crate) host_format: Option<&'a Format>,
    /// The fields about the client that are the same for every request of the connection.
    pub(crate) family: Option<&'a PreparedField>,
    /// The backend.
    pub(crate) backend: &'a Backend,
    /// The route and the backend of its rule, when the request goes to the fallback in its place.
    pub(crate) in_place_of: Option<(&'a Route, Option<&'a Backend>)>,
    /// The protocols that are asked for, one of which is to take over the connection.
    pub(crate) upgrade: Option<&'a [u8]>,
    /// Whether the endpoint connection is not kept.
    pub(crate) close: bool,
}

impl UpstreamRequest<'_> {
    /// Appends the head.
    ///
    /// # Errors
    /// If a configured value makes it unwritable.
    pub(crate) fn write(
        &self,
        out: &mut Vec<u8>,
        value: &mut Vec<u8>,
        expand: impl Fn(&Format, &mut Vec<u8>) -> Result<(), TooLong>,
    ) -> Result<(), Failure> {
        let Self { head, bytes, scratch, live, backend, .. } = *self;
        let prepared = &live.prepared;
        let client = &scratch.client;
        let mut writer = HeadWriter::new(out);
        writer.request_line(head.method_bytes(bytes), &scratch.target).map_err(|_| Failure::Unwritable)?;
        value.clear();
        match (self.upstream_host.map(Template::literal), self.host_format) {
            (Some(Some(text)), _) => value.extend_from_slice(text.as_bytes()),
            (Some(None), Some(format)) => expand(format, value)?,
            _ => value.extend_from_slice(client.host()),
        }
        if !prepared.replaced_known.contains(KnownField::Host) {
            writer.field(HOST, value).map_err(|_| Failure::Unwritable)?;
        }
        client.write_fields(&mut writer, prepared.replaced_known, self.family);
        if live.snapshot.settings().original_uri_header {
            let _ = writer.field(X_ORIGINAL_URI, head.target_span().of(bytes));
        }
        if !scratch.prefix.is_empty() {
            let _ = writer.field(X_FORWARDED_PREFIX, &scratch.prefix);
        }
        let mut dropped = DROPPED | client.removed() | prepared.replaced_known;
        if !scratch.prefix.is_empty() {
            dropped = dropped.with(KnownField::XForwardedPrefix);
        }
        let forwarded = &live.snapshot.settings().forwarded;
        let backend_sets =
            |name: &[u8]| backend.request_fields.iter().any(|(own, _)| is_same_field(own.as_bytes(), name));
        // A field that names the client passes under its own name from a trusted peer only, and in another spelling from nobody.
        let names_client = |name: &[u8]| {
            [&forwarded.address_field, &forwarded.host_field].iter().any(|own| {
                is_same_field(own.as_bytes(), name)
                    && !(client.is_trusted() && name.eq_ignore_ascii_case(own.as_bytes()))
            })
        };
        writer.forward(head.fields(), bytes, dropped, |field| {
            let name = field.name(bytes);
            prepared.replaced.iter().any(|own| is_same_field(name, own))
                || names_client(name)
                || backend_sets(name)
                || (self.in_place_of.is_some() && FALLBACK.iter().any(|own| is_same_field(name, own.as_bytes())))
        });
        if let Some((route, backend)) = self.in_place_of {
            let accept = head.fields().get(KnownField::Accept, bytes).unwrap_or_default();
            let service = backend.map_or(("", ""), |backend| (&*backend.origin.name, &*backend.port));
            let values: [&[u8]; 6] = [
                b"503",
                accept,
                route.origin.namespace.as_bytes(),
                route.origin.name.as_bytes(),
                service.0.as_bytes(),
                service.1.as_bytes(),
            ];
            for (name, value) in FALLBACK.iter().zip(values) {
                if !value.is_empty() {
                    let _ = writer.field(*name, value);
                }
            }
        }
        for (name, format) in &prepared.request_fields {
            value.clear();
            expand(format, value)?;
            if let Ok(name) = FieldName::try_from(&**name)
                && !value.is_empty()
            {
                // A value that cannot stand in a field is left out, as an empty one is.
                let _ = writer.field(name, value);
            }
        }
        for (name, text) in &backend.request_fields {
            if let Ok(name) = FieldName::try_from(name.as_bytes()) {
                let _ = writer.field(name, text.as_bytes());
            }
        }
        if head.framing() == Framing::Chunked {
            writer.framing(Framing::Chunked);
        }
        if let Some(protocols) = self.upgrade {
            write_upgrade(&mut writer, protocols);
        } else if self.close {
            let _ = writer.field(CONNECTION, b"close");
        }
        writer.finish();
        Ok(())
    }
}

/// What is changed in a response on its way to the client, and where that is noted.
#[derive(Debug)]
pub(crate) struct ResponseEdits<'a> {
    /// The snapshot.
    pub(crate) live: &'a Live,
    /// The value of Date.
    pub(crate) clock: &'a Clock,
    /// Whether it carries Strict-Transport-Security.
    pub(crate) strict_transport_security: bool,
    /// The cookie that starts a session; empty for none.
    pub(crate) session_cookie: &'a [u8],
    /// Gets the head as it is sent, if the log tells something of it.
    pub(crate) sent_head: &'a mut Vec<u8>,
}

/// A response head for a client.
#[derive(Debug)]
pub(crate) struct ClientResponse<'a> {
    /// The endpoint's head.
    pub(crate) head: &'a ResponseHead,
    /// What it was parsed from.
    pub(crate) bytes: &'a [u8],
    /// The snapshot.
    pub(crate) live: &'a Live,
    /// How the body is framed for the client.
    pub(crate) framing: Framing,
    /// Whether the endpoint's framing field goes on as it is.
    pub(crate) framing_kept: bool,
    /// Whether it carries Strict-Transport-Security.
    pub(crate) strict_transport_security: bool,
    /// The cookie that starts a session; empty for none.
    pub(crate) session_cookie: &'a [u8],
    /// What becomes of the connection.
    pub(crate) persistence: Persistence,
    /// The protocol that takes over the connection.
    pub(crate) switched_to: Option<&'a [u8]>,
}

impl ClientResponse<'_> {
    /// Appends the head.
    pub(crate) fn write(&self, out: &mut Vec<u8>, clock: &Clock) {
        let Self { head, bytes, live, .. } = *self;
        let prepared = &live.prepared;
        let settings = live.snapshot.settings();
        let mut writer = HeadWriter::new(out);
        writer.forward_status_line(head, bytes);
        if !head.fields().present().contains(KnownField::Date) {
            clock.write(&mut writer);
        }
        let mut dropped = DROPPED_FROM_RESPONSE | prepared.hidden_known;
        if !(settings.server_tokens && settings.allow_backend_server_header) {
            dropped = dropped.with(KnownField::Server);
            if let Some(server) = &prepared.server {
                writer.prepared(server);
            }
        }
        let security = prepared.strict_transport_security.as_ref().filter(|_| self.strict_transport_security);
        if security.is_some() {
            dropped = dropped.with(KnownField::StrictTransportSecurity);
        }
        if !self.framing_kept {
            dropped = dropped.with(KnownField::ContentLength);
        }
        if prepared.hidden.is_empty() {
            writer.forward(head.fields(), bytes, dropped, |_| false);
        } else {
            writer.forward(head.fields(), bytes, dropped, |field| {
                prepared.hidden.iter().any(|name| field.name(bytes).eq_ignore_ascii_case(name))
            });
        }
        if let Some(field) = security {
            writer.prepared(field);
        }
        for field in &prepared.response_fields {
            writer.prepared(field);
        }
        if !self.session_cookie.is_empty() {
            let _ = writer.field(SET_COOKIE, self.session_cookie);
        }
        if self.framing == Framing::Chunked {
            writer.framing(Framing::Chunked);
        }
        match self.switched_to {
            Some(protocol) => write_upgrade(&mut writer, protocol),
            None => self.persistence.write(&mut writer),
        }
        writer.finish();
    }
}

fn write_upgrade(writer: &mut HeadWriter<'_>, protocols: &[u8]) {
    let _ = writer.field(CONNECTION, b"upgrade");
    let _ = writer.field(UPGRADE, protocols);
}

/// Appends an interim response (103 and the like). Clients of HTTP/1.0 know none (RFC 9110 15.2): for them nothing is appended.
pub(crate) fn write_interim(head: &ResponseHead, bytes: &[u8], to: Version, out: &mut Vec<u8>) -> bool {
    if to == Version::Http10 {
        return false;
    }
    let mut writer = HeadWriter::new(out);
    writer.forward_status_line(head, bytes);
    writer.forward(head.fields(), bytes, DROPPED_FROM_RESPONSE.with(KnownField::ContentLength), |_| false);
    writer.finish();
    true
}
