//! The kubelet's server for the API server: logs, health, and for tests the processes of pods.
//!
//! | path | what |
//! | --- | --- |
//! | `GET /healthz` | `ok` |
//! | `GET /pods` | the pods with their addresses and the ids of their containers' first processes, as the kubelet sees them |
//! | `GET /containerLogs/NAMESPACE/POD/CONTAINER` | the log, as `kubectl logs` asks for it |
//! | `POST /run/NAMESPACE/POD/CONTAINER?cmd=A&cmd=B` | runs a command; its output, and its exit code in `x-exit-code` |
//! | `POST /signal/NAMESPACE/POD/CONTAINER?signal=KILL` | sends a signal to the container's first process |

use std::convert::Infallible;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::log::{self, Selection};
use super::pod::PodWorker;
use super::{Kubelet, node};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The server on the Node's address.
pub(super) struct Server {
    kubelet: Arc<Kubelet>,
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Server {
    /// Takes the port.
    ///
    /// # Errors
    /// If it is in use, or a certificate can't be used.
    pub(super) async fn new(kubelet: Arc<Kubelet>) -> anyhow::Result<Self> {
        let options = &kubelet.options;
        let chain = |path: &PathBuf| -> anyhow::Result<Vec<CertificateDer<'static>>> {
            let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            certificates.with_context(|| format!("reading {}", path.display()))
        };
        let mut roots = RootCertStore::empty();
        for root in chain(&options.client_ca)? {
            roots.add(root).context("using the client authority")?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let key = PrivateKeyDer::from_pem_file(&options.key).context("reading the key")?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain(&options.certificate)?, key)
            .context("using the certificate")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let address = SocketAddr::from((options.address, node::PORT));
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        Ok(Self { kubelet, listener, tls: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Serves until dropped.
    pub(super) async fn run(self) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Usually too many open files, which is temporary.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (kubelet, tls) = (self.kubelet.clone(), self.tls.clone());
            tokio::spawn(async move {
                if let Err(error) = connection(kubelet, tls, stream).await {
                    tracing::debug!(%error, "a connection to the kubelet failed");
                }
            });
        }
    }
}

async fn connection(kubelet: Arc<Kubelet>, tls: TlsAcceptor, stream: TcpStream) -> anyhow::Result<()> {
    let stream = tokio::time::timeout(Duration::from_secs(10), tls.accept(stream)).await??;
    let service = service_fn(|request| {
        let kubelet = kubelet.clone();
        async move { Ok::<_, Infallible>(answer(&kubelet, request).await) }
    });
    Ok(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?)
}

async fn answer(kubelet: &Kubelet, request: Request<Incoming>) -> Response<Body> {
    let parts: Vec<String> = request.uri().path().split('/').skip(1).map(decode).collect();
    let query = Query::new(request.uri().query().unwrap_or_default());
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (request.method(), &parts[..]) {
        (&Method::GET, ["healthz"]) => text(StatusCode::OK, "ok"),
        (&Method::GET, ["pods"]) => text(StatusCode::OK, &pods(kubelet).to_string()),
        (_, [verb @ ("containerLogs" | "run" | "signal"), namespace, pod, container]) => {
            let Some(pod) = find(kubelet, namespace, pod) else {
                return text(StatusCode::NOT_FOUND, &format!("pod \"{pod}\" not found"));
            };
            match (*verb, request.method()) {
                ("containerLogs", &Method::GET) => logs(&pod, container, &query),
                ("run", &Method::POST) => match pod.execute(container, query.all("cmd")).await {
                    Ok((code, output)) => {
                        let mut response = bytes(StatusCode::OK, output);
                        response.headers_mut().insert("x-exit-code", code.into());
                        response
                    }
                    Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error),
                },
                ("signal", &Method::POST) => signal(&pod, container, &query),
                _ => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
            }
        }
        (_, ["exec" | "attach" | "portForward", ..]) => text(
            StatusCode::NOT_IMPLEMENTED,
            "this kubelet runs processes: use POST /run/NAMESPACE/POD/CONTAINER?cmd=...",
        ),
        _ => text(StatusCode::NOT_FOUND, "not found"),
    }
}

fn find(kubelet: &Kubelet, namespace: &str, name: &str) -> Option<Arc<PodWorker>> {
    let mut found = kubelet.pods();
    found.retain(|pod| {
        let object = pod.object();
        object.metadata.namespace.as_deref() == Some(namespace) && object.metadata.name.as_deref() == Some(name)
    });
    // While one ends, another with the same name may start: the newer one is meant.
    found.into_iter().max_by_key(|pod| pod.pod_state().start)
}

fn pods(kubelet: &Kubelet) -> serde_json::Value {
    let pods = kubelet.pods().into_iter().map(|pod| {
        let object = pod.object();
        let names = object.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        let running = names.filter_map(|container| {
            Some((container.name.clone(), pod.running_container(&container.name)?.process.into()))
        });
        json!({
            "namespace": object.metadata.namespace,
            "name": object.metadata.name,
            "uid": pod.uid(),
            "ip": pod.pod_state().ip,
            "processes": running.collect::<serde_json::Map<String, serde_json::Value>>(),
        })
    });
    json!({ "pods": pods.collect::<Vec<_>>() })
}

