//! From changed objects to live routes.

use std::collections::HashSet;
use std::time::Duration;

use fairway_model::packing::MANY;
use fairway_model::{Delta, Resource, ResourceName, Snapshot};
use fairway_translate::objects::{Change, Kind, ObjectKey};
use fairway_translate::options::Options;
use fairway_translate::{Translator, Update};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::debug;

use super::route::Gating;
use super::{Job, Running};
use crate::controller::RunError;
use crate::event::Report;
use crate::publish::{Publish, join, take_referenced};
use crate::reference::is_referenced;

/// How long a change that refers to a Secret for the first time waits for its content, and later changes of the same hosts with it. Without
/// the wait, a new host would briefly be served with the default certificate.
const HOLD: Duration = Duration::from_millis(100);

/// The same before the first publication, when nothing else is delayed.
const FIRST_HOLD: Duration = Duration::from_secs(10);

/// How long after the last change the memory of objects that are gone is collected, and how long after the first one at most.
const REST: Duration = Duration::from_secs(2);
const LONGEST_REST: Duration = Duration::from_secs(60);

impl Running {
    /// Translates the changes and absorbs the result; sends nothing yet. To be called when every list is complete and
    /// no publication is in progress.
    pub(super) async fn translate(&mut self) {
        let begin = Instant::now();
        let settled = self.debounce.reset(begin);
        let mut changes = self.store.take_changes();
        if let Some(Gating { gate, .. }) = &mut self.gating {
            gate.overlay(&mut changes);
        }
        let now = jiff::Timestamp::now().as_second();
        let ingress = |change: &Change| match change {
            Change::Upsert(object) => Some(object.key()).filter(|key| key.kind == Kind::Ingress),
            Change::Remove(_) => None,
        };
        let ingresses: Vec<_> = changes.iter().filter_map(ingress).collect();
        let update = if std::mem::take(&mut self.rebuild) {
            self.rebuild(changes, now)
        } else {
            let mut translator = self.translator.take().unwrap_or_else(|| self.new_translator());
            // Before anything is live, no other change is delayed by a complete translation.
            let live = *self.ready.borrow();
            let before = settled.map(|settled| (settled, translator.snapshot().clone()));
            let update = if live { translator.apply_part(changes, now) } else { translator.apply(changes, now) };
            if let Some((settled, before)) = before
                && (translator.has_more() || before.may_open(&update.delta))
            {
                self.settled = Some(settled);
            }
            self.translator = Some(translator);
            update
        };
        debug!(took_ms = begin.elapsed().as_millis() as u64, upserts = update.delta.upserts.len(), "translated");
        if let (Some(Gating { gate, observed, .. }), Some(translator)) = (&mut self.gating, &self.translator) {
            gate.translated(translator.objects());
            observed.translated();
        }
        self.absorb(update).await;
        self.synced.extend(ingresses);
        self.report_synced().await;
    }

    /// Reports the Ingresses that have been synced; those of a large change after the whole of it.
    async fn report_synced(&mut self) {
        if self.has_more() {
            return;
        }
        for key in std::mem::take(&mut self.synced) {
            if !self.config.disable_sync_events
                && self.serves(&key)
                && let Some(subject) = self.subject(key)
            {
                self.tell(Report::Sync(subject)).await;
            }
        }
    }

    /// Translates the next part of a large change.
    pub(super) async fn proceed(&mut self) {
        let now = jiff::Timestamp::now().as_second();
        if let Some(translator) = &mut self.translator {
            let update = translator.proceed(now);
            self.absorb(update).await;
            self.report_synced().await;
        }
    }

    /// Makes everything anew that is kept of the objects, because a few are left of many. What they had in memory is given back in pages, and
    /// each of those that are left would keep some.
    pub(super) async fn renew(&mut self) {
        self.renewal = None;
        let begin = Instant::now();
        let now = jiff::Timestamp::now().as_second();
        if let Some(translator) = &mut self.translator {
            let update = translator.renew(now);
            self.store.renew();
            self.status.renew();
            self.absorb(update).await;
            debug!(took_ms = begin.elapsed().as_millis() as u64, "moved together what is left of many objects");
        }
    }

    /// Absorbs the result of a translation.
    async fn absorb(&mut self, update: Update) {
        let Update { delta, diagnostics, served, unserved, statuses, made, wanted, unwanted } = update;
        for (key, status) in statuses {
            self.gateways.want(key, status);
        }
        for (key, make) in made {
            self.making.want(key, make);
        }
        if !self.has_more() {
            self.gateways.translated();
        }
        for key in unserved {
            self.status.serve(&key, false);
        }
        self.coming.extend(served);
        let update_wants_nothing = wanted.is_empty();
        if self.translator.as_ref().is_some_and(Translator::has_remnants) {
            let now = Instant::now();
            let first = self.renewal.map_or(now, |(first, _)| first);
            self.renewal = Some((first, (now + REST).min(first + LONGEST_REST)));
        }
        for key in unwanted {
            self.references.drop(&key);
            self.store.content(&key, None);
        }
        for key in wanted {
            // Objects that don't exist may be created later, and are fetched then.
            if let Some(identity) = self.store.identity(&key) {
                self.references.seen(&key, &identity.version);
            }
        }
        self.findings.extend(diagnostics);
        let first = !*self.ready.borrow();
        if first || !delta.is_empty() || self.held.is_some() {
            if !first && update_wants_nothing && self.settled.is_none() && self.goes_ahead(&delta) {
                self.go_ahead(delta);
                return;
            }
            let hold = if first { FIRST_HOLD } else { HOLD };
            let (before, until) = self.held.take().unwrap_or_else(|| (Delta::default(), Instant::now() + hold));
            self.held = Some((join(before, delta), until));
        } else {
            let live = std::mem::take(&mut self.coming);
            self.show(live);
        }
    }

