//! Carries snapshots as a proxy would receive them, without a connection, and rewrites messages as another release would send them: for
//! tests of whatever makes snapshots, and of connected processes.

use std::collections::BTreeMap;

use fairway_model::Snapshot;
use prost::Message as _;
use serde_json::Value;

use crate::message::FromController;
use crate::replica::Replica;
use crate::resource::{Encoded, Version, resources};
use crate::round::{Cut, Gather};

/// Writes a snapshot as a controller sends it to a new proxy, and reads it as the proxy does.
///
/// # Errors
/// If some resource can't be written or understood: the reason, with its name.
pub fn carried(snapshot: &Snapshot) -> Result<Snapshot, String> {
    let delta = Snapshot::diff(&Snapshot::default(), snapshot);
    let encoded = delta.upserts.iter().map(Encoded::new).collect::<Result<Vec<_>, _>>();
    let encoded = encoded.map_err(|error| error.to_string())?;
    let mut replica = Replica::default();
    for message in Cut::new(1, encoded.into_iter(), std::iter::empty()) {
        let message = FromController::decode(&*message.encode_to_vec()).map_err(|error| error.to_string())?;
        if let Some(mut round) = replica.take(message).map_err(|error| error.to_string())? {
            let delta = std::mem::take(&mut round.delta);
            replica.commit(round);
            return match replica.refused().first_key_value() {
                Some((name, reason)) => Err(format!("{name}: {reason}")),
                None => Ok(Snapshot::default().apply(delta)),
            };
        }
    }
    Err("the round has no end".to_owned())
}

/// The body of each resource of a snapshot as a controller sends it, by name.
///
/// # Errors
/// If some resource can't be written.
pub fn bodies(snapshot: &Snapshot) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let encoded = resources(snapshot).into_iter().map(|resource| {
        let Encoded { name, body, .. } = Encoded::new(&resource).map_err(|error| error.to_string())?;
        Ok((name.as_ref().to_owned(), body))
    });
    encoded.collect()
}

/// A controller's message with other bodies: `edit` gets the name and the body of each resource, and returns whether it has changed the
/// body.
///
/// # Errors If it is not one, or a resource in it is in several pieces, is a patch of an earlier form, or becomes too large.
pub fn rewritten(message: &[u8], edit: impl Fn(&str, &mut Value) -> bool) -> Result<Vec<u8>, String> {
    let mut message = FromController::decode(message).map_err(|error| error.to_string())?;
    for piece in &mut message.pieces {
        let whole = Gather::default().take(piece.clone()).map_err(|error| error.to_string())?;
        let whole = whole.filter(|whole| whole.base.is_none()).ok_or_else(|| format!("{} is not whole", piece.name))?;
        let mut body = serde_json::from_slice(&whole.body().map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?;
        if !edit(&piece.name, &mut body) {
            continue;
        }
        let body = body.to_string().into_bytes();
        let encoded = Encoded { name: piece.name.as_str().into(), version: Version::of(&body), body, base: None };
        let mut cut = Cut::new(message.nonce, std::iter::once(encoded), std::iter::empty()).flat_map(|cut| cut.pieces);
        *piece = cut.next().filter(|piece| !piece.more).ok_or_else(|| format!("{} is too large", piece.name))?;
    }
    Ok(message.encode_to_vec())
}
