//! Deals shares of the limits for clients to the proxies of a controller.
//!
//! Invariant: together, the proxies may never use more of a limit than in an even division. A share is lowered first; what that frees is
//! dealt only once the proxy has confirmed the lower share, or the lease under which it used more has ended. A silent proxy counts with at
//! least its even share, even before it returns to that by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use fairway_model::{Demand, DemandReport, FLOOR, LEASE, LimitKey, LimitKind, LimitPart, ShareDeal, divide};

use crate::limit::{DEALT, DEALT_CELLS, PROXIES, SHARES};

/// How old the last confirmed deal may be before its proxy counts with its even share. A proxy below its even share returns to it after
/// four seconds; one above gives up the excess when its lease ends.
// No limit: what keeps the sum of all shares.
const SILENCE: Duration = Duration::from_secs(1);

/// By how much the clocks of proxy and controller may differ in the time of a lease.
// No limit: what keeps the sum of all shares.
const MARGIN: Duration = Duration::from_millis(100);

/// How long the requests in progress of a proxy that has gone count, beyond its even share. Most proxies are back by then.
// No limit: what keeps the sum of all shares.
const AFTERLIFE: Duration = Duration::from_millis(2500);

/// How long no client is close to a limit before all its shares are even again.
// No limit: what keeps shares from coming and going.
const QUIET: Duration = Duration::from_secs(2);

/// The pause between two sweeps through everything.
// No limit: what it costs.
const SWEEP: Duration = Duration::from_millis(500);

/// The pause between two checks for silent proxies.
// No limit: what it costs.
const LOOK: Duration = Duration::from_millis(50);

/// If more shares than this are due, over all limits that are to be divided again, they are dealt only after [`REST`], however many proxies
/// report meanwhile: otherwise each of many reports would cost as much as there are proxies.
// No limit: what it costs.
const MANY: usize = 256;

/// The pause between two deals of many shares.
// No limit: what it costs.
const REST: Duration = Duration::from_millis(100);

/// Changes that are smaller than this part of a share are not worth a message.
// No limit: what it costs.
const STEP: u64 = 64;

/// Unconfirmed deals whose time is remembered.
// No limit: what is remembered.
const UNCONFIRMED: usize = 256;

/// Deals shares. Times count from any fixed moment.
#[derive(Debug)]
pub struct Dealer {
    /// The number of proxies that limits are divided among. Nothing is dealt before it is known.
    replicas: Option<NonZeroU32>,
    proxies: BTreeMap<u64, DealtProxy>,
    rows: HashMap<LimitKey, Row>,
    /// Limits whose shares are to be divided again.
    dirty: BTreeSet<LimitKey>,
    /// Proxies that there is news for.
    woken: BTreeSet<u64>,
    swept: Duration,
    looked: Duration,
    /// When limits were last divided.
    settled: Duration,
}

/// A proxy.
#[derive(Debug, Default)]
struct DealtProxy {
    /// The last deal.
    number: u64,
    /// The last report.
    heard: u64,
    /// When that came.
    heard_at: Duration,
    /// The report that its lease refers to, and when it came: the last one before a deal that left no news.
    leased: (u64, Duration),
    /// Whether it knows that shares are dealt. It reports nothing before.
    knows: bool,
    unanswered: bool,
    /// When the unconfirmed deals were made.
    sent: VecDeque<(u64, Duration)>,
    /// Limits whose share the proxy has not been told yet.
    news: BTreeSet<LimitKey>,
    /// Limits that it has a demand for, or whose share is not confirmed.
    active: HashSet<LimitKey>,
    /// The number of limits of which its share is not the even one.
    told: usize,
    /// When the last confirmed deal was made, or the first one was due.
    alive: Duration,
    contact: Contact,
    gone: Option<Duration>,
}

/// Whether a proxy is known to keep to its shares.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Contact {
    /// It confirms them.
    #[default]
    Kept,
    /// It may still use what it was dealt.
    Lost,
    /// It may use its even share: no more is leased to it.
    Lapsed,
}

/// A limit.
#[derive(Debug)]
struct Row {
    cells: BTreeMap<u64, Cell>,
    /// The time in which a burst that is used up becomes available again.
    span: Duration,
    /// When a client was last close to the limit.
    warm: Duration,
    /// Since when none is, and all shares are even and confirmed.
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
    /// The deal that carried it; the largest number until there is one.
    number: u64,
    /// The most it may use of what was dealt, until it has confirmed its share.
    held: LimitPart,
}

impl Default for Dealer {
    fn default() -> Self {
        let (proxies, rows, dirty, woken) = Default::default();
        let (swept, looked, settled) = Default::default();
        Self { replicas: None, proxies, rows, dirty, woken, swept, looked, settled }
    }
}

