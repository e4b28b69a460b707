//! The readiness gate of pods: the messages of its watches, our reports to other controllers, and the conditions that the leader writes.

use fairway_model::ErrorChain;
use fairway_translate::Translator;
use fairway_translate::objects::{Kind, ObjectKey};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::lead::Stage;
use super::{Job, MESSAGES, Running};
use crate::api::{ApiServer, CallError};
use crate::config::{ControllerConfig, Pod};
use crate::controller::Proxies;
use crate::debounce::Haste;
use crate::gate::{self, Fed, FeedNews, Gate, Observed, Peers, Reach, Record, Routed, Telling, Verdict};

/// The parts that run only with `--readiness-gate` or `--observed`.
pub(super) struct Gating {
    pub(super) gate: Gate,
    pub(super) observed: Observed,
    peers: Peers,
    pub(super) inbox: mpsc::Receiver<Fed>,
    record: watch::Sender<Record>,
    /// `None` if the proxy is in this process.
    pub(super) proxies: Option<Proxies>,
}

impl Gating {
    /// Starts the watches and the writer of our Lease, if they are wanted.
    pub(super) fn start(
        api: &ApiServer,
        config: &ControllerConfig,
        proxies: Option<Proxies>,
        tasks: &mut JoinSet<()>,
    ) -> Option<Self> {
        let Pod { name, namespace } = config.pod.as_ref().filter(|_| config.readiness_gate || config.observed)?;
        let (out, inbox) = mpsc::channel(MESSAGES);
        if config.readiness_gate {
            tasks.spawn(gate::pods(api.clone(), config.options.watch_namespace.clone(), out.clone()));
        }
        tasks.spawn(gate::leases(api.clone(), namespace.clone(), out));
        let (record, records) = watch::channel(Record::default());
        let pod = Pod { name: name.clone(), namespace: namespace.clone() };
        tasks.spawn(gate::keep(api.clone(), pod, config.election.id.clone(), records));
        let peers = Peers::new(&config.election.id, name);
        Some(Self { gate: Gate::default(), observed: Observed::default(), peers, inbox, record, proxies })
    }

    /// The next message of the watches, or `None` when the proxies have made progress.
    pub(super) async fn next(&mut self) -> Option<Fed> {
        let waits = self.gate.waits() || self.observed.waits();
        let reached = async {
            // Without a hub there is nothing to wait for.
            let changed = match self.proxies.as_mut().filter(|_| waits) {
                Some(proxies) => proxies.changed.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            Some(fed) = self.inbox.recv() => Some(fed),
            () = reached => None,
            else => std::future::pending().await,
        }
    }
}

impl Running {
    /// Handles a message of the watches.
    pub(super) fn fed(&mut self, fed: Fed) {
        let Some(Gating { gate, peers, .. }) = &mut self.gating else { return };
        let now = Instant::now();
        match fed {
            Fed::Pods(FeedNews::Listed(pods)) => gate.listed(&pods, now),
            Fed::Pods(FeedNews::Seen(pod)) => gate.seen(&pod, now),
            Fed::Pods(FeedNews::Gone(pod)) => gate.gone(pod.uid()),
            Fed::Leases(FeedNews::Listed(leases)) => peers.listed(leases, now),
            Fed::Leases(FeedNews::Seen(lease)) => peers.seen(*lease, now),
            Fed::Leases(FeedNews::Gone(lease)) => peers.gone(&lease),
        }
        if gate.has_changes() {
            self.debounce.touch(now, Haste::Soon);
        }
    }

    /// Handles the end of writing a condition.
    pub(super) fn routed(&mut self, routed: &Routed, result: Result<(), CallError>) {
        let Routed { uid, namespace, name, verdict, knowing, of } = routed;
        let gate = self.gating.as_mut().map(|gating| &mut gating.gate);
        let is_new = gate.is_some_and(|gate| gate.written(uid, result.as_ref().copied(), Instant::now()));
        match &result {
            Ok(()) if *verdict == Verdict::Known => debug!(namespace, name, proxies = of, "all proxies know a pod"),
            Ok(()) => warn!(
                namespace,
                name,
                knowing,
                proxies = of,
                "not all proxies know a pod that has waited long enough: it may be ready; /debug/channel shows which are slow"
            ),
            // The pod is gone; the watch will report that.
            Err(error) if matches!(error.code(), Some(404 | 409)) => (),
            Err(error) if is_new => {
                warn!(namespace, name, error = %ErrorChain(error), "cannot write the condition of a pod that waits for the proxies; trying again");
            }
            Err(_) => (),
        }
    }

    /// Handles the end of writing an annotation.
    pub(super) fn told(&mut self, telling: &Telling, result: &Result<(), CallError>) {
        let observed = self.gating.as_mut().map(|gating| &mut gating.observed);
        let result = result.as_ref().copied();
        let is_new = observed.is_some_and(|observed| observed.written(telling, result, Instant::now()));
        if let Err(error) = result
            && is_new
            && !matches!(error.code(), Some(404 | 409))
        {
            let ObjectKey { kind, namespace, name } = &telling.key;
            warn!(%kind, %namespace, %name, error = %ErrorChain(error), "cannot say on an object which proxies have it; trying again");
        }
    }

    /// Reports to other controllers what our proxies know and, as the leader, writes the conditions of pods that all proxies know.
    pub(super) fn route(&mut self) {
        let writes = self.writes_conditions();
        // Whether everything translated so far is sent.
        let is_sent = self.held.is_none() && self.ahead.is_empty() && !self.has_more();
        let (sent, live) = (self.sent, self.live);
        let translator = &self.translator;
        let Some(Gating { gate, observed, peers, record, proxies, .. }) = &mut self.gating else { return };
        observed.serve(|key| {
            let is_ours = |translator: &Translator| match key.kind {
                Kind::Ingress => translator.served().contains(key),
                _ => translator.statuses().contains_key(key),
            };
            translator.as_ref().is_some_and(is_ours)
        });
        if is_sent {
            gate.published(sent);
            observed.published(sent);
        }
        let reach = match proxies {
            Some(Proxies { least, serves, .. }) => Reach::new(serves(), *least),
            None => Reach::new(vec![live], 1),
        };
        let replicas = translator.as_ref().map(|translator| translator.snapshot().settings().replicas.get());
        let reach = reach.among(replicas.map_or(1, |replicas| usize::try_from(replicas).unwrap_or(usize::MAX)));
        let ours = Record { pods: gate.known(&reach), changes: observed.known(&reach), proxies: reach.of() };
        record.send_if_modified(|record| std::mem::replace(record, ours.clone()) != ours);
        if writes {
            for routed in gate.due(&reach, peers, Instant::now()) {
                let api = self.api.clone();
                self.jobs.spawn(async move {
                    let result = routed.run(&api).await;
                    Job::Routed(routed, result)
                });
            }
            for telling in observed.due(&reach, peers, Instant::now()) {
                let api = self.api.clone();
                self.jobs.spawn(async move {
                    let result = telling.run(&api).await;
                    Job::Told(telling, result)
                });
            }
        }
    }

    /// When [`route`](Self::route) is due even if nothing else happens.
    pub(super) fn route_at(&self) -> Option<Instant> {
        let Gating { gate, observed, peers, .. } = self.gating.as_ref().filter(|_| self.writes_conditions())?;
        let now = Instant::now();
        [gate.next_at(peers, now), observed.next_at(peers, now)].into_iter().flatten().min()
    }

    fn writes_conditions(&self) -> bool {
        *self.ready.borrow() && self.stage == Stage::Working && self.leads()
    }
}
