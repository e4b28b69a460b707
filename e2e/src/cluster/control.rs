//! The supervisor's protocol: one line of JSON each way on the Unix socket `control` in the cluster's directory.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::cluster::layout::Layout;
use crate::cluster::process::{Action, Processes, State};

/// The supervisor answers at once except to a stop, which takes a few seconds at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request to the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ControlRequest {
    /// Get the states of the components.
    Status,
    /// Apply an action to one of them.
    Component { name: String, action: Action },
    /// Stop everything.
    Down,
}

/// A response.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ControlAnswer {
    Done,
    Components(Vec<ComponentStatus>),
    Failed(String),
}

/// One component, as `cluster status` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComponentStatus {
    /// Its name, as in [`super::Cluster::component`].
    pub name: String,
    /// Its state.
    pub state: State,
    /// Its log.
    pub log: PathBuf,
}

/// A message to `up` while the cluster starts, one line of JSON each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Progress {
    Step(String),
    Ready,
    Failed(String),
}

/// A connection to the supervisor of a running cluster.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
}

impl Connection {
    /// Connects to the supervisor of the cluster at `layout`, if it runs.
    pub(crate) fn open(layout: &Layout) -> std::io::Result<Self> {
        let stream = UnixStream::connect(layout.control())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// The supervisor's process id, as this process sees it.
    ///
    /// The kernel reports which process listens on the socket: unlike a pid file, that is never stale, and the number
    /// can't belong to another process.
    pub(crate) fn supervisor(&self) -> anyhow::Result<i32> {
        Ok(getsockopt(&self.stream, PeerCredentials).context("asking who listens on the control socket")?.pid())
    }

    /// Sends a request and waits for the response.
    pub(crate) fn ask(mut self, request: &ControlRequest) -> anyhow::Result<ControlAnswer> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.stream.write_all(line.as_bytes()).context("writing to the supervisor")?;
        let mut answer = String::new();
        BufReader::new(self.stream).read_line(&mut answer).context("reading the supervisor's answer")?;
        match serde_json::from_str(&answer).context("the supervisor's answer")? {
            ControlAnswer::Failed(reason) => anyhow::bail!(reason),
            answer => Ok(answer),
        }
    }
}

/// Serves one connection: one request per line until the client leaves. Returns whether the cluster must stop.
pub(crate) async fn serve(stream: tokio::net::UnixStream, processes: &Processes) -> anyhow::Result<bool> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = tokio::io::BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match serde_json::from_str(&line) {
            Ok(ControlRequest::Down) => return Ok(true),
            Ok(ControlRequest::Status) => ControlAnswer::Components(status(processes)),
            Ok(ControlRequest::Component { name, action }) => match processes.act(&name, action).await {
                Ok(()) => ControlAnswer::Done,
                Err(error) => ControlAnswer::Failed(format!("{error:#}")),
            },
            Err(error) => ControlAnswer::Failed(format!("a request that is none: {error}")),
        };
        let mut line = serde_json::to_string(&answer)?;
        line.push('\n');
        writer.write_all(line.as_bytes()).await?;
    }
    Ok(false)
}

fn status(processes: &Processes) -> Vec<ComponentStatus> {
    let status = |(component, state): (super::component::Component, State)| ComponentStatus {
        name: component.name,
        state,
        log: component.log,
    };
    processes.states().into_iter().map(status).collect()
}
