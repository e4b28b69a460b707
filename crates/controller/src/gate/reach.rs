//! The progress of the proxies.

use tokio::time::Instant;

use super::Peers;

/// For each connected proxy, the number of the last publication that is in force there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reach {
    serves: Vec<u64>,
    /// The minimum number of proxies, connected or not.
    least: usize,
    /// The minimum number of all controllers' proxies together, connected or not.
    overall: usize,
}

/// How many proxies of all controllers know something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Extent {
    pub(super) knowing: usize,
    pub(super) of: usize,
    /// Whether all proxies know it.
    pub(super) whole: bool,
}

impl Reach {
    pub(crate) fn new(serves: Vec<u64>, least: usize) -> Self {
        Self { serves, least, overall: 1 }
    }

    /// Sets the minimum number of all controllers' proxies together. Those that are not connected anywhere, as after the start of the only
    /// controller, count as not knowing.
    #[must_use]
    pub(crate) fn among(self, overall: usize) -> Self {
        Self { overall, ..self }
    }

    /// How many proxies of all controllers know the pod or change of this name, which is in force here with this publication.
    pub(super) fn count(&self, peers: &Peers, name: &str, publication: Option<u64>, now: Instant) -> Extent {
        let of = (self.of() + peers.proxies(now)).max(self.overall);
        let knowing = publication.map_or(0, |number| self.knowing(number)) + peers.knowing(name, now);
        let all_say_so = publication.is_some_and(|number| self.is_everywhere(number)) && peers.all_know(name, now);
        // No proxy has to know an object that is in no publication.
        let whole = all_say_so && (publication == Some(0) || knowing >= of);
        Extent { knowing: if whole { of } else { knowing.min(of) }, of, whole }
    }

    /// The number of proxies.
    pub(crate) fn of(&self) -> usize {
        self.serves.len().max(self.least)
    }

    /// The number of proxies at which a publication is in force.
    pub(crate) fn knowing(&self, publication: u64) -> usize {
        if publication == 0 { self.of() } else { self.serves.iter().filter(|serves| **serves >= publication).count() }
    }

    /// Whether a publication is in force at all proxies.
    pub(crate) fn is_everywhere(&self, publication: u64) -> bool {
        self.knowing(publication) == self.of()
    }
}
