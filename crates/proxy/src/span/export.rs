//! Sends a message of spans to a collector, over gRPC or HTTP/1.1, with or without TLS. Each has a connection of its own, since there is
//! one every few seconds. Runs on the thread for spans, never on a worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::{fs, io};

use bytes::{BufMut, Bytes, BytesMut};
use fairway_model::{Collector, ConfiguredName, SecretText, Tracing};
use http::{HeaderValue, Request};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::limit::{SPAN_ANSWER, SPAN_AUTHORITIES, SPAN_HEAD, SPAN_TIME};

/// The method that takes spans.
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Where spans go, and how.
#[derive(Debug)]
pub(crate) struct SpanDestination {
    /// What is tried, in order.
    pub(crate) place: SpanPlace,
    /// Its name in requests.
    pub(crate) authority: String,
    /// Whether it speaks HTTP/1.1 rather than gRPC.
    pub(crate) http: bool,
    /// TLS to it, if it is used.
    pub(crate) tls: Option<SpanTls>,
    /// Fields of the requests.
    pub(crate) fields: Vec<(ConfiguredName, SecretText)>,
    /// `service.name` of the spans.
    pub(crate) service: Box<str>,
}

/// Where a collector is.
#[derive(Debug)]
pub(crate) enum SpanPlace {
    /// At one of these addresses.
    Addresses(Vec<SocketAddr>),
    /// Where this name resolves to.
    Name(Box<str>, u16),
}

/// TLS to a collector.
#[derive(Debug)]
pub(crate) struct SpanTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// Why the spans of a policy go nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoDestination {
    #[error("nobody receives them")]
    Nobody,
    #[error("the Service has no endpoint")]
    NoEndpoint,
    #[error("{0}")]
    Tls(String),
}

