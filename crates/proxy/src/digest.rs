//! Digest authentication (RFC 7616, with MD5 and `qop=auth` as in nginx's module). A nonce is a time, a random number and a proof that
//! this process made them, so none has to be remembered. The proofs of requests are remembered for as long as their nonces last: a captured
//! request proves nothing a second time. They are kept, and bounded, for each Secret with users: its clients can only make each other's
//! nonces stale.
//!
//! Checking a request takes two MD5 hashes, so the worker does it itself. Anything that isn't understood is wrong.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use fairway_model::{BasicAuth, ConfiguredName, Fields, KnownField, hex};
use md5::{Digest, Md5};

use crate::limit::{DIGEST_NONCE, DIGEST_PROOFS, DIGEST_PROOFS_EACH};

/// The key of the proofs; none if the system has no random numbers, and then no nonce is valid.
static KEY: LazyLock<Option<hmac::Key>> = LazyLock::new(|| {
    let mut secret = [0; 32];
    rand::fill(&mut secret).ok().map(|()| hmac::Key::new(hmac::HMAC_SHA256, &secret))
});

/// The proofs of all workers. The lock costs nothing next to the hashes that such a request takes.
static SEEN: LazyLock<Mutex<SeenProofs>> = LazyLock::new(Mutex::default);

/// Salts the keys of [`SeenProofs`].
static SALT: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Identifies the users of one Secret, and their realm: a proof that is right for them is wrong for all others.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Prover(u64);

impl Prover {
    fn of(auth: &BasicAuth) -> Self {
        Self(SALT.hash_one((&auth.realm, auth.users.any_hash())))
    }
}

/// Proofs that were right.
#[derive(Debug, Default)]
struct SeenProofs {
    each: HashMap<Prover, SeenOfOne>,
    total: usize,
}

/// Those for the users of one Secret.
#[derive(Debug, Default)]
struct SeenOfOne {
    /// Part of every nonce: those of earlier generations are stale.
    generation: u64,
    /// When the proofs were last moved.
    moved: u64,
    /// Those since then, and those of the period before.
    proofs: [HashSet<[u8; 16]>; 2],
}

impl SeenProofs {
    /// Remembers a proof; `false` if it is known. All proofs that can still be right are remembered: when there is no room for more, the
    /// nonces of the users with the most proofs become stale.
    fn is_new(&mut self, now: u64, prover: Prover, proof: [u8; 16]) -> bool {
        if self.total >= DIGEST_PROOFS {
            // Without a valid nonce there is nothing to remember, not even the generation.
            self.each.retain(|_, seen| now.saturating_sub(seen.moved) <= 2 * DIGEST_NONCE.as_secs());
            self.total = self.each.values().map(SeenOfOne::len).sum();
            while self.total >= DIGEST_PROOFS
                && let Some(most) = self.each.values_mut().max_by_key(|seen| seen.len())
            {
                self.total -= most.forget();
            }
        }
        let seen = self.each.entry(prover).or_default();
        let before = seen.len();
        seen.age(now);
        let is_new = if seen.len() >= DIGEST_PROOFS_EACH {
            seen.forget();
            false
        } else {
            seen.add(proof)
        };
        self.total = self.total - before + seen.len();
        is_new
    }

    fn generation(&self, prover: Prover) -> u64 {
        self.each.get(&prover).map_or(0, |seen| seen.generation)
    }
}

impl SeenOfOne {
    fn len(&self) -> usize {
        self.proofs.iter().map(HashSet::len).sum()
    }

    /// Forgets those whose nonces have expired.
    fn age(&mut self, now: u64) {
        let age = now.saturating_sub(self.moved);
        if age > DIGEST_NONCE.as_secs() {
            let [current, before] = &mut self.proofs;
            std::mem::swap(current, before);
            current.clear();
            if age > 2 * DIGEST_NONCE.as_secs() {
                before.clear();
            }
            self.moved = now;
        }
    }

    /// Forgets all, and makes their nonces stale. Returns how many there were.
    fn forget(&mut self) -> usize {
        self.generation += 1;
        let len = self.len();
        self.proofs = Default::default();
        len
    }

    fn add(&mut self, proof: [u8; 16]) -> bool {
        let [current, before] = &mut self.proofs;
        !before.contains(&proof) && current.insert(proof)
    }
}

fn seen() -> MutexGuard<'static, SeenProofs> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request proves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Proof {
    /// That its client knows the password of a user.
    Right,
    /// The same, but with a nonce that is too old or not ours, or a second time. The client repeats it with another nonce, without asking
    /// its user.
    Stale,
    /// Nothing, though the request has credentials.
    Wrong,
    /// Nothing: there are no credentials.
    Missing,
}

/// What the request `method` for `target` proves.
pub(crate) fn check<'a>(auth: &BasicAuth, fields: impl Fields<'a>, method: &[u8], target: &[u8]) -> Proof {
    check_at(now(), auth, fields, method, target)
}

