use std::num::NonZeroUsize;
use std::sync::Arc;

use fairway_model::{
    Action, Backend, Balance, Delta, Endpoint, EndpointSet, Endpoints, Forward, ForwardPolicy, Host, HostPattern,
    Listener, Origin as Owner, PathMatch, Protocol, Resource, Route, Scheme, Snapshot,
};
use fairway_proxy::ProxyConfig;
use fairway_proxy::resolve::AddressPolicy;
use fairway_testkit::{Client, Gate, Origin, Reply, eventually, within};
use tokio::sync::oneshot;

use super::*;

/// A proxy that forwards a.example to the origin.
fn proxy(origin: &Origin) -> Proxy {
    let listener = Listener::new("http", ([127, 0, 0, 1], 0).into(), Scheme::Http, "t".into());
    let backend = Backend {
        name: "b".into(),
        origin: Owner::new("Service", "n", "b"),
        port: "80".into(),
        upstream_name: "n-b-80".into(),
        protocol: Protocol::Http1,
        balance: Balance::RoundRobin,
        affinity: None,
        health_check: None,
        retry: None,
        request_fields: Vec::new(),
    };
    let endpoints = Endpoints::Addresses(vec![Endpoint::ready(origin.address())]);
    let forward = Forward {
        backends: "b".into(),
        fallback: None,
        session_cookie_path: None,
        policy: Arc::new(ForwardPolicy::default()),
    };
    let path = PathMatch::prefix("/").unwrap();
    let route = Route::new(Owner::new("Ingress", "n", "i"), path, Action::Forward(forward));
    let resources = [
        Resource::from(listener),
        backend.into(),
        EndpointSet { backend: "b".into(), endpoints }.into(),
        Host::new("t".into(), HostPattern::parse("a.example").unwrap(), vec![route]).into(),
    ];
    let addresses = AddressPolicy { loopback_endpoints: true, ..AddressPolicy::default() };
    let config = ProxyConfig { workers: NonZeroUsize::new(2), addresses, ..ProxyConfig::default() };
    Proxy::start(Snapshot::default().apply(Delta::upsert(resources)), config).unwrap()
}

/// An error of the controller itself.
#[derive(Debug, thiserror::Error)]
#[error("the proxy takes no more changes")]
struct Failed;

/// Fails as a controller may.
async fn fail(way: &str) -> anyhow::Result<()> {
    match way {
        "error" => Err(Failed.into()),
        "panic" => panic!("out of its mind"),
        _ => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_answered_when_the_controller_fails() {
    for (way, told) in [
        ("error", "the controller ended: the proxy takes no more changes"),
        ("panic", "out of its mind"),
        ("end", "the controller stopped unexpectedly"),
    ] {
        let held = Gate::new();
        let origin = Origin::new("web").reply(Reply::ok().body("done").held_by(&held)).start();
        let proxy = proxy(&origin);
        let http = proxy.local_addresses()[&"http".into()];
        let mut client = Client::connect(http).await;
        client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        origin.next_request().await;

        let (begin, begun) = oneshot::channel();
        let task = tokio::spawn(async move {
            begun.await.unwrap();
            fail(way).await
        });
        let (_ready, ready) = watch::channel(true);
        let control = Control { ready, task, leave: watch::Sender::new(false), stop: watch::Sender::new(false) };
        let (_changes, changes) = mpsc::channel::<fairway_channel::Change>(1);
        // The test never waits for this hour to pass.
        let choices =
            Choices { class: "nginx".into(), grace: Duration::ZERO, after: Duration::from_secs(3600), handover: None };
        let (signals, mut signalled) = mpsc::channel(1);
        let signal = async || match signalled.recv().await {
            Some(()) => (),
            None => std::future::pending().await,
        };
        let look = async {
            begin.send(()).unwrap();
            eventually("no more connections", || async { Client::try_connect(http).await.is_err() }).await;
            // A request to stop now requests what already happens.
            signals.send(()).await.unwrap();
            eventually("a signal that is heard", || async { signals.capacity() == 1 }).await;
            held.release();
            client.read_response().await
        };
        let serving = within("the end", serve(control, changes, proxy, choices, signal));
        let (ended, response) = tokio::join!(serving, look);
        assert_eq!((response.status, response.text()), (200, "done".into()), "{way}");
        let error = format!("{:#}", ended.unwrap_err());
        assert!(error.contains(told), "{way}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_fails_before_anything_is_served_ends_the_process_at_once() {
    let proxy = proxy(&Origin::start("web"));
    let lifecycle = proxy.readiness();
    let (_ready, ready) = watch::channel(false);
    let task = tokio::spawn(fail("error"));
    let control = Control { ready, task, leave: watch::Sender::new(false), stop: watch::Sender::new(false) };
    let (_changes, changes) = mpsc::channel::<fairway_channel::Change>(1);
    let hour = Duration::from_secs(3600);
    let choices = Choices { class: "nginx".into(), grace: hour, after: hour, handover: None };
    within("the end", serve(control, changes, proxy, choices, std::future::pending)).await.unwrap_err();
    assert_eq!(lifecycle.stage(), Stage::Draining);
}

#[test]
fn the_notice_says_what_is_awaited_and_how_to_end() {
    let text = notice_text(Duration::ZERO, Duration::from_secs(240));
    assert!(text.starts_with("Ending: waiting for open requests for up to 240 s"), "{text}");
    assert!(text.ends_with("Press Ctrl-C again to end at once."), "{text}");
    assert!(notice_text(Duration::from_secs(5), Duration::ZERO).contains("another 5 s"));
}