    /// Whether a change needn't wait with the held ones: it changes none of the same resources, and removes none that they may still use.
    fn goes_ahead(&self, delta: &Delta) -> bool {
        let Some((held, _)) = &self.held else { return false };
        let is_host = |name: &ResourceName| matches!(name, ResourceName::Host(_));
        let names = |delta: &Delta| -> HashSet<ResourceName> {
            delta.upserts.iter().filter_map(Resource::name).chain(delta.removals.iter().cloned()).collect()
        };
        delta.removals.iter().all(is_host)
            && delta.upserts.iter().all(|resource| resource.name().is_some())
            && names(delta).is_disjoint(&names(held))
    }

    /// Publishes a change before the held ones, together with everything in those that its hosts may refer to.
    fn go_ahead(&mut self, delta: Delta) {
        if let Some((held, _)) = &mut self.held {
            self.ahead.upserts.extend(take_referenced(held));
        }
        self.ahead = join(std::mem::take(&mut self.ahead), delta);
    }

    /// Whether the next part of a large change may be translated: not while the last one waits for the contents it refers to, or an edit
    /// would wait for more and more of them.
    pub(super) fn may_proceed(&self) -> bool {
        self.has_more() && !(self.held.is_some() && self.references.is_incomplete())
    }

    /// Records whether IngressClasses can be read. Otherwise `spec.ingressClassName` matches no controller.
    pub(super) fn read_classes(&mut self, readable: bool) {
        if readable != self.classes_readable {
            self.classes_readable = readable;
            self.rebuild = self.translator.is_some();
        }
    }

    /// Records whether the API server has the kind XBackend.
    pub(super) fn define_xbackends(&mut self, defined: bool) {
        if defined != self.has_xbackends {
            self.has_xbackends = defined;
            self.rebuild = self.translator.is_some();
        }
    }

    fn new_translator(&self) -> Translator {
        let options = self.config.options.clone();
        let ingress_classes_readable = options.ingress_classes_readable && self.classes_readable;
        Translator::new(Options { ingress_classes_readable, has_xbackends: self.has_xbackends, ..options })
    }

    /// Translates everything again because an option has changed, and returns the differences.
    fn rebuild(&mut self, changes: Vec<Change>, now: i64) -> Update {
        let mut new = self.new_translator();
        let Some(old) = self.translator.take() else { return Update::default() };
        let objects = old.objects().iter().map(|(_, object)| Change::Upsert(object.clone()));
        let waiting = old.waiting_changes().cloned().collect::<Vec<_>>();
        let mut update = new.apply(objects.chain(waiting).chain(changes), now);
        update.delta = Snapshot::diff(old.snapshot(), new.snapshot());
        update.unserved = old.served().difference(new.served()).cloned().collect();
        let contents = old.objects().iter().map(|(key, _)| key).filter(|key| is_referenced(key.kind));
        update.unwanted = contents.filter(|key| !new.wants(key)).cloned().collect();
        let lost = old.statuses().keys().filter(|key| !new.statuses().contains_key(*key));
        update.statuses.extend(lost.map(|key| (key.clone(), None)));
        let done = old.made().keys().filter(|key| !new.made().contains_key(*key));
        update.made.extend(done.map(|key| (key.clone(), None)));
        let settled = old.diagnostics().keys().filter(|key| !new.diagnostics().contains_key(*key));
        update.diagnostics.extend(settled.map(|key| (key.clone(), Vec::new())));
        self.translator = Some(new);
        update
    }

    /// Sends the translated changes, unless something they refer to is still being fetched.
    pub(super) fn publish(&mut self) {
        // Freshly fetched content must be translated first.
        let complete = !self.references.is_incomplete() && !self.store.has_changes();
        let complete = |until: &Instant| complete || *until <= Instant::now();
        if self.publishing {
            return;
        }
        self.settled.take_if(|settled| *settled <= Instant::now());
        let is_settled = self.settled.is_none();
        let (delta, served) = if !self.ahead.is_empty() {
            (std::mem::take(&mut self.ahead), Vec::new())
        } else if let Some((delta, _)) = self.held.take_if(|(_, until)| is_settled && complete(until)) {
            // Content that is still missing must not delay changes a second time.
            self.references.wait_no_longer();
            (delta, std::mem::take(&mut self.coming))
        } else {
            return;
        };
        self.publishing = true;
        self.sent += 1;
        let sink = self.sink.clone();
        self.jobs.spawn(async move {
            let begin = Instant::now();
            let resources = delta.upserts.len() + delta.removals.len();
            let (live, is_live) = oneshot::channel();
            let sent = sink.send(Publish { delta, live }).await.is_ok();
            let result = if sent && is_live.await.is_ok() { Ok(()) } else { Err(RunError::SinkClosed) };
            Job::Published(result, resources, begin, served)
        });
    }

    /// Allows the addresses of live Ingresses to be shown.
    pub(super) fn show(&mut self, keys: Vec<ObjectKey>) {
        let many = keys.len() >= MANY;
        for key in keys {
            if self.serves(&key) {
                self.status.serve(&key, true);
            }
        }
        if many {
            self.status.pack();
        }
    }
}
