//! `explain` and the proxy agree: random objects, random requests, and a real proxy between a real client and real backends.
//! `FAIRWAY_DIFFERENTIAL` is the number of pairs, 500 if unset.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;

use fairway_model::Scheme;
use fairway_proxy::resolve::AddressPolicy;
use fairway_proxy::{Proxy, ProxyConfig};
use fairway_testkit::{Client, Origin, Reply, Response, TlsClient, eventually};
use fairway_translate::annotation::{DEFAULT_PREFIX, GROUPS, full_name};
use fairway_translate::objects::{Object, Objects};
use fairway_translate::options::Options;
use fairway_translate::translate;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestError, TestRunner};
use serde_json::{Value, json};

#[path = "../../../translate/src/ingress/annotation/examples.rs"]
mod examples;
mod front;

use self::examples::EXAMPLES;
use self::front::{Front, OVER_HTTP2};
use super::Request;
use super::account::{Account, By, FilterEffect, FilterStep, PassedThrough};
use super::tell::account_at;
use crate::reading::Reading;

/// Requests per set of objects.
const REQUESTS: usize = 25;

const HOSTS: [&str; 5] = ["a.example", "b.example", "*.wild.example", "www.b.example", ""];
const SERVICES: [&str; 4] = ["first", "second", "empty", "missing"];
const PATHS: [&str; 9] = ["/", "/a", "/a/", "/a/b", "/a/(.*)", "/b(/|$)(.*)", "/A", "/[a", "/x%2Fy"];

