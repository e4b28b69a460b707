//! Controllers and proxies over real sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fairway_channel::{
    Change, Dealt, Hub, Link, LinkReporter, LinkStatus, Place, Report, ShareEnd, SocketServer, Unproven,
};
use fairway_model::{
    Certificate, CountedClient, Delta, Demand, DemandReport, Endpoint, EndpointSet, Endpoints, LimitKey, LimitKind,
    LimitPart, Origin, PrivateKey, Resource, Settings, ShareDeal, Snapshot,
};
use fairway_testkit::{eventually, within};
use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;

fn endpoints(name: u32, last: u8) -> Resource {
    let endpoints = Endpoints::Addresses(vec![Endpoint::ready(([10, 0, 0, last], 80).into())]);
    EndpointSet { backend: format!("shop/b{name}:80").into(), endpoints }.into()
}

fn certificate(key: &[u8]) -> Resource {
    Certificate {
        name: "shop/tls".into(),
        origin: Origin::new("Secret", "shop", "tls"),
        fingerprint: "00".into(),
        not_after: 4_000_000_000,
        chain: vec![Arc::from(*b"certificate")],
        key: PrivateKey::new(key),
    }
    .into()
}

/// A controller at a socket; ends when dropped.
struct Controller {
    hub: Hub,
    reports: mpsc::Receiver<Report>,
    server: JoinHandle<()>,
}

impl Controller {
    fn start(socket: &Path) -> Self {
        let (hub, reports) = Hub::new();
        let server = tokio::spawn(SocketServer::bind(socket).expect("a free place").run(hub.clone()));
        Self { hub, reports, server }
    }

    /// Ends like a process: its connections end with it.
    async fn end(self, socket: &Path) {
        self.server.abort();
        let _ = self.server.await;
        drop(self.hub);
        std::fs::remove_file(socket).expect("the socket");
    }
}

/// A proxy that applies what it is sent.
struct Proxy {
    snapshot: Arc<Mutex<Snapshot>>,
    status: watch::Receiver<LinkStatus>,
    reporter: LinkReporter,
    link: JoinHandle<Result<(), Unproven>>,
    applying: JoinHandle<()>,
}

impl Proxy {
    fn start(socket: &Path) -> Self {
        let (sink, changes) = mpsc::channel::<Change>(1);
        let (link, reporter) = Link::new(Place::Socket(socket.to_owned()), "proxy-1".to_owned(), sink);
        Self::follow(link, reporter, changes)
    }

    /// One that takes shares of limits.
    fn sharing(socket: &Path) -> (Self, ShareEnd) {
        let (sink, changes) = mpsc::channel::<Change>(1);
        let (mut link, reporter) = Link::new(Place::Socket(socket.to_owned()), "proxy-1".to_owned(), sink);
        let end = link.shares();
        (Self::follow(link, reporter, changes), end)
    }

    fn follow(link: Link, reporter: LinkReporter, mut changes: mpsc::Receiver<Change>) -> Self {
        let status = link.status();
        let snapshot = Arc::new(Mutex::new(Snapshot::default()));
        let served = snapshot.clone();
        let apply = async move {
            while let Some(Change { delta, live }) = changes.recv().await {
                let mut snapshot = served.lock().await;
                *snapshot = snapshot.apply(delta);
                let _ = live.send(());
            }
        };
        Self { snapshot, status, reporter, link: tokio::spawn(link.run()), applying: tokio::spawn(apply) }
    }

    async fn until(&mut self, what: &str, is: impl FnMut(&LinkStatus) -> bool) {
        within(what, async { self.status.wait_for(is).await.expect("the link runs").clone() }).await;
    }

    async fn holds(&self, resources: &[Resource]) {
        let expected = Snapshot::default().apply(Delta::upsert(resources.iter().cloned()));
        assert_eq!(*self.snapshot.lock().await, expected);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.abort();
        self.applying.abort();
    }
}

