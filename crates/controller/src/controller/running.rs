//! A controller at work: what each of the things that can happen leads to.

use std::collections::{BTreeMap, HashMap};
use std::hash::RandomState;
use std::time::Duration;

use fairway_model::{Delta, Snapshot};
use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::objects::{Change, Kind, ObjectKey};
use fairway_translate::options::Options;
use fairway_translate::{Translator, Update};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::RunError;
use crate::address::{Address, Addresses};
use crate::api::{ApiServer, CallError};
use crate::config::{AddressSource, ControllerConfig, Pod};
use crate::debounce::Debounce;
use crate::event::{Report, Sender, Subject};
use crate::leader::{Candidate, Term};
use crate::nodes;
use crate::publish::{Publish, join};
use crate::reference::{References, fetch, is_referenced};
use crate::source::sources;
use crate::status::{Status, Write, Written, check_interval};
use crate::store::{News, Store};
use crate::watch::{Content, Message, Seen, Source, Wanted, watch as watch_source};

/// How many messages of watches wait at most; a watch that is faster waits, and its connection with it.
pub(super) const MESSAGES: usize = 256;

/// How many reports wait for the sender of Events, which takes them at once.
const REPORTS: usize = 256;

/// How long a change that refers to a Secret for the first time waits for the content, and the changes of others with it.
/// Without waiting, a new host would be served with the default certificate for a moment.
const HOLD: Duration = Duration::from_millis(100);

/// The same before the first publication, when nobody else waits.
const FIRST_HOLD: Duration = Duration::from_secs(10);

/// How long taking our addresses back and giving the Lease back may last.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// How soon node addresses are looked up again after a failure, or while no pod of ours is ready.
const NODES_RETRY: Duration = Duration::from_secs(2);

/// What runs beside the loop and ends with a result.
pub(super) enum Job {
    Fetched(ObjectKey, Result<Option<Seen>, CallError>),
    Written(Write, Written),
    Nodes(Result<Addresses, CallError>),
    /// Also how many resources changed, when it was sent, and which Ingresses are served since.
    Published(Result<(), RunError>, usize, Instant, Vec<ObjectKey>),
    /// Whether no other replica goes on.
    Last(Result<bool, CallError>),
    /// The Lease is given back.
    Resigned,
}

/// On the way out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Working,
    /// Asking whether another replica goes on.
    Asking,
    TakingBack,
    Resigning,
    Left,
}

/// A controller at work. Dropping it ends all its tasks; the Lease is given back behind it.
pub(super) struct Running {
    api: ApiServer,
    config: ControllerConfig,
    sink: mpsc::Sender<Publish>,
    ready: watch::Sender<bool>,
    hasher: RandomState,
    sources: Vec<Source>,
    store: Store,
    references: References,
    /// There is none before the first lists are complete.
    translator: Option<Translator>,
    classes_readable: bool,
    /// Whether everything has to be translated again.
    rebuild: bool,
    debounce: Debounce,
    /// What is translated and not yet on its way, and until when it may wait for what it refers to.
    held: Option<(Delta, Instant)>,
    publishing: bool,
    /// Ingresses that will be served once what is held is live. Whoever sees their address may send requests there.
    coming: Vec<ObjectKey>,
    /// What there is to say about objects once nothing that they refer to is on its way: a Secret that has not been fetched yet
    /// looks like one that doesn't exist.
    findings: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    status: Status,
    /// Writes of status that are under way.
    writes: HashMap<ObjectKey, AbortHandle>,
    term: watch::Receiver<Term>,
    led: bool,
    resign: Option<oneshot::Sender<()>>,
    candidate: Option<JoinHandle<()>>,
    stage: Stage,
    leave_until: Instant,
    check_at: Instant,
    looking_up_nodes: bool,
    reports: mpsc::Sender<Report>,
    jobs: JoinSet<Job>,
    /// Watches and the sender of Events.
    tasks: JoinSet<()>,
}

