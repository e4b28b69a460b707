//! Events about pods, as shown by `kubectl describe`: one object per distinct message, counted when repeated.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How many distinct messages are remembered; a forgotten one becomes a new object when repeated.
const REMEMBERED: usize = 1000;

/// How long they are remembered, well within the time that the API server keeps Events.
const MEMORY: Duration = Duration::from_secs(600);

/// Maximum length of a message in bytes, as in the API server.
const LONGEST: usize = 1000;

/// An Event to be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EventRecord {
    /// The pod, or a container of it.
    pub about: ObjectReference,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// A written Event, whose count increases when it recurs.
struct Written {
    record: EventRecord,
    name: String,
    count: i32,
    since: Instant,
}

/// Writes Events as they arrive, forever. Each is tried once: an unavailable API server misses it.
pub(crate) async fn write(client: Client, node: String, mut records: mpsc::Receiver<EventRecord>) {
    let mut written: VecDeque<Written> = VecDeque::new();
    while let Some(mut record) = records.recv().await {
        record.message.truncate(record.message.floor_char_boundary(LONGEST));
        written.retain(|written| written.since.elapsed() < MEMORY);
        let events = Api::<Event>::namespaced(client.clone(), record.about.namespace.as_deref().unwrap_or("default"));
        let now = Timestamp::now();
        if let Some(again) = written.iter_mut().find(|written| written.record == record) {
            again.count += 1;
            let patch = Patch::Merge(json!({ "count": again.count, "lastTimestamp": Time(now) }));
            if let Err(error) = events.patch(&again.name, &PatchParams::default(), &patch).await {
                tracing::debug!(%error, "writing an event failed");
            }
            continue;
        }
        let name = format!("{}.{:x}", record.about.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        match events.create(&PostParams::default(), &event(&record, name.clone(), now, &node)).await {
            Ok(_) => {
                written.truncate(REMEMBERED - 1);
                written.push_front(Written { record, name, count: 1, since: Instant::now() });
            }
            Err(error) => tracing::debug!(%error, "writing an event failed"),
        }
    }
    std::future::pending::<()>().await;
}

fn event(record: &EventRecord, name: String, now: Timestamp, node: &str) -> Event {
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: record.about.namespace.clone(), ..ObjectMeta::default() },
        involved_object: record.about.clone(),
        type_: Some(record.kind.to_owned()),
        reason: Some(record.reason.to_owned()),
        message: Some(record.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}
