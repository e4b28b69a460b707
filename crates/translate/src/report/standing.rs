//! A reader's verdict on one object: accepted, not ours, or refused, with the reasons.

use std::fmt;

use k8s_openapi::api::networking::v1::Ingress;

use crate::annotation::CLASS;
use crate::diagnostic::Diagnostic;
use crate::objects::ObjectKey;

/// The standing of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// It is ours, and its newest version is in effect.
    Accepted,
    /// It is part of a large change and waits for its turn.
    Waiting,
    /// It is not ours.
    NotOurs(NotOurs),
    /// It is ours, and its newest version isn't loaded.
    Refused {
        /// The reasons, never empty.
        because: Vec<Diagnostic>,
        /// What is in effect in its place.
        instead: Instead,
    },
}

/// What is in effect in place of a version that isn't loaded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Instead {
    /// The last version that could be loaded.
    LastGood,
    /// The denial of its paths, because it may restrict access.
    Denial,
    /// Nothing.
    Nothing,
}

impl Standing {
    /// Whether some version of the object is in effect.
    pub fn is_served(&self) -> bool {
        match self {
            Self::Accepted => true,
            Self::Waiting | Self::NotOurs(_) => false,
            Self::Refused { instead, .. } => *instead == Instead::LastGood,
        }
    }
}

/// In one line, without the object's name.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("it is served"),
            Self::Waiting => f.write_str("it is being loaded"),
            Self::NotOurs(why) => write!(f, "it is not served: {why}"),
            Self::Refused { because, instead } => {
                f.write_str(match instead {
                    Instead::LastGood => "its newest version is not loaded",
                    Instead::Denial => "it is not loaded, and its paths answer 503",
                    Instead::Nothing => "it is not loaded",
                })?;
                match because.first() {
                    Some(first) if first.field.is_empty() => write!(f, ": {}", first.message),
                    Some(first) => write!(f, ": {}: {}", first.field, first.message),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Why an Ingress is not ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotOurs {
    /// Its namespace is not that of `--watch-namespace`.
    NamespaceNotWatched,
    /// Its namespace lacks the labels of `--watch-namespace-selector`.
    NamespaceNotSelected,
    /// It names no class.
    NoClass,
    /// Its IngressClass belongs to another controller.
    OtherController {
        /// The class.
        class: String,
        /// The `spec.controller` of the class.
        controller: String,
    },
    /// Its IngressClass does not exist.
    ClassMissing {
        /// The class.
        class: String,
    },
    /// It names an IngressClass, but none can be read.
    ClassesUnreadable {
        /// The class.
        class: String,
    },
    /// The old annotation names another class.
    OtherAnnotation {
        /// The value of the annotation.
        class: String,
        /// Whether an IngressClass of that name exists.
        exists: bool,
    },
    /// It has a default backend, and `--disable-catch-all` is set.
    CatchAll,
}

impl NotOurs {
    /// The field that decides, as a user would write it; empty if none does.
    pub fn field(&self) -> String {
        match self {
            Self::NamespaceNotWatched | Self::NamespaceNotSelected => "metadata.namespace".to_owned(),
            Self::NoClass => String::new(),
            Self::OtherController { .. } | Self::ClassMissing { .. } | Self::ClassesUnreadable { .. } => {
                "spec.ingressClassName".to_owned()
            }
            Self::OtherAnnotation { .. } => format!("metadata.annotations[\"{CLASS}\"]"),
            Self::CatchAll => "spec.defaultBackend".to_owned(),
        }
    }

    /// The class that it names; empty if the class isn't the reason.
    pub fn class(&self) -> &str {
        match self {
            Self::OtherController { class, .. }
            | Self::ClassMissing { class }
            | Self::ClassesUnreadable { class }
            | Self::OtherAnnotation { class, .. } => class,
            _ => "",
        }
    }
}

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NamespaceNotWatched => f.write_str("its namespace is not the one of --watch-namespace"),
            Self::NamespaceNotSelected => {
                f.write_str("its namespace does not have the labels that --watch-namespace-selector asks for")
            }
            Self::NoClass => f.write_str("it names no class"),
            Self::OtherController { class, controller } => {
                write!(f, "its IngressClass {class} is for the controller {controller}")
            }
            Self::ClassMissing { class } => write!(f, "there is no IngressClass {class}"),
            Self::ClassesUnreadable { class } => {
                write!(f, "its IngressClass {class} can't be read: no right to read IngressClasses")
            }
            Self::OtherAnnotation { class, .. } => write!(f, "the annotation {CLASS} names the class {class:?}"),
            Self::CatchAll => f.write_str("Ingresses with a default backend are not served (--disable-catch-all)"),
        }
    }
}

/// An Ingress of which no version is in effect, or only an older one.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftOut {
    /// The Ingress.
    pub ingress: ObjectKey,
    /// The hosts of its rules as written; an empty one stands for all hosts, as with a default backend.
    pub hosts: Vec<String>,
    /// The reason.
    pub standing: Standing,
}

impl LeftOut {
    pub(crate) fn new(key: &ObjectKey, ingress: &Ingress, standing: Standing) -> Self {
        let spec = ingress.spec.as_ref();
        let rules = spec.and_then(|spec| spec.rules.as_deref()).unwrap_or_default();
        let mut hosts: Vec<String> = rules.iter().map(|rule| rule.host.clone().unwrap_or_default()).collect();
        if rules.is_empty() && spec.is_some_and(|spec| spec.default_backend.is_some()) {
            hosts.push(String::new());
        }
        Self { ingress: key.clone(), hosts, standing }
    }

    /// Whether it names a host, exactly or by the wildcard that covers it.
    pub fn names(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.hosts.iter().any(|named| match named.strip_prefix("*.") {
            Some(suffix) => parent.is_some_and(|parent| parent.eq_ignore_ascii_case(suffix)),
            None => named.eq_ignore_ascii_case(host),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Kind;

    #[test]
    fn hosts_are_found_by_name_and_by_wildcard() {
        let hosts = vec!["A.example".to_owned(), "*.b.example".to_owned()];
        let standing = Standing::NotOurs(NotOurs::NoClass);
        let left = LeftOut { ingress: ObjectKey::new(Kind::Ingress, "a", "i"), hosts, standing };
        for (host, named) in
            [("a.example", true), ("x.B.example.", true), ("b.example", false), ("x.y.b.example", false), ("", false)]
        {
            assert_eq!(left.names(host), named, "{host}");
        }
    }
}
