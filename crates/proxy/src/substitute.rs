//! Replaces texts in a body that arrives in pieces, as nginx's `sub_filter` does: ignoring case, and never within a replacement.
//!
//! Invariant: it holds back fewer bytes than the longest text has, and only what may be the beginning of a text.

use std::fmt;

/// Replaces texts in one body.
pub(crate) struct Substituter {
    /// Lower-case texts, and their replacements.
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes that a text begins with.
    starts: [bool; 256],
    once: bool,
    /// The most bytes that may replace one.
    growth: usize,
    /// Whether the rest of the body stays as it is.
    done: bool,
    held: Vec<u8>,
}

impl Substituter {
    /// Replaces these texts, or with `once` the first occurrence of any. None of the texts is empty.
    pub(crate) fn new(pairs: Vec<(Vec<u8>, Vec<u8>)>, once: bool) -> Self {
        let pairs: Vec<_> = pairs.into_iter().map(|(from, to)| (from.to_ascii_lowercase(), to)).collect();
        let mut starts = [false; 256];
        for (from, _) in &pairs {
            if let Some(&first) = from.first() {
                starts[usize::from(first)] = true;
                starts[usize::from(first.to_ascii_uppercase())] = true;
            }
        }
        let growth =
            pairs.iter().map(|(from, to)| to.len().div_ceil(from.len().max(1))).max().unwrap_or_default().max(1);
        Self { pairs, starts, once, growth, done: false, held: Vec::new() }
    }

    /// How much of the body to write at once for about `most` bytes of output.
    pub(crate) fn step(&self, most: usize) -> usize {
        if self.done { most } else { (most / self.growth).max(1) }
    }

    /// Passes more of the body on.
    pub(crate) fn write(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if self.done {
            out.extend_from_slice(data);
            return;
        }
        let held;
        let text = if self.held.is_empty() {
            data
        } else {
            self.held.extend_from_slice(data);
            held = std::mem::take(&mut self.held);
            &held
        };
        let kept = self.pass(text, out);
        self.held.extend_from_slice(kept);
    }

    /// Passes on what was held back, at the end of the body.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    /// Passes a text on except for its end, if that may be the beginning of something to replace.
    fn pass<'t>(&mut self, mut text: &'t [u8], out: &mut Vec<u8>) -> &'t [u8] {
        while let Some(at) = text.iter().position(|&byte| self.starts[usize::from(byte)]) {
            out.extend_from_slice(&text[..at]);
            text = &text[at..];
            let begins = |from: &[u8], len: usize| text[..len].eq_ignore_ascii_case(&from[..len]);
            let found = self.pairs.iter().find(|(from, _)| text.len() >= from.len() && begins(from, from.len()));
            if let Some((from, to)) = found {
                out.extend_from_slice(to);
                text = &text[from.len()..];
                if self.once {
                    self.done = true;
                    break;
                }
            } else if self.pairs.iter().any(|(from, _)| text.len() < from.len() && begins(from, text.len())) {
                return text;
            } else {
                out.push(text[0]);
                text = &text[1..];
            }
        }
        out.extend_from_slice(text);
        &[]
    }
}

impl fmt::Debug for Substituter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substituter").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replaced(pairs: &[(&str, &str)], once: bool, pieces: &[&[u8]]) -> String {
        let pairs = pairs.iter().map(|(from, to)| (from.as_bytes().to_vec(), to.as_bytes().to_vec())).collect();
        let (mut substituter, mut out) = (Substituter::new(pairs, once), Vec::new());
        for piece in pieces {
            substituter.write(piece, &mut out);
        }
        substituter.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_are_replaced_in_any_case_and_what_is_put_in_stays() {
        let pairs = [("</head>", "<x></head>"), ("a", "b"), ("b", "c")];
        assert_eq!(replaced(&pairs, false, &[b"<HEAD>A</Head>b"]), "<HEbD>b<x></head>c");
        assert_eq!(replaced(&pairs, true, &[b"x</heAd></head>a"]), "x<x></head></head>a");
        assert_eq!(replaced(&pairs, false, &[b"</he", b"a", b"d>", b"</he"]), "<x></head></he");
        assert_eq!(replaced(&[("ab", ""), ("abc", "x")], false, &[b"abcab"]), "c");
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let (mut substituter, mut out) = (Substituter::new(vec![(b"</head>".to_vec(), Vec::new())], false), Vec::new());
        for (piece, so_far) in [("data: 1\n\n", "data: 1\n\n"), ("<", "data: 1\n\n"), ("/hex", "data: 1\n\n</hex")] {
            substituter.write(piece.as_bytes(), &mut out);
            assert_eq!(out, so_far.as_bytes());
        }
    }

    #[test]
    fn a_step_is_short_where_texts_grow() {
        let with = |to: usize, once| Substituter::new(vec![(b"ab".to_vec(), vec![b'x'; to])], once);
        assert_eq!(with(2, false).step(16_384), 16_384);
        assert_eq!(with(0, false).step(16_384), 16_384);
        assert_eq!(with(8_000, false).step(16_384), 4);
        assert_eq!(with(1 << 20, false).step(16_384), 1);
        let mut once = with(8_000, true);
        once.write(b"ab", &mut Vec::new());
        assert_eq!(once.step(16_384), 16_384);
    }

    proptest! {
        #[test]
        fn the_pieces_make_no_difference(text in "[abAB]{0,40}", cuts in prop::collection::vec(0usize..40, 0..6), once: bool) {
            let pairs = [("aba", "<"), ("bb", ">"), ("b", "")];
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&text.as_bytes()[from..]);
            // A shorter text that is complete wins over a longer one that has only begun, so texts here don't share a start.
            let apart = [pairs[0], pairs[1]];
            prop_assert_eq!(replaced(&apart, once, &pieces), replaced(&apart, once, &[text.as_bytes()]));
        }
    }
}
