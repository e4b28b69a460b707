//! Encoders of response bodies, gzip and Brotli, and those that a worker keeps.
//!
//! Invariant: a worker has at most [`COMPRESSED`] encoders, whose memory is what compression costs.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Write;
use std::rc::Rc;

use brotli::CompressorWriter;
use fairway_model::{Coding, CodingRules, Compression};
use flate2::{Compress, FlushCompress, Status};

use crate::limit::{COMPRESSED, KEPT_ENCODERS};
use crate::substitute::Substituter;

/// Base-2 logarithm of gzip's window in bytes; the maximum.
// No limit: a part of the algorithm.
const GZIP_WINDOW: u8 = 15;

/// The same for Brotli: 512 KiB, as in nginx's module. Its maximum, 16 MiB, would need as much memory for each response.
// No limit: a part of the algorithm.
const BROTLI_WINDOW: u32 = 19;

/// Room for output that is added at a time.
// No limit: output grows as far as one piece of input needs.
const STEP: usize = 4 << 10;

/// The encoders of one worker.
#[derive(Debug, Default)]
pub(crate) struct Encoders {
    in_use: Cell<usize>,
    /// Those of gzip that are kept, and their level. They are large, and clearing one is cheaper than making it.
    kept: RefCell<(u8, Vec<Compress>)>,
}

impl Encoders {
    /// An encoder for a response; `None` if the maximum number is in use, or if the coding is off by now.
    pub(crate) fn lend(self: &Rc<Self>, coding: Coding, rules: &Compression) -> Option<Encoder> {
        if self.in_use.get() >= COMPRESSED {
            return None;
        }
        let kind = match coding {
            Coding::Gzip => {
                let rules = rules.gzip.as_ref()?;
                Kind::Gzip(rules.level, self.gzip(rules))
            }
            Coding::Brotli => {
                let level = rules.brotli.as_ref()?.level.into();
                Kind::Brotli(Box::new(CompressorWriter::new(Vec::new(), STEP, level, BROTLI_WINDOW)))
            }
        };
        self.in_use.set(self.in_use.get() + 1);
        Some(Encoder { kind: Some(kind), substituter: None, out: Vec::new(), home: Some(self.clone()) })
    }

    fn gzip(&self, rules: &CodingRules) -> Compress {
        let (level, kept) = &mut *self.kept.borrow_mut();
        if *level != rules.level {
            (*level, *kept) = (rules.level, Vec::new());
        }
        kept.pop().unwrap_or_else(|| Compress::new_gzip(flate2::Compression::new(rules.level.into()), GZIP_WINDOW))
    }

    fn keep(&self, level: u8, mut gzip: Compress) {
        let (current, kept) = &mut *self.kept.borrow_mut();
        if *current == level && kept.len() < KEPT_ENCODERS {
            gzip.reset();
            kept.push(gzip);
        }
    }
}

/// Encodes one body.
pub(crate) struct Encoder {
    /// `None` once the body has ended.
    kind: Option<Kind>,
    /// Replaces texts before anything is encoded.
    substituter: Option<Box<Substituter>>,
    /// Output that was not taken yet.
    out: Vec<u8>,
    /// `None` if it needs no memory to speak of.
    home: Option<Rc<Encoders>>,
}

enum Kind {
    /// With its level.
    Gzip(u8, Compress),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    /// No coding.
    Plain,
}

impl Encoder {
    /// Replaces texts only.
    pub(crate) fn plain(substituter: Substituter) -> Self {
        let substituter = Some(Box::new(substituter));
        Self { kind: Some(Kind::Plain), substituter, out: Vec::new(), home: None }
    }

    /// Replaces texts before the body is encoded.
    pub(crate) fn substituting(mut self, substituter: Substituter) -> Self {
        self.substituter = Some(Box::new(substituter));
        self
    }

    /// How much of the body to write at once for about `most` bytes of output.
    pub(crate) fn step(&self, most: usize) -> usize {
        self.substituter.as_ref().map_or(most, |substituter| substituter.step(most))
    }

    /// Encodes more of the body.
    pub(crate) fn write(&mut self, data: &[u8]) {
        match self.substituter.take() {
            None => self.encode(data),
            Some(mut substituter) => {
                let mut text = Vec::with_capacity(data.len());
                substituter.write(data, &mut text);
                self.encode(&text);
                self.substituter = Some(substituter);
            }
        }
    }

    fn encode(&mut self, data: &[u8]) {
        match &mut self.kind {
            Some(Kind::Plain) => self.out.extend_from_slice(data),
            Some(Kind::Gzip(_, gzip)) => deflate(gzip, data, &mut self.out, FlushCompress::None),
            Some(Kind::Brotli(brotli)) => {
                // Writing to memory does not fail.
                let _ = brotli.write_all(data);
                self.out.append(brotli.get_mut());
            }
            None => debug_assert!(false, "the body has ended"),
        }
    }

    /// Completes the output for all the input so far.
    pub(crate) fn flush(&mut self) {
        match &mut self.kind {
            Some(Kind::Gzip(_, gzip)) => deflate(gzip, &[], &mut self.out, FlushCompress::Sync),
            Some(Kind::Brotli(brotli)) => {
                let _ = brotli.flush();
                self.out.append(brotli.get_mut());
            }
            Some(Kind::Plain) | None => {}
        }
    }