/// Values of annotations, some of them invalid. Others have their examples.
const VALUES: &[(&[&str], &[&str])] = &[
    (
        &[
            "use-regex",
            "ssl-redirect",
            "force-ssl-redirect",
            "preserve-trailing-slash",
            "relative-redirects",
            "use-port-in-redirects",
            "from-to-www-redirect",
            "enable-global-auth",
            "upstream-hash-by-subset",
            "service-upstream",
            "session-cookie-conditional-samesite-none",
            "session-cookie-secure",
            "session-cookie-change-on-failure",
            "enable-access-log",
            "enable-opentelemetry",
            "opentelemetry-trust-incoming-span",
            "disable-proxy-intercept-errors",
            "ssl-passthrough",
            "ssl-passthrough-proxy-protocol",
        ],
        &["true", "false", "yes"],
    ),
    (
        &["rewrite-target"],
        &["/$1", "/$2", "/x/../$1", "https://new.example/$1", "/fixed", "//$1", "/$1?a=b", "$1", "bad value"],
    ),
    (&["x-forwarded-prefix"], &["/prefix", "/$1", "a b", "\n"]),
    (
        &["permanent-redirect", "temporal-redirect"],
        &["https://else.example/x", "/there", "javascript:x", "https://else.example/$1"],
    ),
    (&["permanent-redirect-code"], &["301", "308", "200", "x"]),
    (&["temporal-redirect-code"], &["302", "307", "303", "x"]),
    (
        &["server-alias"],
        &["alias.example", "alias.example,*.more.example", "~^re[0-9]+\\.example$", "b.example", "bad host"],
    ),
    (&["app-root"], &["/app", "app", "/app?x=1"]),
    (
        &["allowlist-source-range", "denylist-source-range"],
        &["127.0.0.1/32", "127.0.0.0/30,10.0.0.0/8", "10.0.0.0/8", "192.0.2.7", "::1", "none", "127.0.0.2/32, bad"],
    ),
    (&["backend-protocol"], &["HTTP", "HTTPS", "GRPC", "GRPCS", "AUTO_HTTP", "FCGI", "other"]),
    (&["proxy-ssl-secret"], &["ns/none", "other/none", "none", "b a d"]),
    (&["proxy-ssl-verify", "proxy-ssl-server-name"], &["on", "off", "x"]),
    (&["proxy-ssl-verify-depth"], &["1", "x"]),
    (&["proxy-ssl-name"], &["web.example", "x y"]),
    (&["proxy-ssl-protocols"], &["TLSv1.2", "x"]),
    (
        &["ssl-ciphers", "proxy-ssl-ciphers"],
        &["ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256", "HIGH:!aNULL", "x"],
    ),
    (&["ssl-prefer-server-ciphers"], &["true", "false", "x"]),
    // The clients here have no certificates; the tests of the proxy have some that do.
    (&["auth-tls-secret"], &["ns/none", "other/none", "none", "b a d"]),
    (&["auth-tls-verify-client"], &["on", "off", "optional", "x"]),
    (&["auth-tls-verify-depth"], &["1", "x"]),
    (&["auth-tls-error-page"], &["https://e.example/", "/error", "@x"]),
    (&["auth-tls-match-cn"], &["CN=a", "CN=(", "a"]),
    (&["auth-tls-pass-certificate-to-upstream"], &["true", "x"]),
    (&["proxy-buffer-size"], &["16k", "128k", "x"]),
    // No client comes near a limit here; the tests of the proxy have some that do.
    (&["limit-rps", "limit-rpm", "limit-connections"], &["100000", "0", "-1", "x"]),
    (&["limit-burst-multiplier", "limit-rate-after"], &["3", "x"]),
    (&["connection-proxy-header"], &["keep-alive", "x"]),
    (&["proxy-redirect-from", "proxy-redirect-to"], &["http://web/", "off", "~x"]),
    (&["proxy-cookie-domain", "proxy-cookie-path"], &["/a/ /", "off", "x"]),
    (&["limit-rate"], &["1000000", "x"]),
    (&["opentelemetry-operation-name"], &["checkout", "a b"]),
    (&["limit-allowlist"], &["127.0.0.1/32", "x"]),
    (&["default-backend"], &["first", "second", "empty", "missing"]),
    (&["custom-http-errors"], &["403,404,503", "413", "200"]),
    (&["custom-headers", "auth-proxy-set-headers"], &["ns/headers", "ns/bad", "x"]),
    // No copy arrives: the backends count their connections.
    (&["mirror-target"], &["http://missing.ns.svc:80$request_uri", "http://empty.ns.svc:80", "ftp://x/"]),
    (&["mirror-host"], &["m.example", "a b"]),
    (&["mirror-request-body"], &["on", "off", "x"]),
    (&["upstream-vhost"], &["v.example", "$host", "$http_x_tenant", "a b"]),
    (&["proxy-connect-timeout", "proxy-send-timeout", "proxy-read-timeout"], &["5", "60", "x"]),
    (&["proxy-body-size"], &["1", "1k", "8m", "0", "x"]),
    (&["proxy-request-buffering", "proxy-buffering"], &["on", "off", "x"]),
    (&["proxy-buffers-number"], &["2", "x"]),
    (&["proxy-next-upstream"], &["error timeout", "off", "http_502 non_idempotent", "bad"]),
    (&["proxy-next-upstream-tries", "proxy-next-upstream-timeout"], &["1", "0", "x"]),
    (&["load-balance"], &["round_robin", "ewma", "least_request", "chash", "bad"]),
    // No endpoint is asked: the backends count their connections.
    (&["fairway.dev/health-check"], &["x"]),
    (&["fairway.dev/health-check-interval", "fairway.dev/health-check-timeout"], &["1", "x"]),
    (&["fairway.dev/health-check-statuses"], &["200-299,401", "x"]),
    (&["fairway.dev/health-check-unhealthy-after", "fairway.dev/health-check-healthy-after"], &["1", "0"]),
    (&["upstream-hash-by"], &["$request_uri", "$arg_k", "$http_x_tenant$host", "${x"]),
    (&["upstream-hash-by-subset-size"], &["1", "2", "x"]),
    // The first backend lets everything pass.
    (
        &["auth-url"],
        &[
            "http://first.ns.svc.cluster.local:8081/verify?m=$request_method",
            "http://empty.ns.svc.cluster.local:80",
            "http://missing.ns.svc:80/",
            "https://$host/none",
            "ftp://x/",
        ],
    ),
    // There are no Secrets; the tests of the proxy have users.
    (&["auth-type"], &["basic", "digest", "x"]),
    (&["auth-secret"], &["none", "ns/none", "other/none", "a;b"]),
    (&["auth-secret-type"], &["auth-file", "auth-map", "x"]),
    (&["auth-realm"], &["a realm", "a;b"]),
    (&["auth-method"], &["GET", "POST", "TRACE"]),
    (&["auth-signin"], &["https://sign.example/in", "a b"]),
    (&["auth-signin-redirect-param"], &["to", "t;"]),
    (&["auth-response-headers"], &["X-None, X-Tenant", "Cookie", "a b"]),
    (&["auth-request-redirect"], &["$escaped_request_uri", "/a b"]),
    (&["auth-always-set-cookie"], &["true", "x"]),
    // A key that no two requests share: `explain` tells of a service that is asked.
    (&["auth-cache-key"], &["$req_id$msec$connection", "$nothing", "a b"]),
    (&["auth-cache-duration"], &["200 1m", "x"]),
    (&["auth-snippet"], &["proxy_set_header X-Forwarded-Method $request_method;", "return 200;"]),
    (
        &["configuration-snippet"],
        &[
            "more_set_headers 'X-A: $request_method'; add_header X-B $host always; proxy_hide_header X-Origin-Secret;",
            "set $x a; if ($request_method = POST) { set $x b; return 302 /to/$x; } proxy_set_header X-Tenant $x;",
            "allow 127.0.0.0/30; deny all;",
            "rewrite ^/a/(.*) /b/$1 last; rewrite ^/b/(.*) /c?$1 break;",
            "root /;",
        ],
    ),
    (
        &["server-snippet"],
        &[
            "add_header X-C $scheme; if ($http_x_tenant) { return 403; }",
            "default_type text/plain; return 200 text;",
            "x",
        ],
    ),
    (&["satisfy"], &["any", "all", "x"]),
    (&["enable-cors", "cors-allow-credentials"], &["true", "false", "x"]),
    (&["cors-allow-origin"], &["*", "https://a.example", "https://*.example, null", "a.example", "$http_origin"]),
    (&["cors-allow-methods"], &["GET, POST", "G;"]),
    (&["cors-allow-headers", "cors-expose-headers"], &["X-Tenant", "X-A, X-B", "*", "x;"]),
    (&["cors-max-age"], &["600", "x"]),
    // No chance: what is random can't be told beforehand.
    (&["canary"], &["true", "true", "false", "x"]),
    (&["canary-by-header"], &["X-Tenant", "a b"]),
    (&["canary-by-header-value"], &["t1", "a b"]),
    (&["canary-by-header-pattern"], &["^t[0-9]$", "("]),
    (&["canary-by-cookie"], &["a", "a;b"]),
    (&["canary-weight"], &["0", "100", "x"]),
    (&["canary-weight-total"], &["100", "0", "x"]),
    (&["affinity-canary-behavior"], &["sticky", "legacy", "x"]),
    (&["affinity"], &["cookie", "bad"]),
    (&["affinity-mode"], &["balanced", "persistent", "bad"]),
    (&["session-cookie-name"], &["route", "b a d"]),
    (&["session-cookie-path"], &["/", "/a", "x y"]),
    (&["session-cookie-domain"], &["example", "; x"]),
    (&["session-cookie-expires", "session-cookie-max-age"], &["3600", "-1", "x"]),
    (&["session-cookie-samesite"], &["Lax", "None", "bad"]),
];

