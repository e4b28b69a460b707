//! Creation times for objects whose files give none: they count as created in the order of reading.
//!
//! An object keeps its time as long as its position allows, so that inserting a document in the middle of a large file changes no
//! other; the new one gets a time between those of its neighbours.

use fairway_translate::objects::Object;

/// The year 3000 in seconds since 1970: objects with a time of their own are older than those without.
const FIRST: i128 = 32_503_680_000 * SECOND;
const SECOND: i128 = 1_000_000_000;

/// Dates objects, given in the order of reading, so that times strictly increase. Returns whether any time has changed.
pub(super) fn date(objects: &mut [&mut Object]) -> bool {
    let times: Vec<_> = objects.iter().map(|object| time(object)).collect();
    let labels = labels(&times).unwrap_or_else(|| (0..).map(|at| FIRST + at * SECOND).take(times.len()).collect());
    let mut moved = false;
    for ((object, old), label) in objects.iter_mut().zip(times).zip(labels) {
        if old != Some(label) {
            moved |= old.is_some();
            set(object, label);
        }
    }
    moved
}

/// Keeps the times that already increase and fills the gaps; `None` if a gap is too small.
fn labels(old: &[Option<i128>]) -> Option<Vec<i128>> {
    let mut labels = Vec::with_capacity(old.len());
    let mut previous = FIRST - SECOND;
    let mut at = 0;
    while at < old.len() {
        if let Some(label) = old[at].filter(|&label| label > previous) {
            labels.push(label);
            previous = label;
            at += 1;
            continue;
        }
        // A run of objects that need a new time, up to the next one that can keep its time.
        let run = old[at..].iter().position(|label| label.is_some_and(|label| label > previous));
        let (count, step) = match run {
            Some(count) => {
                let next = old[at + count].unwrap_or(previous);
                (count, (next - previous) / (i128::try_from(count).ok()? + 1))
            }
            None => (old.len() - at, SECOND),
        };
        if step == 0 {
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

fn time(object: &Object) -> Option<i128> {
    object.created().map(jiff::Timestamp::as_nanosecond)
}

fn set(object: &mut Object, label: i128) {
    let Ok(timestamp) = jiff::Timestamp::from_nanosecond(label) else { return };
    object.set_created(timestamp);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rising(labels: &[i128]) -> bool {
        labels.windows(2).all(|pair| pair[0] < pair[1])
    }

    #[test]
    fn times_rise_in_the_order_of_reading() {
        let first = labels(&[None, None, None]).unwrap();
        assert!(rising(&first) && first[0] >= FIRST);
        let inserted = labels(&[Some(first[0]), None, None, Some(first[1]), Some(first[2]), None]).unwrap();
        assert!(rising(&inserted));
        assert_eq!((inserted[0], inserted[3], inserted[4]), (first[0], first[1], first[2]));
    }

    #[test]
    fn what_moved_is_dated_anew() {
        let first = labels(&[None, None, None]).unwrap();
        let swapped = labels(&[Some(first[1]), Some(first[0]), Some(first[2])]).unwrap();
        assert!(rising(&swapped));
        assert_eq!(swapped[2], first[2]);
    }

    #[test]
    fn without_room_everything_is_dated_anew() {
        assert_eq!(labels(&[Some(FIRST), None, Some(FIRST + 1)]), None);
    }
}
