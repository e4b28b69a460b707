//! Creation times for objects whose files give none: they count as created in the order in which they are read.
//!
//! An object keeps its time as long as its position allows, so that inserting a document in the middle of a large file changes no other
//! one; the new object gets a time between those of its neighbours.

use fairway_translate::objects::Object;

/// The year 3000 in seconds since 1970: objects with a time of their own are older than those without one.
const FIRST: i128 = 32_503_680_000 * SECOND;
const SECOND: i128 = 1_000_000_000;

/// Dates all objects, given in reading order, so that times strictly increase. Returns whether any time has changed.
pub(super) fn date(objects: &mut [&mut Object]) -> bool {
    let times: Vec<_> = objects.iter().map(|object| time(object)).collect();
    let whole = (None, None);
    let labels =
        labels(&times, whole).unwrap_or_else(|| (0..).map(|at| FIRST + at * SECOND).take(times.len()).collect());
    apply(objects, times, labels)
}

/// The same for consecutive objects, between the times of their neighbours. `None` if there is no room; then nothing has changed.
pub(super) fn date_between(objects: &mut [&mut Object], neighbours: (Option<i128>, Option<i128>)) -> Option<bool> {
    let times: Vec<_> = objects.iter().map(|object| time(object)).collect();
    let labels = labels(&times, neighbours)?;
    Some(apply(objects, times, labels))
}

fn apply(objects: &mut [&mut Object], times: Vec<Option<i128>>, labels: Vec<i128>) -> bool {
    let mut moved = false;
    for ((object, old), label) in objects.iter_mut().zip(times).zip(labels) {
        if old != Some(label) {
            moved |= old.is_some();
            set(object, label);
        }
    }
    moved
}

/// Keeps the times that already increase and fills the gaps between the two neighbours; `None` if a gap is too small.
fn labels(old: &[Option<i128>], (after, before): (Option<i128>, Option<i128>)) -> Option<Vec<i128>> {
    let mut labels = Vec::with_capacity(old.len());
    let mut previous = after.unwrap_or(FIRST - SECOND);
    let mut at = 0;
    // Whether an object can keep its time.
    let fits = |label: &i128, previous| *label > previous && before.is_none_or(|before| *label < before);
    while at < old.len() {
        if let Some(label) = old[at].filter(|label| fits(label, previous)) {
            labels.push(label);
            previous = label;
            at += 1;
            continue;
        }
        // A run of objects that need a new time, up to the next one that can keep its time.
        let run = old[at..].iter().position(|label| label.is_some_and(|label| fits(&label, previous)));
        let count = run.unwrap_or(old.len() - at);
        let step = match run.and_then(|count| old[at + count]).or(before) {
            Some(next) => (next - previous) / (i128::try_from(count).ok()? + 1),
            None => SECOND,
        };
        if step <= 0 {
            return None;
        }
        for _ in 0..count {
            previous += step;
            labels.push(previous);
        }
        at += count;
    }
    Some(labels)
}

/// The time of an object, if it has one.
pub(super) fn time(object: &Object) -> Option<i128> {
    object.created().map(jiff::Timestamp::as_nanosecond)
}

fn set(object: &mut Object, label: i128) {
    let Ok(timestamp) = jiff::Timestamp::from_nanosecond(label) else { return };
    object.set_created(timestamp);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: (Option<i128>, Option<i128>) = (None, None);

    fn rising(labels: &[i128]) -> bool {
        labels.windows(2).all(|pair| pair[0] < pair[1])
    }

    #[test]
    fn times_rise_in_the_order_of_reading() {
        let first = labels(&[None, None, None], WHOLE).unwrap();
        assert!(rising(&first) && first[0] >= FIRST);
        let inserted = labels(&[Some(first[0]), None, None, Some(first[1]), Some(first[2]), None], WHOLE).unwrap();
        assert!(rising(&inserted));
        assert_eq!((inserted[0], inserted[3], inserted[4]), (first[0], first[1], first[2]));
    }

    #[test]
    fn what_moved_is_dated_anew() {
        let first = labels(&[None, None, None], WHOLE).unwrap();
        let swapped = labels(&[Some(first[1]), Some(first[0]), Some(first[2])], WHOLE).unwrap();
        assert!(rising(&swapped));
        assert_eq!(swapped[2], first[2]);
    }

    #[test]
    fn without_room_everything_is_dated_anew() {
        assert_eq!(labels(&[Some(FIRST), None, Some(FIRST + 1)], WHOLE), None);
    }

    #[test]
    fn objects_in_a_row_are_dated_between_their_neighbours() {
        let (after, before) = (FIRST + SECOND, FIRST + 2 * SECOND);
        let dated = labels(&[None, Some(after + 10), None], (Some(after), Some(before))).unwrap();
        assert!(rising(&[&[after][..], &dated, &[before]].concat()), "{dated:?}");
        assert_eq!(dated[1], after + 10, "a time that fits is kept");
        let moved = labels(&[Some(before + 5), None], (Some(after), Some(before))).unwrap();
        assert!(rising(&[&[after][..], &moved, &[before]].concat()), "{moved:?}");
        assert_eq!(labels(&[None], (Some(FIRST), Some(FIRST + 1))), None);
        assert_eq!(labels(&[None], (Some(FIRST), None)), Some(vec![FIRST + SECOND]));
        assert_eq!(labels(&[], (Some(FIRST), Some(FIRST + 1))), Some(vec![]));
    }
}
