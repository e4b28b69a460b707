//! Shares of the limits for clients: what proxies report, and what a controller deals.
//!
//! Invariant: the dealt parts of a limit never exceed the budget, whatever is demanded.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which is the least that a subscriber gets (RFC
/// 6177).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Hash)]
pub enum CountedClient {
    /// An address.
    V4([u8; 4]),
    /// A network.
    V6([u8; 8]),
}

/// One of the limits of a client.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Hash)]
pub enum LimitKind {
    /// Requests per second.
    PerSecond,
    /// Requests per minute.
    PerMinute,
    /// Requests in progress.
    InProgress,
}

/// One limit of one client.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Hash)]
pub struct LimitKey {
    /// Where requests are counted.
    pub scope: Arc<str>,
    /// The client whose requests are counted.
    pub client: CountedClient,
    /// Which limit.
    pub kind: LimitKind,
}

/// A part of a limit, in millionths of it.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct LimitPart(u32);

/// What a proxy could use of a limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Demand {
    /// The limit.
    pub key: LimitKey,
    /// What was asked for in the last moments, refused requests included.
    pub now: LimitPart,
    /// The same over the time that several requests take at the limit.
    pub lately: LimitPart,
    /// What is in use and can't be given up at once: requests in progress.
    pub held: LimitPart,
    /// The time in which a burst that is used up becomes available again.
    pub span: Duration,
}

/// A proxy's report about the limits that clients are close to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DemandReport {
    /// Counts the reports of a proxy.
    pub number: u64,
    /// The last deal that is in effect.
    pub applied: u64,
    /// All limits with a demand worth dealing for. For others that have been dealt, this proxy keeps to its share.
    pub demands: Vec<Demand>,
    /// Whether there were more than a report has room for; it then says nothing about those that it doesn't name.
    pub cut: bool,
}

/// A controller's deal to a proxy. For other limits, earlier deals remain in force.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ShareDeal {
    /// Counts the deals to a proxy.
    pub number: u64,
    /// The last report read before this deal.
    pub heard: u64,
    /// The part of each limit. `None` returns it to the even division.
    pub shares: Vec<(LimitKey, Option<LimitPart>)>,
}

impl From<IpAddr> for CountedClient {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl LimitPart {
    /// All of it.
    pub const WHOLE: Self = Self(1_000_000);

    /// A number of millionths, at most the whole.
    pub fn millionths(millionths: u32) -> Self {
        Self(millionths.min(Self::WHOLE.0))
    }

    /// A fraction of the whole, clamped to 0 and 1.
    pub fn fraction(fraction: f64) -> Self {
        Self((fraction.clamp(0.0, 1.0) * f64::from(Self::WHOLE.0)) as u32)
    }

    /// The part of each of several replicas with equal shares.
    pub fn even(replicas: NonZeroU32) -> Self {
        Self(Self::WHOLE.0 / replicas.get())
    }

    /// In millionths.
    pub fn get(self) -> u32 {
        self.0
    }

    /// This part of a number, rounded up; at least 1 unless the number is 0.
    pub fn of(self, number: u32) -> u32 {
        let part = u64::from(number) * u64::from(self.0);
        (part.div_ceil(u64::from(Self::WHOLE.0)) as u32).max(1.min(number))
    }

    /// The sum, at most the whole.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::millionths(self.0.saturating_add(other.0))
    }

