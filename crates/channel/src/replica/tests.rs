use std::sync::Arc;

use fairway_model::{Endpoint, EndpointSet, Endpoints, Snapshot};
use fairway_model::{HostKey, ResourceName, Settings};
use prost::Message;

use super::*;
use crate::limit::LARGEST_MESSAGE;
use crate::resource::Encoded;
use crate::round::Cut;

fn host(path: &str) -> Resource {
    let path = PathMatch::prefix(path).unwrap();
    let route = Route::new(Origin::new("Ingress", "shop", "web"), path, Action::Respond(Respond::page(200)));
    Host::new("ingress".into(), HostPattern::parse("shop.example").unwrap(), vec![route]).into()
}

fn key() -> HostKey {
    HostKey { table: "ingress".into(), pattern: HostPattern::parse("shop.example").unwrap() }
}

fn endpoints(last: u8) -> Resource {
    let endpoints = Endpoints::Addresses(vec![Endpoint::ready(([10, 0, 0, last], 80).into())]);
    EndpointSet { backend: "shop/cart:80".into(), endpoints }.into()
}

fn good(resource: &Resource) -> Encoded {
    Encoded::new(resource).unwrap()
}

/// A resource as a newer controller sends it: with a restriction that is not known here.
fn newer(resource: &Resource) -> Encoded {
    let Encoded { name, body, .. } = good(resource);
    let text = String::from_utf8(body).unwrap();
    let at = text.rfind("}}").unwrap();
    let body = format!("{},\"only_on_mondays\":true{}", &text[..at], &text[at..]).into_bytes();
    Encoded { name, version: Version::of(&body), body, base: None }
}

/// A proxy: its replica, and what it serves.
#[derive(Default)]
pub(crate) struct Proxy {
    pub(crate) replica: Replica,
    pub(crate) snapshot: Snapshot,
}

impl Proxy {
    pub(crate) fn round(&mut self, nonce: u64, resources: Vec<Encoded>, removals: &[&str]) -> Ack {
        let removals = removals.iter().map(|name| (*name).to_owned());
        for message in Cut::new(nonce, resources.into_iter(), removals) {
            if let Some(mut round) = self.replica.take(message).unwrap() {
                self.snapshot = self.snapshot.apply(std::mem::take(&mut round.delta));
                let acks = self.replica.commit(round);
                let last = acks.len() - 1;
                let bounded = |ack: &Ack| ack.encoded_len() <= LARGEST_MESSAGE && ack.nonce == nonce;
                assert!(acks.iter().enumerate().all(|(at, ack)| bounded(ack) && ack.more == (at < last)));
                let refused = acks.into_iter().flat_map(|ack| ack.refused).collect();
                return Ack { nonce, refused, more: false };
            }
        }
        unreachable!("a round has a last message")
    }

    fn status(&self, path: &[u8]) -> Option<u16> {
        let host = self.snapshot.host(&"ingress".into(), b"shop.example")?;
        match &host.route(path)?.action {
            Action::Respond(respond) => Some(respond.status),
            _ => None,
        }
    }

    fn inventory(&self) -> Vec<(String, usize)> {
        let lists = self.replica.inventory();
        let end = lists.len() - 1;
        let bounded = |list: &HeldList| list.encoded_len() <= LARGEST_MESSAGE && list.held.len() <= HELD;
        assert!(lists.iter().enumerate().all(|(at, list)| bounded(list) && list.last == (at == end)));
        let mut all: Vec<_> =
            lists.into_iter().flat_map(|list| list.held).map(|one| (one.name, one.version.len())).collect();
        all.sort();
        all
    }
}

const NAME: &str = "host/ingress shop.example";

#[test]
fn the_last_good_form_of_a_resource_stays_and_the_rest_of_the_round_is_in_effect() {
    let mut proxy = Proxy::default();
    assert!(proxy.round(1, vec![good(&host("/a")), good(&endpoints(1))], &[]).refused.is_empty());
    let ack = proxy.round(2, vec![newer(&host("/b")), good(&endpoints(2))], &[]);
    assert_eq!(ack.refused.len(), 1);
    assert_eq!(ack.refused[0].name, NAME);
    assert!(ack.refused[0].reason.contains("only_on_mondays"), "{}", ack.refused[0].reason);
    assert_eq!((proxy.status(b"/a"), proxy.status(b"/b")), (Some(200), None));
    assert_eq!(proxy.snapshot.resource(&endpoints(2).name().unwrap()), Some(endpoints(2)));
    // It still counts as its earlier version, so that another controller sends the newer form again.
    assert_eq!(proxy.inventory(), [("endpoints/shop/cart:80".to_owned(), 16), (NAME.to_owned(), 16)]);
    assert_eq!(proxy.replica.refused().len(), 1);
    // A form that is understood ends that.
    assert!(proxy.round(3, vec![good(&host("/b"))], &[]).refused.is_empty());
    assert_eq!((proxy.status(b"/a"), proxy.status(b"/b"), proxy.replica.refused().len()), (None, Some(200), 0));
}

#[test]
fn a_host_that_was_never_understood_answers_503_until_it_is() {
    let mut proxy = Proxy::default();
    let any = Host::new("ingress".into(), HostPattern::Any, Vec::new());
    proxy.round(1, vec![newer(&host("/a")), good(&any.into())], &[]);
    assert_eq!(proxy.status(b"/a"), Some(503));
    // A controller that comes later knows that there is something to replace or to remove.
    assert!(proxy.inventory().contains(&(NAME.to_owned(), 0)));
    proxy.round(2, vec![good(&host("/a"))], &[]);
    assert_eq!((proxy.status(b"/a"), proxy.status(b"/b")), (Some(200), None));

    let mut other = Proxy::default();
    other.round(1, vec![newer(&host("/a"))], &[]);
    other.round(2, Vec::new(), &[NAME]);
    assert_eq!(other.snapshot.resource(&ResourceName::Host(key())), None);
    assert!(other.replica.len() == 0 && other.replica.refused().is_empty());
}

