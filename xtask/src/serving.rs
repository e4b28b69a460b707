//! A `fairway dev` on free ports, for suites that test it from the outside.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::cargo;
use crate::outcome::Outcome;
use crate::shell;
use crate::workspace::Workspace;

/// A Fairway that serves manifests. It ends when dropped.
pub(crate) struct Serving {
    fairway: Program,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

/// A program that ends when dropped.
pub(crate) struct Program(Child);

impl Serving {
    /// Builds the binary and serves the manifests in a folder, with further options.
    pub(crate) fn start(
        workspace: &Workspace,
        folder: &Path,
        options: &[String],
    ) -> anyhow::Result<Result<Self, Outcome>> {
        match Self::build(workspace)? {
            Some(outcome) => Ok(Err(outcome)),
            None => Self::start_built(workspace, folder, options).map(Ok),
        }
    }

    /// Builds the binary. Returns the outcome to report if that fails.
    pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Option<Outcome>> {
        let built = cargo::build(workspace, &["--bin", "fairway"])?;
        Ok(built.failure.is_some().then_some(built))
    }

    /// Serves the manifests in a folder with the last binary that was built.
    pub(crate) fn start_built(workspace: &Workspace, folder: &Path, options: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(workspace.target_folder()?.join("debug/fairway"));
        command.arg("dev").arg(folder).args(["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"]).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut fairway = Program::start(&mut command)?;
        let mut lines = BufReader::new(fairway.stdout()?).lines();
        let (mut http, mut https) = (None, None);
        let addresses = loop {
            let line = lines.next().context("fairway ended before it listened")??;
            match line.split_once(" on ").map(|(scheme, address)| (scheme.trim(), address.trim())) {
                Some(("http", address)) => http = Some(address.parse()?),
                Some(("https", address)) => https = Some(address.parse()?),
                _ => {}
            }
            if let Some(addresses) = http.zip(https) {
                break addresses;
            }
        };
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        // A full pipe would block the process.
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| keep.lock().expect("no panic").push(line)));
        let (http, https) = addresses;
        Ok(Self { fairway, http, https, lines: kept })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.fairway.id()
    }

    /// Its output since it started to listen.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }

    /// Whether it is still running.
    pub(crate) fn is_running(&mut self) -> anyhow::Result<bool> {
        self.fairway.is_running()
    }
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = shell::display(command);
        Ok(Self(command.spawn().with_context(|| format!("starting `{name}`"))?))
    }

    /// Starts a program, and waits at most `patience` until it listens.
    pub(crate) fn start_at(command: &mut Command, address: SocketAddr, patience: Duration) -> anyhow::Result<Self> {
        let program = Self::start(command)?;
        wait_for(address, patience)?;
        Ok(program)
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it is still running.
    pub(crate) fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }

    /// Asks it to end, and waits until it has: what it writes last is complete.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        let id = self.0.id().to_string();
        shell::read(Command::new("kill").args(["-TERM", &id]))?;
        self.0.wait().context("waiting for a program")?;
        Ok(())
    }

    /// Its output, if that is a pipe.
    pub(crate) fn stdout(&mut self) -> anyhow::Result<ChildStdout> {
        self.0.stdout.take().context("its output is no pipe")
    }
}

/// Waits at most `patience` until a program accepts connections.
pub(crate) fn wait_for(address: SocketAddr, patience: Duration) -> anyhow::Result<()> {
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        ensure!(begin.elapsed() < patience, "nothing listens on {address} after {} s", patience.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// An address on which nothing listens.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a free port")?.local_addr()?)
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
