//! Whether the order of paths holds. Ingresses try the patterns of a host by length; routes try those of the older route first, and all of
//! them before prefixes.

use std::collections::BTreeMap;

use fairway_model::{HostPattern, Origin, PathMatch, Route};
use fairway_translate::objects::{Kind, ObjectKey};

use super::assemble::Converted;
use super::route::Matched;
use super::served::{ServedHosts, is_written};
use crate::pattern;
use crate::reading::Reading;

/// A path that has been converted.
pub(super) struct Placed {
    pub(super) host: HostPattern,
    pub(super) ingress: ObjectKey,
    /// Its place among the routes of the host.
    pub(super) place: usize,
    pub(super) matched: Matched,
}

/// A path of a host, converted or not.
struct Member {
    ingress: ObjectKey,
    is_done: bool,
    place: usize,
    text: String,
    is_pattern: bool,
    beginnings: pattern::Beginnings,
}

/// Ingresses that have been converted and must not be, each with the reason: of two paths of different objects that may take the same
/// requests the second is a pattern, and nothing says that it stays the second; or an Ingress that stays has the same path, and would get it.
pub(super) fn torn(reading: &Reading, converted: &Converted) -> BTreeMap<String, String> {
    let mut placed: BTreeMap<&HostPattern, Vec<&Placed>> = BTreeMap::new();
    for one in &converted.placed {
        placed.entry(&one.host).or_default().push(one);
    }
    let served = ServedHosts::new(&reading.snapshot);
    let mut torn = BTreeMap::new();
    for (host, placed) in placed {
        let has_pattern = |path: &PathMatch| matches!(path, PathMatch::Regex(_));
        let routes = served.get(host).map(|served| served.host.routes()).unwrap_or_default();
        let of = |origin: &Origin| {
            let key = ObjectKey::new(Kind::Ingress, &*origin.namespace, &*origin.name);
            (*origin.kind == *"Ingress").then_some(key)
        };
        let is_kept = |route: &Route| of(&route.origin).filter(|key| !converted.done.contains(key));
        let winner = |place| served.get(host).and_then(|served| served.winner(place));
        for (place, route) in routes.iter().enumerate() {
            let (Some(stays), Some(winner)) = (is_kept(route), winner(place)) else { continue };
            if let Some(winner) = of(&winner.origin).filter(|key| converted.done.contains(key)) {
                let why =
                    format!("{stays}, which is not converted, would take {} of {host} instead", route.path.text());
                torn.entry(winner.to_string()).or_insert(why);
            }
        }
        // Most hosts have none.
        if !placed.iter().any(|one| one.matched.is_pattern()) && !routes.iter().any(|route| has_pattern(&route.path)) {
            continue;
        }
        let done = placed.iter().filter(|one| !one.matched.is_exact()).map(|one| Member {
            ingress: one.ingress.clone(),
            is_done: true,
            place: one.place,
            text: one.matched.to_string(),
            is_pattern: one.matched.is_pattern(),
            beginnings: one.matched.beginnings(),
        });
        let kept = routes.iter().enumerate().filter_map(|(place, route)| {
            let ingress = is_kept(route)?;
            let counts = is_written(route) && !matches!(route.path, PathMatch::Exact(_)) && winner(place).is_none();
            counts.then(|| Member {
                ingress,
                is_done: false,
                place,
                text: route.path.text().to_owned(),
                // A default backend comes after prefixes.
                is_pattern: has_pattern(&route.path) && &*route.origin.section != "defaultBackend",
                beginnings: super::served::beginnings(&route.path),
            })
        });
        let mut all: Vec<_> = done.chain(kept).collect();
        all.sort_by_key(|one| one.place);
        for (at, second) in all.iter().enumerate().filter(|(_, one)| one.is_pattern) {
            for first in all[..at].iter().filter(|first| first.ingress != second.ingress) {
                let is_known = |one: &Member| !one.is_done || torn.contains_key(&one.ingress.to_string());
                if !pattern::overlap(&first.beginnings, &second.beginnings) || (is_known(first) && is_known(second)) {
                    continue;
                }
                for (own, other) in [(first, second), (second, first)].into_iter().filter(|(own, _)| own.is_done) {
                    let why = format!(
                        "{} and {} of {} may take the same requests of {host}, and routes don't try the longer one first",
                        own.text, other.text, other.ingress
                    );
                    torn.entry(own.ingress.to_string()).or_insert(why);
                }
            }
        }
    }
    torn
}
