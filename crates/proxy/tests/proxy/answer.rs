//! Responses from filters and actions, in their order.

use std::sync::Arc;

use crate::support::{HOST, TestProxy, backend, filtered, forward, host, route};
use fairway_model::{
    AccessList, Action, CaptureTemplate, Cors, FieldEdit, Filter, Forward, ForwardPolicy, HttpsRedirect, Location,
    NetworkSet, Origins, PathMatch, Redirect, Refusal, Respond, Rewrite, Route, Settings, Template,
};
use fairway_testkit::{Ca, Origin, TlsClient};

fn networks(list: &[&str]) -> NetworkSet {
    list.iter().map(|text| text.parse().expect("a network")).collect()
}

fn proxy(origin: &Origin, routes: Vec<Route>) -> TestProxy {
    let mut resources = backend("web", &[origin.address()]);
    resources.extend(backend("empty", &[]));
    resources.push(host(HOST, routes));
    TestProxy::start(resources)
}

fn to(service: &str) -> Action {
    forward(service, ForwardPolicy::default())
}

fn redirect(status: u16, location: Location) -> Action {
    Action::Redirect(Redirect::new(status, location))
}

fn regex(pattern: &str, action: Action) -> Route {
    Route { path: PathMatch::regex(pattern).expect("a pattern"), ..route("/", action) }
}