fn check_at<'a>(now: u64, auth: &BasicAuth, fields: impl Fields<'a>, method: &[u8], target: &[u8]) -> Proof {
    let mut lines = fields.all(KnownField::Authorization);
    let (Some(line), None) = (lines.next(), lines.next()) else { return Proof::Wrong };
    let Some(given) = Given::read(line) else { return Proof::Wrong };
    if given.realm != *auth.realm || given.uri.as_bytes() != target {
        return Proof::Wrong;
    }
    let known = auth.users.hash_of(&given.username);
    let hash = known.or_else(|| auth.users.any_hash()).map_or("", |hash| &**hash);
    let prover = Prover::of(auth);
    let proves = verify_slices_are_equal(given.expected(hash, method).as_bytes(), given.response.as_bytes()).is_ok();
    match (proves && known.is_some(), is_fresh(now, prover, &given.nonce)) {
        (true, true) => {
            let mut proof = [0; 16];
            // The response is the same text for a repeated request, whatever its length.
            proof.copy_from_slice(&Md5::digest(&given.response));
            if seen().is_new(now, prover, proof) { Proof::Right } else { Proof::Stale }
        }
        (true, false) => Proof::Stale,
        (false, _) => Proof::Wrong,
    }
}

/// The challenge for a client without a proof.
pub(crate) fn challenge(auth: &BasicAuth, stale: bool) -> Vec<(ConfiguredName, Box<str>)> {
    let (nonce, stale) = (new_nonce(now(), Prover::of(auth)), if stale { ", stale=true" } else { "" });
    let value = format!("Digest realm=\"{}\", qop=\"auth\", algorithm=MD5, nonce=\"{nonce}\"{stale}", auth.realm);
    ConfiguredName::try_from("WWW-Authenticate").map(|name| vec![(name, value.into())]).unwrap_or_default()
}

/// The parameters of an Authorization field.
#[derive(Debug, Default)]
struct Given {
    username: String,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    cnonce: String,
    nc: String,
    qop: String,
    algorithm: String,
}

impl Given {
    fn read(line: &[u8]) -> Option<Self> {
        let (scheme, rest) = std::str::from_utf8(line).ok()?.split_at_checked("Digest ".len())?;
        let mut given = Self::default();
        let mut rest = Some(rest).filter(|_| scheme.eq_ignore_ascii_case("Digest "))?.trim();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            let (value, after) = value(after.trim_start())?;
            let place = match name.trim().to_ascii_lowercase().as_str() {
                "username" => &mut given.username,
                "realm" => &mut given.realm,
                "nonce" => &mut given.nonce,
                "uri" => &mut given.uri,
                "response" => &mut given.response,
                "cnonce" => &mut given.cnonce,
                "nc" => &mut given.nc,
                "qop" => &mut given.qop,
                "algorithm" => &mut given.algorithm,
                _ => &mut String::new(),
            };
            // A parameter given twice could be understood in two ways.
            if !place.is_empty() {
                return None;
            }
            *place = value;
            let after = after.trim_start();
            rest = if after.is_empty() { after } else { after.strip_prefix(',')?.trim_start() };
        }
        let is_md5 = given.algorithm.is_empty() || given.algorithm.eq_ignore_ascii_case("MD5");
        let counts = given.nc.len() == 8 && given.nc.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_md5 && counts && given.qop == "auth" && !given.cnonce.is_empty()).then_some(given)
    }

    /// The response of a client that knows the password with this hash.
    fn expected(&self, hash: &str, method: &[u8]) -> String {
        let of_request = digits(&Md5::new().chain_update(method).chain_update(b":").chain_update(&self.uri).finalize());
        let text = [hash, &self.nonce, &self.nc, &self.cnonce, &self.qop, &of_request].join(":");
        digits(&Md5::digest(text))
    }
}

/// A value, quoted or not, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, after) = text.split_at(text.find(',').unwrap_or(text.len()));
        return Some((value.trim_end().to_owned(), after));
    };
    let (mut value, mut characters) = (String::new(), quoted.char_indices());
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, &quoted[at + 1..])),
            (_, '\\') => value.push(characters.next()?.1),
            (_, other) => value.push(other),
        }
    }
}

/// A nonce that no other request gets.
fn new_nonce(time: u64, prover: Prover) -> String {
    let mut salt = [0; 8];
    // Without a random number, the nonces of one second are the same, and each serves a client once.
    let _ = rand::fill(&mut salt);
    let generation = seen().generation(prover);
    nonce(time, u64::from_be_bytes(salt), prover, generation)
}

fn nonce(time: u64, salt: u64, prover: Prover, generation: u64) -> String {
    let bytes: Vec<u8> = [time, salt, prover.0, generation].into_iter().flat_map(u64::to_be_bytes).collect();
    let proof = KEY.as_ref().map(|key| hmac::sign(key, &bytes));
    format!("{time:016x}{salt:016x}{}", proof.map_or_else(String::new, |proof| digits(&proof.as_ref()[..16])))
}

