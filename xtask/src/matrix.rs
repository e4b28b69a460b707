//! `cargo xtask matrix`: various clients send requests through Fairway to various servers. Each pair downloads and uploads a megabyte, has
//! a response that is cut off in the middle, and one during which the server announces the end of its connection. With each client, Fairway
//! itself also cuts off a response, and then stops during one. Prints a table.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::outcome::Outcome;
use crate::serving::{Program, Serving, free_address};
use crate::workspace::Workspace;
use crate::{cargo, shell, tools};

/// The cases for each pair, which are also the paths.
const CASES: [&str; 4] = ["down", "up", "reset", "goaway"];

/// Cases caused by Fairway for each client: it cuts off a response because the server falls silent, and it stops in the middle of one.
const OURS: [&str; 2] = ["cut", "drain"];

/// Clients that take the announced end of a connection for the end of the current response, contrary to RFC 9113 6.8. The table shows that,
/// but it is not a failure of Fairway.
const TAKE_IT_FOR_THE_END: [&str; 2] = ["httpx h2", "java h2"];

/// The server for [`OURS`].
const OURS_FROM: &str = "go";

/// The servers, and the protocol that Fairway uses with them.
const SERVERS: [(&str, Protocol); 8] = [
    ("node", Protocol::Http1),
    ("go", Protocol::Http1),
    ("nginx", Protocol::Http1),
    ("hyper", Protocol::Http1),
    ("node-h2", Protocol::Http2),
    ("go-h2", Protocol::Http2),
    ("hyper-h2", Protocol::Http2),
    ("grpc-go", Protocol::Grpc),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    Http1,
    Http2,
    /// Over HTTP/2. Such a server accepts only gRPC messages.
    Grpc,
}

/// Bytes of a body.
const BODY: usize = 1_000_000;

/// The first bytes of an uploaded body, which make it one gRPC message.
const PREFIX: [u8; 5] = [0, 0, 0x0f, 0x42, 0x3b];

/// Seconds that a client may take for all cases, on a busy machine.
const PATIENCE: &str = "120";

