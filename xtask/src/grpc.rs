//! `cargo xtask grpc`: gRPC's interoperability cases between grpc-go's client and server, in the clear and over TLS on both sides.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::outcome::Outcome;
use crate::serving::{Program, Serving, free_address};
use crate::shell;
use crate::tls_files::TlsFiles;
use crate::tools;
use crate::workspace::Workspace;

/// The cases that don't need a cloud.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

/// The host of the certificate.
const HOST: &str = "grpc.example";

/// Time for a server to start listening, on a busy machine.
const START: Duration = Duration::from_secs(60);

const MANIFESTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: default}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: tls, namespace: default}
spec: {ports: [{port: 443}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: plain
  namespace: default
  annotations: {nginx.ingress.kubernetes.io/backend-protocol: GRPC}
spec:
  ingressClassName: nginx
  rules:
  - http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: plain, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: tls
  namespace: default
  annotations: {nginx.ingress.kubernetes.io/backend-protocol: GRPCS}
spec:
  ingressClassName: nginx
  tls: [{hosts: [grpc.example], secretName: tls}]
  rules:
  - host: grpc.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: tls, port: {number: 443}}}}
";

/// Runs all cases.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let built = tools::build_grpc(workspace)?;
    if built.failure.is_some() {
        return Ok(built);
    }
    let folder = workspace.target_folder()?.join("grpc");
    let manifests = folder.join("manifests");
    fs::create_dir_all(&manifests).with_context(|| format!("making {}", manifests.display()))?;
    let files = TlsFiles::make(&folder, HOST)?;
    fs::write(manifests.join("grpc.yaml"), format!("{MANIFESTS}{}", files.secret("default")?))?;

    let tools = workspace.root.join("target/tools/bin");
    let server = |options: &[&OsStr]| -> anyhow::Result<(Program, SocketAddr)> {
        let address = free_address()?;
        let mut command = Command::new(tools.join("grpc-server"));
        command.arg(format!("--port={}", address.port())).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = Program::start_at(&mut command, address, START)?;
        Ok((program, address))
    };
    let option = |name: &str, path: &Path| -> OsString { [name.as_ref(), path.as_os_str()].join("=".as_ref()) };
    let (_plain, plain) = server(&[])?;
    let (_tls, tls) = server(&[
        "--use_tls".as_ref(),
        &option("--tls_cert_file", &files.certificate),
        &option("--tls_key_file", &files.key),
    ])?;
    let backends = [format!("--backend=default/plain:80={plain}"), format!("--backend=default/tls:443={tls}")];
    let mut fairway = match Serving::start(workspace, &manifests, &backends)? {
        Ok(fairway) => fairway,
        Err(outcome) => return Ok(outcome),
    };

    let mut complaints = Vec::new();
    let over_tls = [
        "--use_tls".into(),
        "--use_test_ca".into(),
        option("--ca_file", &files.certificate),
        format!("--server_host_override={HOST}").into(),
    ];
    for (address, options) in [(fairway.http, &[][..]), (fairway.https, &over_tls[..])] {
        for case in CASES {
            let mut command = Command::new(tools.join("grpc-client"));
            command.args(["--server_host", &address.ip().to_string(), "--server_port", &address.port().to_string()]);
            command.args(["--test_case", case]).args(options);
            let finished = shell::run(&workspace.console, &mut command, |_| false)?;
            if !finished.success {
                complaints.push(format!("{} failed:\n{}", shell::display(&command), finished.output));
            }
        }
    }
    ensure!(fairway.is_running()?, "fairway ended");
    Ok(Outcome::from_complaints(format!("{} cases, in the clear and over TLS", CASES.len()), &complaints))
}
