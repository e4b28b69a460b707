//! Taking over the sockets of the previous process, and handing them to the next: `--handover-socket`.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use fairway_proxy::admin::Lifecycle;
use fairway_proxy::{HandoverPlace, Predecessor, Publisher, Taking};
use tokio::sync::Mutex;
use tracing::{info, warn};

/// Takes sockets over and hands them on.
pub(crate) struct Handover {
    place: HandoverPlace,
    follows: bool,
    turn: Mutex<Turn>,
}

/// The state of the previous process.
enum Turn {
    /// It serves.
    Found(Predecessor),
    /// It serves, and this process may serve too.
    Taking(Taking),
    /// There is none, or it serves no more. The connection tells it that this process is still serving.
    Over { _connection: Option<Taking> },
}

impl Handover {
    /// Looks for a previous process; `None` without the flag.
    ///
    /// # Errors
    /// If the process found there can't be trusted or asked.
    pub(crate) fn begin(matches: &ArgMatches) -> anyhow::Result<Option<Self>> {
        let Some(place) = matches.get_one::<PathBuf>("handover-socket") else { return Ok(None) };
        let place = HandoverPlace::new(place.clone());
        let turn = match place.predecessor()? {
            Some(predecessor) => Turn::Found(predecessor),
            None => Turn::Over { _connection: None },
        };
        Ok(Some(Self { place, follows: matches!(turn, Turn::Found(_)), turn: Mutex::new(turn) }))
    }

    /// Whether another process had the ports at the start.
    pub(crate) fn follows(&self) -> bool {
        self.follows
    }

    /// The folder in which the socket is created.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.place.folder()
    }

    /// Tells the previous process that this one exists, so that its readiness isn't taken for that of this process.
    pub(crate) async fn greet(&self) {
        let mut turn = self.turn.lock().await;
        *turn = match std::mem::replace(&mut *turn, Turn::Over { _connection: None }) {
            Turn::Found(predecessor) => match predecessor.greet().await {
                Ok(taking) => Turn::Taking(taking),
                Err(error) => {
                    warn!(%error, "the previous process hands nothing over: its ports become free when it exits");
                    return;
                }
            },
            other => other,
        };
    }

    /// Takes the previous process's sockets as they are now; `false` if there are none.
    pub(crate) async fn take(&self, publisher: &Publisher) -> bool {
        let mut turn = self.turn.lock().await;
        let Turn::Taking(taking) = &mut *turn else { return false };
        match taking.take(publisher).await {
            Ok(sockets) => {
                info!(sockets, "taking over from another process");
                true
            }
            Err(error) => {
                warn!(%error, "the previous process hands nothing over: its ports become free when it exits");
                *turn = Turn::Over { _connection: None };
                false
            }
        }
    }

    /// Makes this process the only one that accepts, and offers the sockets to the next one.
    pub(crate) async fn finish(&self, publisher: Publisher, lifecycle: Lifecycle) {
        let mut turn = self.turn.lock().await;
        if let Turn::Taking(taking) = std::mem::replace(&mut *turn, Turn::Over { _connection: None }) {
            match taking.finish(&publisher).await {
                Ok(connection) => *turn = Turn::Over { _connection: Some(connection) },
                // It has ended; its sockets belong to this process anyway.
                Err(error) => {
                    warn!(%error, "the previous process did not confirm that it stopped accepting connections");
                }
            }
        }
        tokio::spawn(publisher.offer(self.place.clone(), lifecycle));
    }
}