/// Values of the ConfigMap keys that affect responses and fields.
const KEYS: &[(&str, &[&str])] = &[
    ("block-user-agents", &["bad-agent/1", "~*^BAD", "~("]),
    ("block-referers", &["http://spam.example/"]),
    ("use-forwarded-headers", &["true", "false"]),
    ("compute-full-forwarded-for", &["true"]),
    ("forwarded-for-header", &["X-Real-Client", "X-Forwarded-For"]),
    ("enable-real-ip", &["true"]),
    ("proxy-real-ip-cidr", &["127.0.0.0/30", "10.0.0.0/8,127.0.0.1"]),
    ("ssl-redirect", &["false"]),
    ("force-ssl-redirect", &["true"]),
    ("http-redirect-code", &["301", "307", "200"]),
    ("preserve-trailing-slash", &["true"]),
    ("relative-redirects", &["true"]),
    ("use-port-in-redirects", &["true"]),
    ("no-tls-redirect-locations", &["/a"]),
    ("hsts", &["false", "true"]),
    ("hsts-max-age", &["1"]),
    ("hsts-preload", &["true"]),
    ("hsts-include-subdomains", &["false"]),
    ("server-tokens", &["true"]),
    ("allow-backend-server-header", &["true"]),
    ("hide-headers", &["X-Origin-Secret", "X-Origin-Secret,Server"]),
    ("add-headers", &["ns/added", "ns/none"]),
    ("proxy-set-headers", &["ns/sent", "ns/none"]),
    ("whitelist-source-range", &["127.0.0.0/30", "10.0.0.0/8"]),
    ("denylist-source-range", &["127.0.0.3", "192.0.2.0/24"]),
    ("block-cidrs", &["127.0.0.3", "192.0.2.0/24"]),
    ("block-user-agents", &["bad-agent"]),
    (
        "global-auth-url",
        &["http://first.ns.svc.cluster.local:8081/global", "http://empty.ns.svc:80/", "https://$host/", "ftp://x/"],
    ),
    ("global-auth-response-headers", &["X-None", "X-Tenant, a b"]),
    ("no-auth-locations", &["/a", "/"]),
    ("custom-http-errors", &["503,400", "403,404,413", "302"]),
    ("disable-proxy-intercept-errors", &["true"]),
    ("generate-request-id", &["false"]),
    ("enable-underscores-in-headers", &["true"]),
    ("ignore-invalid-headers", &["false"]),
    ("proxy-add-original-uri-header", &["true"]),
    ("proxy-body-size", &["1", "8m"]),
    ("large-client-header-buffers", &["1 1k"]),
    ("max-request-headers", &["4"]),
    ("strict-validate-path-type", &["false"]),
    ("annotations-risk-level", &["Low", "Medium", "High", "Critical", "Critical"]),
    ("allow-snippet-annotations", &["true"]),
    ("location-snippet", &["more_set_headers 'X-D: e'; add_header X-E f;", "x"]),
    ("http-snippet", &["map $host $y { default a; }", "add_header X-F g;"]),
    ("upstream-keepalive-connections", &["0"]),
];

