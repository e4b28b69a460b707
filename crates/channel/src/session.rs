//! The controller's side of the stream to one proxy: hear what it has, send what differs, one round at a time.

use std::collections::HashMap;
use std::sync::Arc;

use fairway_model::Origin;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::hub::{Difference, Hub, Ledger, Member, Report};
use crate::limit::{ENDPOINTS, GREETING, RESOURCES, TEXT};
use crate::message::{Ack, FromController, FromProxy, Hello, Said, Unreachable};
use crate::resource::{Encoded, Version};
use crate::round::Cut;

/// Serves a proxy until it goes or says what it should not.
pub(crate) async fn serve<S>(hub: Hub, from: S, to: mpsc::Sender<Result<FromController, Status>>)
where
    S: Stream<Item = Result<FromProxy, Status>> + Unpin,
{
    let mut session = Session { hub, from, to, ledger: Ledger::default(), nonce: 0 };
    // If the proxy is gone, nobody hears it.
    if let Err(status) = session.run().await {
        let _ = session.to.send(Err(status)).await;
    }
}

struct Session<S> {
    hub: Hub,
    from: S,
    to: mpsc::Sender<Result<FromController, Status>>,
    ledger: Ledger,
    nonce: u64,
}

impl<S: Stream<Item = Result<FromProxy, Status>> + Unpin> Session<S> {
    async fn run(&mut self) -> Result<(), Status> {
        let greeting = timeout(GREETING, self.greeting()).await;
        let member = greeting.map_err(|_| Status::deadline_exceeded("no greeting"))??;
        let mut newest = self.hub.newest();
        loop {
            newest.mark_unchanged();
            if let Some(difference) = self.hub.difference(&self.ledger) {
                self.round(&member, difference).await?;
                if newest.has_changed().unwrap_or(false) {
                    continue;
                }
            }
            tokio::select! {
                changed = newest.changed() => changed.map_err(|_| Status::unavailable("the controller ends"))?,
                said = self.from.next() => match said {
                    None => return Ok(()),
                    Some(said) => self.other(said?)?,
                },
            }
        }
    }

    /// Hears who the proxy is and what it holds.
    async fn greeting(&mut self) -> Result<Member, Status> {
        let Some(Said::Hello(Hello { fairway, name })) = self.said().await? else {
            return Err(Status::invalid_argument("expected a greeting"));
        };
        loop {
            let Some(Said::Held(list)) = self.said().await? else {
                return Err(Status::invalid_argument("expected what the proxy holds"));
            };
            for held in list.held {
                if self.ledger.held.len() >= RESOURCES {
                    return Err(Status::resource_exhausted("more resources than any cluster has"));
                }
                self.ledger.held.insert(held.name.into(), Version::from_bytes(&held.version));
            }
            if list.last {
                break;
            }
        }
        let joined = self.hub.join(bounded(name), bounded(fairway));
        joined.map_err(|error| Status::resource_exhausted(error.to_string()))
    }

    /// Sends a round and waits until it is in effect. Meanwhile the state may change, and the next round has all of that at once.
    async fn round(&mut self, member: &Member, difference: Difference) -> Result<(), Status> {
        let Difference { generation, changed, removed } = difference;
        // A proxy that has everything is told so once, by a round without content: only then does it know that nothing is missing.
        let first = self.ledger.seen.is_none();
        if changed.is_empty() && removed.is_empty() && !first {
            self.ledger.seen = Some(generation);
            member.serves(generation, self.ledger.held.len(), std::iter::empty(), Vec::new());
            return Ok(());
        }
        self.nonce += 1;
        member.sends(changed.len() + removed.len());
        {
            let resources = changed.iter().filter_map(|(_, _, resource)| Encoded::new(resource).ok());
            let removals = removed.iter().map(|name| name.as_ref().to_owned());
            for message in Cut::new(self.nonce, resources, removals) {
                // The stream takes the next message when the proxy has room for it.
                self.to.send(Ok(message)).await.map_err(|_| Status::cancelled("the proxy is gone"))?;
            }
        }
        let ack = loop {
            match self.said().await? {
                Some(Said::Ack(ack)) if ack.nonce == self.nonce => break ack,
                Some(Said::Unreachable(report)) => self.unreachable(report),
                Some(_) => return Err(Status::invalid_argument("expected an acknowledgement")),
                None => return Err(Status::cancelled("the proxy is gone")),
            }
        };
        self.acknowledged(member, generation, ack, changed, &removed);
        Ok(())
    }

    fn acknowledged(
        &mut self,
        member: &Member,
        generation: u64,
        ack: Ack,
        changed: Vec<(Arc<str>, Version, fairway_model::Resource)>,
        removed: &[Arc<str>],
    ) {
        // Only what was sent can be refused.
        let sent: HashMap<Arc<str>, Version> = changed.into_iter().map(|(name, version, _)| (name, version)).collect();
        let refused = ack.refused.into_iter().filter(|refusal| sent.contains_key(&*refusal.name));
        let refused: Vec<_> = refused.map(|refusal| (refusal.name.into_boxed_str(), bounded(refusal.reason))).collect();
        let settled: Vec<Arc<str>> = sent.keys().chain(removed).cloned().collect();
        for name in removed {
            self.ledger.held.remove(name);
        }
        // A refused version counts as held here, because the proxy would refuse it again.
        self.ledger.held.extend(sent.into_iter().map(|(name, version)| (name, Some(version))));
        self.ledger.seen = Some(generation);
        member.serves(generation, self.ledger.held.len(), settled.iter().map(|name| &**name), refused);
    }

    async fn said(&mut self) -> Result<Option<Said>, Status> {
        match self.from.next().await {
            None => Ok(None),
            Some(message) => Ok(message?.said),
        }
    }

    fn other(&self, message: FromProxy) -> Result<(), Status> {
        match message.said {
            Some(Said::Unreachable(report)) => self.unreachable(report),
            // A newer proxy may say more than is understood here.
            None => {}
            Some(Said::Hello(_) | Said::Held(_) | Said::Ack(_)) => {
                return Err(Status::invalid_argument("nothing to acknowledge"));
            }
        }
        Ok(())
    }

    fn unreachable(&self, report: Unreachable) {
        let Unreachable { kind, namespace, name, section, backend, endpoints } = report;
        let origin = Origin::new(bounded(kind), bounded(namespace), bounded(name)).section(bounded(section));
        let endpoints = endpoints.into_iter().take(ENDPOINTS);
        let endpoints = endpoints.filter_map(|one| Some((one.address.parse().ok()?, word(&one.reason)))).collect();
        self.hub.report(Report::Unreachable { origin, backend: bounded(backend), endpoints });
    }
}

/// A text of a proxy, which may have been taken over: of bounded length and on one line.
fn bounded(text: String) -> String {
    text.chars().filter(|char| !char.is_control()).take(TEXT).collect()
}

/// One word of it.
fn word(text: &str) -> String {
    text.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '_').take(40).collect()
}
