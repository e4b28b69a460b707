//! What a proxy holds, by the names and versions of the channel.
//!
//! Invariant: a resource that can't be understood changes nothing: its last good form stays. A host without one answers 503, because
//! its requests would otherwise go to a wider host, without the restrictions of this one.

use std::collections::BTreeMap;

use bytes::Bytes;
use fairway_model::packing::{MANY, pack};
use fairway_model::{Action, Delta, Host, HostPattern, Origin, PathMatch, Resource, Respond, Route, TableName};
use tracing::{error, warn};

use crate::limit::{HELD, MESSAGE, REFUSALS, RESOURCES, TEXT};
use crate::message::{Ack, FromController, HeldList, HeldOne, Refusal};
use crate::resource::{HOST, SETTINGS, Unreadable, Version, patched, read};
use crate::round::{Gather, Gathered, Violation};

/// What a proxy holds. It outlives the connection that it came over.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    held: BTreeMap<Box<str>, Held>,
    refused: BTreeMap<Box<str>, String>,
    arriving: Arriving,
    /// Whether a patch did not fit what is held: a controller of another build writes resources differently.
    misfits: bool,
}

#[derive(Debug)]
struct Held {
    /// `None` if what was sent is refused and there is no earlier form.
    version: Option<Version>,
    /// The form in force, which the next form may be a patch of: a reference to the snapshot's. `None` for a stand-in, which has no form.
    resource: Option<Resource>,
}

/// A round of which not all messages have arrived.
#[derive(Debug, Default)]
struct Arriving {
    nonce: Option<u64>,
    gather: Gather,
    round: Round,
}

/// A round, to be applied as a whole.
#[derive(Debug, Default)]
pub(crate) struct Round {
    nonce: u64,
    /// The change.
    pub(crate) delta: Delta,
    held: Vec<(Box<str>, Held)>,
    gone: Vec<Box<str>>,
    refused: Vec<(Box<str>, String)>,
}

impl Replica {
    /// Number of the resources that are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// The resources that are refused, and why.
    pub(crate) fn refused(&self) -> &BTreeMap<Box<str>, String> {
        &self.refused
    }

