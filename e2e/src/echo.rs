//! The program behind the echo images: responds with the request it received, like `echo-basic` of Gateway API and
//! `echoserver` of the Ingress conformance suite; or, in another mode, acts as `defaultbackend-amd64` or as a server
//! without HTTP.
//!
//! It stops as a backend should: after SIGTERM it continues for a moment, because clients learn of its end later than
//! it does; then it closes idle connections and finishes requests in progress.

mod answer;
mod bytes;
mod tls;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use self::answer::Responder;

/// Which program it stands for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Mode {
    /// Answers with the request in JSON, on the port of `HTTP_PORT` (3000), and with TLS on that of `HTTPS_PORT` (8443) if
    /// `TLS_SERVER_CERT` and `TLS_SERVER_PRIVKEY` name files.
    #[default]
    Echo,
    /// Answers 404 on port 8080, and 200 on `/healthz`.
    DefaultBackend,
    /// Sends back the bytes of connections and the datagrams that come to port 3000.
    Bytes,
}

/// Its command line options; the rest comes from the variables of the images.
#[derive(Args, Clone, Debug)]
pub struct EchoOptions {
    /// Which program it stands for
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// How long it goes on as before after SIGTERM, in seconds
    #[arg(long, default_value_t = 2.0)]
    pub linger: f64,
}

/// Serves until SIGTERM, and then finishes the requests in progress.
///
/// # Errors
/// If a port is in use, or a certificate can't be read.
pub async fn run(options: EchoOptions) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let (responder, port) = match options.mode {
        Mode::Echo => {
            let port = port("HTTP_PORT", 3000)?;
            (Responder::echo(port), port)
        }
        Mode::DefaultBackend => (Responder::default_backend(), 8080),
        Mode::Bytes => {
            let listener = listen(3000).await?;
            return tokio::select! {
                result = bytes::serve(listener) => result,
                _ = terminated.recv() => Ok(()),
            };
        }
    };
    let mut servers = JoinSet::new();
    let (ending, end) = watch::channel(false);
    servers.spawn(serve(listen(port).await?, None, responder.clone(), end.clone()));
    if let (Mode::Echo, Some(acceptor)) = (options.mode, tls::acceptor_of_variables()?) {
        servers.spawn(serve(listen(self::port("HTTPS_PORT", 8443)?).await?, Some(acceptor), responder, end.clone()));
    }
    terminated.recv().await;
    println!("asked to end");
    tokio::time::sleep(Duration::from_secs_f64(options.linger)).await;
    let _ = ending.send(true);
    while servers.join_next().await.is_some() {}
    println!("ended");
    Ok(())
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))
}

fn port(variable: &str, default: u16) -> anyhow::Result<u16> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}: expected a port")),
        Err(_) => Ok(default),
    }
}

