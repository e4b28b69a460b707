//! Client certificates: which clients are admitted, what others get, what backends learn, and that no verdict is carried over.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::sync::Arc;

use crate::support::http2::H2;
use crate::support::log::{Lines, logging};
use crate::support::{HOST, TestProxy, backend, certificate, config, forward, host, route, table};
use fairway_model::{
    Authority, CertificateErrorPage, ClientAuth, ClientAuthMode, ForwardPolicy, Host, HostPattern, Onward, Resource,
};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Ca, Client, Leaf, Origin, Response, TlsClient};

struct Site {
    ca: Ca,
    origin: Origin,
    proxy: TestProxy,
}

fn auth(ca: &Ca) -> ClientAuth {
    ClientAuth {
        mode: ClientAuthMode::Required,
        authorities: [Authority::new(ca.der().to_vec())].into(),
        revocation_lists: [].into(),
        depth: 1,
        subject: None,
        error_page: None,
        passes_certificate: false,
        in_handshake: false,
    }
}

fn asking(name: &str, auth: ClientAuth) -> Resource {
    let routes = vec![route("/", forward("web", ForwardPolicy::default()))];
    let host = Host::new(table(), HostPattern::parse(name).unwrap(), routes);
    Resource::from(host.with_client_auth(Some(Arc::new(auth))))
}

fn start_with(change: impl FnOnce(&mut ClientAuth), config: ProxyConfig) -> Site {
    let (ca, origin) = (Ca::new("root"), Origin::start("a"));
    let mut auth = auth(&ca);
    change(&mut auth);
    let mut resources = backend("web", &[origin.address()]);
    resources.push(asking(HOST, auth));
    resources.push(host("plain.example", vec![route("/", forward("web", ForwardPolicy::default()))]));
    Site { ca, origin, proxy: TestProxy::start_with(resources, config) }
}

fn start(change: impl FnOnce(&mut ClientAuth)) -> Site {
    start_with(change, config())
}

fn client(leaf: Option<&Leaf>) -> TlsClient {
    let client = TlsClient::unverified(HOST);
    leaf.map_or(client.clone(), |leaf| client.certificate(leaf))
}

impl Site {
    async fn get(&self, leaf: Option<&Leaf>) -> Response {
        client(leaf).connect(self.proxy.https).await.get(HOST, "/").await
    }

    /// The status, and the verdict that the backend gets.
    async fn outcome(&self, leaf: Option<&Leaf>) -> (u16, Option<String>) {
        let response = self.get(leaf).await;
        let told = (response.status == 200).then(|| response.echo());
        (response.status, told.and_then(|echo| echo.header("ssl-client-verify").map(str::to_owned)))
    }
}

fn told(status: u16, verdict: &str) -> (u16, Option<String>) {
    (status, Some(verdict.to_owned()))
}

#[tokio::test]
async fn a_client_without_a_good_certificate_gets_400_and_no_alert() {
    let site = start(|_| {});
    let strange = Ca::new("other").leaf(&["client"]);
    let cases = [
        (None, "No required SSL certificate was sent"),
        (Some(strange), "The SSL certificate error"),
        (Some(site.ca.certificate(&["client"]).expired().issue()), "The SSL certificate error"),
        (Some(site.ca.certificate(&["client"]).not_yet_valid().issue()), "The SSL certificate error"),
    ];
    for (leaf, message) in &cases {
        for client in [client(leaf.as_ref()).only_tls12(), client(leaf.as_ref()).only_tls13()] {
            let mut connection = client.connect(site.proxy.https).await;
            for _ in 0..2 {
                let response = connection.get(HOST, "/").await;
                assert_eq!(response.status, 400);
                assert!(response.text().contains(message), "{}", response.text());
            }
        }
    }
    assert_eq!(site.origin.connections(), 0);
}

