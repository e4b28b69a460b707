//! Counts the requests of clients on routes that limit them.
//!
//! One ledger for the whole process, because the kernel spreads a client's connections over all workers. Only requests on routes with a
//! limit come here. Each takes the lock of the client's part for a lookup and a comparison, so the count is exact; there are enough parts
//! that workers rarely wait for each other.
//!
//! Each replica of the proxy has an even share of a limit, until a controller deals others (`shares`). Then clients that are close to
//! a limit are watched (`watch`), and their demand is reported; all others cost nothing more.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fairway_model::{ClientLimits, CountedClient, Excess, LimitKind, RequestRate, Users};

pub(crate) use self::shares::ChangedLimits;
use self::shares::Sharing;
use self::watch::{Lease, Watch};
use crate::limit::{CLIENT_ACCOUNTS, WATCHED_CLIENTS};

mod shares;
mod watch;

/// Parts with a lock of their own.
// No limit: how finely the ledger is divided.
const PARTS: usize = 64;

/// Clients of one part.
// No limit: the share of a limit.
const PART_ACCOUNTS: usize = CLIENT_ACCOUNTS / PARTS;

/// Clients of one part that are watched because of what they do here.
// No limit: the share of a limit.
const PART_WATCHED: usize = WATCHED_CLIENTS / PARTS;

/// Longest scope of limits that are dealt: those of Ingresses and RoutePolicies are shorter.
// No limit: bounded by the names of objects.
const SCOPE: usize = 640;

/// Part of the scope of wrong passwords: no object has such a name.
const WRONG_PASSWORDS: &str = "\0wrong passwords";

/// A rate per minute that admits all of them at once.
fn per_minute(most: NonZeroU32) -> RequestRate {
    // No limit: the unit of one.
    RequestRate { requests: most, period: Duration::from_secs(60), burst: most.get() - 1 }
}

/// What clients have used of their limits.
#[derive(Debug)]
pub struct ClientLedger {
    begun: Instant,
    /// A client of a scope is identified by two hashes with secret keys: it can't be made to share an account with another one.
    hashes: [RandomState; 2],
    parts: Box<[Mutex<LedgerPart>]>,
    sharing: Sharing,
}

#[derive(Debug, Default)]
struct LedgerPart {
    accounts: HashMap<u128, Account>,
    /// Those that are watched.
    watched: Vec<u128>,
}

/// One client of one scope.
#[derive(Debug, Default)]
struct Account {
    /// When its next request is due by the rate per second, in nanoseconds.
    second: u64,
    /// The same for the rate per minute.
    minute: u64,
    /// Requests in progress.
    open: u32,
    /// Their limit, and among how many replicas it is divided, as of the last of them. A share may be dealt before the next one comes.
    bound: Option<(NonZeroU32, NonZeroU32)>,
    /// What is measured if it is close to a limit.
    watch: Option<Box<Watch>>,
}

impl Account {
    /// Whether there is nothing to remember.
    fn is_settled(&self, now: u64) -> bool {
        self.open == 0 && self.second <= now && self.minute <= now && self.watch.is_none()
    }

    /// Counts a request. Returns whether it counts as in progress, and whether the client is close to a limit.
    fn enter(
        &mut self,
        limits: &ClientLimits,
        replicas: NonZeroU32,
        lease: Lease,
        now: u64,
    ) -> (Result<bool, Excess>, bool) {
        let Self { second, minute, open, bound, watch } = self;
        let mut take = |kind, rate: Option<RequestRate>, due: &mut u64| {
            let Some(rate) = rate else { return (Some(*due), false) };
            let mut part = None;
            if let Some(watch) = watch.as_mut() {
                let gauge = watch.gauge(kind);
                gauge.rate(rate, replicas, lease, now, due);
                part = gauge.basis();
            }
            let rate = part.map_or_else(|| rate.shared(replicas), |part| rate.dealt(part));
            let taken = rate.take(*due, now);
            if let (None, Some(watch)) = (taken, watch.as_mut()) {
                watch.gauge(kind).refuse();
            }
            (taken, taken.is_none_or(|due| rate.is_low(due, now)))
        };
        let (next_second, second_low) = take(LimitKind::PerSecond, limits.per_second, second);
        let (next_minute, minute_low) = take(LimitKind::PerMinute, limits.per_minute, minute);
        let low = second_low || minute_low;
        let (Some(next_second), Some(next_minute)) = (next_second, next_minute) else {
            return (Err(Excess::Rate), low);
        };
        // As in nginx, a request that is refused because of others in progress has counted for the rates.
        (*second, *minute) = (next_second, next_minute);
        let Some(most) = limits.in_progress else { return (Ok(false), low) };
        *bound = Some((most, replicas));
        let allowed = match watch {
            Some(watch) => watch.gauge(LimitKind::InProgress).most(most, replicas, lease, *open, now),
            None => most.get().div_ceil(replicas.get()),
        };
        // The first request of all is close to no limit.
        let low = low || *open >= (allowed / 2).max(1);
        if *open >= allowed {
            if let Some(watch) = watch {
                watch.gauge(LimitKind::InProgress).refuse();
            }
            return (Err(Excess::Requests), true);
        }
        *open += 1;
        (Ok(true), low)
    }
}

