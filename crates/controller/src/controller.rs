//! The main loop.

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use crate::config::{AddressSource, ControllerConfig, StatusWriting};
use crate::finding::Findings;
use crate::publish::Publish;
use crate::report::{ProxyReport, Reporter};
use crate::review::{Question, Reviewer};

mod running;

use running::{MESSAGES, Running};

/// The target of log lines about users' objects. Each finding is logged once, and again if it returns after it was resolved.
pub const FINDINGS: &str = "fairway_controller::findings";

/// Watches, translates, publishes, and writes status and Events.
pub struct Controller {
    client: kube::Client,
    config: ControllerConfig,
    sink: mpsc::Sender<Publish>,
    ready: watch::Sender<bool>,
    findings: Findings,
    reporter: Reporter,
    reports: mpsc::Receiver<ProxyReport>,
    reviewer: Reviewer,
    questions: mpsc::Receiver<Question>,
    proxies: Option<Proxies>,
}

/// Proxies in other processes.
pub(crate) struct Proxies {
    /// Changes whenever one of them connects, disconnects or makes progress.
    pub(crate) changed: watch::Receiver<u64>,
    /// For each connected proxy, the number of the last change that is in force there.
    pub(crate) serves: Box<dyn Fn() -> Vec<u64> + Send + Sync>,
    /// The minimum number of proxies, connected or not.
    pub(crate) least: usize,
}

/// Why a configuration is invalid.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidConfig {
    /// Both require knowledge of our own pod.
    #[error("POD_NAME and POD_NAMESPACE must be set for {0}")]
    NoPod(&'static str),
    /// The two are different ways to select the same.
    #[error("--watch-namespace and --watch-namespace-selector exclude each other")]
    TwoSelections,
    /// The replica that writes status also writes the conditions.
    #[error("--readiness-gate and --observed need --update-status, POD_NAME and POD_NAMESPACE, and not --read-only")]
    NoRouting,
}

/// Why a [`Controller`] ended before it was stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RunError {
    /// The receiver of the changes is gone.
    #[error("the proxy takes no more changes")]
    SinkClosed,
}

impl Controller {
    /// Creates a controller that sends its changes to `sink`. Nothing happens before [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// If the configuration contradicts itself or lacks our own pod.
    pub fn new(
        client: kube::Client,
        mut config: ControllerConfig,
        sink: mpsc::Sender<Publish>,
    ) -> Result<Self, InvalidConfig> {
        if config.read_only {
            config.status.writing = StatusWriting::Never;
        }
        if config.options.watch_namespace.is_some() && config.options.namespace_selector.is_some() {
            return Err(InvalidConfig::TwoSelections);
        }
        if (config.readiness_gate || config.observed) && (!config.status.is_written() || config.pod.is_none()) {
            return Err(InvalidConfig::NoRouting);
        }
        if config.status.is_written() && config.pod.is_none() {
            if !config.election.disabled {
                return Err(InvalidConfig::NoPod(
                    "leader election (or --disable-leader-election or --update-status=false)",
                ));
            }
            if matches!(config.status.addresses, AddressSource::Nodes { .. }) {
                return Err(InvalidConfig::NoPod("node addresses in the status of Ingresses"));
            }
        }
        let (ready, findings, (reporter, reports)) = (watch::Sender::new(false), Findings::default(), Reporter::new());
        let (reviewer, questions) = Reviewer::new(ready.subscribe());
        Ok(Self { client, config, sink, ready, findings, reporter, reports, reviewer, questions, proxies: None })
    }

    /// Declares that the proxies are in other processes. `changed` changes whenever one of them connects, disconnects or makes progress;
    /// `serves` returns for each connected one the number of the last change that is in force there, counted from 1; `least` is the minimum
    /// number of proxies, connected or not.
    #[must_use]
    pub fn with_proxies(
        self,
        changed: watch::Receiver<u64>,
        serves: impl Fn() -> Vec<u64> + Send + Sync + 'static,
        least: usize,
    ) -> Self {
        Self { proxies: Some(Proxies { changed, serves: Box::new(serves), least }), ..self }
    }

    /// The current findings about objects.
    pub fn findings(&self) -> Findings {
        self.findings.clone()
    }

    /// Takes the proxy's reports about routes.
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Answers whether Ingresses may be stored.
    pub fn reviewer(&self) -> Reviewer {
        self.reviewer.clone()
    }

    /// Becomes `true` once the first complete state is live in the proxy, and stays `true`.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Runs until `stop` resolves. When `leave` resolves (the process is asked to end but still drains), the controller
    /// removes its addresses from Ingresses and releases the Lease, while it continues to publish changes; the same
    /// happens at `stop` if `leave` has not resolved by then.
    ///
    /// # Errors
    /// If the receiver of the sink is gone.
    pub async fn run(self, leave: impl Future<Output = ()>, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { client, config, sink, ready, findings, mut reports, mut questions, proxies, .. } = self;
        let (mut running, mut inbox) = Running::start(client, config, sink, ready, findings, proxies);
        tokio::pin!(leave, stop);
        let (mut leaving, mut stopping) = (false, false);
        let mut term = running.term();
        let mut messages = Vec::new();
        while !(stopping && running.has_left()) {
            let timer = running.timer();
            // The events:
            tokio::select! {
                // the stop signal;
                () = &mut stop, if !stopping => {
                    stopping = true;
                    running.leave();
                }
                // the announcement of the stop;
                () = &mut leave, if !leaving => {
                    leaving = true;
                    running.leave();
                }
                // a message of a watch;
                _ = inbox.recv_many(&mut messages, MESSAGES) => {
                    for (source, message) in messages.drain(..) {
                        running.take(source, message).await;
                    }
                }
                // a report of the proxy;
                Some(report) = reports.recv() => running.of_proxy(&report).await,
                // a question of the admission webhook, which changes nothing;
                Some(question) = questions.recv() => {
                    running.review(question);
                    continue;
                }
                // the end of a call to the API server, or a change that is live;
                job = running.next_job() => running.ended(job).await?,
                // the start or end of leadership, or a longer term;
                Ok(()) = term.changed() => (),
                // the time to translate, to retry or to check everything again.
                () = sleep_until(timer) => running.tick(),
            }
            running.advance().await;
        }
        Ok(())
    }
}
