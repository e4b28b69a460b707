//! Events on users' objects, as shown by `kubectl describe`.
//!
//! Each is sent once: its name is derived from the object, the reason and the text, so the API server itself rejects the second one,
//! whether it comes from a resync, a restart or another replica. An outage that lasts is reported again after growing pauses, as a separate
//! Event that says since when and how often, because changing the first one would need one more right. Invariants: the queue holds no more
//! than the objects' present diagnostics and a bounded number of other notes; no failure affects anything but the Event itself.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::future::pending;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use fairway_model::ErrorChain;
use fairway_translate::diagnostic::Diagnostic;
use fairway_translate::objects::ObjectKey;
use jiff::Timestamp;
use kube::api::PostParams;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::api::{ApiServer, CallError, collection};
use crate::backoff::Backoff;
use crate::watch::Identity;

mod note;

pub(crate) use note::{COMPONENT, Subject};
use note::{Note, Period};

/// How soon an object gets a second Event about an outage of its backends. Each further pause is twice as long as the one before.
const OUTAGE_PAUSE: Duration = Duration::from_secs(60);

/// The longest of these pauses: Events are kept for an hour, and there is always one while an outage lasts.
const OUTAGE_PAUSE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// After this long without a report, the next one is about another outage.
const OUTAGE_QUIET: Duration = Duration::from_secs(5 * 60);

/// Maximum number of queued notes that are not diagnostics. Diagnostics are never dropped for them.
const PASSING: usize = 1000;

/// Maximum number of diagnostics per object that become Events.
const PER_OBJECT: usize = 20;

/// How often an Event may fail, while others don't, before it is dropped: an admission webhook of its namespace may be
/// broken permanently.
const TRIES: u32 = 5;

/// How many names of sent Events are remembered, in each of two generations. The API server rejects duplicates of
/// forgotten ones.
const REMEMBERED: usize = 20_000;

/// Pause between two Events, so that thousands of faulty objects don't use up our share of the API server.
const PACE: Duration = Duration::from_millis(20);

/// The same while more than [`MANY`] objects wait: Events about thousands of objects must not slow the API server down for users who change
/// one, or for us.
const CROWDED_PACE: Duration = Duration::from_millis(100);

/// How many objects and notes may wait before Events are sent at the slower pace.
const MANY: usize = 100;

/// A message to the sender.
#[derive(Debug)]
pub(crate) enum Report {
    /// All present diagnostics of an object.
    Diagnostics(Subject, Vec<Diagnostic>),
    /// One of our Ingresses is new or changed.
    Sync(Subject),
    /// No endpoint of a backend of an Ingress can be connected to; the text names the backend.
    Unreachable(Subject, String),
    /// A proxy does not understand the translation of an object.
    Refused(Subject, String),
    /// An object is gone.
    Gone(ObjectKey),
}

/// An outage of the backends of one object.
#[derive(Clone, Copy, Debug)]
struct Outage {
    /// When it was reported last.
    seen: Instant,
    /// The earliest time of the next Event.
    next: Instant,
    /// The pause before that.
    pause: Duration,
    period: Period,
}

/// Sends Events one after another.
pub(crate) struct Sender {
    api: ApiServer,
    /// The sending pod.
    instance: String,
    /// The queued notes about each object, and its failures in a row.
    diagnostics: BTreeMap<ObjectKey, (Identity, VecDeque<Note>, u32)>,
    /// The present diagnostics of each object: those missing from its next report are resolved.
    standing: BTreeMap<ObjectKey, Vec<Note>>,
    /// The queued notes that are not diagnostics, and their failures.
    passing: VecDeque<(Subject, Note, u32)>,
    /// Objects with an unreachable backend.
    outages: BTreeMap<ObjectKey, Outage>,
    /// The object of the last failure: its next turn is after all others.
    passed: Option<ObjectKey>,
    sent: Remembered,
    backoff: Backoff,
    refused: bool,
}

impl Sender {
    pub(crate) fn new(api: ApiServer, instance: &str) -> Self {
        Self {
            api,
            instance: instance.to_owned(),
            diagnostics: BTreeMap::new(),
            standing: BTreeMap::new(),
            passing: VecDeque::new(),
            outages: BTreeMap::new(),
            passed: None,
            sent: Remembered::default(),
            backoff: Backoff::default(),
            refused: false,
        }
    }

