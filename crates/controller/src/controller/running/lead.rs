//! What only the replica that leads does, and how it stops: status, the addresses of Nodes, the way out.

use std::time::Duration;

use tokio::time::Instant;

use super::{Job, Running};
use crate::config::AddressSource;
use crate::{nodes, successor};

/// How long taking our addresses back and giving the Lease back may last.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// On the way out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Working,
    /// Asking whether another replica follows.
    Asking,
    TakingBack,
    Resigning,
    Left,
}

impl Running {
    fn leads(&self) -> bool {
        self.term.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Whether this replica is the one that writes status, now.
    fn writes_status(&self) -> bool {
        matches!(self.stage, Stage::Working | Stage::TakingBack) && self.config.status.update && self.leads()
    }

    /// Begins the writes of status that are due, as long as we may, and breaks off all when we may no more. Resigns when the last
    /// address is taken back, or when nothing can be any more.
    pub(super) fn write(&mut self) {
        let leads = self.writes_status();
        if leads != self.led {
            self.led = leads;
            if leads {
                self.status.check();
                self.look_up_nodes();
            } else {
                self.abandon_writes();
            }
        }
        if leads && self.translator.is_some() {
            while let Some(write) = self.status.next() {
                let (api, key) = (self.api.clone(), write.key.clone());
                let task = self.jobs.spawn(async move {
                    let result = write.run(&api).await;
                    Job::Written(write, result)
                });
                self.writes.insert(key, task);
            }
        }
        if self.stage == Stage::TakingBack && (!leads || self.status.is_idle()) {
            self.resign();
        }
    }

    /// Breaks off the writes that are under way. Whether the API server has carried them out is not known; what is to be written
    /// then, the watch tells.
    pub(super) fn abandon_writes(&mut self) {
        for (key, task) in self.writes.drain() {
            task.abort();
            self.status.abandoned(key);
        }
    }

    /// Begins the way out: take addresses back if nobody follows, then give the Lease back.
    pub(in crate::controller) fn leave(&mut self) {
        if self.stage != Stage::Working {
            return;
        }
        self.leave_until = Instant::now() + LEAVE_LIMIT;
        match self.config.pod.clone() {
            Some(pod) if self.config.status.update_on_shutdown && self.writes_status() => {
                self.stage = Stage::Asking;
                let api = self.api.clone();
                self.jobs.spawn(async move { Job::Last(successor::is_last(&api, &pod).await) });
            }
            _ => self.resign(),
        }
    }

    /// Gives the Lease back, which another replica may take at once. So whatever we still wanted to write has to be over: not
    /// before it is known that there is nothing to take back ([`Stage::Working`], [`Stage::Asking`]), or that it is taken back
    /// ([`Stage::TakingBack`]). Writes under way are broken off. A second call does nothing.
    pub(super) fn resign(&mut self) {
        if matches!(self.stage, Stage::Resigning | Stage::Left) {
            return;
        }
        self.abandon_writes();
        self.resign.take();
        self.stage = match self.candidate.take() {
            Some(candidate) => {
                self.jobs.spawn(async move {
                    // However it ended, it is over.
                    let _ = candidate.await;
                    Job::Resigned
                });
                Stage::Resigning
            }
            None => Stage::Left,
        };
    }

    /// Whether the way out is at its end.
    pub(in crate::controller) fn has_left(&self) -> bool {
        self.stage == Stage::Left
    }

    /// Begins to look up the addresses of the Nodes of our pods, if status is to show those, we write it, and no look-up is under
    /// way.
    pub(super) fn look_up_nodes(&mut self) {
        let AddressSource::Nodes { internal } = self.config.status.addresses else { return };
        let (true, false, Some(pod)) = (self.writes_status(), self.looking_up_nodes, self.config.pod.clone()) else {
            return;
        };
        self.looking_up_nodes = true;
        let api = self.api.clone();
        self.jobs.spawn(async move { Job::Nodes(nodes::addresses(&api, &pod, internal).await) });
    }
}
