//! Context for a difference: the Ingress whose route takes the request, its annotations that may cause the difference, and whether the
//! difference is documented.

use std::collections::BTreeMap;

use fairway_model::Origin;
use fairway_translate::annotation::{self, Annotations};
use fairway_translate::objects::{Kind, Object, ObjectKey};
use fairway_translate::verdict::Verdict;

use super::difference::{Aspect, Change, Rules};
use super::question::Question;
use super::run::{Compared, Different};
use crate::explain::{Explainer, Told};
use crate::manifest::Place;
use crate::reading::Reading;

/// Everything that is reported.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) asked: usize,
    pub(super) same: usize,
    pub(super) different: usize,
    pub(super) groups: Vec<Group>,
    pub(super) documented: Vec<(&'static Documented, Vec<Question>)>,
    pub(super) unsteady: Vec<(Question, Vec<Aspect>)>,
    pub(super) stopped: Option<String>,
}

/// Requests to one Ingress whose answers differ in the same way.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) ingress: Option<Origin>,
    pub(super) place: Option<Place>,
    /// Its annotations that concern the changes, the worst verdict first.
    pub(super) annotations: Vec<Related>,
    pub(super) changes: Vec<Change>,
    /// Why Fairway answers as it does, if that explains the new answer.
    pub(super) why: Option<String>,
    pub(super) requests: Vec<Question>,
}

impl Group {
    /// Whether some annotation's verdict says that it has no effect.
    pub(super) fn is_known(&self) -> bool {
        self.annotations.iter().any(Related::is_known)
    }
}

/// An annotation that concerns a change.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Related {
    /// What the verdict loses; negative, for the order.
    loss: i16,
    pub(super) name: String,
    pub(super) verdict: &'static str,
    pub(super) note: String,
}

impl Related {
    /// Whether its verdict says that it has no effect.
    pub(super) fn is_known(&self) -> bool {
        self.loss < -i16::from(Verdict::Differs("").loss())
    }

    /// Whether its verdict says that something differs for some values or requests.
    pub(super) fn is_possible(&self) -> bool {
        !self.is_known() && self.loss == -i16::from(Verdict::Differs("").loss())
    }
}

/// A difference that docs/switch.md describes, independent of the Ingress.
#[derive(Debug)]
pub(super) struct Documented {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    fits: fn(&Question, old: u16, new: u16) -> bool,
}

/// See "Differences beyond annotations and keys" in docs/switch.md.
static DOCUMENTED: [Documented; 3] = [
    Documented {
        name: "hidden-path",
        text: "encoded slashes and dot segments: a path that hides another one is refused with 400",
        fits: |request, _, new| {
            let target = request.target.to_ascii_lowercase();
            new == 400 && ["%2f", "%5c", "%2e", "/.."].iter().any(|part| target.contains(part))
        },
    },
    Documented {
        name: "head-too-large",
        text: "a request head that is too large: 431 in place of 400 or 414",
        fits: |_, old, new| matches!(old, 400 | 414) && new == 431,
    },
    Documented {
        name: "exact-slash",
        text: "Exact /foo/ requested as /foo: 404 in place of a redirect to /foo/",
        fits: |request, old, new| {
            let path = request.target.split('?').next().unwrap_or_default();
            (old, new) == (301, 404) && !path.ends_with('/')
        },
    },
];

