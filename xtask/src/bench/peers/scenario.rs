//! The scenarios: a load, the servers behind the proxies, and how each proxy is configured to do the same work.

use std::fmt::Write as _;

use super::config::{Origin, Setup};
use super::load::Load;

/// One table of the benchmark.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) load: Load,
    pub(super) origin: Origin,
    /// Whether every proxy writes an access log to a file, in ingress-nginx's format.
    pub(super) log: bool,
    /// The others are compared with the first one.
    pub(super) sides: &'static [Side],
}

/// A proxy and its configuration.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) proxy: Proxy,
}

#[derive(Debug)]
pub(super) enum Proxy {
    Fairway {
        /// The objects that lead to the Services, as YAML documents.
        objects: fn() -> String,
        /// ConfigMap entries, as members of a YAML map.
        settings: &'static str,
    },
    Nginx {
        /// Directives of the `http` block.
        http: fn(&Setup) -> String,
        /// Directives of the location, besides those for the fields that Fairway sets.
        location: fn() -> String,
    },
    Envoy,
}

const fn fairway(name: &'static str, objects: fn() -> String) -> Side {
    Side { name, proxy: Proxy::Fairway { objects, settings: "" } }
}

const fn nginx(location: fn() -> String) -> Side {
    Side { name: "nginx", proxy: Proxy::Nginx { http: |_| String::new(), location } }
}

const PLAIN: &[Side] = &[nginx(String::new), fairway("fairway", || app(""))];
const GRPC: &[Side] = &[
    nginx(String::new),
    fairway("fairway", || app(r#"nginx.ingress.kubernetes.io/backend-protocol: "GRPC""#)),
    Side { name: "envoy", proxy: Proxy::Envoy },
];

const fn plain(name: &'static str, load: Load, log: bool) -> Scenario {
    Scenario { name, load, origin: Origin::Plain, log, sides: PLAIN }
}

pub(super) const SCENARIOS: &[Scenario] = &[
    plain("h1", Load::wrk("/"), false),
    plain("tls", Load::wrk("/").over_tls(), false),
    plain("h2", Load::Http2 { tls: true, call: false }, false),
    plain("h1-16k", Load::wrk("/16k"), false),
    plain("h1-1m", Load::wrk("/1m"), false),
    plain("h1-log", Load::wrk("/"), true),
    plain("tls-log", Load::wrk("/").over_tls(), true),
    plain("h2-log", Load::Http2 { tls: true, call: false }, true),
    plain("h1-16k-log", Load::wrk("/16k"), true),
    plain("h1-1m-log", Load::wrk("/1m"), true),
    grpc("grpc", false),
    grpc("grpc-tls", true),
    Scenario {
        name: "upstream-tls",
        load: Load::wrk("/"),
        origin: Origin::Tls,
        log: false,
        sides: &[
            nginx(String::new),
            fairway("fairway", || app(r#"nginx.ingress.kubernetes.io/backend-protocol: "HTTPS""#)),
        ],
    },
    Scenario {
        name: "gzip",
        load: Load::wrk("/json").with("Accept-Encoding: gzip"),
        origin: Origin::Plain,
        log: false,
        sides: &[
            nginx(|| "gzip on; gzip_comp_level 1; gzip_types application/json; gzip_proxied any;".to_owned()),
            Side {
                name: "fairway",
                proxy: Proxy::Fairway { objects: || app(""), settings: r#"use-gzip: "true", gzip-level: "1""# },
            },
        ],
    },
    plain("handshake", Load::Handshake { resumed: false }, false),
    plain("resumption", Load::Handshake { resumed: true }, false),
    Scenario {
        name: "features",
        load: Load::wrk("/").with("Origin: https://shop.example"),
        origin: Origin::Plain,
        log: true,
        sides: &[
            Side {
                name: "nginx",
                proxy: Proxy::Nginx {
                    http: |_| "limit_req_zone $binary_remote_addr zone=clients:5m rate=1000000r/s;".to_owned(),
                    location: || {
                        format!(
                            "limit_req zone=clients burst=5000000 nodelay;
                             {}
                             deny all;
                             add_header Access-Control-Allow-Origin $http_origin always;
                             add_header Access-Control-Allow-Credentials true always;
                             add_header Access-Control-Allow-Methods \"GET, PUT, POST, DELETE, PATCH, OPTIONS\" always;
                             add_header Access-Control-Allow-Headers \"DNT,Keep-Alive,User-Agent\" always;
                             add_header Access-Control-Max-Age 1728000 always;
                             proxy_set_header X-One one; proxy_set_header X-Two $host; proxy_set_header X-Three \"\";
                             add_header X-Four four; add_header X-Five $request_id;",
                            networks(|network| format!("allow {network};"))
                        )
                    },
                },
            },
            Side {
                name: "fairway",
                proxy: Proxy::Fairway {
                    objects: || {
                        app(&format!(
                            r#"nginx.ingress.kubernetes.io/enable-cors: "true",
                               nginx.ingress.kubernetes.io/cors-allow-headers: "DNT,Keep-Alive,User-Agent",
                               nginx.ingress.kubernetes.io/limit-rps: "1000000",
                               nginx.ingress.kubernetes.io/whitelist-source-range: "{}",
                               nginx.ingress.kubernetes.io/configuration-snippet: 'proxy_set_header X-One one; proxy_set_header X-Two $host;
                                 proxy_set_header X-Three ""; add_header X-Four four; add_header X-Five $request_id;'"#,
                            networks(|network| format!("{network},")).trim_end_matches(',')
                        ))
                    },
                    settings: r#"allow-snippet-annotations: "true", annotations-risk-level: Critical"#,
                },
            },
        ],
    },
    authenticated("auth-cached", true),
    authenticated("auth", false),
    Scenario {
        name: "canary",
        load: Load::wrk("/"),
        origin: Origin::Plain,
        log: false,
        sides: &[
            fairway("ingress", || app("")),
            fairway("canary", || {
                let affinity =
                    "nginx.ingress.kubernetes.io/affinity: cookie, nginx.ingress.kubernetes.io/session-cookie-name: s";
                let canary = r#"nginx.ingress.kubernetes.io/canary: "true", nginx.ingress.kubernetes.io/canary-weight: "30",
                                nginx.ingress.kubernetes.io/canary-by-header: X-Canary"#;
                app(affinity) + &ingress("canary", canary, "/")
            }),
        ],
    },
    Scenario {
        name: "httproute",
        load: Load::wrk("/"),
        origin: Origin::Plain,
        log: false,
        sides: &[fairway("ingress", || app("")), fairway("httproute", || HTTP_ROUTE.to_owned())],
    },
    Scenario {
        name: "routes",
        load: Load::wrk("/"),
        origin: Origin::Plain,
        log: false,
        sides: &[
            fairway("one", || app(&filters())),
            fairway("1000", || {
                let more = (1..1000).map(|at| ingress(&format!("more-{at}"), &filters(), &format!("/more/{at}")));
                std::iter::once(app(&filters())).chain(more).collect()
            }),
        ],
    },
];

const fn grpc(name: &'static str, tls: bool) -> Scenario {
    Scenario { name, load: Load::Http2 { tls, call: true }, origin: Origin::Grpc, log: false, sides: GRPC }
}

const fn authenticated(name: &'static str, kept: bool) -> Scenario {
    const UNCACHED: &[Side] = &[
        Side {
            name: "nginx",
            proxy: Proxy::Nginx { http: |_| String::new(), location: || "auth_request /-auth;".to_owned() },
        },
        fairway("fairway", || app(AUTH_URL)),
    ];
    const CACHED: &[Side] = &[
        Side {
            name: "nginx",
            proxy: Proxy::Nginx {
                http: |setup| format!("proxy_cache_path {}/auth-cache keys_zone=auth:10m;", setup.folder.display()),
                location: || "auth_request /-auth-cached;".to_owned(),
            },
        },
        fairway("fairway", || {
            app(&format!(
                r#"{AUTH_URL}, nginx.ingress.kubernetes.io/auth-cache-key: $remote_addr,
                   nginx.ingress.kubernetes.io/auth-cache-duration: 200 10m"#
            ))
        }),
    ];
    let sides = if kept { CACHED } else { UNCACHED };
    Scenario { name, load: Load::wrk("/"), origin: Origin::Plain, log: false, sides }
}

const AUTH_URL: &str = "nginx.ingress.kubernetes.io/auth-url: http://auth.bench.svc.cluster.local/allowed";

/// A route with two filters that edit fields, and two weighted backends.
const HTTP_ROUTE: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: bench}
spec:
  gatewayClassName: fairway
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: bench}
spec:
  parentRefs: [{name: edge}]
  hostnames: [localhost]
  rules:
  - filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-One, value: one}]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Two, value: two}]}}
    backendRefs: [{name: app, port: 80, weight: 70}, {name: other, port: 80, weight: 30}]
