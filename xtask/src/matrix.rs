//! `cargo xtask matrix`: clients of many makes through Fairway to servers of many makes. Each pair downloads and uploads a megabyte, has a
//! response that is cut in the middle, and one during which the server announces the end of its connection. Prints a table.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::outcome::Outcome;
use crate::serving::{Program, Serving, free_address};
use crate::shell;
use crate::workspace::Workspace;

/// What each pair does, and the path for it.
const CASES: [&str; 4] = ["down", "up", "reset", "goaway"];

/// The servers, and whether Fairway speaks HTTP/2 to them.
const SERVERS: [(&str, bool); 5] =
    [("node", false), ("go", false), ("nginx", false), ("node-h2", true), ("go-h2", true)];

/// Bytes of a body.
const BODY: usize = 1_000_000;

/// Seconds that a client has for all cases, on a busy machine.
const PATIENCE: &str = "120";

/// Runs all pairs. `python` is an interpreter that has httpx with HTTP/2.
pub(crate) fn run(workspace: &Workspace, python: &str) -> anyhow::Result<Outcome> {
    let folder = workspace.target_folder()?.join("matrix");
    let manifests = folder.join("manifests");
    fs::create_dir_all(&manifests).with_context(|| format!("making {}", manifests.display()))?;
    fs::write(manifests.join("matrix.yaml"), self::manifests())?;
    fs::write(folder.join("body"), vec![b'x'; BODY])?;
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
    let script = sources.join("server.js");
    let servers = [
        started(Command::new("node").arg(&script).arg("h1"))?,
        started(&mut Command::new(&server))?,
        started(Command::new("node").arg(&script).arg("h2c"))?,
        started(&mut Command::new(&server))?,
    ];
    let (_nginx, nginx) = nginx(&folder, servers[1].1)?;
    let addresses = [servers[0].1, servers[1].1, nginx, servers[2].1, servers[3].1];
    let options: Vec<_> = SERVERS
        .iter()
        .zip(addresses)
        .map(|((name, _), address)| format!("--backend=default/{name}:80={address}"))
        .collect();
    let mut fairway = match Serving::start(workspace, &manifests, &options)? {
        Ok(fairway) => fairway,
        Err(outcome) => return Ok(outcome),
    };

    let clients = Clients { folder: &folder, sources: &sources, client: &client, python };
    let has_httpx = shell::succeeds(Command::new(python).args(["-c", "import httpx, h2"]));
    let mut complaints = Vec::new();
    let mut pairs = 0;
    workspace.console.line(&format!("  {:<10}{}", "", SERVERS.map(|(name, _)| format!("{name:<28}")).concat()));
    for name in CLIENTS {
        if name.starts_with("httpx") && !has_httpx {
            workspace
                .console
                .line(&format!("  {name:<10}{python} has no httpx with HTTP/2: pip install 'httpx[http2]'"));
            continue;
        }
        let mut row = format!("  {name:<10}");
        for (server, _) in SERVERS {
            let url = format!("https://{}/{server}/", fairway.https);
            let results = clients.run(workspace, name, &url)?;
            let words = CASES.map(|case| if is_ok(&results, case) { case.to_owned() } else { case.to_uppercase() });
            for case in CASES.iter().filter(|case| !is_ok(&results, case)) {
                complaints.push(format!("{name} to {server}, {case}:\n{results}"));
            }
            row.push_str(&format!("{:<28}", words.join(" ")));
            pairs += 1;
        }
        workspace.console.line(&row);
    }
    ensure!(fairway.is_running()?, "fairway ended");
    Ok(Outcome::from_complaints(format!("{pairs} pairs, {} cases each", CASES.len()), &complaints))
}

/// The clients, with the version that they speak to Fairway over TLS.
const CLIENTS: [&str; 10] =
    ["curl h1", "curl h2", "h2load h2", "go h1", "go h2", "node h2", "httpx h1", "httpx h2", "java h1", "java h2"];

struct Clients<'a> {
    folder: &'a Path,
    sources: &'a Path,
    client: &'a Path,
    python: &'a str,
}

