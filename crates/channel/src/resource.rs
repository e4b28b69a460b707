//! A resource as it is sent: a name, a version and a body.
//!
//! The body is JSON, which names each field and each variant, so that a proxy sees what it does not know. `/debug/snapshot` prints the
//! same, so no second format is compiled into the binary, and compression recovers most of the cost of the names. The version is a hash of
//! the body, so that a proxy can continue with another controller where it was.
//!
//! Invariant: a resource is accepted only if everything that was sent reappears when the parsed value is written again. A field that a
//! newer controller adds is a reason to refuse the resource, because it may be a restriction.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use fairway_model::{Resource, ResourceName, Snapshot, with_secrets};
use serde_json::Value;

use crate::limit::PATCH;
use crate::patch;

/// The version of a resource: the first half of the SHA-256 of its body.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub struct Version([u8; 16]);

/// A resource, ready to be sent.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Encoded {
    pub(crate) name: Arc<str>,
    pub(crate) version: Version,
    pub(crate) body: Vec<u8>,
    /// The version that the proxy has, if the body is a patch of that.
    pub(crate) base: Option<Version>,
}

/// Why a resource is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("can't read it: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0} is not known here")]
    Unknown(String),
    #[error("the body is that of {0}")]
    Misnamed(String),
    #[error("the body does not have the hash of its version")]
    Altered,
    #[error("it is larger than {} bytes", crate::limit::RESOURCE)]
    TooLarge,
    #[error("can't decompress it")]
    Decompress,
    #[error("the patch is not one of what is held")]
    Patch,
}

impl Version {
    pub(crate) fn of(body: &[u8]) -> Self {
        let mut version = Self::default();
        version.0.copy_from_slice(&digest(&SHA256, body).as_ref()[..16]);
        version
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Without the body, which may hold keys.
impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.name, self.version, self.body.len())
    }
}

impl Encoded {
    /// Writes a resource.
    pub(crate) fn new(resource: &Resource) -> Result<Self, serde_json::Error> {
        let body = written(resource)?;
        Ok(Self { name: name_of(resource).into(), version: Version::of(&body), body, base: None })
    }

    /// As a patch of what the proxy has, if that is much shorter.
    pub(crate) fn after(self, before: Option<&(Version, Resource)>) -> Self {
        let Some((version, old)) = before.filter(|_| self.is_long()) else { return self };
        let Ok(old) = written(old) else { return self };
        match patch::between(&old, &self.body) {
            Some(patch) => Self { body: patch, base: Some(*version), ..self },
            None => self,
        }
    }

    /// Whether a patch of it could be worthwhile.
    pub(crate) fn is_long(&self) -> bool {
        self.body.len() >= PATCH
    }
}

/// Reads a resource.
pub(crate) fn read(name: &str, version: Version, body: &[u8]) -> Result<Resource, Unreadable> {
    if Version::of(body) != version {
        return Err(Unreadable::Altered);
    }
    let resource: Resource = with_secrets(|| serde_json::from_slice(body))?;
    let own = name_of(&resource);
    if own != name {
        return Err(Unreadable::Misnamed(own.into_owned()));
    }
    // From a controller of the same version it is the same text, and nothing else needs comparing.
    let again = written(&resource)?;
    if again != body {
        let (sent, understood) = (serde_json::from_slice(body)?, serde_json::from_slice(&again)?);
        let mut path = String::new();
        if is_lost(&sent, &understood, &mut path) {
            return Err(Unreadable::Unknown(path));
        }
    }
    Ok(resource)
}

/// Applies a patch to a resource of version `base`, which makes one of version `made`.
pub(crate) fn patched(old: &Resource, base: Version, patch: &[u8], made: Version) -> Result<Vec<u8>, Unreadable> {
    let old = written(old)?;
    // Another build may write it differently.
    if Version::of(&old) != base {
        return Err(Unreadable::Patch);
    }
    patch::apply(&old, patch).and_then(|new| if Version::of(&new) == made { Ok(new) } else { Err(Unreadable::Patch) })
}

/// The version of each resource of a snapshot, as a controller would send it; `None` for one that can't be written.
pub fn versions(snapshot: &Snapshot) -> BTreeMap<String, Option<Version>> {
    let resources = resources(snapshot);
    let version = |resource: &Resource| written(resource).ok().map(|body| Version::of(&body));
    resources.iter().map(|resource| (name_of(resource).into_owned(), version(resource))).collect()
}

/// All resources of a snapshot. The difference to an empty snapshot lacks the settings if they are the defaults.
pub(crate) fn resources(snapshot: &Snapshot) -> Vec<Resource> {
    let mut resources = Snapshot::diff(&Snapshot::default(), snapshot).upserts;
    if resources.iter().all(|resource| resource.name().is_some()) {
        resources.push(Resource::Settings(snapshot.settings().clone()));
    }
    resources
}