/// The longest that Fairway takes to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Runs all pairs. `python` is an interpreter that has httpx with HTTP/2.
pub(crate) fn run(workspace: &Workspace, python: &str) -> anyhow::Result<Outcome> {
    let folder = workspace.target_folder()?.join("matrix");
    let manifests = folder.join("manifests");
    fs::create_dir_all(&manifests).with_context(|| format!("making {}", manifests.display()))?;
    fs::write(manifests.join("matrix.yaml"), self::manifests())?;
    let mut body = vec![b'x'; BODY];
    fs::write(folder.join("body"), &body)?;
    body[..PREFIX.len()].copy_from_slice(&PREFIX);
    fs::write(folder.join("upload"), &body)?;
    // An empty gRPC message.
    fs::write(folder.join("empty"), [0; 5])?;
    let sources = workspace.root.join("xtask/matrix");
    let (server, client) = (folder.join("server"), folder.join("client"));
    for (source, program) in [("server.go", &server), ("client.go", &client)] {
        let mut build = workspace.command("go");
        build.args(["build", "-o"]).arg(program).arg(sources.join(source));
        let built = shell::run(&workspace.console, &mut build, |_| false)?;
        if !built.success {
            return Ok(Outcome { failure: Some(built.output), ..Outcome::default() });
        }
    }
    let built = cargo::build(workspace, &["--example", "hyper_server"])?;
    if built.failure.is_some() {
        return Ok(built);
    }
    let built = tools::build_grpc(workspace)?;
    if built.failure.is_some() {
        return Ok(built);
    }
    let hyper = workspace.target_folder()?.join("debug/examples/hyper_server");
    let grpc = workspace.root.join("target/tools/bin/grpc-matrix");

    let script = sources.join("server.js");
    let node = |version: &str| Listening::start(Command::new("node").arg(&script).arg(version));
    let (node, node_h2) = (node("h1")?, node("h2c")?);
    let mut go = Listening::start(&mut Command::new(&server))?;
    let hyper = Listening::start(&mut Command::new(hyper))?;
    let grpc = Listening::start(&mut Command::new(grpc))?;
    let (_nginx, nginx) = nginx(&folder, go.address)?;
    let addresses = SERVERS.map(|(name, _)| match name {
        "node" => node.address,
        "node-h2" => node_h2.address,
        "nginx" => nginx,
        "hyper" | "hyper-h2" => hyper.address,
        "grpc-go" => grpc.address,
        _ => go.address,
    });
    let options: Vec<_> = SERVERS
        .iter()
        .zip(addresses)
        .map(|((name, _), address)| format!("--backend=default/{name}:80={address}"))
        .chain(["--configmap=default/settings".to_owned()])
        .collect();
    let mut fairway = match Serving::start(workspace, &manifests, &options)? {
        Ok(fairway) => fairway,
        Err(outcome) => return Ok(outcome),
    };

    let clients = Clients { folder: &folder, sources: &sources, client: &client, python };
    let has_httpx = shell::succeeds(Command::new(python).args(["-c", "import httpx, h2"]));
    let mut complaints = Vec::new();
    let mut pairs = 0;
    let line = |name: &str, columns: &[String]| {
        let columns: Vec<_> = columns.iter().map(|text| format!("{text:<23}")).collect();
        workspace.console.line(format!("  {name:<12}{}", columns.concat()).trim_end());
    };
    let columns: Vec<_> = SERVERS.iter().map(|(name, _)| *name).chain(["Fairway itself"]).map(str::to_owned).collect();
    line("", &columns);
    for name in CLIENTS {
        if name.starts_with("httpx") && !has_httpx {
            workspace
                .console
                .line(&format!("  {name:<12}{python} has no httpx with HTTP/2: pip install 'httpx[http2]'"));
            continue;
        }
        let mut row = Vec::new();
        let mut note = |server: &str, cases: &[&str], results: &str| {
            let words: Vec<_> = cases
                .iter()
                .map(|case| if is_ok(results, case) { (*case).to_owned() } else { case.to_uppercase() })
                .collect();
            let is_known = |case: &str| case == "drain" && TAKE_IT_FOR_THE_END.contains(&name);
            for case in cases.iter().filter(|case| !is_ok(results, case) && !is_known(case)) {
                complaints.push(format!("{name} to {server}, {case}:\n{results}"));
            }
            row.push(words.join(" "));
        };
        for (server, protocol) in SERVERS {
            let url = format!("https://{}/{server}/", fairway.https);
            note(server, &CASES, &clients.run(workspace, name, &url, protocol, &CASES)?);
            pairs += 1;
        }
        let url = format!("https://{}/{OURS_FROM}/", fairway.https);
        let mut results = clients.run(workspace, name, &url, Protocol::Http1, &["cut"])?;
        results +=
            &drain(workspace, &clients, name, &mut go, || Serving::start_built(workspace, &manifests, &options))?;
        note("Fairway itself", &OURS, &results);
        line(name, &row);
    }
    ensure!(fairway.is_running()?, "fairway ended");
    Ok(Outcome::from_complaints(format!("{pairs} pairs, {} cases each", CASES.len()), &complaints))
}

