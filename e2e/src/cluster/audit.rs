//! The audit log of a cluster's API server: each request, its user, and the response.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::Context;
use jiff::Timestamp;
use serde::Deserialize;

use super::layout::Layout;

/// One line of the log: a request at its end, and a watch at its start as well.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `ResponseStarted` for the start of a watch, otherwise `ResponseComplete`.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// The request URI as written.
    #[serde(rename = "requestURI", default)]
    pub request_uri: String,
    /// The requesting user.
    pub user: User,
    /// The requested object; empty if there is none.
    #[serde(default)]
    pub object_ref: Object,
    /// Decisions made during the request, with their origin.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// When the request arrived.
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: Timestamp,
    /// When this stage was reached.
    #[serde(rename = "stageTimestamp")]
    pub reached: Timestamp,
    response_status: Option<AuditAnswer>,
}

/// The requesting user.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// As in role bindings.
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

/// An object, or all of a kind. Fields that don't apply are empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// As in a role's rules.
    pub api_group: String,
    /// The plural, for example `ingresses`.
    pub resource: String,
    /// A subresource, for example `status`.
    pub subresource: String,
    /// Empty for all namespaces, and for cluster-scoped kinds.
    pub namespace: String,
    /// Empty for a list or a watch.
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct AuditAnswer {
    code: Option<u16>,
}

impl Event {
    /// The namespace and name of the requesting service account, if any.
    pub fn account(&self) -> Option<(&str, &str)> {
        self.user.username.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// The requesting pod, if any.
    pub fn pod(&self) -> Option<&str> {
        self.user.extra.get("authentication.kubernetes.io/pod-name")?.first().map(String::as_str)
    }

    /// The status of the response, if there was one.
    pub fn code(&self) -> Option<u16> {
        self.response_status.as_ref()?.code
    }

    /// Whether the requester lacked the right.
    pub fn is_denied(&self) -> bool {
        let decision = self.annotations.get("authorization.k8s.io/decision");
        decision.is_some_and(|decision| decision == "forbid") || self.code() == Some(403)
    }
}

impl Object {
    /// Its name in a role's rules, for example `ingresses` or `ingresses/status`.
    pub fn kind(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            part => format!("{}/{part}", self.resource),
        }
    }
}

/// The log so far and what is appended to it.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    /// The end of the last line read.
    offset: u64,
}

impl Log {
    /// The whole log of a cluster.
    pub fn new(layout: &Layout) -> Self {
        Self { path: layout.audit_log(), offset: 0 }
    }

    /// The log of a cluster from now on.
    ///
    /// # Errors
    /// If its size can't be determined.
    pub fn from_now(layout: &Layout) -> anyhow::Result<Self> {
        let path = layout.audit_log();
        // If a line is just being written, its remainder is not a valid event.
        let offset = path.metadata().with_context(|| format!("looking at {}", path.display()))?.len();
        Ok(Self { path, offset })
    }

    /// Calls `each` for every event written since the last call whose line `wanted` selects: filtering lines is cheaper
    /// than parsing them, and most are about the control plane itself.
    ///
    /// # Errors
    /// If the log can't be read. An incomplete line, as left by an API server that is killed while writing, is skipped.
    pub fn read(&mut self, wanted: impl Fn(&str) -> bool, mut each: impl FnMut(Event)) -> anyhow::Result<()> {
        let reading = || format!("reading {}", self.path.display());
        let mut file = File::open(&self.path).with_context(reading)?;
        file.seek(SeekFrom::Start(self.offset)).with_context(reading)?;
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = file.read_until(b'\n', &mut line).with_context(reading)?;
            // The last line may be incomplete.
            if line.last() != Some(&b'\n') {
                return Ok(());
            }
            self.offset += length as u64;
            let text = str::from_utf8(&line).ok().filter(|line| wanted(line));
            if let Some(event) = text.and_then(|line| serde_json::from_str(line).ok()) {
                each(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    /// As kube-apiserver 1.36 writes it.
    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"0c5b","stage":"ResponseComplete","requestURI":"/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web/status","verb":"patch","user":{"username":"system:serviceaccount:fairway:controller","groups":["system:serviceaccounts"],"extra":{"authentication.kubernetes.io/pod-name":["fairway-0"]}},"sourceIPs":["198.18.1.2"],"userAgent":"fairway","objectRef":{"resource":"ingresses","namespace":"shop","name":"web","apiGroup":"networking.k8s.io","apiVersion":"v1","subresource":"status"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-11-21T08:00:00.000001Z","stageTimestamp":"2026-11-21T08:00:00.003000Z","annotations":{"authorization.k8s.io/decision":"allow"}}"#;

    fn log() -> (tempfile::TempDir, Log) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        fs::write(&path, "").unwrap();
        (folder, Log { path, offset: 0 })
    }

    fn append(log: &Log, text: &str) {
        fs::OpenOptions::new().append(true).open(&log.path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn read(log: &mut Log) -> Vec<Event> {
        let mut events = Vec::new();
        log.read(|line| line.contains("shop"), |event| events.push(event)).unwrap();
        events
    }

    #[test]
    fn a_line_holds_user_request_and_response() {
        let event: Event = serde_json::from_str(LINE).unwrap();
        assert_eq!(event.account(), Some(("fairway", "controller")));
        assert_eq!(event.pod(), Some("fairway-0"));
        assert_eq!(event.code(), Some(200));
        assert!(!event.is_denied());
        let object = event.object_ref;
        assert_eq!((&*object.kind(), &*object.namespace, &*object.name), ("ingresses/status", "shop", "web"));
        assert_eq!(event.reached.duration_since(event.received).as_micros(), 2999);
    }

    #[test]
    fn each_line_is_read_once_when_complete() {
        let (_folder, mut log) = log();
        append(&log, &format!("{LINE}\n{}\n", LINE.replace("shop", "other")));
        append(&log, &LINE[..100]);
        assert_eq!(read(&mut log).len(), 1);
        assert_eq!(read(&mut log).len(), 0);
        append(&log, &format!("{}\n", &LINE[100..]));
        assert_eq!(read(&mut log).len(), 1);
        assert_eq!(read(&mut log).len(), 0);
    }

    #[test]
    fn a_truncated_line_affects_no_other() {
        let (_folder, mut log) = log();
        append(&log, &format!("{}{LINE}\n{LINE}\n", &LINE[..200]));
        assert_eq!(read(&mut log).len(), 1);
    }
}
