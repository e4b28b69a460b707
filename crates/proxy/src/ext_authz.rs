//! The messages of ext_authz, the protocol with which Envoy asks authorization services (`envoy.service.auth.v3`), as far as they are used:
//! fields that are not listed are skipped on reading.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairway_model::{
    CheckAllowed, CheckAnswer, CheckChange, CheckDenied, CheckField, FieldName, FieldSink, Fields, KnownField, KnownSet,
};
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, skip_field};
use prost::{DecodeError, Message};

/// The method that is called.
pub(crate) const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The fields of a request as a service gets them: in lower case, those with the same name joined by a comma.
#[derive(Debug, Default)]
pub(crate) struct CheckedFields(BTreeMap<String, Vec<u8>>);

impl CheckedFields {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        // Cookies are joined as HTTP/1 has them (RFC 9113 8.2.3).
        let comma: &[u8] = if name == "cookie" { b"; " } else { b"," };
        let joined = self.0.entry(name).or_default();
        if !joined.is_empty() {
            joined.extend_from_slice(comma);
        }
        joined.extend_from_slice(value);
    }
}

impl<'f, F: Fields<'f>> FieldSink<F> for CheckedFields {
    type Prepared = Infallible;

    fn field(&mut self, name: FieldName<'_>, value: &[u8]) {
        self.add(name.as_bytes(), value);
    }

    fn number(&mut self, name: FieldName<'_>, number: u64) {
        self.add(name.as_bytes(), number.to_string().as_bytes());
    }

    fn prepared(&mut self, lines: &Infallible) {
        match *lines {}
    }

    fn forward(&mut self, fields: F, drop: KnownSet, mut drop_also: impl FnMut(KnownField, &[u8]) -> bool) {
        for line in fields.lines() {
            if !drop.contains(line.known) && !drop_also(line.known, line.name) {
                self.add(line.name, line.value);
            }
        }
    }
}

/// What a service is told about a request.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    /// The client.
    pub(crate) source: SocketAddr,
    /// Our end of its connection.
    pub(crate) destination: SocketAddr,
    /// When the request began.
    pub(crate) time: SystemTime,
    /// Its id.
    pub(crate) id: &'a [u8],
    /// Its method.
    pub(crate) method: &'a [u8],
    /// Path and query as they are forwarded.
    pub(crate) target: &'a [u8],
    /// Its host.
    pub(crate) host: &'a [u8],
    /// Its scheme.
    pub(crate) scheme: &'a [u8],
    /// The version of HTTP.
    pub(crate) protocol: &'a str,
    /// The length of its body, if that is known.
    pub(crate) size: Option<u64>,
    /// Its fields.
    pub(crate) fields: CheckedFields,
    /// Its body, if the service gets it.
    pub(crate) body: &'a [u8],
}

impl Checked<'_> {
    /// The message that asks about it.
    pub(crate) fn encode(self) -> Vec<u8> {
        // The texts of the protocol are UTF-8; anything else could not be read at all.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let peer = |address: SocketAddr| {
            let socket_address =
                SocketText { address: address.ip().to_canonical().to_string(), port_value: address.port().into() };
            Some(Peer { address: Some(Address { socket_address: Some(socket_address) }) })
        };
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let time = Timestamp {
            seconds: since.as_secs().try_into().unwrap_or(i64::MAX),
            // Fits, since it is less than a second.
            nanos: since.subsec_nanos().cast_signed(),
        };
        let http = HttpRequest {
            id: text(self.id),
            method: text(self.method),
            headers: self.fields.0.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            path: spelt(self.target),
            host: text(self.host),
            scheme: text(self.scheme),
            size: self.size.map_or(-1, |size| i64::try_from(size).unwrap_or(-1)),
            protocol: self.protocol.to_owned(),
            body: text(self.body),
            // A service must not take a body for empty because it is not text.
            raw_body: if std::str::from_utf8(self.body).is_ok() { Vec::new() } else { self.body.to_vec() },
        };
        let request = CheckRequest {
            attributes: Some(AttributeContext {
                source: peer(self.source),
                destination: peer(self.destination),
                request: Some(RequestAttributes { time: Some(time), http: Some(http) }),
            }),
        };
        request.encode_to_vec()
    }
}