/// Whether a nonce is ours and not too old.
fn is_fresh(now: u64, prover: Prover, given: &str) -> bool {
    let number = |at: std::ops::Range<usize>| u64::from_str_radix(given.get(at)?, 16).ok();
    number(0..16).zip(number(16..32)).is_some_and(|(time, salt)| {
        let generation = seen().generation(prover);
        let own = nonce(time, salt, prover, generation);
        let ours = KEY.is_some() && verify_slices_are_equal(own.as_bytes(), given.as_bytes()).is_ok();
        ours && now.saturating_sub(time) <= DIGEST_NONCE.as_secs()
    })
}

fn digits(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(2 * bytes.len());
    hex(bytes, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7616 3.9.1, with MD5.
    #[test]
    fn the_example_of_the_specification() {
        let line = br#"Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=MD5,
            nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            qop=auth, response="8ca523f5e9506fed4657c9700eebdbec", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;
        let line: Vec<u8> = line.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect();
        let given = Given::read(&line).expect("a digest");
        let hash = digits(&Md5::digest("Mufasa:http-auth@example.org:Circle of Life"));
        assert_eq!(given.expected(&hash, b"GET"), given.response);
        assert_ne!(given.expected(&hash, b"HEAD"), given.response);
    }

    #[test]
    fn a_nonce_is_ours_and_lasts_a_while() {
        let (lasts, prover) = (DIGEST_NONCE.as_secs(), Prover(1));
        let ours = nonce(1000, 7, prover, seen().generation(prover));
        let is_fresh = |now, given: &str| is_fresh(now, prover, given);
        assert!(is_fresh(1000, &ours) && is_fresh(1000 + lasts, &ours) && !is_fresh(1001 + lasts, &ours));
        for other in ["", "x", &ours[1..], &ours[..ours.len() - 1], &format!("{ours}0"), &ours.replacen('0', "1", 1)] {
            assert!(!is_fresh(1000, other), "{other}");
        }
        assert!(!super::is_fresh(1000, Prover(2), &ours), "other users have other nonces");
    }

    fn proof(number: u64) -> [u8; 16] {
        let mut proof = [0; 16];
        proof[..8].copy_from_slice(&number.to_be_bytes());
        proof
    }

    #[test]
    fn a_proof_is_good_once_as_long_as_its_nonce_lasts() {
        let (mut all, lasts, prover) = (SeenProofs::default(), DIGEST_NONCE.as_secs(), Prover(1));
        let mut is_new = |now, number| all.is_new(now, prover, proof(number));
        assert!(is_new(1000, 1) && !is_new(1001, 1) && is_new(1000, 2));
        assert!(!is_new(1000 + lasts, 1), "its nonce may still be good");
        assert!(!is_new(1001 + lasts, 1), "those of the time before count");
        assert!(is_new(1003 + 3 * lasts, 1), "no nonce lasts so long");
        assert_eq!(all.total, 1);
    }

    #[test]
    fn too_many_proofs_make_only_the_nonces_of_the_same_users_stale() {
        let (mut all, one, other) = (SeenProofs::default(), Prover(1), Prover(2));
        assert!(all.is_new(1000, other, proof(0)));
        let many = DIGEST_PROOFS_EACH as u64 + 10;
        let refused = (0..many).filter(|&number| !all.is_new(1000, one, proof(number))).count();
        assert_eq!((refused, all.generation(one), all.generation(other)), (1, 1, 0));
        assert!(!all.is_new(1000, other, proof(0)), "what others have proved is still known");
    }

    #[test]
    fn all_proofs_together_have_a_bound_and_those_who_have_most_lose_them() {
        let mut all = SeenProofs::default();
        for prover in 0..2 * (DIGEST_PROOFS / DIGEST_PROOFS_EACH) as u64 {
            for number in 0..DIGEST_PROOFS_EACH as u64 - prover {
                assert!(all.is_new(1000, Prover(prover), proof(number)));
                assert!(all.total <= DIGEST_PROOFS);
            }
        }
        assert_eq!(all.total, all.each.values().map(SeenOfOne::len).sum::<usize>());
        assert_eq!(all.generation(Prover(0)), 1);
        assert!(all.is_new(1000 + 3 * DIGEST_NONCE.as_secs(), Prover(99), proof(0)));
        assert!(all.each.len() > 1, "nothing is forgotten before there is need");
    }

    #[test]
    fn what_is_not_understood_proves_nothing() {
        for line in [
            "Digest",
            "Digest x",
            "Basic YTpi",
            r#"Digest username="a", username="a", nc=00000001, cnonce="c", qop=auth"#,
            r#"Digest username="a", nc=1, cnonce="c", qop=auth"#,
            r#"Digest username="a", nc=00000001, cnonce="c", qop=auth-int"#,
            r#"Digest username="a", nc=00000001, cnonce="c", qop=auth, algorithm=SHA-256"#,
            r#"Digest username="a, nc=00000001, cnonce=c, qop=auth"#,
            r#"Digest username="a" nc=00000001, cnonce="c", qop=auth"#,
        ] {
            assert!(Given::read(line.as_bytes()).is_none(), "{line}");
        }
        let given = Given::read(br#"digest username="a\"b\\", nc=00000001 , cnonce="c",qop="auth""#).expect("a digest");
        assert_eq!((&*given.username, &*given.nc, &*given.qop), ("a\"b\\", "00000001", "auth"));
    }
}
