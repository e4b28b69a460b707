//! The controller's side of the stream to one proxy: learn what it has, send what differs, one round at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fairway_model::Origin;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::hub::{Changed, ConnectedProxy, Difference, Hub, Ledger, Report, Seat};
use crate::limit::{ENDPOINTS, GREETING, NAME, REFUSALS, REPORT_AGAIN, RESOURCES, TEXT};
use crate::message::{Deal, Demands, FromController, FromProxy, Hello, Refusal, Said, Unreachable};
use crate::resource::{Encoded, Version};
use crate::round::Cut;

/// Serves a proxy until it leaves or violates the protocol.
pub(crate) async fn serve<S>(hub: Hub, from: S, to: mpsc::Sender<Result<FromController, Status>>)
where
    S: Stream<Item = Result<FromProxy, Status>> + Unpin,
{
    let (ledger, demands) = (Ledger::default(), Instant::now());
    let mut session = Session { hub, from, to, ledger, patches: false, demands, nonce: 0 };
    // If the proxy is gone, this has no effect.
    if let Err(status) = session.run().await {
        // The proxy may never read this, and its place is free for another already.
        session.ledger = Ledger::default();
        let _ = session.to.send(Err(status)).await;
    }
}

struct Session<S> {
    hub: Hub,
    from: S,
    to: mpsc::Sender<Result<FromController, Status>>,
    ledger: Ledger,
    /// Whether the proxy takes patches.
    patches: bool,
    /// When it may next report about its clients.
    demands: Instant,
    nonce: u64,
}

impl<S: Stream<Item = Result<FromProxy, Status>> + Unpin> Session<S> {
    async fn run(&mut self) -> Result<(), Status> {
        // A greeting proxy already takes a place, because what it says it holds is kept from then on.
        let seat = self.hub.seat().map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let greeting = timeout(GREETING, self.greeting(seat)).await;
        let proxy = greeting.map_err(|_| Status::deadline_exceeded("no greeting"))??;
        let mut newest = self.hub.newest();
        loop {
            newest.mark_unchanged();
            if let Some(difference) = self.hub.difference(&self.ledger) {
                self.round(&proxy, difference).await?;
                if newest.has_changed().unwrap_or(false) {
                    continue;
                }
            }
            // Not during a round, whose messages the proxy may not read before it has applied them.
            while let Some(deal) = proxy.deal() {
                let message = FromController { deal: Some(Deal::from(&deal)), ..FromController::default() };
                self.to.send(Ok(message)).await.map_err(|_| Status::cancelled("the proxy is gone"))?;
            }
            let ends = |_| Status::unavailable("the controller ends");
            tokio::select! {
                changed = newest.changed() => changed.map_err(ends)?,
                () = proxy.dealt() => {}
                said = self.from.next() => match said {
                    None => return Ok(()),
                    Some(said) => self.other(&proxy, said?).await?,
                },
            }
        }
    }

    /// Receives the proxy's name and what it holds.
    async fn greeting(&mut self, mut seat: Seat) -> Result<ConnectedProxy, Status> {
        let Some(Said::Hello(Hello { fairway, name, patches, shares })) = self.said().await? else {
            return Err(Status::invalid_argument("expected a greeting"));
        };
        self.patches = patches;
        loop {
            let Some(Said::Held(list)) = self.said().await? else {
                return Err(Status::invalid_argument("expected what the proxy holds"));
            };
            if !seat.hold(list.held.iter().map(|held| held.name.len()).sum()) {
                return Err(Status::resource_exhausted(
                    "the names of its resources, or of those of all proxies, are too long",
                ));
            }
            for held in list.held {
                if held.name.len() > NAME || self.ledger.held.len() >= RESOURCES {
                    return Err(Status::resource_exhausted("more resources than any cluster has"));
                }
                self.ledger.held.insert(held.name.into(), Version::from_bytes(&held.version));
            }
            if list.last {
                break;
            }
        }
        Ok(seat.join(bounded(name), bounded(fairway), shares))
    }

