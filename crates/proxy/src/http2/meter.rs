//! Reads frame headers as they pass, to count frames that cost work and lead to nothing.
//!
//! `h2` answers any number of PING and SETTINGS frames, takes any number of PRIORITY and WINDOW_UPDATE frames, and skips unknown ones. No
//! connection needs many more of these than it has responses.

/// Length of a frame's header (RFC 9113 4.1).
// No limit: part of the protocol.
const HEADER: usize = 9;

/// A frame's header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FrameHeader {
    pub(super) length: u32,
    pub(super) kind: u8,
    flags: u8,
}

/// The state of reading.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes until the next header.
    skip: u32,
    /// The header of a DATA frame whose padding length comes next.
    padded: Option<FrameHeader>,
    header: [u8; HEADER],
    filled: u8,
    /// Whether the frames of a head have begun but not ended.
    in_head: bool,
    /// Whether SETTINGS have arrived, in whole or in part.
    settles: bool,
    settled: bool,
    /// Whether a GOAWAY has begun to arrive.
    leaves: bool,
}

impl FrameHeader {
    /// The cost of a frame that advances no request, data or response. A SETTINGS may change every window.
    pub(super) fn cost(self) -> u32 {
        match self.kind {
            DATA if self.length == 0 => self.empty(),
            DATA | HEADERS => 0,
            SETTINGS | PING if self.flags & ACK != 0 => 0,
            SETTINGS => 10,
            // Frames that `h2` skips can be of any size.
            _ => 1 + self.length / 1024,
        }
    }

    /// The cost of DATA without data.
    fn empty(self) -> u32 {
        u32::from(self.flags & END_STREAM == 0)
    }

    /// Whether a padding length follows.
    fn is_padded_data(self) -> bool {
        self.kind == DATA && self.flags & PADDED != 0 && self.length > 0
    }

    /// For a frame with a head or a part of one, whether the head ends there.
    fn head(self) -> Option<bool> {
        matches!(self.kind, HEADERS | CONTINUATION).then_some(self.flags & END_HEADERS != 0)
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

impl Meter {
    /// A meter for a client's bytes, which begin with the preface.
    pub(super) fn new() -> Self {
        Self { skip: super::PREFACE.len() as u32, ..Self::of_server() }
    }

    /// A meter for a server's bytes, whose only preface is its SETTINGS.
    pub(super) fn of_server() -> Self {
        Self {
            skip: 0,
            padded: None,
            header: [0; HEADER],
            filled: 0,
            in_head: false,
            settles: false,
            settled: false,
            leaves: false,
        }
    }

    /// Reads `bytes` and returns the cost of the frames in them.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> u32 {
        let mut cost = 0u32;
        loop {
            if let (Some(header), [padding, ..]) = (self.padded, bytes) {
                // Padding alone is not data (RFC 9113 6.1).
                if u32::from(*padding) + 1 >= header.length {
                    cost = cost.saturating_add(header.empty());
                }
                self.padded = None;
            }
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            self.settled |= self.settles && self.skip == 0;
            if bytes.is_empty() {
                return cost;
            }
            let filled = usize::from(self.filled);
            let taken = bytes.len().min(HEADER - filled);
            self.header[filled..filled + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.filled += taken as u8;
            if usize::from(self.filled) < HEADER {
                return cost;
            }
            self.filled = 0;
            let [a, b, c, kind, flags, ..] = self.header;
            let header = FrameHeader { length: u32::from_be_bytes([0, a, b, c]), kind, flags };
            if let Some(ended) = header.head() {
                self.in_head = !ended;
            }
            self.settles |= kind == SETTINGS && flags & ACK == 0;
            self.leaves |= kind == GOAWAY;
            self.skip = header.length;
            self.padded = header.is_padded_data().then_some(header);
            cost = cost.saturating_add(header.cost());
        }
    }

    /// Whether the peer's first SETTINGS have arrived completely.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether the peer has announced that it takes no more streams.
    pub(super) fn leaves(&self) -> bool {
        self.leaves
    }

    /// Whether part of a head is still to come.
    pub(super) fn in_head(&self) -> bool {
        self.in_head || (self.skip > 0 && matches!(self.header[3], HEADERS | CONTINUATION))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: u32) -> Vec<u8> {
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(vec![7; length as usize]);
        bytes
    }

    #[test]
    fn what_brings_nothing_on_costs() {
        for (kind, flags, length, cost) in [
            (DATA, 0, 5, 0),
            (DATA, 0, 0, 1),
            (DATA, END_STREAM, 0, 0),
            (HEADERS, END_HEADERS, 20, 0),
            (2, 0, 5, 1),
            (3, 0, 4, 1),
            (SETTINGS, 0, 6, 10),
            (SETTINGS, ACK, 0, 0),
            (PING, 0, 8, 1),
            (PING, ACK, 8, 0),
            (8, 0, 4, 1),
            (200, 0, 16_384, 17),
        ] {
            let mut meter = Meter::new();
            assert_eq!(meter.read(super::super::PREFACE), 0);
            assert_eq!(meter.read(&frame(kind, flags, length)), cost, "{kind}");
        }
    }

    #[test]
    fn padding_alone_costs_as_no_data_does() {
        for (flags, payload, cost) in [
            (PADDED, &[2, 0, 0][..], 1),
            (PADDED, &[0], 1),
            (PADDED, &[1, 7, 0], 0),
            (PADDED | END_STREAM, &[2, 0, 0], 0),
            (0, &[2, 0, 0], 0),
        ] {
            let mut frame = [&[0, 0, payload.len() as u8, DATA, flags, 0, 0, 0, 1][..], payload].concat();
            frame.extend_from_within(..);
            for cut in 1..frame.len() {
                let mut meter = Meter::of_server();
                assert_eq!(frame.chunks(cut).map(|piece| meter.read(piece)).sum::<u32>(), 2 * cost, "{payload:?}");
            }
        }
    }

    #[test]
    fn a_head_is_open_until_its_last_frame() {
        let mut meter = Meter::new();
        meter.read(super::super::PREFACE);
        meter.read(&frame(HEADERS, 0, 3));
        assert!(meter.in_head());
        let last = frame(CONTINUATION, END_HEADERS, 3);
        meter.read(&last[..11]);
        assert!(meter.in_head());
        meter.read(&last[11..]);
        assert!(!meter.in_head());
    }

    proptest! {
        #[test]
        fn pieces_cost_what_the_whole_costs(
            frames in prop::collection::vec((0u8..12, 0u8..8, 0u32..40), 0..20), cut in 1usize..20,
        ) {
            let mut bytes = super::super::PREFACE.to_vec();
            let mut expected = 0;
            for (kind, flags, length) in frames {
                bytes.extend(frame(kind, flags, length));
                expected += FrameHeader { length, kind, flags }.cost();
            }
            let mut meter = Meter::new();
            let cost: u32 = bytes.chunks(cut).map(|piece| meter.read(piece)).sum();
            prop_assert_eq!(cost, expected);
        }
    }
}
