//! The files and addresses of the programs: origin, nginx, Envoy, and the manifests for Fairway.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::scenario::Scenario;
use super::write;
use crate::tls_files::TlsFiles;

/// The access log of ingress-nginx without the fields that only it has.
pub(super) const LOG_FORMAT: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \
     \"$http_user_agent\" $request_length $request_time $upstream_addr $upstream_response_length $upstream_response_time \
     $upstream_status $request_id";

/// The start of every nginx configuration: one process, and no files outside of the folder.
const NGINX: &str = "worker_processes 1; daemon off; master_process off; error_log stderr crit; pid FOLDER/NAME.pid;
events { worker_connections 8192; }
http {
  client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
  keepalive_requests 100000000; keepalive_timeout 300s; ssl_session_cache shared:S:10m; default_type text/plain;
  ssl_certificate FOLDER/tls.crt; ssl_certificate_key FOLDER/tls.key;
";

/// The fields that Fairway sets too.
const FIELDS: &str = "SET Host $host; SET X-Request-ID $request_id; SET X-Real-IP $remote_addr;
      SET X-Forwarded-For $remote_addr; SET X-Forwarded-Host $host; SET X-Forwarded-Port $server_port;
      SET X-Forwarded-Proto $scheme; SET X-Forwarded-Scheme $scheme; SET X-Scheme $scheme;";

/// The server to which the proxies forward.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Origin {
    /// nginx over HTTP/1.1.
    Plain,
    /// nginx over TLS.
    Tls,
    /// The server of grpc-go, without TLS.
    Grpc,
}

/// The host of one of the routes.
pub(super) fn host_of(number: usize) -> String {
    format!("host-{number}.bench.example")
}

/// Addresses and files of all programs.
pub(super) struct Setup {
    pub(super) folder: PathBuf,
    pub(super) nginx: PathBuf,
    pub(super) grpc_server: PathBuf,
    tls: TlsFiles,
    /// A message of gRPC that asks for 100 bytes.
    pub(super) message: PathBuf,
    /// The proxy under test.
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    pub(super) origin: SocketAddr,
    origin_tls: SocketAddr,
    pub(super) grpc: SocketAddr,
}

