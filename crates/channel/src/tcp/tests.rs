//! Controllers and proxies over TLS on real sockets.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use fairway_model::{Delta, Endpoint, EndpointSet, Endpoints};
use fairway_testkit::{eventually, within};
use tokio::task::JoinHandle;
use tonic::Code;

use super::*;
use crate::client::{Change, Link, LinkStatus, Unproven};
use crate::enrol::{Denied, EnrolRequest};
use crate::grpc;
use crate::place::{ControlServer, Place, PlaceError};

const DAY: Duration = Duration::from_secs(86_400);

/// A controller at an address; ends when dropped.
struct Controller {
    hub: Hub,
    address: SocketAddr,
    papers: watch::Sender<Option<Papers>>,
    claims: mpsc::Receiver<Claim>,
    server: JoinHandle<()>,
}

impl Controller {
    async fn start(address: SocketAddr, authorities: &Authorities) -> Self {
        let (hub, _) = Hub::new();
        let papers = watch::Sender::new(Some(Papers::new(authorities.clone(), SystemTime::now()).unwrap()));
        let (sender, claims) = mpsc::channel(1);
        let server = TcpServer::bind(address, papers.subscribe(), sender).await.unwrap();
        let address = server.local_address().unwrap();
        hub.publish(Delta::upsert([endpoints(1)])).await;
        Self { address, papers, claims, server: tokio::spawn(server.run(hub.clone())), hub }
    }

    /// Answers the next claim. Returns the token presented.
    async fn decide(&mut self, verdict: Result<&str, Denied>) -> String {
        let Claim { token, answer } = within("a claim", self.claims.recv()).await.unwrap();
        answer.send(verdict.map(str::to_owned)).unwrap();
        token.expose().to_owned()
    }

    fn has_no_claim(&mut self) -> bool {
        self.claims.try_recv().is_err()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The files that a proxy has.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(authorities: &Authorities) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(files.token(), "secret\n").unwrap();
        files.trust(authorities);
        files
    }

    fn trust(&self, authorities: &Authorities) {
        std::fs::write(self.folder.path().join("ca.crt"), authorities.trusted()).unwrap();
    }

    fn token(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    fn server(&self, controller: &Controller) -> Arc<ControlServer> {
        let authorities = self.folder.path().join("ca.crt");
        Arc::new(ControlServer::new(controller.address.to_string(), authorities, &self.token()).unwrap())
    }
}

/// A proxy that takes whatever it is sent.
struct Proxy {
    status: watch::Receiver<LinkStatus>,
    link: JoinHandle<Result<(), Unproven>>,
}

impl Proxy {
    fn start(server: &Arc<ControlServer>) -> Self {
        let (sink, mut changes) = mpsc::channel::<Change>(1);
        let (link, _) = Link::new(Place::Server(server.clone()), "proxy-1".to_owned(), sink);
        let status = link.status();
        tokio::spawn(async move {
            while let Some(Change { live, .. }) = changes.recv().await {
                let _ = live.send(());
            }
        });
        Self { status, link: tokio::spawn(link.run()) }
    }

