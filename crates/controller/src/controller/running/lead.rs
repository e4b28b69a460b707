//! The tasks of the leading replica, and how it stops: status, the addresses of Nodes, shutdown.

use std::time::Duration;

use fairway_translate::objects::Kind;
use tokio::time::Instant;

use super::{Job, Running};
use crate::config::{AddressSource, StatusWriting};
use crate::{nodes, successor};

/// Time limit for removing our addresses and releasing the Lease.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// The stages of shutdown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Working,
    /// Finding out whether another replica follows.
    Asking,
    TakingBack,
    Resigning,
    Left,
}

impl Running {
    pub(super) fn leads(&self) -> bool {
        self.term.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Whether this replica currently writes status.
    fn writes_status(&self) -> bool {
        matches!(self.stage, Stage::Working | Stage::TakingBack) && self.config.status.is_written() && self.leads()
    }

    /// Starts the due status writes while we lead, and aborts all of them when we no longer do. Resigns when the last
    /// address has been removed, or when none can be removed any more.
    pub(super) fn write(&mut self) {
        let leads = self.writes_status();
        if leads != self.led {
            self.led = leads;
            if leads {
                self.status.check();
                self.gateways.check();
                self.making.check();
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
            // These wait while the first configuration, or a part of it, is on its way to the workers.
            if *self.ready.borrow() && self.stage == Stage::Working {
                self.write_gateways();
                self.make();
            }
        }
        if self.stage == Stage::TakingBack && (!leads || self.status.is_idle()) {
            self.resign();
        }
    }

    /// Starts the due status writes of the Gateway API.
    fn write_gateways(&mut self) {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        while let Some(write) = self.gateways.next(&now) {
            let (api, key) = (self.api.clone(), write.key.clone());
            let task = self.jobs.spawn(async move {
                let result = write.run(&api).await;
                Job::GatewayWritten(write, result)
            });
            self.writes.insert(key, task);
        }
    }

    /// Starts the due writes of objects that are created for Gateways and XBackends.
    fn make(&mut self) {
        while let Some(write) = self.making.next(|key| self.store.identity(key).cloned()) {
            let (api, key) = (self.api.clone(), write.key.clone());
            let task = self.jobs.spawn(async move {
                let result = write.run(&api).await;
                Job::Made(write, result)
            });
            self.writes.insert(key, task);
        }
    }

    /// Aborts the writes in progress. It is unknown whether the API server has carried them out; the watch will tell
    /// what remains to be written.
    pub(super) fn abandon_writes(&mut self) {
        for (key, task) in self.writes.drain() {
            task.abort();
            let backlog = if key.kind.is_of_gateway_api() {
                &mut self.gateways.backlog
            } else if matches!(key.kind, Kind::Service | Kind::EndpointSlice) {
                &mut self.making.backlog
            } else {
                &mut self.status.backlog
            };
            backlog.abandoned(key);
        }
    }

    /// Starts the shutdown: removes addresses if no replica follows, then releases the Lease.
    pub(in crate::controller) fn leave(&mut self) {
        if self.stage != Stage::Working {
            return;
        }
        self.leave_until = Instant::now() + LEAVE_LIMIT;
        match self.config.pod.clone() {
            Some(pod) if self.config.status.writing == StatusWriting::RemoveAtEnd && self.writes_status() => {
                self.stage = Stage::Asking;
                let api = self.api.clone();
                self.jobs.spawn(async move { Job::Last(successor::is_last(&api, &pod).await) });
            }
            _ => self.resign(),
        }
    }

    /// Releases the Lease, which another replica may take at once. All our writes must therefore be over: it must be
    /// known that there is nothing to remove ([`Stage::Working`], [`Stage::Asking`]), or everything must have been
    /// removed ([`Stage::TakingBack`]). Aborts writes in progress. A second call does nothing.
    pub(super) fn resign(&mut self) {
        if matches!(self.stage, Stage::Resigning | Stage::Left) {
            return;
        }
        self.abandon_writes();
        self.resign.take();
        self.stage = match self.candidate.take() {
            Some(candidate) => {
                self.jobs.spawn(async move {
                    // The result doesn't matter.
                    let _ = candidate.await;
                    Job::Resigned
                });
                Stage::Resigning
            }
            None => Stage::Left,
        };
    }

    /// Whether the shutdown is complete.
    pub(in crate::controller) fn has_left(&self) -> bool {
        self.stage == Stage::Left
    }

    /// Starts a look-up of the addresses of our pods' Nodes, if status shows those, we write it, and no look-up is in
    /// progress.
    pub(super) fn look_up_nodes(&mut self) {
        let AddressSource::Nodes { pods, internal } = &self.config.status.addresses else { return };
        let (serving, internal) = (pods.clone(), *internal);
        let (true, false, Some(pod)) = (self.writes_status(), self.looking_up_nodes, self.config.pod.clone()) else {
            return;
        };
        self.looking_up_nodes = true;
        let api = self.api.clone();
        self.jobs.spawn(async move { Job::Nodes(nodes::addresses(&api, &pod, serving, internal).await) });
    }
}