/// A target with its bytes beyond ASCII percent-encoded: the same path, spelt as valid text.
fn spelt(target: &[u8]) -> String {
    let mut out = String::with_capacity(target.len());
    for &byte in target {
        if byte.is_ascii() {
            out.push(char::from(byte));
        } else {
            // Writing to memory does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Reads an answer; `None` if it is malformed, or says that the service has failed.
pub(crate) fn decode(message: &[u8]) -> Option<CheckAnswer> {
    let CheckResponse { status, denied_response, ok_response, error_response } = CheckResponse::decode(message).ok()?;
    if error_response.is_some() {
        return None;
    }
    let fields = |options: Vec<HeaderValueOption>| options.into_iter().map(HeaderValueOption::into_field).collect();
    Some(CheckAnswer {
        code: status.map(|status| status.code),
        allowed: ok_response.map(|Bounded(ok)| CheckAllowed {
            fields: fields(ok.headers),
            removed: ok.headers_to_remove,
            response: fields(ok.response_headers_to_add),
            edits_query: !(ok.query_parameters_to_set.is_empty() && ok.query_parameters_to_remove.is_empty()),
        }),
        denied: denied_response.map(|Bounded(denied)| CheckDenied {
            status: denied.status.map_or(0, |status| status.code),
            fields: fields(denied.headers),
            body: denied.body,
        }),
    })
}

impl HeaderValueOption {
    fn into_field(self) -> CheckField {
        let HeaderValue { key, value, raw_value } = self.header.unwrap_or_default();
        CheckField {
            name: key,
            value: if raw_value.is_empty() { value.into() } else { raw_value },
            change: CheckChange::of(self.append.map(|append| append.value), self.append_action),
        }
    }
}

/// A message whose lists are read up to the first entry too many: an entry takes more memory than it has bytes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Bounded<M>(M);

trait Listing: Message + Default {
    /// Whether a field would be too many, beyond the one excess entry that is kept.
    fn is_full(&self, tag: u32) -> bool;
}

impl Listing for OkHttpResponse {
    fn is_full(&self, _: u32) -> bool {
        let Self {
            headers,
            headers_to_remove,
            response_headers_to_add,
            query_parameters_to_set,
            query_parameters_to_remove,
        } = self;
        let query = query_parameters_to_set.len() + query_parameters_to_remove.len();
        headers.len() + headers_to_remove.len() + response_headers_to_add.len() + query > CheckAnswer::EDITS
    }
}

impl Listing for DeniedHttpResponse {
    fn is_full(&self, tag: u32) -> bool {
        tag == 2 && self.headers.len() > CheckAnswer::EDITS
    }
}

impl<M: Listing> Message for Bounded<M> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.0.encode_raw(buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if self.0.is_full(tag) {
            return skip_field(wire_type, tag, buf, ctx);
        }
        self.0.merge_field(tag, wire_type, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

// The numbers are those of the public protocol.

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<RequestAttributes>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket_address: Option<SocketText>,
}

#[derive(Clone, PartialEq, Message)]
struct SocketText {
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, tag = "3")]
    port_value: u32,
}

#[derive(Clone, PartialEq, Message)]
struct RequestAttributes {
    #[prost(message, optional, tag = "1")]
    time: Option<Timestamp>,
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(btree_map = "string, string", tag = "3")]
    headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "6")]
    scheme: String,
    #[prost(int64, tag = "9")]
    size: i64,
    #[prost(string, tag = "10")]
    protocol: String,
    #[prost(string, tag = "11")]
    body: String,
    #[prost(bytes = "vec", tag = "12")]
    raw_body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RpcStatus>,
    #[prost(message, optional, tag = "2")]
    denied_response: Option<Bounded<DeniedHttpResponse>>,
    #[prost(message, optional, tag = "3")]
    ok_response: Option<Bounded<OkHttpResponse>>,
    #[prost(bytes = "vec", optional, tag = "5")]
    error_response: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct DeniedHttpResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, Message)]
