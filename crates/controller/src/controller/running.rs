//! A running controller: how it handles each event.

mod lead;
mod observe;
mod route;
mod tell;
mod translation;

use std::collections::{BTreeMap, HashMap};
use std::hash::RandomState;
use std::time::Duration;

use fairway_model::{Delta, ErrorChain};
use fairway_translate::Translator;
use fairway_translate::diagnostic::Diagnostic;
use fairway_translate::objects::ObjectKey;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::{debug, warn};

use self::lead::Stage;
use self::route::Gating;
use self::tell::{log, log_resolved};
use super::{Proxies, RunError};
use crate::address::{Address, Addresses};
use crate::api::{ApiServer, CallError};
use crate::config::{AddressSource, ControllerConfig, Pod};
use crate::debounce::{Debounce, Haste};
use crate::event::{Report, Sender};
use crate::finding::Findings;
use crate::gate::{Fed, Routed, Telling};
use crate::gateway::{GatewayStatus, GatewayWrite, GatewayWritten};
use crate::leader::{Candidate, Term};
use crate::made::{Made, MakeWrite, Making};
use crate::publish::Publish;
use crate::reference::{References, fetch};
use crate::review::Question;
use crate::source::sources;
use crate::status::{Status, Write, Written, check_interval};
use crate::store::Store;
use crate::watch::{Message, Seen, Source, watch as watch_source};

/// Maximum number of queued messages of watches; a faster watch waits, and its connection with it.
pub(super) const MESSAGES: usize = 256;

/// Maximum number of reports queued for the sender of Events, which takes them at once.
const REPORTS: usize = 256;

/// How soon to look up node addresses again after a failure, or while none of our pods is ready.
const NODES_RETRY: Duration = Duration::from_secs(2);

/// A task beside the loop that ends with a result.
pub(super) enum Job {
    Fetched(ObjectKey, Result<Option<Seen>, CallError>),
    Written(Write, Written),
    GatewayWritten(GatewayWrite, GatewayWritten),
    Made(MakeWrite, Made),
    Nodes(Result<Addresses, CallError>),
    /// With the number of changed resources, the time of sending, and the Ingresses that are served from then on.
    Published(Result<(), RunError>, usize, Instant, Vec<ObjectKey>),
    /// Whether no other replica follows.
    Last(Result<bool, CallError>),
    /// The Lease is released.
    Resigned,
    /// News about pods with the readiness gate; `None` if the proxies have made progress.
    Fed(Option<Fed>),
    /// The condition of a pod.
    Routed(Routed, Result<(), CallError>),
    /// The annotation of an Ingress.
    Told(Telling, Result<(), CallError>),
}

