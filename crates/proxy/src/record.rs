//! What is known about one request: the input of templates, the access log and the metrics.
//!
//! The connection fills it from the data at hand; while the request is in progress, later parts are empty, so that the same
//! templates produce hash keys and header values.

use std::net::SocketAddr;
use std::time::Duration;

use fairway_model::client::ClientView;
use fairway_model::decision::Variables;
use fairway_model::{Backend, ClientIdentity, Host, Route, TraceContext};

use crate::geo::GeoDatabases;
use crate::http::{Fields, RequestHead, Spanned};
use crate::reason::{Cause, Reason};

/// One request, with everything borrowed from the task that serves it.
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord<'a> {
    /// Address of the peer.
    pub peer: SocketAddr,
    /// Both ends of the client's connection, if a PROXY header named them.
    pub proxied: Option<&'a Proxied>,
    /// Address that the connection arrived at.
    pub local: SocketAddr,
    /// The TLS session, if there is one.
    pub tls: Option<TlsView<'a>>,
    /// Number of the connection, unique in the process.
    pub connection: u64,
    /// Number of the request on its connection, from 1.
    pub connection_requests: u64,
    /// Whether the request had already arrived when the previous one ended.
    pub pipelined: bool,
    /// The request head; `None` when it could not be parsed.
    pub head: Option<Spanned<'a, RequestHead>>,
    /// The first line of a request whose head could not be parsed, as far as it arrived; otherwise empty.
    pub broken_line: &'a [u8],
    /// What was decided about the client.
    pub client: &'a ClientView,
    /// The client's certificate, if the host asks for one.
    pub identity: Option<&'a ClientIdentity>,
    /// The variables that snippets have set.
    pub variables: Option<&'a Variables>,
    /// The place of the request in a trace, if it is traced.
    pub trace: Option<&'a TraceContext>,
    /// The geographic databases, if any are used.
    pub geo: Option<&'a GeoDatabases>,
    /// Canonical path; after a rewrite, the rewritten one.
    pub path: &'a [u8],
    /// The path to show in place of the received one: an authentication service judges what is forwarded.
    pub judged_path: Option<&'a [u8]>,
    /// User of basic authentication; empty if there is none.
    pub user: &'a [u8],
    /// The host that was chosen.
    pub host: Option<&'a Host>,
    /// The route that was chosen.
    pub route: Option<&'a Route>,
    /// The chosen backend, even if it had no endpoint.
    pub backend: Option<&'a Backend>,
    /// Its alternative, if that one was chosen in its place (a canary).
    pub alternative: Option<&'a Backend>,
    /// Why the request failed, if it did.
    pub cause: Option<Cause>,
    /// Status of the answer; 0 before there is one, 499 if the client left earlier.
    pub status: u16,
    /// Bytes of the response body sent to the client.
    pub body_sent: u64,
    /// Bytes of the whole response sent to the client.
    pub sent: u64,
    /// Bytes of the whole request received: head and body.
    pub received: u64,
    /// From the first byte of the request to the last of the response.
    pub duration: Duration,
    /// The tries to get a response from an endpoint, in order.
    pub tries: &'a [Try],
    /// Fields of the endpoint's response.
    pub upstream_fields: Option<Spanned<'a, Fields>>,
    /// The head of the response as it was sent to the client; empty before that.
    pub sent_head: &'a [u8],
    /// The status of gRPC in the trailers of the response.
    pub grpc_status: Option<u16>,
}

/// What a PROXY header said about a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Proxied {
    /// Address of the peer that sent the header.
    pub by: SocketAddr,
    /// The client's address.
    pub source: SocketAddr,
    /// The address that it connected to.
    pub destination: SocketAddr,
}

/// The log's view of a TLS session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TlsView<'a> {
    /// As printed by nginx, such as `TLSv1.3`.
    pub protocol: &'static str,
    /// Name of the cipher suite.
    pub cipher: &'static str,
    /// Name requested by SNI.
    pub server_name: Option<&'a str>,
    /// Whether the session was resumed.
    pub resumed: bool,
}

/// One try to get a response from an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Try {
    /// The endpoint that was tried.
    pub endpoint: SocketAddr,
    /// Status of the response, or the status that the failure maps to: 502, 504 for a timeout, 499 if the client left.
    pub status: u16,
    /// Why it failed, if it did.
    pub reason: Option<Reason>,
    /// Time to connect, zero on an idle connection; `None` if that failed.
    pub connect: Option<Duration>,
    /// Time to the end of the response head, from the start of the try; `None` if none came.
    pub header: Option<Duration>,
    /// Time to the end of the try, from its start.
    pub response: Duration,
    /// Body bytes of the response.
    pub body_received: u64,
    /// Bytes of the response.
    pub received: u64,
    /// Bytes of the request that were sent.
    pub sent: u64,
}

#[cfg(test)]
pub(crate) mod fixture;