impl Cell {
    fn new(even: LimitPart) -> Self {
        let none = LimitPart::default();
        Self { now: none, lately: none, used: none, share: None, number: 0, held: even }
    }

    /// What counts: the most it may use.
    fn counted(&self, kind: LimitKind, contact: Contact, even: LimitPart) -> LimitPart {
        let held = if contact == Contact::Lapsed { self.held.min(even) } else { self.held };
        held.max(self.in_progress(kind))
    }

    /// What continues, whatever the share is. A proxy is believed to have more requests in progress than it was dealt: some continue from
    /// an earlier connection or share, and when a limit is lowered, they are a larger part of it.
    fn in_progress(&self, kind: LimitKind) -> LimitPart {
        if kind == LimitKind::InProgress { self.used } else { LimitPart::default() }
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

    /// Sets the number of proxies that limits are divided among, those of other controllers included.
    pub fn resize(&mut self, replicas: NonZeroU32) {
        if self.replicas == Some(replicas) {
            return;
        }
        self.replicas = Some(replicas);
        let even = LimitPart::even(replicas);
        for row in self.rows.values_mut() {
            row.cells.values_mut().filter(|cell| cell.share.is_none()).for_each(|cell| cell.held = even);
        }
        self.dirty.extend(self.rows.keys().cloned());
    }

    fn even(&self) -> LimitPart {
        self.replicas.map_or(LimitPart::WHOLE, LimitPart::even)
    }

    /// Adds a proxy, which has even shares. If there are too many, it keeps them.
    pub fn join(&mut self, id: u64) {
        if self.proxies.len() >= 2 * PROXIES || self.rows.len() * (self.proxies.len() + 1) > DEALT_CELLS {
            return;
        }
        let even = self.even();
        for row in self.rows.values_mut() {
            row.cells.insert(id, Cell::new(even));
        }
        self.proxies.insert(id, DealtProxy::default());
        self.dirty.extend(self.rows.keys().cloned());
        // Once there are several, each is told that shares are dealt.
        self.woken.extend(self.proxies.iter().filter(|(_, proxy)| !proxy.knows).map(|(id, _)| *id));
    }

    /// Notes that a proxy has gone. It is remembered only if it may continue to use more than its even share.
    pub fn leave(&mut self, id: u64, at: Duration) {
        let even = self.even();
        let is_even = |cell: &Cell, kind| cell.share.is_none() && cell.counted(kind, Contact::Kept, even) <= even;
        if self.rows.iter().all(|(key, row)| row.cells.get(&id).is_none_or(|cell| is_even(cell, key.kind))) {
            self.proxies.remove(&id);
            for row in self.rows.values_mut() {
                row.cells.remove(&id);
            }
        } else if let Some(proxy) = self.proxies.get_mut(&id) {
            (proxy.gone, proxy.news, proxy.sent) = (Some(at), BTreeSet::new(), VecDeque::new());
        }
        self.dirty.extend(self.rows.keys().cloned());
    }

    /// Takes a proxy's report.
    pub fn report(&mut self, id: u64, report: DemandReport, at: Duration) {
        let even = self.even();
        let Self { proxies, rows, dirty, replicas, .. } = self;
        let several = several(proxies) && replicas.is_some();
        let room = DEALT.min(DEALT_CELLS / proxies.len().max(1));
        let all: Vec<u64> = match several && report.demands.iter().any(|demand| !rows.contains_key(&demand.key)) {
            true => proxies.keys().copied().collect(),
            false => Vec::new(),
        };
        let Some(proxy) = proxies.get_mut(&id).filter(|proxy| proxy.gone.is_none()) else { return };
        (proxy.heard, proxy.heard_at, proxy.unanswered) = (report.number, at, true);
        // It can't have applied a deal that was not sent.
        let applied = report.applied.min(proxy.number);
        while let Some((_, sent)) = proxy.sent.pop_front_if(|(number, _)| *number <= applied) {
            proxy.alive = sent;
        }
        // Demands that a report has no room for stay as they were.
        let mut touched = if report.cut { HashSet::new() } else { std::mem::take(&mut proxy.active) };
        for key in &touched {
            if let Some(cell) = rows.get_mut(key).and_then(|row| row.cells.get_mut(&id)) {
                (cell.now, cell.lately, cell.used) = Default::default();
            }
        }
        for Demand { key, now, lately, held, span } in report.demands.into_iter().take(SHARES) {
            if !rows.contains_key(&key) {
                if all.is_empty() || rows.len() >= room {
                    continue;
                }
                let cells = all.iter().map(|id| (*id, Cell::new(even))).collect();
                rows.insert(key.clone(), Row { cells, span, warm: at, even: None });
            }
            let Some(row) = rows.get_mut(&key) else { continue };
            row.span = row.span.max(span);
            if let Some(cell) = row.cells.get_mut(&id) {
                (cell.now, cell.lately, cell.used) = (now, lately, held);
                touched.insert(key);
            }
        }
        for key in touched {
            let Some(cell) = rows.get_mut(&key).and_then(|row| row.cells.get_mut(&id)) else { continue };
            if cell.share.is_none() || cell.number <= applied {
                cell.held = cell.share.unwrap_or(even);
            }
            if cell.is_active() {
                proxy.active.insert(key.clone());
            }
            dirty.insert(key);
        }
        if proxy.changes_contact(at) {
            dirty.extend(rows.keys().cloned());
        }
        self.look(at);
    }

    /// The proxies with news since the last call.
    pub fn woken(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.woken)
    }