/// A request that counts as in progress until this is dropped.
#[derive(Debug)]
pub struct OpenRequest {
    ledger: Arc<ClientLedger>,
    key: u128,
}

impl Default for ClientLedger {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            hashes: [RandomState::new(), RandomState::new()],
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            sharing: Sharing::default(),
        }
    }
}

impl ClientLedger {
    /// The time since the ledger was created, to which the times of all methods refer.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Counts a request, unless it exceeds a limit. The result has a value if it counts as in progress.
    ///
    /// # Errors
    /// If it exceeds one.
    pub fn enter(
        self: &Arc<Self>,
        limits: &ClientLimits,
        client: IpAddr,
        replicas: NonZeroU32,
        at: Duration,
    ) -> Result<Option<OpenRequest>, Excess> {
        self.enter_at(limits, client, replicas, nanoseconds(at))
    }

    fn enter_at(
        self: &Arc<Self>,
        limits: &ClientLimits,
        client: IpAddr,
        replicas: NonZeroU32,
        now: u64,
    ) -> Result<Option<OpenRequest>, Excess> {
        let client = client.into();
        let key = self.key(&limits.scope, client);
        let mut part = self.part(key);
        if part.accounts.len() >= PART_ACCOUNTS && !part.accounts.contains_key(&key) {
            make_room(&mut part.accounts, now);
        }
        let LedgerPart { accounts, watched } = &mut *part;
        let account = accounts.entry(key).or_default();
        let (entered, is_close) = account.enter(limits, replicas, self.sharing.lease(), now);
        if is_close
            && account.watch.is_none()
            && self.sharing.is_on()
            && watched.len() < PART_WATCHED
            && limits.scope.len() <= SCOPE
        {
            let mut watch = Box::new(Watch::new(&limits.scope, client, now));
            watch.begin(limits, replicas, account.open, entered.as_ref().err().copied());
            account.watch = Some(watch);
            watched.push(key);
            self.sharing.watching();
        }
        drop(part);
        entered.map(|counts| counts.then(|| OpenRequest { ledger: self.clone(), key }))
    }

    /// Whether a client may try another password of these users: it has not had more than `most` wrong ones in a minute.
    pub(crate) fn may_try(&self, users: &Users, client: IpAddr, most: NonZeroU32) -> bool {
        let now = nanoseconds(self.now());
        let key = self.key_of_users(users, client);
        let due = self.part(key).accounts.get(&key).map_or(0, |account| account.minute);
        per_minute(most).shared(NonZeroU32::MIN).take(due, now).is_some()
    }

    /// Counts a wrong password.
    pub(crate) fn note_wrong(&self, users: &Users, client: IpAddr, most: NonZeroU32) {
        let now = nanoseconds(self.now());
        let key = self.key_of_users(users, client);
        let mut part = self.part(key);
        if part.accounts.len() >= PART_ACCOUNTS && !part.accounts.contains_key(&key) {
            make_room(&mut part.accounts, now);
        }
        let account = part.accounts.entry(key).or_default();
        account.minute = per_minute(most).shared(NonZeroU32::MIN).take(account.minute, now).unwrap_or(account.minute);
    }

    fn key(&self, scope: &str, client: CountedClient) -> u128 {
        self.key_of((scope, client))
    }

    /// Guesses at the users of one Secret say nothing about other users, who may share the client's address. A salted hash stands for the
    /// Secret.
    fn key_of_users(&self, users: &Users, client: IpAddr) -> u128 {
        self.key_of((WRONG_PASSWORDS, users.any_hash(), CountedClient::from(client)))
    }

    fn key_of(&self, value: impl Hash) -> u128 {
        let [high, low] = [0, 1].map(|at: usize| u128::from(self.hashes[at].hash_one(&value)));
        high << 64 | low
    }

    /// Locks even after a panic in another thread: the counts stay consistent.
    fn part(&self, key: u128) -> MutexGuard<'_, LedgerPart> {
        self.parts[key as usize % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut part = self.ledger.part(self.key);
        if let Some(account) = part.accounts.get_mut(&self.key) {
            account.open = account.open.saturating_sub(1);
            if account.is_settled(0) {
                part.accounts.remove(&self.key);
            }
        }
    }
}

/// Forgets clients that are within their limits; if there are none, the quarter that is closest to it.
fn make_room(part: &mut HashMap<u128, Account>, now: u64) {
    part.retain(|_, account| !account.is_settled(now));
    if part.len() < PART_ACCOUNTS {
        return;
    }
    let mut due: Vec<u64> = part.values().map(|account| account.second.max(account.minute)).collect();
    let quarter = due.len() / 4;
    let (_, &mut earliest, _) = due.select_nth_unstable(quarter);
    part.retain(|_, account| {
        account.open > 0 || account.watch.is_some() || account.second.max(account.minute) > earliest
    });
}

