//! Deals shares of the limits for clients to the proxies of a controller.
//!
//! Invariant: what the proxies may use of a limit together never exceeds what they have together in an even division. A share is lowered
//! first, and what that frees is dealt only when the proxy has confirmed that it keeps to less. One that is silent counts with its even
//! share at least, before it goes back to that by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use fairway_model::{Demand, DemandReport, FLOOR, LimitKey, LimitKind, LimitPart, ShareDeal, divide};

use crate::limit::{DEALT, DEALT_CELLS, PROXIES, SHARES};

/// How old the last confirmed deal may be before its proxy counts with its even share. It goes back to that after four seconds; others give up
/// what is above theirs within two seconds of their last report.
// No limit: what keeps the sum of all shares.
const SILENCE: Duration = Duration::from_secs(1);

/// How long a proxy that has gone may still use what was dealt to it: two seconds, and what it takes to hear of its end.
// No limit: what keeps the sum of all shares.
const AFTERLIFE: Duration = Duration::from_millis(2500);

/// How long nobody is close to a limit before all shares are even again.
// No limit: what keeps shares from coming and going.
const QUIET: Duration = Duration::from_secs(2);

/// The pause between looking through everything.
// No limit: what it costs.
const SWEEP: Duration = Duration::from_millis(500);

/// More limits than this are not divided again before [`REST`] has passed, however many proxies report them meanwhile.
// No limit: what it costs.
const MANY: usize = 256;

/// The pause between two times that many limits are divided.
// No limit: what it costs.
const REST: Duration = Duration::from_millis(100);

/// Changes that are smaller than this part of a share are not worth a message.
// No limit: what it costs.
const STEP: u64 = 64;

/// Deals without a confirmation of which the time is known.
// No limit: what is remembered.
const UNCONFIRMED: usize = 256;

/// Deals shares. Times are those since any fixed moment.
#[derive(Debug)]
pub struct Dealer {
    /// Among how many proxies limits are divided. Nothing is dealt before that is known.
    replicas: Option<NonZeroU32>,
    members: BTreeMap<u64, Player>,
    rows: HashMap<LimitKey, Row>,
    /// Limits whose shares are to be divided again.
    dirty: BTreeSet<LimitKey>,
    swept: Duration,
    /// When limits were last divided.
    settled: Duration,
}

/// A proxy.
#[derive(Debug, Default)]
struct Player {
    /// The last deal.
    number: u64,
    /// The last report.
    heard: u64,
    /// Whether it knows that shares are dealt. It reports nothing before.
    knows: bool,
    unanswered: bool,
    /// When deals were made that are not confirmed.
    sent: VecDeque<(u64, Duration)>,
    /// Limits of which the proxy is to be told.
    news: BTreeSet<LimitKey>,
    /// Limits that it has a demand for, or whose share is not confirmed.
    active: HashSet<LimitKey>,
    /// Limits of which it has a share that is not the even one.
    told: usize,
    /// When the last deal was made that is confirmed, or the first one was to be made.
    alive: Duration,
    is_lost: bool,
    gone: Option<Duration>,
}

/// A limit.
#[derive(Debug)]
struct Row {
    cells: BTreeMap<u64, Cell>,
    /// The time in which the whole burst comes back.
    span: Duration,
    /// When somebody was last close to the limit.
    warm: Duration,
    /// Since when nobody is, and all shares are even and confirmed.
    even: Option<Duration>,
}

/// What a proxy has of a limit.
#[derive(Clone, Copy, Debug)]
struct Cell {
    now: LimitPart,
    lately: LimitPart,
    /// In use, whatever the share is.
    used: LimitPart,
    /// The share; `None` for the even one.
    share: Option<LimitPart>,
    /// The deal that told it; the largest number until it is told.
    number: u64,
    /// What it may use at most, until it has confirmed its share.
    held: LimitPart,
}

impl Default for Dealer {
    fn default() -> Self {
        let (members, rows, dirty) = Default::default();
        let (swept, settled) = Default::default();
        Self { replicas: None, members, rows, dirty, swept, settled }
    }
}

