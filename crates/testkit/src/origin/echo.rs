//! The response of an origin that reports what it received.

use serde_json::{Value, json};

use crate::message::{Headers, Request, Response, text};
use crate::origin::Reply;

/// What an echoing origin received, parsed from its JSON response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The name of the origin.
    pub origin: String,
    /// The method.
    pub method: String,
    /// The target as spelt.
    pub target: String,
    /// For example `HTTP/1.1`.
    pub version: String,
    /// The fields in order, in their original case.
    pub headers: Headers,
    /// The size of the body in bytes.
    pub body_length: u64,
    /// The body as text.
    pub body: String,
    /// The fields after the last chunk.
    pub trailers: Headers,
    /// The number of the connection at the origin, from 1.
    pub connection: u64,
    /// The number of the request on that connection, from 1.
    pub request: u64,
    /// The server name in the client's TLS hello.
    pub sni: Option<String>,
}

impl Echo {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}

impl Response {
    /// What the echoing origin behind the proxy received.
    ///
    /// # Panics
    /// If the body is not the response of an echoing origin.
    pub fn echo(&self) -> Echo {
        read(&self.json()).unwrap_or_else(|| panic!("not the answer of an echoing origin: {self:?}"))
    }
}

impl Reply {
    /// 200 with the received request as JSON.
    pub fn echo(origin: &str, request: &Request) -> Self {
        let value = json!({
            "origin": origin,
            "method": request.method,
            "target": request.target,
            "version": request.version,
            "headers": request.headers().0,
            "body_length": request.body.len(),
            "body": text(&request.body),
            "trailers": request.trailers.0,
            "connection": request.connection,
            "request": request.number,
            "sni": request.sni,
        });
        Self::ok().header("content-type", "application/json").body(value.to_string())
    }
}

fn read(value: &Value) -> Option<Echo> {
    let string = |name: &str| value[name].as_str().map(str::to_owned);
    Some(Echo {
        origin: string("origin")?,
        method: string("method")?,
        target: string("target")?,
        version: string("version")?,
        headers: fields(&value["headers"])?,
        body_length: value["body_length"].as_u64()?,
        body: string("body")?,
        trailers: fields(&value["trailers"])?,
        connection: value["connection"].as_u64()?,
        request: value["request"].as_u64()?,
        sni: string("sni"),
    })
}

fn fields(value: &Value) -> Option<Headers> {
    let pair = |field: &Value| Some((field[0].as_str()?.to_owned(), field[1].as_str()?.to_owned()));
    value.as_array()?.iter().map(pair).collect::<Option<_>>().map(Headers)
}