fn signal(pod: &PodWorker, container: &str, query: &Query) -> Response<Body> {
    let name = query.first("signal").unwrap_or("TERM");
    let Ok(signal) = format!("SIG{}", name.trim_start_matches("SIG")).parse::<Signal>() else {
        return text(StatusCode::BAD_REQUEST, "unknown signal");
    };
    match pod.running_container(container) {
        Some(running) => match kill(Pid::from_raw(running.process), signal) {
            Ok(()) => text(StatusCode::OK, "sent"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        None => text(StatusCode::CONFLICT, "the container is not running"),
    }
}

fn logs(pod: &PodWorker, container: &str, query: &Query) -> Response<Body> {
    let object = pod.object();
    let spec = object.spec.as_ref();
    let index = |containers: Option<&Vec<k8s_openapi::api::core::v1::Container>>| {
        containers.and_then(|containers| containers.iter().position(|known| known.name == container))
    };
    let state = pod.pod_state();
    let state =
        match (index(spec.map(|spec| &spec.containers)), index(spec.and_then(|spec| spec.init_containers.as_ref()))) {
            (Some(index), _) => &state.containers[index],
            (None, Some(index)) => &state.init[index],
            (None, None) => return text(StatusCode::NOT_FOUND, &format!("container \"{container}\" not found in pod")),
        };
    let attempt = if query.is_set("previous") { state.restarts - 1 } else { state.restarts };
    let path = pod.log_path(container, attempt);
    let now = Timestamp::now();
    let seconds = query.first("sinceSeconds").and_then(|text| text.parse::<i64>().ok());
    let since = seconds.and_then(|seconds| now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok());
    let number = |name: &str| query.first(name).and_then(|text| text.parse().ok());
    let selection = Selection {
        tail: number("tailLines"),
        since: since.or_else(|| query.first("sinceTime").and_then(|text| text.parse().ok())),
        timestamps: query.is_set("timestamps"),
        limit: number("limitBytes"),
    };
    // Before reading, so that no output in between is missed.
    let running = pod.running_container(container).filter(|running| running.log.path() == path);
    let follow = query.is_set("follow").then(|| running.map(|running| running.log.progress())).flatten();
    let (content, read) = match log::read(&path, &selection) {
        Ok(read) => read,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let what = if query.is_set("previous") { "previous terminated container" } else { "container" };
            return text(StatusCode::BAD_REQUEST, &format!("{what} \"{container}\" has no log"));
        }
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    match follow {
        None => bytes(StatusCode::OK, content),
        Some(progress) => {
            let (sender, receiver) = mpsc::channel(4);
            let limit = selection.limit.map(|limit| limit.saturating_sub(content.len()));
            tokio::spawn(async move {
                if sender.send(Bytes::from(content)).await.is_ok() {
                    let rest = Selection { tail: None, since: None, limit, ..selection };
                    follow_log(&path, read, rest, progress, sender).await;
                }
            });
            Response::new(BodyExt::boxed_unsync(StreamBody::new(Frames(receiver))))
        }
    }
}

/// Sends the output added to a log from `position` on, until its container ends or the client is gone.
async fn follow_log(
    path: &std::path::Path,
    mut position: u64,
    mut selection: Selection,
    mut progress: watch::Receiver<(u32, u64)>,
    sender: mpsc::Sender<Bytes>,
) {
    let mut files = progress.borrow().0;
    loop {
        let (now, length) = *progress.borrow_and_update();
        if now != files {
            (files, position) = (now, 0);
        }
        if length > position {
            let mut content = Vec::new();
            let read = std::fs::File::open(path).and_then(|mut file| {
                file.seek(SeekFrom::Start(position))?;
                file.take(length - position).read_to_end(&mut content)
            });
            let Ok(read) = read else { return };
            position += read as u64;
            let text = log::select(&content, &selection);
            if let Some(limit) = &mut selection.limit {
                *limit = limit.saturating_sub(text.len());
            }
            if sender.send(Bytes::from(text)).await.is_err() || selection.limit == Some(0) {
                return;
            }
        }
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

struct Frames(mpsc::Receiver<Bytes>);

impl Stream for Frames {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    bytes(status, text.as_bytes().to_vec())
}

fn bytes(status: StatusCode, content: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(content)).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// The parameters of a query, in order.
struct Query(Vec<(String, String)>);

impl Query {
    fn new(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        };
        Self(pairs.map(pair).collect())
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }

    fn is_set(&self, name: &str) -> bool {
        matches!(self.first(name), Some("true" | "1" | "t"))
    }
}

/// Decodes `%41` to `A`; invalid escapes are kept.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::new("cmd=sh&cmd=-c&cmd=echo%20a%26b+c&follow=true&x=%zz");
        assert_eq!(query.all("cmd"), ["sh", "-c", "echo a&b c"]);
        assert!(query.is_set("follow") && !query.is_set("previous"));
        assert_eq!(query.first("x"), Some("%zz"));
    }
}
