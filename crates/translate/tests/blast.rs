//! Whatever one tenant does to its objects, valid or not, changes nothing for others: their hosts, backends, endpoints, certificates and
//! listeners, as a controller sends them, have the same bytes in each step as without that tenant, and so have their statuses and findings.
//!
//! Two translations get the same changes of two tenants. One of them also gets those of a third.

#[path = "blast/objects.rs"]
mod objects;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use fairway_model::{Action, Filter, Host, Location, Resource, ResourceName, Route, Snapshot};
use fairway_translate::objects::{Change, Kind, ObjectKey};
use fairway_translate::{Options, Translator};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;

use self::objects::{Tenant, of_operator, text_of};

const NOW: i64 = 1_767_225_600;

/// The tenants that must not be affected, and the one that acts.
const X: Tenant = Tenant { namespace: "x", reach: &["x"], claims: &["x"], any_host: false, born: (0, 5), leaves: true };
const Y: Tenant = Tenant { namespace: "y", reach: &["y"], claims: &["y"], ..X };
const M: Tenant =
    Tenant { namespace: "m", reach: &["x", "y", "m"], claims: &["m"], any_host: true, born: (0, 9), leaves: true };

fn options() -> Options {
    Options { ssl_passthrough: true, configmap: Some(("infra".into(), "global".into())), ..Options::default() }
}

/// Some hundreds of cases, the same each time; `PROPTEST_CASES` sets another number, with different cases each time.
fn config(cases: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        usual
    } else {
        ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), ..usual }
    }
}

/// Simultaneous changes, of others and of the one tenant.
#[derive(Clone)]
struct Step {
    others: Vec<Change>,
    theirs: Vec<Change>,
    /// Whether the one tenant comes first.
    before: bool,
}

/// The first step has everything that others begin with. `many` is the number of changes of the one tenant in each further step.
fn steps(x: Tenant, y: Tenant, m: Tenant, many: Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let change = move || prop_oneof![x.change(), y.change()];
    let first = (prop::collection::vec(change(), 8..24), Just(m.beginning())).prop_map(move |(others, theirs)| {
        let others = [x.beginning(), y.beginning(), others].concat();
        Step { others, theirs, before: false }
    });
    let others = prop::collection::vec(change(), 0..4);
    let theirs = prop::collection::vec(m.change(), many);
    let step = (others, theirs, any::<bool>()).prop_map(|(others, theirs, before)| Step { others, theirs, before });
    (first, prop::collection::vec(step, 1..8)).prop_map(|(first, steps)| [vec![first], steps].concat())
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = |changes: &[Change]| changes.iter().map(text_of).collect::<Vec<_>>().join("\n  ");
        let (others, theirs) = (texts(&self.others), texts(&self.theirs));
        write!(f, "others:\n  {others}\none tenant{}:\n  {theirs}", if self.before { ", before" } else { "" })
    }
}

/// Both translations.
struct Worlds {
    without: Translator,
    with: Translator,
}

impl Worlds {
    fn new() -> Self {
        let [mut without, mut with] = [0, 1].map(|_| Translator::new(options()));
        without.apply(of_operator(), NOW);
        with.apply(of_operator(), NOW);
        Self { without, with }
    }

    fn take(&mut self, Step { others, theirs, before }: Step) {
        self.without.apply(others.clone(), NOW);
        let all = if before { [theirs, others] } else { [others, theirs] };
        self.with.apply(all.concat(), NOW);
    }
}

/// The resources of a snapshot, as they are sent, that belong to the other tenants or to all.
fn of_others(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let all = fairway_channel::bodies(snapshot).expect("every resource can be written");
    let texts = all.into_iter().map(|(name, body)| (name, String::from_utf8(body).expect("JSON")));
    texts.filter(|(name, _)| !is_theirs(name)).collect()
}

/// Whether a resource, by its name, belongs to the one tenant.
fn is_theirs(name: &str) -> bool {
    let Some((kind, name)) = name.split_once('/') else { return false };
    match kind {
        // The host for any name belongs to none of the tenants and isn't compared.
        "host" => {
            let (_, pattern) = name.split_once(' ').expect("a table and a pattern");
            !["x.example", "x\\.example", "y.example", "y\\.example"].iter().any(|others| pattern.contains(others))
        }
        _ => name.starts_with("m/"),
    }
}

