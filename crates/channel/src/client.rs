//! The proxy's side: connects to a controller, takes its rounds, and continues without it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fairway_model::{Delta, DemandReport, Origin, ShareDeal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tonic::Status;
use tracing::{info, warn};

use crate::file::{KeptState, SnapshotFile};
use crate::grpc;
use crate::limit::{AGAIN_FIRST, AGAIN_LONGEST, ENDPOINTS, GREETING, PROOF_AGAIN, REPORTS, WAITING};
use crate::message::{Deal, Demands, Endpoint, FromProxy, Hello, Said, Unreachable};
use crate::place::{Place, PlaceError};
use crate::replica::Replica;
use crate::resource::Version;

/// A change to put into force.
#[derive(Debug)]
pub struct Change {
    /// The change. The first one is the whole state.
    pub delta: Delta,
    /// Answered once it is in force.
    pub live: oneshot::Sender<()>,
}

/// The state of a proxy's link to its controllers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LinkStatus {
    /// Whether a controller is connected and everything that it has sent is in force.
    pub current: bool,
    /// Whether a complete state is in force.
    pub complete: bool,
    /// When the state was last known to be the newest: now, if it is current.
    pub as_of: Option<AsOf>,
    /// Whether the state in force is from a file, and no controller has confirmed yet that it is the newest.
    pub from_file: bool,
    /// Number of resources that are held.
    pub held: usize,
    /// Resources that can't be understood, and why.
    pub refused: Vec<(String, String)>,
    /// Connections to controllers so far.
    pub connections: u64,
    /// Rounds so far.
    pub rounds: u64,
}

/// A moment in the past, by a monotonic clock: the age of a state does not jump when the machine's clock is corrected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AsOf {
    noted: Instant,
    /// How long before `noted` it was: a state from a file comes from another process.
    before: Duration,
}

/// Follows a controller.
#[derive(Debug)]
pub struct Link {
    place: Place,
    name: String,
    sink: mpsc::Sender<Change>,
    reports: mpsc::Receiver<FromProxy>,
    shares: Option<Shares>,
    status: watch::Sender<LinkStatus>,
    replica: Holding,
    file: Option<SnapshotFile>,
}

/// What a proxy holds. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Holding(Arc<Mutex<Replica>>);

/// Takes reports for users. Clones are equivalent.
#[derive(Clone, Debug)]
pub struct LinkReporter(mpsc::Sender<FromProxy>);

/// A controller's message about the shares of limits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Dealt {
    /// A deal, with the number of the connection.
    Shares(u64, ShareDeal),
    /// The controller is gone, or deals limits that this release does not know.
    Gone,
}

/// The end of a link where a proxy receives shares of limits and reports its demands.
#[derive(Debug)]
pub struct ShareEnd {
    dealt: mpsc::Receiver<Dealt>,
    demands: mpsc::Sender<(u64, DemandReport)>,
}

/// The link's side of a [`ShareEnd`].
#[derive(Debug)]
struct Shares {
    dealt: mpsc::Sender<Dealt>,
    demands: mpsc::Receiver<(u64, DemandReport)>,
    /// The number of the connection.
    connection: u64,
    /// Whether deals are understood.
    understood: bool,
}