#[tokio::test]
async fn plain_http_is_sent_to_https() {
    let origin = Origin::start("a");
    let https =
        |keep| vec![Filter::HttpsRedirect(HttpsRedirect { status: 308, preserve_trailing_slash: keep, port: None })];
    let routes = vec![filtered(route("/", to("web")), https(false)), filtered(route("/keep", to("web")), https(true))];
    let proxy = proxy(&origin, routes);
    let mut client = proxy.connect().await;
    for (target, location) in [
        ("/", "https://app.example"),
        ("/x/?q=1", "https://app.example/x/?q=1"),
        ("/x/", "https://app.example/x"),
        ("/keep/", "https://app.example/keep/"),
    ] {
        let response = client.get("app.example:8080", target).await;
        assert_eq!((response.status, response.header("location")), (308, Some(location)), "{target}");
        assert!(response.header("date").is_some() && response.text().contains("308"));
    }
    let mut secure = TlsClient::unverified(HOST).connect(proxy.https).await;
    assert_eq!(secure.get(HOST, "/").await.status, 200);
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn redirects_lead_where_they_say() {
    let origin = Origin::start("a");
    let proxy = proxy(
        &origin,
        vec![
            route("/fixed", redirect(301, Location::Fixed("https://else.example/x".into()))),
            route("/local", redirect(302, Location::Fixed("/there".into()))),
            route("/root", redirect(302, Location::AppRoot("/app".into()))),
            route("/slash", redirect(301, Location::AppendSlash)),
            route("/www", redirect(308, Location::OtherHost("www.app.example".parse().unwrap()))),
            regex("/from/(.*)", redirect(302, Location::Captures("https://else.example/$1".into()))),
        ],
    );
    let mut client = proxy.connect().await;
    let port = proxy.http.port();
    for (target, status, location) in [
        ("/fixed/y?z", 301, "https://else.example/x".to_owned()),
        ("/local", 302, "http://app.example/there".to_owned()),
        ("/root", 302, "http://app.example:81/app".to_owned()),
        ("/slash?q", 301, "http://app.example/slash/?q".to_owned()),
        ("/www/?q", 308, format!("http://www.app.example:{port}/www/?q")),
        ("/www/", 308, format!("http://www.app.example:{port}/www")),
        ("/from/a%20b%0d%0aX:y", 302, "https://else.example/a%20b%0D%0AX:y".to_owned()),
    ] {
        let response = client.get("app.example:81", target).await;
        assert_eq!((response.status, response.header("location")), (status, Some(&*location)), "{target}");
        assert_eq!(response.header("x"), None);
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn restrictions_restrict() {
    let origin = Origin::start("a");
    let list = |deny: &[&str], allow: Option<&[&str]>| {
        vec![Filter::AccessList(AccessList { deny: networks(deny), allow: allow.map(networks) })]
    };
    let proxy = proxy(
        &origin,
        vec![
            filtered(route("/in", to("web")), list(&[], Some(&["127.0.0.0/8"]))),
            filtered(route("/out", to("web")), list(&[], Some(&["10.0.0.0/8"]))),
            filtered(route("/denied", to("web")), list(&["127.0.0.1/32"], Some(&["127.0.0.0/8"]))),
            filtered(route("/nobody", to("web")), list(&[], Some(&[]))),
            filtered(route("/broken", to("web")), vec![Filter::Refuse(Refusal { reason: "x".into() })]),
        ],
    );
    let mut client = proxy.connect().await;
    for (target, status) in [("/in", 200), ("/out", 403), ("/denied", 403), ("/nobody", 403), ("/broken", 503)] {
        let response = client.request("GET", target, &[("host", HOST), ("x-forwarded-for", "10.1.1.1")], b"").await;
        assert_eq!(response.status, status, "{target}");
    }
    assert_eq!(origin.requests(), 1);
    // A setting that trusts every peer lets any client name its address.
    let mut settings = Settings::default();
    settings.forwarded.trust = true;
    proxy.publish([settings.into()]).await;
    let response = client.request("GET", "/out", &[("host", HOST), ("x-forwarded-for", "10.1.1.1")], b"").await;
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn filters_run_in_order() {
    let origin = Origin::start("a");
    let deny = || Filter::AccessList(AccessList { deny: networks(&["127.0.0.0/8"]), allow: None });
    let proxy = proxy(
        &origin,
        vec![
            filtered(route("/a", to("empty")), vec![Filter::RequireEndpoints, deny()]),
            filtered(route("/b", to("empty")), vec![deny(), Filter::RequireEndpoints]),
            filtered(route("/c", to("empty")), vec![Filter::NotFoundWithoutEndpoints]),
            filtered(route("/d", to("web")), vec![Filter::NotFoundWithoutEndpoints]),
        ],
    );
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/a").await.status, 503);
    assert_eq!(client.get(HOST, "/b").await.status, 403);
    assert_eq!(client.get(HOST, "/c").await.status, 404);
    assert_eq!(client.get(HOST, "/d").await.status, 200);
}

#[tokio::test]
async fn rewrites_give_the_backend_another_path() {
    let origin = Origin::start("a");
    let rewrite = |target: &str, prefix: Option<&str>| {
        vec![Filter::Rewrite(
            Rewrite { target: target.into(), forwarded_prefix: prefix.map(CaptureTemplate::from) }.into(),
        )]
    };
    let proxy = proxy(
        &origin,
        vec![
            filtered(regex("/api(/|$)(.*)", to("web")), rewrite("/$2", Some("/api"))),
            filtered(regex("/dots/(.*)", to("web")), rewrite("/x/$1/..", None)),
            filtered(regex("/bare/(.*)", to("web")), rewrite("$1", None)),
        ],
    );
    let mut client = proxy.connect().await;
    for (target, expected) in [
        ("/api/v1/x?q=1", "/v1/x?q=1"),
        ("/api", "/"),
        ("/api/a%20b", "/a%20b"),
        ("/api/a%2Fb", "/a%2Fb"),
        ("/bare/y", "/y"),
    ] {
        let echo = client.get(HOST, target).await.echo();
        assert_eq!(echo.target, expected, "{target}");
        assert_eq!(echo.header("x-forwarded-prefix"), target.starts_with("/api").then_some("/api"));
    }
    assert_eq!(client.get(HOST, "/dots/y").await.status, 400);
}

#[tokio::test]
async fn a_fallback_takes_over_when_there_is_no_endpoint() {
    let origin = Origin::start("a");
    let with = |fallback: &str| {
        Action::Forward(Forward {
            backends: "default/empty:80".into(),
            fallback: Some(format!("default/{fallback}:80").into()),
            session_cookie_path: None,
            policy: Arc::new(ForwardPolicy::default()),
        })
    };
    let filters = || vec![Filter::RequireEndpoints];
    let proxy = proxy(
        &origin,
        vec![filtered(route("/", with("web")), filters()), filtered(route("/none", with("nowhere")), filters())],
    );
    let mut client = proxy.connect().await;
    let spoofed = [("host", HOST), ("accept", "text/plain"), ("x-code", "200"), ("x-service-name", "other")];
    let echo = client.request("GET", "/", &spoofed, b"").await.echo();
    assert_eq!(echo.origin, "a");
    for (name, value) in [("x-code", "503"), ("x-format", "text/plain"), ("x-namespace", "default")] {
        assert_eq!(echo.header(name), Some(value), "{name}");
    }
    assert_eq!(echo.header("x-service-name"), Some("empty"), "what a client says about it does not count");
    assert_eq!(client.get(HOST, "/none").await.status, 503);
}

#[tokio::test]
async fn the_proxy_answers_for_itself() {
    let origin = Origin::start("a");
    let respond = |status, page| Action::Respond(if page { Respond::page(status) } else { Respond::empty(status) });
    let secure = vec![Filter::StrictTransportSecurity];
    let proxy = proxy(
        &origin,
        vec![
            route("/healthz", respond(200, false)),
            route("/gone", respond(410, true)),
            filtered(route("/safe", respond(404, true)), secure),
        ],
    );
    let mut client = proxy.connect().await;
    let empty = client.get(HOST, "/healthz").await;
    assert_eq!((empty.status, empty.text().as_str(), empty.header("content-length")), (200, "", Some("0")));
    let gone = client.get(HOST, "/gone").await;
    assert_eq!((gone.status, gone.header("content-type")), (410, Some("text/html")));
    assert!(gone.text().contains("fairway") && gone.header("server").is_none());
    let head = client.request("HEAD", "/gone", &[("host", HOST)], b"").await;
    assert_eq!((head.header("content-length"), head.body.len()), (gone.header("content-length"), 0));
    // The connection survives a body that was received, and an error page is no reason to close it.
    let post = client.request("POST", "/gone", &[("host", HOST)], b"body").await;
    assert_eq!((post.status, post.header("connection")), (410, None));
    assert_eq!(client.get(HOST, "/healthz").await.status, 200);
    let ca = Ca::new("x");
    drop(ca);
    let mut tls = TlsClient::unverified(HOST).connect(proxy.https).await;
    assert!(tls.get(HOST, "/safe").await.header("strict-transport-security").is_some());
    proxy
        .publish([Settings {
            server_tokens: true,
            response_fields: vec![FieldEdit::set("X-Always", "1").expect("a name")],
            ..Settings::default()
        }
        .into()])
        .await;
    let gone = client.get(HOST, "/gone").await;
    assert_eq!((gone.header("server"), gone.header("x-always")), (Some("fairway"), Some("1")));
}

#[tokio::test]
async fn a_prefix_is_told_once_whoever_is_trusted() {
    let origin = Origin::start("a");
    let mut settings = Settings::default();
    settings.forwarded.trust = true;
    let mut resources = backend("web", &[origin.address()]);
    let rewrite = Rewrite { target: "/new".into(), forwarded_prefix: Some(CaptureTemplate::from("/ours")) };
    let mut rewritten = route("/", forward("web", ForwardPolicy::default()));
    rewritten.filters = vec![Filter::Rewrite(rewrite.into())];
    resources.extend([host(HOST, vec![rewritten]), settings.into()]);
    let proxy = TestProxy::start(resources);
    let fields = [("host", HOST), ("x-forwarded-prefix", "/theirs")];
    let echo = proxy.connect().await.request("GET", "/", &fields, b"").await.echo();
    let told: Vec<_> =
        echo.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-prefix")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(echo.header("x-forwarded-prefix"), Some("/ours"));
}

#[tokio::test]
async fn a_scheme_that_a_trusted_peer_names_stops_the_redirect_unless_it_is_http() {
    let origin = Origin::start("a");
    let mut settings = Settings::default();
    settings.forwarded.trust = true;
    let mut resources = backend("web", &[origin.address()]);
    let mut redirected = route("/", forward("web", ForwardPolicy::default()));
    redirected.filters =
        vec![Filter::HttpsRedirect(HttpsRedirect { status: 308, preserve_trailing_slash: false, port: None })];
    resources.extend([host(HOST, vec![redirected]), settings.into()]);
    let proxy = TestProxy::start(resources);
    for (scheme, status) in [("https", 200), ("wss", 200), ("http", 308), ("ws", 200), ("", 308)] {
        let fields = [("host", HOST), ("x-forwarded-proto", scheme)];
        assert_eq!(proxy.connect().await.request("GET", "/", &fields, b"").await.status, status, "{scheme:?}");
    }
}

#[tokio::test]
async fn a_template_that_makes_too_much_is_answered_and_costs_the_others_nothing() {
    let origin = Origin::start("a");
    let template = |repeated: &str| repeated.repeat(20_000);
    let rewrite = |target: String, forwarded_prefix: Option<CaptureTemplate>| {
        vec![Filter::Rewrite(Rewrite { target: target.as_str().into(), forwarded_prefix }.into())]
    };
    let location = Location::Captures(template("/$1").as_str().into());
    let policy =
        ForwardPolicy { upstream_host: Some(Template::parse(&template("$request_uri"))), ..ForwardPolicy::default() };
    let proxy = proxy(
        &origin,
        vec![
            filtered(regex("/target/(.*)", to("web")), rewrite(template("/$1"), None)),
            filtered(regex("/prefix/(.*)", to("web")), rewrite("/x".into(), Some(template("/$1").as_str().into()))),
            regex("/location/(.*)", Action::Redirect(Redirect::new(302, location))),
            route("/vhost", forward("web", policy)),
            route("/", to("web")),
        ],
    );
    let mut client = proxy.connect().await;
    // With 1,000 bytes each, these would make 20 MB.
    for start in ["/target/", "/prefix/", "/location/", "/vhost/"] {
        assert_eq!(client.get(HOST, &format!("{start}{}", "a".repeat(1000))).await.status, 414, "{start}");
        assert_eq!(client.get(HOST, "/").await.status, 200);
    }
}

/// Names used in the settings are protected as well as the known ones.
#[tokio::test]
async fn configured_names_are_removed_in_every_spelling_and_by_no_option_of_the_connection() {
    let origin = Origin::start("a");
    let allow: NetworkSet = ["10.1.2.3/32".parse().unwrap()].into_iter().collect();
    let listed = Filter::AccessList(AccessList { deny: NetworkSet::default(), allow: Some(allow) });
    let mut settings = Settings { underscores_in_headers: true, ..Settings::default() };
    settings.forwarded.address_field = "x-azure-clientip".into();
    settings.request_fields = vec![FieldEdit::set("X-Tenant", "ours").expect("a name")];
    let resources = |trust: bool| {
        let mut settings = settings.clone();
        settings.forwarded.trust = trust;
        let mut resources = backend("web", &[origin.address()]);
        let restricted = filtered(route("/listed", forward("web", ForwardPolicy::default())), vec![listed.clone()]);
        let open = route("/", forward("web", ForwardPolicy::default()));
        resources.extend([host(HOST, vec![restricted, open]), settings.into()]);
        resources
    };
    let fields = [
        ("host", HOST),
        ("connection", "X-Azure-ClientIP, X_Tenant"),
        ("X-Azure-ClientIP", "10.1.2.3"),
        ("X_Azure_ClientIP", "10.6.6.6"),
        ("X_Tenant", "theirs"),
        ("x-accel-redirect", "/secret"),
    ];
    for trust in [true, false] {
        let proxy = TestProxy::start(resources(trust));
        let mut client = proxy.connect().await;
        let status = client.request("GET", "/listed", &fields, b"").await.status;
        assert_eq!(status, if trust { 200 } else { 403 }, "the option removes nothing that names the client");
        let echo = client.request("GET", "/", &fields, b"").await.echo();
        let all = |wanted: &str| -> Vec<_> {
            let folded = |name: &str| name.to_ascii_lowercase().replace('_', "-") == wanted;
            echo.headers.iter().filter(|(name, _)| folded(name)).map(|(_, value)| value).collect()
        };
        assert_eq!(all("x-azure-clientip"), if trust { vec!["10.1.2.3"] } else { vec![] });
        assert_eq!((all("x-tenant"), all("x-accel-redirect")), (vec!["ours"], vec![]));
    }
}

#[tokio::test]
async fn admitted_origins_get_the_fields_of_cors_on_every_response() {
    let reply = fairway_testkit::Reply::ok().header("Access-Control-Allow-Origin", "https://of.backend");
    let origin = Origin::new("a").reply(reply).start();
    let cors = |origins| Filter::Cors(Cors::new(origins, true, "GET, POST", "X-A", "", 600).into());
    let listed = || cors(Origins::Listed(vec!["https://*.a.example".into()]));
    let nobody = Filter::AccessList(AccessList { deny: NetworkSet::default(), allow: Some(NetworkSet::default()) });
    let routes = vec![
        filtered(route("/", to("web")), vec![listed()]),
        filtered(route("/denied", to("web")), vec![listed(), nobody]),
        filtered(route("/any", to("web")), vec![cors(Origins::Any)]),
    ];
    let proxy = proxy(&origin, routes);
    let mut client = proxy.connect().await;
    let mut ask = async |method: &str, path: &str, origin: &str| {
        let response = client.request(method, path, &[("host", HOST), ("origin", origin)], b"").await;
        let allowed = response.headers().all("access-control-allow-origin").join("|");
        let methods = response.header("access-control-allow-methods").unwrap_or_default().to_owned();
        (response.status, allowed, methods)
    };
    let admitted = |status, origin: &str| (status, origin.to_owned(), "GET, POST".to_owned());
    let of_backend = |status| (status, "https://of.backend".to_owned(), String::new());
    let (good, bad) = ("https://x.a.example", "https://a.example");
    assert_eq!(ask("GET", "/", good).await, admitted(200, good));
    assert_eq!(ask("OPTIONS", "/", good).await, admitted(204, good));
    assert_eq!(ask("OPTIONS", "/denied", good).await, admitted(204, good));
    assert_eq!(ask("GET", "/denied", good).await, admitted(403, good));
    assert_eq!(origin.requests(), 1);
    assert_eq!(ask("GET", "/", bad).await, of_backend(200));
    assert_eq!(ask("OPTIONS", "/", bad).await, of_backend(200));
    assert_eq!(ask("OPTIONS", "/denied", bad).await, (403, String::new(), String::new()));
    assert_eq!(ask("GET", "/any", bad).await, admitted(200, "*"));
}
