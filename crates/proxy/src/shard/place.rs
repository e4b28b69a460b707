//! The places of a worker's connections, and which of them are given up when others need room.
//!
//! Connections that have not sent a complete request go first: coming back costs their clients nothing, and connections without
//! requests must not keep others out. Connections that wait for another request go next. In both groups the oldest goes first, so
//! that a client can't stay by sending a byte now and then. A connection with a request in progress keeps its place.

use crate::limit::SILENCE_GRACE;
use crate::timer::Millis;

// No limit: the limit from the table, in the unit of the clock.
const GRACE: Millis = SILENCE_GRACE.as_millis() as Millis;

/// Maximum number of connections that make room at a time, and their share of those that could (nginx `ngx_drain_connections`:
/// 32, an eighth).
// No limit: a batch.
const MOST_AT_A_TIME: usize = 32;
// No limit: a batch.
const SHARE: usize = 8;

const NONE: u32 = u32::MAX;

/// The state of a connection with respect to making room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// No complete request has arrived: the connection is silent, in its TLS handshake, or in the middle of a head.
    Asking,
    /// Its last request is answered.
    Idle,
    /// A request is under way.
    Busy,
}

/// Why no connection makes room now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Room {
    /// Some were called and have not left yet.
    Called,
    /// The oldest may be called after this many milliseconds.
    After(Millis),
    /// All connections have requests under way.
    None,
}

/// The places of all connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Places {
    slots: Vec<Place>,
    free: Vec<u32>,
    asking: Queue,
    idle: Queue,
    /// Connections that were called and are still there.
    called: usize,
}

#[derive(Debug)]
struct Place {
    standing: Standing,
    since: Millis,
    /// Its neighbours in the queue of its standing.
    older: u32,
    newer: u32,
    /// The deadline of its task, see [`Timers::wake`](crate::timer::Timers::wake).
    deadline: Option<u32>,
    called: bool,
}

#[derive(Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
    len: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE, len: 0 }
    }
}

impl Places {
    /// Adds a place for a new connection, which has not sent a request yet.
    pub(crate) fn take(&mut self, now: Millis) -> u32 {
        let place =
            Place { standing: Standing::Busy, since: now, older: NONE, newer: NONE, deadline: None, called: false };
        let at = if let Some(at) = self.free.pop() {
            self.slots[at as usize] = place;
            at
        } else {
            self.slots.push(place);
            (self.slots.len() - 1) as u32
        };
        self.set(at, Standing::Asking, now);
        at
    }

    /// Sets the deadline of the task that serves a connection.
    pub(crate) fn set_deadline(&mut self, at: u32, deadline: u32) {
        self.slots[at as usize].deadline = Some(deadline);
    }

    /// Changes the state of a connection. A called one that now has a request stays, and another must go: returns `true` then.
    pub(crate) fn set(&mut self, at: u32, standing: Standing, now: Millis) -> bool {
        self.unlink(at);
        let place = &mut self.slots[at as usize];
        place.standing = standing;
        place.since = now;
        let stays = standing == Standing::Busy && std::mem::take(&mut place.called);
        self.called -= usize::from(stays);
        self.link(at);
        stays
    }

    /// Removes the place of a connection that has ended.
    pub(crate) fn give_up(&mut self, at: u32) {
        self.unlink(at);
        let place = &mut self.slots[at as usize];
        place.standing = Standing::Busy;
        self.called -= usize::from(std::mem::take(&mut place.called));
        self.free.push(at);
    }

    /// Whether a connection has to make room.
    pub(crate) fn is_called(&self, at: u32) -> bool {
        self.slots[at as usize].called
    }

    /// Calls some connections, starting with the oldest that have not sent a request. Passes the state and deadline of each to
    /// `call`.
    pub(crate) fn make_room(&mut self, now: Millis, mut call: impl FnMut(Standing, Option<u32>)) -> Room {
        if self.called > 0 {
            return Room::Called;
        }
        let share = |queue: &Queue| (queue.len / SHARE).clamp(1, MOST_AT_A_TIME);
        if self.asking.len > 0 {
            for _ in 0..share(&self.asking) {
                let wait = self.grace_left(self.asking.oldest, now);
                if wait > 0 {
                    // Idle ones wait as well: a burst of silent connections must not drive out clients that have sent requests.
                    return if self.called > 0 { Room::Called } else { Room::After(wait) };
                }
                self.call(self.asking.oldest, &mut call);
            }
        } else if self.idle.len > 0 {
            for _ in 0..share(&self.idle) {
                self.call(self.idle.oldest, &mut call);
            }
        } else {
            return Room::None;
        }
        Room::Called
    }

    /// How long a connection may remain silent.
    fn grace_left(&self, at: u32, now: Millis) -> Millis {
        (self.slots[at as usize].since + GRACE).saturating_sub(now)
    }

    /// Takes a connection out of its queue, so that it is called once.
    fn call(&mut self, at: u32, call: &mut impl FnMut(Standing, Option<u32>)) {
        self.unlink(at);
        let place = &mut self.slots[at as usize];
        place.called = true;
        self.called += 1;
        call(place.standing, place.deadline);
    }