fn socket() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("channel.sock");
    (folder, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_gets_the_whole_state_in_one_round_and_then_each_change() {
    let (_folder, socket) = socket();
    // The proxy is there first.
    let mut proxy = Proxy::start(&socket);
    let controller = Controller::start(&socket);
    let many: Vec<_> = (0..3000).map(|name| endpoints(name, 1)).chain([certificate(b"key")]).collect();
    controller.hub.publish(Delta::upsert(many.clone())).await;
    proxy.until("a complete state", |status| status.complete).await;
    proxy.holds(&many).await;
    assert_eq!(proxy.status.borrow().rounds, 1);

    // A publication resolves when it is in force.
    let gone = many[0].name().unwrap();
    let changed = endpoints(1, 2);
    controller.hub.publish(Delta { upserts: vec![changed.clone()], removals: vec![gone] }).await;
    let mut expected = many;
    expected[1] = changed;
    expected.remove(0);
    proxy.holds(&expected).await;
    assert_eq!(controller.hub.figures().sent, 3001 + 2);
}

/// A proxy that holds these resources, and whose controller is gone.
async fn left_alone(socket: &Path) -> (Proxy, Vec<Resource>) {
    let controller = Controller::start(socket);
    let mut proxy = Proxy::start(socket);
    let many: Vec<_> = (0..500).map(|name| endpoints(name, 1)).collect();
    controller.hub.publish(Delta::upsert(many.clone())).await;
    proxy.until("a complete state", |status| status.complete).await;
    controller.end(socket).await;
    proxy.until("the loss", |status| !status.current).await;
    (proxy, many)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_again_after_the_controller_restarts() {
    let (_folder, socket) = socket();
    let (mut proxy, many) = left_alone(&socket).await;
    // Without a controller, it continues with what it has, and knows how old that is.
    proxy.holds(&many).await;
    assert!(proxy.status.borrow().age().unwrap() > Duration::ZERO);

    // The new controller has the same objects, except one that has changed and one that has gone meanwhile.
    let controller = Controller::start(&socket);
    let mut expected = many;
    expected.remove(0);
    expected[0] = endpoints(1, 9);
    proxy.until("a connection", |status| status.connections == 2).await;
    assert!(!proxy.status.borrow().current, "the new controller knows nothing yet");
    controller.hub.publish(Delta::upsert(expected.clone())).await;
    proxy.until("the new state", |status| status.current).await;
    proxy.holds(&expected).await;
    let figures = controller.hub.figures();
    assert_eq!((figures.rounds, figures.sent), (1, 2));
    controller.end(&socket).await;

    // A controller that has exactly the same sends nothing at all.
    let controller = Controller::start(&socket);
    proxy.until("the loss", |status| !status.current).await;
    controller.hub.publish(Delta::upsert(expected.clone())).await;
    proxy.until("a confirmation", |status| status.current).await;
    assert_eq!(controller.hub.figures().sent, 0);
    proxy.holds(&expected).await;
}

/// Six hours pass while the proxy attempts to connect.
#[tokio::test]
async fn hours_without_a_controller_end_with_one_round_of_what_has_changed() {
    const AWAY: Duration = Duration::from_secs(6 * 3600);
    let (_folder, socket) = socket();
    let (mut proxy, many) = left_alone(&socket).await;

    // This listener closes each connection at once.
    let closed = UnixListener::bind(&socket).unwrap();
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = attempts.clone();
    let door = tokio::spawn(async move {
        while closed.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    tokio::time::pause();
    tokio::time::sleep(AWAY).await;
    let age = proxy.status.borrow().age().unwrap();
    assert!(age >= AWAY && age < AWAY + Duration::from_secs(60), "{age:?}");
    // With pauses of up to five seconds, shortened by up to a half.
    let attempts = attempts.load(Ordering::Relaxed);
    assert!((4320..8700).contains(&attempts), "{attempts}");
    proxy.holds(&many).await;
    assert_eq!((proxy.status.borrow().rounds, proxy.status.borrow().complete), (1, true));
    tokio::time::resume();
    door.abort();
    let _ = door.await;
    std::fs::remove_file(&socket).unwrap();

    // More has changed than a controller remembers, which is a new one anyway.
    let controller = Controller::start(&socket);
    let mut expected: Vec<_> = (100..500).map(|name| endpoints(name, 2)).collect();
    expected.extend((500..600).map(|name| endpoints(name, 1)));
    controller.hub.publish(Delta::upsert(expected.clone())).await;
    proxy.until("the new state", |status| status.current).await;
    proxy.holds(&expected).await;
    let figures = controller.hub.figures();
    assert_eq!((figures.rounds, figures.sent, proxy.status.borrow().rounds), (1, 600, 2));
    assert_eq!(proxy.status.borrow().age(), Some(Duration::ZERO));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_proxy_gets_everything_and_the_old_one_nothing() {
    let (_folder, socket) = socket();
    let controller = Controller::start(&socket);
    let mut first = Proxy::start(&socket);
    let many: Vec<_> = (0..50).map(|name| endpoints(name, 1)).collect();
    controller.hub.publish(Delta::upsert(many.clone())).await;
    first.until("a complete state", |status| status.complete).await;
    let mut second = Proxy::start(&socket);
    second.until("a complete state", |status| status.complete).await;
    second.holds(&many).await;
    assert_eq!(controller.hub.figures().sent, 100);
    assert_eq!(first.status.borrow().rounds, 1);
    eventually("both are current", || async { controller.hub.figures().current == 2 }).await;
    drop(second);
    eventually("one is left", || async { controller.hub.figures().proxies == 1 }).await;
    // It is no longer waited for.
    within("a publication", controller.hub.publish(Delta::upsert([endpoints(0, 2)]))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_sees_reaches_the_controller() {
    let (_folder, socket) = socket();
    let mut controller = Controller::start(&socket);
    let mut proxy = Proxy::start(&socket);
    controller.hub.publish(Delta::upsert([endpoints(1, 1)])).await;
    proxy.until("a complete state", |status| status.complete).await;
    let origin = Origin::new("Ingress", "shop", "web").section("rules[0]");
    let address = "10.0.0.1:80".parse().unwrap();
    proxy.reporter.unreachable(&origin, "shop/cart:80", &[(address, "connect_refused")]);
    let report = within("a report", controller.reports.recv()).await.unwrap();
    let endpoints = vec![(address, "connect_refused".to_owned())];
    assert_eq!(report, Report::Unreachable { origin, backend: "shop/cart:80".to_owned(), endpoints });
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_reports_of_any_length_keep_neither_end_waiting_for_the_other() {
    let (_folder, socket) = socket();
    let controller = Controller::start(&socket);
    let long = "a".repeat(16 << 10);
    let many = (0..700).map(|number| {
        let endpoints = Endpoints::Addresses(vec![Endpoint::ready(([10, 0, 0, 1], 80).into())]);
        EndpointSet { backend: format!("shop/{long}{number}:80").into(), endpoints }.into()
    });
    let many: Vec<Resource> = many.collect();
    controller.hub.publish(Delta::upsert(many.clone())).await;
    // Reports that fill every window wait already when the round is sent, which fills them in the other direction.
    let (sink, changes) = mpsc::channel::<Change>(1);
    let (link, reporter) = Link::new(Place::Socket(socket.clone()), "proxy-1".to_owned(), sink);
    let backend = "b".repeat(256 << 10);
    for _ in 0..64 {
        let address = "10.0.0.1:80".parse().unwrap();
        reporter.unreachable(&Origin::new("Ingress", "shop", "web"), &backend, &[(address, "connect_refused")]);
    }
    let mut proxy = Proxy::follow(link, reporter, changes);
    proxy.until("a complete state", |status| status.complete).await;
    proxy.holds(&many).await;
    // Another controller receives all the names.
    controller.end(&socket).await;
    proxy.until("the loss", |status| !status.current).await;
    let controller = Controller::start(&socket);
    controller.hub.publish(Delta::upsert(many.clone())).await;
    proxy.until("a confirmation", |status| status.current).await;
    assert_eq!(controller.hub.figures().sent, 0);
}

/// The next deal, and the number of the connection.
async fn dealt(end: &mut ShareEnd) -> (u64, ShareDeal) {
    match within("a deal", end.next()).await {
        Some(Dealt::Shares(connection, deal)) => (connection, deal),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_dealt_to_those_who_take_them_by_what_these_report() {
    let (_folder, socket) = socket();
    let controller = Controller::start(&socket);
    let settings = Settings { replicas: 2.try_into().unwrap(), ..Settings::default() };
    controller.hub.publish(Delta::upsert([settings.into()])).await;
    // A proxy of an older release takes no shares, but takes rounds as before.
    let mut old = Proxy::start(&socket);
    let ((mut busy, mut at_busy), (_idle, mut at_idle)) = (Proxy::sharing(&socket), Proxy::sharing(&socket));
    let ((connection, first), (idle, at_first)) = (dealt(&mut at_busy).await, dealt(&mut at_idle).await);
    assert!(first.shares.is_empty() && at_first.shares.is_empty(), "they are told only that shares are dealt");

    let client = CountedClient::V4([203, 0, 113, 9]);
    let key = LimitKey { scope: "shop/web".into(), client, kind: LimitKind::PerSecond };
    let (now, lately, held) = (LimitPart::WHOLE, LimitPart::WHOLE, LimitPart::default());
    let demand = Demand { key: key.clone(), now, lately, held, span: Duration::from_secs(1) };
    let report = |number, applied| DemandReport { number, applied, demands: vec![demand.clone()], cut: false };
    at_busy.report(connection, report(1, first.number));
    // The other share is lowered first, and the rest is dealt only once that is confirmed: at no time do both have more than all.
    let even = LimitPart::fraction(0.5);
    let (mut share, mut floor, mut number) = (even, even, 1);
    let mut at_idle_number = 0;
    while share < LimitPart::fraction(0.9) {
        tokio::select! {
            (_, deal) = dealt(&mut at_busy) => {
                for (dealt_key, dealt) in &deal.shares {
                    assert_eq!(*dealt_key, key);
                    share = dealt.unwrap_or(even);
                }
                number += 1;
                at_busy.report(connection, report(number, deal.number));
            }
            (_, deal) = dealt(&mut at_idle) => {
                for (dealt_key, dealt) in &deal.shares {
                    assert_eq!(*dealt_key, key);
                    floor = dealt.unwrap_or(even);
                }
                at_idle_number += 1;
                let (number, applied) = (at_idle_number, deal.number);
                at_idle.report(idle, DemandReport { number, applied, demands: Vec::new(), cut: false });
            }
        }
        assert!(share.get() + floor.get() <= LimitPart::WHOLE.get(), "{share:?} and {floor:?}");
    }
    assert!(floor < LimitPart::fraction(0.1), "{floor:?}");
    assert_eq!(controller.hub.figures().shared, 1);

    // What belongs to another connection is not told: it would be answered, as the next report is.
    let number_at_idle = at_idle_number + 1;
    let last = || DemandReport { number: number_at_idle, applied: 0, demands: Vec::new(), cut: false };
    at_idle.report(idle + 1, last());
    while let Ok(answer) = tokio::time::timeout(Duration::from_millis(300), at_idle.next()).await {
        assert!(matches!(&answer, Some(Dealt::Shares(_, deal)) if deal.heard < number_at_idle), "{answer:?}");
    }
    at_idle.report(idle, last());
    while dealt(&mut at_idle).await.1.heard < number_at_idle {}

    // Reports come between the messages of rounds, too.
    number += 1;
    at_busy.report(connection, report(number, 0));
    controller.hub.publish(Delta::upsert([endpoints(1, 1)])).await;
    let asked = number;
    loop {
        let (_, deal) = dealt(&mut at_busy).await;
        if deal.heard >= asked {
            break;
        }
        number += 1;
        at_busy.report(connection, report(number, deal.number));
    }
    for proxy in [&mut old, &mut busy] {
        proxy.until("both rounds", |status| status.rounds == 2).await;
    }
    controller.end(&socket).await;
    let gone = async { while at_idle.next().await != Some(Dealt::Gone) {} };
    within("the end", gone).await;
}
