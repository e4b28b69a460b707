//! Checks passwords against hashes of htpasswd files. That takes up to a second on purpose, so it happens on threads of its own, and
//! each worker remembers the passwords that it has seen to be right.
//!
//! Anything that can't be checked is wrong: an unknown kind of hash, a password that is too long, a queue that is full.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::thread;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fairway_model::{BasicAuth, ConfiguredName, CountedClient, Fields, KnownField};
use md5::{Digest, Md5};
use tokio::sync::oneshot;

use crate::limit::{PASSWORD, PASSWORD_QUEUE, PASSWORD_SHARE, PASSWORD_THREADS, PASSWORDS_KNOWN};

/// The passwords that one worker knows to be right.
#[derive(Debug)]
pub(crate) struct Passwords {
    /// Random, so that what is kept is useless elsewhere.
    key: Option<hmac::Key>,
    known: RefCell<HashSet<[u8; 32]>>,
}

impl Default for Passwords {
    fn default() -> Self {
        let mut secret = [0; 32];
        let key = rand::fill(&mut secret).ok().map(|()| hmac::Key::new(hmac::HMAC_SHA256, &secret));
        Self { key, known: RefCell::default() }
    }
}

impl Passwords {
    /// Whether a password has this hash. `None` if too many others are being checked, or too many of this client's; `may_try` says whether
    /// it may be checked at all. A password that is known to be right needs no check.
    pub(crate) async fn check(
        &self,
        client: IpAddr,
        hash: &Arc<str>,
        password: &[u8],
        may_try: impl FnOnce() -> bool,
    ) -> Option<bool> {
        if password.len() > PASSWORD {
            return Some(false);
        }
        let tag = self.key.as_ref().map(|key| {
            let mut context = hmac::Context::with_key(key);
            // A hash has no NUL, so no two pairs are the same bytes.
            for part in [hash.as_bytes(), b"\0", password] {
                context.update(part);
            }
            let mut tag = [0; 32];
            tag.copy_from_slice(context.sign().as_ref());
            tag
        });
        if tag.is_some_and(|tag| self.known.borrow().contains(&tag)) {
            return Some(true);
        }
        if !may_try() {
            return None;
        }
        let share = Share::take(client.into())?;
        let (answer, answered) = oneshot::channel();
        queue().try_send(Job { hash: hash.clone(), password: password.into(), answer, _share: share }).ok()?;
        let right = answered.await.unwrap_or(false);
        if let (true, Some(tag)) = (right, tag) {
            let mut known = self.known.borrow_mut();
            if known.len() >= PASSWORDS_KNOWN {
                known.clear();
            }
            known.insert(tag);
        }
        Some(right)
    }
}

/// The user name and the password of a request (RFC 7617); `None` if it has more than one.
pub(crate) fn credentials<'a>(fields: impl Fields<'a>) -> Option<(String, Vec<u8>)> {
    let mut lines = fields.all(KnownField::Authorization);
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (scheme, encoded) = line.split_at_checked("Basic ".len())?;
    let mut decoded = STANDARD.decode(encoded.trim_ascii()).ok().filter(|_| scheme.eq_ignore_ascii_case(b"Basic "))?;
    let password = decoded.split_off(decoded.iter().position(|&byte| byte == b':')?);
    Some((String::from_utf8(decoded).ok()?, password[1..].to_vec()))
}

/// The challenge for a client without them.
pub(crate) fn challenge(auth: &BasicAuth) -> Vec<(ConfiguredName, Box<str>)> {
    let value = format!("Basic realm=\"{}\"", auth.realm).into();
    ConfiguredName::try_from("WWW-Authenticate").map(|name| vec![(name, value)]).unwrap_or_default()
}

/// A password to be checked.
struct Job {
    hash: Arc<str>,
    password: Box<[u8]>,
    answer: oneshot::Sender<bool>,
    /// Held until it is checked, even if the client is gone: its passwords are still in the queue.
    _share: Share,
}

