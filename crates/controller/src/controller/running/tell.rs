//! What users and operators are told: Events on objects, and the log of findings.

use fairway_model::Origin;
use fairway_translate::diagnostic::{Diagnostic, Severity};
use fairway_translate::objects::{Kind, ObjectKey};
use tracing::{info, warn};

use super::Running;
use crate::controller::FINDINGS;
use crate::event::{Report, Subject};
use crate::report::Unreachable;

impl Running {
    /// An object as Events name it, if it exists.
    pub(super) fn subject(&self, key: ObjectKey) -> Option<Subject> {
        let identity = self.store.identity(&key)?.clone();
        Some(Subject { key, identity })
    }

    /// Sends all present diagnostics of an object as Events.
    pub(super) async fn report(&self, key: ObjectKey, diagnostics: Vec<Diagnostic>) {
        if let Some(subject) = self.subject(key) {
            self.tell(Report::Diagnostics(subject, diagnostics)).await;
        }
    }

    /// Tells the owner of a route that its backend can't be reached.
    pub(in crate::controller) async fn unreachable(&self, report: &Unreachable) {
        let Origin { kind, namespace, name, .. } = &report.origin;
        if **kind != *Kind::Ingress.as_str() {
            return;
        }
        if let Some(subject) = self.subject(ObjectKey::new(Kind::Ingress, &**namespace, &**name)) {
            self.tell(Report::Unreachable(subject, report.text())).await;
        }
    }

    /// Hands a report to the sender of Events.
    pub(super) async fn tell(&self, report: Report) {
        // Without a sender of Events there are none; everything else continues.
        let _ = self.reports.send(report).await;
    }
}

/// Logs a finding about an object.
pub(super) fn log(diagnostic: &Diagnostic) {
    let Diagnostic { origin, severity, reason, field, value, message, .. } = diagnostic;
    let (kind, namespace, name, severity) = (&*origin.kind, &*origin.namespace, &*origin.name, severity.as_str());
    if diagnostic.severity == Severity::Info {
        info!(kind, namespace, name, severity, %reason, field, value, text = message, "finding");
    } else {
        warn!(target: FINDINGS, kind, namespace, name, severity, %reason, field, value, text = message, "finding");
    }
}

/// Logs that a finding about an object no longer holds.
pub(super) fn log_resolved(diagnostic: &Diagnostic) {
    let Diagnostic { origin, reason, field, .. } = diagnostic;
    let (kind, namespace, name) = (&*origin.kind, &*origin.namespace, &*origin.name);
    info!(kind, namespace, name, %reason, field, "finding resolved");
}
