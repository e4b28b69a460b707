//! The difference between two forms of a resource, for a proxy that has the first: one endpoint of a thousand changes more often than
//! all of them.
//!
//! The new text is described as parts of the old one with other text between them, found as in rsync: blocks of the old text are looked up
//! at each place of the new one. The result is checked against the version of the resource, so that a wrong base can do no harm.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;

use crate::limit::RESOURCE;
use crate::resource::Unreadable;

/// Bytes of a block: shorter than an endpoint in JSON, so that each endpoint has blocks of its own.
const BLOCK: usize = 24;

/// A patch is at most one part in this many of its result: compression would leave as little.
const SHARE: usize = 8;

/// About the bytes that a step takes besides its text.
const STEP: usize = 12;

/// The new text, from its beginning to its end.
#[derive(Clone, PartialEq, prost::Message)]
struct Patch {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<Step>,
}

/// Some new text, and then a part of the old one.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Step {
    #[prost(bytes = "bytes", tag = "1")]
    text: Bytes,
    #[prost(uint64, tag = "2")]
    from: u64,
    #[prost(uint64, tag = "3")]
    length: u64,
}

/// Without the text, which may hold keys.
impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} new bytes, then {} from {}", self.text.len(), self.length, self.from)
    }
}

/// The patch from `old` to `new`; `None` if it is longer than its share of `new`, which shows before all of that was searched.
pub(crate) fn between(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let most = new.len() / SHARE;
    // Only blocks that occur once identify their place.
    let mut blocks: HashMap<&[u8], Option<usize>> = HashMap::with_capacity(old.len() / BLOCK);
    for (number, block) in old.chunks_exact(BLOCK).enumerate() {
        blocks.entry(block).and_modify(|from| *from = None).or_insert(Some(number * BLOCK));
    }
    let mut steps = Vec::new();
    let (mut at, mut begin, mut size) = (0, 0, 0);
    while at < new.len() {
        if size + (at - begin) > most {
            return None;
        }
        let block = new.get(at..at + BLOCK).and_then(|block| blocks.get(block).copied().flatten());
        let Some(mut from) = block else {
            at += 1;
            continue;
        };
        while at > begin && from > 0 && old[from - 1] == new[at - 1] {
            (at, from) = (at - 1, from - 1);
        }
        let length = common(&old[from..], &new[at..]);
        size += at - begin + STEP;
        let text = Bytes::copy_from_slice(&new[begin..at]);
        steps.push(Step { text, from: from as u64, length: length as u64 });
        at += length;
        begin = at;
    }
    if begin < new.len() {
        steps.push(Step { text: Bytes::copy_from_slice(&new[begin..]), from: 0, length: 0 });
    }
    Some(Patch { steps }.encode_to_vec()).filter(|patch| patch.len() <= most)
}

/// The new text.
pub(crate) fn apply(old: &[u8], patch: &[u8]) -> Result<Vec<u8>, Unreadable> {
    if patch.len() > RESOURCE / SHARE {
        return Err(Unreadable::TooLarge);
    }
    let patch = Patch::decode(patch).map_err(|_| Unreadable::Patch)?;
    let mut new = Vec::new();
    for Step { text, from, length } in patch.steps {
        let from = usize::try_from(from).map_err(|_| Unreadable::Patch)?;
        let end = usize::try_from(length).ok().and_then(|length| from.checked_add(length));
        let part = end.and_then(|end| old.get(from..end)).ok_or(Unreadable::Patch)?;
        if new.len() + text.len() + part.len() > RESOURCE {
            return Err(Unreadable::TooLarge);
        }
        new.extend_from_slice(&text);
        new.extend_from_slice(part);
    }
    Ok(new)
}

/// The number of bytes with which both begin.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(numbers: &[u16]) -> Vec<u8> {
        let one =
            |number: &u16| format!("{{\"address\":\"10.0.{}.{}:80\",\"state\":\"Ready\"}}", number >> 8, number & 255);
        numbers.iter().map(one).collect::<Vec<_>>().join(",").into_bytes()
    }

    #[test]
    fn a_patch_has_about_the_size_of_the_change() {
        let all: Vec<u16> = (0..1000).collect();
        let mut other = all.clone();
        other.remove(700);
        other.insert(3, 5000);
        let (old, new) = (list(&all), list(&other));
        let patch = between(&old, &new).unwrap();
        assert_eq!(apply(&old, &patch).unwrap(), new);
        assert!(patch.len() < 150, "{} bytes for a change of {}", patch.len(), old.len());
    }

    #[test]
    fn a_patch_of_something_else_is_refused() {
        let all: Vec<u16> = (0..100).collect();
        let patch = between(&list(&all), &list(&all[1..])).unwrap();
        assert!(matches!(apply(b"short", &patch), Err(Unreadable::Patch)));
        assert!(matches!(apply(b"", b"\xff\xff\xff"), Err(Unreadable::Patch)));
        let far = Patch { steps: vec![Step { text: Bytes::new(), from: u64::MAX, length: 2 }] };
        assert!(matches!(apply(b"old", &far.encode_to_vec()), Err(Unreadable::Patch)));
    }

    #[test]
    fn a_patch_makes_nothing_that_is_larger_than_a_resource() {
        let old = vec![b'a'; RESOURCE / 2];
        let twice =
            |count| Patch { steps: vec![Step { text: Bytes::new(), from: 0, length: old.len() as u64 }; count] };
        assert_eq!(apply(&old, &twice(2).encode_to_vec()).unwrap().len(), RESOURCE);
        assert!(matches!(apply(&old, &twice(3).encode_to_vec()), Err(Unreadable::TooLarge)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn a_patch_makes_the_new_of_the_old(
            old in prop::collection::vec(0..60u16, 0..200),
            edits in prop::collection::vec((0..200usize, 0..60u16, 0..3u8), 0..4),
            end in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut new = old.clone();
            for (at, number, what) in edits {
                let at = at.min(new.len());
                match what {
                    0 => new.insert(at, number),
                    1 if at < new.len() => { new.remove(at); }
                    _ => new.rotate_left(at),
                }
            }
            let (old, mut new) = (list(&old), list(&new));
            new.extend_from_slice(&end);
            if let Some(patch) = between(&old, &new) {
                prop_assert!(patch.len() <= new.len() / SHARE);
                prop_assert_eq!(apply(&old, &patch).unwrap(), new);
            }
        }
    }
}