impl Setup {
    /// Chooses addresses, makes a certificate and the files that the origin serves.
    pub(super) fn new(folder: &Path, nginx: &Path, grpc_server: &Path) -> anyhow::Result<Self> {
        let root = folder.join("origin");
        fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
        // Bytes that don't compress, and JSON that does.
        let noise: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(root.join("1m"), &noise)?;
        fs::write(root.join("16k"), &noise[..16 << 10])?;
        let json: String = (0..)
            .map(|at| format!(r#"{{"id":{at},"name":"item {at}","price":{}}},"#, at * 37 % 1000))
            .take(800)
            .collect();
        write(root.join("json"), &json[..16 << 10])?;
        // A prefix of five bytes, and field 2 of a SimpleRequest, `response_size`, with 100.
        let message = folder.join("message");
        fs::write(&message, [0, 0, 0, 0, 2, 0x10, 100])?;
        let tls = TlsFiles::make(folder, "localhost")?;
        let listeners: Vec<_> = (0..5)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()
            .context("a free port")?;
        let address = |at: usize| listeners[at].local_addr();
        Ok(Self {
            folder: folder.to_owned(),
            nginx: nginx.to_owned(),
            grpc_server: grpc_server.to_owned(),
            tls,
            message,
            http: address(0)?,
            https: address(1)?,
            origin: address(2)?,
            origin_tls: address(3)?,
            grpc: address(4)?,
        })
    }

    /// The port of the proxy.
    pub(super) fn port(&self, tls: bool) -> u16 {
        if tls { self.https.port() } else { self.http.port() }
    }

    /// The Services of the manifests, and where they are.
    pub(super) fn backends(&self, origin: Origin) -> [(&'static str, SocketAddr); 3] {
        let address = self.address(origin);
        [("bench/app:80", address), ("bench/other:80", address), ("bench/auth:80", self.origin)]
    }

    fn address(&self, origin: Origin) -> SocketAddr {
        match origin {
            Origin::Plain => self.origin,
            Origin::Tls => self.origin_tls,
            Origin::Grpc => self.grpc,
        }
    }

    /// The origin: a small text, files, and an authentication service that allows everything.
    pub(super) fn write_origin(&self) -> anyhow::Result<PathBuf> {
        let (origin, tls, folder) = (self.origin, self.origin_tls, self.folder.display());
        let text = format!(
            "{}  access_log off;
  server {{
    listen {origin}; listen {tls} ssl; root {folder}/origin;
    location = / {{ return 200 \"a body of about one hundred bytes, as many small ones of real services are, with a line feed at its end\\n\"; }}
    location = /json {{ default_type application/json; }}
    location = /allowed {{ return 200 \"\"; }}
  }}
}}
",
            self.nginx_head("origin")
        );
        write(self.folder.join("origin.conf"), &text)
    }

    /// nginx as the proxy.
    pub(super) fn write_nginx(&self, scenario: &Scenario, http: &str, location: &str) -> anyhow::Result<PathBuf> {
        let (plain, tls, folder) = (self.http, self.https, self.folder.display());
        let (address, auth) = (self.address(scenario.origin), self.origin);
        let log = if scenario.log {
            let format = LOG_FORMAT.replace('"', "\\\"");
            format!("log_format all \"{format}\"; access_log {folder}/nginx.log all buffer=64k flush=1m;")
        } else {
            "access_log off;".to_owned()
        };
        let (set, pass, version) = match scenario.origin {
            Origin::Plain => ("proxy_set_header", "proxy_http_version 1.1; proxy_pass http://app;", ""),
            Origin::Tls => ("proxy_set_header", "proxy_http_version 1.1; proxy_pass https://app;", ""),
            Origin::Grpc => ("grpc_set_header", "grpc_pass grpc://app;", " http2"),
        };
        let connection = if scenario.origin == Origin::Grpc { "" } else { "proxy_set_header Connection \"\";" };
        let fields = FIELDS.replace("SET", set);
        let question = "internal; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_pass_request_body off; \
             proxy_set_header Content-Length \"\"; proxy_pass http://auth/allowed;";
        let kept = if http.contains("keys_zone=auth:") {
            format!(
                "location = /-auth-cached {{ {question} proxy_cache auth; proxy_cache_key $remote_addr; proxy_cache_valid 200 10m; \
                 proxy_ignore_headers Cache-Control Expires Set-Cookie; }}"
            )
        } else {
            String::new()
        };
        let text = format!(
            "{}  {log}
  upstream app {{ server {address}; keepalive 512; keepalive_requests 100000000; }}
  upstream auth {{ server {auth}; keepalive 512; keepalive_requests 100000000; }}
  {http}
  server {{
    listen {plain}{version}; listen {tls} ssl http2;
    location / {{ {connection} {fields} {location} {pass} }}
    location = /-auth {{ {question} }}
    {kept}
  }}
}}
",
            self.nginx_head("nginx")
        );
        write(self.folder.join("nginx.conf"), &text)
    }

    /// nginx with a host and a location for each of many routes.
    pub(super) fn write_nginx_of(&self, routes: usize) -> anyhow::Result<PathBuf> {
        let (plain, origin, fields) = (self.http, self.origin, FIELDS.replace("SET", "proxy_set_header"));
        let server = |number| {
            format!(
                "  server {{ listen {plain}; server_name {};
    location / {{ {fields} proxy_set_header Connection \"\"; proxy_http_version 1.1; proxy_pass http://app; }} }}\n",
                host_of(number)
            )
        };
        let servers: String = (0..routes).map(server).collect();
        let text = format!(
            "{}  access_log off; server_names_hash_max_size 65536; server_names_hash_bucket_size 128;
  upstream app {{ server {origin}; keepalive 512; }}\n{servers}}}\n",
            self.nginx_head("nginx")
        );
        write(self.folder.join("nginx.conf"), &text)
    }

    /// HAProxy as the proxy, without TLS.
    pub(super) fn write_haproxy(&self) -> anyhow::Result<PathBuf> {
        let (plain, tls, origin) = (self.http, self.https, self.origin);
        let fields: String = [
            ("X-Real-IP", "%[src]"),
            ("X-Forwarded-For", "%[src]"),
            ("X-Forwarded-Host", "%[req.hdr(host)]"),
            ("X-Forwarded-Port", "%[dst_port]"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Scheme", "http"),
            ("X-Scheme", "http"),
        ]
        .map(|(name, value)| format!("  http-request set-header {name} {value}\n"))
        .concat();
        let text = format!(
            "global\n  nbthread 1\n  maxconn 8192\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  \
             timeout server 300s\n  timeout http-keep-alive 300s\n  option http-keep-alive\n  http-reuse always\nfrontend all\n  \
             bind {plain}\n  bind {tls}\n  unique-id-format %[uuid()]\n  unique-id-header X-Request-ID\n{fields}  \
             default_backend app\nbackend app\n  server app {origin}\n"
        );
        write(self.folder.join("haproxy.cfg"), &text)
    }

    fn nginx_head(&self, name: &str) -> String {
        NGINX.replace("FOLDER", &self.folder.display().to_string()).replace("NAME", name)
    }

    /// The manifests for Fairway, in a folder of their own.
    pub(super) fn write_manifests(&self, objects: &str, settings: &str) -> anyhow::Result<PathBuf> {
        let service = |name| {
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: bench}}\nspec: {{ports: [{{port: 80}}]}}\n"
            )
        };
        let services: String = ["app", "other", "auth"].map(service).concat();
        let text = format!(
            "{services}{}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: bench}}\n\
             data: {{ssl-redirect: \"false\", keep-alive-requests: \"100000000\", {settings}}}\n{objects}",
            self.tls.secret("bench")?
        );
        let folder = self.folder.join("manifests");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        write(folder.join("bench.yaml"), &text)?;
        Ok(folder)
    }

    /// Envoy as the proxy, for calls of gRPC.
    pub(super) fn write_envoy(&self, scenario: &Scenario) -> anyhow::Result<PathBuf> {
        let folder = self.folder.display();
        let listener = |port: u16, tls: &str| {
            format!(
                r#"
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: connections
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: AUTO
          use_remote_address: true
          route_config: {{virtual_hosts: [{{name: app, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: app, timeout: 0s}}}}]}}]}}
          http_filters: [{{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]{tls}"#
            )
        };
        let tls = format!(
            r#"
      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context: {{alpn_protocols: [h2], tls_certificates: [{{certificate_chain: {{filename: {folder}/tls.crt}}, private_key: {{filename: {folder}/tls.key}}}}]}}"#
        );
        let port = self.address(scenario.origin).port();
        let text = format!(
            r#"static_resources:
  listeners:{}{}
  clusters:
  - name: app
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment: {{cluster_name: app, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}
    circuit_breakers: {{thresholds: [{{max_connections: 8192, max_requests: 100000, max_pending_requests: 100000}}]}}
"#,
            listener(self.http.port(), ""),
            listener(self.https.port(), &tls)
        );
        write(self.folder.join("envoy.yaml"), &text)
    }
}
