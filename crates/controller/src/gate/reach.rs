//! How far the proxies of this controller are.

/// For each connected proxy the number of the last publication that is in force there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reach {
    serves: Vec<u64>,
    /// How many there are at least, connected or not.
    least: usize,
}

impl Reach {
    pub(crate) fn new(serves: Vec<u64>, least: usize) -> Self {
        Self { serves, least }
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
