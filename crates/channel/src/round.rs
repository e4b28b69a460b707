//! A round: the resources of a change, cut into messages of bounded size, and put together again.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::limit::{COMPRESS, MESSAGE, PIECE, RESOURCE};
use crate::message::{FromController, Piece};
use crate::resource::{Encoded, Unreadable, Version};

/// Cuts a round into messages, one after another: only one is in memory at a time.
pub(crate) struct Cut<R, N> {
    nonce: u64,
    resources: R,
    removals: N,
    /// What is left of the resource that did not fit.
    rest: Option<Rest>,
    ended: bool,
}

struct Rest {
    name: String,
    version: Bytes,
    body: Bytes,
    compressed: bool,
    base: Bytes,
}

impl<R: Iterator<Item = Encoded>, N: Iterator<Item = String>> Cut<R, N> {
    pub(crate) fn new(nonce: u64, resources: R, removals: N) -> Self {
        Self { nonce, resources, removals, rest: None, ended: false }
    }
}

impl<R: Iterator<Item = Encoded>, N: Iterator<Item = String>> Iterator for Cut<R, N> {
    type Item = FromController;

    fn next(&mut self) -> Option<FromController> {
        if self.ended {
            return None;
        }
        let mut message = FromController { nonce: self.nonce, ..FromController::default() };
        let mut size = 0;
        while size < MESSAGE {
            let Some(mut rest) = self.rest.take().or_else(|| self.resources.next().map(Rest::new)) else { break };
            let body = rest.body.split_to(rest.body.len().min(PIECE));
            let more = !rest.body.is_empty();
            size += rest.name.len() + body.len() + 32;
            message.pieces.push(Piece {
                name: rest.name.clone(),
                version: rest.version.clone(),
                body,
                compressed: rest.compressed,
                more,
                base: rest.base.clone(),
            });
            self.rest = more.then_some(rest);
        }
        while size < MESSAGE {
            let Some(name) = self.removals.next() else {
                message.last = true;
                self.ended = true;
                break;
            };
            size += name.len() + 8;
            message.removals.push(name);
        }
        Some(message)
    }
}

impl Rest {
    fn new(Encoded { name, version, body, base }: Encoded) -> Self {
        let bytes = |version: Version| Bytes::copy_from_slice(version.as_bytes());
        let (body, compressed) = match compressed(&body) {
            Some(small) => (small, true),
            None => (body, false),
        };
        Self {
            name: name.as_ref().to_owned(),
            version: bytes(version),
            body: body.into(),
            compressed,
            base: base.map(bytes).unwrap_or_default(),
        }
    }
}

thread_local! {
    // One for all resources: its state takes 380 KB, aligned to a cache line, and glibc doesn't reuse freed memory of such a size for the
    // next one as long as something small lies in between. A controller with 10,000 hosts would keep 500 MB.
    static DEFLATE: RefCell<Compress> = RefCell::new(new_deflate());
    static INFLATE: RefCell<Decompress> = RefCell::new(Decompress::new(true));
}

/// The body in a smaller form, if it has one.
fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < COMPRESS {
        return None;
    }
    // More than any body takes: zlib-rs 0.6 corrupts the next one if this one is not finished.
    let mut small = Vec::with_capacity(body.len() + body.len() / 8 + 64);
    DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        let ended = deflate.compress_vec(body, &mut small, FlushCompress::Finish);
        if !matches!(ended, Ok(Status::StreamEnd)) {
            *deflate = new_deflate();
            small.clear();
        }
    });
    small.shrink_to_fit();
    Some(small).filter(|small| !small.is_empty() && small.len() < body.len())
}

fn new_deflate() -> Compress {
    Compress::new(Compression::fast(), true)
}

/// The body as it was before it was compressed.
fn inflated(small: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut body = Vec::with_capacity((4 * small.len()).clamp(COMPRESS, RESOURCE));
    INFLATE.with_borrow_mut(|inflate| {
        inflate.reset(true);
        loop {
            let rest = &small[usize::try_from(inflate.total_in()).unwrap_or(small.len())..];
            let status = inflate.decompress_vec(rest, &mut body, FlushDecompress::None);
            if body.len() > RESOURCE {
                return Err(Unreadable::TooLarge);
            }
            match status {
                Ok(Status::StreamEnd) => return Ok(()),
                Ok(_) if body.len() == body.capacity() => body.reserve_exact(body.len().min(RESOURCE + 1 - body.len())),
                // It ends too early, or is something else.
                _ => return Err(Unreadable::Decompress),
            }
        }
    })?;
    Ok(body)
}

/// Puts the pieces of a round together.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    /// The resource whose pieces are arriving.
    open: Option<Gathered>,
}

/// A resource all of whose pieces have arrived.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) name: String,
    pub(crate) version: Version,
    /// The version that the body is a patch of.
    pub(crate) base: Option<Version>,
    body: Vec<u8>,
    compressed: bool,
    too_large: bool,
}