/// One of a client's passwords that wait or are being checked. They are counted across all workers, which share the queue.
struct Share(CountedClient);

/// The number of passwords of each client; no more clients than the queue has places.
static SHARES: LazyLock<Mutex<HashMap<CountedClient, usize>>> = LazyLock::new(Mutex::default);

impl Share {
    fn take(client: CountedClient) -> Option<Self> {
        let mut shares = SHARES.lock().unwrap_or_else(PoisonError::into_inner);
        let held = shares.entry(client).or_default();
        (*held < PASSWORD_SHARE).then(|| {
            *held += 1;
            Self(client)
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = SHARES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut held) = shares.entry(self.0) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

/// The queue of the threads, which are started for the first password.
fn queue() -> &'static SyncSender<Job> {
    static QUEUE: OnceLock<SyncSender<Job>> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let (sender, jobs) = sync_channel(PASSWORD_QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..PASSWORD_THREADS {
            let jobs = jobs.clone();
            // Without a thread the jobs are dropped, and every password is wrong.
            let _ = thread::Builder::new().name(format!("password-{number}")).spawn(move || work(&jobs));
        }
        sender
    })
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A client that is gone gets no answer.
        if !job.answer.is_closed() {
            let _ = job.answer.send(verify(&job.hash, &job.password));
        }
    }
}

/// Whether a password has a hash: bcrypt, Apache's MD5, SHA-crypt, or one of nginx's `{SHA}`, `{SSHA}` and `{PLAIN}`.
pub(crate) fn verify(hash: &str, password: &[u8]) -> bool {
    let same = |own: &[u8], other: &[u8]| verify_slices_are_equal(own, other).is_ok();
    if let Some(encoded) = hash.strip_prefix("{SHA}") {
        return sha1(encoded, password, 20);
    }
    if let Some(encoded) = hash.strip_prefix("{SSHA}") {
        return sha1(encoded, password, usize::MAX);
    }
    if let Some(plain) = hash.strip_prefix("{PLAIN}") {
        return same(plain.as_bytes(), password);
    }
    match hash.split('$').nth(1) {
        Some("2a" | "2b" | "2x" | "2y") => bcrypt::verify(password, hash).unwrap_or(false),
        Some(kind @ ("apr1" | "1")) => {
            let salt = hash.split('$').nth(2).unwrap_or_default();
            same(md5_crypt(kind, salt, password).as_bytes(), hash.as_bytes())
        }
        Some("5" | "6") => {
            use sha_crypt::PasswordVerifier;
            sha_crypt::ShaCrypt::default().verify_password(password, hash).is_ok()
        }
        _ => false,
    }
}

/// Whether a password has this SHA-1, in Base64, followed by a salt, `most` bytes in all at most.
fn sha1(encoded: &str, password: &[u8], most: usize) -> bool {
    let Ok(decoded) = STANDARD.decode(encoded) else { return false };
    if decoded.len() > most {
        return false;
    }
    let Some((hash, salt)) = decoded.split_at_checked(20) else { return false };
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(password);
    context.update(salt);
    verify_slices_are_equal(context.finish().as_ref(), hash).is_ok()
}