    async fn until(&mut self, what: &str, is: impl FnMut(&LinkStatus) -> bool) {
        within(what, async { self.status.wait_for(is).await.map(drop) }).await.unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.abort();
    }
}

fn endpoints(last: u8) -> fairway_model::Resource {
    let endpoints = Endpoints::Addresses(vec![Endpoint::ready(([10, 0, 0, last], 80).into())]);
    EndpointSet { backend: "shop/web:80".into(), endpoints }.into()
}

fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_shows_its_token_once_and_follows_whichever_controller_there_is() {
    let authorities = Authorities::new(SystemTime::now()).unwrap();
    let mut controller = Controller::start(anywhere(), &authorities).await;
    let files = Files::new(&authorities);
    let server = files.server(&controller);
    // The token is not read again.
    std::fs::remove_file(files.token()).unwrap();
    let mut proxy = Proxy::start(&server);
    assert_eq!(controller.decide(Ok("edge/proxy-1")).await, "secret");
    proxy.until("a complete state", |status| status.complete).await;
    controller.hub.publish(Delta::upsert([endpoints(2)])).await;
    proxy.until("a change", |status| status.rounds == 2).await;

    // Another one, with the same authorities, at the address of their Service.
    let address = controller.address;
    drop(controller);
    proxy.until("the loss", |status| !status.current).await;
    let mut other = None;
    eventually("the address is free", || {
        let free = std::net::TcpListener::bind(address).is_ok();
        async move { free }
    })
    .await;
    let controller = other.insert(Controller::start(address, &authorities).await);
    proxy.until("the other controller", |status| status.current).await;
    assert!(controller.has_no_claim());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_gets_nothing() {
    let authorities = Authorities::new(SystemTime::now()).unwrap();
    let controller = Controller::start(anywhere(), &authorities).await;
    let files = Files::new(&authorities);
    let server = files.server(&controller);
    let connection = server.dial(false).await.unwrap();
    let (_say, said) = mpsc::channel(1);
    let refused = grpc::follow(connection, said).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let request = EnrolRequest {
        token: String::new(),
        public_key: KeyPair::generate().unwrap().public_key_raw().to_vec().into(),
    };
    let refused = grpc::enrol(server.dial(false).await.unwrap(), request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let request = EnrolRequest { token: "t".repeat(TOO_LONG), public_key: vec![4; 65].into() };
    let refused = grpc::enrol(server.dial(false).await.unwrap(), request).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    assert_eq!(controller.hub.figures().proxies, 0);
}

/// Longer than any message about a token.
const TOO_LONG: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_ends_the_proxy_and_one_that_cannot_be_checked_does_not() {
    let authorities = Authorities::new(SystemTime::now()).unwrap();
    let mut controller = Controller::start(anywhere(), &authorities).await;
    let files = Files::new(&authorities);
    let mut proxy = Proxy::start(&files.server(&controller));
    controller.decide(Err(Denied::Unchecked("no API server".to_owned()))).await;
    controller.decide(Err(Denied::Token("it is that of shop/web".to_owned()))).await;
    assert_eq!(within("its end", &mut proxy.link).await.unwrap(), Err(Unproven));
    assert_eq!(controller.hub.figures().proxies, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_controller_never_sees_the_token() {
    let now = SystemTime::now();
    let (own, false_ones) = (Authorities::new(now).unwrap(), Authorities::new(now).unwrap());
    let mut controller = Controller::start(anywhere(), &false_ones).await;
    let files = Files::new(&own);
    let server = files.server(&controller);
    assert!(matches!(server.connect().await, Err(PlaceError::Connect(_))));
    assert!(controller.has_no_claim());

    // Nor does a proxy that poses as the controller with its own certificate.
    let key = KeyPair::generate().unwrap();
    let certificate = own.sign(Subject::Proxy, &key, now).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = Arc::new(tls.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    controller.papers.send_replace(Some(Papers { tls, authorities: Arc::new(own.clone()) }));
    assert!(matches!(server.connect().await, Err(PlaceError::Connect(_))));
    assert!(controller.has_no_claim());
}

/// The proxy's certificate is from the previous authority, the controller's from the next one.
#[tokio::test(flavor = "multi_thread")]
async fn while_two_authorities_are_trusted_their_certificates_meet_and_are_renewed() {
    let now = SystemTime::now();
    let first = Authorities::new(now - DAY * 91).unwrap();
    let both = first.due(now - DAY).unwrap().unwrap();
    let mut controller = Controller::start(anywhere(), &first).await;
    let files = Files::new(&first);
    let server = files.server(&controller);
    let (connected, _) = tokio::join!(server.connect(), controller.decide(Ok("edge/proxy-1")));
    drop(connected.unwrap());

    controller.papers.send_replace(Some(Papers::new(both.clone(), now).unwrap()));
    assert!(server.connect().await.is_err(), "the file does not name the next one yet");
    files.trust(&both);
    let mut proxy = Proxy::start(&server);
    proxy.until("a complete state", |status| status.complete).await;
    server.enrol().await.unwrap();
    assert!(controller.has_no_claim(), "a certificate is renewed by itself");

    // The previous authority is gone, and with it what it signed.
    let second = both.due(now + DAY * 9).unwrap().unwrap();
    controller.papers.send_replace(Some(Papers::new(second.clone(), now).unwrap()));
    let mut proxy = Proxy::start(&server);
    proxy.until("a complete state", |status| status.complete).await;
}

#[test]
fn who_opens_many_connections_takes_none_from_others() {
    let strangers = Strangers::default();
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let mut held: Vec<_> = (0..STRANGERS_EACH).filter_map(|_| strangers.admit(address(1))).collect();
    assert_eq!((held.len(), strangers.admit(address(1)).is_none()), (STRANGERS_EACH, true));
    assert!(strangers.admit(address(2)).is_some());
    held.pop();
    assert!(strangers.admit(address(1)).is_some());
    drop(held);
    assert!(strangers.0.lock().unwrap().is_empty(), "nothing is kept of who has gone");
}
