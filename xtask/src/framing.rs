//! `cargo xtask framing`: sends generated requests through Fairway to four HTTP parsers. All of them must see the same requests with the
//! same bodies, as many as Fairway's log shows as forwarded; anything else was refused.

mod generate;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use self::generate::{Case, Generator};
use crate::outcome::Outcome;
use crate::serving::{Program, Serving, free_address};
use crate::shell;
use crate::workspace::Workspace;

/// The backends, and the host of each.
const BACKENDS: [&str; 4] = ["nginx", "node", "go", "python"];

/// How long a client waits for an answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The seed of the generator, so that runs are reproducible.
const SEED: u64 = 0x5eed;

/// Five hundred requests, for CI.
pub(crate) fn smoke(workspace: &Workspace) -> anyhow::Result<Outcome> {
    run(workspace, 500)
}

/// Sends this many requests to each backend.
pub(crate) fn run(workspace: &Workspace, requests: usize) -> anyhow::Result<Outcome> {
    let folder = workspace.target_folder()?.join("framing");
    let manifests = folder.join("manifests");
    fs::create_dir_all(&manifests).with_context(|| format!("making {}", manifests.display()))?;
    fs::write(manifests.join("web.yaml"), self::manifests())?;

    let sources = workspace.root.join("xtask/framing");
    let go = folder.join("go-server");
    let mut build = workspace.command("go");
    build.args(["build", "-o"]).arg(&go).arg(sources.join("server.go"));
    let built = shell::run(&workspace.console, &mut build, |_| false)?;
    if !built.success {
        return Ok(Outcome { failure: Some(built.output), ..Outcome::default() });
    }
    let (_nginx, nginx) = nginx(&folder, &go)?;
    let backends = [
        nginx,
        Backend::start(Command::new("node").arg(sources.join("server.js")))?,
        Backend::start(&mut Command::new(&go))?,
        Backend::start(Command::new("python3").arg(sources.join("server.py")))?,
    ];
    let options: Vec<_> = BACKENDS
        .iter()
        .zip(&backends)
        .map(|(name, backend)| format!("--backend=default/{name}:80={}", backend.address))
        // One worker keeps the lines of its log in order.
        .chain(["--access-log=log:$host|$upstream_status|$request_method", "--workers=1"].map(str::to_owned))
        .collect();
    let mut fairway = match Serving::start(workspace, &manifests, &options)? {
        Ok(fairway) => fairway,
        Err(outcome) => return Ok(outcome),
    };

    let mut generator = Generator::new(SEED);
    for number in 0..requests {
        let case = generator.case(number);
        for name in BACKENDS {
            exchange(fairway.http, &case, name).with_context(|| format!("request {number} to {name}"))?;
        }
        if number % 100 == 0 {
            workspace.console.progress(&format!("{number} of {requests} requests"));
        }
    }
    ensure!(fairway.is_running()?, "fairway ended");

    let mut complaints = Vec::new();
    let mut forwarded = 0;
    let logged = |name: &str| -> Vec<String> {
        let line = format!("log:{name}.example|200|");
        fairway.lines().iter().filter_map(|own| Some(own.strip_prefix(&line)?.to_owned())).collect()
    };
    let expected = backends[0].lines();
    for (name, backend) in BACKENDS.iter().zip(&backends) {
        // The log is written in batches.
        let begin = Instant::now();
        while logged(name).len() < backend.lines().len() && begin.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        let (seen, logged) = (backend.lines(), logged(name));
        forwarded = seen.len();
        let methods: Vec<_> = seen.iter().map(|line| line.split('\t').next().unwrap_or_default()).collect();
        if methods != logged {
            let at = methods.iter().zip(&logged).take_while(|(seen, logged)| seen == logged).count();
            complaints.push(format!(
                "{name} has seen {} requests, and the log has {}; the first difference is behind {at}: {:?}",
                seen.len(),
                logged.len(),
                seen.get(at)
            ));
        }
        // A backend may refuse what another one accepts, but not read it differently. A changed target may equal that of another request.
        let known: HashSet<_> = expected.iter().collect();
        for line in seen.iter().filter(|line| !known.contains(line)) {
            let of_target = |other: &&String| other.split('\t').nth(1) == line.split('\t').nth(1);
            if let Some(other) = expected.iter().find(of_target) {
                complaints.push(format!("{name} has seen {line:?}, {} {other:?}", BACKENDS[0]));
            }
        }
    }
    ensure!(forwarded * 10 > requests, "only {forwarded} of {requests} requests were forwarded: nothing is tested");
    Ok(Outcome::from_complaints(
        format!("{requests} requests to {}, {forwarded} of them forwarded", BACKENDS.join(", ")),
        &complaints,
    ))
}

fn manifests() -> String {
    let of = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{ports: [{{port: 80}}]}}\n\
             ---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
             ingressClassName: nginx\n  rules:\n  - host: {name}.example\n    http:\n      paths:\n      \
             - {{path: /, pathType: Prefix, backend: {{service: {{name: {name}, port: {{number: 80}}}}}}}}\n"
        )
    };
    BACKENDS.map(of).concat()
}

/// Sends a request and reads whatever comes back.
fn exchange(proxy: SocketAddr, case: &Case, backend: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // The proxy may have closed the connection before.
    let _ = stream.write_all(&case.bytes(backend));
    if case.is_http2() {
        return read_frames(&mut stream);
    }
    let _ = stream.shutdown(Shutdown::Write);
    match stream.read_to_end(&mut Vec::new()) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
            Err(error).context("waiting for an answer")
        }
        _ => Ok(()),
    }
}

/// Reads frames up to the one that ends the stream or the connection.
fn read_frames(stream: &mut TcpStream) -> anyhow::Result<()> {
    loop {
        let mut header = [0; 9];
        if stream.read_exact(&mut header).is_err() {
            return Ok(());
        }
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).is_err() {
            return Ok(());
        }
        let ends = matches!(header[3], 0 | 1) && header[4] & 1 != 0;
        if ends || matches!(header[3], 3 | 7) {
            return Ok(());
        }
    }
}

/// A backend that prints its address, then a line for each request.
struct Backend {
    _program: Program,
    address: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut program = Program::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        // The bytes of a target are not always text.
        let mut lines = BufReader::new(program.stdout()?).split(b'\n').map_while(Result::ok);
        let address = lines.next().context("a backend ended before it listened")?;
        let address = String::from_utf8_lossy(&address).trim().parse()?;
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        thread::spawn(move || {
            for line in lines {
                keep.lock().expect("no panic").push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Ok(Self { _program: program, address, lines: kept })
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }
}

/// Starts an nginx and its own backend, which sees how nginx has read the requests.
fn nginx(folder: &Path, go: &Path) -> anyhow::Result<(Program, Backend)> {
    let mut behind = Backend::start(&mut Command::new(go))?;
    let address = free_address()?;
    let folder = folder.join("nginx");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let at = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log; events {{}}\n\
         http {{\n  access_log off;\n  client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n  \
         fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n  \
         keepalive_requests 1000000; merge_slashes off; underscores_in_headers on;\n  \
         server {{ listen {address}; location / {{ proxy_pass http://{}; proxy_http_version 1.1; }} }}\n}}\n",
        behind.address
    );
    fs::write(folder.join("nginx.conf"), config)?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(folder.join("nginx.conf")).stdin(Stdio::null());
    let program =
        Program::start_at(&mut command, address, PATIENCE).with_context(|| format!("nginx; see {at}/error.log"))?;
    behind.address = address;
    Ok((program, behind))
}