impl Cell {
    fn new(even: LimitPart) -> Self {
        let none = LimitPart::default();
        Self { now: none, lately: none, used: none, share: None, number: 0, held: even }
    }

    fn is_active(&self) -> bool {
        let none = LimitPart::default();
        self.now > none
            || self.lately > none
            || self.used > none
            || self.number == u64::MAX
            || self.share.is_some_and(|share| self.held > share)
    }
}

impl Dealer {
    /// Number of the limits whose shares are dealt.
    pub fn limits(&self) -> usize {
        self.rows.len()
    }

    /// Sets among how many proxies limits are divided, those of other controllers included.
    pub fn resize(&mut self, replicas: NonZeroU32) {
        if self.replicas == Some(replicas) {
            return;
        }
        self.replicas = Some(replicas);
        let even = LimitPart::even(replicas);
        for cell in self.rows.values_mut().flat_map(|row| row.cells.values_mut()) {
            if cell.share.is_none() {
                cell.held = even.max(cell.used.min(cell.held));
            }
        }
        self.dirty.extend(self.rows.keys().cloned());
    }

    fn even(&self) -> LimitPart {
        self.replicas.map_or(LimitPart::WHOLE, LimitPart::even)
    }

    /// Adds a proxy, which has even shares. Where there are too many, it stays without others.
    pub fn join(&mut self, id: u64) {
        if self.members.len() >= 2 * PROXIES || self.rows.len() * (self.members.len() + 1) > DEALT_CELLS {
            return;
        }
        let even = self.even();
        for row in self.rows.values_mut() {
            row.cells.insert(id, Cell::new(even));
        }
        self.members.insert(id, Player::default());
        self.dirty.extend(self.rows.keys().cloned());
    }

    /// Notes that a proxy has gone. It is remembered only if it may go on with more than its even share.
    pub fn leave(&mut self, id: u64, at: Duration) {
        let even = self.even();
        if self.rows.values().all(|row| row.cells.get(&id).is_none_or(|cell| cell.share.is_none() && cell.held <= even))
        {
            self.members.remove(&id);
            for row in self.rows.values_mut() {
                row.cells.remove(&id);
            }
        } else if let Some(member) = self.members.get_mut(&id) {
            (member.gone, member.news, member.sent) = (Some(at), BTreeSet::new(), VecDeque::new());
        }
        self.dirty.extend(self.rows.keys().cloned());
    }

    /// Takes what a proxy says.
    pub fn report(&mut self, id: u64, report: DemandReport, at: Duration) {
        let even = self.even();
        let Self { members, rows, dirty, replicas, .. } = self;
        let several = several(members) && replicas.is_some();
        let room = DEALT.min(DEALT_CELLS / members.len().max(1));
        let ids: Vec<u64> = members.keys().copied().collect();
        let Some(member) = members.get_mut(&id).filter(|member| member.gone.is_none()) else { return };
        let is_first = member.heard == 0;
        (member.heard, member.unanswered) = (report.number, true);
        // It can't have what was not sent.
        let applied = report.applied.min(member.number);
        while let Some((_, sent)) = member.sent.pop_front_if(|(number, _)| *number <= applied) {
            member.alive = sent;
        }
        // What a report has no room for stays as it was.
        let mut touched = if report.cut { HashSet::new() } else { std::mem::take(&mut member.active) };
        for key in &touched {
            if let Some(cell) = rows.get_mut(key).and_then(|row| row.cells.get_mut(&id)) {
                (cell.now, cell.lately, cell.used) = Default::default();
            }
        }
        for Demand { key, now, lately, held, span } in report.demands.into_iter().take(SHARES) {
            if !rows.contains_key(&key) {
                if !several || rows.len() >= room {
                    continue;
                }
                let cells = ids.iter().map(|id| (*id, Cell::new(even))).collect();
                rows.insert(key.clone(), Row { cells, span, warm: at, even: None });
            }
            let Some(row) = rows.get_mut(&key) else { continue };
            row.span = row.span.max(span);
            if let Some(cell) = row.cells.get_mut(&id) {
                (cell.now, cell.lately, cell.used) = (now, lately, held);
                // What goes on from an earlier connection counts.
                if is_first && key.kind == LimitKind::InProgress {
                    cell.held = cell.held.max(held);
                }
                touched.insert(key);
            }
        }
        for key in touched {
            let Some(cell) = rows.get_mut(&key).and_then(|row| row.cells.get_mut(&id)) else { continue };
            if cell.share.is_none() || cell.number <= applied {
                // A proxy can't have in use more than it had, whatever it says.
                cell.held = cell.share.unwrap_or(even).max(cell.used.min(cell.held));
            }
            if cell.is_active() {
                member.active.insert(key.clone());
            }
            dirty.insert(key);
        }
        self.look(at);
    }

