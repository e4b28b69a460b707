//! The client of a request and the host, scheme and port it asked for, decided once per request from the connection,
//! the head and the settings; and the fields that carry them to the endpoint (ingress-nginx `nginx.tmpl`,
//! `lua_ingress.lua`).
//!
//! Invariant: claims of an untrusted peer about these reach an endpoint only under a name that starts with
//! `X-Original-`, where no backend takes them for facts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use crate::decimal::AddressText;
use crate::{
    FieldLine, FieldName, FieldSink, Fields, ForwardedHeaders, KnownField, KnownSet, NetworkSet, RequestView, Scheme,
    Settings, ToldPort, decimal,
};

/// Remote and local address of a connection, and its scheme.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// Address of the peer, or of the client named in the PROXY header.
    pub peer: SocketAddr,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// Scheme of the connection itself.
    pub scheme: Scheme,
    /// Whether the PROXY header names port 443 as the client's destination: TLS ended in front of the proxy.
    pub tls_ended_before: bool,
    /// Whether the client was asked for a certificate, as the host that it named in the handshake demands.
    pub asked_for_certificate: bool,
    /// The port that endpoints are told.
    pub told_port: ToldPort,
}

impl Arrival {
    /// A connection without a PROXY header.
    pub fn new(peer: SocketAddr, local: SocketAddr, scheme: Scheme) -> Self {
        let told_port = ToldPort::Usual;
        Self { peer, local, scheme, tls_ended_before: false, asked_for_certificate: false, told_port }
    }

    /// The same at a listener that tells endpoints its port in this way.
    #[must_use]
    pub fn telling(self, told_port: ToldPort) -> Self {
        Self { told_port, ..self }
    }
}

/// The forwarded information that is trusted from a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PeerTrust {
    /// Nothing.
    None,
    /// Its address.
    Address,
    /// All that it says.
    All,
}

/// The decision about the client of one request. Reused across requests to avoid allocation.
#[derive(Clone, Debug)]
pub struct ClientView {
    address: IpAddr,
    port: u16,
    scheme: Scheme,
    /// The scheme named by a trusted peer, as spelt; empty for the scheme of the connection.
    named_scheme: Range<usize>,
    forwarded_port: u16,
    trust: PeerTrust,
    text: Vec<u8>,
    host: Range<usize>,
    request_id: Range<usize>,
    forwarded_for: Range<usize>,
    full_forwarded_for: Range<usize>,
    original_for: Range<usize>,
    original_host: Range<usize>,
}

impl ClientView {
    /// A client known only by its connection, for responses to requests that could not be read.
    pub fn of_connection(arrival: &Arrival) -> Self {
        let mut view = Self::default();
        view.restart(arrival);
        view
    }

    /// Decides everything about the client of a request. `random` gives 64 random bits.
    pub fn decide<'a, F: Fields<'a>>(
        &mut self,
        arrival: &Arrival,
        request: &RequestView<'a, F>,
        settings: &Settings,
        random: impl FnMut() -> u64,
    ) {
        let rules = &settings.forwarded;
        let fields = request.fields;
        self.restart(arrival);
        self.trust = match (rules.trusts(arrival.peer.ip()), rules.trust) {
            (false, _) => PeerTrust::None,
            (true, false) => PeerTrust::Address,
            (true, true) => PeerTrust::All,
        };

        let address_field = Named::new(&rules.address_field);
        if self.trust != PeerTrust::None {
            (self.address, self.port) = walk(arrival.peer, fields, address_field, &rules.trusted);
        }
        if self.is_trusted() {
            self.believe_scheme_and_port(fields);
        }
        if arrival.tls_ended_before {
            (self.scheme, self.named_scheme) = (Scheme::Https, 0..0);
        }
        self.host = self.push_host(request, rules);
        self.forwarded_for = self.push_joined(fields, Named::Known(KnownField::XForwardedFor));
        self.full_forwarded_for = if self.is_trusted() && rules.append && !self.forwarded_for.is_empty() {
            let from = self.forwarded_for.clone();
            let start = self.text.len();
            self.text.extend_from_within(from);
            self.text.extend_from_slice(b", ");
            start..self.push_address(arrival.peer.ip()).end
        } else if self.is_trusted() && rules.append {
            self.push_address(arrival.peer.ip())
        } else {
            0..0
        };
        self.original_for = match address_field {
            Named::Known(KnownField::XForwardedFor) => self.forwarded_for.clone(),
            other => self.push_joined(fields, other),
        };
        self.original_host = self.push_joined(fields, Named::new(&rules.host_field));
        self.request_id = self.push_joined(fields, Named::Known(KnownField::XRequestId));
        if self.request_id.is_empty() && settings.generate_request_id {
            self.request_id = self.push_random_id(random);
        }
    }

