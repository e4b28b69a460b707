//! Takes the changes of the controller over into the proxy.

use fairway_controller::Publish;
use fairway_proxy::Publisher;
use tokio::sync::mpsc;
use tracing::{error, info};

/// Hands every change to the proxy, one after the other.
pub(super) async fn publish_all(mut changes: mpsc::Receiver<Publish>, publisher: Publisher) {
    while let Some(Publish { delta, live }) = changes.recv().await {
        let published = publisher.publish(delta).await;
        info!(
            snapshot = published.version,
            hosts = published.hosts,
            took_ms = u64::try_from(published.took.as_millis()).unwrap_or(u64::MAX),
            "published"
        );
        for refused in published.refused {
            error!(listener = %refused.listener, address = %refused.address, error = %refused.error, "can't listen");
        }
        // The controller may be gone already.
        let _ = live.send(());
    }
}