";

/// Ten filters for a route.
fn filters() -> String {
    r#"nginx.ingress.kubernetes.io/enable-cors: "true",
       nginx.ingress.kubernetes.io/whitelist-source-range: "127.0.0.0/8,10.0.0.0/8",
       nginx.ingress.kubernetes.io/limit-rps: "1000000",
       nginx.ingress.kubernetes.io/limit-connections: "10000",
       nginx.ingress.kubernetes.io/proxy-body-size: 8m,
       nginx.ingress.kubernetes.io/x-forwarded-prefix: /prefix,
       nginx.ingress.kubernetes.io/upstream-vhost: app.example,
       nginx.ingress.kubernetes.io/proxy-cookie-path: "/one /two",
       nginx.ingress.kubernetes.io/proxy-cookie-domain: "one.example two.example",
       nginx.ingress.kubernetes.io/proxy-redirect-from: "http://app.example/", nginx.ingress.kubernetes.io/proxy-redirect-to: "/""#
        .to_owned()
}

/// 1,000 networks, of which the last one contains the client.
fn networks(each: impl Fn(String) -> String) -> String {
    (0..999)
        .map(|at| each(format!("10.{}.{}.0/24", at / 250, at % 250)))
        .chain([each("127.0.0.0/8".to_owned())])
        .collect()
}

/// The Ingress for all paths.
pub(super) fn app(annotations: &str) -> String {
    ingress("app", annotations, "/")
}

/// An Ingress for the Service of the benchmark.
fn ingress(name: &str, annotations: &str, path: &str) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  namespace: bench\n  annotations: {{{annotations}}}\n\
         spec:\n  ingressClassName: nginx\n  tls: [{{hosts: [localhost], secretName: tls}}]\n  rules:\n  - host: localhost\n    http:\n      paths:\n      \
         - {{path: {path}, pathType: Prefix, backend: {{service: {{name: app, port: {{number: 80}}}}}}}}"
    );
    text
}