/// A peer that does not keep to the protocol; the connection ends.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the peer does not keep to the protocol: {0}")]
pub(crate) struct Violation(pub(crate) &'static str);

impl Gather {
    /// Takes a piece. Returns the resource that it completes.
    pub(crate) fn take(&mut self, piece: Piece) -> Result<Option<Gathered>, Violation> {
        let version = Version::from_bytes(&piece.version).ok_or(Violation("a version has another length"))?;
        let mut open = match self.open.take() {
            Some(open) if open.name == piece.name && open.version == version => open,
            Some(_) => return Err(Violation("a resource ends in the middle")),
            None => Gathered {
                name: piece.name,
                version,
                base: Version::from_bytes(&piece.base),
                body: Vec::new(),
                compressed: piece.compressed,
                too_large: false,
            },
        };
        if open.body.len() + piece.body.len() > RESOURCE {
            open.too_large = true;
            open.body = Vec::new();
        } else if !open.too_large {
            open.body.extend_from_slice(&piece.body);
        }
        if piece.more {
            self.open = Some(open);
            return Ok(None);
        }
        Ok(Some(open))
    }

    /// Whether a resource is incomplete.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

impl Gathered {
    /// The body as it was before it was compressed.
    pub(crate) fn body(self) -> Result<Vec<u8>, Unreadable> {
        if self.too_large {
            return Err(Unreadable::TooLarge);
        }
        if !self.compressed {
            return Ok(self.body);
        }
        inflated(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::LARGEST_MESSAGE;
    use proptest::prelude::*;
    use prost::Message;

    fn encoded(number: usize, body: Vec<u8>) -> Encoded {
        Encoded { name: format!("r{number}").into(), version: Version::of(&body), body, base: None }
    }

    /// Bytes that don't compress, or bytes that do.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![0..2000usize, 0..3 * PIECE, MESSAGE..2 * MESSAGE];
        (length, any::<bool>(), any::<u32>()).prop_map(|(length, plain, seed)| {
            let mut state = seed | 1;
            let mut random = move || {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state as u8
            };
            (0..length).map(|_| if plain { b'a' } else { random() }).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_cut_is_put_together(bodies in prop::collection::vec(body(), 0..6), gone in 0..40_000usize) {
            let sent: Vec<_> = bodies.into_iter().enumerate().map(|(number, body)| encoded(number, body)).collect();
            let names: Vec<_> = (0..gone).map(|number| format!("gone/{number}")).collect();
            let (mut got, mut removed, mut ended) = (Vec::new(), Vec::new(), false);
            let mut gather = Gather::default();
            for message in Cut::new(7, sent.iter().cloned(), names.iter().cloned()) {
                prop_assert!(message.encoded_len() <= LARGEST_MESSAGE && !ended && message.nonce == 7);
                for piece in message.pieces {
                    if let Some(whole) = gather.take(piece).unwrap() {
                        let (name, version) = (whole.name.as_str().into(), whole.version);
                        got.push(Encoded { name, version, body: whole.body().unwrap(), base: None });
                    }
                }
                removed.extend(message.removals);
                ended = message.last;
            }
            prop_assert!(ended && !gather.is_open());
            prop_assert_eq!(got, sent);
            prop_assert_eq!(removed, names);
        }
    }

    #[test]
    fn the_state_of_a_compressor_is_not_made_for_each_resource() {
        let body = vec![b'a'; 2 * COMPRESS];
        let small = compressed(&body).unwrap();
        assert_eq!(inflated(&small).unwrap(), body);
        let used = allocation_counter::measure(|| {
            let _ = (compressed(&body), inflated(&small));
        });
        assert!(used.bytes_total < 16 << 10, "{} bytes", used.bytes_total);
    }

    #[test]
    fn what_ends_too_early_or_is_something_else_is_refused() {
        let small = compressed(&[b'a'; 2 * COMPRESS]).unwrap();
        for wrong in [&small[..small.len() - 1], &small[..1], b"", b"something else"] {
            assert!(matches!(inflated(wrong), Err(Unreadable::Decompress)));
            assert_eq!(inflated(&small).unwrap(), [b'a'; 2 * COMPRESS], "the next one is read all the same");
        }
    }

    #[test]
    fn a_bomb_is_refused_and_costs_no_more_than_a_resource_may() {
        let body = vec![b'a'; RESOURCE + 1];
        let pieces =
            Cut::new(1, std::iter::once(encoded(0, body)), std::iter::empty()).flat_map(|message| message.pieces);
        let mut gather = Gather::default();
        let whole = pieces.filter_map(|piece| gather.take(piece).unwrap()).last().unwrap();
        assert!(matches!(whole.body(), Err(Unreadable::TooLarge)));
    }

    #[test]
    fn pieces_of_two_resources_do_not_mix() {
        let piece = |name: &str| Piece {
            name: name.to_owned(),
            version: Bytes::copy_from_slice(Version::of(b"").as_bytes()),
            more: true,
            ..Piece::default()
        };
        let mut gather = Gather::default();
        assert!(gather.take(piece("a")).unwrap().is_none());
        assert!(gather.take(piece("b")).is_err());
    }
}
