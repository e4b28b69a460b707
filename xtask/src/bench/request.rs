//! Counts the instructions that one request costs in the image's binary, from its first byte to the last byte of the response.
//!
//! The binary runs under callgrind with one worker, in front of an origin that responds at once. Its counters are read before and after the
//! counted requests, for each thread, which excludes starting, stopping and other threads. Runs of one binary differ by less than a
//! thousandth, even on a busy machine; counts change with the compiler and with the dependencies.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, ensure};

use super::client::{Asked, Client, Version};
use crate::console::Console;
use crate::serving::{Program, free_address};

/// Requests before the counted ones, all on one connection, which allows 1,000 by default (`keep-alive-requests`).
const WARM_UP: usize = 300;
/// Counted requests.
const COUNTED: usize = 600;
/// The factor by which a cost may grow before the benchmark fails: compilers and processors differ by less.
const TOLERANCE: f64 = 1.03;
/// A kind of request.
struct RequestKind {
    name: &'static str,
    asked: Asked,
    /// The number of instructions that it may need.
    allowed: f64,
}

const KINDS: &[RequestKind] = &[
    RequestKind {
        name: "forward",
        asked: Asked { version: Version::Http1, path: "/plain/a?b=c", status: 200 },
        allowed: 14_900.0,
    },
    RequestKind {
        name: "rewrite",
        asked: Asked { version: Version::Http1, path: "/rewritten/a/b?c=d", status: 200 },
        allowed: 17_050.0,
    },
    RequestKind {
        name: "redirect",
        asked: Asked { version: Version::Http1, path: "/moved", status: 301 },
        allowed: 9_050.0,
    },
    RequestKind {
        name: "forward over HTTP/2",
        asked: Asked { version: Version::Http2, path: "/plain/a?b=c", status: 200 },
        allowed: 36_050.0,
    },
];

const INPUT: &str = "bench.yaml";

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

/// Counts every kind with `binary`, and prints the counts. Returns the complaints.
pub(crate) fn run(console: &Console, binary: &Path, folder: &Path) -> anyhow::Result<Vec<String>> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::write(folder.join(INPUT), MANIFESTS)?;
    // Valgrind does not execute files with capabilities, which the image's binary has; a copy has none.
    let copy = folder.join("fairway");
    let _ = fs::remove_file(&copy);
    fs::copy(binary, &copy).with_context(|| format!("copying {}", binary.display()))?;
    let binary = &*copy;
    let origin = origin()?;
    console.line(&format!("{:<28}{:>14}{:>14}", "instructions per request", "counted", "allowed"));
    let mut complaints = Vec::new();
    for kind in KINDS {
        let each = count(binary, folder, origin, kind)? as f64 / COUNTED as f64;
        let allowed = kind.allowed * TOLERANCE;
        console.line(&format!("{:<28}{each:>14.0}{allowed:>14.0}", kind.name));
        if each > allowed {
            complaints.push(format!(
                "a request of the kind {} costs {each:.0} instructions, more than {allowed:.0}",
                kind.name
            ));
        }
    }
    Ok(complaints)
}

/// The instructions of the worker for the counted requests.
fn count(binary: &Path, folder: &Path, origin: SocketAddr, kind: &RequestKind) -> anyhow::Result<u64> {
    let (http, https) = (free_address()?, free_address()?);
    let counters = Counters::new(folder)?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--separate-threads=yes"]).arg(counters.option());
    command.arg(binary).arg("dev").arg(folder.join(INPUT));
    command.args(["--http", &http.to_string(), "--https", &https.to_string(), "--workers", "1", "--access-log", "off"]);
    command.args(["--backend", &format!("bench/app:80={origin}")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Program::start(&mut command)?;
    let mut client = Client::connect(http, kind.asked)?;
    for _ in 0..WARM_UP {
        client.ask()?;
    }
    read_out(&running)?;
    for _ in 0..COUNTED {
        client.ask()?;
    }
    read_out(&running)?;
    running.end()?;
    counters.busiest_thread(2)
}

/// The files to which callgrind writes its counters, one for each thread and reading; each reading resets them.
struct Counters(PathBuf);

impl Counters {
    /// Removes the files of another run.
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.join("counters");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn option(&self) -> String {
        format!("--callgrind-out-file={}", self.0.join("out").display())
    }

    /// The count of the busiest thread, which is the worker, at this reading; readings count from 1.
    fn busiest_thread(&self, reading: u32) -> anyhow::Result<u64> {
        let prefix = format!("out.{reading}-");
        let mut most = None;
        for entry in fs::read_dir(&self.0).with_context(|| format!("reading {}", self.0.display()))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let text = fs::read_to_string(entry.path())?;
                most = most.max(total(&text));
            }
        }
        most.with_context(|| format!("callgrind wrote no counts into {}/{prefix}*", self.0.display()))
    }
}

/// The total in a callgrind file.
fn total(text: &str) -> Option<u64> {
    text.lines().rev().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}

/// Makes callgrind write the counters of a program.
fn read_out(running: &Program) -> anyhow::Result<()> {
    let told = Command::new("vgdb").arg(format!("--pid={}", running.id())).arg("dump").output().context("vgdb")?;
    let trouble = String::from_utf8_lossy(&told.stderr);
    ensure!(told.status.success(), "vgdb can't reach the program under valgrind:\n{trouble}");
    Ok(())
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