    /// Sends a round and waits until it is in effect. Meanwhile the state may change, and the next round has all of that at once.
    async fn round(&mut self, proxy: &ConnectedProxy, difference: Difference) -> Result<(), Status> {
        let Difference { generation, changed, removed } = difference;
        // A proxy that has everything gets one round without content: only then does it know that nothing is missing.
        let first = self.ledger.seen.is_none();
        if changed.is_empty() && removed.is_empty() && !first {
            self.ledger.seen = Some(generation);
            proxy.serves(generation, self.ledger.held.len(), std::iter::empty(), Vec::new());
            return Ok(());
        }
        self.nonce += 1;
        proxy.sends(changed.len() + removed.len());
        {
            let encoded = |changed: &Changed| {
                let before = changed.before.as_ref().filter(|_| self.patches);
                Encoded::new(&changed.resource).ok().map(|encoded| encoded.after(before))
            };
            let resources = changed.iter().filter_map(encoded);
            let removals = removed.iter().map(|name| name.as_ref().to_owned());
            for message in Cut::new(self.nonce, resources, removals) {
                // The stream takes the next message when the proxy has room for it.
                self.to.send(Ok(message)).await.map_err(|_| Status::cancelled("the proxy is gone"))?;
            }
        }
        let sent: HashMap<Arc<str>, Version> =
            changed.into_iter().map(|changed| (changed.name, changed.version)).collect();
        let mut refused = BTreeMap::new();
        loop {
            match self.said().await? {
                Some(Said::Ack(ack)) if ack.nonce == self.nonce => {
                    // Only what was sent can be refused.
                    for Refusal { name, reason } in ack.refused.into_iter().filter(|one| sent.contains_key(&*one.name))
                    {
                        let reason = if refused.len() < REFUSALS { bounded(reason) } else { String::new() };
                        refused.insert(name.into_boxed_str(), reason);
                    }
                    if !ack.more {
                        break;
                    }
                }
                Some(Said::Unreachable(report)) => self.unreachable(report),
                Some(Said::Demands(demands)) => self.demands(proxy, demands).await,
                Some(_) => return Err(Status::invalid_argument("expected an acknowledgement")),
                None => return Err(Status::cancelled("the proxy is gone")),
            }
        }
        let settled: Vec<Arc<str>> = sent.keys().chain(&removed).cloned().collect();
        self.ledger.acknowledged(generation, sent, &removed, |name| refused.contains_key(name));
        proxy.serves(generation, self.ledger.held.len(), settled.iter().map(|name| &**name), refused);
        Ok(())
    }

    async fn said(&mut self) -> Result<Option<Said>, Status> {
        match self.from.next().await {
            None => Ok(None),
            Some(message) => Ok(message?.said),
        }
    }

    async fn other(&mut self, proxy: &ConnectedProxy, message: FromProxy) -> Result<(), Status> {
        match message.said {
            Some(Said::Unreachable(report)) => self.unreachable(report),
            Some(Said::Demands(demands)) => self.demands(proxy, demands).await,
            // A newer proxy may send messages that are not understood here.
            None => {}
            Some(Said::Hello(_) | Said::Held(_) | Said::Ack(_)) => {
                return Err(Status::invalid_argument("nothing to acknowledge"));
            }
        }
        Ok(())
    }

    /// Takes the proxy's reports about its clients, no more often than allowed.
    async fn demands(&mut self, proxy: &ConnectedProxy, demands: Demands) {
        sleep_until(self.demands).await;
        self.demands = Instant::now() + REPORT_AGAIN;
        proxy.demands(demands.into());
    }

    fn unreachable(&self, report: Unreachable) {
        let Unreachable { kind, namespace, name, section, backend, endpoints } = report;
        let origin = Origin::new(bounded(kind), bounded(namespace), bounded(name)).section(bounded(section));
        let endpoints = endpoints.into_iter().take(ENDPOINTS);
        let endpoints = endpoints.filter_map(|one| Some((one.address.parse().ok()?, word(&one.reason)))).collect();
        self.hub.report(Report::Unreachable { origin, backend: bounded(backend), endpoints });
    }
}

/// A text from a proxy, which may be compromised: of bounded length and on one line.
fn bounded(text: String) -> String {
    text.chars().filter(|char| !char.is_control()).take(TEXT).collect()
}