/// The hash of Poul-Henning Kamp's MD5-crypt, which Apache calls apr1.
fn md5_crypt(kind: &str, salt: &str, password: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let salt = &salt.as_bytes()[..salt.len().min(8)];
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut first = Md5::new().chain_update(password).chain_update(format!("${kind}$")).chain_update(salt);
    for chunk in password.chunks(16) {
        first.update(&inner[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { &[0] } else { &password[..1] });
        bits >>= 1;
    }
    let mut hash = first.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        if round % 2 == 1 {
            next.update(password);
        } else {
            next.update(hash);
        }
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        if round % 2 == 1 {
            next.update(hash);
        } else {
            next.update(password);
        }
        hash = next.finalize();
    }
    let mut text = format!("${kind}${}$", String::from_utf8_lossy(salt));
    let mut put = |mut bits: u32, digits: usize| {
        for _ in 0..digits {
            text.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
    };
    for [a, b, c] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        put(u32::from(hash[a]) << 16 | u32::from(hash[b]) << 8 | u32::from(hash[c]), 4);
    }
    put(u32::from(hash[11]), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with htpasswd, `openssl passwd` and Python's hashlib.
    const HASHES: [&str; 8] = [
        "$apr1$abcdefgh$sAT51V/DnRGRtxDJCf7lm/",
        "$1$xyz$Clz5bWWBti5o6GhqWnkZj0",
        "$5$saltsalt$TMstmfyDkEKUzCM2cfg8cAVXyYwWzO5hkmSBo1emCg6",
        "$6$saltsalt$Gbd7qCDlJSddZ9S5ri9ajiQJKxrbcZm6VQVUgvH3MPS64F04DY8tRDK9uBQT/2Mr1LV40gv.JBbSMCRKp6QE21",
        "{SHA}PDUC6jG3V40qqE4XqHRFLkyoMVM=",
        "{SSHA}7W4JKX9KI7irqSOG3ZU2aq34RyxzYWx0",
        "{PLAIN}secret word",
        "$2b$04$abcdefghijklmnopqrstuuP6/q0obcGuk6SuzN66aTZwHeRCLMzKO",
    ];

    #[test]
    fn passwords_are_checked_against_each_kind_of_hash() {
        for hash in HASHES {
            assert!(verify(hash, b"secret word"), "{hash}");
            for wrong in [&b""[..], b"secret", b"secret word ", b"\0"] {
                assert!(!verify(hash, wrong), "{hash}");
            }
        }
    }

    #[test]
    fn what_is_no_hash_has_no_password() {
        for hash in [
            "",
            "secret word",
            "$",
            "$9$x$y",
            "$2y$",
            "$apr1$",
            "$6$",
            "{SHA}",
            "{SHA}???",
            "{SSHA}QUJD",
            "abJnggxhB/yWI",
        ] {
            assert!(!verify(hash, b"secret word") && !verify(hash, b""), "{hash}");
        }
    }

    #[tokio::test]
    async fn what_was_right_is_known_and_a_password_that_is_too_long_is_not_checked() {
        let passwords = Passwords::default();
        let hash: Arc<str> = "{PLAIN}a".into();
        let client = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(passwords.check(client, &hash, b"b", || true).await, Some(false));
        assert!(passwords.known.borrow().is_empty());
        assert_eq!(passwords.check(client, &hash, b"a", || true).await, Some(true));
        assert_eq!(passwords.known.borrow().len(), 1);
        let hash_of_other: Arc<str> = "{PLAIN}c".into();
        assert_eq!(passwords.check(client, &hash, b"a", || false).await, Some(true), "it needs no try");
        assert_eq!(passwords.check(client, &hash_of_other, b"c", || false).await, None);
        assert_eq!(passwords.check(client, &"{PLAIN}b".into(), b"a", || true).await, Some(false));
        assert_eq!(passwords.check(client, &hash, &[b'a'; PASSWORD + 1], || true).await, Some(false));
    }

    #[test]
    fn a_client_has_a_share_of_the_queue() {
        let of = |text: &str| CountedClient::from(text.parse::<IpAddr>().expect("an address"));
        let mut shares: Vec<Share> =
            (0..PASSWORD_SHARE).map(|_| Share::take(of("2001:db8::1")).expect("a share")).collect();
        assert!(Share::take(of("2001:db8::2")).is_none(), "the same network");
        assert!(Share::take(of("2001:db8:0:1::1")).is_some() && Share::take(of("198.51.100.7")).is_some());
        shares.pop();
        assert!(Share::take(of("2001:db8::2")).is_some());
        drop(shares);
        assert!(SHARES.lock().expect("no panic").keys().all(|client| *client != of("2001:db8::1")), "nothing is left");
    }
}