/// Accepts connections until the end, then waits for the remaining ones.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, responder: Responder, mut end: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = end.wait_for(|end| *end) => break,
            // Removes the finished ones.
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(connection(stream, peer, tls.clone(), responder.clone(), end.clone()));
            }
            // Out of descriptors, for example: the next attempt would also fail at once.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    responder: Responder,
    end: watch::Receiver<bool>,
) {
    // The end of a connection concerns only its peer.
    let _ = stream.set_nodelay(true);
    match tls {
        None => exchange(stream, peer, None, responder, end).await,
        Some(acceptor) => {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let info = tls::TlsInfo::of(stream.get_ref().1);
            exchange(stream, peer, Some(info), responder, end).await;
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    tls: Option<tls::TlsInfo>,
    responder: Responder,
    mut end: watch::Receiver<bool>,
) {
    let service = service_fn(|request| responder.answer(request, peer, tls.as_ref()));
    let served = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        _ = end.wait_for(|end| *end) => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

#[cfg(test)]
mod tests {
    use fairway_testkit::{Ca, Client, TlsClient, within};

    use super::*;

    /// A server on a port chosen by the kernel, and a way to stop it.
    async fn start(responder: Responder, tls: Option<TlsAcceptor>) -> (SocketAddr, watch::Sender<bool>, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ending, end) = watch::channel(false);
        let mut server = JoinSet::new();
        server.spawn(serve(listener, tls, responder, end));
        (address, ending, server)
    }

    #[tokio::test]
    async fn requests_are_echoed_as_the_suites_expect() {
        let (address, _ending, _server) = start(Responder::echo(3000), None).await;
        let mut client = Client::connect(address).await;
        let fields = [("host", "a.example"), ("x-my-field", "1 & 2"), ("x-my-field", "3"), ("user-agent", "t/1")];
        let response = client.request("POST", "/a/b?c=d", &fields, b"body").await;
        let json = response.json();
        assert_eq!(response.status, 200);
        for (name, value) in [
            ("path", "/a/b?c=d"),
            ("host", "a.example"),
            ("method", "POST"),
            ("proto", "HTTP/1.1"),
            ("httpPort", "3000"),
        ] {
            assert_eq!(json[name], value, "{name}");
        }
        assert_eq!(json["headers"]["X-My-Field"], serde_json::json!(["1 & 2", "3"]));
        assert_eq!(json["headers"]["Content-Length"][0], "4");
        assert!(json["headers"]["Host"].is_null() && json["tls"].is_null(), "{json}");
        assert!(response.text().contains("1 \\u0026 2"), "as Go escapes it");
        let headers = response.headers();
        assert_eq!(headers.get("content-length"), Some(response.body.len().to_string().as_str()));
        assert_eq!(headers.get("content-type"), Some("application/json"));
        assert!(headers.get("server").is_none() && headers.get("date").is_some());
        assert_eq!(client.get("a.example", "/health").await.text(), "OK");
        assert_eq!(client.get("a.example", "/status/418").await.status, 418);
        let set = [("host", "a"), ("x-echo-set-header", "X-One:1, X-Two: two words,")];
        let response = client.request("GET", "/", &set, b"").await;
        assert_eq!((response.headers().get("x-one"), response.headers().get("x-two")), (Some("1"), Some("two words")));
    }

    #[tokio::test]
    async fn the_default_backend_knows_nothing_but_its_health() {
        let (address, _ending, _server) = start(Responder::default_backend(), None).await;
        let mut client = Client::connect(address).await;
        let response = client.get("a.example", "/").await;
        assert_eq!((response.status, response.text()), (404, "default backend - 404".into()));
        assert_eq!(client.get("a.example", "/healthz").await.status, 200);
    }

    #[tokio::test]
    async fn tls_is_reported() {
        let ca = Ca::new("root");
        let leaf = ca.leaf(&["a.example"]);
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("crt"), folder.path().join("key"));
        std::fs::write(&certificate, leaf.certificate_pem()).unwrap();
        std::fs::write(&key, leaf.key_pem()).unwrap();
        let acceptor = tls::acceptor(&certificate, &key).unwrap();
        let (address, _ending, _server) = start(Responder::echo(3000), Some(acceptor)).await;
        let mut client = TlsClient::new(&ca, "a.example").connect(address).await;
        let json = client.get("a.example", "/").await.json();
        assert_eq!((&json["tls"]["version"], &json["tls"]["serverName"]), (&"TLSv1.3".into(), &"a.example".into()));
    }

    #[tokio::test]
    async fn running_requests_finish_and_idle_connections_are_closed() {
        let (address, ending, mut server) = start(Responder::echo(3000), None).await;
        let mut idle = Client::connect(address).await;
        idle.get("a", "/").await;
        let mut busy = Client::connect(address).await;
        busy.send("GET /?delay=300ms HTTP/1.1\r\nhost: a\r\n\r\n").await;
        // Its turn comes after the request has been read: the server has only this thread.
        idle.get("a", "/").await;
        ending.send(true).unwrap();
        idle.ended().await;
        let response = busy.read_response().await;
        assert_eq!((response.status, response.headers().get("connection")), (200, Some("close")));
        within("the server to end", server.join_next()).await;
        assert!(Client::try_connect(address).await.is_err());
    }
}