/// Groups what differs. Groups are in the order of their first request.
pub(super) fn report(
    compared: Compared,
    reading: Option<&Reading>,
    explainer: Option<&Explainer<'_>>,
    fields: &[(String, String)],
    rules: &Rules,
) -> Report {
    let mut groups: Vec<Group> = Vec::new();
    let mut by_key: BTreeMap<_, usize> = BTreeMap::new();
    let mut documented: Vec<(&'static Documented, Vec<Question>)> = Vec::new();
    let total = compared.different.len();
    let mut explained = 0;
    for different in compared.different {
        let known = documented_as(&different).filter(|_| !rules.strict);
        if let Some(known) = known {
            explained += 1;
            match documented.iter_mut().find(|(other, _)| std::ptr::eq(*other, known)) {
                Some((_, requests)) => requests.push(different.request),
                None => documented.push((known, vec![different.request])),
            }
            continue;
        }
        let told = explainer.and_then(|explainer| told(explainer, &different.request, fields));
        let of_route = told.as_ref().and_then(|told| told.ingress.clone());
        let ingress = of_route.or_else(|| different.request.origin.clone());
        let why = told.filter(|told| explains(told, &different)).map(|told| told.why);
        // Locations, bodies and lengths are specific to a request: requests that differ in the same aspects form one group.
        let aspects: Vec<_> = different
            .changes
            .iter()
            .map(|change| match change.aspect {
                Aspect::Location | Aspect::Body => (change.aspect.clone(), None, None),
                _ => (change.aspect.clone(), change.old.clone(), change.new.clone()),
            })
            .collect();
        let key = (ingress.clone(), aspects, why.clone());
        match by_key.get(&key) {
            Some(at) => groups[*at].requests.push(different.request),
            None => {
                by_key.insert(key, groups.len());
                let annotations = reading
                    .zip(ingress.as_ref())
                    .map(|(reading, ingress)| related(reading, ingress, &different.changes));
                groups.push(Group {
                    place: reading
                        .zip(ingress.as_ref())
                        .and_then(|(reading, ingress)| reading.manifests.place(ingress)),
                    ingress,
                    annotations: annotations.unwrap_or_default(),
                    changes: different.changes,
                    why,
                    requests: vec![different.request],
                });
            }
        }
    }
    // All groups of one Ingress together; groups without an Ingress last.
    groups.sort_by(|a, b| (a.ingress.is_none(), &a.ingress).cmp(&(b.ingress.is_none(), &b.ingress)));
    Report {
        asked: compared.asked,
        same: compared.same,
        different: total - explained,
        groups,
        documented,
        unsteady: compared.unsteady,
        stopped: compared.stopped,
    }
}

fn documented_as(different: &Different) -> Option<&'static Documented> {
    let (old, new) = (different.old.as_ref()?.status, different.new.as_ref()?.status);
    DOCUMENTED.iter().find(|rule| old != new && (rule.fits)(&different.request, old, new))
}

fn told(explainer: &Explainer<'_>, request: &Question, common: &[(String, String)]) -> Option<Told> {
    let fields = request.fields.iter().chain(common);
    let fields: Vec<_> = fields.map(|(name, value)| format!("{name}: {value}")).collect();
    explainer.of(&request.method, &request.url(), &fields)
}

/// Whether the explanation covers the difference: a status or location that Fairway decided.
fn explains(told: &Told, different: &Different) -> bool {
    let new = different.new.as_ref().map(|answer| answer.status);
    let decided = |change: &Change| matches!(change.aspect, Aspect::Status | Aspect::Location);
    told.status.is_some() && told.status == new && different.changes.iter().any(decided)
}

/// The annotations of an Ingress that concern changes.
fn related(reading: &Reading, ingress: &Origin, changes: &[Change]) -> Vec<Related> {
    let key = ObjectKey::new(Kind::Ingress, &*ingress.namespace, &*ingress.name);
    let Some(Object::Ingress(object)) = reading.objects.get(&key) else { return Vec::new() };
    let all = object.read().metadata.annotations.unwrap_or_default();
    let annotations = Annotations::new(ingress, &reading.options.annotations_prefix, &all);
    let rules = reading.annotation_rules();
    let mut related: Vec<_> = annotations
        .iter()
        .filter(|(name, _)| changes.iter().any(|change| concerns(name, change)))
        .map(|(name, value)| {
            let verdict = annotation::spec(name).map(|spec| spec.verdict_of(value, &annotations, &rules));
            Related {
                loss: verdict.map_or(0, |verdict| -i16::from(verdict.loss())),
                name: name.to_owned(),
                verdict: verdict.map_or("unknown", Verdict::label),
                note: verdict.map(Verdict::note).unwrap_or_default(),
            }
        })
        .collect();
    related.sort();
    related
}

/// Prefixes of annotation names that can change any aspect.
const ANYTHING: [&str; 5] =
    ["configuration-snippet", "server-snippet", "canary", "default-backend", "custom-http-errors"];