/// The differences of `with` from `without`; there must be none.
fn differences(without: &Snapshot, with: &Snapshot) -> Vec<String> {
    let (without, with) = (of_others(without), of_others(with));
    let mut told = Vec::new();
    for (name, body) in &without {
        match with.get(name) {
            Some(other) if other == body => {}
            other => told.push(format!("{name}: {body}\nis {other:?}")),
        }
    }
    // The one tenant may refer to Services and Secrets of others and has ports of its own, but no host of theirs.
    let added = with.keys().filter(|name| name.starts_with("host/") && !without.contains_key(*name));
    told.extend(added.map(|name| format!("{name}: added")));
    told
}

fn is_of_others(key: &ObjectKey) -> bool {
    ["x", "y"].contains(&&*key.namespace)
}

/// The status and findings of the objects of others. Policies of Services, and XBackends, are left out: they name the Gateways of all
/// tenants that may use them.
fn told(of: &Translator) -> BTreeMap<ObjectKey, String> {
    let objects = of.objects().iter().map(|(key, _)| key).filter(|key| is_of_others(key));
    let objects = objects
        .filter(|key| !matches!(key.kind, Kind::BackendTLSPolicy | Kind::XBackendTrafficPolicy | Kind::XBackend));
    let told = objects.map(|key| {
        let (status, findings) = (of.statuses().get(key), of.diagnostics().get(key));
        (key.clone(), format!("served: {}, {status:?}, {findings:?}", of.served().contains(key)))
    });
    told.collect()
}

/// What an Ingress or route says about a host stays in effect, whoever claims the host later: its paths, and its settings for the host as a
/// whole. What it leaves open may be decided by another.
fn lost(before: &Host, after: &Host) -> Vec<String> {
    let all = |host: &Host| {
        let routes = host.tiers().flat_map(|host| host.routes().iter().cloned());
        let routes = routes.filter(|route| *route.origin.namespace == *"x");
        // The paths of a host become patterns as soon as one of them is a pattern, and this path isn't a valid one.
        let is_broken = |route: &Route| &*route.rule == "/y(";
        routes
            .filter(|route| !route.origin.section.is_empty() && !adds_slash(route) && !is_broken(route))
            .collect::<Vec<_>>()
    };
    let filters =
        |route: &Route| route.filters.iter().filter(|filter| !is_of_host(filter)).cloned().collect::<Vec<_>>();
    // A route that refuses is never less restricted than before.
    let refuses = |route: &Route| route.filters.iter().any(|filter| matches!(filter, Filter::Refuse(_)));
    let now = all(after);
    let stays = |route: &&Route| {
        let same =
            |other: &&Route| (&other.origin, &other.rule, &other.action) == (&route.origin, &route.rule, &route.action);
        now.iter().filter(same).any(|other| refuses(other) || filters(other) == filters(route))
    };
    let mut lost: Vec<String> =
        all(before).iter().filter(|route| !stays(route)).map(|route| json!(route).to_string()).collect();
    // The certificates of an Ingress come before those of a listener.
    let own = |host: &Host| host.table().as_str() == "ingress";
    let whole = |host: &Host| {
        [
            json!(host.certificate().filter(|_| own(host))),
            json!(host.alternative_certificate().filter(|_| own(host))),
            json!(host.client_auth()),
            json!(host.ciphers()),
            json!(host.passthrough().filter(|passthrough| passthrough.backend.is_some())),
            json!(host.listener()),
        ]
    };
    // An Ingress or route that names a host comes before the redirect from a name with or without `www.`.
    let is_sibling = |route: &Route| matches!(&route.action, Action::Redirect(redirect) if matches!(redirect.location, Location::OtherHost(_)));
    if before.routes().iter().all(is_sibling) {
        return lost;
    }
    let changed =
        whole(before).into_iter().zip(whole(after)).filter(|(before, after)| !before.is_null() && before != after);
    lost.extend(changed.map(|(before, after)| format!("{before}, now {after}")));
    lost
}

