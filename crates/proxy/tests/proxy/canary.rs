//! Canaries: what decides and in which order, sessions, and what is left when an endpoint is missing.

use crate::support::log::{Lines, logging};
use crate::support::{HOST, TestProxy, backend, backend_alone, endpoints, filtered, forward, host, route};
use fairway_model::{
    Action, Affinity, AffinityMode, Backend, Backends, Canary, CanaryField, CanaryValue, Filter, Forward,
    ForwardPolicy, Origin as Owner, Resource, SessionCookie,
};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Client, Origin, Response, eventually};

/// By the field X-Canary and the cookie `c`, and nothing by chance.
fn canary() -> Canary {
    Canary {
        main: "default/web:80".into(),
        alternative: "default/next:80".into(),
        origin: Owner::new("Ingress", "default", "next"),
        field: Some(CanaryField { name: "X-Canary".try_into().expect("a name"), value: CanaryValue::Switch }),
        cookie: Some("c".into()),
        weight: 0,
        total: 100,
        sticky: true,
    }
}

struct Split {
    web: Origin,
    next: Origin,
    proxy: TestProxy,
}

fn hosts(canary: Canary) -> Resource {
    let Action::Forward(to) = forward("web", ForwardPolicy::default()) else { unreachable!("it forwards") };
    let backends = Backends::Canary(Box::new(canary));
    let to = Forward { backends, session_cookie_path: Some("/".into()), ..to };
    host(HOST, vec![filtered(route("/", Action::Forward(to)), vec![Filter::RequireEndpoints])])
}

fn sticky(name: &str) -> Backend {
    let cookie = SessionCookie {
        name: "route".into(),
        expires: None,
        max_age: None,
        domain: None,
        secure: false,
        same_site: None,
        conditional_same_site_none: false,
    };
    let affinity = Affinity { mode: AffinityMode::Balanced, cookie, change_on_failure: false };
    Backend { affinity: Some(affinity), ..backend_alone(name) }
}

impl Split {
    fn resources(canary: Canary, web: &Origin, next: &Origin) -> Vec<Resource> {
        let mut resources = backend("web", &[web.address()]);
        resources.extend(backend("next", &[next.address()]));
        resources.push(hosts(canary));
        resources
    }

    fn start(canary: Canary) -> Self {
        let (web, next) = (Origin::start("web"), Origin::start("next"));
        Self { proxy: TestProxy::start(Self::resources(canary, &web, &next)), web, next }
    }

    async fn client(&self) -> Client {
        self.proxy.connect().await
    }
}

async fn ask(client: &mut Client, fields: &[(&str, &str)]) -> Response {
    let mut all = vec![("host", HOST)];
    all.extend(fields);
    client.request("GET", "/", &all, b"").await
}

async fn origin(client: &mut Client, fields: &[(&str, &str)]) -> String {
    ask(client, fields).await.echo().origin
}

#[tokio::test]
async fn the_header_comes_before_the_cookie_and_the_cookie_before_the_weight() {
    for (weight, otherwise) in [(0, "web"), (100, "next")] {
        let split = Split::start(Canary { weight, ..canary() });
        let mut client = split.client().await;
        for (fields, expected) in [
            (&[][..], otherwise),
            (&[("X-Canary", "always")], "next"),
            (&[("x-canary", "never")], "web"),
            (&[("X-Canary", "Always")], otherwise),
            (&[("X-Canary", "always"), ("Cookie", "c=never")], "next"),
            (&[("X-Canary", "never"), ("Cookie", "c=always")], "web"),
            (&[("X-Canary", "other"), ("Cookie", "a=b; c=always")], "next"),
            (&[("Cookie", "c=never")], "web"),
            (&[("Cookie", "c=other; c=always")], otherwise),
            (&[("Cookie", "xc=always")], otherwise),
            (&[("X-Canary", "always"), ("X-Canary", "always")], otherwise),
        ] {
            assert_eq!(origin(&mut client, fields).await, expected, "{weight}: {fields:?}");
        }
    }
}

#[tokio::test]
async fn a_value_or_a_pattern_takes_the_place_of_always_and_never() {
    let pattern = CanaryValue::Pattern("^gr(een|ay)".parse().expect("a pattern"));
    for (value, yes) in [(CanaryValue::Exact("blue".into()), &["blue"][..]), (pattern, &["green", "gray-1"])] {
        let name = "X-Canary".try_into().expect("a name");
        let split = Split::start(Canary { field: Some(CanaryField { name, value }), ..canary() });
        let mut client = split.client().await;
        for value in yes {
            assert_eq!(origin(&mut client, &[("X-Canary", value)]).await, "next", "{value}");
        }
        for value in ["always", "bluer", "GREEN", ""] {
            assert_eq!(origin(&mut client, &[("X-Canary", value)]).await, "web", "{value}");
        }
        // The cookie decides what the header leaves open.
        assert_eq!(origin(&mut client, &[("X-Canary", "never"), ("Cookie", "c=always")]).await, "next");
    }
}