    /// Whether a proxy other than this one is to be told something.
    pub fn has_news_for_others(&self, id: u64) -> bool {
        self.members.iter().any(|(other, member)| *other != id && !member.news.is_empty())
    }

    /// What a proxy is to be told, if anything. There may be more.
    pub fn deal(&mut self, id: u64, at: Duration) -> Option<ShareDeal> {
        self.look(at);
        let Self { members, rows, replicas, .. } = self;
        let several = several(members) && replicas.is_some();
        let member = members.get_mut(&id)?;
        let begins = several && !member.knows;
        if member.news.is_empty() && (!member.unanswered || member.told == 0) && !begins {
            return None;
        }
        member.knows = true;
        member.number += 1;
        member.unanswered = false;
        let mut shares = Vec::new();
        while shares.len() < SHARES
            && let Some(key) = member.news.pop_first()
        {
            let share = rows.get_mut(&key).and_then(|row| row.cells.get_mut(&id)).and_then(|cell| {
                cell.number = member.number;
                cell.share
            });
            shares.push((key, share));
        }
        if member.sent.len() < UNCONFIRMED {
            member.sent.push_back((member.number, at));
        }
        Some(ShareDeal { number: member.number, heard: member.heard, shares })
    }

    /// Looks for what time alone changes, and divides what is to be divided again.
    fn look(&mut self, at: Duration) {
        for member in self.members.values_mut() {
            let is_lost = member.told > 0 && member.alive + SILENCE < at;
            if is_lost != member.is_lost {
                member.is_lost = is_lost;
                self.dirty.extend(self.rows.keys().cloned());
            }
        }
        if self.swept + SWEEP <= at {
            self.swept = at;
            self.sweep(at);
        }
        if self.dirty.len() > MANY && at < self.settled + REST {
            return;
        }
        self.settled = at;
        for key in std::mem::take(&mut self.dirty) {
            self.settle(&key, at);
        }
    }

    /// Forgets proxies that have gone, and limits that nobody is close to.
    fn sweep(&mut self, at: Duration) {
        let even = self.even();
        let Self { members, rows, dirty, .. } = self;
        let ended: Vec<u64> = members
            .iter()
            .filter(|(_, member)| member.gone.is_some_and(|gone| gone + AFTERLIFE < at))
            .map(|(id, _)| *id)
            .collect();
        for id in &ended {
            members.remove(id);
        }
        rows.retain(|key, row| {
            for id in &ended {
                row.cells.remove(id);
            }
            if row.warm + QUIET < at || !ended.is_empty() {
                dirty.insert(key.clone());
            }
            let is_even = row.warm + QUIET < at
                && row.cells.iter().all(|(id, cell)| {
                    let share =
                        cell.share.is_none_or(|share| share <= even && cell.held == share && cell.number != u64::MAX);
                    share && members.get(id).is_some_and(|member| member.gone.is_none())
                });
            let since = *row.even.get_or_insert(at);
            if !is_even {
                row.even = None;
            }
            // Then everyone has the whole burst of an even share, as if nothing had been dealt.
            let rests = is_even && since + row.span < at;
            if rests {
                for (id, cell) in &row.cells {
                    if let (Some(member), Some(_)) = (members.get_mut(id), cell.share) {
                        member.told -= 1;
                        member.active.remove(key);
                        member.news.insert(key.clone());
                    }
                }
            }
            !rests
        });
    }