/// One word of such a text.
fn word(text: &str) -> String {
    text.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '_').take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{NAMES, PROXIES};
    use crate::message::{Ack, HeldList, HeldOne};
    use fairway_model::{Delta, Endpoint, EndpointSet, Endpoints, Resource};
    use fairway_testkit::within;
    use prost::Message as _;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::Code;

    type Told = mpsc::Receiver<Result<FromController, Status>>;

    fn begin(hub: &Hub, from: impl Stream<Item = Result<FromProxy, Status>> + Unpin + Send + 'static) -> Told {
        let (to, told) = mpsc::channel(1);
        tokio::spawn(serve(hub.clone(), from, to));
        told
    }

    /// The status for a proxy that holds resources with names of these lengths.
    async fn told(lengths: impl Iterator<Item = usize> + Unpin + Send + 'static) -> Code {
        let hello = Said::Hello(Hello::default());
        let held = lengths.map(|length| {
            let held = vec![HeldOne { name: "a".repeat(length), ..HeldOne::default() }];
            Said::Held(HeldList { held, last: false })
        });
        let said = std::iter::once(hello).chain(held).map(|said| Ok(said.into()));
        let mut told = begin(&Hub::new().0, tokio_stream::iter(said));
        within("a refusal", told.recv()).await.unwrap().unwrap_err().code()
    }

    #[tokio::test]
    async fn the_names_that_a_proxy_says_it_holds_are_bounded_each_and_together() {
        // With these, only the end of the stream is an error.
        assert_eq!(told([NAME].into_iter()).await, Code::InvalidArgument);
        assert_eq!(told([NAME + 1].into_iter()).await, Code::ResourceExhausted);
        assert_eq!(told(std::iter::repeat_n(NAME, NAMES / NAME)).await, Code::InvalidArgument);
        assert_eq!(told(std::iter::repeat_n(NAME, NAMES / NAME + 1)).await, Code::ResourceExhausted);
    }

    #[tokio::test]
    async fn proxies_that_have_not_greeted_yet_count() {
        let hub = Hub::new().0;
        let mut silent: Vec<_> = (0..PROXIES)
            .map(|_| {
                let (to, from) = mpsc::channel(1);
                (to, begin(&hub, ReceiverStream::new(from)))
            })
            .collect();
        tokio::task::yield_now().await;
        let mut more = begin(&hub, tokio_stream::pending());
        let status = within("a refusal", more.recv()).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        // A proxy that leaves makes room.
        let (to, mut told) = silent.pop().unwrap();
        drop(to);
        assert_eq!(within("the end", told.recv()).await.unwrap().unwrap_err().code(), Code::InvalidArgument);
        assert!(within("the end", told.recv()).await.is_none());
        assert!(hub.seat().is_ok());
    }

    fn endpoints(count: u16, other: u8) -> Resource {
        let address = |number: u16| ([10, 0, (number >> 8) as u8, number as u8], 8080).into();
        let mut all: Vec<_> = (0..count).map(|number| Endpoint::ready(address(number))).collect();
        all.push(Endpoint::ready(([10, 1, 0, other], 8080).into()));
        EndpointSet { backend: "shop/cart:80".into(), endpoints: Endpoints::Addresses(all) }.into()
    }

    /// The bytes of each of three rounds to a proxy, which refuses the content of the second if `refuses`.
    async fn bytes(patches: bool, refuses: bool) -> [usize; 3] {
        let (hub, _reports) = Hub::new();
        let (say, from) = mpsc::channel(4);
        let mut told = begin(&hub, ReceiverStream::new(from));
        for said in [
            Said::Hello(Hello { patches, ..Hello::default() }),
            Said::Held(HeldList { last: true, ..HeldList::default() }),
        ] {
            say.send(Ok(said.into())).await.unwrap();
        }
        let mut bytes = [0; 3];
        for (number, sum) in (1..).zip(&mut bytes) {
            let publish = hub.publish(Delta::upsert([endpoints(1000, number)]));
            let take = async {
                loop {
                    let message = within("a message", told.recv()).await.unwrap().unwrap();
                    *sum += message.encoded_len();
                    if message.last {
                        let reason = "for a test".to_owned();
                        let refused = message.pieces.iter().filter(|_| refuses && number == 2);
                        let refused = refused.map(|piece| Refusal { name: piece.name.clone(), reason: reason.clone() });
                        let ack = Ack { nonce: message.nonce, refused: refused.collect(), more: false };
                        return say.send(Ok(Said::Ack(ack).into())).await.unwrap();
                    }
                }
            };
            tokio::join!(publish, take);
        }
        bytes
    }

    #[tokio::test]
    async fn a_change_of_one_endpoint_is_sent_without_the_thousand_others() {
        let [all, change, another] = bytes(true, false).await;
        assert!(all > 3_000, "{all} bytes for all");
        assert!(change < 300 && another < 300, "{change} and {another} bytes for one");
    }

    #[tokio::test]
    async fn a_proxy_that_has_another_form_is_sent_all_of_the_new_one() {
        let [all, change, another] = bytes(false, false).await;
        assert!(change > all / 2 && another > all / 2, "it takes no patches: {all}, {change}, {another}");
        let [all, change, another] = bytes(true, true).await;
        assert!(change < 300 && another > all / 2, "it refused the form before: {all}, {change}, {another}");
    }
}