    /// Address of the client, with trusted proxies skipped.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The address as text, without brackets. Each call makes it anew: most requests need none, because the fields that hold it are the
    /// same for a whole connection.
    pub fn address_text(&self) -> AddressText {
        AddressText::of(self.address)
    }

    /// Whether to believe what the peer says beyond the address.
    pub fn is_trusted(&self) -> bool {
        self.trust == PeerTrust::All
    }

    /// Port of the client; 0 when a trusted proxy named the address without one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Scheme the client used, as far as known.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The scheme reported to the endpoint: the one a trusted peer named, or that of the connection.
    pub fn told_scheme(&self) -> &[u8] {
        match &self.text[self.named_scheme.clone()] {
            [] => self.scheme.as_str().as_bytes(),
            named => named,
        }
    }

    /// Whether the client should be redirected to `https`. Any scheme other than `http` named by a trusted peer
    /// prevents that, as in ingress-nginx.
    pub fn is_plain(&self) -> bool {
        self.told_scheme().eq_ignore_ascii_case(b"http")
    }

    /// Host the client asked for, as spelt, with the port if it sent one. Sent to the endpoint as Host unless the route
    /// overrides it. Never empty: `_` for a request without a host, as in ingress-nginx.
    pub fn host(&self) -> &[u8] {
        &self.text[self.host.clone()]
    }

    /// Port reported to the endpoint.
    pub fn forwarded_port(&self) -> u16 {
        self.forwarded_port
    }

    /// Id of the request, the client's own if it sent one; empty if it sent none and none is generated.
    pub fn request_id(&self) -> &[u8] {
        &self.text[self.request_id.clone()]
    }

    /// Value of X-Forwarded-For for the endpoint, if it is not just the [`address_text`](Self::address_text).
    pub fn forwarded_list(&self) -> Option<&[u8]> {
        Some(&self.text[self.full_forwarded_for.clone()]).filter(|list| !list.is_empty())
    }

    /// The X-Forwarded-For that the client itself sent.
    pub fn received_forwarded_for(&self) -> &[u8] {
        &self.text[self.forwarded_for.clone()]
    }

    /// The client's fields that must not be forwarded: those that [`write_fields`](Self::write_fields) writes and,
    /// unless the peer is trusted, the rest of the family. Variant spellings count as the field itself, see
    /// [`KnownField`].
    pub fn removed(&self) -> KnownSet {
        if self.is_trusted() { REPLACED } else { REPLACED | KnownSet::FORWARDED | KnownSet::SSL_CLIENT }
    }

    /// The fields that [`write_fields`](Self::write_fields) writes, and those that no backend gets from a client.
    pub const fn written() -> KnownSet {
        REPLACED
    }

    /// Whether the fields of [`write_family`](Self::write_family) are the same for every request on the connection: the
    /// peer is not trusted, so no request can change them.
    pub fn is_of_connection(&self) -> bool {
        self.trust == PeerTrust::None
    }

    /// Writes the fields that describe the client to the endpoint, without `except`. Fields without a value are
    /// omitted. `family` is the output of [`write_family`](Self::write_family) for this connection.
    pub fn write_fields<F, S: FieldSink<F>>(&self, sink: &mut S, except: KnownSet, family: Option<&S::Prepared>) {
        let mut field = |known, name, value: &[u8]| {
            if !value.is_empty() && !except.contains(known) {
                sink.field(name, value);
            }
        };
        field(KnownField::XRequestId, X_REQUEST_ID, self.request_id());
        field(KnownField::XForwardedHost, X_FORWARDED_HOST, self.host());
        let original_for = &self.text[self.original_for.clone()];
        field(KnownField::XOriginalForwardedFor, X_ORIGINAL_FORWARDED_FOR, original_for);
        let original_host = &self.text[self.original_host.clone()];
        field(KnownField::XOriginalForwardedHost, X_ORIGINAL_FORWARDED_HOST, original_host);
        match family.filter(|_| self.is_of_connection() && !except.intersects(REPLACED)) {
            Some(family) => sink.prepared(family),
            None => self.write_family(sink, except),
        }
    }