/// Starts a Fairway, and asks it to stop as soon as the client has half of a response.
fn drain(
    workspace: &Workspace,
    clients: &Clients<'_>,
    name: &str,
    server: &mut Listening,
    start: impl FnOnce() -> anyhow::Result<Serving>,
) -> anyhow::Result<String> {
    let mut fairway = start()?;
    let url = format!("https://{}/{OURS_FROM}/", fairway.https);
    // Discards lines from previous cases.
    while server.lines.try_recv().is_ok() {}
    let id = fairway.id().to_string();
    let (lines, id) = (&mut server.lines, &id);
    let results = thread::scope(|scope| {
        scope.spawn(move || {
            if lines.recv_timeout(DRAIN).is_ok() {
                shell::succeeds(Command::new("kill").args(["-TERM", id]));
            }
        });
        clients.run(workspace, name, &url, Protocol::Http1, &["drain"])
    })?;
    let begin = Instant::now();
    while fairway.is_running()? {
        if begin.elapsed() > DRAIN {
            return Ok(format!("drain bad: Fairway has not ended after {} s\n", DRAIN.as_secs()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(results)
}

/// The clients, each with the HTTP version that it uses with Fairway over TLS.
const CLIENTS: [&str; 12] = [
    "curl h1",
    "curl h2",
    "h2load h2",
    "go h1",
    "go h2",
    "node h2",
    "httpx h1",
    "httpx h2",
    "java h1",
    "java h2",
    "chromium h1",
    "chromium h2",
];

struct Clients<'a> {
    folder: &'a Path,
    sources: &'a Path,
    client: &'a Path,
    python: &'a str,
}

impl Clients<'_> {
    /// The client's output: a line for each case, with `ok` on success.
    fn run(
        &self,
        workspace: &Workspace,
        name: &str,
        url: &str,
        protocol: Protocol,
        cases: &[&str],
    ) -> anyhow::Result<String> {
        let (make, version) = name.split_once(' ').context("a name and a version")?;
        let within = |program: PathBuf| {
            let mut command = workspace.command("timeout");
            command.arg(PATIENCE).arg(program);
            command
        };
        let mut command = match make {
            "curl" => return cases.iter().map(|case| self.curl(workspace, version, url, protocol, case)).collect(),
            "h2load" => return cases.iter().map(|case| self.h2load(workspace, url, protocol, case)).collect(),
            "go" => within(self.client.to_owned()),
            "node" | "chromium" => within("node".into()),
            "httpx" => within(self.python.into()),
            _ => within("java".into()),
        };
        match make {
            "node" => drop(command.arg(self.sources.join("client.js"))),
            "chromium" => drop(command.arg(self.sources.join("chromium.js"))),
            "httpx" => drop(command.arg(self.sources.join("client.py"))),
            "java" => {
                command.arg("-Djdk.internal.httpclient.disableHostnameVerification=true");
                command.arg(self.sources.join("Client.java"));
            }
            _ => {}
        }
        command.args([url, version, protocol.content_type()]).args(cases);
        Ok(shell::run(&workspace.console, &mut command, |_| false)?.output)
    }

    /// The body to send for a case, if any.
    fn sent(&self, protocol: Protocol, case: &str) -> Option<PathBuf> {
        match case {
            "up" => Some(self.folder.join("upload")),
            _ => (protocol == Protocol::Grpc).then(|| self.folder.join("empty")),
        }
    }

    fn curl(
        &self,
        workspace: &Workspace,
        version: &str,
        url: &str,
        protocol: Protocol,
        case: &str,
    ) -> anyhow::Result<String> {
        let received = self.folder.join("received");
        fs::write(&received, "")?;
        let mut command = workspace.command("curl");
        command.args(["-sS", "-k", "-m", PATIENCE, if version == "h1" { "--http1.1" } else { "--http2" }]);
        command.args(["-w", "%{http_code}\n"]).arg("-o").arg(&received);
        if let Some(sent) = self.sent(protocol, case) {
            command.args(["-H", &format!("content-type: {}", protocol.content_type())]);
            command.arg("--data-binary").arg(format!("@{}", sent.display()));
        }
        let finished = shell::run(&workspace.console, command.arg(format!("{url}{case}")), |_| false)?;
        let good = finished.success && finished.output.ends_with("200\n");
        let received = fs::read(&received)?;
        let ok = match case {
            "up" => good && received.ends_with(BODY.to_string().as_bytes()),
            "reset" | "cut" => !good,
            _ => good && received.len() == BODY,
        };
        Ok(format!("{case} {}\n", if ok { "ok" } else { &*finished.output }))
    }

    fn h2load(&self, workspace: &Workspace, url: &str, protocol: Protocol, case: &str) -> anyhow::Result<String> {
        let mut command = workspace.command("timeout");
        // After it is asked to stop, Fairway accepts no more connections.
        let (all, connections, streams) = if case == "drain" { ("1", "1", "1") } else { ("4", "2", "2") };
        command.args([PATIENCE, "h2load", "-n", all, "-c", connections, "-m", streams]);
        if let Some(sent) = self.sent(protocol, case) {
            command.args(["-H", &format!("content-type: {}", protocol.content_type())]).arg("-d").arg(sent);
        }
        let finished = shell::run(&workspace.console, command.arg(format!("{url}{case}")), |_| false)?;
        let good = finished.success
            && finished.output.contains(&format!("status codes: {all} 2xx"))
            && finished.output.contains(&format!(" {all} succeeded"));
        let failed = finished.success && finished.output.contains(" 0 succeeded");
        let ok = if matches!(case, "reset" | "cut") { failed } else { good };
        Ok(format!("{case} {}\n", if ok { "ok" } else { &*finished.output }))
    }
}

/// Whether a client reports success for a case.
fn is_ok(results: &str, case: &str) -> bool {
    results.lines().any(|line| line.split_once(' ') == Some((case, "ok")))
}

impl Protocol {
    /// The content type of uploads.
    fn content_type(self) -> &'static str {
        if self == Self::Grpc { "application/grpc" } else { "text/plain" }
    }
}

fn manifests() -> String {
    let ingress = |name: &str, service: &str, path: &str, annotations: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  namespace: default\n  annotations: \
             {{{annotations}}}\nspec:\n  ingressClassName: nginx\n  rules:\n  - http:\n      paths:\n      - {{path: {path}, \
             pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}\n"
        )
    };
    let of = |(name, protocol): (&str, Protocol)| {
        let protocol = if protocol == Protocol::Http1 { "HTTP" } else { "GRPC" };
        let annotations = format!("nginx.ingress.kubernetes.io/backend-protocol: {protocol}");
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{ports: [{{port: 80}}]}}\n{}",
            ingress(name, name, &format!("/{name}/"), &annotations)
        )
    };
    let cut = r#"nginx.ingress.kubernetes.io/proxy-read-timeout: "1""#;
    // After half of this time, Fairway announces the end of connections that have streams.
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: default}\n\
                    data: {worker-shutdown-timeout: 2s}\n";
    [settings.to_owned(), SERVERS.map(of).concat(), ingress("cut", OURS_FROM, &format!("/{OURS_FROM}/cut"), cut)]
        .concat()
}

