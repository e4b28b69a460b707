//! How far the proxies are.

use tokio::time::Instant;

use super::Peers;

/// For each connected proxy the number of the last publication that is in force there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reach {
    serves: Vec<u64>,
    /// How many there are at least, connected or not.
    least: usize,
    /// How many all controllers have together at least, connected or not.
    overall: usize,
}

/// How many proxies of all controllers know something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Extent {
    pub(super) knowing: usize,
    pub(super) of: usize,
    /// Whether nobody has to be waited for.
    pub(super) whole: bool,
}

impl Reach {
    pub(crate) fn new(serves: Vec<u64>, least: usize) -> Self {
        Self { serves, least, overall: 1 }
    }

    /// With a number of proxies that all controllers have together at least. Those that are not connected anywhere, as after the start
    /// of the only controller, count as not knowing.
    #[must_use]
    pub(crate) fn among(self, overall: usize) -> Self {
        Self { overall, ..self }
    }

    /// How many proxies of all controllers know what has this name, and is in force here with this publication.
    pub(super) fn count(&self, peers: &Peers, name: &str, publication: Option<u64>, now: Instant) -> Extent {
        let of = (self.of() + peers.proxies(now)).max(self.overall);
        let knowing = publication.map_or(0, |number| self.knowing(number)) + peers.knowing(name, now);
        let all_say_so = publication.is_some_and(|number| self.is_everywhere(number)) && peers.all_know(name, now);
        // What is in no publication need not be known by anyone.
        let whole = all_say_so && (publication == Some(0) || knowing >= of);
        Extent { knowing: if whole { of } else { knowing.min(of) }, of, whole }
    }

    /// How many proxies there are.
    pub(crate) fn of(&self) -> usize {
        self.serves.len().max(self.least)
    }

    /// At how many of them a publication is in force.
    pub(crate) fn knowing(&self, publication: u64) -> usize {
        if publication == 0 { self.of() } else { self.serves.iter().filter(|serves| **serves >= publication).count() }
    }

    /// Whether it is at all.
    pub(crate) fn is_everywhere(&self, publication: u64) -> bool {
        self.knowing(publication) == self.of()
    }
}