/// A running controller. Dropping it ends all its tasks; the Lease is released afterwards.
pub(super) struct Running {
    api: ApiServer,
    config: ControllerConfig,
    sink: mpsc::Sender<Publish>,
    ready: watch::Sender<bool>,
    hasher: RandomState,
    sources: Vec<Source>,
    store: Store,
    references: References,
    /// `None` until the first lists are complete.
    translator: Option<Translator>,
    classes_readable: bool,
    has_xbackends: bool,
    /// Whether everything must be translated again.
    rebuild: bool,
    debounce: Debounce,
    /// When the first change came after which a few objects are left of many, and when what is kept of those is to be moved together.
    renewal: Option<(Instant, Instant)>,
    /// Whether the last translation was of fresh changes, while part of a large one may wait.
    fresh_went: bool,
    /// Ingresses that have been seen but not yet reported as synced.
    synced: Vec<ObjectKey>,
    /// The translated but unsent changes, and until when they may wait for the contents they refer to.
    held: Option<(Delta, Instant)>,
    /// The time until which they wait for what may restrict them in any case, because one of them opens something.
    settled: Option<Instant>,
    /// Changes that go before the held ones, because they refer to nothing that is being fetched.
    ahead: Delta,
    publishing: bool,
    /// The number of changes sent to the proxy, and the number of those that are live.
    sent: u64,
    live: u64,
    gating: Option<Gating>,
    /// Ingresses that will be served once the held changes are live. Clients may send requests as soon as they see their
    /// address.
    coming: Vec<ObjectKey>,
    /// The findings to report about objects once nothing they refer to is being fetched: a Secret that has not been
    /// fetched yet looks like a missing one.
    findings: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    /// The reported findings that hold.
    known: Findings,
    status: Status,
    gateways: GatewayStatus,
    making: Making,
    /// Status writes in progress.
    writes: HashMap<ObjectKey, AbortHandle>,
    term: watch::Receiver<Term>,
    led: bool,
    resign: Option<oneshot::Sender<()>>,
    candidate: Option<JoinHandle<()>>,
    stage: Stage,
    leave_until: Instant,
    check_at: Instant,
    looking_up_nodes: bool,
    /// Whether the last look-up failed, which was reported then.
    nodes_fail: bool,
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
        known: Findings,
        proxies: Option<Proxies>,
    ) -> (Self, mpsc::Receiver<(usize, Message)>) {
        let api = ApiServer::new(client);
        let hasher = RandomState::new();
        let mut tasks = JoinSet::new();
        let sources = sources(&config);
        let (out, inbox) = mpsc::channel(MESSAGES);
        for (index, source) in sources.iter().enumerate() {
            tasks.spawn(watch_source(api.clone(), source.clone(), index, hasher.clone(), out.clone()));
        }
        // Without a receiver, reports are discarded.
        let (reports, reported) = mpsc::channel(REPORTS);
        if !config.read_only {
            let instance = config.pod.as_ref().map_or("", |pod| &pod.name);
            tasks.spawn(Sender::new(api.clone(), instance).run(reported));
        }

        let gating = Gating::start(&api, &config, proxies, &mut tasks);
        let (term_sender, term) = watch::channel(None);
        let (resign, resigned) = oneshot::channel();
        let mut candidate = None;
        if config.status.is_written() {
            if let Some(Pod { name, namespace }) = config.pod.as_ref().filter(|_| !config.election.disabled) {
                let ttl = Some(config.election.ttl).filter(|ttl| !ttl.is_zero()).unwrap_or(Duration::from_secs(30));
                let contender = Candidate::new(api.clone(), namespace, &config.election.id, name, ttl);
                candidate = Some(tokio::spawn(contender.run(term_sender, async {
                    // The sender is used or dropped: both mean the end.
                    let _ = resigned.await;
                })));
            } else {
                // Every replica leads for ever.
                term_sender.send_replace(Some(Instant::now() + Duration::from_secs(100 * 365 * 86_400)));
            }
        }
        let mut status = Status::default();
        if let AddressSource::Fixed(texts) = &config.status.addresses {
            status.publish(texts.iter().filter_map(|text| Address::from_text(text)).collect());
        }
        let mut gateways = GatewayStatus::new(config.options.gateway_controller.clone());
        if let AddressSource::Fixed(texts) = &config.status.addresses {
            gateways.publish(&texts.iter().filter_map(|text| Address::from_text(text)).collect());
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
            has_xbackends: true,
            rebuild: false,
            debounce: Debounce::default(),
            renewal: None,
            fresh_went: false,
            synced: Vec::new(),
            held: None,
            settled: None,
            ahead: Delta::default(),
            publishing: false,
            sent: 0,
            live: 0,
            gating,
            coming: Vec::new(),
            findings: BTreeMap::new(),
            known,
            status,
            gateways,
            making: Making::default(),
            writes: HashMap::new(),
            term,
            led: false,
            resign: Some(resign),
            candidate,
            stage: Stage::Working,
            leave_until: Instant::now(),
            check_at: Instant::now(),
            looking_up_nodes: false,
            nodes_fail: false,
            reports,
            jobs: JoinSet::new(),
            tasks,
        };
        (running, inbox)
    }

    /// The next job that ends. Panics of jobs, watches and the sender of Events propagate.
    pub(super) async fn next_job(&mut self) -> Job {
        let pass_on = |error: JoinError| {
            // Any other error is an aborted write.
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
                Some(news) = async { Some(self.gating.as_mut()?.next().await) } => return Job::Fed(news),
                else => std::future::pending().await,
            }
        }
    }

    /// The end of our leadership.
    pub(super) fn term(&self) -> watch::Receiver<Term> {
        self.term.clone()
    }

    /// Whether an Ingress is ours, live or not yet.
    fn serves(&self, key: &ObjectKey) -> bool {
        self.translator.as_ref().is_some_and(|translator| translator.served().contains(key))
    }

    /// Answers the admission webhook. Without a translation there is no answer.
    pub(super) fn review(&self, question: Question) {
        // The webhook may have given up.
        if let Some(translator) = self.translator.as_ref().filter(|_| !question.answer.is_closed()) {
            let _ = question.answer.send(translator.review(&question.ingress));
        }
    }

    /// Whether part of a large change is waiting.
    fn has_more(&self) -> bool {
        self.translator.as_ref().is_some_and(Translator::has_more)
    }

    fn wants(&self, key: &ObjectKey) -> bool {
        self.translator.as_ref().is_some_and(|translator| translator.wants(key))
    }

    /// Handles the result of a job.
    pub(super) async fn ended(&mut self, job: Job) -> Result<(), RunError> {
        match job {
            Job::Fetched(key, result) => self.fetched(key, result).await,
            Job::Written(write, result) => {
                self.writes.remove(&write.key);
                self.status.written(write, result);
            }
            Job::GatewayWritten(write, result) => {
                self.writes.remove(&write.key);
                self.gateways.written(write, result);
            }
            Job::Made(write, result) => {
                self.writes.remove(&write.key);
                self.making.written(write, result);
            }
            Job::Nodes(result) => {
                self.looking_up_nodes = false;
                let retry = match result {
                    Ok(addresses) => {
                        self.nodes_fail = false;
                        let none = addresses.is_empty();
                        self.publish_addresses(addresses);
                        none
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut self.nodes_fail, true) {
                            warn!(error = %ErrorChain(&error), "cannot look up the addresses of our nodes; trying again");
                        }
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
                self.live = self.sent;
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
                    let error = ErrorChain(&error);
                    warn!(%error, "can't tell whether another replica follows: addresses stay in the status of Ingresses");
                    self.resign();
                }
            },
            Job::Resigned => self.stage = Stage::Left,
            Job::Fed(Some(fed)) => self.fed(fed),
            Job::Fed(None) => (),
            Job::Routed(routed, result) => self.routed(&routed, result),
            Job::Told(telling, result) => self.told(&telling, &result),
        }
        Ok(())
    }

    /// When [`tick`](Self::tick) is next due if nothing else happens.
    pub(super) fn timer(&self) -> Instant {
        let can_translate = self.store.synced() && !self.publishing;
        let held = self.held.as_ref().map(|(_, until)| *until).filter(|_| !self.publishing);
        let leaving = !matches!(self.stage, Stage::Working | Stage::Left);
        [
            self.debounce.due().filter(|_| can_translate),
            Some(Instant::now()).filter(|_| can_translate && self.may_proceed()),
            self.renewal.map(|(_, at)| at).filter(|_| can_translate && !self.has_more()),
            held,
            self.settled.filter(|_| !self.publishing),
            self.references.retry_at(),
            self.status.backlog.retry_at(),
            self.gateways.backlog.retry_at(),
            self.making.backlog.retry_at(),
            self.route_at(),
            leaving.then_some(self.leave_until),
            Some(self.check_at),
        ]
        .into_iter()
        .flatten()
        .min()
        .expect("there is always a next check")
    }

    /// Handles a due timer.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        if self.references.retry_at().is_some_and(|at| at <= now) {
            self.references.retry();
        }
        for backlog in [&mut self.status.backlog, &mut self.gateways.backlog, &mut self.making.backlog] {
            if backlog.retry_at().is_some_and(|at| at <= now) {
                backlog.retry();
            }
        }
        if self.check_at <= now {
            self.check_at = now + check_interval(self.config.status.interval);
            self.status.check();
            self.gateways.check();
            self.making.check();
            self.look_up_nodes();
            // Only the time has changed, and with it perhaps the validity of a certificate.
            self.debounce.touch(now, Haste::Soon);
        }
        if !matches!(self.stage, Stage::Working | Stage::Left) && self.leave_until <= now {
            warn!("the shutdown takes too long: addresses may stay in the status of Ingresses");
            self.abandon_writes();
            self.stage = Stage::Left;
        }
    }

    /// Performs the steps that have become possible.
    pub(super) async fn advance(&mut self) {
        if self.store.synced() && !self.publishing {
            let due = self.debounce.due().is_some_and(|due| due <= Instant::now());
            let more = self.may_proceed();
            // Fresh changes precede the next part of a large one, which precedes the next fresh ones.
            if due && !(more && self.fresh_went) {
                self.translate().await;
                self.fresh_went = true;
            } else if more {
                self.proceed().await;
                self.fresh_went = false;
            } else if !self.has_more() && self.renewal.is_some_and(|(_, at)| at <= Instant::now()) {
                self.renew().await;
            }
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
                let before = self.known.set(&key, &diagnostics);
                diagnostics.iter().filter(|found| !before.contains(found)).for_each(log);
                before.iter().filter(|found| !diagnostics.contains(found)).for_each(log_resolved);
                self.report(key, diagnostics).await;
            }
        }
        self.route();
        self.write();
    }
}