/// Those that control access and limits.
const ACCESS: [&str; 11] = [
    "auth-",
    "whitelist-",
    "allowlist-",
    "denylist-",
    "satisfy",
    "enable-global-auth",
    "limit-",
    "enable-modsecurity",
    "modsecurity",
    "enable-owasp",
    "proxy-body-size",
];
const REDIRECTS: [&str; 12] = [
    "rewrite-target",
    "app-root",
    "permanent-redirect",
    "temporal-redirect",
    "ssl-redirect",
    "force-ssl-redirect",
    "from-to-www",
    "preserve-trailing-slash",
    "relative-redirects",
    "use-port-in-redirects",
    "proxy-redirect-",
    "auth-signin",
];
/// Those that choose the backend, or what it receives.
const ROUTING: [&str; 10] = [
    "rewrite-target",
    "use-regex",
    "server-alias",
    "backend-protocol",
    "upstream-vhost",
    "x-forwarded-prefix",
    "service-upstream",
    "proxy-ssl-",
    "auth-proxy-set-headers",
    "auth-response-headers",
];
const TIMES: [&str; 7] = [
    "proxy-connect-timeout",
    "proxy-read-timeout",
    "proxy-send-timeout",
    "proxy-next-upstream",
    "proxy-buffer",
    "proxy-http-version",
    "proxy-request-buffering",
];
const CONNECTION: [&str; 4] = ["ssl-passthrough", "ssl-ciphers", "ssl-prefer-server-ciphers", "auth-tls-"];
const COOKIES: [&str; 4] = ["affinity", "session-cookie-", "proxy-cookie-", "auth-always-set-cookie"];

/// Whether an annotation can be the reason for a change.
fn concerns(name: &str, change: &Change) -> bool {
    let among = |names: &[&str]| names.iter().any(|beginning| name.starts_with(beginning));
    let here = match &change.aspect {
        Aspect::Answer => among(&CONNECTION) || among(&TIMES) || among(&ROUTING) || among(&ACCESS),
        Aspect::Status => among(&ACCESS) || among(&REDIRECTS) || among(&ROUTING) || among(&TIMES) || among(&CONNECTION),
        Aspect::Location => among(&REDIRECTS) || among(&ROUTING),
        Aspect::Body => among(&ROUTING) || among(&["proxy-buffer", "app-root", "connection-proxy-header", "mirror"]),
        Aspect::Field(field) => {
            among(&["custom-headers"])
                || match field.as_str() {
                    "set-cookie" => among(&COOKIES) || among(&["auth-"]),
                    "www-authenticate" => among(&["auth-"]),
                    "refresh" => among(&["proxy-redirect-"]),
                    "vary" => among(&["enable-cors", "cors-"]),
                    field if field.starts_with("access-control-") => among(&["enable-cors", "cors-"]),
                    _ => among(&ROUTING),
                }
        }
    };
    here || among(&ANYTHING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::Scheme;

    #[test]
    fn annotations_concern_what_they_can_change() {
        let change = |aspect| Change { aspect, old: None, new: None };
        let field = |name: &str| change(Aspect::Field(name.to_owned()));
        for (name, change, expected) in [
            ("rewrite-target", change(Aspect::Status), true),
            ("rewrite-target", change(Aspect::Body), true),
            ("limit-rps", change(Aspect::Status), true),
            ("limit-rps", change(Aspect::Location), false),
            ("cors-allow-origin", field("access-control-allow-origin"), true),
            ("cors-allow-origin", field("x-a"), false),
            ("custom-headers", field("x-a"), true),
            ("configuration-snippet", field("x-a"), true),
            ("session-cookie-name", field("set-cookie"), true),
            ("ssl-passthrough", change(Aspect::Answer), true),
            ("enable-access-log", change(Aspect::Status), false),
        ] {
            assert_eq!(concerns(name, &change), expected, "{name} {change:?}");
        }
    }

    /// A prefix that matches no known name is a mistake.
    #[test]
    fn the_names_are_those_of_annotations() {
        let all = [&ANYTHING[..], &ACCESS, &REDIRECTS, &ROUTING, &TIMES, &CONNECTION, &COOKIES].concat();
        for beginning in all {
            assert!(annotation::names().any(|name| name.starts_with(beginning)), "{beginning}");
        }
    }

    #[test]
    fn documented_differences_are_narrow() {
        let found = |target: &str, old, new| {
            let request = Question::new("GET", Scheme::Http, "a", target);
            DOCUMENTED.iter().find(|rule| (rule.fits)(&request, old, new)).map(|rule| rule.name)
        };
        assert_eq!(found("/a%2Fb", 200, 400), Some("hidden-path"));
        assert_eq!(found("/a", 200, 400), None);
        assert_eq!(found("/a%2Fb", 200, 404), None);
        assert_eq!(found("/a", 414, 431), Some("head-too-large"));
        assert_eq!(found("/a?b", 301, 404), Some("exact-slash"));
        assert_eq!(found("/a/", 301, 404), None);
    }
}
