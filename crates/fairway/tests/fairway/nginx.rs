//! Compares snippets here and in the real nginx: random combinations of directives must give the same responses to the same requests.
//!
//! Error pages, fields about the connection and the server, and Expires, which `expires` removes here, are not compared.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::Dev;
use fairway_testkit::{Client, Origin, Reply, Request, eventually};

const NGINX: &str = "/usr/sbin/nginx";
const HEADERS_MORE: &str = "/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so";

/// Combinations that are compared.
const SNIPPETS: usize = 320;

/// Directives of a location, each used at most once.
const LOCATION: &[&str] = &[
    "more_set_headers \"X-Frame-Options: DENY\";",
    "more_set_headers -s '404 500' 'X-Error: $status';",
    "more_set_headers -t 'text/css' 'X-Css: $request_method';",
    "more_set_headers 'X-Added: replaced' 'X-Empty:';",
    "more_clear_headers X-Powered-By 'Cache-Control';",
    "more_clear_headers -s 404 X-Frame-Options;",
    "add_header X-Added $request_method;",
    "add_header X-Always $host always;",
    "add_header X-Frame-Options 'also';",
    "add_header Cache-Control \"no-store\";",
    "add_header X-Nothing $arg_none;",
    "add_header X-From-Backend $upstream_http_x_powered_by;",
    "proxy_hide_header X-Powered-By;",
    "proxy_set_header X-Tenant \"$http_user_agent at ${host}\";",
    "proxy_set_header X-Tenant '';",
    "proxy_set_header Accept-Encoding \"\";",
    "proxy_set_header X-Beta $beta;",
    "proxy_set_header X-Flag $flag;",
    "more_set_input_headers \"X-Input: $arg_q\";",
    "more_clear_input_headers X-Tenant;",
    "set $flag a$arg_q;",
    "set $beta \"\";",
    "if ($http_user_agent ~* \"(bot|spider)\") { return 403; }",
    "if ($http_user_agent !~* \"bot\") { set $flag human; }",
    "if ($request_method = POST) { return 405; }",
    "if ($request_method != 'GET') { set $flag \"$request_method\"; }",
    "if ($cookie_beta) { set $beta yes; }",
    "if ($arg_q != '') { add_header X-If $arg_q; }",
    "if ($arg_q = 1) { more_set_headers 'X-If-More: 1'; }",
    "if ($uri ~ ^/old/(.*)/(.*)$) { return 301 https://new.example/$2/$1; }",
    "if ($host ~ ^s(\\d+)\\.) { set $flag $1; }",
    "rewrite ^/old/(.*)$ /new/$1 break;",
    "rewrite ^/moved/(.*)$ /to/$1? permanent;",
    "rewrite ^/moved/(.*)$ /to/$1 redirect;",
    "rewrite ^/again/(.*)$ /old/$1?from=again last;",
    "rewrite ^/page$ https://pages.example/page;",
    "rewrite ^/(style)\\.css$ /css/$1;",
    "break;",
    "sub_filter '</head>' '<i>$host</i></head>';",
    "sub_filter 'page' \"[$request_method]\";",
    "sub_filter_once off;",
    "sub_filter_types text/css;",
    "sub_filter_types *;",
    "expires 1h;",
    "expires -1;",
    "expires epoch;",
    "allow 127.0.0.0/8; deny all;",
    "deny 127.0.0.1;",
    "allow 10.0.0.0/8; deny all;",
    "deny 192.0.2.0/24; allow all;",
    "limit_except GET { deny all; }",
    "limit_except POST { allow 127.0.0.1; deny all; }",
    "proxy_cookie_flags ~ secure samesite=lax;",
    "proxy_cookie_flags sid nosecure httponly;",
    "default_type text/plain;",
    "return 200 'a text';",
    "return 404;",
    "return 204;",
    "return 302 /login?to=$request_uri;",
    "return 307 $scheme://$host/there;",
    "log_not_found off; access_log off; server_tokens off; etag off; chunked_transfer_encoding on; proxy_buffering off;",
    "# a comment ; { \" '\n\tmore_set_headers\n  'X-Lines: \\'quoted\\''  ;",
];

/// Directives of a location with escapes, each in a snippet of its own.
const ESCAPES: &[&str] = &[
    "return 200 \"User-agent: *\\nDisallow:\\t/\\r\\n\\\"quoted\\\" \\x\";",
    "return 200 bare\\nword\\ttab;",
    "sub_filter 'html' 'h\\n\\ttml\n';",
];

/// Directives of a server, each used at most once.
const SERVER: &[&str] = &[
    "add_header X-Server 1;",
    "more_set_headers 'X-More-Server: 1';",
    "more_clear_headers 'X-Powered-By';",
    "if ($http_x_blocked) { return 403; }",
    "if ($http_x_blocked) { set $flag blocked; }",
    "set $beta server;",
    "if ($request_uri ~ ^/moved) { return 302 https://$host/else; }",
    "rewrite ^/again/(.*)$ /page last;",
    "rewrite ^/missing$ /page?was=missing;",
    "deny 127.0.0.1;",
    "allow 127.0.0.1; deny all;",
    "proxy_hide_header X-Frame-Options;",
    "proxy_set_header X-Tenant server;",
    "sub_filter 'html' 'HTML';",
    "sub_filter_once off;",
    "expires max;",
    "default_type text/x-server;",
    "return 410;",
    "location /old { deny all; }",
    "location = /page { return 200 'exact'; }",
    "location ~ \\.css$ { add_header X-Style 1 always; return 202 'style'; }",
    "location ~* ^/MOVED/(.*)$ { return 302 https://places.example/$1; }",
    "location /again/ { rewrite ^/again/(.*)$ /old/$1 last; }",
];