    /// The version of each resource.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&str, Option<Version>)> {
        self.held.iter().map(|(name, held)| (&**name, held.version))
    }

    /// Forgets the messages of a round that did not arrive as a whole, because the connection ended.
    pub(crate) fn reconnect(&mut self) {
        self.arriving = Arriving::default();
    }

    /// Whether a controller may send what differs from a resource that is held, instead of all of it.
    pub(crate) fn takes_patches(&self) -> bool {
        !self.misfits
    }

    /// What a controller needs to know to send only what differs.
    pub(crate) fn inventory(&self) -> Vec<HeldList> {
        let (mut lists, mut list, mut size) = (Vec::new(), HeldList::default(), 0);
        for (name, held) in &self.held {
            if list.held.len() >= HELD || size >= MESSAGE {
                lists.push(std::mem::take(&mut list));
                size = 0;
            }
            size += name.len() + 32;
            list.held.push(HeldOne {
                name: name.as_ref().to_owned(),
                version: held.version.map(|version| Bytes::copy_from_slice(version.as_bytes())).unwrap_or_default(),
            });
        }
        list.last = true;
        lists.push(list);
        lists
    }

    /// Takes a message. Returns the round that it completes; [`commit`](Self::commit) is due once that is in effect.
    pub(crate) fn take(&mut self, message: FromController) -> Result<Option<Round>, Violation> {
        if *self.arriving.nonce.get_or_insert(message.nonce) != message.nonce {
            return Err(Violation("a round ends in the middle"));
        }
        for piece in message.pieces {
            if let Some(gathered) = self.arriving.gather.take(piece)? {
                self.resource(gathered)?;
            }
        }
        for name in message.removals {
            let name = name.into_boxed_str();
            if let Some(held) = self.held.get(&name) {
                self.arriving.round.delta.removals.extend(held.resource.as_ref().and_then(Resource::name));
            }
            self.arriving.round.gone.push(name);
        }
        if !message.last {
            return Ok(None);
        }
        if self.arriving.gather.is_open() {
            return Err(Violation("a round ends in the middle of a resource"));
        }
        let Arriving { mut round, .. } = std::mem::take(&mut self.arriving);
        round.nonce = message.nonce;
        Ok(Some(round))
    }

    fn resource(&mut self, gathered: Gathered) -> Result<(), Violation> {
        let round = &mut self.arriving.round;
        if self.held.len() + round.held.len() >= RESOURCES {
            return Err(Violation("there are more resources than any cluster has"));
        }
        let (name, version) = (gathered.name.clone().into_boxed_str(), gathered.version);
        let base = gathered.base;
        let body = match base {
            None => gathered.body(),
            Some(base) => {
                let old = self.held.get(&name).and_then(|held| held.resource.as_ref()).ok_or(Unreadable::Patch);
                let body = old.and_then(|old| patched(old, base, &gathered.body()?, version));
                if body.is_err() {
                    // The next connection begins without patches.
                    self.misfits = true;
                    return Err(Violation("a patch is none of what is held"));
                }
                body
            }
        };
        match body.and_then(|body| read(&name, version, &body)) {
            Ok(resource) => {
                round.delta.upserts.push(resource.clone());
                round.held.push((name, Held { version: Some(version), resource: Some(resource) }));
            }
            Err(reason) => {
                let reason: String = reason.to_string().chars().take(TEXT).collect();
                warn!(resource = %name, %version, reason, "a resource can't be understood: its last good form stays");
                if !self.held.contains_key(&name) {
                    if *name == *SETTINGS {
                        error!(
                            reason,
                            "nothing can be served without the settings: run a proxy of the controller's version"
                        );
                        return Err(Violation("the settings can't be understood"));
                    }
                    let stand_in = stand_in(&name);
                    round.delta.upserts.extend(stand_in.clone());
                    round.held.push((name.clone(), Held { version: None, resource: stand_in }));
                }
                round.refused.push((name, reason));
            }
        }
        Ok(())
    }

    /// Notes that a round is in effect. Returns the acknowledgements for the controller, in messages of bounded size.
    pub(crate) fn commit(&mut self, round: Round) -> Vec<Ack> {
        let Round { nonce, held, gone, refused, .. } = round;
        for name in gone {
            self.refused.remove(&name);
            self.held.remove(&name);
        }
        let before = self.held.len();
        for (name, held) in held {
            self.refused.remove(&name);
            self.held.insert(name, held);
        }
        if self.held.len() >= before + MANY {
            pack(&mut self.held);
        }
        let (mut acks, mut told, mut size) = (Vec::new(), Vec::new(), 0);
        for (number, (name, reason)) in refused.into_iter().enumerate() {
            if size >= MESSAGE {
                acks.push(Ack { nonce, refused: std::mem::take(&mut told), more: true });
                size = 0;
            }
            let known = if number < REFUSALS { reason.clone() } else { String::new() };
            size += name.len() + known.len() + 16;
            told.push(Refusal { name: name.as_ref().to_owned(), reason: known });
            self.refused.insert(name, reason);
        }
        acks.push(Ack { nonce, refused: told, more: false });
        acks
    }
}

/// Stands in for a host that can't be understood and has no earlier form. A missing resource of another kind has a defined meaning: its
/// routes answer 503, too.
pub(crate) fn stand_in(name: &str) -> Option<Resource> {
    let (table, pattern) = name.strip_prefix(HOST)?.split_once(' ')?;
    let everything = PathMatch::prefix("/").ok()?;
    let route = Route::new(Origin::built_in("refused"), everything, Action::Respond(Respond::page(503)));
    Some(Host::new(TableName::from(table), HostPattern::parse(pattern).ok()?, vec![route]).into())
}

#[cfg(test)]
pub(crate) mod tests;
