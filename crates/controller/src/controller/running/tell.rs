//! Messages to users and operators: Events on objects, and the log of findings.

use fairway_model::Origin;
use fairway_translate::diagnostic::{Diagnostic, Severity};
use fairway_translate::objects::{Kind, ObjectKey};
use tracing::{info, warn};

use super::Running;
use crate::controller::FINDINGS;
use crate::event::{Report, Subject};
use crate::report::ProxyReport;

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

    /// Reports a proxy's message about a route to the route's owner.
    pub(in crate::controller) async fn of_proxy(&self, report: &ProxyReport) {
        let origin = match report {
            ProxyReport::Unreachable(report) => &report.origin,
            ProxyReport::NotUnderstood(report) => &report.origin,
        };
        let Origin { namespace, name, .. } = origin;
        let named = Kind::ALL.iter().copied().find(|kind| *kind.as_str() == *origin.kind);
        let Some(kind) = named.filter(|kind| matches!(report, ProxyReport::NotUnderstood(_)) || *kind == Kind::Ingress)
        else {
            return;
        };
        if let Some(subject) = self.subject(ObjectKey::new(kind, &**namespace, &**name)) {
            self.tell(match report {
                ProxyReport::Unreachable(report) => Report::Unreachable(subject, report.text()),
                ProxyReport::NotUnderstood(report) => Report::Refused(subject, report.text()),
            })
            .await;
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
