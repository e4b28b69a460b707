//! The sockets of the process before, and those for the process after: `--handover-socket`.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use fairway_proxy::admin::Lifecycle;
use fairway_proxy::{HandoverPlace, Predecessor, Publisher, Taking};
use tokio::sync::Mutex;
use tracing::{info, warn};

/// A process that takes sockets over and hands them on.
pub(crate) struct Handover {
    place: HandoverPlace,
    follows: bool,
    turn: Mutex<Turn>,
}

/// How far the process before has gone.
enum Turn {
    /// It serves.
    Found(Predecessor),
    /// It serves, and so do we perhaps.
    Taking(Taking),
    /// There is none, or only we serve. The connection tells it that we still do.
    Over { _connection: Option<Taking> },
}

impl Handover {
    /// Looks for a process to follow; `None` without the flag.
    ///
    /// # Errors
    /// If whoever is there can't be trusted, or asked.
    pub(crate) fn begin(matches: &ArgMatches) -> anyhow::Result<Option<Self>> {
        let Some(place) = matches.get_one::<PathBuf>("handover-socket") else { return Ok(None) };
        let place = HandoverPlace::new(place.clone());
        let turn = match place.predecessor()? {
            Some(predecessor) => Turn::Found(predecessor),
            None => Turn::Over { _connection: None },
        };
        Ok(Some(Self { place, follows: matches!(turn, Turn::Found(_)), turn: Mutex::new(turn) }))
    }

    /// Whether another process had the ports at the beginning.
    pub(crate) fn follows(&self) -> bool {
        self.follows
    }

    /// The folder in which a socket is made.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.place.folder()
    }

    /// Tells the process before that there is one after it, so that nobody takes its readiness for that of this one.
    pub(crate) async fn greet(&self) {
        let mut turn = self.turn.lock().await;
        *turn = match std::mem::replace(&mut *turn, Turn::Over { _connection: None }) {
            Turn::Found(predecessor) => match predecessor.greet().await {
                Ok(taking) => Turn::Taking(taking),
                Err(error) => {
                    warn!(%error, "the process before hands nothing over: its ports are free once it has ended");
                    return;
                }
            },
            other => other,
        };
    }

    /// Takes the sockets of the process before as they are now; `false` if there are none.
    pub(crate) async fn take(&self, publisher: &Publisher) -> bool {
        let mut turn = self.turn.lock().await;
        let Turn::Taking(taking) = &mut *turn else { return false };
        match taking.take(publisher).await {
            Ok(sockets) => {
                info!(sockets, "taking over from another process");
                true
            }
            Err(error) => {
                warn!(%error, "the process before hands nothing over: its ports are free once it has ended");
                *turn = Turn::Over { _connection: None };
                false
            }
        }
    }

    /// Makes this process the only one that accepts, and lets the next one come.
    pub(crate) async fn finish(&self, publisher: Publisher, lifecycle: Lifecycle) {
        let mut turn = self.turn.lock().await;
        if let Turn::Taking(taking) = std::mem::replace(&mut *turn, Turn::Over { _connection: None }) {
            match taking.finish(&publisher).await {
                Ok(connection) => *turn = Turn::Over { _connection: Some(connection) },
                // It has ended: its sockets are ours all the same.
                Err(error) => warn!(%error, "the process before did not say that it accepts nothing more"),
            }
        }
        tokio::spawn(publisher.offer(self.place.clone(), lifecycle));
    }
}
