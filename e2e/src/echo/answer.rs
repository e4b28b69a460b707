//! The responses to requests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{HeaderMap, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::tls::TlsInfo;

/// The longest delay that a request may ask for.
const LONGEST_DELAY: Duration = Duration::from_secs(300);

/// The common parts of all responses of one server.
#[derive(Clone, Debug)]
pub(super) struct Responder(Option<Arc<Identity>>);

/// The server's description of itself.
#[derive(Clone, Debug, Serialize)]
struct Identity {
    #[serde(rename = "httpPort")]
    http_port: String,
    namespace: String,
    ingress: String,
    service: String,
    pod: String,
}

/// The fields that the suites read, in the order in which the image writes them.
#[derive(Serialize)]
struct Echo<'a> {
    path: String,
    host: String,
    method: &'a str,
    proto: &'static str,
    headers: BTreeMap<String, Vec<String>>,
    #[serde(flatten)]
    identity: &'a Identity,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'a TlsInfo>,
}

impl Responder {
    /// The responses of an echo server that listens on `port` and is named by the variables of the images.
    pub(super) fn echo(port: u16) -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Self(Some(Arc::new(Identity {
            http_port: port.to_string(),
            namespace: variable("NAMESPACE"),
            ingress: variable("INGRESS_NAME"),
            service: variable("SERVICE_NAME"),
            pod: variable("POD_NAME"),
        })))
    }

    /// The responses of the default backend's image.
    pub(super) fn default_backend() -> Self {
        Self(None)
    }

    pub(super) async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        tls: Option<&TlsInfo>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        // Read the body completely, so that the connection can be reused.
        while let Some(Ok(_)) = request.body_mut().frame().await {}
        let path = request.uri().path();
        let Some(identity) = &self.0 else {
            return Ok(match path {
                "/healthz" => text(StatusCode::OK, "ok"),
                _ => text(StatusCode::NOT_FOUND, "default backend - 404"),
            });
        };
        if path == "/health" {
            return Ok(text(StatusCode::OK, "OK"));
        }
        if let Some(status) = path.strip_prefix("/status/").and_then(|digits| digits.parse().ok()) {
            return Ok(text(status, ""));
        }
        if let Some(delay) = request.uri().query().and_then(delay) {
            tokio::time::sleep(delay.min(LONGEST_DELAY)).await;
        }
        // Tests of mirroring look for this line.
        println!("Echoing back request made to {} to client ({peer})", request.uri());
        Ok(identity.echo(&request, tls))
    }
}

impl Identity {
    fn echo(&self, request: &Request<Incoming>, tls: Option<&TlsInfo>) -> Response<Full<Bytes>> {
        let host = request.headers().get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
        let host = request.uri().authority().map_or_else(|| lossy(host), |authority| authority.to_string());
        let mut headers = BTreeMap::<_, Vec<_>>::new();
        for (name, value) in request.headers().iter().filter(|(name, _)| *name != HOST) {
            headers.entry(canonical(name.as_str())).or_default().push(lossy(value.as_bytes()));
        }
        let echo = Echo {
            path: request.uri().path_and_query().map_or("*", |target| target.as_str()).to_owned(),
            host,
            method: request.method().as_str(),
            proto: if request.version() == hyper::Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" },
            headers,
            identity: self,
            tls,
        };
        let mut json = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut json, PrettyFormatter::with_indent(b" "));
        echo.serialize(&mut serializer).expect("texts and lists of texts can be written as JSON");
        let mut response = Response::new(Full::new(Bytes::from(escape(&json))));
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        for value in request.headers().get_all("x-echo-set-header") {
            set(fields, value);
        }
        response
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `x-forwarded-for` as Go writes it: `X-Forwarded-For`.
fn canonical(name: &str) -> String {
    let mut first = true;
    let letters = name.chars().map(|letter| {
        let letter = if first { letter.to_ascii_uppercase() } else { letter };
        first = letter == '-';
        letter
    });
    letters.collect()
}

/// Go escapes characters that are special in HTML. In JSON they occur only inside strings.
fn escape(json: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(json.len());
    for byte in json {
        match byte {
            b'&' | b'<' | b'>' => escaped.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            byte => escaped.push(*byte),
        }
    }
    escaped
}

/// Sets `NAME:VALUE` pairs, separated by commas. Invalid header fields are omitted.
fn set(fields: &mut HeaderMap, pairs: &HeaderValue) {
    let pairs = pairs.to_str().unwrap_or_default();
    for (name, value) in pairs.split(',').filter_map(|pair| pair.split_once(':')) {
        let (name, value) = (name.trim().parse::<HeaderName>(), value.trim().parse::<HeaderValue>());
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
}

/// The query parameter `delay`, in the units of Go that tests use: `300ms`, `2s`, `1m`.
fn delay(query: &str) -> Option<Duration> {
    let text = query.split('&').find_map(|field| field.strip_prefix("delay="))?;
    let number = text.trim_end_matches(|symbol: char| symbol.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_have_units() {
        assert_eq!(delay("a=b&delay=300ms"), Some(Duration::from_millis(300)));
        assert_eq!(delay("delay=1.5s"), Some(Duration::from_millis(1500)));
        for wrong in ["", "delay=", "delay=3", "delay=-1s", "delay=1h", "delays=1s"] {
            assert_eq!(delay(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_written_as_go_does() {
        assert_eq!(canonical("x-forwarded-for"), "X-Forwarded-For");
        assert_eq!(canonical("te"), "Te");
    }
}