/// Only a new process could prove this proxy's identity.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no controller takes this proxy for one")]
pub struct Unproven;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("there is no connection")]
    Connect(#[source] PlaceError),
    #[error("the controller did not answer within {GREETING:?}")]
    Silent,
    #[error("{} ({:?})", .0.message(), .0.code())]
    Stream(Status),
    #[error("the controller ended the stream")]
    Over,
    #[error(transparent)]
    Violation(#[from] crate::round::Violation),
    /// The receiver of changes is gone.
    #[error("the proxy ends")]
    Closed,
}

impl LinkStatus {
    /// How old the state in force may be.
    pub fn age(&self) -> Option<Duration> {
        if self.current {
            return Some(Duration::ZERO);
        }
        self.as_of.map(|as_of| as_of.elapsed())
    }
}

impl AsOf {
    fn now() -> Self {
        Self { noted: Instant::now(), before: Duration::ZERO }
    }

    /// By the machine's clock; a time in the future counts as now.
    fn from_file(time: SystemTime) -> Self {
        Self { before: time.elapsed().unwrap_or_default(), ..Self::now() }
    }

    fn elapsed(self) -> Duration {
        self.before + self.noted.elapsed()
    }
}

impl Holding {
    /// The version of each resource; `None` for one that can't be understood and has no earlier form.
    pub fn versions(&self) -> BTreeMap<String, Option<Version>> {
        self.lock().versions().map(|(name, version)| (name.to_owned(), version)).collect()
    }

    /// Held while a message is read, never while a change is put into force.
    fn lock(&self) -> MutexGuard<'_, Replica> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ShareEnd {
    /// The controller's next message. `None` when the link has ended.
    pub async fn next(&mut self) -> Option<Dealt> {
        self.dealt.recv().await
    }

    /// Reports to the controller of a connection. Does not wait; when too many wait already, this one is lost.
    pub fn report(&self, connection: u64, report: DemandReport) {
        let _ = self.demands.try_send((connection, report));
    }
}

impl Shares {
    fn begin(&mut self) {
        (self.connection, self.understood) = (self.connection + 1, true);
    }

    async fn end(&mut self) {
        if std::mem::take(&mut self.understood) {
            let _ = self.dealt.send(Dealt::Gone).await;
        }
    }

    async fn take(&mut self, deal: Deal) {
        if !self.understood {
            return;
        }
        match deal.try_into() {
            Ok(deal) => {
                let _ = self.dealt.send(Dealt::Shares(self.connection, deal)).await;
            }
            // Later deals must not confirm this one.
            Err(_) => self.end().await,
        }
    }

    /// The next report to the controller of this connection.
    async fn next(&mut self) -> Option<FromProxy> {
        loop {
            let (connection, report) = self.demands.recv().await?;
            if self.understood && connection == self.connection {
                return Some(Said::Demands(Demands::from(&report)).into());
            }
        }
    }
}

impl LinkReporter {
    /// Reports a backend to whose endpoints no connection can be made. Does not wait; when too many reports wait already, this one is
    /// lost.
    pub fn unreachable(&self, origin: &Origin, backend: &str, endpoints: &[(SocketAddr, &str)]) {
        let endpoint = |(address, reason): &(SocketAddr, &str)| Endpoint {
            address: address.to_string(),
            reason: (*reason).to_owned(),
        };
        let said = Said::Unreachable(Unreachable {
            kind: origin.kind.as_ref().to_owned(),
            namespace: origin.namespace.as_ref().to_owned(),
            name: origin.name.as_ref().to_owned(),
            section: origin.section.as_ref().to_owned(),
            backend: backend.to_owned(),
            endpoints: endpoints.iter().take(ENDPOINTS).map(endpoint).collect(),
        });
        let _ = self.0.try_send(said.into());
    }
}

impl Link {
    /// A link to the controller at a place. `name` is what the controller calls this proxy.
    pub fn new(place: Place, name: String, sink: mpsc::Sender<Change>) -> (Self, LinkReporter) {
        let (reporter, reports) = mpsc::channel(REPORTS);
        let (status, replica) = (watch::Sender::default(), Holding::default());
        (Self { place, name, sink, reports, shares: None, status, replica, file: None }, LinkReporter(reporter))
    }

    /// Begins with the state in a file, if there is one.
    #[must_use]
    pub fn with_file(self, file: Option<SnapshotFile>) -> Self {
        Self { file, ..self }
    }

    /// Takes shares of limits, if the controller deals them.
    pub fn shares(&mut self) -> ShareEnd {
        let ((to, dealt), (demands, from)) = (mpsc::channel(WAITING), mpsc::channel(WAITING));
        self.shares = Some(Shares { dealt: to, demands: from, connection: 0, understood: false });
        ShareEnd { dealt, demands }
    }

    /// The state of the link to controllers.
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.status.subscribe()
    }

    /// What the proxy holds.
    pub fn holding(&self) -> Holding {
        self.replica.clone()
    }

    /// Follows a controller, and reconnects whenever it is gone. Ends when the receiver of changes is gone.
    ///
    /// # Errors
    /// If no controller knows this proxy any more, and it has nothing to serve.
    pub async fn run(mut self) -> Result<(), Unproven> {
        let place = self.place.clone();
        tokio::select! {
            ended = self.follow() => ended,
            () = place.keep() => Ok(()),
        }
    }

    async fn follow(&mut self) -> Result<(), Unproven> {
        self.begin().await;
        let mut failures = 0_u32;
        let mut said = false;
        loop {
            let rounds = self.status.borrow().rounds;
            let begun = Instant::now();
            let ended = self.connection().await;
            if let Some(shares) = &mut self.shares {
                shares.end().await;
            }
            let unproven = match &ended {
                Ended::Closed => return Ok(()),
                Ended::Connect(error) => error.is_final(),
                _ => false,
            };
            if unproven && !self.status.borrow().complete {
                return Err(Unproven);
            }
            let worked = self.status.borrow().rounds > rounds;
            self.status.send_modify(|status| {
                if status.current {
                    (status.current, status.as_of) = (false, Some(AsOf::now()));
                }
            });
            failures = failures_after(failures, worked, begun.elapsed());
            // Each outage is logged once.
            if worked || !said {
                let error = fairway_model::ErrorChain(&ended);
                let complete = self.status.borrow().complete;
                warn!(%error, controller = %self.place, serving = complete, "no controller: connecting again until there is one");
                said = true;
            }
            sleep(if unproven { PROOF_AGAIN } else { pause(failures, jitter()) }).await;
        }
    }

    /// Puts the state in the file into force. An unreadable one counts as none.
    async fn begin(&mut self) {
        let Some(file) = self.file.take() else { return };
        let path = file.path().to_owned();
        let read = tokio::task::spawn_blocking(move || file.read()).await;
        let KeptState { replica, delta, as_of } = match read {
            Ok(Ok(Some(kept))) => kept,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                let error = fairway_model::ErrorChain(&error);
                return warn!(%error, "the snapshot in the file is ignored: waiting for a controller");
            }
            Err(error) => return warn!(%error, "the snapshot in the file is ignored: waiting for a controller"),
        };
        *self.replica.lock() = replica;
        if self.apply(delta).await.is_err() {
            return;
        }
        let (held, as_of) = (self.replica.lock().len(), AsOf::from_file(as_of));
        self.status.send_modify(|status| {
            (status.complete, status.from_file, status.as_of, status.held) = (true, true, Some(as_of), held);
        });
        let age = as_of.elapsed().as_secs();
        warn!(path = %path.display(), age_seconds = age, resources = held, "the snapshot in the file is in force until a controller says more");
    }

    /// One connection, from its beginning to its end.
    async fn connection(&mut self) -> Ended {
        self.replica.lock().reconnect();
        let (to, outgoing) = mpsc::channel(WAITING);
        let greeting = async {
            let connection = self.place.connect().await.map_err(Ended::Connect)?;
            let patches = self.replica.lock().takes_patches();
            let (fairway, name) = (env!("CARGO_PKG_VERSION").to_owned(), self.name.clone());
            let hello = Hello { fairway, name, patches, shares: self.shares.is_some() };
            let _ = to.send(Said::Hello(hello).into()).await;
            let lists = self.replica.lock().inventory();
            let inventory = async {
                for list in lists {
                    if to.send(Said::Held(list).into()).await.is_err() {
                        return;
                    }
                }
            };
            // A controller may answer before it has received everything.
            let (stream, ()) = tokio::join!(grpc::follow(connection, outgoing), inventory);
            stream.map_err(Ended::Stream)
        };
        let mut stream = match timeout(GREETING, greeting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(ended)) => return ended,
            Err(_) => return Ended::Silent,
        };
        self.status.send_modify(|status| status.connections += 1);
        if let Some(shares) = &mut self.shares {
            shares.begin();
        }
        loop {
            tokio::select! {
                message = stream.next() => {
                    let message = match message {
                        None => return Ended::Over,
                        Some(Err(status)) => return Ended::Stream(status),
                        Some(Ok(message)) => message,
                    };
                    if let Some(deal) = message.deal {
                        if let Some(shares) = &mut self.shares {
                            shares.take(deal).await;
                        }
                        continue;
                    }
                    let taken = self.replica.lock().take(message);
                    match taken {
                        Ok(None) => {}
                        Ok(Some(mut round)) => {
                            let delta = std::mem::take(&mut round.delta);
                            if self.apply(delta).await.is_err() {
                                return Ended::Closed;
                            }
                            let acks = self.replica.lock().commit(round);
                            self.applied();
                            // The controller reads until it has the last of them.
                            for ack in acks {
                                if to.send(Said::Ack(ack).into()).await.is_err() {
                                    return Ended::Over;
                                }
                            }
                        }
                        Err(violation) => return violation.into(),
                    }
                }
                Some(()) = pass_on(&mut self.reports, self.shares.as_mut(), &to) => {}
                () = self.sink.closed() => return Ended::Closed,
            }
        }
    }

    /// Waits until a change is in force.
    async fn apply(&self, delta: Delta) -> Result<(), ()> {
        if delta.is_empty() && self.status.borrow().complete {
            return Ok(());
        }
        let (live, is_live) = oneshot::channel();
        self.sink.send(Change { delta, live }).await.map_err(|_| ())?;
        is_live.await.map_err(|_| ())
    }

    fn applied(&self) {
        let first = !self.status.borrow().complete;
        let replica = self.replica.lock();
        self.status.send_modify(|status| {
            (status.current, status.complete, status.from_file) = (true, true, false);
            status.as_of = Some(AsOf::now());
            status.held = replica.len();
            status.rounds += 1;
            let refused = replica.refused().iter();
            status.refused = refused.map(|(name, reason)| (name.to_string(), reason.clone())).collect();
        });
        if first {
            info!(resources = replica.len(), "the configuration is complete");
        }
    }
}