    /// Ends the body.
    pub(crate) fn finish(&mut self) {
        if let Some(mut substituter) = self.substituter.take() {
            let mut rest = Vec::new();
            substituter.finish(&mut rest);
            self.encode(&rest);
        }
        match self.kind.take() {
            Some(Kind::Gzip(level, mut gzip)) => {
                deflate(&mut gzip, &[], &mut self.out, FlushCompress::Finish);
                if let Some(home) = &self.home {
                    home.keep(level, gzip);
                }
            }
            Some(Kind::Brotli(brotli)) => self.out.append(&mut brotli.into_inner()),
            Some(Kind::Plain) | None => {}
        }
    }

    /// Whether the body has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.kind.is_none()
    }

    /// The output so far. The caller removes what it takes.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("out", &self.out.len()).finish_non_exhaustive()
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        home.in_use.set(home.in_use.get() - 1);
        if let Some(Kind::Gzip(level, mut gzip)) = self.kind.take() {
            // At level 1, zlib-rs 0.6 writes the next stream wrong if this one has no end. And encoders are kept because glibc can't reuse
            // the memory of their aligned state.
            deflate(&mut gzip, &[], &mut Vec::new(), FlushCompress::Finish);
            home.keep(level, gzip);
        }
    }
}

/// Passes `data` through gzip, with all output that `flush` asks for.
fn deflate(gzip: &mut Compress, mut data: &[u8], out: &mut Vec<u8>, flush: FlushCompress) {
    loop {
        out.reserve(STEP);
        let before = gzip.total_in();
        let Ok(status) = gzip.compress_vec(data, out, flush) else {
            debug_assert!(false, "only a stream that has ended takes no input");
            return;
        };
        data = &data[(gzip.total_in() - before) as usize..];
        let wants_room = out.len() == out.capacity();
        let wants_more = flush == FlushCompress::Finish && status != Status::StreamEnd;
        if data.is_empty() && !wants_room && !wants_more {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn rules(level: u8) -> Compression {
        let rules = CodingRules { level, min_length: 0, types: Vec::new(), disabled_for: None };
        Compression { gzip: Some(rules.clone()), brotli: Some(rules) }
    }

    fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        // Input that ends early fails, but what was flushed is there.
        let _ = match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
            Coding::Brotli => brotli::Decompressor::new(bytes, STEP).read_to_end(&mut out),
        };
        out
    }

    /// Bytes that compress a little, different from one number to the next.
    fn piece(number: usize, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * at % 251) as u8 ^ (number * 7 + at / 97) as u8).collect()
    }

    #[test]
    fn bodies_of_all_sizes_come_back() {
        let encoders = Rc::new(Encoders::default());
        for coding in [Coding::Gzip, Coding::Brotli] {
            for len in [0, 1, 100, STEP - 1, STEP, 100_000, 1 << 20] {
                let mut encoder = encoders.lend(coding, &rules(4)).unwrap();
                let mut body = Vec::new();
                for number in 0..3 {
                    let piece = piece(number, len);
                    encoder.write(&piece);
                    body.extend_from_slice(&piece);
                }
                encoder.finish();
                assert!(decoded(coding, encoder.output()) == body, "{coding:?} {len}");
            }
        }
    }

    #[test]
    fn what_is_flushed_can_be_read() {
        let encoders = Rc::new(Encoders::default());
        for coding in [Coding::Gzip, Coding::Brotli] {
            let mut encoder = encoders.lend(coding, &rules(1)).unwrap();
            for number in 1..20 {
                encoder.write(b"event");
                encoder.flush();
                assert_eq!(decoded(coding, encoder.output()).len(), 5 * number, "{coding:?}");
                let before = encoder.output().len();
                encoder.flush();
                assert_eq!(encoder.output().len(), before, "{coding:?}: nothing new to say");
            }
        }
    }

    #[test]
    fn a_body_that_was_given_up_leaves_nothing_in_the_next_one() {
        let encoders = Rc::new(Encoders::default());
        let body = piece(9, 1300);
        for level in 1..=9 {
            for len in [0, 10, 600, 5000, 70_000] {
                for flushes in [false, true] {
                    let mut given_up = encoders.lend(Coding::Gzip, &rules(level)).unwrap();
                    given_up.write(&piece(3, len));
                    if flushes {
                        given_up.flush();
                    }
                    drop(given_up);
                    let mut next = encoders.lend(Coding::Gzip, &rules(level)).unwrap();
                    next.write(&body);
                    next.finish();
                    assert!(decoded(Coding::Gzip, next.output()) == body, "level {level} after {len} bytes");
                }
            }
        }
    }

    #[test]
    fn a_worker_has_a_bounded_number_of_encoders() {
        let encoders = Rc::new(Encoders::default());
        let lent: Vec<_> = std::iter::from_fn(|| encoders.lend(Coding::Gzip, &rules(1))).take(COMPRESSED + 1).collect();
        assert_eq!(lent.len(), COMPRESSED);
        drop(lent);
        assert_eq!(encoders.kept.borrow().1.len(), KEPT_ENCODERS);
        let mut again = encoders.lend(Coding::Gzip, &rules(1)).unwrap();
        assert_eq!(encoders.kept.borrow().1.len(), KEPT_ENCODERS - 1);
        again.write(b"abc");
        again.finish();
        assert_eq!(decoded(Coding::Gzip, again.output()), b"abc", "nothing is left of the last body");
        assert!(encoders.lend(Coding::Gzip, &Compression::default()).is_none(), "the coding is off by now");
        drop(encoders.lend(Coding::Gzip, &rules(9)));
        assert_eq!(encoders.kept.borrow().1.len(), 1, "those of another level are gone");
    }
}
