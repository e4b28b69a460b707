//! Handles the results of watches and of fetches of single objects.

use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::objects::{Change, Kind, ObjectKey};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::Running;
use super::tell::{log, log_resolved};
use crate::address::Addresses;
use crate::api::CallError;
use crate::debounce::Haste;
use crate::event::{Report, Subject};
use crate::gate::Asking;
use crate::reference::is_referenced;
use crate::source::unreadable;
use crate::store::News;
use crate::watch::{Content, Identity, Message, Seen, Source, Wanted};

impl Running {
    /// Handles a message of a watch.
    pub(in crate::controller) async fn take(&mut self, source: usize, message: Message) {
        let Source { kind, wanted, .. } = self.sources[source];
        // No object refers to endpoints, nor they to any. If they go with their Service, the routes to it may be about to change.
        let haste = match &message {
            Message::Seen(_) if kind == Kind::EndpointSlice => Haste::AtOnce,
            // Held changes may wait longer, and this one must not wait with them.
            Message::Seen(seen)
                if kind == Kind::Ingress && self.held.is_none() && self.store.is_change(source, &seen.key) =>
            {
                Haste::Judged
            }
            _ => Haste::Soon,
        };
        match message {
            Message::Relist => self.store.relist(source),
            Message::Seen(seen) => self.seen(source, *seen).await,
            Message::Gone(key) => {
                let news = self.store.gone(source, &key);
                self.gone(wanted, news).await;
            }
            Message::Listed => {
                if kind == Kind::IngressClass {
                    self.read_classes(true);
                }
                if kind == Kind::XBackend {
                    self.define_xbackends(true);
                }
                self.readable(source);
                let news = self.store.listed(source);
                self.gone(wanted, news).await;
                self.missing(source);
                if kind == Kind::ConfigMap && self.translator.is_none() {
                    self.missing_configmaps(source).await;
                }
                debug!(%kind, objects = self.store.count(kind), "list complete");
            }
            Message::Absent => {
                if kind == Kind::XBackend {
                    self.define_xbackends(false);
                }
                self.readable(source);
                // Objects whose CRD is gone are gone too.
                self.store.relist(source);
                let news = self.store.listed(source);
                self.gone(wanted, news).await;
            }
            Message::Refused => {
                let (key, found) = unreadable(&self.sources[source], "nothing new takes effect before it may be read");
                log(&found);
                self.known.set(&key, &[found]);
            }
            // Losing the right later doesn't remove the routes.
            Message::Forbidden if self.store.is_listed(source) => (),
            Message::Forbidden => {
                if kind == Kind::IngressClass {
                    self.read_classes(false);
                }
                self.store.listed(source);
            }
        }
        // An empty cluster is also a state to serve.
        let begins = self.translator.is_none() && self.store.synced() && self.debounce.due().is_none();
        if self.store.has_changes() || self.rebuild || begins {
            self.debounce.touch(Instant::now(), haste);
        }
    }

    /// Withdraws the finding that a kind can't be read.
    fn readable(&self, source: usize) {
        let (key, _) = unreadable(&self.sources[source], "");
        self.known.set(&key, &[]).iter().for_each(log_resolved);
    }

    async fn seen(&mut self, source: usize, seen: Seen) {
        match &seen.content {
            Content::Addresses(addresses) => self.publish_addresses(addresses.clone()),
            Content::Object { status: Some(status), asking, .. } if self.config.status.is_written() => {
                self.gateways.seen(&seen.key, &seen.identity, (**status).clone());
                self.asked(&seen.key, &seen.identity, *asking);
            }
            Content::Object { shown, asking, .. }
                if seen.key.kind == Kind::Ingress && self.config.status.is_written() =>
            {
                self.status.seen(&seen.key, &seen.identity, shown.clone());
                self.asked(&seen.key, &seen.identity, *asking);
            }
            _ if is_referenced(seen.key.kind) && self.wants(&seen.key) => {
                self.references.seen(&seen.key, &seen.identity.version);
            }
            _ => (),
        }
        if let News::Malformed(key, why) = self.store.seen(source, seen) {
            self.malformed(key, &why).await;
        }
    }

