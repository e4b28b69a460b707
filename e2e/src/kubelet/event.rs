//! Events about pods, as `kubectl describe` shows them: one object for each thing that is said, counted when it is said again.

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

/// How many different things are remembered; what was said before them becomes an object of its own.
const REMEMBERED: usize = 1000;

/// How long they are, well within the time that the API server keeps Events.
const MEMORY: Duration = Duration::from_secs(600);

/// How long a message may be, in bytes, as the API server has it.
const LONGEST: usize = 1000;

/// What is said of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    /// The pod, or a container of it.
    pub about: ObjectReference,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// What was said already.
struct Said {
    note: Note,
    name: String,
    count: i32,
    since: Instant,
}

/// Writes Events as they come, forever. Each is tried once: an API server that is away does not hear of it.
pub(crate) async fn write(client: Client, node: String, mut notes: mpsc::Receiver<Note>) {
    let mut said: VecDeque<Said> = VecDeque::new();
    while let Some(mut note) = notes.recv().await {
        note.message.truncate(note.message.floor_char_boundary(LONGEST));
        said.retain(|said| said.since.elapsed() < MEMORY);
        let events = Api::<Event>::namespaced(client.clone(), note.about.namespace.as_deref().unwrap_or("default"));
        let now = Timestamp::now();
        if let Some(again) = said.iter_mut().find(|said| said.note == note) {
            again.count += 1;
            let patch = Patch::Merge(json!({ "count": again.count, "lastTimestamp": Time(now) }));
            if let Err(error) = events.patch(&again.name, &PatchParams::default(), &patch).await {
                tracing::debug!(%error, "writing an event failed");
            }
            continue;
        }
        let name = format!("{}.{:x}", note.about.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        match events.create(&PostParams::default(), &event(&note, name.clone(), now, &node)).await {
            Ok(_) => {
                said.truncate(REMEMBERED - 1);
                said.push_front(Said { note, name, count: 1, since: Instant::now() });
            }
            Err(error) => tracing::debug!(%error, "writing an event failed"),
        }
    }
    std::future::pending::<()>().await;
}

fn event(note: &Note, name: String, now: Timestamp, node: &str) -> Event {
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: note.about.namespace.clone(), ..ObjectMeta::default() },
        involved_object: note.about.clone(),
        type_: Some(note.kind.to_owned()),
        reason: Some(note.reason.to_owned()),
        message: Some(note.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some("kubelet".to_owned()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}
