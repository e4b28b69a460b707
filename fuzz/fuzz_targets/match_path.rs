//! Paths that users configure and paths that clients request: the canonical form is its own canonical form, the index of a host
//! agrees with trying every route, and no rewrite gives a path that could be read in two ways.
#![no_main]

use fairway_model::path::{PathScratch, canonicalize, encode};
use fairway_model::{Action, CaptureTemplate, Host, HostPattern, Origin, PathMatch, Respond, Route, canonical_host};
use libfuzzer_sys::fuzz_target;

/// Longest path that a rewrite may produce here.
const LIMIT: usize = 4096;

fuzz_target!(|data: (Vec<(u8, String)>, Vec<u8>, String, Vec<u8>)| {
    let (rules, asked, target, host) = data;
    let matches = rules.iter().take(16).filter_map(|(kind, text)| {
        match kind % 3 {
            0 => PathMatch::exact(text),
            1 => PathMatch::prefix(text),
            _ => PathMatch::regex(text),
        }
        .ok()
    });
    let route = |path| Route::new(Origin::built_in("fuzz"), path, Action::Respond(Respond::not_found()));
    let hosts = Host::new("t".into(), HostPattern::Any, matches.map(route).collect());

    let mut scratch = Vec::new();
    if let Some(host) = canonical_host(&host, &mut scratch) {
        let host = host.to_vec();
        assert_eq!(canonical_host(&host, &mut scratch), Some(&host[..]));
    }

    let mut scratch = PathScratch::default();
    let Ok(path) = canonicalize(&asked, &mut scratch) else {
        return;
    };
    let mut encoded = Vec::new();
    encode(path.matched, &mut encoded);
    let mut again = PathScratch::default();
    assert_eq!(canonicalize(&encoded, &mut again).map(|again| again.matched), Ok(path.matched));

    let found = hosts.route(path.matched);
    assert_eq!(found, hosts.routes().iter().find(|route| route.path.matches(path.matched)));
    if let Some(PathMatch::Regex(regex)) = found.map(|route| &route.path) {
        let target = CaptureTemplate::from(target.as_str());
        let mut written = Vec::new();
        if let Ok(matched) = regex.rewrite(path.matched, &target, LIMIT, &mut written) {
            assert!(matched && written.len() <= LIMIT);
        }
    }
});