#[cfg(test)]
mod tests {
    use fairway_model::{NetworkSet, Respond};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limits(per_second: u32, per_minute: u32, in_progress: u32) -> ClientLimits {
        let rate = |requests, seconds| {
            let requests = NonZeroU32::new(requests)?;
            Some(RequestRate { requests, period: Duration::from_secs(seconds), burst: 0 })
        };
        ClientLimits {
            scope: "shop/web".into(),
            per_second: rate(per_second, 1),
            per_minute: rate(per_minute, 60),
            in_progress: NonZeroU32::new(in_progress),
            exempt: NetworkSet::default(),
            over_rate: Respond::page(503),
            over_requests: Respond::page(503),
        }
    }

    fn client(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn wrong_passwords_for_some_users_keep_nobody_from_others() {
        let (ledger, most) = (ClientLedger::default(), NonZeroU32::MIN);
        let users = |hash| Users::from_iter([("alice", hash)]);
        let (one, other) = (users("$apr1$a$x"), users("$apr1$b$x"));
        ledger.note_wrong(&one, client(1), most);
        let tries = |users| [1, 2].map(|number| ledger.may_try(users, client(number), most));
        assert_eq!((tries(&one), tries(&other)), ([false, true], [true, true]));
    }

    fn accounts(ledger: &ClientLedger) -> usize {
        ledger.parts.iter().map(|part| part.lock().unwrap().accounts.len()).sum()
    }

    #[test]
    fn a_request_that_one_rate_refuses_does_not_count_for_the_other() {
        let ledger = Arc::new(ClientLedger::default());
        let enter = |limits: &ClientLimits, now| ledger.enter_at(limits, client(1), NonZeroU32::MIN, now);
        assert!(enter(&limits(1, 1, 0), 0).is_ok());
        assert_eq!(enter(&limits(1, 1, 0), 2 * SECOND).err(), Some(Excess::Rate), "one a minute");
        assert!(enter(&limits(1, 0, 0), 2 * SECOND).is_ok(), "one a second was not used up");
        assert_eq!(enter(&limits(1, 0, 0), 2 * SECOND).err(), Some(Excess::Rate));
    }

    #[test]
    fn requests_in_progress_count_until_they_end_and_leave_nothing_behind() {
        let ledger = Arc::new(ClientLedger::default());
        let enter = |number| ledger.enter_at(&limits(0, 0, 2), client(number), NonZeroU32::MIN, 0);
        let (first, second) = (enter(1), enter(1));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(enter(1).err(), Some(Excess::Requests));
        assert!(enter(2).is_ok());
        drop(first);
        assert!(enter(1).is_ok());
        drop(second);
        assert_eq!(accounts(&ledger), 0);
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_client() {
        let ledger = Arc::new(ClientLedger::default());
        let enter = |text: &str| ledger.enter_at(&limits(1, 0, 0), text.parse().unwrap(), NonZeroU32::MIN, 0);
        assert!(enter("2001:db8::1").is_ok() && enter("2001:db8:0:1::1").is_ok());
        assert_eq!(enter("2001:db8::2").err(), Some(Excess::Rate));
    }

    #[test]
    fn memory_is_bounded_and_those_who_exceed_most_are_remembered() {
        let ledger = Arc::new(ClientLedger::default());
        let enter = |number, now| ledger.enter_at(&limits(1, 0, 0), client(number), NonZeroU32::MIN, now);
        for number in 0..2 * CLIENT_ACCOUNTS as u32 {
            assert!(enter(number, u64::from(number)).is_ok());
        }
        assert!(accounts(&ledger) <= CLIENT_ACCOUNTS);
        let last = 2 * CLIENT_ACCOUNTS as u32 - 1;
        assert_eq!(enter(last, u64::from(last)).err(), Some(Excess::Rate));
        // Later all of them are within their limits, and newcomers take their places.
        for number in 0..CLIENT_ACCOUNTS as u32 / 2 {
            assert!(enter(last + 1 + number, 10 * SECOND).is_ok());
        }
        assert!(accounts(&ledger) <= CLIENT_ACCOUNTS);
    }

    #[test]
    fn the_count_is_exact_over_threads() {
        let ledger = Arc::new(ClientLedger::default());
        let limits = ClientLimits {
            per_second: Some(RequestRate { requests: NonZeroU32::MIN, period: Duration::from_secs(3600), burst: 999 }),
            ..limits(0, 0, 0)
        };
        let passed: usize = std::thread::scope(|scope| {
            let count =
                || (0..1000).filter(|_| ledger.enter_at(&limits, client(1), NonZeroU32::MIN, 5).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }
}