    /// Writes the fields of address, scheme and port, without `except`.
    pub fn write_family<F, S: FieldSink<F>>(&self, sink: &mut S, except: KnownSet) {
        let (scheme, address) = (self.told_scheme(), self.address_text());
        let mut field = |known, name, value: &[u8]| {
            if !value.is_empty() && !except.contains(known) {
                sink.field(name, value);
            }
        };
        field(KnownField::XRealIp, X_REAL_IP, &address);
        field(KnownField::XForwardedFor, X_FORWARDED_FOR, self.forwarded_list().unwrap_or(&address));
        field(KnownField::XForwardedProto, X_FORWARDED_PROTO, scheme);
        field(KnownField::XForwardedScheme, X_FORWARDED_SCHEME, scheme);
        field(KnownField::XScheme, X_SCHEME, scheme);
        if !except.contains(KnownField::XForwardedPort) {
            sink.number(X_FORWARDED_PORT, self.forwarded_port.into());
        }
    }

    fn restart(&mut self, arrival: &Arrival) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        *self = Self { text, ..Self::default() };
        self.address = arrival.peer.ip().to_canonical();
        self.port = arrival.peer.port();
        self.scheme = if arrival.tls_ended_before { Scheme::Https } else { arrival.scheme };
        self.forwarded_port = arrival.told_port.number(arrival.scheme, arrival.local.port());
    }

    // Runs only for trusted peers, so it stays out of the code that every request runs.
    #[inline(never)]
    fn believe_scheme_and_port<'a>(&mut self, fields: impl Fields<'a>) {
        match fields.get(KnownField::XForwardedProto).map(first_element) {
            Some(named) if named.eq_ignore_ascii_case(b"https") => self.scheme = Scheme::Https,
            Some(named) if named.eq_ignore_ascii_case(b"http") => self.scheme = Scheme::Http,
            Some(named) if is_scheme(named) => {
                self.named_scheme = self.push(named);
                match named {
                    named if named.eq_ignore_ascii_case(b"wss") => self.scheme = Scheme::Https,
                    named if named.eq_ignore_ascii_case(b"ws") => self.scheme = Scheme::Http,
                    _ => {}
                }
            }
            _ => {}
        }
        let port = fields.get(KnownField::XForwardedPort).map(first_element);
        if let Some(port) =
            port.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).filter(|&port| port > 0)
        {
            self.forwarded_port = port;
        }
    }

    fn push_host<'a, F: Fields<'a>>(&mut self, request: &RequestView<'a, F>, rules: &ForwardedHeaders) -> Range<usize> {
        if self.is_trusted() {
            let told = Named::new(&rules.host_field).first(request.fields).map(first_element);
            if let Some(host) = told.filter(|host| is_host(host)) {
                return self.push(host);
            }
        }
        self.push(request.authority.map_or(b"_", |authority| authority.text))
    }

    fn push_joined<'a>(&mut self, fields: impl Fields<'a>, name: Named<'_>) -> Range<usize> {
        let start = self.text.len();
        if let Named::Known(field) = name
            && !fields.present().contains(field)
        {
            return start..start;
        }
        let text = &mut self.text;
        name.each(fields, |value| {
            if text.len() > start && !value.is_empty() {
                text.extend_from_slice(b", ");
            }
            text.extend_from_slice(value);
        });
        start..self.text.len()
    }

    fn push_random_id(&mut self, mut random: impl FnMut() -> u64) -> Range<usize> {
        let start = self.text.len();
        for word in [random(), random()] {
            // The order of random digits doesn't matter.
            for half in [word, word >> 4] {
                self.text.extend_from_slice(&decimal::hex_digits(half & 0x0f0f_0f0f_0f0f_0f0f));
            }
        }
        start..self.text.len()
    }

    fn push_address(&mut self, address: IpAddr) -> Range<usize> {
        let start = self.text.len();
        decimal::ip(address, &mut self.text);
        start..self.text.len()
    }

    fn push(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        start..self.text.len()
    }
}

impl Default for ClientView {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 0,
            scheme: Scheme::Http,
            forwarded_port: 0,
            trust: PeerTrust::None,
            named_scheme: 0..0,
            text: Vec::new(),
            host: 0..0,
            request_id: 0..0,
            forwarded_for: 0..0,
            full_forwarded_for: 0..0,
            original_for: 0..0,
            original_host: 0..0,
        }
    }
}