/// The name of a resource.
pub(crate) fn name_of(resource: &Resource) -> Cow<'static, str> {
    resource.name().map_or(Cow::Borrowed(SETTINGS), |name| Cow::Owned(text_of(&name)))
}

/// The name of the settings, of which there is only one.
pub(crate) const SETTINGS: &str = "settings";

/// How the names of hosts begin.
pub(crate) const HOST: &str = "host/";

/// A name as text.
pub(crate) fn text_of(name: &ResourceName) -> String {
    match name {
        ResourceName::Listener(name) => format!("listener/{name}"),
        ResourceName::StreamListener(name) => format!("stream/{name}"),
        // No table has a space in its name; a pattern may have anything.
        ResourceName::Host(key) => format!("{HOST}{} {}", key.table, key.pattern),
        ResourceName::Backend(name) => format!("backend/{name}"),
        ResourceName::EndpointSet(name) => format!("endpoints/{name}"),
        ResourceName::Certificate(name) => format!("certificate/{name}"),
        ResourceName::Telemetry(name) => format!("telemetry/{name}"),
    }
}

fn written(resource: &Resource) -> Result<Vec<u8>, serde_json::Error> {
    with_secrets(|| serde_json::to_vec(resource))
}

/// Whether something of `sent` is missing in `understood`, or different. `path` then leads to it.
fn is_lost(sent: &Value, understood: &Value, path: &mut String) -> bool {
    let start = path.len();
    let lost = match (sent, understood) {
        (Value::Object(sent), Value::Object(understood)) => sent.iter().any(|(key, value)| {
            path.truncate(start);
            path.extend([".", key]);
            match understood.get(key) {
                Some(other) => is_lost(value, other, path),
                // The newer of two versions may leave out a null.
                None => !value.is_null(),
            }
        }),
        (Value::Array(sent), Value::Array(understood)) => {
            let differs = sent.iter().zip(understood).enumerate().any(|(at, (value, other))| {
                path.truncate(start);
                path.push_str(&format!("[{at}]"));
                is_lost(value, other, path)
            });
            if !differs {
                path.truncate(start);
            }
            differs || sent.len() != understood.len()
        }
        _ => sent != understood,
    };
    if !lost {
        path.truncate(start);
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::{Action, Host, HostPattern, Origin, PathMatch, Respond, Route};

    fn host() -> Resource {
        let path = PathMatch::prefix("/order").unwrap();
        let route = Route::new(Origin::new("Ingress", "shop", "web"), path, Action::Respond(Respond::not_found()));
        Host::new("ingress".into(), HostPattern::parse("shop.example").unwrap(), vec![route]).into()
    }

    /// Reads the body after a change of its text.
    fn changed(from: &str, to: &str) -> Result<Resource, Unreadable> {
        let text = String::from_utf8(Encoded::new(&host()).unwrap().body).unwrap();
        assert!(text.contains(from), "{text}");
        let body = text.replacen(from, to, 1).into_bytes();
        read("host/ingress shop.example", Version::of(&body), &body)
    }

    #[test]
    fn a_field_that_is_not_known_here_is_a_refusal_that_names_it() {
        let error = changed("\"origin\":{", "\"only_from\":[\"10.0.0.0/8\"],\"origin\":{").unwrap_err();
        assert_eq!(error.to_string(), ".Host.routes[0].only_from is not known here");
    }

    #[test]
    fn a_variant_that_is_not_known_here_is_a_refusal() {
        let error = changed("\"Respond\":{", "\"Teleport\":{").unwrap_err().to_string();
        assert!(error.contains("unknown variant `Teleport`"), "{error}");
    }

    #[test]
    fn other_spacing_and_fields_that_say_nothing_are_no_refusal() {
        assert_eq!(changed("\"origin\":{", " \"origin\" : {").unwrap(), host());
        assert_eq!(changed("\"origin\":{", "\"limit\":null,\"origin\":{").unwrap(), host());
    }

    #[test]
    fn a_body_has_the_name_and_the_hash_that_it_was_sent_with() {
        let Encoded { name, version, body, .. } = Encoded::new(&host()).unwrap();
        assert_eq!(&*name, "host/ingress shop.example");
        assert_eq!(read(&name, version, &body).unwrap(), host());
        assert!(matches!(read("host/ingress other.example", version, &body), Err(Unreadable::Misnamed(_))));
        assert!(matches!(read(&name, Version::of(b""), &body), Err(Unreadable::Altered)));
    }
}
