//! How long it takes until an edit of one host is live while a file with very many hosts is loaded.
//!
//!     cargo build --release && cargo run --release --example large_change -- target/release/fairway 100000
//!
//! On a machine that does anything else, run it with `nice -n -19`, or the other programs are measured too.
//!
//! It runs `fairway dev` on a folder, saves a file with that many Ingresses, and from then on edits another file repeatedly,
//! measuring the time from the save to the first response on the new path.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Time from the large file to the first edit: files saved at the same moment are read as one change.
const AFTER: Duration = Duration::from_millis(150);

/// Killed when dropped.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> std::io::Result<()> {
    let mut words = std::env::args().skip(1);
    let binary = words.next().unwrap_or_else(|| "target/release/fairway".to_owned());
    let hosts: usize = words.next().and_then(|word| word.parse().ok()).unwrap_or(100_000);
    let folder = std::env::temp_dir().join(format!("fairway-large-change-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let result = measure(&binary, hosts, &folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn measure(binary: &str, hosts: usize, folder: &Path) -> std::io::Result<()> {
    let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    save(folder, "service", "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}")?;
    save(folder, "other", &ingress("other", "other.example", "/0"))?;
    let mut command = Command::new(binary);
    command.arg("dev").arg(folder).args(["--https", "127.0.0.1:0", "--access-log", "off", "--http"]);
    let _dev = Dev(command.arg(http.to_string()).stdout(Stdio::null()).spawn()?);
    while !is_served(http, "other.example", "/0") {
        sleep(Duration::from_millis(10));
    }
    let many: String = (0..hosts).map(|at| ingress(&format!("h{at}"), &format!("h{at}.example"), "/")).collect();
    let begin = Instant::now();
    save(folder, "many", &many)?;
    sleep(AFTER);
    let mut took = Vec::new();
    // Parts go live in the order of the file; this host is in the last one.
    let last = format!("h{}.example", hosts.saturating_sub(1));
    while !is_served(http, &last, "/") {
        let path = format!("/{}", took.len() + 1);
        let edited = Instant::now();
        save(folder, "other", &ingress("other", "other.example", &path))?;
        while !is_served(http, "other.example", &path) {
            sleep(Duration::from_millis(1));
        }
        took.push(edited.elapsed());
        sleep(Duration::from_millis(20));
    }
    let loaded = begin.elapsed();
    let slowest = took.iter().enumerate().max_by_key(|(_, took)| **took).map_or(0, |(at, _)| at + 1);
    took.sort_unstable();
    let at = |share: usize| {
        took.get((took.len() * share / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    println!(
        "{hosts} hosts live after {loaded:.1?}; {} edits meanwhile: median {:.1?}, p90 {:.1?}, p99 {:.1?}, longest {:.1?}, number {slowest}",
        took.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
    Ok(())
}

fn ingress(name: &str, host: &str, path: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec:\n  ingressClassName: nginx\n  rules:\n  \
         - host: {host}\n    http: {{paths: [{{path: {path}, pathType: Exact, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}\n"
    )
}

/// Replaces a file as editors do.
fn save(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let draft = folder.join(format!(".{name}"));
    fs::write(&draft, text)?;
    fs::rename(draft, folder.join(format!("{name}.yaml")))
}

fn is_served(address: SocketAddr, host: &str, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
