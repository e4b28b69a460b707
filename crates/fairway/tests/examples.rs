//! Every example does what its comments say.

mod support;

use fairway_testkit::{Client, TlsClient};
use support::{Dev, example};

#[tokio::test]
async fn shop_leads_paths_of_one_host_to_three_services() {
    let dev = Dev::start([example("shop")]);
    for (path, service) in [
        ("/", "default/shop:80"),
        ("/order", "default/order:http"),
        ("/order/7?x=1", "default/order:http"),
        ("/orders", "default/shop:80"),
        ("/a", "default/a:8080"),
        ("/a/b", "default/a:8080"),
        ("/about", "default/shop:80"),
    ] {
        assert_eq!(dev.service("shop.localhost", path).await, service, "{path}");
    }
    assert_eq!(dev.service("elsewhere.localhost", "/").await, "404");
    let url = format!("http://shop.localhost:{}/order", dev.http.port());
    assert!(dev.greeting.contains(&url), "{}", dev.greeting);
    let place = "ingress.yaml:23";
    assert!(dev.greeting.lines().any(|line| line.contains(&url) && line.contains(place)), "{}", dev.greeting);
}

#[tokio::test]
async fn hosts_are_told_apart_by_name() {
    let dev = Dev::start([example("hosts")]);
    for (host, service) in [
        ("blue.localhost", "default/blue:80"),
        ("GREEN.localhost:8080", "default/green:80"),
        ("one.tenant.localhost", "default/tenant:80"),
        ("tenant.localhost", "default/lobby:80"),
        ("a.b.tenant.localhost", "default/lobby:80"),
        ("elsewhere.example", "default/lobby:80"),
    ] {
        assert_eq!(dev.service(host, "/").await, service, "{host}");
    }
}

#[tokio::test]
async fn tls_shows_the_certificate_of_the_host() {
    let default = "--default-ssl-certificate=default/fallback-tls";
    let dev = Dev::start([example("tls").into_os_string(), default.into()]);
    let mut chains = Vec::new();
    for (host, service) in [("bank", "default/bank:80"), ("mail", "default/mail:80"), ("news", "default/news:80")] {
        let host = format!("{host}.localhost");
        let mut client = TlsClient::unverified(&host).connect(dev.https).await;
        let response = client.get(&host, "/").await;
        assert!(response.text().starts_with(&format!("Service {service}\n")), "{response:?}");
        assert!(response.text().contains("X-Forwarded-Proto: https\n"));
        chains.push(client.tls().chain.clone());
    }
    let stranger = TlsClient::unverified("stranger.localhost").connect(dev.https).await.tls().chain.clone();
    assert_ne!(chains[0], chains[1]);
    assert_ne!(chains[0], chains[2]);
    assert_eq!(chains[2], stranger, "both get the default certificate");

    let redirect = dev.get("bank.localhost", "/account").await;
    let location = format!("https://bank.localhost:{}/account", dev.https.port());
    assert_eq!((redirect.status, redirect.header("location")), (308, Some(&*location)));
    assert_eq!(dev.service("news.localhost", "/").await, "default/news:80");
}

#[tokio::test]
async fn rewrite_changes_what_the_backend_sees() {
    let dev = Dev::start([example("rewrite")]);
    for (path, seen) in [("/api/v1/users?x=1", "/v1/users?x=1"), ("/api", "/"), ("/api/", "/")] {
        let text = dev.get("rewrite.localhost", path).await.text();
        assert!(text.contains(&format!("\n\nGET {seen} HTTP/1.1\n")), "{path}: {text}");
        assert!(text.contains("X-Forwarded-Prefix: /api\n"), "{path}: {text}");
    }
    assert_eq!(dev.service("rewrite.localhost", "/apis").await, "404");
    let root = dev.get("site.localhost", "/").await;
    assert_eq!(root.status, 302);
    assert!(root.header("location").is_some_and(|to| to.ends_with("/app")), "{root:?}");
    assert_eq!(dev.service("site.localhost", "/app/x").await, "default/site:80");
}

#[tokio::test]
async fn sticky_sets_a_cookie_once() {
    let dev = Dev::start([example("sticky")]);
    let mut client = Client::connect(dev.http).await;
    let first = client.get("sticky.localhost", "/").await;
    let cookie = first.header("set-cookie").expect("a cookie").to_owned();
    assert!(
        cookie.starts_with("cart=") && cookie.contains("Max-Age=3600") && cookie.contains("SameSite=Lax"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap_or_default();
    let again = client.request("GET", "/", &[("host", "sticky.localhost"), ("cookie", pair)], b"").await;
    assert_eq!(again.header("set-cookie"), None);
}