impl Clients<'_> {
    /// What a client says: a line for each case, with `ok` if it went well.
    fn run(&self, workspace: &Workspace, name: &str, url: &str) -> anyhow::Result<String> {
        let (make, version) = name.split_once(' ').context("a name and a version")?;
        let within = |program: PathBuf| {
            let mut command = workspace.command("timeout");
            command.arg(PATIENCE).arg(program);
            command
        };
        let mut command = match make {
            "curl" => return CASES.map(|case| self.curl(workspace, version, url, case)).into_iter().collect(),
            "h2load" => return CASES.map(|case| self.h2load(workspace, url, case)).into_iter().collect(),
            "go" => within(self.client.to_owned()),
            "node" => within("node".into()),
            "httpx" => within(self.python.into()),
            _ => within("java".into()),
        };
        match make {
            "node" => drop(command.arg(self.sources.join("client.js"))),
            "httpx" => drop(command.arg(self.sources.join("client.py"))),
            "java" => {
                command.arg("-Djdk.internal.httpclient.disableHostnameVerification=true");
                command.arg(self.sources.join("Client.java"));
            }
            _ => {}
        }
        Ok(shell::run(&workspace.console, command.arg(url).arg(version), |_| false)?.output)
    }

    fn curl(&self, workspace: &Workspace, version: &str, url: &str, case: &str) -> anyhow::Result<String> {
        let (received, body) = (self.folder.join("received"), self.folder.join("body"));
        fs::write(&received, "")?;
        let mut command = workspace.command("curl");
        command.args(["-sS", "-k", "-m", PATIENCE, if version == "h1" { "--http1.1" } else { "--http2" }]);
        command.args(["-w", "%{http_code}\n"]).arg("-o").arg(&received);
        if case == "up" {
            command.arg("--data-binary").arg(format!("@{}", body.display()));
        }
        let finished = shell::run(&workspace.console, command.arg(format!("{url}{case}")), |_| false)?;
        let good = finished.success && finished.output.ends_with("200\n");
        let received = fs::read(&received)?;
        let ok = match case {
            "up" => good && received == BODY.to_string().as_bytes(),
            "reset" => !good,
            _ => good && received.len() == BODY,
        };
        Ok(format!("{case} {}\n", if ok { "ok" } else { &*finished.output }))
    }

    fn h2load(&self, workspace: &Workspace, url: &str, case: &str) -> anyhow::Result<String> {
        let mut command = workspace.command("timeout");
        command.args([PATIENCE, "h2load", "-n", "4", "-c", "2", "-m", "2"]);
        if case == "up" {
            command.arg("-d").arg(self.folder.join("body"));
        }
        let finished = shell::run(&workspace.console, command.arg(format!("{url}{case}")), |_| false)?;
        let good = finished.success
            && finished.output.contains("status codes: 4 2xx")
            && finished.output.contains(" 4 succeeded");
        let failed = finished.success && finished.output.contains(" 0 succeeded");
        let ok = if case == "reset" { failed } else { good };
        Ok(format!("{case} {}\n", if ok { "ok" } else { &*finished.output }))
    }
}

/// Whether a client says that a case went well.
fn is_ok(results: &str, case: &str) -> bool {
    results.lines().any(|line| line.split_once(' ') == Some((case, "ok")))
}

fn manifests() -> String {
    let of = |(name, http2): (&str, bool)| {
        let protocol = if http2 { "GRPC" } else { "HTTP" };
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{ports: [{{port: 80}}]}}\n\
             ---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  namespace: default\n  annotations: \
             {{nginx.ingress.kubernetes.io/backend-protocol: {protocol}}}\nspec:\n  ingressClassName: nginx\n  rules:\n  - http:\n      \
             paths:\n      - {{path: /{name}/, pathType: Prefix, backend: {{service: {{name: {name}, port: {{number: 80}}}}}}}}\n"
        )
    };
    SERVERS.map(of).concat()
}

/// A server that prints its address.
fn started(command: &mut Command) -> anyhow::Result<(Program, SocketAddr)> {
    let mut program = Program::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let mut lines = BufReader::new(program.stdout()?).lines();
    let address = lines.next().context("a server ended before it listened")??.parse()?;
    Ok((program, address))
}

/// An nginx, which passes uploads on.
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
