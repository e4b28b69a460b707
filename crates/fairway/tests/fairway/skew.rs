//! A controller of a newer release and a proxy of this one, as two processes. An intermediary at the socket simulates the newer release: it
//! adds things unknown to this release to the controller's messages.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::run::{ConfigMap, Run, api_server_and};
use bytes::{Buf, Bytes, BytesMut};
use fairway_testkit::{Client, Origin, eventually};
use h2::{RecvStream, SendStream, client, server};
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// The host that a newer release restricts in its own way.
const HOST: &str = "pay.example";

/// A member that only the newer release has.
const MEMBER: &str = "only_on_mondays";

/// An intermediary between a proxy and a controller. Ends when dropped.
struct Between {
    accepting: JoinHandle<()>,
    /// Whether it simulates a newer controller.
    newer: Arc<AtomicBool>,
}

impl Between {
    /// Serves proxies at `socket`, and connects to the controller at `behind`.
    fn start(socket: &Path, behind: PathBuf) -> Self {
        let listener = UnixListener::bind(socket).expect("a free place");
        let newer = Arc::new(AtomicBool::new(false));
        let is_newer = newer.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((proxy, _)) = listener.accept().await {
                let (behind, newer) = (behind.clone(), is_newer.clone());
                // A connection ends when either side closes it.
                tokio::spawn(async move { join(proxy, &behind, newer).await.ok() });
            }
        });
        Self { accepting, newer }
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn join(proxy: UnixStream, behind: &Path, newer: Arc<AtomicBool>) -> Result<(), Box<dyn std::error::Error>> {
    let controller = UnixStream::connect(behind).await?;
    let (sending, connection) = client::handshake(controller).await?;
    let mut serving = server::handshake(proxy).await?;
    let mut upwards = tokio::spawn(connection);
    loop {
        let accepted = tokio::select! {
            accepted = serving.accept() => accepted,
            _ = &mut upwards => return Ok(()),
        };
        let Some(accepted) = accepted else { break };
        let (request, respond) = accepted?;
        let (sending, newer) = (sending.clone(), newer.clone());
        tokio::spawn(async move { stream(request, respond, sending, &newer).await.ok() });
    }
    upwards.abort();
    Ok(())
}

async fn stream(
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    sending: client::SendRequest<Bytes>,
    newer: &AtomicBool,
) -> Result<(), h2::Error> {
    let (mut parts, said) = request.into_parts();
    parts.uri = format!("http://controller{}", parts.uri.path()).parse().expect("an address");
    let (response, up) = sending.ready().await?.send_request(Request::from_parts(parts, ()), false)?;
    tokio::spawn(async move { copy(said, up, |message| message).await.ok() });
    let (parts, told) = response.await?.into_parts();
    let down = respond.send_response(Response::from_parts(parts, ()), false)?;
    let restrict = |name: &str, body: &mut Value| {
        let ours = name.starts_with("host/") && name.ends_with(HOST);
        let resource = body.as_object_mut().and_then(|body| body.values_mut().next());
        if let Some(resource) = resource.filter(|_| ours) {
            resource[MEMBER] = json!(true);
        }
        ours
    };
    copy(told, down, |message| {
        if newer.load(Ordering::SeqCst) {
            fairway_channel::rewritten(&message, restrict).expect("a message of a controller").into()
        } else {
            message
        }
    })
    .await
}

/// Copies gRPC messages.
async fn copy(
    mut from: RecvStream,
    mut to: SendStream<Bytes>,
    change: impl Fn(Bytes) -> Bytes,
) -> Result<(), h2::Error> {
    const HEAD: usize = 5;
    let mut waiting = BytesMut::new();
    while let Some(data) = from.data().await {
        let data = data?;
        from.flow_control().release_capacity(data.len())?;
        waiting.extend_from_slice(&data);
        while waiting.len() >= HEAD {
            let length = (&waiting[1..]).get_u32() as usize;
            if waiting.len() < HEAD + length {
                break;
            }
            let message = change(waiting.split_to(HEAD + length).freeze().slice(HEAD..));
            let length = u32::try_from(message.len()).expect("a short message");
            to.send_data([&[0][..], &length.to_be_bytes(), &message].concat().into(), false)?;
        }
    }
    match from.trailers().await? {
        Some(trailers) => to.send_trailers(trailers),
        None => to.send_data(Bytes::new(), true),
    }
}