impl Running {
    pub(super) fn start(
        client: kube::Client,
        config: ControllerConfig,
        sink: mpsc::Sender<Publish>,
        ready: watch::Sender<bool>,
    ) -> (Self, mpsc::Receiver<(usize, Message)>) {
        let api = ApiServer::new(client);
        let hasher = RandomState::new();
        let mut tasks = JoinSet::new();
        let sources = sources(&config);
        let (out, inbox) = mpsc::channel(MESSAGES);
        for (index, source) in sources.iter().enumerate() {
            tasks.spawn(watch_source(api.clone(), source.clone(), index, hasher.clone(), out.clone()));
        }
        let (reports, reported) = mpsc::channel(REPORTS);
        let instance = config.pod.as_ref().map_or("", |pod| &pod.name);
        tasks.spawn(Sender::new(api.clone(), instance).run(reported));

        let (term_sender, term) = watch::channel(None);
        let (resign, resigned) = oneshot::channel();
        let mut candidate = None;
        if config.status.update {
            if let Some(Pod { name, namespace }) = config.pod.as_ref().filter(|_| !config.election.disabled) {
                let ttl = Some(config.election.ttl).filter(|ttl| !ttl.is_zero()).unwrap_or(Duration::from_secs(30));
                let contender = Candidate::new(api.clone(), namespace, &config.election.id, name, ttl);
                candidate = Some(tokio::spawn(contender.run(term_sender, async {
                    // The other end is used or dropped: both mean that it's over.
                    let _ = resigned.await;
                })));
            } else {
                // Every replica leads, for ever.
                term_sender.send_replace(Some(Instant::now() + Duration::from_secs(100 * 365 * 86_400)));
            }
        }
        let mut status = Status::default();
        if let AddressSource::Fixed(texts) = &config.status.addresses {
            status.publish(texts.iter().filter_map(|text| Address::from_text(text)).collect());
        }
        let running = Self {
            store: Store::new(sources.iter().map(|source| source.wanted)),
            api,
            config,
            sink,
            ready,
            hasher,
            sources,
            references: References::default(),
            translator: None,
            classes_readable: true,
            rebuild: false,
            debounce: Debounce::default(),
            held: None,
            publishing: false,
            coming: Vec::new(),
            findings: BTreeMap::new(),
            status,
            writes: HashMap::new(),
            term,
            led: false,
            resign: Some(resign),
            candidate,
            stage: Stage::Working,
            leave_until: Instant::now(),
            check_at: Instant::now(),
            looking_up_nodes: false,
            reports,
            jobs: JoinSet::new(),
            tasks,
        };
        (running, inbox)
    }

    /// The next job that ends. Panics of jobs, watches and the sender of Events are passed on.
    pub(super) async fn next_job(&mut self) -> Job {
        let pass_on = |error: JoinError| {
            // Everything else is a write that was broken off.
            if error.is_panic() {
                std::panic::resume_unwind(error.into_panic());
            }
        };
        loop {
            tokio::select! {
                Some(ended) = self.jobs.join_next() => match ended {
                    Ok(job) => return job,
                    Err(error) => pass_on(error),
                },
                Some(ended) = self.tasks.join_next() => ended.unwrap_or_else(pass_on),
                else => std::future::pending().await,
            }
        }
    }

    /// Until when we lead.
    pub(super) fn term(&self) -> watch::Receiver<Term> {
        self.term.clone()
    }

