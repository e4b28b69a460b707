//! Counts the instructions that one request costs in the binary of the image, from its first byte to the last byte of
//! the response.
//!
//! The binary runs under callgrind with one worker, in front of an origin that responds at once. A short and a long run
//! differ only in the number of requests, so the difference excludes the cost of starting and stopping. Counts are nearly the
//! same on a busy machine, where more ticks of the clock fall into a run; they change with the compiler and with the dependencies.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, ensure};

use super::client::{Asked, Client, Version};
use crate::serving::free_address;

/// Requests of the short and of the long run, all on one connection, which takes 1,000 by default (`keep-alive-requests`).
const SHORT: usize = 200;
const LONG: usize = 900;
/// The factor by which a cost may grow before the benchmark fails: compilers and processors differ by less.
const TOLERANCE: f64 = 1.03;
/// A kind of request.
struct RequestKind {
    name: &'static str,
    asked: Asked,
    /// The number of instructions it may need.
    allowed: f64,
}

const KINDS: &[RequestKind] = &[
    RequestKind {
        name: "forward",
        asked: Asked { version: Version::Http1, path: "/plain/a?b=c", status: 200 },
        allowed: 20_100.0,
    },
    RequestKind {
        name: "rewrite",
        asked: Asked { version: Version::Http1, path: "/rewritten/a/b?c=d", status: 200 },
        allowed: 21_200.0,
    },
    RequestKind {
        name: "redirect",
        asked: Asked { version: Version::Http1, path: "/moved", status: 301 },
        allowed: 11_400.0,
    },
    RequestKind {
        name: "forward over HTTP/2",
        asked: Asked { version: Version::Http2, path: "/plain/a?b=c", status: 200 },
        allowed: 48_600.0,
    },
];

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: app, namespace: bench}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: plain, namespace: bench}
spec:
  rules:
  - host: bench.example.com
    http:
      paths:
      - {path: /plain, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: rewritten
  namespace: bench
  annotations: {nginx.ingress.kubernetes.io/rewrite-target: /new/$1}
spec:
  rules:
  - host: bench.example.com
    http:
      paths:
      - {path: /rewritten/(.*), pathType: ImplementationSpecific, backend: {service: {name: app, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: moved
  namespace: bench
  annotations: {nginx.ingress.kubernetes.io/permanent-redirect: https://www.example.com/}
spec:
  rules:
  - host: bench.example.com
    http:
      paths:
      - {path: /moved, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}
"#;

/// Counts every kind with `binary`. Returns the lines to print and the complaints.
pub(crate) fn run(binary: &Path, folder: &Path) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::write(folder.join("bench.yaml"), MANIFESTS)?;
    // Valgrind does not execute files with capabilities, which the image's binary has; a copy has none.
    let copy = folder.join("fairway");
    let _ = fs::remove_file(&copy);
    fs::copy(binary, &copy).with_context(|| format!("copying {}", binary.display()))?;
    let binary = &*copy;
    let origin = origin()?;
    let mut lines = vec![format!("{:<28}{:>14}{:>14}", "instructions per request", "counted", "allowed")];
    let mut complaints = Vec::new();
    for kind in KINDS {
        let (short, long) = (count(binary, folder, origin, kind, SHORT)?, count(binary, folder, origin, kind, LONG)?);
        let each = (long - short) / (LONG - SHORT) as f64;
        let allowed = kind.allowed * TOLERANCE;
        lines.push(format!("{:<28}{each:>14.0}{allowed:>14.0}", kind.name));
        if each > allowed {
            complaints.push(format!(
                "a request of the kind {} costs {each:.0} instructions, more than {allowed:.0}",
                kind.name
            ));
        }
    }
    Ok((lines, complaints))
}

/// The instructions of a whole run with this many requests.
fn count(binary: &Path, folder: &Path, origin: SocketAddr, kind: &RequestKind, requests: usize) -> anyhow::Result<f64> {
    let (http, https) = (free_address()?, free_address()?);
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(binary).arg("dev").arg(folder);
    command.args(["--http", &http.to_string(), "--https", &https.to_string(), "--workers", "1", "--access-log", "off"]);
    command.args(["--backend", &format!("bench/app:80={origin}")]);
    let mut running =
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("valgrind")?);
    let mut stderr = running.0.stderr.take().context("valgrind has no standard error")?;
    // Keep reading: a full pipe would stop the program.
    let log = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let mut client = Client::connect(http, kind.asked)?;
    for _ in 0..requests {
        client.ask()?;
    }
    drop(client);
    running.end()?;
    let log = log.join().expect("reading does not panic").context("reading the output of valgrind")?;
    let collected = log.lines().find_map(|line| line.split_once("Collected : "));
    let collected = collected.with_context(|| format!("callgrind printed no count:\n{log}"))?.1;
    collected.trim().parse().with_context(|| format!("callgrind counted {collected}"))
}

/// A program that is stopped when it is no longer needed.
struct Running(Child);

impl Running {
    /// Stops it gracefully, since callgrind prints its count at the end.
    fn end(&mut self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().context("kill")?;
        ensure!(status.success(), "the program ended by itself");
        self.0.wait().context("waiting for valgrind")?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An origin that answers every request with the same hundred bytes.
fn origin() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("an origin")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_all(stream));
        }
    });
    Ok(address)
}

fn answer_all(mut stream: TcpStream) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n{:100}", "hello");
    let (mut buffer, mut filled) = (vec![0; 16 << 10], 0);
    let _ = stream.set_nodelay(true);
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        // There is one request at a time, and none has a body.
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_about_performance_says_what_a_request_may_cost() {
        let page = include_str!("../../../docs/performance.md");
        for RequestKind { name, allowed, .. } in KINDS {
            let count = *allowed as u64;
            let cell = format!("| {},{:03} |", count / 1000, count % 1000);
            assert!(page.contains(&cell), "{name}: {cell}");
        }
    }
}
