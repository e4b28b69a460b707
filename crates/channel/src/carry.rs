//! What a proxy would hold of a snapshot, without a connection: for tests of whatever makes snapshots.

use std::collections::BTreeMap;

use fairway_model::Snapshot;
use prost::Message as _;

use crate::message::FromController;
use crate::replica::Replica;
use crate::resource::{Encoded, resources};
use crate::round::Cut;

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
