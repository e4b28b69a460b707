//! Answers of authentication services that a worker keeps for later requests (`auth-cache-key`).
//!
//! Bounded in number and bytes: when there is no room, all are forgotten, and the services are asked again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use fairway_model::{AuthAnswer, AuthGiven, ConfiguredName};

use crate::limit::{AUTH_ANSWERS, AUTH_ANSWERS_BYTES};
use crate::timer::Millis;

/// Longest key that is kept as it is. Cookies of sessions are often longer.
// No limit: the digest of a longer one takes its place.
const LONGEST: usize = 256;

/// The key that requests with the same answer share, as bytes: built in reused memory, and copied only to be kept.
#[derive(Debug)]
pub(crate) struct AuthKey(Vec<u8>);

impl AuthKey {
    /// An empty key in this memory.
    pub(crate) fn in_memory(mut memory: Vec<u8>) -> Self {
        memory.clear();
        // A digest begins with another byte.
        memory.push(0);
        Self(memory)
    }

    /// Adds a part, which can't be mistaken for a piece of another.
    ///
    /// # Errors
    /// Those of `write`.
    pub(crate) fn add<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let at = self.0.len();
        self.0.extend_from_slice(&0u64.to_be_bytes());
        let start = self.0.len();
        write(&mut self.0)?;
        let length = (self.0.len() - start) as u64;
        self.0[at..start].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Adds a text.
    pub(crate) fn add_text(&mut self, text: &str) {
        self.0.extend_from_slice(&(text.len() as u64).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Makes it ready for use.
    pub(crate) fn complete(&mut self) {
        if self.0.len() > LONGEST {
            let digest = digest(&SHA256, &self.0);
            self.0.clear();
            self.0.push(1);
            self.0.extend_from_slice(digest.as_ref());
        }
    }

    /// The memory.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        self.0
    }
}

/// An answer, and what it contributes to other messages.
#[derive(Clone, Debug)]
pub(crate) struct KeptAnswer {
    /// What the service said.
    pub(crate) answer: AuthAnswer,
    /// Fields for the backend.
    pub(crate) given: Option<Arc<AuthGiven>>,
    /// How the client is to authenticate.
    pub(crate) challenge: Vec<(ConfiguredName, Box<str>)>,
}

/// The answers that one worker keeps.
#[derive(Debug, Default)]
pub(crate) struct AuthAnswers(RefCell<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// By key, hashed as the standard library does, since clients choose what is in it.
    answers: HashMap<Box<[u8]>, (Millis, KeptAnswer)>,
    bytes: usize,
}

impl AuthAnswers {
    /// The answer for a key, if there is one that is still valid.
    pub(crate) fn find(&self, key: &AuthKey, now: Millis) -> Option<KeptAnswer> {
        let kept = self.0.borrow();
        kept.answers.get(&*key.0).filter(|(until, _)| now < *until).map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer until `until`.
    pub(crate) fn keep(&self, key: &AuthKey, answer: KeptAnswer, now: Millis, until: Millis) {
        let size = key.0.len() + answer.size();
        if size > AUTH_ANSWERS_BYTES {
            return;
        }
        let mut kept = self.0.borrow_mut();
        if kept.answers.len() >= AUTH_ANSWERS || kept.bytes + size > AUTH_ANSWERS_BYTES {
            kept.answers.retain(|_, (until, _)| now < *until);
            kept.bytes = kept.answers.iter().map(|(key, (_, answer))| key.len() + answer.size()).sum();
        }
        if kept.answers.len() >= AUTH_ANSWERS || kept.bytes + size > AUTH_ANSWERS_BYTES {
            *kept = Kept::default();
        }
        kept.bytes += size;
        if let Some((_, before)) = kept.answers.insert(key.0.as_slice().into(), (until, answer)) {
            kept.bytes = kept.bytes.saturating_sub(key.0.len() + before.size());
        }
    }
}

impl KeptAnswer {
    fn size(&self) -> usize {
        let challenge: usize = self.challenge.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        size_of::<(Box<[u8]>, Millis, Self)>() + challenge + self.given.as_ref().map_or(0, |given| given.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(challenge: usize) -> KeptAnswer {
        let name = ConfiguredName::try_from("WWW-Authenticate").unwrap();
        let challenge = vec![(name, "x".repeat(challenge).into())];
        KeptAnswer { answer: AuthAnswer::Allowed, given: None, challenge }
    }

    fn key(number: usize) -> AuthKey {
        of(&["a", &number.to_string()])
    }

    fn of(texts: &[&str]) -> AuthKey {
        let mut key = AuthKey::in_memory(b"memory of another".to_vec());
        texts.iter().for_each(|text| key.add_text(text));
        key.complete();
        key
    }

    #[test]
    fn an_answer_counts_until_its_time_has_passed() {
        let answers = AuthAnswers::default();
        answers.keep(&key(1), answer(1), 10, 20);
        assert!(answers.find(&key(1), 19).is_some() && answers.find(&key(1), 20).is_none());
        assert!(answers.find(&key(2), 10).is_none());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(of(&["ab", "c"]).0, of(&["a", "bc"]).0);
        let mut written = AuthKey::in_memory(Vec::new());
        written.add_text("ab");
        let wrote: Result<(), ()> = written.add(|out| {
            out.extend_from_slice(b"c");
            Ok(())
        });
        assert!(wrote.is_ok() && written.0 == of(&["ab", "c"]).0);
    }

    #[test]
    fn a_long_key_takes_little_memory_and_is_no_other() {
        let long = "x".repeat(4000);
        let (one, other) = (of(&[&long, "a"]), of(&[&long, "b"]));
        assert!(one.0.len() < 64 && one.0 != other.0);
        assert_eq!(one.0, of(&[&long, "a"]).0);
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let answers = AuthAnswers::default();
        for number in 0..3 * AUTH_ANSWERS {
            answers.keep(&key(number), answer(1), 0, 10);
            assert!(answers.0.borrow().answers.len() <= AUTH_ANSWERS);
        }
        assert!(answers.find(&key(3 * AUTH_ANSWERS - 1), 0).is_some());
        for number in 0..100 {
            answers.keep(&key(number), answer(AUTH_ANSWERS_BYTES / 10), 0, 10);
            assert!(answers.0.borrow().bytes <= AUTH_ANSWERS_BYTES);
        }
        assert!(answers.find(&key(99), 0).is_some());
        answers.keep(&key(1), answer(AUTH_ANSWERS_BYTES), 0, 10);
        assert!(answers.find(&key(99), 0).is_some(), "one that never fits costs the others nothing");
    }
}
