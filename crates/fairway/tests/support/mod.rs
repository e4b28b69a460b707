//! Runs the real binary: `fairway dev` until the test ends, other commands to their end.

#![allow(dead_code, reason = "each test file uses its part of it")]

pub(crate) mod nginx;
pub(crate) mod run;
pub(crate) mod schema;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fairway_testkit::{Client, DEADLINE, Response};

/// `fairway dev` on ports that the kernel chooses. Ends when dropped.
pub(crate) struct Dev {
    child: Child,
    lines: Receiver<String>,
    /// The output up to the point where all listeners are open.
    pub(crate) greeting: String,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// The folder of an example.
pub(crate) fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// The binary, in an environment that doesn't depend on the user who runs the tests.
pub(crate) fn fairway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fairway"));
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

/// Runs a command to its end.
pub(crate) fn run(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    fairway().args(args).output().expect("the binary runs")
}

/// A command's standard output.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is text")
}

impl Dev {
    /// Starts the binary and waits until it listens.
    pub(crate) fn start(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::start_with(args, &[])
    }

    /// The same, with these environment variables.
    pub(crate) fn start_with(
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        environment: &[(&str, &OsStr)],
    ) -> Self {
        let mut command = fairway();
        command.envs(environment.iter().copied());
        Self::start_as(command, args)
    }

    /// The same in a folder to which paths are relative.
    pub(crate) fn start_in(folder: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = fairway();
        command.current_dir(folder);
        Self::start_as(command, args)
    }

    fn start_as(mut command: Command, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let any = "127.0.0.1:0";
        let mut child = command
            .arg("dev")
            .args(args)
            .args(["--http", any, "--https", any, "--admin", any])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let output = child.stdout.take().expect("standard output is a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut dev = Self { child, lines, greeting: String::new(), http: nowhere, https: nowhere, admin: nowhere };
        let address = |dev: &mut Self, name: &str| {
            let line = dev.line_with(&format!("{name:<5} on "));
            line.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("an address at the end of the line")
        };
        dev.http = address(&mut dev, "http");
        dev.https = address(&mut dev, "https");
        dev.admin = address(&mut dev, "admin");
        dev
    }

    /// The next line that contains a text; earlier output is kept in `greeting`.
    pub(crate) fn line_with(&mut self, part: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.greeting.push_str(&line);
                    self.greeting.push('\n');
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => panic!("waited for {part:?}: {error}; printed so far:\n{}", self.greeting),
            }
        }
    }

    /// One GET on a new connection.
    pub(crate) async fn get(&self, host: &str, target: &str) -> Response {
        // Boxed: the state of a client is large, and a test with many requests would hold many of them on its stack.
        Box::pin(async { Client::connect(self.http).await.get(host, target).await }).await
    }

    /// The first line of a response, which the echo begins with the Service's name.
    pub(crate) async fn service(&self, host: &str, target: &str) -> String {
        let response = self.get(host, target).await;
        match response.text().lines().next().and_then(|line| line.strip_prefix("Service ")) {
            Some(service) => service.to_owned(),
            None => response.status.to_string(),
        }
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Asks the process to stop, as Ctrl-C and the kubelet do, and waits until it has ended.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal("-TERM");
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(Instant::now() < end, "the process goes on after SIGTERM");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