    /// Sends until all reporters are gone. Takes reports at once, even while an Event is being sent.
    pub(crate) async fn run(mut self, mut reports: mpsc::Receiver<Report>) {
        let mut next = Instant::now();
        let mut flight = None;
        loop {
            let waiting = if flight.is_none() { self.pick() } else { None };
            let arrival = async {
                match &mut flight {
                    Some(flight) => flight.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                report = reports.recv() => match report {
                    Some(report) => self.take(report),
                    None => return,
                },
                (subject, note, result) = arrival => {
                    next = Instant::now() + self.sent(&subject, &note, result);
                    flight = None;
                }
                () = sleep_until(next), if waiting.is_some() => {
                    flight = waiting.map(|(subject, note)| Box::pin(self.send(subject, note)));
                }
            }
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Diagnostics(Subject { key, identity }, diagnostics) => {
                let present: Vec<_> = diagnostics.iter().map(Note::from_diagnostic).collect();
                let before = self.standing.remove(&key).unwrap_or_default();
                // A warning that was never shown needs no end, and one that was only reworded hasn't ended.
                let over = |note: &&Note| {
                    note.warning
                        && self.sent.holds(note.name_hash(&key, &identity))
                        && !present.iter().any(|other| other.topic == note.topic)
                };
                let resolved = before.iter().filter(over).map(Note::resolved);
                let notes: VecDeque<_> = present
                    .iter()
                    .cloned()
                    .chain(resolved)
                    .filter(|note| !self.sent.holds(note.name_hash(&key, &identity)))
                    .take(PER_OBJECT)
                    .collect();
                if !present.is_empty() {
                    self.standing.insert(key.clone(), present);
                }
                if notes.is_empty() {
                    self.diagnostics.remove(&key);
                } else {
                    let failures = self.diagnostics.get(&key).map_or(0, |(.., failures)| *failures);
                    self.diagnostics.insert(key, (identity, notes, failures));
                }
            }
            Report::Sync(subject) => self.happened(subject, Note::sync()),
            Report::Unreachable(subject, text) => {
                if let Some(period) = self.outage(&subject.key) {
                    self.happened(subject, Note::outage(text, period));
                }
            }
            Report::Refused(subject, text) => {
                let note = Note::refused(text);
                // A proxy reports this each time it connects.
                if !self.sent.holds(note.name_hash(&subject.key, &subject.identity)) {
                    self.happened(subject, note);
                }
            }
            Report::Gone(key) => {
                self.diagnostics.remove(&key);
                self.standing.remove(&key);
                self.outages.remove(&key);
                self.passing.retain(|(subject, ..)| subject.key != key);
            }
        }
    }

    /// Records that a backend of an object can't be reached. Returns the period of the outage if an Event is due.
    fn outage(&mut self, key: &ObjectKey) -> Option<Period> {
        let (now, time) = (Instant::now(), Timestamp::now().as_second());
        if self.outages.len() >= REMEMBERED {
            self.outages.retain(|_, outage| now.duration_since(outage.seen) < OUTAGE_QUIET);
        }
        let before = self.outages.get(key).copied().filter(|before| now.duration_since(before.seen) < OUTAGE_QUIET);
        let Some(Outage { next, pause, period, .. }) = before else {
            let period = Period { first: time, last: time, count: 1 };
            let outage = Outage { seen: now, next: now + OUTAGE_PAUSE, pause: OUTAGE_PAUSE, period };
            // With more at once, some objects get no Event.
            let room = self.outages.len() < REMEMBERED || self.outages.contains_key(key);
            return room.then(|| self.outages.insert(key.clone(), outage)).map(|_| period);
        };
        let period = Period { last: time, count: period.count.saturating_add(1), ..period };
        let due = now >= next;
        let pause = if due { (pause * 2).min(OUTAGE_PAUSE_LIMIT) } else { pause };
        let next = if due { now + pause } else { next };
        self.outages.insert(key.clone(), Outage { seen: now, next, pause, period });
        due.then_some(period)
    }

    fn happened(&mut self, subject: Subject, note: Note) {
        if self.passing.len() < PASSING {
            self.passing.push_back((subject, note, 0));
        }
    }

    /// Chooses the next note: diagnostics first. After a failure, the objects behind it have their turn, then one of the
    /// other notes, then it starts over.
    fn pick(&self) -> Option<(Subject, Note)> {
        let behind = match &self.passed {
            Some(passed) => self.diagnostics.range((Excluded(passed), Unbounded)).next(),
            None => self.diagnostics.first_key_value(),
        };
        if behind.is_none()
            && let Some((subject, note, _)) = self.passing.front()
        {
            return Some((subject.clone(), note.clone()));
        }
        let (key, (identity, notes, _)) = behind.or_else(|| self.diagnostics.first_key_value())?;
        let note = notes.front().expect("no entry without notes");
        Some((Subject { key: key.clone(), identity: identity.clone() }, note.clone()))
    }

    fn send(
        &self,
        subject: Subject,
        note: Note,
    ) -> impl Future<Output = (Subject, Note, Result<Value, CallError>)> + use<> {
        // Events on cluster-scoped objects live in this namespace.
        let namespace = if subject.key.namespace.is_empty() { "default" } else { &*subject.key.namespace };
        let body = note.event(&subject, namespace, &self.instance).to_string().into_bytes();
        let request = collection("v1", "events", Some(namespace)).create(&PostParams::default(), body);
        let api = self.api.clone();
        async move {
            let result = api.call(request).await;
            (subject, note, result)
        }
    }

    /// Records the result. Returns how long to wait before the next one.
    fn sent(&mut self, subject: &Subject, note: &Note, result: Result<Value, CallError>) -> Duration {
        match result {
            Ok(_) => self.backoff.reset(),
            // It already exists.
            Err(error) if error.code() == Some(409) => self.backoff.reset(),
            Err(error) if is_final(&error) => {
                let error = ErrorChain(&error);
                if self.refused {
                    debug!(%error, "the API server refuses an Event");
                } else {
                    self.refused = true;
                    warn!(%error, "the API server refuses an Event; logged only once");
                }
            }
            Err(error) => return self.failed(subject, note, &error),
        }
        self.sent.insert(note.name_hash(&subject.key, &subject.identity));
        self.settle(subject, note, 0);
        self.pace()
    }

    /// The pause after an Event that was sent.
    fn pace(&self) -> Duration {
        if self.diagnostics.len() + self.passing.len() > MANY { CROWDED_PACE } else { PACE }
    }

    /// The failures of a note that is not a diagnostic and was sent from the front of the queue; `None` if its object has gone meanwhile.
    fn front(&mut self, subject: &Subject, note: &Note) -> Option<&mut u32> {
        let (waiting, other, failures) = self.passing.front_mut()?;
        (waiting == subject && other == note).then_some(failures)
    }

    /// Removes a note from the queue. The remaining notes about the object have failed this often.
    fn settle(&mut self, subject: &Subject, note: &Note, failed: u32) {
        if note.topic.is_passing() {
            if self.front(subject, note).is_some() {
                self.passing.pop_front();
            }
            self.passed = None;
        } else if let Some((_, notes, failures)) = self.diagnostics.get_mut(&subject.key) {
            // A newer report may have replaced it in the meantime.
            notes.retain(|waiting| waiting != note);
            *failures = failed;
            if notes.is_empty() {
                self.diagnostics.remove(&subject.key);
            }
        }
    }

    /// Records a failure that may be temporary. Returns how long to wait before the next Event, which is about another
    /// object if there is one.
    fn failed(&mut self, subject: &Subject, note: &Note, error: &CallError) -> Duration {
        // While everything fails, this Event is not to blame.
        let counts = u32::from(self.backoff.failures() == 0);
        let failures = if note.topic.is_passing() {
            self.front(subject, note)
        } else {
            let waiting = self.diagnostics.get_mut(&subject.key).filter(|(_, notes, _)| notes.front() == Some(note));
            waiting.map(|(.., failures)| failures)
        };
        let failures = failures.map_or(0, |failures| {
            *failures += counts;
            *failures
        });
        if counts > 0 && failures >= TRIES {
            let ObjectKey { kind, namespace, name } = &subject.key;
            let (error, namespace, name, text) = (ErrorChain(error), &**namespace, &**name, &note.text);
            warn!(%kind, namespace, name, %error, text, "an Event is given up");
            self.settle(subject, note, failures);
        } else if note.topic.is_passing() && self.front(subject, note).is_some() {
            self.passing.rotate_left(1);
        }
        self.passed = (!note.topic.is_passing()).then(|| subject.key.clone());
        self.backoff.after(Some(error))
    }
}

/// Whether a retry is useless: the namespace is being deleted, or we have no right to create Events in it.
fn is_final(error: &CallError) -> bool {
    error.code().is_some_and(|code| (400..500).contains(&code) && code != 408 && code != 429)
}

/// Names of sent Events; the older half is forgotten when there are too many.
#[derive(Default)]
struct Remembered {
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl Remembered {
    fn holds(&self, name: u64) -> bool {
        self.new.contains(&name) || self.old.contains(&name)
    }

    fn insert(&mut self, name: u64) {
        if self.new.len() == REMEMBERED {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_names_is_bounded() {
        let mut sent = Remembered::default();
        for name in 0..(3 * REMEMBERED as u64) {
            sent.insert(name);
        }
        assert!(sent.holds(3 * REMEMBERED as u64 - 1));
        assert!(!sent.holds(0));
        assert!(sent.new.len() + sent.old.len() <= 2 * REMEMBERED);
    }
}