/// The values that each annotation may get.
fn values() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut all: Vec<_> =
        VALUES.iter().flat_map(|(names, values)| names.iter().map(|name| (*name, values.to_vec()))).collect();
    for (name, valid, invalid) in EXAMPLES {
        if !all.iter().any(|(known, _)| known == name) {
            all.push((name, vec![valid, invalid]));
        }
    }
    all
}

fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    let one = select(values()).prop_flat_map(|(name, values)| (Just(full_name(DEFAULT_PREFIX, name)), select(values)));
    prop::collection::vec(one, 0..5)
        .prop_map(|all| all.into_iter().map(|(name, value)| (name, value.to_owned())).collect())
}

fn configmap() -> impl Strategy<Value = BTreeMap<&'static str, &'static str>> {
    let one = select(KEYS).prop_flat_map(|(name, values)| (Just(name), select(values)));
    prop::collection::vec(one, 0..6).prop_map(|all| all.into_iter().collect())
}

fn ingress(number: usize) -> impl Strategy<Value = Value> {
    let path = (select(&PATHS[..]), select(vec!["Prefix", "Exact", "ImplementationSpecific"]), select(&SERVICES[..]))
        .prop_map(|(path, kind, service)| {
            json!({
                "path": path, "pathType": kind, "backend": { "service": { "name": service, "port": { "name": "http" } } },
            })
        });
    let rule = (select(&HOSTS[..]), prop::collection::vec(path, 1..4))
        .prop_map(|(host, paths)| json!({ "host": host, "http": { "paths": paths } }));
    let class = prop_oneof![9 => Just("nginx"), 1 => Just("other")];
    let default = prop_oneof![4 => Just(None), 1 => select(&SERVICES[..]).prop_map(Some)];
    (annotations(), prop::collection::vec(rule, 1..3), class, any::<bool>(), default).prop_map(
        move |(annotations, rules, class, tls, default)| {
            let mut spec = json!({ "ingressClassName": class, "rules": rules });
            if tls {
                spec["tls"] = json!([{ "hosts": ["a.example", "b.example"] }]);
            }
            if let Some(service) = default {
                spec["defaultBackend"] = json!({ "service": { "name": service, "port": { "name": "http" } } });
            }
            json!({
                "kind": "Ingress", "apiVersion": "networking.k8s.io/v1",
                "metadata": { "namespace": "ns", "name": format!("i{number}"), "annotations": annotations }, "spec": spec,
            })
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let host = select(vec![
        "a.example",
        "A.EXAMPLE:8080",
        "b.example",
        "www.b.example",
        "www.a.example",
        "x.wild.example",
        "x.y.wild.example",
        "alias.example",
        "re7.example",
        "elsewhere.example",
        "a.example.",
        "a.example:",
        "127.0.0.1",
        "a_b.example",
        "",
    ]);
    let path = select(vec![
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/a/b/c",
        "/A",
        "/b",
        "/b/c/d",
        "/b%2Fc",
        "/a//b",
        "/a/./b",
        "/a/../b",
        "/../x",
        "/a;x/b",
        "/a%00",
        "/%61",
        "/x%2Fy",
        "/new\"quote",
        "/a b",
    ]);
    let query = prop_oneof![3 => Just(None), 1 => select(vec!["", "k=v", "a=b&c=%20/", "x?y/"]).prop_map(|query| Some(query.to_owned()))];
    let field = select(vec![
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Proto", "wss"),
        ("X-Forwarded-For", "10.1.2.3"),
        ("X-Forwarded-For", "192.0.2.7, 127.0.0.2"),
        ("X-Forwarded-Host", "b.example"),
        ("X-Forwarded-Port", "8443"),
        ("X-Real-Client", "10.9.9.9"),
        ("X-Request-ID", "mine"),
        ("X-Tenant", "t1"),
        ("X-Tenant", "always"),
        ("X-Tenant", "never"),
        ("X_Tenant", "t2"),
        ("Cookie", "route=x; a=b"),
        ("Cookie", "a=always"),
        ("Cookie", "a=never"),
        ("User-Agent", "bad-agent/1"),
        ("Connection", "X-Tenant"),
        ("X-Accel-Redirect", "/secret"),
        ("Origin", "https://a.example"),
        ("Origin", "https://x.example"),
        ("Accept", "text/html"),
        ("Content-Length", "0"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "gzip"),
        ("X-Bad Name", "v"),
        ("Proxy", "x"),
        ("Forwarded", "for=1.2.3.4"),
        ("X-Scheme", "https"),
        ("X-Original-URI", "/x"),
    ]);
    let method =
        prop_oneof![6 => Just("GET"), 1 => select(vec!["POST", "HEAD", "OPTIONS", "TRACE", "PURGE", "CONNECT"])];
    (method, host, path, query, prop::collection::vec(field, 0..4), 1..5u8, any::<bool>()).prop_map(
        |(method, host, path, query, fields, client, tls)| Request {
            method: method.to_owned(),
            scheme: if tls { Scheme::Https } else { Scheme::Http },
            authority: host.to_owned(),
            path: path.to_owned(),
            query,
            fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            client: IpAddr::from([127, 0, 0, client]),
        },
    )
}

/// Servers as backends, and the objects that lead to them.
struct Origins {
    origins: [Origin; 2],
    /// What the proxy connects to.
    fronts: [Front; 2],
}

impl Origins {
    fn start() -> Self {
        let origin = |name: &'static str| {
            let reply = Reply::ok()
                .header("X-Origin-Secret", "s")
                .header("X-Frame-Options", "of-origin")
                .header("Server", name);
            Origin::new(name).reply(reply).start()
        };
        let origins = [origin("first"), origin("second")];
        let fronts = [Front::start(origins[0].address()), Front::start(origins[1].address())];
        Self { origins, fronts }
    }

    fn objects(&self) -> Vec<Value> {
        // The address of the Service is that of its origin, for `service-upstream`.
        let service = |name: &str, address: &str, port: u16| {
            json!({
                "kind": "Service", "apiVersion": "v1", "metadata": { "namespace": "ns", "name": name },
                "spec": { "clusterIP": address, "ports": [{ "port": port, "name": "http", "targetPort": if name == "first" { 8081 } else { 80 } }] },
            })
        };
        let [first, second] = [self.fronts[0].port(), self.fronts[1].port()];
        let slice = |name: &str, port: u16| {
            json!({
                "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                "metadata": { "namespace": "ns", "name": name, "labels": { "kubernetes.io/service-name": name } },
                "addressType": "IPv4", "ports": [{ "name": "http", "port": port }],
                "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }],
            })
        };
        let map = |name: &str, data: Value| {
            json!({
                "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "namespace": "ns", "name": name }, "data": data,
            })
        };
        vec![
            service("first", "127.0.0.1", first),
            service("second", "127.0.0.1", second),
            service("empty", "None", 80),
            slice("first", first),
            slice("second", second),
            map("added", json!({ "X-Frame-Options": "DENY", "X-Uri": "$uri", "X-Gone": "", "Server": "own" })),
            map("sent", json!({ "X-Tenant": "set", "X-Url": "$scheme://$host", "User-Agent": "" })),
            json!({ "kind": "IngressClass", "apiVersion": "networking.k8s.io/v1", "metadata": { "name": "nginx" },
                    "spec": { "controller": "k8s.io/ingress-nginx" } }),
        ]
    }

    /// The number of requests that each backend got.
    fn counts(&self) -> [u64; 2] {
        [self.origins[0].requests(), self.origins[1].requests()]
    }

    /// The number of connections that each backend got.
    fn connections(&self) -> [u64; 2] {
        [self.fronts[0].connections(), self.fronts[1].connections()]
    }
}

fn object(value: Value) -> Object {
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let read = match &*kind {
        "Ingress" => serde_json::from_value::<k8s_openapi::api::networking::v1::Ingress>(value).map(Object::from),
        "IngressClass" => {
            serde_json::from_value::<k8s_openapi::api::networking::v1::IngressClass>(value).map(Object::from)
        }
        "Service" => serde_json::from_value::<k8s_openapi::api::core::v1::Service>(value).map(Object::from),
        "ConfigMap" => serde_json::from_value::<k8s_openapi::api::core::v1::ConfigMap>(value).map(Object::from),
        _ => serde_json::from_value::<k8s_openapi::api::discovery::v1::EndpointSlice>(value).map(Object::from),
    };
    read.expect("an object")
}

/// A proxy with the objects, and `explain`'s reading of them.
fn start(backends: &Origins, ingresses: &[Value], configmap: &BTreeMap<&str, &str>) -> (Proxy, Reading) {
    let mut options = Options { configmap: Some(("ns".into(), "settings".into())), ..Options::default() };
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    (options.http, options.https) = (vec![any], vec![any]);
    options.allowed_backend_addresses = vec![any.ip()];
    options.ssl_passthrough = true;
    options.default_backend_service =
        configmap.contains_key("custom-http-errors").then(|| ("ns".into(), "second".into()));
    let settings = json!({
        "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "namespace": "ns", "name": "settings" }, "data": configmap,
    });
    let objects: Objects =
        backends.objects().into_iter().chain(ingresses.iter().cloned()).chain([settings]).map(object).collect();
    let translation = translate(&objects, &options, 0);
    let addresses = AddressPolicy { loopback_endpoints: true, ..AddressPolicy::default() };
    let config = ProxyConfig { workers: NonZeroUsize::new(1), addresses, ..ProxyConfig::default() };
    let proxy = Proxy::start(translation.snapshot.clone(), config).expect("the proxy starts");
    (proxy, Reading::of(objects, translation, options).expect("a reading"))
}

/// Sends the request that `explain` was given.
async fn send(request: &Request, address: SocketAddr) -> Response {
    let builder = Client::builder().source(request.client);
    let mut client = match request.scheme {
        Scheme::Http => builder.connect(address).await,
        Scheme::Https => tls_client(request).transport(builder).connect(address).await,
    };
    let mut bytes = request.head();
    if let Some((_, length)) = request.fields.iter().find(|(name, _)| name == "Content-Length") {
        bytes.extend(vec![b'x'; length.parse().unwrap_or_default()]);
    }
    client.send(bytes).await;
    client.read_response_to(&request.method).await
}

fn tls_client(request: &Request) -> TlsClient {
    let name = if request.authority.contains("example") { request.authority.split(':').next() } else { None };
    match name {
        Some(name) if !name.contains('_') => TlsClient::unverified(name.trim_end_matches('.')),
        _ => TlsClient::unverified("x.example").without_sni(),
    }
}

/// The difference if TLS passes through: whether the backend takes it.
async fn compare_passed(
    passed: &PassedThrough,
    request: &Request,
    address: SocketAddr,
    backends: &Origins,
) -> Result<(), String> {
    let before = backends.connections();
    let seen = || {
        let now = backends.connections();
        [now[0] - before[0], now[1] - before[1]]
    };
    let client = tls_client(request).transport(Client::builder().source(request.client));
    // A backend that takes a PROXY header for the start of a request waits for the rest of it.
    let made = tokio::select! {
        made = client.try_connect(address) => made.map(drop),
        () = eventually("a connection to a backend", async || seen() != [0, 0]) => Ok(()),
    };
    let expected = ["Service ns/first", "Service ns/second"].map(|name| u64::from(passed.service == name));
    let seen = seen();
    if seen == expected {
        return Ok(());
    }
    Err(format!("passthrough: explain says {passed:?}, the backends got {seen:?} connections, {:?}", made.err()))
}

/// The first difference, if there is one.
fn compare(account: &Account, response: &Response, backends: &Origins, before: [u64; 2]) -> Result<(), String> {
    let expect = |what: &str, said: &dyn std::fmt::Debug, seen: &dyn std::fmt::Debug, same: bool| {
        if same { Ok(()) } else { Err(format!("{what}: explain says {said:?}, the proxy did {seen:?}")) }
    };
    let asked: Vec<_> = backends.counts().iter().zip(before).map(|(now, before)| now - before).collect();
    let named =
        |name: &str| account.forward.as_ref().is_some_and(|forward| forward.service == format!("Service ns/{name}"));
    let forwarded = account.answer.by == By::Backend;
    let asks = |step: &&FilterStep| {
        step.filter == "external_auth" && step.effect == FilterEffect::Passed && !step.text.contains("not asked")
    };
    let authentication = account.filters.iter().find(asks);
    if authentication.is_some_and(|step| step.text.contains(".example:")) {
        // No name server knows the service, and `explain` can't tell: the request must not pass.
        return expect("backend", &account.filters, &(&response, &asked), asked == [0, 0] && response.status >= 500);
    }
    let authenticated = authentication.is_some();
    let expected =
        [u64::from(forwarded && named("first")) + u64::from(authenticated), u64::from(forwarded && named("second"))];
    expect("backend", &(&account.answer, expected), &(&response, &asked), expected[..] == asked[..])?;
    let status = account.answer.status.unwrap_or(200);
    expect("status", &account.answer, &response.status, status == response.status)?;
    if !forwarded {
        expect(
            "location",
            &account.answer,
            &response.header("location"),
            account.answer.location.as_deref() == response.header("location"),
        )?;
    }
    for field in &account.response {
        let seen = response.headers().all(&field.name);
        let same = match (field.change, field.value.as_deref()) {
            ("set", Some(value)) => seen == [value],
            ("add", Some(value)) => seen.contains(&value),
            _ => seen.is_empty(),
        };
        expect("response field", field, &seen, same)?;
    }
    if !forwarded {
        return Ok(());
    }
    let origin = usize::from(named("second"));
    let seen = backends.origins[origin].seen().pop().ok_or("no request was seen")?;
    let sent =
        account.forward.as_ref().and_then(|forward| forward.request.as_ref()).ok_or("explain tells no request")?;
    expect("target", &sent.target, &seen.target, sent.target == seen.target)?;
    let chance = |value: &str| value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    let over_http2 = seen.header(OVER_HTTP2).is_some();
    // HTTP/2 has lower case only, and no fields about the connection.
    let name = |name: &str| if over_http2 { name.to_ascii_lowercase() } else { name.to_owned() };
    let is_there = |field: &str| {
        !over_http2 || ![OVER_HTTP2, "connection", "te", "transfer-encoding"].contains(&&*field.to_ascii_lowercase())
    };
    let said = sent.fields.iter().filter(|field| is_there(&field.name));
    let mut said: Vec<_> = said.map(|field| (name(&field.name), field.value.clone())).collect();
    let mut seen: Vec<_> = seen
        .headers()
        .iter()
        .filter(|(name, _)| is_there(name))
        .map(|(field, value)| match field {
            "X-Request-ID" | "x-request-id" if chance(value) => (name(field), "(random)".to_owned()),
            field if super::tell::is_of_trace(field) => (name(field), "(random)".to_owned()),
            _ => (name(field), value.to_owned()),
        })
        .collect();
    if over_http2 {
        // Fields of one name keep their order; others may change theirs.
        said.sort_by(|a, b| a.0.cmp(&b.0));
        seen.sort_by(|a, b| a.0.cmp(&b.0));
    }
    expect("request fields", &said, &seen, said == seen)
}

#[test]
fn explain_says_what_the_proxy_does() {
    let pairs = std::env::var("FAIRWAY_DIFFERENTIAL").ok().and_then(|text| text.parse().ok()).unwrap_or(500usize);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let backends = Origins::start();
    let ingresses = (1usize..5).prop_flat_map(|count| (0..count).map(ingress).collect::<Vec<_>>());
    let cases = (ingresses, configmap(), prop::collection::vec(request(), REQUESTS));
    let config = Config {
        cases: (pairs / REQUESTS) as u32,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&cases, |(ingresses, configmap, requests)| {
        let (proxy, reading) = start(&backends, &ingresses, &configmap);
        for request in &requests {
            let listener = reading.snapshot.listeners().find(|one| one.scheme == request.scheme).expect("a listener");
            let local = proxy.local_addresses()[&listener.name];
            let account = account_at(request, &reading, listener, local);
            if let Some(passed) = &account.passthrough {
                runtime.block_on(compare_passed(passed, request, local, &backends)).map_err(TestCaseError::fail)?;
                continue;
            }
            let before = backends.counts();
            let response = runtime.block_on(send(request, local));
            if let Err(different) = compare(&account, &response, &backends, before) {
                let asked = String::from_utf8_lossy(&request.head()).into_owned();
                let objects: Vec<_> = ingresses.iter().map(ToString::to_string).collect();
                let objects = objects.join("\n");
                return Err(TestCaseError::fail(format!("{different}\n{asked}{configmap:?}\n{objects}")));
            }
        }
        Ok(())
    });
    match outcome {
        Err(TestError::Fail(reason, _)) => panic!("{}", reason.message()),
        Err(error) => panic!("{error}"),
        Ok(()) => {}
    }
}

#[test]
fn the_grammar_has_all_annotations() {
    let known: Vec<_> = values().into_iter().map(|(name, _)| name).collect();
    let built = GROUPS.iter().flat_map(|group| group.specs).filter(|spec| spec.verdict.works());
    let missing: Vec<_> = built.map(|spec| spec.name).filter(|name| !known.contains(name)).collect();
    assert_eq!(missing, [""; 0], "these annotations have neither examples nor values");
}