/// A request, with its method, target and fields.
#[derive(Debug)]
struct Asked(&'static str, &'static str, &'static [(&'static str, &'static str)]);

const REQUESTS: &[Asked] = &[
    Asked("GET", "/page", &[]),
    Asked("GET", "/old/a/b?q=1", &[("X-Tenant", "client")]),
    Asked("GET", "/moved/a?q=2", &[("Cookie", "a=b; beta=1")]),
    Asked("POST", "/page", &[("X-Tenant", "client")]),
    Asked("GET", "/style.css", &[("User-Agent", "Some Bot 1.0")]),
    Asked("GET", "/missing", &[]),
    Asked("GET", "/again/z?q=1", &[("X-Blocked", "1")]),
    Asked("DELETE", "/old/c%20d/e", &[]),
];

/// Fields that are about the connection, the server or the time.
const IGNORED: &[&str] = &[
    "date",
    "server",
    "connection",
    "content-length",
    "transfer-encoding",
    "keep-alive",
    "expires",
    "etag",
    "last-modified",
    "accept-ranges",
    "vary",
    "allow",
];

/// A generator with a fixed seed (Knuth's MMIX), so that failures can be reproduced.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    /// Up to `most` different entries, in random order. No two of them set something that nginx allows only once.
    fn choose(&mut self, from: &[&str], most: usize) -> String {
        let count = self.below(most + 1);
        let (mut chosen, mut once) = (String::new(), BTreeSet::new());
        for _ in 0..count {
            let one = from[self.below(from.len())];
            let name = one.split([' ', ';']).next().unwrap_or_default();
            let single =
                ["expires", "default_type", "sub_filter_once", "sub_filter_types", "limit_except"].contains(&name);
            let same_field = one.starts_with("proxy_set_header X-Tenant");
            let key = if single {
                name
            } else if same_field {
                "X-Tenant"
            } else {
                one
            };
            if once.insert(key) {
                chosen.push_str(one);
                chosen.push('\n');
            }
        }
        chosen
    }
}

/// Adds the variables that the snippets use: for nginx it is enough that any server sets them.
fn declared(server: String, location: String) -> (String, String) {
    let uses = |name| server.contains(name) || location.contains(name);
    let sets = ["$flag", "$beta"].into_iter().filter(|name| uses(*name)).map(|name| format!("set {name} '';\n"));
    (sets.collect::<String>() + &server, location)
}

/// nginx in the foreground, which ends when dropped.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nginx {
    async fn start(folder: &Path, origin: SocketAddr, snippets: &[(String, String)]) -> Self {
        for path in [NGINX, HEADERS_MORE] {
            assert!(Path::new(path).exists(), "{path} is missing: run cargo xtask needs as root");
        }
        for _ in 0..5 {
            // Another process may take the port in between; then nginx ends, and the next one is tried.
            let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
            std::fs::write(folder.join("nginx.conf"), configuration(folder, address, origin, snippets))
                .expect("a file");
            let mut child = Command::new(NGINX)
                .arg("-p")
                .arg(folder)
                .arg("-e")
                .arg(folder.join("error.log"))
                .arg("-c")
                .arg(folder.join("nginx.conf"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("nginx runs");
            let up = eventually("nginx to listen or to end", || {
                let ended = child.try_wait().expect("a child of ours").is_some();
                let answers = std::net::TcpStream::connect(address).is_ok();
                async move { (ended || answers).then_some(answers && !ended) }
            });
            if up.await {
                return Self { child, address };
            }
            let log = std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
            assert!(log.contains("Address already in use"), "nginx does not start:\n{log}");
        }
        panic!("nginx finds no port");
    }
}

fn configuration(folder: &Path, address: SocketAddr, origin: SocketAddr, snippets: &[(String, String)]) -> String {
    let folder = folder.display();
    let mut out = format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nload_module {HEADERS_MORE};\nevents {{}}\nhttp {{\n\
         access_log off;\nserver_tokens off;\ndefault_type text/html;\nport_in_redirect off;\n\
         server_names_hash_max_size 8192;\nserver_names_hash_bucket_size 128;\nvariables_hash_max_size 8192;\n\
         client_body_temp_path {folder}/a;\nproxy_temp_path {folder}/b;\nfastcgi_temp_path {folder}/c;\n\
         uwsgi_temp_path {folder}/d;\nscgi_temp_path {folder}/e;\n\
         upstream backend {{ server {origin}; }}\n"
    );
    for (number, (server, location)) in snippets.iter().enumerate() {
        let _ = write!(
            out,
            "server {{\nlisten {address};\nserver_name s{number}.example;\n{server}\nlocation / {{\nproxy_set_header Host $http_host;\n\
             {location}\nproxy_pass http://backend;\nproxy_redirect off;\n}}\n}}\n"
        );
    }
    out.push_str("}\n");
    out
}

fn manifests(snippets: &[(String, String)]) -> String {
    let mut out =
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: 80}]}\n---\n\
                   apiVersion: v1\nkind: ConfigMap\nmetadata: {name: global, namespace: ops}\ndata:\n  \
                   allow-snippet-annotations: \"true\"\n  annotations-risk-level: Critical\n"
            .to_owned();
    for (number, (server, location)) in snippets.iter().enumerate() {
        let _ = write!(
            out,
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: s{number}\n  namespace: shop\n  annotations:\n"
        );
        for (name, text) in [("server-snippet", server), ("configuration-snippet", location)] {
            let text = serde_json::Value::from(text.as_str());
            let _ = writeln!(out, "    nginx.ingress.kubernetes.io/{name}: {text}");
        }
        let _ = write!(
            out,
            "spec:\n  rules:\n  - host: s{number}.example\n    http:\n      paths:\n      - {{path: /, pathType: Prefix, backend: \
             {{service: {{name: web, port: {{number: 80}}}}}}}}\n"
        );
    }
    out
}

