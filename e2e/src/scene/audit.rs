//! What pods of the scene's namespace asked the API server, and how it answered: from the audit log of the cluster.

use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::Context;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::Scene;

/// One request, at its end; for a watch, at its beginning and at its end.
#[derive(Clone, Debug)]
pub struct Request {
    /// The pod that asked.
    pub pod: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// What was asked for, as `ingresses` or `ingresses/status`.
    pub resource: String,
    /// The namespace of what was asked for, empty for all.
    pub namespace: String,
    /// The name of what was asked for, empty for a list or a watch.
    pub name: String,
    /// How it was answered.
    pub code: u16,
    /// When it arrived.
    pub received: Timestamp,
    /// When it was answered.
    pub answered: Timestamp,
    /// Whether it is over; only of a watch it is told before.
    pub over: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Answer,
    request_received_timestamp: String,
    stage_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
    #[serde(default)]
    extra: Value,
}

#[derive(Default, Deserialize)]
struct Object {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    code: u16,
}

impl Scene {
    /// All requests of pods of the scene's namespace so far, in the order in which they were answered.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn audit(&self) -> anyhow::Result<Vec<Request>> {
        let path = self.cluster().layout().audit_log();
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let account = format!("system:serviceaccount:{}:", self.namespace());
        let mut requests = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line?;
            // The last line may be half written.
            let Some(line) = Some(line).filter(|line| line.contains(&account)) else { continue };
            let Ok(line) = serde_json::from_str::<Line>(&line) else { continue };
            let pod = line.user.extra["authentication.kubernetes.io/pod-name"][0].as_str().map(str::to_owned);
            let Some(pod) = pod.filter(|_| line.user.username.starts_with(&account)) else { continue };
            let Object { mut resource, subresource, namespace, name } = line.object_ref;
            if !subresource.is_empty() {
                resource = format!("{resource}/{subresource}");
            }
            requests.push(Request {
                pod,
                verb: line.verb,
                resource,
                namespace,
                name,
                code: line.response_status.code,
                received: line.request_received_timestamp.parse()?,
                answered: line.stage_timestamp.parse()?,
                over: line.stage == "ResponseComplete",
            });
        }
        Ok(requests)
    }
}
