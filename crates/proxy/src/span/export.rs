//! Sends a message of spans to a collector, over gRPC or HTTP/1.1, with TLS or without: one connection for each message, since there is one every few seconds.
//! Runs on the thread for spans, never on a worker.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::{fs, io};

use bytes::{BufMut, Bytes, BytesMut};
use fairway_model::Collector;
use http::Request;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::limit::{SPAN_ANSWER, SPAN_AUTHORITIES, SPAN_HEAD, SPAN_TIME};

/// The method that takes spans.
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

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
}

/// Sends a message. Blocks.
///
/// # Errors
/// Why that failed.
pub(super) fn send(collector: &Collector, message: Vec<u8>) -> Result<(), ExportError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let Collector { host, port, http, authorities } = collector;
    let tls = authorities.as_deref().map(|file| tls(file, *http)).transpose()?;
    let name = ServerName::try_from(host.to_string());
    let address = (&**host, port.get()).to_socket_addrs().map_err(ExportError::Connect)?;
    let address: Vec<_> = address.collect();
    let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    runtime.block_on(async {
        let sent = async {
            let stream = TcpStream::connect(&*address).await.map_err(ExportError::Connect)?;
            match tls {
                None => exchange(stream, *http, "http", &host, message).await,
                Some(tls) => {
                    let name = name.map_err(|_| ExportError::Name)?;
                    let stream = tls.connect(name, stream).await.map_err(ExportError::Connect)?;
                    exchange(stream, *http, "https", &host, message).await
                }
            }
        };
        timeout(SPAN_TIME, sent).await.unwrap_or(Err(ExportError::Late))
    })
}

/// TLS with a certificate by an authority in a file, which is read for each message: they are seconds apart, and it may be renewed.
fn tls(file: &str, http: bool) -> Result<TlsConnector, ExportError> {
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
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    http: bool,
    scheme: &str,
    host: &str,
    message: Vec<u8>,
) -> Result<(), ExportError> {
    if http { over_http(stream, host, &message).await } else { over_grpc(stream, scheme, host, message).await }
}

/// OTLP/HTTP with a binary body.
async fn over_http(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    message: &[u8],
) -> Result<(), ExportError> {
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: {host}\r\nUser-Agent: fairway/{}\r\nContent-Type: application/x-protobuf\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        message.len()
    );
    stream.write_all(head.as_bytes()).await?;
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
    host: &str,
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
    let request = Request::post(format!("{scheme}://{host}{METHOD}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("fairway/", env!("CARGO_PKG_VERSION")))
        .body(())
        .map_err(|_| ExportError::Name)?;
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
        // Without data the status stands in the head.
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
