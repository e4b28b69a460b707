//! A real nginx (Debian's package) with the surrounding configuration that ingress-nginx's template writes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fairway_testkit::{DEADLINE, Leaf};

/// Debian's path; users' search paths lack sbin.
const PROGRAM: &str = "/usr/sbin/nginx";

/// A running nginx. Ends when dropped.
pub(crate) struct Nginx {
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
}

impl Nginx {
    /// Starts nginx with these `server` blocks, in which `LISTEN` is replaced by the ports and the certificate, and waits until it listens.
    /// `upstream_balancer` leads to the backend.
    pub(crate) fn start(folder: &Path, servers: &str, backend: SocketAddr, leaf: &Leaf) -> Self {
        assert!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: `cargo xtask needs` installs it");
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("the file can be written");
        write("tls.crt", &leaf.certificate_pem());
        write("tls.key", &leaf.key_pem());
        // Another process may take a port between choosing and using it.
        for _ in 0..10 {
            let (http, https) = (free(), free());
            write("nginx.conf", &configuration(folder, servers, backend, [http, https]));
            let mut child = Command::new(PROGRAM)
                .args(["-p".as_ref(), folder.as_os_str(), "-c".as_ref(), folder.join("nginx.conf").as_os_str()])
                .args(["-g", "daemon off; master_process off;"])
                .stderr(Stdio::null())
                .spawn()
                .expect("nginx runs");
            if listens(&mut child, https) {
                return Self { child, http, https };
            }
        }
        panic!("nginx does not start: {}", fs::read_to_string(folder.join("error.log")).unwrap_or_default());
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address whose port is free at the moment.
fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("its address")
}

/// Waits until nginx listens; false if it has ended.
fn listens(child: &mut Child, address: SocketAddr) -> bool {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if child.try_wait().expect("a child of ours").is_some() {
            return false;
        }
        if TcpStream::connect(address).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    panic!("nginx neither listens nor ends");
}

fn configuration(folder: &Path, servers: &str, backend: SocketAddr, [http, https]: [SocketAddr; 2]) -> String {
    let at = folder.display();
    let certificate = format!("ssl_certificate {at}/tls.crt; ssl_certificate_key {at}/tls.key;");
    let servers = servers.replace("LISTEN", &format!("listen {http}; listen {https} ssl; {certificate}"));
    let default = format!("listen {http} default_server; listen {https} ssl default_server; {certificate}");
    format!(
        r#"
worker_processes 1;
pid {at}/nginx.pid;
error_log {at}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    server_tokens off;
    port_in_redirect off;
    client_body_temp_path {at}/body;
    proxy_temp_path {at}/proxy;
    fastcgi_temp_path {at}/fastcgi;
    uwsgi_temp_path {at}/uwsgi;
    scgi_temp_path {at}/scgi;
    default_type text/html;
    proxy_http_version 1.1;
    keepalive_timeout 75s;
    client_header_buffer_size 1k;
    large_client_header_buffers 4 8k;
    proxy_set_header Connection "";
    # ingress-nginx cuts the slash at the end of the target of a redirect to https.
    map $request_uri $target_uri {{ default $request_uri; "~^(?<cut>.*)/$" $cut; }}
    # hsts, on by default. It takes effect over TLS only; a field without a value is not sent.
    map $scheme $hsts {{ default ""; https "max-age=31536000; includeSubDomains"; }}
    upstream upstream_balancer {{ server {backend}; keepalive 8; }}
    # The server for hosts that no other has.
    server {{ server_name _; {default} location = /healthz {{ return 200; }} location / {{ add_header Strict-Transport-Security $hsts always; return 404; }} }}
    {servers}
}}
"#
    )
}
