//! Takes the changes of the controller over into the proxy, and tells the operator which addresses can't be listened on.

use std::io;

use fairway_controller::Publish;
use fairway_model::Snapshot;
use fairway_proxy::{Published, Publisher, RefusedListener};
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

/// Hands every change to the proxy, one after the other. `open` says whether HTTP and HTTPS are served at each of their addresses.
pub(super) async fn publish_all(mut changes: mpsc::Receiver<Publish>, publisher: Publisher, open: watch::Sender<bool>) {
    while let Some(Publish { delta, live }) = changes.recv().await {
        let published = publisher.publish(delta).await;
        info!(
            snapshot = published.version,
            hosts = published.hosts,
            took_ms = u64::try_from(published.took.as_millis()).unwrap_or(u64::MAX),
            "published"
        );
        tell(&published);
        open.send_replace(is_open(&publisher.snapshot(), &published.refused));
        // The controller may be gone already.
        let _ = live.send(());
    }
}

fn tell(published: &Published) {
    for RefusedListener { listener, address, error } in &published.refused {
        error!(%listener, %address, %error, advice = advice(error), "can't listen");
    }
}

/// What an operator can do about it.
fn advice(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::AddrInUse => Some("somebody else has the port: end that, or choose another one"),
        io::ErrorKind::AddrNotAvailable => Some("this node has no such address: correct bind-address of the ConfigMap"),
        io::ErrorKind::PermissionDenied => Some("for ports below 1024 the capability NET_BIND_SERVICE is needed"),
        _ => None,
    }
}

/// Whether every listener for HTTP and HTTPS is open, and there is one. Those of TCP and UDP services don't count: a port of one
/// tenant must not keep all others from being served.
fn is_open(snapshot: &Snapshot, refused: &[RefusedListener]) -> bool {
    let mut listeners = snapshot.listeners();
    listeners.len() > 0 && listeners.all(|listener| refused.iter().all(|refused| refused.listener != listener.name))
}
