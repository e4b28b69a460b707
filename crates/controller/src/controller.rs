//! The loop in which everything meets.

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use crate::config::{AddressSource, ControllerConfig};
use crate::finding::Findings;
use crate::publish::Publish;

mod running;

use running::{MESSAGES, Running};

/// Watches, translates, publishes, and writes status and Events.
pub struct Controller {
    client: kube::Client,
    config: ControllerConfig,
    sink: mpsc::Sender<Publish>,
    ready: watch::Sender<bool>,
    findings: Findings,
}

/// Why a configuration makes no sense.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidConfig {
    /// Neither can be had without knowing the own pod.
    #[error("POD_NAME and POD_NAMESPACE must be set for {0}")]
    NoPod(&'static str),
    /// The two are different ways to say the same.
    #[error("--watch-namespace and --watch-namespace-selector exclude each other")]
    TwoSelections,
}

/// Why a [`Controller`] ended before it was told to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RunError {
    /// Whoever took the changes is gone.
    #[error("the proxy takes no more changes")]
    SinkClosed,
}

impl Controller {
    /// A controller that sends what it finds into `sink`. Nothing happens before [`run`](Self::run).
    ///
    /// # Errors
    /// When the configuration contradicts itself or lacks the own pod.
    pub fn new(
        client: kube::Client,
        mut config: ControllerConfig,
        sink: mpsc::Sender<Publish>,
    ) -> Result<Self, InvalidConfig> {
        config.status.update &= !config.read_only;
        if config.options.watch_namespace.is_some() && config.options.namespace_selector.is_some() {
            return Err(InvalidConfig::TwoSelections);
        }
        if config.status.update && config.pod.is_none() {
            if !config.election.disabled {
                return Err(InvalidConfig::NoPod(
                    "leader election (or --disable-leader-election or --update-status=false)",
                ));
            }
            if matches!(config.status.addresses, AddressSource::Nodes { .. }) {
                return Err(InvalidConfig::NoPod("node addresses in the status of Ingresses"));
            }
        }
        Ok(Self { client, config, sink, ready: watch::Sender::new(false), findings: Findings::default() })
    }

    /// What there is to say about objects, kept up to date.
    pub fn findings(&self) -> Findings {
        self.findings.clone()
    }

    /// Becomes `true` once the first complete state is live in the proxy, and stays so.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Works until `stop` resolves. When `leave` resolves (the process is asked to end, but still drains), addresses are taken
    /// back from Ingresses and the Lease is given back, while changes go on being published; the same happens at `stop` if
    /// `leave` has not resolved by then.
    ///
    /// # Errors
    /// When nobody receives from the sink any more.
    pub async fn run(self, leave: impl Future<Output = ()>, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { client, config, sink, ready, findings } = self;
        let (mut running, mut inbox) = Running::start(client, config, sink, ready, findings);
        tokio::pin!(leave, stop);
        let (mut leaving, mut stopping) = (false, false);
        let mut term = running.term();
        let mut messages = Vec::new();
        while !(stopping && running.has_left()) {
            let timer = running.timer();
            // What can happen:
            tokio::select! {
                // we are told to end;
                () = &mut stop, if !stopping => {
                    stopping = true;
                    running.leave();
                }
                // we are told that the end is near;
                () = &mut leave, if !leaving => {
                    leaving = true;
                    running.leave();
                }
                // watches have seen something;
                _ = inbox.recv_many(&mut messages, MESSAGES) => {
                    for (source, message) in messages.drain(..) {
                        running.take(source, message).await;
                    }
                }
                // a call to the API server has ended, or a change is live;
                job = running.next_job() => running.ended(job).await?,
                // we begin or cease to lead, or the term is longer;
                Ok(()) = term.changed() => (),
                // it is time to translate, to try again or to look at everything again.
                () = sleep_until(timer) => running.tick(),
            }
            running.advance().await;
        }
        Ok(())
    }
}