struct HttpStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct OkHttpResponse {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    headers_to_remove: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    response_headers_to_add: Vec<HeaderValueOption>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    query_parameters_to_set: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "8")]
    query_parameters_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    header: Option<HeaderValue>,
    #[prost(message, optional, tag = "2")]
    append: Option<BoolValue>,
    #[prost(int32, tag = "3")]
    append_action: i32,
}

#[derive(Clone, PartialEq, Message)]
struct BoolValue {
    #[prost(bool, tag = "1")]
    value: bool,
}

#[derive(Clone, PartialEq, Message)]
struct HeaderValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(bytes = "vec", tag = "3")]
    raw_value: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use fairway_model::CheckVerdict;
    use proptest::prelude::*;

    use super::*;

    /// An option that could be sent, and some that could not.
    fn option() -> impl Strategy<Value = HeaderValueOption> {
        let name = prop_oneof!["[a-z:-]{0,6}", Just("host".to_owned()), Just("content-length".to_owned())];
        (name, ".{0,4}", prop::collection::vec(any::<u8>(), 0..4), prop::option::of(any::<bool>()), -1..5i32).prop_map(
            |(key, value, raw_value, append, append_action)| HeaderValueOption {
                header: Some(HeaderValue { key, value, raw_value }),
                append: append.map(|value| BoolValue { value }),
                append_action,
            },
        )
    }

    proptest! {
        #[test]
        fn any_answer_means_something(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(answer) = decode(&bytes) {
                answer.judge(|_| false);
            }
        }

        #[test]
        fn what_is_allowed_can_be_sent(headers in prop::collection::vec(option(), 0..6), code in 0..2i32) {
            let ok_response = OkHttpResponse { headers, ..OkHttpResponse::default() };
            let message = CheckResponse {
                status: Some(RpcStatus { code }),
                denied_response: None,
                ok_response: Some(Bounded(ok_response)),
                error_response: None,
            };
            let answer = decode(&message.encode_to_vec()).expect("a message");
            match answer.judge(|name| name == b"a") {
                CheckVerdict::Allowed(given) => {
                    prop_assert_eq!(code, 0);
                    for (name, value) in given.others.iter().chain(&given.added) {
                        prop_assert!(!name.as_str().eq_ignore_ascii_case("host"));
                        prop_assert!(!name.as_str().eq_ignore_ascii_case("content-length"));
                        prop_assert!(crate::http::is_field_value(value));
                    }
                }
                CheckVerdict::Denied(_) => prop_assert_eq!(code, 1),
                CheckVerdict::Failed => {}
            }
        }
    }

    #[test]
    fn lists_are_read_up_to_one_entry_too_many() {
        let headers = vec![HeaderValueOption::default(); 1000];
        let ok_response = OkHttpResponse { headers: headers.clone(), ..OkHttpResponse::default() };
        let denied_response = DeniedHttpResponse { status: Some(HttpStatus { code: 401 }), headers, body: "no".into() };
        let message = CheckResponse {
            ok_response: Some(Bounded(ok_response)),
            denied_response: Some(Bounded(denied_response)),
            ..CheckResponse::default()
        };
        // In two parts, which are one message for a reader.
        let answer = decode(&message.encode_to_vec().repeat(2)).expect("a message");
        let (allowed, denied) = (answer.allowed.expect("a yes"), answer.denied.expect("a no"));
        assert_eq!((allowed.fields.len(), denied.fields.len()), (CheckAnswer::EDITS + 1, CheckAnswer::EDITS + 1));
        assert_eq!((denied.status, &*denied.body), (401, "no"));
    }

    #[test]
    fn a_target_is_spelt_in_ascii() {
        assert_eq!(spelt(b"/a%20b?\xff\xc3\xa9\x99%"), "/a%20b?%FF%C3%A9%99%");
    }
}