    /// Records whether an Ingress or a route asks for a report on its changes.
    fn asked(&mut self, key: &ObjectKey, identity: &Identity, asking: Option<Asking>) {
        let is_observed = self.config.observed && (key.kind == Kind::Ingress || key.kind.is_route());
        let Some(gating) = self.gating.as_mut().filter(|_| is_observed) else { return };
        let now = Instant::now();
        if gating.observed.seen(key, identity, asking, now) {
            self.debounce.touch(now, Haste::Soon);
        }
    }

    async fn malformed(&self, key: ObjectKey, why: &str) {
        let message = format!("{why}; the previous version stays in effect");
        let found = Diagnostic::new(Severity::Error, Reason::InvalidManifest, &key.origin(), "", "", message);
        log(&found);
        // The class of an Ingress that can't be decoded is unknown; it concerns us only if it was ours before.
        if key.kind != Kind::Ingress || self.serves(&key) {
            self.report(key, vec![found]).await;
        }
    }

    async fn gone(&mut self, wanted: Wanted, news: impl IntoIterator<Item = News>) {
        for news in news {
            let News::Gone(key) = news else { continue };
            if wanted == Wanted::Addresses {
                self.publish_addresses(Addresses::new());
                continue;
            }
            self.references.drop(&key);
            self.status.gone(&key);
            self.gateways.gone(&key);
            if let Some(gating) = &mut self.gating {
                gating.observed.gone(&key);
            }
            if let Some((namespace, name)) = &self.config.options.configmap
                && key == ObjectKey::new(Kind::ConfigMap, namespace, name)
            {
                warn!(
                    namespace,
                    name,
                    "the ConfigMap of --configmap was deleted: this pod keeps its last content, pods that start now use the defaults"
                );
            }
            self.tell(Report::Gone(key)).await;
        }
    }

    /// Sets the addresses that all status shows.
    pub(super) fn publish_addresses(&mut self, addresses: Addresses) {
        self.gateways.publish(&addresses);
        self.status.publish(addresses);
    }

    /// Reports a missing Service in front of the proxy, which would otherwise go unnoticed.
    fn missing(&self, source: usize) {
        let Source { kind, namespace, name: Some(name), .. } = &self.sources[source] else { return };
        let namespace = namespace.as_deref().unwrap_or_default();
        let key = ObjectKey::new(*kind, namespace, name.as_str());
        if self.store.identity(&key).is_none() {
            error!(namespace, name, "the Service of --publish-service does not exist: no status is written");
        }
    }

    /// Reports, at start, the ConfigMaps of flags that don't exist. They are used once they appear.
    async fn missing_configmaps(&self, source: usize) {
        let options = &self.config.options;
        let covered = self.sources[source].namespace.as_deref();
        for (flag, named) in [
            ("--configmap", &options.configmap),
            ("--tcp-services-configmap", &options.tcp_services),
            ("--udp-services-configmap", &options.udp_services),
        ] {
            let Some((namespace, name)) = named.as_ref().filter(|(of, _)| covered.is_none_or(|only| only == of)) else {
                continue;
            };
            let key = ObjectKey::new(Kind::ConfigMap, namespace, name);
            if self.store.identity(&key).is_some() {
                continue;
            }
            let message = "there is no such ConfigMap: its settings take effect when it is created";
            let reason = Reason::InvalidConfiguration;
            let found = Diagnostic::new(Severity::Warning, reason, &key.origin(), flag, "", message);
            log(&found);
            // An Event may be about an object that doesn't exist.
            let subject = Subject { key, identity: Identity::default() };
            self.tell(Report::Diagnostics(subject, vec![found])).await;
        }
    }

    /// Takes the result of fetching one object.
    pub(super) async fn fetched(&mut self, key: ObjectKey, result: Result<Option<Seen>, CallError>) {
        let version = result.as_ref().map(|seen| seen.as_ref().map(|seen| &*seen.identity.version));
        self.references.ended(key.clone(), version);
        if !self.wants(&key) {
            self.references.drop(&key);
            return;
        }
        let Ok(found) = result else { return };
        match found.map(|seen| seen.content) {
            None => self.store.content(&key, None),
            Some(Content::Object { object, fingerprint, .. }) => {
                self.store.content(&key, Some((Change::Upsert(object), fingerprint)));
            }
            Some(Content::Malformed(why)) => self.malformed(key, &why).await,
            Some(Content::Metadata | Content::Addresses(_)) => (),
        }
        if self.store.has_changes() {
            self.debounce.touch(Instant::now(), Haste::Soon);
        }
    }
}