/// A running server.
struct Listening {
    _program: Program,
    address: SocketAddr,
    /// Its output after the address.
    lines: Receiver<String>,
}

impl Listening {
    /// A server that prints its address.
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut program = Program::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()))?;
        let mut lines = BufReader::new(program.stdout()?).lines();
        let address = lines.next().context("a server ended before it listened")??.parse()?;
        let (send, received) = mpsc::channel();
        // A server whose output isn't read would end.
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(send.send(line))));
        Ok(Self { _program: program, address, lines: received })
    }
}

/// An nginx that forwards uploads.
fn nginx(folder: &Path, go: SocketAddr) -> anyhow::Result<(Program, SocketAddr)> {
    let address = free_address()?;
    let (body, own) = (folder.join("body"), folder.join("nginx"));
    fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
    let (at, body) = (own.display(), body.display());
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log; events {{}}\n\
         http {{\n  access_log off; client_max_body_size 0;\n  \
         client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi;\n  \
         scgi_temp_path {at}/scgi;\n  server {{\n    listen {address};\n    \
         location = /nginx/down {{ alias {body}; }}\n    location = /nginx/goaway {{ alias {body}; keepalive_timeout 0; }}\n    \
         location = /nginx/up {{ proxy_pass http://{go}; }}\n    location = /nginx/reset {{ return 444; }}\n  }}\n}}\n"
    );
    fs::write(own.join("nginx.conf"), config)?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg(own.join("error.log")).arg("-c").arg(own.join("nginx.conf")).stdin(Stdio::null());
    let program = Program::start_at(&mut command, address, Duration::from_secs(20))
        .with_context(|| format!("nginx; see {at}/error.log"))?;
    Ok((program, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_ok_only_by_its_own_line() {
        let results = "down ok\nup bad status 502\nreset ok \n";
        let ok: Vec<_> = CASES.iter().filter(|case| is_ok(results, case)).collect();
        assert_eq!(ok, [&"down"]);
    }
}