/// Why spans could not be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("connecting failed: {0}")]
    Connect(io::Error),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("HTTP/2 failed: {0}")]
    Http2(#[from] h2::Error),
    #[error("the collector answered with status {0}")]
    Status(u16),
    #[error("the collector answered with status {0} of gRPC")]
    Grpc(String),
    #[error("the collector did not answer in time")]
    Late,
    #[error("the name of the collector is none")]
    Name,
    #[error("the authorities in {0} can't be used")]
    Authorities(Box<str>),
    #[error("the value of the field {0} can't be sent")]
    Field(Box<str>),
    #[error(transparent)]
    Nowhere(#[from] NoDestination),
}

impl SpanDestination {
    /// The collector of the settings.
    ///
    /// # Errors
    /// If there is none, or TLS to it can't be set up.
    pub(super) fn of_collector(tracing: &Tracing) -> Result<Self, ExportError> {
        let Some(Collector { host, port, http, authorities }) = &tracing.collector else {
            return Err(NoDestination::Nobody.into());
        };
        let name = || ServerName::try_from(host.to_string()).map_err(|_| ExportError::Name);
        let tls = authorities
            .as_deref()
            .map(|file| Ok::<_, ExportError>(SpanTls { config: tls(file, *http)?, name: name()? }));
        Ok(Self {
            place: SpanPlace::Name(host.clone(), port.get()),
            authority: if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
            http: *http,
            tls: tls.transpose()?,
            fields: Vec::new(),
            service: tracing.service.clone(),
        })
    }
}

/// Sends a message.
///
/// # Errors
/// Why that failed.
pub(super) async fn send(to: &SpanDestination, message: Vec<u8>) -> Result<(), ExportError> {
    let sent = async {
        let stream = match &to.place {
            SpanPlace::Addresses(addresses) => TcpStream::connect(&**addresses).await,
            SpanPlace::Name(host, port) => TcpStream::connect((&**host, *port)).await,
        };
        let stream = stream.map_err(ExportError::Connect)?;
        match &to.tls {
            None => exchange(stream, "http", to, message).await,
            Some(SpanTls { config, name }) => {
                let tls = TlsConnector::from(config.clone());
                let stream = tls.connect(name.clone(), stream).await.map_err(ExportError::Connect)?;
                exchange(stream, "https", to, message).await
            }
        }
    };
    timeout(SPAN_TIME, sent).await.unwrap_or(Err(ExportError::Late))
}

/// TLS that trusts the authorities in a file, which is read for each message: messages are seconds apart, and it may be renewed.
fn tls(file: &str, http: bool) -> Result<Arc<ClientConfig>, ExportError> {
    let unusable = || ExportError::Authorities(file.into());
    let size = fs::metadata(file).map_err(|_| unusable())?.len();
    let text = fs::read(file).ok().filter(|_| size <= SPAN_AUTHORITIES).ok_or_else(unusable)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(unusable());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.map_err(|_| unusable())?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![if http { b"http/1.1".to_vec() } else { b"h2".to_vec() }];
    Ok(Arc::new(config))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    scheme: &str,
    to: &SpanDestination,
    message: Vec<u8>,
) -> Result<(), ExportError> {
    if to.http { over_http(stream, to, &message).await } else { over_grpc(stream, scheme, to, message).await }
}

/// The value of a field, marked so that HPACK keeps it in no table.
fn value(name: &ConfiguredName, text: &SecretText) -> Result<HeaderValue, ExportError> {
    let mut value = HeaderValue::from_str(text.reveal()).map_err(|_| ExportError::Field(name.as_str().into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// OTLP/HTTP with a binary body.
async fn over_http(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    to: &SpanDestination,
    message: &[u8],
) -> Result<(), ExportError> {
    let mut head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: {}\r\nUser-Agent: fairway/{}\r\nContent-Type: application/x-protobuf\r\n\
         Content-Length: {}\r\nConnection: close\r\n",
        to.authority,
        env!("CARGO_PKG_VERSION"),
        message.len()
    )
    .into_bytes();
    for (name, text) in &to.fields {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value(name, text)?.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head).await?;
    stream.write_all(message).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    let mut answer = stream.take(SPAN_ANSWER);
    while !line.contains(&b'\n') {
        if answer.read_buf(&mut line).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    let status = line.split(|&byte| byte == b' ').nth(1).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    match status.unwrap_or(0) {
        200..=299 => Ok(()),
        other => Err(ExportError::Status(other)),
    }
}

/// OTLP/gRPC.
async fn over_grpc(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    scheme: &str,
    to: &SpanDestination,
    message: Vec<u8>,
) -> Result<(), ExportError> {
    // A collector needs one stream, a short answer and nothing else; what it may send beyond that is bounded.
    let (mut send, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(SPAN_HEAD)
        .initial_window_size(SPAN_ANSWER as u32)
        .initial_connection_window_size(SPAN_ANSWER as u32)
        .max_concurrent_reset_streams(1)
        .max_local_error_reset_streams(Some(1))
        .handshake::<_, Bytes>(stream)
        .await?;
    let mut request = Request::post(format!("{scheme}://{}{METHOD}", to.authority))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("fairway/", env!("CARGO_PKG_VERSION")));
    for (name, text) in &to.fields {
        request = request.header(name.as_str(), value(name, text)?);
    }
    let request = request.body(()).map_err(|_| ExportError::Name)?;
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    let call = async {
        let (response, mut body) = send.send_request(request, false)?;
        // The message is bounded, and waits in memory until the collector takes it.
        body.send_data(Bytes::from(framed), true)?;
        let (head, mut body) = response.await?.into_parts();
        if head.status != 200 {
            return Err(ExportError::Status(head.status.as_u16()));
        }
        let mut received = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            received += data.len() as u64;
            if received > SPAN_ANSWER {
                return Err(io::Error::from(io::ErrorKind::InvalidData).into());
            }
            let _ = body.flow_control().release_capacity(data.len());
        }
        // Without data the status is in the head.
        let trailers = body.trailers().await?.unwrap_or(head.headers);
        match trailers.get("grpc-status").map(|status| status.as_bytes()) {
            Some(b"0") => Ok(()),
            status => Err(ExportError::Grpc(String::from_utf8_lossy(status.unwrap_or(b"none")).into_owned())),
        }
    };
    tokio::pin!(call);
    tokio::select! {
        result = &mut call => result,
        ended = connection => {
            ended?;
            Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
        }
    }
}