    /// Divides a limit again: lowers at once, and raises by what is free.
    fn settle(&mut self, key: &LimitKey, at: Duration) {
        let even = self.even();
        let Self { members, rows, .. } = self;
        let Some(row) = rows.get_mut(key) else { return };
        let half = LimitPart::millionths(even.get() / 2);
        if row.cells.values().any(|cell| cell.now >= half || cell.lately >= half) {
            row.warm = at;
        }
        let is_quiet = row.warm + QUIET < at;
        // Every limit has a cell for every proxy.
        let connected = members.values().filter(|member| member.gone.is_none()).count() as u32;
        // Where nobody says how many proxies there are, each has all of it when it is alone.
        let own = even.min(LimitPart::millionths(LimitPart::WHOLE.get() / connected.max(1)));
        let mut taken = LimitPart::default();
        for (member, cell) in members.values().zip(row.cells.values()) {
            if member.gone.is_some() {
                // Its even share is not among those that are divided here.
                taken = taken.plus(cell.held.minus(even));
            } else if member.is_lost {
                taken = taken.plus(cell.share.map_or(cell.used.min(cell.held), |_| cell.held).max(own));
            }
        }
        let budget = LimitPart::millionths(even.get().saturating_mul(connected)).minus(taken);
        let cells = members.values_mut().zip(row.cells.values_mut());
        let mut cells: Vec<_> = cells.filter(|(member, _)| member.gone.is_none()).collect();
        let owed = cells.iter().filter(|(member, _)| !member.is_lost);
        let asked = |cell: &Cell| if is_quiet { Default::default() } else { (cell.now, cell.lately) };
        let owed: Vec<_> = owed.map(|(_, cell)| asked(cell)).collect();
        let mut shares = divide(budget, &owed).into_iter();
        let floor = LimitPart::millionths(budget.get() / connected.max(1) / FLOOR);
        let targets: Vec<LimitPart> = cells
            .iter()
            .map(|(member, _)| if member.is_lost { floor } else { shares.next().unwrap_or_default() })
            .collect();
        let mut free = budget;
        for ((member, cell), target) in cells.iter_mut().zip(&targets) {
            let share = cell.share.unwrap_or(even);
            if *target < share && is_worth(*target, share, is_quiet) {
                change(key, member, cell, *target, at);
            }
            if !member.is_lost {
                free = free.minus(cell.held);
            }
        }
        for ((member, cell), target) in cells.iter_mut().zip(&targets) {
            let share = cell.share.unwrap_or(even);
            let new = (*target).min(cell.held.max(share).plus(free));
            if !member.is_lost && new > share && is_worth(new, share, is_quiet) {
                let more = new.minus(cell.held);
                free = free.minus(more);
                cell.held = cell.held.max(new);
                change(key, member, cell, new, at);
            }
        }
    }
}

/// Whether there is anything to deal: what one proxy has not, another one may have.
fn several(members: &BTreeMap<u64, Player>) -> bool {
    members.values().filter(|member| member.gone.is_none()).nth(1).is_some()
}

/// Whether a change is worth a message. In the end, all are even.
fn is_worth(a: LimitPart, b: LimitPart, is_quiet: bool) -> bool {
    is_quiet || u64::from(a.get().abs_diff(b.get())) * STEP > u64::from(a.max(b).get())
}

fn change(key: &LimitKey, member: &mut Player, cell: &mut Cell, share: LimitPart, at: Duration) {
    if cell.share.replace(share).is_none() {
        if member.told == 0 {
            member.alive = at;
        }
        member.told += 1;
    }
    cell.number = u64::MAX;
    member.news.insert(key.clone());
    member.active.insert(key.clone());
}

#[cfg(test)]
mod tests;