    /// The next deal for a proxy, if any. There may be more.
    pub fn deal(&mut self, id: u64, at: Duration) -> Option<ShareDeal> {
        self.look(at);
        let Self { proxies, rows, replicas, .. } = self;
        let several = several(proxies) && replicas.is_some();
        let proxy = proxies.get_mut(&id)?;
        let begins = several && !proxy.knows;
        if proxy.news.is_empty() && (!proxy.unanswered || proxy.told == 0) && !begins {
            return None;
        }
        proxy.knows = true;
        proxy.number += 1;
        proxy.unanswered = false;
        let mut shares = Vec::new();
        while shares.len() < SHARES
            && let Some(key) = proxy.news.pop_first()
        {
            let share = rows.get_mut(&key).and_then(|row| row.cells.get_mut(&id)).and_then(|cell| {
                cell.number = proxy.number;
                cell.share
            });
            shares.push((key, share));
        }
        if proxy.sent.len() < UNCONFIRMED {
            proxy.sent.push_back((proxy.number, at));
        }
        // What is above the even share is leased again only to a proxy that then knows of all lower shares, and not to a silent one, whose
        // lease others wait for.
        if proxy.news.is_empty() && proxy.contact == Contact::Kept {
            proxy.leased = (proxy.heard, proxy.heard_at);
        }
        Some(ShareDeal { number: proxy.number, heard: proxy.leased.0, shares })
    }

    /// Applies what time alone changes, and divides again what needs it.
    fn look(&mut self, at: Duration) {
        if self.looked + LOOK <= at {
            self.looked = at;
            let changes = self.proxies.values_mut().filter_map(|proxy| proxy.changes_contact(at).then_some(())).count();
            if changes > 0 {
                self.dirty.extend(self.rows.keys().cloned());
            }
        }
        if self.swept + SWEEP <= at {
            self.swept = at;
            self.sweep(at);
        }
        if self.dirty.len().saturating_mul(self.proxies.len()) > MANY && at < self.settled + REST {
            return;
        }
        self.settled = at;
        for key in std::mem::take(&mut self.dirty) {
            self.settle(&key, at);
        }
    }

