//! Random numbers of one worker: for choices, session keys and request ids, not for secrets.

/// The generator xoshiro256++, seeded by the operating system. One per worker; never shared.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// Creates a generator with an unpredictable start.
    ///
    /// # Panics
    /// If the operating system provides no randomness, in which case TLS could not work either.
    pub fn from_os() -> Self {
        let mut bytes = [0; 32];
        rustls::crypto::aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut bytes)
            .expect("the operating system gives random bytes");
        let mut state = [0; 4];
        for (word, chunk) in state.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*chunk);
        }
        Self::from_state(state)
    }

    /// A generator that always gives the same numbers, for tests and whatever has to be repeatable.
    pub fn from_seed(seed: u64) -> Self {
        // SplitMix64, as the authors of xoshiro advise.
        let mut at = seed;
        Self::from_state(std::array::from_fn(|_| {
            at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = at;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        }))
    }

    /// An independent generator.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`, or 0 when that is 0. The bias of one in 2^32 does not matter to a balancer.
    pub fn below(&mut self, bound: u32) -> u32 {
        let wide = u128::from(self.bits()) * u128::from(bound);
        (wide >> 64) as u32
    }

    fn from_state(state: [u64; 4]) -> Self {
        // All zeros is the one state that generates only zeros.
        Self(if state == [0; 4] { [1, 2, 3, 4] } else { state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_below_a_bound_cover_it_evenly() {
        let mut rng = Rng::from_seed(7);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (850..1150).contains(&count)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn generators_of_the_operating_system_differ() {
        assert_ne!(Rng::from_os().bits(), Rng::from_os().bits());
        let mut parent = Rng::from_seed(1);
        assert_ne!(parent.fork().bits(), parent.fork().bits());
    }
}