    /// The difference, at least 0.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// How long a proxy may use a share above the even one, counted from when it sent the last report that the controller had read before the
/// deal.
// No limit: how shares are divided.
pub const LEASE: Duration = Duration::from_secs(1);

/// One of this many parts of an even share stays with a proxy that has no demand while others could use everything.
// No limit: how shares are divided.
pub const FLOOR: u32 = 32;

/// Divides a budget of a limit among proxies, by what each of them asks for now and what it has asked for lately. Each gets the floor. The
/// rest goes to proxies that could use it now, evenly to those that could use more than that (max-min fairness); what these leave, to those
/// that could lately; and what these leave, evenly to all.
pub fn divide(budget: LimitPart, wants: &[(LimitPart, LimitPart)]) -> Vec<LimitPart> {
    let count = wants.len() as u32;
    if count == 0 {
        return Vec::new();
    }
    let mut shares = vec![budget.0 / count / FLOOR; wants.len()];
    let mut left = budget.0 - shares.iter().sum::<u32>();
    left = fill(&mut shares, left, wants.iter().map(|(now, _)| now.0));
    left = fill(&mut shares, left, wants.iter().map(|(_, lately)| lately.0));
    shares.into_iter().map(|share| LimitPart(share + left / count)).collect()
}

/// Adds to each share what it lacks, the smallest lack first, and never more than to those that lack more. Returns what is left.
fn fill(shares: &mut [u32], mut left: u32, wants: impl Iterator<Item = u32>) -> u32 {
    let mut lacks: Vec<_> = wants.zip(shares).map(|(want, share)| (want.saturating_sub(*share), share)).collect();
    lacks.sort_unstable_by_key(|(lack, _)| *lack);
    let mut others = lacks.len() as u32;
    for (lack, share) in lacks {
        let more = lack.min(left / others);
        *share += more;
        left -= more;
        others -= 1;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(fractions: &[f64]) -> Vec<f64> {
        let wants: Vec<_> = fractions.iter().map(|part| (LimitPart::fraction(*part), LimitPart::default())).collect();
        divide(LimitPart::WHOLE, &wants).iter().map(|part| f64::from(part.0) / 1e6).collect()
    }

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.01)
    }

    #[test]
    fn who_alone_asks_gets_all_but_the_floors_and_nobody_asking_means_evenly() {
        let shares = parts(&[1.0, 0.0, 0.0, 0.0]);
        assert!(shares[0] > 0.97 && shares[1..].iter().all(|floor| *floor > 0.007), "{shares:?}");
        assert_eq!(parts(&[0.0; 4]), [0.25; 4]);
        assert_eq!(parts(&[1.0; 4]), [0.25; 4]);
        assert!(divide(LimitPart::WHOLE, &[]).is_empty());
    }

    #[test]
    fn who_asks_for_less_than_the_even_share_has_all_of_it() {
        let shares = parts(&[1.0, 0.4, 0.1, 0.0]);
        assert!(close(&shares, &[0.492, 0.4, 0.1, 0.008]), "{shares:?}");
        let shares = parts(&[1.0, 1.0, 0.2, 0.0]);
        assert!(close(&shares, &[0.396, 0.396, 0.2, 0.008]), "{shares:?}");
    }

    #[test]
    fn what_nobody_asks_for_now_goes_to_those_who_did_lately() {
        let [none, all] = [0.0, 0.9].map(LimitPart::fraction);
        let shares = divide(LimitPart::WHOLE, &[(none, all), (none, none)]);
        assert!(shares[0] >= LimitPart::fraction(0.9), "{shares:?}");
        // It goes to no proxy but the one that asks now, if there is one.
        let shares = divide(LimitPart::WHOLE, &[(none, all), (all, none)]);
        assert!(shares[1] >= LimitPart::fraction(0.9), "{shares:?}");
    }

    proptest::proptest! {
        #[test]
        fn shares_never_exceed_the_budget_leave_nothing_and_are_fair(
            budget in 0_u32..=1_000_000,
            wants in proptest::collection::vec((0_u32..=1_000_000, 0_u32..=1_000_000), 1..12),
        ) {
            let count = wants.len() as u32;
            let asked: Vec<_> = wants.iter().map(|(now, lately)| (LimitPart(*now), LimitPart(*lately))).collect();
            let shares: Vec<u32> = divide(LimitPart(budget), &asked).into_iter().map(|share| share.0).collect();
            let sum: u32 = shares.iter().sum();
            proptest::prop_assert!(sum <= budget && sum + 2 * count >= budget, "{sum} of {budget}");
            let floor = budget / count / FLOOR;
            let most = shares.iter().max().unwrap();
            for (share, (now, _)) in shares.iter().zip(&wants) {
                proptest::prop_assert!(*share >= floor);
                // A proxy with less than it asks for now has as much as any other, up to rounding.
                proptest::prop_assert!(share >= now || share + count >= *most, "{wants:?}: {shares:?}");
            }
        }
    }

    #[test]
    fn a_part_of_a_number_is_rounded_up_and_never_nothing() {
        assert_eq!(LimitPart::fraction(0.25).of(8), 2);
        assert_eq!(LimitPart::fraction(0.26).of(8), 3);
        assert_eq!(LimitPart::default().of(8), 1);
        assert_eq!(LimitPart::WHOLE.of(u32::MAX), u32::MAX);
    }
}
