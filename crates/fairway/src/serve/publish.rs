//! Applies changes to the proxy, and reports addresses that it can't listen on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fairway_channel::Change;
use fairway_model::{Delta, Snapshot};
use fairway_proxy::{Published, Publisher, RefusedListener};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::{error, info};

use crate::handover::Handover;

/// The longest time until a refused listener is tried again: its port may be free by then, or the node may have the address. Any change
/// retries it sooner.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);

/// A change, and where to report that it is live.
pub(crate) trait Publication: Send + 'static {
    /// Returns both.
    fn parts(self) -> (Delta, oneshot::Sender<()>);
}

/// From a controller in another process.
impl Publication for Change {
    fn parts(self) -> (Delta, oneshot::Sender<()>) {
        (self.delta, self.live)
    }
}

/// From the controller in this process.
impl Publication for fairway_controller::Publish {
    fn parts(self) -> (Delta, oneshot::Sender<()>) {
        (self.delta, self.live)
    }
}

/// Applies changes to the proxy, one at a time. Sets `open` to whether HTTP and HTTPS are served at each of their addresses.
pub(super) async fn publish_all(
    mut changes: mpsc::Receiver<impl Publication>,
    publisher: Publisher,
    open: watch::Sender<bool>,
    handover: Option<Arc<Handover>>,
) {
    let taking = async || match &handover {
        Some(handover) => handover.take(&publisher).await,
        None => false,
    };
    let mut begun = false;
    let mut some_refused = false;
    loop {
        let (published, live) = tokio::select! {
            change = changes.recv() => {
                let Some((delta, live)) = change.map(Publication::parts) else { return };
                if !std::mem::replace(&mut begun, true) {
                    taking().await;
                }
                let mut published = publisher.publish(delta).await;
                // The previous process may have opened a port in the meantime.
                if published.refused.iter().any(|refused| refused.error.kind() == io::ErrorKind::AddrInUse)
                    && taking().await
                    && let Some(again) = publisher.listen_again().await
                {
                    published.refused = again.refused;
                    published.opened.extend(again.opened);
                }
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
            // The controller may have ended already.
            let _ = live.send(());
        }
    }
}

/// Logs only what is new: otherwise every change of endpoints would log a port that stays refused.
fn tell(published: &Published) {
    for RefusedListener { listener, address, error, .. } in published.refused.iter().filter(|refused| !refused.known) {
        error!(%listener, %address, %error, advice = advice(error), "can't listen");
    }
    for (listener, address) in &published.opened {
        info!(%listener, %address, "listening at last");
    }
}

/// Advice for the operator.
fn advice(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::AddrInUse => Some("another process uses the port: stop it, or choose another port"),
        io::ErrorKind::AddrNotAvailable => Some("this node has no such address: correct bind-address of the ConfigMap"),
        io::ErrorKind::PermissionDenied => Some("for ports below 1024 the capability NET_BIND_SERVICE is needed"),
        _ => None,
    }
}

/// Whether there are listeners for HTTP and HTTPS and all of them are open. Listeners of TCP and UDP services don't count: one tenant's
/// port must not prevent serving all others.
fn is_open(snapshot: &Snapshot, refused: &[RefusedListener]) -> bool {
    let mut listeners = snapshot.listeners();
    listeners.len() > 0 && listeners.all(|listener| refused.iter().all(|refused| refused.listener != listener.name))
}
