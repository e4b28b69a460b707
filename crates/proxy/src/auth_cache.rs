//! Answers of authentication services that a worker keeps for later requests (`auth-cache-key`).
//!
//! Bounded in number and bytes: when there is no room, all are forgotten, and the services are asked again.

use std::cell::RefCell;
use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};
use fairway_model::{AuthAnswer, AuthGiven, ConfiguredName};

use crate::limit::{AUTH_ANSWERS, AUTH_ANSWERS_BYTES};
use crate::timer::Millis;

/// What requests have in common that share an answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct AuthKey([u8; 32]);

impl AuthKey {
    /// The key of these parts, none of which can pass for a piece of another.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        Self(key)
    }
}

/// An answer, and what it contributes to other messages.
#[derive(Clone, Debug)]
pub(crate) struct KeptAnswer {
    /// What the service said.
    pub(crate) answer: AuthAnswer,
    /// Fields for the backend.
    pub(crate) given: Option<Box<AuthGiven>>,
    /// How the client is to authenticate.
    pub(crate) challenge: Vec<(ConfiguredName, Box<str>)>,
}

/// The answers that one worker keeps.
#[derive(Debug, Default)]
pub(crate) struct AuthAnswers(RefCell<Kept>);

#[derive(Debug, Default)]
struct Kept {
    answers: HashMap<AuthKey, (Millis, KeptAnswer)>,
    bytes: usize,
}

impl AuthAnswers {
    /// The answer for a key, if there is one that still counts.
    pub(crate) fn find(&self, key: &AuthKey, now: Millis) -> Option<KeptAnswer> {
        let kept = self.0.borrow();
        kept.answers.get(key).filter(|(until, _)| now < *until).map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer until then.
    pub(crate) fn keep(&self, key: AuthKey, answer: KeptAnswer, now: Millis, until: Millis) {
        let size = answer.size();
        if size > AUTH_ANSWERS_BYTES {
            return;
        }
        let mut kept = self.0.borrow_mut();
        if kept.answers.len() >= AUTH_ANSWERS || kept.bytes + size > AUTH_ANSWERS_BYTES {
            kept.answers.retain(|_, (until, _)| now < *until);
            kept.bytes = kept.answers.values().map(|(_, answer)| answer.size()).sum();
        }
        if kept.answers.len() >= AUTH_ANSWERS || kept.bytes + size > AUTH_ANSWERS_BYTES {
            *kept = Kept::default();
        }
        kept.bytes += size;
        if let Some((_, before)) = kept.answers.insert(key, (until, answer)) {
            kept.bytes = kept.bytes.saturating_sub(before.size());
        }
    }
}

impl KeptAnswer {
    fn size(&self) -> usize {
        let challenge: usize = self.challenge.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        size_of::<(AuthKey, Millis, Self)>() + challenge + self.given.as_ref().map_or(0, |given| given.size())
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
        AuthKey::of([&b"a"[..], &number.to_be_bytes()])
    }

    #[test]
    fn an_answer_counts_until_its_time_has_passed() {
        let answers = AuthAnswers::default();
        answers.keep(key(1), answer(1), 10, 20);
        assert!(answers.find(&key(1), 19).is_some() && answers.find(&key(1), 20).is_none());
        assert!(answers.find(&key(2), 10).is_none());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(AuthKey::of([&b"ab"[..], b"c"]), AuthKey::of([&b"a"[..], b"bc"]));
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let answers = AuthAnswers::default();
        for number in 0..3 * AUTH_ANSWERS {
            answers.keep(key(number), answer(1), 0, 10);
            assert!(answers.0.borrow().answers.len() <= AUTH_ANSWERS);
        }
        assert!(answers.find(&key(3 * AUTH_ANSWERS - 1), 0).is_some());
        for number in 0..100 {
            answers.keep(key(number), answer(AUTH_ANSWERS_BYTES / 10), 0, 10);
            assert!(answers.0.borrow().bytes <= AUTH_ANSWERS_BYTES);
        }
        assert!(answers.find(&key(99), 0).is_some());
        answers.keep(key(1), answer(AUTH_ANSWERS_BYTES), 0, 10);
        assert!(answers.find(&key(99), 0).is_some(), "one that never fits costs the others nothing");
    }
}