/// A page that shows what the backend received.
fn page(request: &Request) -> Reply {
    let told = ["x-tenant", "x-beta", "x-flag", "x-input", "accept-encoding", "host"];
    let mut body = format!("<html><head></HEAD>page Page {} {}", request.method, request.target);
    for name in told {
        let _ = write!(body, " {name}={}", request.head.headers.all(name).join("|"));
    }
    let status = if request.target.starts_with("/missing") { 404 } else { 200 };
    let kind = if request.target.contains("css") { "text/css" } else { "text/html; charset=utf-8" };
    Reply::status(status)
        .header("Content-Type", kind)
        .header("X-Powered-By", "php")
        .header("X-Frame-Options", "SAMEORIGIN")
        .header("Cache-Control", "max-age=5")
        .header("Set-Cookie", "sid=1; Path=/; Secure")
        .header("Set-Cookie", "other=2; path=/x; HttpOnly; SameSite=None")
        .body(body)
}

/// The compared parts of a response.
async fn answer(address: SocketAddr, host: &str, request: &Asked) -> (u16, Vec<String>, String) {
    let Asked(method, target, fields) = *request;
    let fields: Vec<(&str, &str)> = [("Host", host), ("Connection", "close")].iter().chain(fields).copied().collect();
    let body: &[u8] = if method == "POST" { b"body" } else { b"" };
    let response = Client::connect(address).await.request(method, target, &fields, body).await;
    let mut told: Vec<String> = response
        .head
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| !IGNORED.contains(&name.as_str()))
        // headers-more 0.34 sends an empty Cache-Control when it clears one that doesn't exist.
        .filter(|(_, value)| !value.is_empty())
        // nginx writes decoded text into Location unchanged; here it is encoded again.
        .map(|(name, value)| {
            format!("{name}: {}", if name == "location" { value.replace(' ', "%20") } else { value.to_owned() })
        })
        .collect();
    told.sort();
    let text = response.text();
    let text = if text.contains("<hr><center>") { String::new() } else { text };
    (response.status, told, text)
}

#[tokio::test]
async fn snippets_mean_the_same_as_in_nginx() {
    let mut dice = Dice(20_261_128);
    let mut snippets: Vec<(String, String)> =
        (0..SNIPPETS).map(|_| declared(dice.choose(SERVER, 3), dice.choose(LOCATION, 6))).collect();
    snippets.extend(ESCAPES.iter().map(|one| (String::new(), (*one).to_owned())));
    let origin = Origin::new("web").reply_with(page).start();
    let folder = tempfile::tempdir().expect("a folder");
    let nginx = Nginx::start(folder.path(), origin.address(), &snippets).await;
    let objects = tempfile::tempdir().expect("a folder");
    std::fs::write(objects.path().join("all.yaml"), manifests(&snippets)).expect("a file");
    let backend = format!("--backend=shop/web:80={}", origin.address());
    let dev = Dev::start([objects.path().as_os_str(), backend.as_ref(), "--configmap=ops/global".as_ref()]);
    let (mut differing, mut report) = (0, String::new());
    for (number, (server, location)) in snippets.iter().enumerate() {
        let host = format!("s{number}.example");
        for request in REQUESTS {
            let theirs = Box::pin(answer(nginx.address, &host, request)).await;
            let ours = Box::pin(answer(dev.http, &host, request)).await;
            if theirs != ours {
                differing += 1;
                if differing <= 12 {
                    let _ = write!(
                        report,
                        "\n{request:?} with\n  server:\n{server}  location:\n{location}  nginx: {theirs:?}\n  here:  {ours:?}\n"
                    );
                }
                break;
            }
        }
    }
    assert_eq!(differing, 0, "of {SNIPPETS} snippets{report}");
}