/// An API server with the Ingress `shop/pay` for a path of the host, and `shop/other` for another host.
fn api(origin: &Origin, version: &'static str, path: &'static str, other: &'static str) -> Origin {
    let config = ConfigMap::new([json!({})]);
    api_server_and(origin, &config, move |plural| {
        if plural != "ingresses" {
            return Vec::new();
        }
        let ingress = |name: &str, host: &str, path: &str| {
            let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
            let path = json!({"path": path, "pathType": "Prefix", "backend": backend});
            json!({"metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": version},
                "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [path]}}]}})
        };
        vec![ingress("pay", HOST, path), ingress("other", other, "/")]
    })
}

async fn status(http: std::net::SocketAddr, host: &str, path: &str) -> u16 {
    // Boxed: the buffers of a client, inside everything that polls it repeatedly, don't fit on the stack of a test.
    Box::pin(async { Client::connect(http).await.get(host, path).await.status }).await
}

async fn refused(run: &Run) -> Vec<String> {
    let standing: Value = serde_json::from_str(&run.body_of("/debug/channel").await).expect("JSON");
    let refused = standing["refused"].as_object().cloned().unwrap_or_default();
    refused.into_iter().map(|(name, reason)| format!("{name}: {}", reason.as_str().unwrap_or_default())).collect()
}

/// The Events that a controller has sent, with this reason.
fn events(api: &Origin, reason: &str) -> Vec<Value> {
    let posts = api.seen().into_iter().filter(|request| request.method == "POST" && request.target.contains("/events"));
    let bodies = posts.filter_map(|request| serde_json::from_slice::<Value>(&request.body).ok());
    bodies.filter(|body| body["reason"] == reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_newer_controller_knows_is_refused_the_last_good_form_stays_and_an_event_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let [socket, behind] = ["proxy.sock", "controller.sock"].map(|name| folder.path().join(name));
    let origin = Origin::start("web");
    let before = api(&origin, "1", "/old", "first.example");
    let between = Between::start(&socket, behind.clone());
    let controller = Run::controller(before.address(), &behind, &[]);
    let mut proxy = Run::proxy(&socket, &[]);
    let http = proxy.serving();
    assert_eq!((status(http, HOST, "/old").await, status(http, HOST, "/new").await), (200, 404));
    drop(controller);

    // The next release has a changed form of the host, and adds a member that this release doesn't know.
    between.newer.store(true, Ordering::SeqCst);
    let after = api(&origin, "2", "/new", "second.example");
    let mut controller = Run::controller(after.address(), &behind, &[]);
    eventually("the rest of the round", || async { status(http, "second.example", "/").await == 200 }).await;
    assert_eq!((status(http, HOST, "/old").await, status(http, HOST, "/new").await), (200, 404));
    let line = controller.line_with("a proxy does not understand a resource: its last good form stays there");
    assert!(line.contains(HOST) && line.contains(MEMBER), "{line}");
    let kept = refused(&proxy).await;
    assert!(kept.len() == 1 && kept[0].contains(HOST) && kept[0].contains(MEMBER), "{kept:?}");
    eventually("the Event", || async { !events(&after, "NotUnderstoodByProxy").is_empty() }).await;
    let event = events(&after, "NotUnderstoodByProxy").swap_remove(0);
    let object = &event["involvedObject"];
    assert_eq!(
        (&event["type"], &object["kind"], &object["name"]),
        (&json!("Warning"), &json!("Ingress"), &json!("pay"))
    );
    let text = event["message"].as_str().expect("a text");
    assert!(text.contains(MEMBER) && text.contains("last good form stays"), "{text}");
    drop(controller);

    // The previous release comes back, and is understood.
    between.newer.store(false, Ordering::SeqCst);
    let _controller = Run::controller(after.address(), &behind, &[]);
    eventually("the new form", || async { status(http, HOST, "/new").await == 200 }).await;
    assert_eq!(status(http, HOST, "/old").await, 404);
    assert!(refused(&proxy).await.is_empty());
}
