//! One Event: its text, and the name by which the API server knows whether it was sent.

use std::hash::{DefaultHasher, Hash, Hasher};

use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::objects::ObjectKey;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::watch::Identity;

/// The component that sends Events.
pub(crate) const COMPONENT: &str = "fairway";

/// Longest text, in bytes (the API's own limit).
const TEXT: usize = 1024;

/// The object that an Event is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Subject {
    pub(crate) key: ObjectKey,
    pub(crate) identity: Identity,
}

/// One Event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Note {
    pub(super) warning: bool,
    pub(super) topic: Topic,
    pub(super) text: String,
}

/// The subject of an Event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Topic {
    /// A finding that holds, with the reason of the diagnostic. Sent once for an object.
    Finding(Reason),
    /// A warning that no longer holds. Sent once for each version of the object.
    Resolved,
    /// An Ingress of ours that was taken into account. Sent once for each version of it.
    Sync,
    /// A backend without a reachable endpoint. Sent again as long as it lasts.
    Outage(Period),
    /// An object that a proxy does not understand. Sent once for each version of it.
    Refused,
}

/// How long an outage has been reported, and how often, in seconds since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Period {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) count: u32,
}

impl Note {
    pub(super) fn from_diagnostic(diagnostic: &Diagnostic) -> Self {
        // Users of ingress-nginx look for the words at the start of this Event.
        let prefix =
            if diagnostic.reason == Reason::AnnotationParsingFailed { "Error parsing annotations: " } else { "" };
        let Diagnostic { field, value, message, .. } = diagnostic;
        let mut text = String::from(prefix);
        for (before, part, after) in [("", field, ": "), ("value \"", value, "\": ")] {
            if !part.is_empty() {
                text.extend([before, part, after]);
            }
        }
        text.push_str(message);
        text.truncate(text.floor_char_boundary(TEXT));
        Self { warning: diagnostic.severity > Severity::Info, topic: Topic::Finding(diagnostic.reason), text }
    }

    /// The Event of ingress-nginx for each Ingress that it has synced.
    pub(super) fn sync() -> Self {
        Self { warning: false, topic: Topic::Sync, text: "Scheduled for sync".to_owned() }
    }

    /// Reports that a backend can't be reached now.
    pub(super) fn outage(mut text: String, period: Period) -> Self {
        text.truncate(text.floor_char_boundary(TEXT));
        Self { warning: true, topic: Topic::Outage(period), text }
    }

    /// Reports that a proxy continues with the last good form of the object.
    pub(super) fn refused(mut text: String) -> Self {
        text.truncate(text.floor_char_boundary(TEXT));
        Self { warning: true, topic: Topic::Refused, text }
    }

    /// The end of a warning.
    pub(super) fn resolved(warning: &Self) -> Self {
        let mut text = format!("resolved: {}: {}", warning.topic.reason(), warning.text);
        text.truncate(text.floor_char_boundary(TEXT));
        Self { warning: false, topic: Topic::Resolved, text }
    }

    /// A hash that is equal for Events that must be sent only once.
    pub(super) fn name_hash(&self, key: &ObjectKey, identity: &Identity) -> u64 {
        let mut hasher = DefaultHasher::new();
        (key, &identity.uid, self.warning, self.topic.reason(), &self.text).hash(&mut hasher);
        match self.topic {
            Topic::Finding(_) => (),
            Topic::Resolved | Topic::Sync | Topic::Refused => identity.version.hash(&mut hasher),
            // Replicas that see the same outage send it once.
            Topic::Outage(period) => (period.last / 60).hash(&mut hasher),
        }
        hasher.finish()
    }

    pub(super) fn event(&self, subject: &Subject, namespace: &str, instance: &str) -> Value {
        let Subject { key, identity } = subject;
        // Names have at most 253 characters.
        let stem = &key.name[..key.name.floor_char_boundary(230)];
        let name = format!("{stem}.{:016x}", self.name_hash(key, identity));
        let Period { first, last, count } = self.topic.period();
        let time = |second: i64| {
            let time = Timestamp::from_second(second).unwrap_or_default();
            time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
        };
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": name},
            "involvedObject": {
                "apiVersion": key.kind.api_version(),
                "kind": key.kind.as_str(),
                "namespace": &*key.namespace,
                "name": &*key.name,
                "uid": identity.uid,
                "resourceVersion": identity.version,
            },
            "type": if self.warning { "Warning" } else { "Normal" },
            "reason": self.topic.reason(),
            "message": self.text,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": instance,
            "firstTimestamp": time(first),
            "lastTimestamp": time(last),
            "count": count,
        })
    }
}

impl Topic {
    /// The word under which the Event is listed.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Finding(reason) => reason.as_str(),
            Self::Resolved => "Resolved",
            Self::Sync => "Sync",
            Self::Outage(_) => "EndpointsUnreachable",
            Self::Refused => "NotUnderstoodByProxy",
        }
    }

    /// Whether it reports an occurrence rather than a lasting state.
    pub(super) fn is_passing(self) -> bool {
        match self {
            Self::Finding(_) | Self::Resolved => false,
            Self::Sync | Self::Outage(_) | Self::Refused => true,
        }
    }

    /// The period and count of the Event. All but outages happen once.
    pub(super) fn period(self) -> Period {
        match self {
            Self::Outage(period) => period,
            Self::Finding(_) | Self::Resolved | Self::Sync | Self::Refused => {
                let now = Timestamp::now().as_second();
                Period { first: now, last: now, count: 1 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::Origin;
    use fairway_translate::objects::Kind;

    fn subject(version: &str) -> Subject {
        Subject {
            key: ObjectKey::new(Kind::Ingress, "shop", "web"),
            identity: Identity { uid: "u1".into(), version: version.into() },
        }
    }

    fn note(message: &str) -> Note {
        let origin = Origin::new("Ingress", "shop", "web");
        let reason = Reason::AnnotationParsingFailed;
        Note::from_diagnostic(&Diagnostic::new(Severity::Warning, reason, &origin, "metadata", "5s", message))
    }

    #[test]
    fn the_same_finding_has_the_same_name() {
        let name = |note: &Note, version| note.event(&subject(version), "shop", "pod")["metadata"]["name"].clone();
        assert_eq!(name(&note("a"), "1"), name(&note("a"), "2"));
        assert_ne!(name(&note("a"), "1"), name(&note("b"), "1"));
        assert_ne!(name(&Note::sync(), "1"), name(&Note::sync(), "2"));
    }

    #[test]
    fn texts_keep_to_the_limit_of_the_api() {
        assert_eq!(
            note("expected seconds").text,
            "Error parsing annotations: metadata: value \"5s\": expected seconds"
        );
        assert!(note(&"é".repeat(2000)).text.len() <= TEXT);
    }
}