#[test]
fn without_settings_that_can_be_understood_nothing_is_served() {
    let settings = newer(&Settings::default().into());
    let mut replica = Replica::default();
    let took: Result<Vec<_>, _> =
        Cut::new(1, [settings].into_iter(), std::iter::empty()).map(|message| replica.take(message)).collect();
    assert!(took.is_err());
}

#[test]
fn half_a_round_changes_nothing() {
    let mut proxy = Proxy::default();
    let many = (0..40_u8).map(|last| {
        let endpoints = Endpoints::Addresses(vec![Endpoint::ready(([10, 0, 0, last], 80).into())]);
        good(
            &EndpointSet { backend: format!("shop/cart{last}:{}", "8".repeat(16_000)).as_str().into(), endpoints }
                .into(),
        )
    });
    let messages: Vec<_> = Cut::new(1, many, std::iter::empty()).collect();
    assert!(messages.len() > 1);
    assert!(proxy.replica.take(messages[0].clone()).unwrap().is_none());
    assert!(proxy.inventory().is_empty());
    // Another round in the middle of it is against the protocol; after a new connection it is not.
    let next = FromController { nonce: 2, last: true, ..FromController::default() };
    assert!(proxy.replica.take(next.clone()).is_err());
    proxy.replica.reconnect();
    let round = proxy.replica.take(next).unwrap().unwrap();
    assert!(round.delta.is_empty());
}

#[test]
fn what_is_held_and_refused_is_told_in_messages_that_are_read_however_long_the_names_are() {
    let mut proxy = Proxy::default();
    let long = "a".repeat(8 << 10);
    let hosts = (0..2 * HELD).map(|number| {
        // However long a class is, its regex is small.
        let pattern = HostPattern::parse(&format!("~^[{long}]{number:05}$")).unwrap();
        newer(&Host::new("ingress".into(), pattern, Vec::new()).into())
    });
    let hosts: Vec<_> = hosts.collect();
    let mut names: Vec<_> = hosts.iter().map(|host| (host.name.to_string(), 0)).collect();
    names.sort();
    let mut refused = proxy.round(1, hosts, &[]).refused;
    assert!(refused.iter().enumerate().all(|(at, one)| one.reason.is_empty() == (at >= REFUSALS)));
    refused.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(refused.iter().map(|one| &one.name).eq(names.iter().map(|(name, _)| name)));
    assert!(proxy.inventory() == names);
}

#[test]
fn names_are_the_same_for_the_same_resource_and_different_for_others() {
    let patterns = ["a.example", "*.a.example", "**.a.example", "a.*", "~^a b$", "*"];
    let hosts = patterns.iter().flat_map(|pattern| {
        ["ingress", "gateway"].map(|table| Host::new(table.into(), HostPattern::parse(pattern).unwrap(), Vec::new()))
    });
    let resources = hosts.map(Resource::from).chain([host("/"), endpoints(1), Settings::default().into()]);
    let names: Vec<Arc<str>> = resources.map(|resource| good(&resource).name).collect();
    let different: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");
    // A stand-in has the name that it stands in for.
    for name in names.iter().filter(|name| name.starts_with(HOST)) {
        assert_eq!(good(&stand_in(name).unwrap()).name, *name);
    }
}

/// A thousand endpoints, the last of which has this port.
fn thousand(port: u16) -> Resource {
    let address = |number: u16| ([10, 0, (number >> 8) as u8, number as u8], 80).into();
    let mut all: Vec<_> = (0..999).map(|number| Endpoint::ready(address(number))).collect();
    all.push(Endpoint::ready(([10, 1, 0, 0], port).into()));
    EndpointSet { backend: "shop/cart:80".into(), endpoints: Endpoints::Addresses(all) }.into()
}

#[test]
fn a_patch_makes_the_new_form_of_the_one_that_is_held() {
    let mut proxy = Proxy::default();
    let (old, new) = (thousand(80), thousand(81));
    proxy.round(1, vec![good(&old)], &[]);
    let patch = good(&new).after(Some(&(good(&old).version, old.clone())));
    assert!(patch.base.is_some() && patch.body.len() < 200, "{patch:?}");
    assert!(proxy.round(2, vec![patch], &[]).refused.is_empty());
    assert_eq!(proxy.snapshot.resource(&new.name().unwrap()), Some(new));
}

#[test]
fn after_a_patch_of_something_else_whole_resources_are_asked_for() {
    let mut proxy = Proxy::default();
    let (old, new) = (thousand(80), thousand(81));
    let patch = good(&new).after(Some(&(good(&old).version, old)));
    proxy.round(1, vec![good(&thousand(82))], &[]);
    assert!(proxy.replica.takes_patches());
    let mut messages = Cut::new(2, std::iter::once(patch), std::iter::empty());
    assert!(proxy.replica.take(messages.next().unwrap()).is_err());
    assert!(!proxy.replica.takes_patches());
    proxy.replica.reconnect();
    assert!(proxy.round(1, vec![good(&new)], &[]).refused.is_empty());
    assert_eq!(proxy.snapshot.resource(&new.name().unwrap()), Some(new));
}
