//! Takes the changes of the controller over into the proxy, and tells the operator which addresses can't be listened on.

use std::io;
use std::time::Duration;

use fairway_controller::Publish;
use fairway_model::Snapshot;
use fairway_proxy::{Published, Publisher, RefusedListener};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{error, info};

/// How soon a listener that is refused is tried again, when no change does it sooner: perhaps its port is free by then, or the
/// node has its address.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);

/// Hands every change to the proxy, one after the other. `open` says whether HTTP and HTTPS are served at each of their addresses.
pub(super) async fn publish_all(mut changes: mpsc::Receiver<Publish>, publisher: Publisher, open: watch::Sender<bool>) {
    let mut some_refused = false;
    loop {
        let (published, live) = tokio::select! {
            change = changes.recv() => {
                let Some(Publish { delta, live }) = change else { return };
                let published = publisher.publish(delta).await;
                info!(
                    snapshot = published.version,
                    hosts = published.hosts,
                    took_ms = u64::try_from(published.took.as_millis()).unwrap_or(u64::MAX),
                    "published"
                );
                (published, Some(live))
            }
            () = sleep(LISTEN_AGAIN), if some_refused => match publisher.listen_again().await {
                Some(published) => (published, None),
                None => continue,
            },
        };
        tell(&published);
        some_refused = !published.refused.is_empty();
        open.send_replace(is_open(&publisher.snapshot(), &published.refused));
        if let Some(live) = live {
            // The controller may be gone already.
            let _ = live.send(());
        }
    }
}

/// Tells what is new: with a port that stays refused, each change of any endpoint would say so again.
fn tell(published: &Published) {
    for RefusedListener { listener, address, error, .. } in published.refused.iter().filter(|refused| !refused.known) {
        error!(%listener, %address, %error, advice = advice(error), "can't listen");
    }
    for (listener, address) in &published.opened {
        info!(%listener, %address, "listening at last");
    }
}

/// What an operator can do about it.
fn advice(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::AddrInUse => Some("another process uses the port: stop it, or choose another port"),
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