/// Whether a filter comes from settings that the whole host has in common and that the first object that has them decides, as in
/// ingress-nginx: whether the host has TLS, and the snippet of the server.
fn is_of_host(filter: &Filter) -> bool {
    matches!(filter, Filter::HttpsRedirect(_) | Filter::Snippet(_))
}

/// The redirect from a path without its slash, which another object may have as a path.
fn adds_slash(route: &Route) -> bool {
    matches!(&route.action, Action::Redirect(redirect) if redirect.location == Location::AppendSlash)
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn what_a_tenant_does_changes_nothing_of_others(steps in steps(X, Y, M, 0..12)) {
        let mut worlds = Worlds::new();
        for step in steps {
            worlds.take(step);
            let Worlds { without, with } = &worlds;
            let found = differences(without.snapshot(), with.snapshot());
            prop_assert!(found.is_empty(), "{}", found.join("\n"));
            let (without, with) = (told(without), told(with));
            let changed: Vec<_> = without.iter().filter(|(key, told)| with.get(key) != Some(told)).collect();
            prop_assert!(changed.is_empty(), "{:?}, now {:?}", changed, with);
        }
        let with = worlds.with.snapshot();
        prop_assert_eq!(fairway_channel::carried(with), Ok(with.clone()), "in another process");
    }

    /// Even while much of one tenant's work is still waiting.
    #[test]
    fn no_change_waits_for_those_of_another_tenant(steps in steps(X, Y, M, 4..24)) {
        let Worlds { mut without, with } = Worlds::new();
        // One change may lead to sixteen hosts or backends.
        let mut with = with.with_part(4);
        let mut steps = steps.into_iter();
        let first = steps.next().expect("what they begin with");
        without.apply(first.others.clone(), NOW);
        with.apply([first.others, first.theirs].concat(), NOW);
        for Step { others, theirs, .. } in steps {
            with.apply_part(theirs, NOW);
            for change in others {
                without.apply([change.clone()], NOW);
                with.apply_part([change], NOW);
                let found = differences(without.snapshot(), with.snapshot());
                prop_assert!(found.is_empty(), "{}", found.join("\n"));
            }
        }
        while with.has_more() {
            with.proceed(NOW);
            let found = differences(without.snapshot(), with.snapshot());
            prop_assert!(found.is_empty(), "{}", found.join("\n"));
        }
    }

    /// The oldest claim to a host stays, and other tenants are never affected, whichever was first.
    #[test]
    fn what_claims_the_hosts_of_others_later_takes_nothing_from_them(
        (older, steps) in any::<bool>().prop_flat_map(|older| {
            let sure = Tenant { leaves: false, born: (3, 5), ..X };
            let born = if older { (0, 2) } else { (6, 9) };
            (Just(older), steps(sure, Y, Tenant { claims: &["x", "m"], born, ..M }, 0..12))
        })
    ) {
        let mut worlds = Worlds::new();
        for step in steps {
            worlds.take(step);
            let (without, with) = (worlds.without.snapshot(), worlds.with.snapshot());
            let claimed = |name: &str| name.starts_with("host/") && ["x.example", "x\\.example"].iter().any(|of| name.contains(of));
            let found: Vec<_> = differences(without, with).into_iter().filter(|found| !claimed(found)).collect();
            prop_assert!(found.is_empty(), "{}", found.join("\n"));
            for host in without.hosts().into_iter().filter(|host| !older && host.pattern().to_string().contains("x.example")) {
                let Some(Resource::Host(after)) = with.resource(&ResourceName::Host(host.key())) else {
                    return Err(TestCaseError::fail(format!("no {}", host.key())));
                };
                let lost = lost(host, &after);
                prop_assert!(lost.is_empty(), "{}:\n{}\nof {}", host.key(), lost.join("\n"), json!(after));
            }
        }
        let with = worlds.with.snapshot();
        prop_assert_eq!(fairway_channel::carried(with), Ok(with.clone()), "in another process");
    }
}