#[tokio::test]
async fn a_good_certificate_is_told_to_the_backend_in_place_of_claims() {
    let lines = Lines::default();
    let format = "$ssl_client_verify|$ssl_client_s_dn|$ssl_client_i_dn|$ssl_client_serial|\
        $ssl_client_v_start|$ssl_client_v_end|$ssl_client_v_remain";
    let site = start_with(|auth| auth.passes_certificate = true, logging(&lines, format));
    let leaf =
        site.ca.certificate(&["client"]).common_name("a, b").serial(0x2a).valid((2020, 1, 2), (4000, 12, 31)).issue();
    let claims = [
        ("host", HOST),
        ("ssl-client-verify", "SUCCESS"),
        ("SSL_Client_Subject_DN", "CN=root"),
        ("ssl-client-cert", "x"),
        ("ssl-client-own", "x"),
    ];
    for client in [client(Some(&leaf)).only_tls12(), client(Some(&leaf)).only_tls13()] {
        let mut connection = client.connect(site.proxy.https).await;
        let echo = connection.request("GET", "/", &claims, b"").await.echo();
        assert_eq!(echo.headers.all("ssl-client-verify"), ["SUCCESS"]);
        assert_eq!(echo.headers.all("ssl-client-subject-dn"), ["CN=a\\, b"]);
        assert_eq!(echo.headers.all("ssl-client-issuer-dn"), ["CN=root"]);
        assert_eq!(echo.header("ssl_client_subject_dn"), None);
        assert_eq!(echo.header("ssl-client-own"), None);
        let certificate = echo.header("ssl-client-cert").unwrap().to_owned();
        assert!(certificate.starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"), "{certificate}");
        assert!(certificate.ends_with("%0A-----END%20CERTIFICATE-----%0A"), "{certificate}");
    }
    let lines = lines.after(2).await;
    for line in &lines {
        let (told, days) = line.rsplit_once('|').unwrap();
        let validity = "Jan  2 00:00:00 2020 GMT|Dec 31 00:00:00 4000 GMT";
        assert_eq!(told, format!("SUCCESS|CN=a\\x5C, b|CN=root|2A|{validity}"));
        assert!(days.parse::<u32>().unwrap() > 365_000, "{line}");
    }
}

#[tokio::test]
async fn optional_admits_none_and_no_bad_one() {
    let site = start(|auth| auth.mode = ClientAuthMode::Optional);
    let strange = Ca::new("other").leaf(&["client"]);
    assert_eq!(site.outcome(None).await, told(200, "NONE"));
    assert_eq!(site.outcome(Some(&site.ca.leaf(&["client"]))).await, told(200, "SUCCESS"));
    assert_eq!(site.outcome(Some(&strange)).await, (400, None));
    let echo = site.get(None).await.echo();
    assert_eq!(echo.header("ssl-client-cert"), None);
    assert_eq!(echo.header("ssl-client-subject-dn"), None);
}

#[tokio::test]
async fn any_authority_admits_unknown_ones_only() {
    let site = start(|auth| auth.mode = ClientAuthMode::AnyAuthority);
    let other = Ca::new("other");
    assert_eq!(site.outcome(None).await, told(200, "NONE"));
    let verdict = told(200, "FAILED:unable to verify the first certificate");
    assert_eq!(site.outcome(Some(&other.leaf(&["client"]))).await, verdict);
    assert_eq!(site.outcome(Some(&site.ca.leaf(&["client"]))).await, told(200, "SUCCESS"));
    let expired = site.ca.certificate(&["client"]).expired().issue();
    assert_eq!(site.outcome(Some(&expired)).await, (400, None));
}

#[tokio::test]
async fn a_chain_is_no_longer_than_allowed() {
    for (depth, expected) in [(1, 400), (2, 200)] {
        let site = start(|auth| auth.depth = depth);
        let near = site.ca.intermediate("near");
        assert_eq!(site.outcome(Some(&near.leaf(&["client"]))).await.0, 200);
        let far = near.intermediate("far");
        assert_eq!(site.outcome(Some(&far.leaf(&["client"]))).await.0, expected, "{depth}");
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused() {
    let ca = Ca::new("root");
    let origin = Origin::start("a");
    let policy = |list: Vec<u8>| ClientAuth { revocation_lists: [Authority::new(list)].into(), ..auth(&ca) };
    let mut resources = backend("web", &[origin.address()]);
    resources.push(asking(HOST, policy(ca.revocation_list(&[7], true))));
    let site = Site { proxy: TestProxy::start(resources), origin, ca: Ca::new("unused") };
    let (revoked, good) =
        (ca.certificate(&["client"]).serial(7).issue(), ca.certificate(&["client"]).serial(8).issue());
    assert_eq!(site.outcome(Some(&revoked)).await, (400, None));
    assert_eq!(site.outcome(Some(&good)).await, told(200, "SUCCESS"));
    for useless in [ca.revocation_list(&[7], false), Ca::new("root").revocation_list(&[], true), b"no list".to_vec()] {
        site.proxy.publish([asking(HOST, policy(useless))]).await;
        assert_eq!(site.outcome(Some(&good)).await, (400, None), "nothing says that it is good");
    }
    assert_eq!(site.origin.connections(), 1);
}

#[tokio::test]
async fn another_subject_gets_403_also_on_plain_http() {
    let site = start(|auth| auth.subject = Some("CN=admin".parse().unwrap()));
    let leaf = |name| site.ca.certificate(&["client"]).common_name(name).issue();
    assert_eq!(site.get(Some(&leaf("administrator"))).await.status, 200, "it is searched for");
    let response = site.get(Some(&leaf("Admin"))).await;
    assert_eq!(response.status, 403);
    assert!(response.text().contains("client certificate unauthorized"));
    assert_eq!(site.proxy.connect().await.get(HOST, "/").await.status, 403);
}

#[tokio::test]
async fn plain_http_is_served_without_claims() {
    let site = start(|_| {});
    let fields = [("host", HOST), ("ssl-client-verify", "SUCCESS"), ("ssl-client-subject-dn", "CN=admin")];
    let echo = site.proxy.connect().await.request("GET", "/", &fields, b"").await.echo();
    assert_eq!(echo.header("ssl-client-verify"), None);
    assert_eq!(echo.header("ssl-client-subject-dn"), None);
}

#[tokio::test]
async fn the_error_page_replaces_400() {
    let url = "https://help.example/certificate";
    let site = start(|auth| auth.error_page = Some(CertificateErrorPage::Url(url.into())));
    let response = site.get(None).await;
    assert_eq!((response.status, response.header("location")), (302, Some(url)));
    assert_eq!(site.outcome(Some(&site.ca.leaf(&["client"]))).await.0, 200);

    let site = start(|auth| auth.error_page = Some(CertificateErrorPage::Path("/help".into())));
    let mut connection = client(None).connect(site.proxy.https).await;
    let echo = connection.get(HOST, "/secret/thing?x=1").await.echo();
    assert_eq!(echo.target, "/help", "and nothing of what was asked for");
    assert_eq!(echo.header("ssl-client-verify"), Some("NONE"));
    let post = connection.request("POST", "/secret", &[("host", HOST)], b"body").await;
    assert_eq!(post.status, 400);
}

#[tokio::test]
async fn a_connection_for_a_host_with_other_demands_is_misdirected() {
    let site = start(|_| {});
    let leaf = site.ca.leaf(&["client"]);
    let mut elsewhere = TlsClient::unverified("plain.example").certificate(&leaf).connect(site.proxy.https).await;
    assert_eq!(elsewhere.get("plain.example", "/").await.status, 200);
    assert_eq!(elsewhere.get(HOST, "/").await.status, 421);
    let mut nameless = client(Some(&leaf)).without_sni().connect(site.proxy.https).await;
    assert_eq!(nameless.get(HOST, "/").await.status, 421);
    let mut own = client(Some(&leaf)).connect(site.proxy.https).await;
    assert_eq!(own.get(HOST, "/").await.status, 200);
    let misdirected = own.get("plain.example", "/").await;
    assert_eq!((misdirected.status, misdirected.header("connection")), (421, Some("close")));
    own.ended().await;
    let mut own = client(Some(&leaf)).connect(site.proxy.https).await;
    // A host with the same demands does not count as another.
    site.proxy.publish([asking("same.example", auth(&site.ca))]).await;
    assert_eq!(own.get("same.example", "/").await.echo().header("ssl-client-verify"), Some("SUCCESS"));
    site.proxy.publish([asking("same.example", ClientAuth { depth: 2, ..auth(&site.ca) })]).await;
    assert_eq!(own.get("same.example", "/").await.status, 421);
}

#[tokio::test]
async fn a_coalesced_connection_for_a_host_with_other_demands_is_misdirected() {
    let (ca, origin) = (Ca::new("root"), Origin::start("a"));
    // One certificate covers all hosts, so browsers use one connection for them.
    let shared = ca.leaf(&[HOST, "plain.example", "same.example"]);
    let of_host = |name: &str, auth: Option<ClientAuth>| {
        let routes = vec![route("/", forward("web", ForwardPolicy::default()))];
        let host =
            Host::new(table(), HostPattern::parse(name).unwrap(), routes).with_certificate(Some("shared".into()));
        Resource::from(host.with_client_auth(auth.map(Arc::new)))
    };
    let mut resources = backend("web", &[origin.address()]);
    resources.extend([certificate("shared", &shared), of_host("plain.example", None)]);
    resources.extend([HOST, "same.example"].map(|name| of_host(name, Some(auth(&ca)))));
    let proxy = TestProxy::start(resources);
    let connect = async |name: &'static str| {
        let (leaf, roots) = (ca.leaf(&["client"]), ca.roots());
        let builder = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = builder.with_client_auth_cert(leaf.chain().to_vec(), leaf.key()).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        H2::over_tls(proxy.https, name, config).await
    };
    let status = async |client: &H2, host: &str| {
        let request = http::Request::get(format!("https://{host}/")).body(()).unwrap();
        client.ask(request).await.status
    };
    let plain = connect("plain.example").await;
    assert_eq!(status(&plain, "plain.example").await, 200);
    assert_eq!(status(&plain, HOST).await, 421, "no certificate was asked for");
    assert_eq!(status(&plain, "plain.example").await, 200, "the connection goes on");
    let asked = connect(HOST).await;
    assert_eq!(status(&asked, HOST).await, 200);
    assert_eq!(status(&asked, "same.example").await, 200, "what it asks for is the same");
    assert_eq!(status(&asked, "plain.example").await, 421);
    assert_eq!(origin.requests(), 4, "no other request reached the backend");
}

#[tokio::test]
async fn a_handshake_without_a_good_certificate_fails_if_the_host_wants_it() {
    let site = start(|auth| auth.in_handshake = true);
    let strange = Ca::new("other").leaf(&["client"]);
    let good = site.ca.leaf(&["client"]);
    for (leaf, is_good) in [(None, false), (Some(&strange), false), (Some(&good), true)] {
        for client in [client(leaf).only_tls12(), client(leaf).only_tls13()] {
            let outcome = match client.try_connect(site.proxy.https).await {
                // With TLS 1.3 the client has finished before the alert comes.
                Ok(mut connection) => {
                    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
                    connection.try_send(request).await.ok();
                    connection.try_read_response().await.map(|response| response.status).ok()
                }
                Err(_) => None,
            };
            assert_eq!(outcome, is_good.then_some(200));
        }
    }
    assert_eq!(site.origin.requests(), 2);
}

#[tokio::test]
async fn any_certificate_is_let_in_where_none_is_verified() {
    let site = start(|auth| auth.mode = ClientAuthMode::Unverified);
    let expired = site.ca.certificate(&["client"]).expired().issue();
    let strange = Ca::new("other").leaf(&["client"]);
    let good = site.ca.leaf(&["client"]);
    assert_eq!(site.outcome(None).await, told(200, "NONE"));
    assert_eq!(site.outcome(Some(&good)).await, told(200, "SUCCESS"));
    assert_eq!(site.outcome(Some(&expired)).await, told(200, "FAILED:certificate has expired"));
    let (status, verdict) = site.outcome(Some(&strange)).await;
    assert!(status == 200 && verdict.is_some_and(|verdict| verdict.starts_with("FAILED:")));
}

#[tokio::test]
async fn a_request_to_a_host_of_another_listener_is_misdirected() {
    let origin = Origin::start("a");
    let of_listener = |name: &str, listener: Option<&str>| {
        let routes = vec![route("/", forward("web", ForwardPolicy::default()))];
        let host = Host::new(table(), HostPattern::parse(name).unwrap(), routes);
        Resource::from(host.with_listener(listener.map(Into::into)))
    };
    let mut resources = backend("web", &[origin.address()]);
    resources.extend([of_listener("a.example", Some("one")), of_listener("b.example", Some("one"))]);
    resources.extend([of_listener("c.example", Some("two")), of_listener("free.example", None)]);
    let proxy = TestProxy::start(resources);
    let cases = [
        (Some("a.example"), "a.example", 200),
        (Some("a.example"), "b.example", 200),
        (Some("a.example"), "c.example", 421),
        (Some("a.example"), "free.example", 200),
        (Some("free.example"), "a.example", 421),
        (Some("unknown.example"), "a.example", 421),
        (None, "a.example", 200),
    ];
    for (named, host, status) in cases {
        let client = TlsClient::unverified(named.unwrap_or(HOST));
        let client = if named.is_none() { client.without_sni() } else { client };
        let mut connection = client.connect(proxy.https).await;
        assert_eq!(connection.get(host, "/").await.status, status, "{named:?} {host}");
    }
    assert_eq!(proxy.connect().await.get("c.example", "/").await.status, 200, "in the clear nothing is named");
}

#[tokio::test]
async fn a_resumed_session_is_verified_again() {
    let site = start(|_| {});
    let leaf = site.ca.leaf(&["client"]);
    for client in [client(Some(&leaf)).only_tls12(), client(Some(&leaf)).only_tls13()] {
        site.proxy.publish([asking(HOST, auth(&site.ca))]).await;
        let mut resumed = false;
        for _ in 0..3 {
            let mut connection = client.connect(site.proxy.https).await;
            assert_eq!(connection.get(HOST, "/").await.status, 200);
            resumed |= connection.tls().resumed;
        }
        assert!(resumed);
        let mut old = client.connect(site.proxy.https).await;
        assert_eq!(old.get(HOST, "/").await.status, 200);
        site.proxy.publish([asking(HOST, auth(&Ca::new("new")))]).await;
        assert_eq!(client.connect(site.proxy.https).await.get(HOST, "/").await.status, 400);
        assert_eq!(old.get(HOST, "/").await.status, 400, "the connection stays, and no verdict with it");
    }
}

#[tokio::test]
async fn a_session_from_before_does_not_keep_a_certificate_from_being_asked_for() {
    let site = start(|_| {});
    let leaf = site.ca.leaf(&["client"]);
    let open = host(HOST, vec![route("/", forward("web", ForwardPolicy::default()))]);
    for client in [client(Some(&leaf)).only_tls12(), client(Some(&leaf)).only_tls13()] {
        site.proxy.publish([open.clone()]).await;
        let mut before = client.connect(site.proxy.https).await;
        assert_eq!(before.get(HOST, "/").await.status, 200);
        site.proxy.publish([asking(HOST, auth(&site.ca))]).await;
        assert_eq!(before.get(HOST, "/").await.status, 421, "it was not asked");
        assert_eq!(client.connect(site.proxy.https).await.get(HOST, "/").await.status, 200);
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_ends_the_handshake() {
    let site = start(|auth| auth.mode = ClientAuthMode::AnyAuthority);
    let stolen = site.ca.certificate(&["client"]).mismatched_key().issue();
    // In TLS 1.3 the client learns of it with its first read.
    if let Ok(mut connection) = client(Some(&stolen)).try_connect(site.proxy.https).await {
        let _ = connection.try_send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        assert_eq!(connection.drain().await.0, b"");
    }
    assert_eq!(site.origin.connections(), 0);
    assert_eq!(Client::connect(site.proxy.http).await.get(HOST, "/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_names_no_host_may_mean_one_of_an_ingress_and_is_not_refused_for_a_gateway() {
    let (ca, origin) = (Ca::new("root"), Origin::start("a"));
    let routes = || vec![route("/", forward("web", ForwardPolicy::default()))];
    let below: fairway_model::TableName = "below".into();
    let onward = Onward { beneath: Some(below.clone()), ..Onward::default() };
    let demand = ClientAuth { in_handshake: true, ..auth(&ca) };
    let any = Host::new(table(), HostPattern::Any, routes()).with_client_auth(Some(demand.into()));
    let mut resources = backend("web", &[origin.address()]);
    resources.push(any.with_onward(Some(onward)).into());
    resources.push(Host::new(below.clone(), HostPattern::parse("plain.example").unwrap(), routes()).into());
    resources.push(Host::new(below, HostPattern::Any, Vec::new()).into());
    let proxy = TestProxy::start(resources);
    let mut unnamed = TlsClient::unverified(HOST).without_sni().connect(proxy.https).await;
    assert_eq!(unnamed.get("plain.example", "/").await.status, 200);
    let mut named = TlsClient::unverified("plain.example").connect(proxy.https).await;
    assert_eq!(named.get("plain.example", "/").await.status, 200);
    // A host that demands a certificate isn't reached without one, named or not.
    let refused = unnamed.get("unknown.example", "/").await.status;
    assert!((400..500).contains(&refused), "{refused}");
    let good = ca.leaf(&["client"]);
    let mut unasked = TlsClient::unverified(HOST).certificate(&good).without_sni().connect(proxy.https).await;
    assert!((400..500).contains(&unasked.get("unknown.example", "/").await.status), "it was not asked for one");
    if let Ok(mut client) = TlsClient::unverified("unknown.example").try_connect(proxy.https).await {
        assert!(client.try_read_response().await.is_err(), "the handshake fails");
    }
    let mut admitted = TlsClient::unverified("unknown.example").certificate(&good).connect(proxy.https).await;
    assert_eq!(admitted.get("unknown.example", "/").await.status, 200);
    assert_eq!(origin.requests(), 3);
}