#[tokio::test]
async fn a_weight_sends_about_its_share() {
    let split = Split::start(Canary { weight: 250, total: 1000, ..canary() });
    let mut client = split.client().await;
    for _ in 0..400 {
        origin(&mut client, &[]).await;
    }
    // Six times the standard deviation of 8.7 around 100.
    assert!((48..=152).contains(&split.next.requests()), "{}", split.next.requests());
    assert_eq!(split.web.requests() + split.next.requests(), 400);
}

#[tokio::test]
async fn a_canary_without_an_endpoint_gets_nothing_and_saves_nobody() {
    let split = Split::start(Canary { weight: 100, ..canary() });
    let mut client = split.client().await;
    assert_eq!(origin(&mut client, &[]).await, "next");
    split.proxy.publish([endpoints("next", &[])]).await;
    assert_eq!(origin(&mut client, &[("X-Canary", "always")]).await, "web");
    split.proxy.publish([endpoints("next", &[split.next.address()]), endpoints("web", &[])]).await;
    assert_eq!(ask(&mut client, &[("X-Canary", "always")]).await.status, 503);
}

#[tokio::test]
async fn a_session_stays_on_its_side() {
    let split = Split::start(canary());
    split.proxy.publish([Resource::from(sticky("web"))]).await;
    let mut client = split.client().await;
    let cookie = |response: &Response| {
        let cookie = response.header("set-cookie").expect("a cookie");
        cookie.split(';').next().expect("a value").to_owned()
    };
    let of_web = cookie(&ask(&mut client, &[]).await);
    let of_next = cookie(&ask(&mut client, &[("X-Canary", "always")]).await);
    assert_ne!(of_web.split('|').nth(1), of_next.split('|').nth(1));
    for (session, side) in [(&of_web, "web"), (&of_next, "next")] {
        for header in ["always", "never", "other"] {
            let response = ask(&mut client, &[("Cookie", session), ("X-Canary", header)]).await;
            assert_eq!((response.echo().origin.as_str(), response.header("set-cookie")), (side, None), "{header}");
        }
    }
    // A cookie of neither backend binds nothing.
    let foreign = [("Cookie", "route=1.2.3.4|00000000000000000000000000000000"), ("X-Canary", "always")];
    assert_eq!(origin(&mut client, &foreign).await, "next");
}

#[tokio::test]
async fn a_canary_that_is_not_sticky_sets_no_cookie() {
    let split = Split::start(Canary { sticky: false, ..canary() });
    split.proxy.publish([Resource::from(sticky("web"))]).await;
    let mut client = split.client().await;
    let of_web = ask(&mut client, &[]).await;
    let session = of_web.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie");
    let response = ask(&mut client, &[("X-Canary", "always")]).await;
    assert_eq!((response.echo().origin.as_str(), response.header("set-cookie")), ("next", None));
    assert_eq!(origin(&mut client, &[("X-Canary", "always"), ("Cookie", session)]).await, "web");
}

#[tokio::test]
async fn log_and_metrics_name_the_canary_beside_its_main_backend() {
    let (web, next) = (Origin::start("web"), Origin::start("next"));
    let lines = Lines::default();
    let config = logging(&lines, "$proxy_upstream_name [$proxy_alternative_upstream_name] $service_name");
    let config = ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..config };
    let proxy = TestProxy::start_with(Split::resources(canary(), &web, &next), config);
    let mut client = proxy.connect().await;
    origin(&mut client, &[]).await;
    origin(&mut client, &[("X-Canary", "always")]).await;
    let lines = lines.after(2).await;
    assert_eq!(lines, ["default-web-80 [] web", "default-web-80 [default-next-80] web"]);
    let address = proxy.proxy.admin_address().expect("an admin server");
    eventually("both counts", || {
        // Boxed: a client is too large for the stack of nested futures in a debug build.
        Box::pin(async move {
            let text = Client::connect(address).await.get("a", "/metrics").await.text();
            ["\"\"", "\"default-next-80\""].iter().all(|canary| {
                let labels =
                    format!("canary={canary},ingress=\"app\",namespace=\"default\",path=\"/\",service=\"web\"");
                text.lines()
                    .any(|line| line.starts_with("nginx_ingress_controller_requests{") && line.contains(&labels))
            })
        })
    })
    .await;
}