const X_REQUEST_ID: FieldName<'_> = FieldName::from_static("X-Request-ID");
const X_REAL_IP: FieldName<'_> = FieldName::from_static("X-Real-IP");
const X_FORWARDED_FOR: FieldName<'_> = FieldName::from_static("X-Forwarded-For");
const X_FORWARDED_HOST: FieldName<'_> = FieldName::from_static("X-Forwarded-Host");
const X_FORWARDED_PORT: FieldName<'_> = FieldName::from_static("X-Forwarded-Port");
const X_FORWARDED_PROTO: FieldName<'_> = FieldName::from_static("X-Forwarded-Proto");
const X_FORWARDED_SCHEME: FieldName<'_> = FieldName::from_static("X-Forwarded-Scheme");
const X_SCHEME: FieldName<'_> = FieldName::from_static("X-Scheme");
const X_ORIGINAL_FORWARDED_FOR: FieldName<'_> = FieldName::from_static("X-Original-Forwarded-For");
const X_ORIGINAL_FORWARDED_HOST: FieldName<'_> = FieldName::from_static("X-Original-Forwarded-Host");

/// Client fields that are never forwarded, because the proxy writes them itself or because they are dangerous (`Proxy`,
/// CVE-2016-5385).
const REPLACED: KnownSet = KnownSet::of(&[
    KnownField::XRequestId,
    KnownField::XRealIp,
    KnownField::XForwardedFor,
    KnownField::XForwardedHost,
    KnownField::XForwardedPort,
    KnownField::XForwardedProto,
    KnownField::XForwardedScheme,
    KnownField::XScheme,
    KnownField::XOriginalForwardedFor,
    KnownField::XOriginalForwardedHost,
    KnownField::XOriginalUri,
    KnownField::Proxy,
]);

/// A field named in the settings: a known one or any other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Named<'a> {
    Known(KnownField),
    Other(&'a [u8]),
}

impl<'a> Named<'a> {
    fn new(name: &'a str) -> Self {
        match name {
            "x-forwarded-for" => Self::Known(KnownField::XForwardedFor),
            "x-forwarded-host" => Self::Known(KnownField::XForwardedHost),
            // The rest of a family covers many names.
            _ => KnownField::named(name).map_or(Self::Other(name.as_bytes()), Self::Known),
        }
    }

    fn first<'b>(self, fields: impl Fields<'b>) -> Option<&'b [u8]> {
        match self {
            Self::Known(known) => fields.get(known),
            Self::Other(name) => fields.lines().find(|line| line.is(name)).map(|line| line.value),
        }
    }

    fn each<'b>(self, fields: impl Fields<'b>, mut take: impl FnMut(&'b [u8])) {
        match self {
            Self::Known(known) => fields.all(known).for_each(take),
            Self::Other(name) => fields.lines().filter(|line| line.is(name)).for_each(|line| take(line.value)),
        }
    }

    /// Whether a field has this name.
    fn is(self, line: &FieldLine<'_>) -> bool {
        match self {
            Self::Known(known) => line.known == known,
            Self::Other(name) => line.is(name),
        }
    }
}

/// Walks the list of hops from the right, as nginx does with `real_ip_recursive on`: trusted addresses are skipped, and
/// the first untrusted one is the client. Anything that is not an address ends the walk at the previous hop.
fn walk<'a>(peer: SocketAddr, fields: impl Fields<'a>, field: Named<'_>, trusted: &NetworkSet) -> (IpAddr, u16) {
    let mut client = (peer.ip().to_canonical(), peer.port());
    for line in fields.lines().rev().filter(|line| field.is(line)) {
        for element in line.value.rsplit(|&byte| byte == b',') {
            let element = element.trim_ascii();
            if element.is_empty() {
                continue;
            }
            let Some(hop) = address(element) else {
                return client;
            };
            client = hop;
            if !trusted.contains(client.0) {
                return client;
            }
        }
    }
    client
}

/// Parses an address with or without port, IPv6 with or without brackets.
fn address(text: &[u8]) -> Option<(IpAddr, u16)> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.to_canonical(), 0));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_canonical(), address.port()));
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    Some((inner.parse::<IpAddr>().ok()?.to_canonical(), 0))
}

fn first_element(list: &[u8]) -> &[u8] {
    list.split(|&byte| byte == b',').next().unwrap_or_default().trim_ascii()
}

/// Whether text from a trusted proxy is a scheme name (RFC 3986 3.1) of plausible length.
fn is_scheme(text: &[u8]) -> bool {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    text.len() <= 32 && text.first().is_some_and(u8::is_ascii_alphabetic) && text.iter().all(inner)
}

/// Whether text from a trusted proxy is usable as a host: nothing beyond a name and a port.
fn is_host(text: &[u8]) -> bool {
    let ordinary = |&byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    (1..=262).contains(&text.len()) && text.iter().all(ordinary)
}
