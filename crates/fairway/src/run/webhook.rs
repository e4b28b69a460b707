//! The admission webhook (`--validating-webhook`): tells the API server whether an Ingress may be stored.
//!
//! Invariant: it can delay a change by at most its time limit, and nothing that a client sends affects the served traffic. The meaning of
//! an Ingress is decided where every Ingress is read; this module only speaks the API server's protocol.

mod answer;
mod certificate;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use fairway_controller::Reviewer;
use fairway_translate::limit::{REVIEW_CONNECTIONS, REVIEW_IDLE, REVIEWS};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info};

use self::answer::answer;
use self::certificate::Certificates;
use crate::flags::Flags;

/// The webhook's address and certificates.
#[derive(Debug)]
pub(crate) struct Webhook {
    listener: std::net::TcpListener,
    certificates: Certificates,
}

impl Webhook {
    /// Binds the address from the flags; `None` without one. `authority` is the file of the authority for client certificates.
    ///
    /// # Errors
    /// If the address can't be read or bound.
    pub(super) fn bind(flags: &Flags, authority: Option<PathBuf>) -> anyhow::Result<Option<Self>> {
        let Some(text) = flags.text("validating-webhook") else { return Ok(None) };
        let address = address(&text).with_context(|| {
            format!("--validating-webhook={text}: expected an address and a port, such as :8443 or 127.0.0.1:8443")
        })?;
        let listener = std::net::TcpListener::bind(&*address)
            .with_context(|| format!("cannot listen on {text}; choose another port with --validating-webhook"))?;
        listener.set_nonblocking(true)?;
        let file = |name: &str| flags.text(name).map(PathBuf::from).unwrap_or_default();
        let mut certificates =
            Certificates::new(file("validating-webhook-certificate"), file("validating-webhook-key"), authority);
        certificates.refresh();
        Ok(Some(Self { listener, certificates }))
    }

    /// Answers the API server until dropped.
    ///
    /// # Errors
    /// If the runtime can't take over the socket.
    pub(super) async fn run(self, reviewer: Reviewer) -> anyhow::Result<()> {
        let Self { listener, mut certificates } = self;
        let listener = TcpListener::from_std(listener)?;
        info!(address = %listener.local_addr()?, "admission webhook");
        let shared = Arc::new(WebhookState { reviewer, turns: Semaphore::new(REVIEWS) });
        let mut open = OpenConnections::default();
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
                Err(error) => {
                    debug!(%error, "cannot accept a connection of the API server");
                    sleep(fairway_proxy::limit::ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Without a certificate, the connection is closed and the webhook's failure policy decides.
            let Some(tls) = certificates.refresh() else { continue };
            if !open.make_room(peer) {
                debug!(%peer, "refused a connection: its address has the most open connections");
                continue;
            }
            let shared = shared.clone();
            let connection = tokio::spawn(async move {
                if let Err(error) = serve(stream, tls, shared).await {
                    debug!(error = %format_args!("{error:#}"), "a connection of the API server ended");
                }
            });
            open.0.push((peer, connection.abort_handle()));
        }
    }
}

/// The connections by address, oldest first. A client that opens many loses its own, so no client can keep the API server out.
#[derive(Debug, Default)]
struct OpenConnections(Vec<(IpAddr, AbortHandle)>);

impl OpenConnections {
    /// Makes room for a connection from an address by closing the oldest of the address that has most; `false` if that is the same one.
    fn make_room(&mut self, peer: IpAddr) -> bool {
        self.0.retain(|(_, connection)| !connection.is_finished());
        if self.0.len() < REVIEW_CONNECTIONS {
            return true;
        }
        let of = |address| self.0.iter().filter(|(other, _)| *other == address).count();
        let own = of(peer);
        let Some((most, count)) = self.0.iter().map(|(address, _)| (*address, of(*address))).max_by_key(|one| one.1)
        else {
            return true;
        };
        if own >= count {
            return false;
        }
        if let Some(oldest) = self.0.iter().position(|(address, _)| *address == most) {
            self.0.remove(oldest).1.abort();
        }
        true
    }
}

/// State shared by all connections.
#[derive(Debug)]
struct WebhookState {
    reviewer: Reviewer,
    /// Bounds the memory for request bodies.
    turns: Semaphore,
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, shared: Arc<WebhookState>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let stream = timeout(REVIEW_IDLE, tls.accept(stream)).await??;
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move {
            let (status, body) = answer(request, &shared.reviewer, &shared.turns).await;
            let mut response = http::Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            let kind = if status.is_success() { "application/json" } else { "text/plain; charset=utf-8" };
            response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REVIEW_IDLE)
        .serve_connection(TokioIo::new(stream), service);
    Ok(connection.await?)
}

/// The addresses of `HOST:PORT`, where no host means all addresses, as in Go.
fn address(text: &str) -> std::io::Result<Vec<SocketAddr>> {
    match text.strip_prefix(':').map(str::parse::<u16>) {
        // An IPv6 socket accepts IPv4 too; a node without IPv6 uses the second address.
        Some(Ok(port)) => Ok(vec![([0u16; 8], port).into(), ([0, 0, 0, 0], port).into()]),
        _ => text.to_socket_addrs().map(Iterator::collect),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_with_many_connections_loses_its_own() {
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut open = OpenConnections::default();
        let mut connect = |from: u8| {
            let admitted = open.make_room(address(from));
            if admitted {
                open.0.push((address(from), tokio::spawn(std::future::pending::<()>()).abort_handle()));
            }
            (admitted, open.0.iter().filter(|(peer, _)| *peer == address(from)).count(), open.0.len())
        };
        assert_eq!(connect(1), (true, 1, 1));
        for number in 1..REVIEW_CONNECTIONS {
            assert_eq!(connect(2), (true, number, number + 1));
        }
        assert_eq!(connect(2), (false, REVIEW_CONNECTIONS - 1, REVIEW_CONNECTIONS));
        for number in 2..=REVIEW_CONNECTIONS / 2 {
            assert_eq!(connect(1), (true, number, REVIEW_CONNECTIONS), "each takes the place of one of the other");
        }
        assert!(!connect(1).0 && !connect(2).0, "both have as many");
        assert_eq!(connect(3), (true, 1, REVIEW_CONNECTIONS));
    }

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        let ports = |text| address(text).map(|found| found.iter().map(SocketAddr::port).collect::<Vec<_>>()).ok();
        assert_eq!(ports(":8443"), Some(vec![8443, 8443]));
        assert_eq!(ports("127.0.0.1:8443"), Some(vec![8443]));
        assert_eq!(ports("[::1]:1"), Some(vec![1]));
        for bad in ["8443", ":x", "127.0.0.1", "", ":70000"] {
            assert_eq!(ports(bad), None, "{bad:?}");
        }
    }
}