    /// Appends it to the queue of its standing, unless it has none or was called.
    fn link(&mut self, at: u32) {
        let Place { standing, called, .. } = self.slots[at as usize];
        let Some(queue) = self.queue(standing).filter(|_| !called) else { return };
        let newest = std::mem::replace(&mut queue.newest, at);
        queue.len += 1;
        if newest == NONE {
            queue.oldest = at;
        } else {
            self.slots[newest as usize].newer = at;
        }
        let place = &mut self.slots[at as usize];
        (place.older, place.newer) = (newest, NONE);
    }

    fn unlink(&mut self, at: u32) {
        let Place { standing, older, newer, called, .. } = self.slots[at as usize];
        if called {
            return;
        }
        let Some(queue) = self.queue(standing) else { return };
        queue.len -= 1;
        if queue.oldest == at {
            queue.oldest = newer;
        }
        if queue.newest == at {
            queue.newest = older;
        }
        if older != NONE {
            self.slots[older as usize].newer = newer;
        }
        if newer != NONE {
            self.slots[newer as usize].older = older;
        }
    }

    fn queue(&mut self, standing: Standing) -> Option<&mut Queue> {
        match standing {
            Standing::Asking => Some(&mut self.asking),
            Standing::Idle => Some(&mut self.idle),
            Standing::Busy => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn called(places: &mut Places, now: Millis) -> (Room, Vec<u32>) {
        let mut called = Vec::new();
        let room = places.make_room(now, |_, deadline| called.extend(deadline));
        (room, called)
    }

    /// Each with its own number as deadline.
    fn places(standings: &[Standing]) -> Places {
        let mut places = Places::default();
        for (number, &standing) in (0..).zip(standings) {
            let at = places.take(0);
            places.set_deadline(at, number);
            places.set(at, standing, Millis::from(number));
        }
        places
    }

    #[test]
    fn connections_without_a_request_go_first_then_idle_ones_and_busy_ones_stay() {
        use Standing::{Asking, Busy, Idle};
        let mut places = places(&[Busy, Idle, Asking, Idle, Asking]);
        for expected in [2, 4, 1, 3] {
            assert_eq!(called(&mut places, 1000), (Room::Called, vec![expected]));
            assert_eq!(called(&mut places, 1000), (Room::Called, vec![]), "one is on its way");
            places.give_up(expected);
        }
        assert_eq!(called(&mut places, 1000), (Room::None, vec![]));
    }

    #[test]
    fn a_connection_has_a_moment_for_its_first_bytes() {
        let mut places = places(&[Standing::Asking]);
        assert_eq!(called(&mut places, 20), (Room::After(GRACE - 20), vec![]));
        assert_eq!(called(&mut places, GRACE), (Room::Called, vec![0]));
    }

    #[test]
    fn a_request_that_comes_at_the_last_moment_keeps_its_place() {
        let mut places = places(&[Standing::Asking, Standing::Asking]);
        assert_eq!(called(&mut places, 1000), (Room::Called, vec![0]));
        assert!(places.set(0, Standing::Busy, 1000), "another one has to go");
        assert!(!places.is_called(0));
        assert_eq!(called(&mut places, 1000), (Room::Called, vec![1]));
    }

    #[test]
    fn many_go_a_share_at_a_time() {
        let mut places = places(&[Standing::Idle; 400]);
        assert_eq!(called(&mut places, 1000).1, (0..32).collect::<Vec<_>>());
    }

    proptest! {
        /// The queues agree with looking through all places.
        #[test]
        fn the_oldest_is_called_whatever_happened_before(steps in proptest::collection::vec((0u8..6, 0usize..12), 1..200)) {
            let mut places = Places::default();
            let mut model: Vec<(u32, Standing, Millis, bool)> = Vec::new();
            for (now, (step, which)) in (0..).zip(steps).map(|(step, rest)| (step * 100, rest)) {
                let chosen = (!model.is_empty()).then(|| which % model.len());
                match (step, chosen) {
                    (0, _) | (_, None) => {
                        let at = places.take(now);
                        places.set_deadline(at, at);
                        model.push((at, Standing::Asking, now, false));
                    }
                    (1, Some(chosen)) => places.give_up(model.remove(chosen).0),
                    (5, _) => {
                        let (room, went) = called(&mut places, now);
                        let pending = model.iter().any(|one| one.3);
                        let oldest = |standing| {
                            model.iter().filter(|one| one.1 == standing).min_by_key(|one| one.2).map(|one| one.0)
                        };
                        let young = |at: &u32| model.iter().any(|one| one.0 == *at && now - one.2 < GRACE);
                        match oldest(Standing::Asking).or(oldest(Standing::Idle)).filter(|at| {
                            oldest(Standing::Asking).is_none() || !young(at)
                        }) {
                            _ if pending => prop_assert_eq!((room, went), (Room::Called, vec![])),
                            Some(first) => {
                                prop_assert_eq!(went.first(), Some(&first));
                                model.iter_mut().filter(|one| went.contains(&one.0)).for_each(|one| one.3 = true);
                            }
                            None => prop_assert!(went.is_empty() && room != Room::Called),
                        }
                    }
                    (step, Some(chosen)) => {
                        let standing = [Standing::Asking, Standing::Idle, Standing::Busy][usize::from(step) - 2];
                        let one = &mut model[chosen];
                        let stays = places.set(one.0, standing, now);
                        prop_assert_eq!(stays, one.3 && standing == Standing::Busy);
                        *one = (one.0, standing, now, one.3 && !stays);
                    }
                }
            }
        }
    }
}