    fn leads(&self) -> bool {
        self.term.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// A message of a watch.
    pub(super) async fn take(&mut self, source: usize, message: Message) {
        let Source { kind, wanted, .. } = self.sources[source];
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
                let news = self.store.listed(source);
                self.gone(wanted, news).await;
                self.missing(source);
                debug!(%kind, objects = self.store.count(kind), "list complete");
            }
            // Whoever takes the right away later doesn't take the routes away.
            Message::Forbidden if self.store.is_listed(source) => (),
            Message::Forbidden => {
                if kind == Kind::IngressClass {
                    self.read_classes(false);
                }
                self.store.listed(source);
            }
        }
        // An empty cluster is a state that can be served, too.
        let begins = self.translator.is_none() && self.store.synced() && self.debounce.due().is_none();
        if self.store.has_changes() || self.rebuild || begins {
            self.debounce.touch(Instant::now());
        }
    }

    async fn seen(&mut self, source: usize, seen: Seen) {
        match &seen.content {
            Content::Addresses(addresses) => self.status.publish(addresses.clone()),
            Content::Object { shown, .. } if seen.key.kind == Kind::Ingress && self.config.status.update => {
                self.status.seen(&seen.key, &seen.identity, shown.clone());
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

    async fn malformed(&self, key: ObjectKey, why: &str) {
        let message = format!("{why}; what was there before stays in force");
        let found = Diagnostic::new(Severity::Error, Reason::InvalidManifest, &key.origin(), "", "", message);
        log(&found);
        // Of an Ingress that can't be decoded nobody knows the class; only one that was ours before is our business.
        if key.kind != Kind::Ingress || self.serves(&key) {
            self.report(key, vec![found]).await;
        }
    }

    async fn gone(&mut self, wanted: Wanted, news: impl IntoIterator<Item = News>) {
        for news in news {
            let News::Gone(key) = news else { continue };
            if wanted == Wanted::Addresses {
                self.status.publish(Addresses::new());
                continue;
            }
            self.references.drop(&key);
            self.status.gone(&key);
            self.tell(Report::Gone(key)).await;
        }
    }

    /// Says so if the Service in front of us isn't there: nothing else would.
    fn missing(&self, source: usize) {
        let Source { kind, namespace, name: Some(name), .. } = &self.sources[source] else { return };
        let namespace = namespace.as_deref().unwrap_or_default();
        let key = ObjectKey::new(*kind, namespace, name.as_str());
        if self.store.identity(&key).is_none() {
            error!(namespace, name, "the Service of --publish-service does not exist: no status is written");
        }
    }

    /// Whether an Ingress is ours, live or not yet.
    fn serves(&self, key: &ObjectKey) -> bool {
        self.translator.as_ref().is_some_and(|translator| translator.served().contains(key))
    }

    /// What is live may have its address shown.
    fn show(&mut self, keys: Vec<ObjectKey>) {
        for key in keys {
            if self.serves(&key) {
                self.status.serve(&key, true);
            }
        }
    }

    fn wants(&self, key: &ObjectKey) -> bool {
        self.translator.as_ref().is_some_and(|translator| translator.wants(key))
    }

    /// How a job ended.
    pub(super) async fn ended(&mut self, job: Job) -> Result<(), RunError> {
        match job {
            Job::Fetched(key, result) => self.fetched(key, result).await,
            Job::Written(write, result) => {
                self.writes.remove(&write.key);
                self.status.written(write, result);
            }
            Job::Nodes(result) => {
                self.looking_up_nodes = false;
                let retry = match result {
                    Ok(addresses) => {
                        let none = addresses.is_empty();
                        self.status.publish(addresses);
                        none
                    }
                    Err(error) => {
                        warn!(error = &error as &dyn std::error::Error, "looking up the addresses of our nodes");
                        true
                    }
                };
                if retry {
                    self.check_at = self.check_at.min(Instant::now() + NODES_RETRY);
                }
            }
            Job::Published(result, resources, begin, served) => {
                result?;
                self.publishing = false;
                self.show(served);
                let first = !self.ready.send_replace(true);
                debug!(took_ms = begin.elapsed().as_millis() as u64, resources, first, "live");
            }
            Job::Last(result) => match result {
                Ok(true) if self.stage == Stage::Asking => {
                    self.stage = Stage::TakingBack;
                    self.status.leave();
                }
                Ok(_) => self.resign(),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "can't tell whether another replica runs: addresses stay in the status of Ingresses");
                    self.resign();
                }
            },
            Job::Resigned => self.stage = Stage::Left,
        }
        Ok(())
    }

    async fn fetched(&mut self, key: ObjectKey, result: Result<Option<Seen>, CallError>) {
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
            self.debounce.touch(Instant::now());
        }
    }

    /// When [`tick`](Self::tick) has something to do, if nothing else happens.
    pub(super) fn timer(&self) -> Instant {
        let can_translate = self.store.synced() && !self.publishing;
        let held = self.held.as_ref().map(|(_, until)| *until).filter(|_| !self.publishing);
        let leaving = !matches!(self.stage, Stage::Working | Stage::Left);
        [
            self.debounce.due().filter(|_| can_translate),
            held,
            self.references.retry_at(),
            self.status.retry_at(),
            leaving.then_some(self.leave_until),
            Some(self.check_at),
        ]
        .into_iter()
        .flatten()
        .min()
        .expect("there is always a next check")
    }

    /// A timer is due.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        if self.references.retry_at().is_some_and(|at| at <= now) {
            self.references.retry();
        }
        if self.status.retry_at().is_some_and(|at| at <= now) {
            self.status.retry();
        }
        if self.check_at <= now {
            self.check_at = now + check_interval(self.config.status.interval);
            self.status.check();
            self.look_up_nodes();
            // Nothing has changed but the time, and by it perhaps the validity of a certificate.
            self.debounce.touch(now);
        }
        if !matches!(self.stage, Stage::Working | Stage::Left) && self.leave_until <= now {
            warn!("the way out takes too long: addresses may stay in the status of Ingresses");
            self.abandon_writes();
            self.stage = Stage::Left;
        }
    }

    fn look_up_nodes(&mut self) {
        let AddressSource::Nodes { internal } = self.config.status.addresses else { return };
        let (true, false, Some(pod)) = (self.writes_status(), self.looking_up_nodes, self.config.pod.clone()) else {
            return;
        };
        self.looking_up_nodes = true;
        let api = self.api.clone();
        self.jobs.spawn(async move { Job::Nodes(nodes::addresses(&api, &pod, internal).await) });
    }

    /// Does what has become possible.
    pub(super) async fn advance(&mut self) {
        let due = self.debounce.due().is_some_and(|due| due <= Instant::now());
        if due && self.store.synced() && !self.publishing {
            self.translate().await;
        }
        while let Some(key) = self.references.next() {
            let (api, hasher) = (self.api.clone(), self.hasher.clone());
            self.jobs.spawn(async move {
                let result = fetch(&api, &key, &hasher).await;
                Job::Fetched(key, result)
            });
        }
        self.publish();
        if self.held.is_none() && !self.references.is_fetching_new() {
            for (key, diagnostics) in std::mem::take(&mut self.findings) {
                diagnostics.iter().for_each(log);
                self.report(key, diagnostics).await;
            }
        }
        self.write();
    }

    async fn translate(&mut self) {
        self.debounce.reset();
        let begin = Instant::now();
        let changes = self.store.take_changes();
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
            let update = translator.apply(changes, now);
            self.translator = Some(translator);
            update
        };
        debug!(took_ms = begin.elapsed().as_millis() as u64, upserts = update.delta.upserts.len(), "translated");
        self.absorb(update).await;
        if !self.config.disable_sync_events {
            for key in ingresses {
                if self.serves(&key)
                    && let Some(subject) = self.subject(key)
                {
                    self.tell(Report::Sync(subject)).await;
                }
            }
        }
    }

    /// Takes what a translation led to.
    async fn absorb(&mut self, update: Update) {
        let Update { delta, diagnostics, served, unserved, wanted, unwanted } = update;
        for key in unserved {
            self.status.serve(&key, false);
        }
        self.coming.extend(served);
        for key in unwanted {
            self.references.drop(&key);
            self.store.content(&key, None);
        }
        for key in wanted {
            // What doesn't exist may come later, and is fetched then.
            if let Some(identity) = self.store.identity(&key) {
                self.references.seen(&key, &identity.version);
            }
        }
        self.findings.extend(diagnostics);
        let first = !*self.ready.borrow();
        if first || !delta.is_empty() || self.held.is_some() {
            let hold = if first { FIRST_HOLD } else { HOLD };
            let (before, until) = self.held.take().unwrap_or_else(|| (Delta::default(), Instant::now() + hold));
            self.held = Some((join(before, delta), until));
        } else {
            let live = std::mem::take(&mut self.coming);
            self.show(live);
        }
    }

    /// Notes whether IngressClasses can be read. Without, `spec.ingressClassName` is nobody's.
    fn read_classes(&mut self, readable: bool) {
        if readable != self.classes_readable {
            self.classes_readable = readable;
            self.rebuild = self.translator.is_some();
        }
    }

    fn new_translator(&self) -> Translator {
        let options = self.config.options.clone();
        let ingress_classes_readable = options.ingress_classes_readable && self.classes_readable;
        Translator::new(Options { ingress_classes_readable, ..options })
    }

    /// Translates everything again because an option has changed, and says what differs.
    fn rebuild(&mut self, changes: Vec<Change>, now: i64) -> Update {
        let mut new = self.new_translator();
        let Some(old) = self.translator.take() else { return Update::default() };
        let objects = old.objects().iter().map(|(_, object)| Change::Upsert(object.clone()));
        let mut update = new.apply(objects.chain(changes), now);
        update.delta = Snapshot::diff(old.snapshot(), new.snapshot());
        update.unserved = old.served().difference(new.served()).cloned().collect();
        let contents = old.objects().iter().map(|(key, _)| key).filter(|key| is_referenced(key.kind));
        update.unwanted = contents.filter(|key| !new.wants(key)).cloned().collect();
        let settled = old.diagnostics().keys().filter(|key| !new.diagnostics().contains_key(*key));
        update.diagnostics.extend(settled.map(|key| (key.clone(), Vec::new())));
        self.translator = Some(new);
        update
    }

    /// Sends what is translated, unless something that it refers to is still on its way.
    fn publish(&mut self) {
        // What has just been fetched has to be translated first.
        let complete = !self.references.is_incomplete() && !self.store.has_changes();
        let complete = |until: &Instant| complete || *until <= Instant::now();
        if self.publishing || !self.held.as_ref().is_some_and(|(_, until)| complete(until)) {
            return;
        }
        let Some((delta, _)) = self.held.take() else { return };
        // What hasn't come by now holds nobody up a second time.
        self.references.wait_no_longer();
        self.publishing = true;
        let (sink, served) = (self.sink.clone(), std::mem::take(&mut self.coming));
        self.jobs.spawn(async move {
            let begin = Instant::now();
            let resources = delta.upserts.len() + delta.removals.len();
            let (live, is_live) = oneshot::channel();
            let sent = sink.send(Publish { delta, live }).await.is_ok();
            let result = if sent && is_live.await.is_ok() { Ok(()) } else { Err(RunError::SinkClosed) };
            Job::Published(result, resources, begin, served)
        });
    }

    /// Whether this replica is the one that writes status, now.
    fn writes_status(&self) -> bool {
        matches!(self.stage, Stage::Working | Stage::TakingBack) && self.config.status.update && self.leads()
    }

    fn write(&mut self) {
        let leads = self.writes_status();
        if leads != self.led {
            self.led = leads;
            if leads {
                self.status.check();
                self.look_up_nodes();
            } else {
                self.abandon_writes();
            }
        }
        if leads && self.translator.is_some() {
            while let Some(write) = self.status.next() {
                let (api, key) = (self.api.clone(), write.key.clone());
                let task = self.jobs.spawn(async move {
                    let result = write.run(&api).await;
                    Job::Written(write, result)
                });
                self.writes.insert(key, task);
            }
        }
        if self.stage == Stage::TakingBack && (!leads || self.status.is_idle()) {
            self.resign();
        }
    }

    fn abandon_writes(&mut self) {
        for (key, task) in self.writes.drain() {
            task.abort();
            self.status.abandoned(key);
        }
    }

    /// Begins the way out: take addresses back if nobody else serves, then give the Lease back.
    pub(super) fn leave(&mut self) {
        if self.stage != Stage::Working {
            return;
        }
        self.leave_until = Instant::now() + LEAVE_LIMIT;
        match self.config.pod.clone() {
            Some(pod) if self.config.status.update_on_shutdown && self.writes_status() => {
                self.stage = Stage::Asking;
                let api = self.api.clone();
                self.jobs.spawn(async move { Job::Last(nodes::is_last(&api, &pod).await) });
            }
            _ => self.resign(),
        }
    }

    fn resign(&mut self) {
        if matches!(self.stage, Stage::Resigning | Stage::Left) {
            return;
        }
        self.abandon_writes();
        self.resign.take();
        self.stage = match self.candidate.take() {
            Some(candidate) => {
                self.jobs.spawn(async move {
                    // However it ended, it is over.
                    let _ = candidate.await;
                    Job::Resigned
                });
                Stage::Resigning
            }
            None => Stage::Left,
        };
    }

    /// Whether the way out is at its end.
    pub(super) fn has_left(&self) -> bool {
        self.stage == Stage::Left
    }

    fn subject(&self, key: ObjectKey) -> Option<Subject> {
        let identity = self.store.identity(&key)?.clone();
        Some(Subject { key, identity })
    }

    /// Has all present diagnostics of an object sent as Events.
    async fn report(&self, key: ObjectKey, diagnostics: Vec<Diagnostic>) {
        if let Some(subject) = self.subject(key) {
            self.tell(Report::Diagnostics(subject, diagnostics)).await;
        }
    }

    async fn tell(&self, report: Report) {
        // Without a sender of Events there are none; everything else goes on.
        let _ = self.reports.send(report).await;
    }
}

fn log(diagnostic: &Diagnostic) {
    let Diagnostic { origin, severity, reason, .. } = diagnostic;
    let (kind, namespace, name) = (&*origin.kind, &*origin.namespace, &*origin.name);
    match severity {
        Severity::Info => info!(kind, namespace, name, %reason, finding = %diagnostic, "about an object"),
        Severity::Warning | Severity::Error => {
            warn!(kind, namespace, name, %reason, finding = %diagnostic, "about an object");
        }
    }
}
