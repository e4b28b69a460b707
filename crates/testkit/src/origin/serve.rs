//! One connection to an origin.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::reply::{Reply, Step, Then};
use super::{End, Fault, Orders, Record, ReplyFn, When};
use crate::message::{Body, Framing, Request};
use crate::stream::Stream;
use crate::wire::{Broken, Wire};
use crate::{Ca, Ended, Leaf};

/// State shared by all connections of one origin.
pub(super) struct Service {
    pub(super) record: Arc<Record>,
    pub(super) fault: Option<Fault>,
    pub(super) when: When,
    pub(super) reply: ReplyFn,
    pub(super) tls: Option<TlsAcceptor>,
}

/// How a connection ended.
enum Finish {
    /// The peer ended it.
    Peer(Ended),
    /// We close it.
    Close,
    /// We reset it.
    Reset,
}

impl From<Broken> for Finish {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Closed => Self::Peer(Ended::Closed),
            Broken::Reset(_) => Self::Peer(Ended::Reset),
            Broken::Malformed(_) => Self::Close,
        }
    }
}

impl From<io::Error> for Finish {
    fn from(error: io::Error) -> Self {
        Broken::from(error).into()
    }
}

pub(super) fn tls_config(leaf: &Leaf, clients: Option<&Ca>) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .expect("aws-lc-rs speaks TLS 1.2 and 1.3");
    let builder = match clients {
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(ca.roots(), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a root that rustls can use"))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config =
        builder.with_single_cert(leaf.chain().to_vec(), leaf.key()).expect("a certificate with its own key");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Serves connection `number` until one side ends it or the test orders its end.
pub(super) async fn serve(tcp: TcpStream, number: u64, service: Arc<Service>, orders: watch::Receiver<Orders>) {
    // Otherwise the kernel would merge a trickle.
    let _ = tcp.set_nodelay(true);
    let (wire, finish) = converse(tcp, number, &service, &orders).await;
    let end = match finish {
        Finish::Peer(ended) => End::Peer(ended),
        Finish::Close | Finish::Reset => End::Origin,
    };
    match (wire, finish) {
        (Some(wire), Finish::Reset) => wire.into_stream().reset(),
        (Some(mut wire), _) => {
            let _ = wire.half_close().await;
            // Closing with unread bytes would send a RST.
            let mut rest = [0; 16 << 10];
            while wire.stream().tcp().try_read(&mut rest).is_ok_and(|count| count > 0) {}
        }
        (None, _) => {}
    }
    service.record.edit(|seen| seen.connections[number as usize - 1].ended = Some(end));
}

async fn converse(
    tcp: TcpStream,
    number: u64,
    service: &Service,
    orders: &watch::Receiver<Orders>,
) -> (Option<Wire>, Finish) {
    if service.fault == Some(Fault::ResetOnAccept) {
        Stream::Plain(tcp).reset();
        return (None, Finish::Reset);
    }
    let (stream, sni) = match &service.tls {
        None => (Stream::Plain(tcp), None),
        Some(acceptor) => match acceptor.accept(tcp).await {
            Ok(stream) => {
                let sni = stream.get_ref().1.server_name().map(str::to_owned);
                (Stream::Tls(Box::new(TlsStream::Server(stream))), sni)
            }
            Err(error) => return (None, error.into()),
        },
    };
    let record = Arc::clone(&service.record);
    let mut wire = Wire::with_tap(stream, move |bytes| {
        record.edit(|seen| seen.connections[number as usize - 1].received.extend_from_slice(bytes));
    });
    let mut latest = orders.clone();
    let finish = tokio::select! {
        finish = speak(&mut wire, number, sni, service, orders) => finish,
        Ok(orders) = latest.wait_for(|orders| orders.reset >= number || orders.closed >= number) => {
            if orders.reset >= number { Finish::Reset } else { Finish::Close }
        }
    };
    (Some(wire), finish)
}

async fn speak(
    wire: &mut Wire,
    number: u64,
    sni: Option<String>,
    service: &Service,
    orders: &watch::Receiver<Orders>,
) -> Finish {
    match service.fault {
        Some(Fault::Silent) => return until_end(wire).await,
        Some(Fault::Deaf) => std::future::pending().await,
        Some(Fault::CloseOnAccept) => return Finish::Close,
        Some(Fault::EchoBytes) => return echo_bytes(wire).await.unwrap_or_else(Into::into),
        _ => {}
    }
    let mut count = 0;
    loop {
        count += 1;
        match exchange(wire, number, count, sni.clone(), service, orders).await {
            Ok(None) => {}
            Ok(Some(finish)) => return finish,
            Err(Broken::Malformed(reason)) => {
                let refusal = Reply::status(400).body(format!("the origin could not read this: {reason}\n")).close();
                return match perform(wire, "GET", &refusal).await {
                    Ok(finish) => finish.unwrap_or(Finish::Close),
                    Err(broken) => broken.into(),
                };
            }
            Err(broken) => return broken.into(),
        }
    }
}

/// Handles one request and its response; returns how the connection ends, if it does.
async fn exchange(
    wire: &mut Wire,
    connection: u64,
    number: u64,
    sni: Option<String>,
    service: &Service,
    orders: &watch::Receiver<Orders>,
) -> Result<Option<Finish>, Broken> {
    let head = wire.read_head().await?;
    let mut request = Request::parse(head, connection, number, sni).map_err(Broken::Malformed)?;
    service.record.edit(|seen| seen.heads.push(request.clone()));

    let choose = orders.borrow().reply.clone().unwrap_or_else(|| Arc::clone(&service.reply));
    if service.when == When::Head {
        let reply = choose(&request);
        if let Some(finish) = perform(wire, &request.method, &reply).await? {
            return Ok(Some(finish));
        }
        receive_body(wire, &mut request, service).await?;
        return Ok(closes(&request).then_some(Finish::Close));
    }
    let expects = request.headers().lists("expect", "100-continue") && request.framing != Framing::None;
    if expects && service.when == When::Complete {
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    receive_body(wire, &mut request, service).await?;
    let reply = choose(&request);
    let finish = perform(wire, &request.method, &reply).await?;
    Ok(finish.or_else(|| closes(&request).then_some(Finish::Close)))
}

async fn receive_body(wire: &mut Wire, request: &mut Request, service: &Service) -> Result<(), Broken> {
    let mut body = Body::default();
    wire.read_body(request.framing, &mut body).await?;
    let Body { data, chunks, trailers } = body;
    request.body = data;
    request.chunks = chunks;
    request.trailers = trailers;
    service.record.edit(|seen| seen.requests.push(request.clone()));
    Ok(())
}

/// Whether the connection ends after this request, RFC 9112 section 9.3.
fn closes(request: &Request) -> bool {
    let headers = request.headers();
    headers.lists("connection", "close") || request.version == "HTTP/1.0" && !headers.lists("connection", "keep-alive")
}

/// Sends a reply and returns how the connection ends, if it does.
async fn perform(wire: &mut Wire, method: &str, reply: &Reply) -> Result<Option<Finish>, Broken> {
    for step in reply.steps(method) {
        match step {
            Step::Send(bytes) => wire.send(&bytes).await?,
            Step::Trickle(bytes, count, pause) => {
                for piece in bytes.chunks(count) {
                    wire.send(piece).await?;
                    if pause.is_zero() {
                        tokio::task::yield_now().await;
                    } else {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
            Step::Wait(gate) => {
                let mut pass = std::pin::pin!(gate.pass());
                // Reading in the meantime detects when the peer goes away.
                while tokio::select! {
                    () = &mut pass => false,
                    more = wire.fill() => more? || return Err(Broken::Closed),
                } {}
            }
        }
    }
    Ok(match reply.then() {
        Then::Keep => None,
        Then::Close => Some(Finish::Close),
        Then::Reset => Some(Finish::Reset),
        Then::Stall => Some(until_end(wire).await),
        Then::HalfClose => {
            wire.half_close().await?;
            Some(until_end(wire).await)
        }
        Then::EchoBytes => Some(echo_bytes(wire).await?),
    })
}

async fn until_end(wire: &mut Wire) -> Finish {
    loop {
        match wire.fill().await {
            Ok(true) => drop(wire.take_buffered()),
            Ok(false) => return Finish::Peer(Ended::Closed),
            Err(error) => return error.into(),
        }
    }
}

async fn echo_bytes(wire: &mut Wire) -> Result<Finish, Broken> {
    loop {
        let bytes = wire.take_buffered();
        wire.send(&bytes).await?;
        if !wire.fill().await? {
            return Ok(Finish::Peer(Ended::Closed));
        }
    }
}