    /// Forgets proxies that have gone, and limits that no client is close to.
    fn sweep(&mut self, at: Duration) {
        let even = self.even();
        let Self { proxies, rows, dirty, woken, .. } = self;
        let ended: Vec<u64> = proxies
            .iter()
            .filter(|(_, proxy)| proxy.gone.is_some_and(|gone| gone + AFTERLIFE < at))
            .map(|(id, _)| *id)
            .collect();
        for id in &ended {
            proxies.remove(id);
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
                    share && proxies.get(id).is_some_and(|proxy| proxy.gone.is_none())
                });
            let since = *row.even.get_or_insert(at);
            if !is_even {
                row.even = None;
            }
            // By then every proxy has the whole burst of an even share, as if nothing had been dealt.
            let rests = is_even && since + row.span < at;
            if rests {
                for (id, cell) in &row.cells {
                    if let (Some(proxy), Some(_)) = (proxies.get_mut(id), cell.share) {
                        proxy.told -= 1;
                        proxy.active.remove(key);
                        proxy.news.insert(key.clone());
                        woken.insert(*id);
                    }
                }
            }
            !rests
        });
    }

    /// Divides a limit again: lowers shares at once, and raises others by what is free.
    fn settle(&mut self, key: &LimitKey, at: Duration) {
        let even = self.even();
        let Self { proxies, rows, woken, .. } = self;
        let Some(row) = rows.get_mut(key) else { return };
        let half = LimitPart::millionths(even.get() / 2);
        if row.cells.values().any(|cell| cell.now >= half || cell.lately >= half) {
            row.warm = at;
        }
        let is_quiet = row.warm + QUIET < at;
        // Every limit has a cell for every proxy.
        let connected = proxies.values().filter(|proxy| proxy.gone.is_none()).count() as u32;
        // If the number of proxies is not configured, the even share is the whole, as for a lone proxy.
        let own = even.min(LimitPart::millionths(LimitPart::WHOLE.get() / connected.max(1)));
        let mut taken = LimitPart::default();
        for (proxy, cell) in proxies.values().zip(row.cells.values()) {
            if proxy.gone.is_some() {
                // Its even share is not among those that are divided here.
                taken = taken.plus(cell.counted(key.kind, proxy.contact, even).minus(even));
            } else if proxy.is_lost() {
                let counted = match cell.share {
                    Some(_) => cell.counted(key.kind, proxy.contact, even),
                    None => cell.in_progress(key.kind),
                };
                taken = taken.plus(counted.max(own));
            }
        }
        let budget = LimitPart::millionths(even.get().saturating_mul(connected)).minus(taken);
        let cells = proxies.iter_mut().zip(row.cells.values_mut());
        let cells = cells.filter(|((_, proxy), _)| proxy.gone.is_none());
        let mut cells: Vec<_> = cells.map(|((id, proxy), cell)| (*id, proxy, cell)).collect();
        let owed = cells.iter().filter(|(_, proxy, _)| !proxy.is_lost());
        let asked = |cell: &Cell| if is_quiet { Default::default() } else { (cell.now, cell.lately) };
        let owed: Vec<_> = owed.map(|(_, _, cell)| asked(cell)).collect();
        let mut shares = divide(budget, &owed).into_iter();
        let floor = LimitPart::millionths(budget.get() / connected.max(1) / FLOOR);
        let targets: Vec<LimitPart> = cells
            .iter()
            .map(|(_, proxy, _)| if proxy.is_lost() { floor } else { shares.next().unwrap_or_default() })
            .collect();
        let mut counted = 0;
        for ((id, proxy, cell), target) in cells.iter_mut().zip(&targets) {
            let share = cell.share.unwrap_or(even);
            if *target < share && is_worth(*target, share, is_quiet) {
                change(key, proxy, cell, *target, at);
                woken.insert(*id);
            }
            if !proxy.is_lost() {
                counted += u64::from(cell.counted(key.kind, proxy.contact, even).get());
            }
        }
        for ((id, proxy, cell), target) in cells.iter_mut().zip(&targets) {
            let share = cell.share.unwrap_or(even);
            let its_own = u64::from(cell.counted(key.kind, proxy.contact, even).get());
            let free = u64::from(budget.get()).saturating_sub(counted.saturating_sub(its_own));
            let new = (*target).min(LimitPart::millionths(u32::try_from(free).unwrap_or(u32::MAX)));
            if !proxy.is_lost() && new > share && is_worth(new, share, is_quiet) {
                cell.held = cell.held.max(new);
                counted += u64::from(cell.counted(key.kind, proxy.contact, even).get()) - its_own;
                change(key, proxy, cell, new, at);
                woken.insert(*id);
            }
        }
    }
}

impl DealtProxy {
    fn is_lost(&self) -> bool {
        self.contact != Contact::Kept
    }

    /// Checks again whether it keeps to its shares, and returns whether that has changed.
    fn changes_contact(&mut self, at: Duration) -> bool {
        let is_silent = self.gone.is_some() || (self.told > 0 && self.alive + SILENCE < at);
        let contact = match is_silent {
            false => Contact::Kept,
            true if self.leased.1 + LEASE + MARGIN < at => Contact::Lapsed,
            true => Contact::Lost,
        };
        std::mem::replace(&mut self.contact, contact) != contact
    }
}

/// Whether there is anything to deal, which takes a second connected proxy.
fn several(proxies: &BTreeMap<u64, DealtProxy>) -> bool {
    proxies.values().filter(|proxy| proxy.gone.is_none()).nth(1).is_some()
}

/// Whether a change is worth a message. When a limit is quiet, each is, so that all shares become even.
fn is_worth(a: LimitPart, b: LimitPart, is_quiet: bool) -> bool {
    is_quiet || u64::from(a.get().abs_diff(b.get())) * STEP > u64::from(a.max(b).get())
}

fn change(key: &LimitKey, proxy: &mut DealtProxy, cell: &mut Cell, share: LimitPart, at: Duration) {
    if cell.share.replace(share).is_none() {
        if proxy.told == 0 {
            proxy.alive = at;
        }
        proxy.told += 1;
    }
    cell.number = u64::MAX;
    proxy.news.insert(key.clone());
    proxy.active.insert(key.clone());
}

#[cfg(test)]
mod tests;