/// Passes a report on. The controller may take none before its round is read, so this waits alongside the reading and never blocks it.
async fn pass_on(
    reports: &mut mpsc::Receiver<FromProxy>,
    shares: Option<&mut Shares>,
    to: &mpsc::Sender<FromProxy>,
) -> Option<()> {
    let room = to.reserve().await.ok()?;
    let demands = async {
        match shares {
            Some(shares) => shares.next().await,
            None => None,
        }
    };
    tokio::select! {
        Some(report) = reports.recv() => room.send(report),
        Some(demands) = demands => room.send(demands),
        else => return None,
    }
    Some(())
}

/// The number of consecutive failures after a connection. The controller may end each connection because of what the proxy sends, so only
/// one that has lasted counts as a success.
fn failures_after(failures: u32, worked: bool, lasted: Duration) -> u32 {
    if worked && lasted >= AGAIN_LONGEST { 0 } else { failures.saturating_add(1) }
}

/// The pause before the next attempt: doubled with each failure, and shortened at random by up to a half, so that many proxies do not
/// reconnect at once.
fn pause(failures: u32, random: f64) -> Duration {
    let whole = AGAIN_FIRST.saturating_mul(1 << failures.min(16)).min(AGAIN_LONGEST);
    whole.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
}

/// A number from 0 to 1.
pub(crate) fn jitter() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness, the pauses have no jitter.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_ends_each_connection_after_the_first_round_is_not_asked_in_a_hot_loop() {
        let soon = |failures, _| failures_after(failures, true, Duration::from_millis(1));
        let failures = (0..20).fold(0, soon);
        assert_eq!(pause(failures, 0.0), AGAIN_LONGEST);
        assert_eq!(failures_after(failures, true, AGAIN_LONGEST), 0);
        assert_eq!(failures_after(failures, false, AGAIN_LONGEST), failures + 1);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        assert_eq!(pause(0, 0.0), AGAIN_FIRST);
        assert_eq!(pause(1, 1.0), AGAIN_FIRST);
        assert_eq!(pause(u32::MAX, 0.0), AGAIN_LONGEST);
        assert!((0..40).all(|failures| pause(failures, 0.7) <= pause(failures + 1, 0.7)));
    }
}
