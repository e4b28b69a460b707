//! Where proxies connect: a socket within the pod, or an address for proxies in other pods.
//!
//! Invariant: an address serves no proxy before the authorities are known, which all controllers of the installation share.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::ArgMatches;
use clap::parser::ValueSource;
use fairway_channel::{AUDIENCE, Authorities, Claim, Denied, Hub, Papers, SocketServer, TcpServer};
use fairway_controller::{Client, ControllerConfig, Keep, KeepKind, TokenReviewer, Unrecognised};
use fairway_model::ErrorChain;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::role;

/// How often the authorities are checked. A new one signs only after a day, see the crate of the channel.
const LOOK: Duration = Duration::from_secs(300);

/// The same while they can't be read or written.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long this controller uses one certificate. It is valid for a week.
const CERTIFICATE: Duration = Duration::from_secs(86_400);

/// Tokens that may wait to be checked.
const CLAIMS: usize = 16;

/// A door for proxies.
pub(super) enum Door {
    Socket(SocketServer),
    Address(Box<AddressDoor>),
}

/// An open door.
pub(super) struct OpenDoor {
    /// Becomes `true` once proxies are served.
    pub(super) ready: watch::Receiver<bool>,
    /// Closes the door, if proxies can connect to another controller.
    pub(super) close: Option<AbortHandle>,
}

/// An address for proxies of other pods.
pub(super) struct AddressDoor {
    server: TcpServer,
    papers: watch::Sender<Option<Papers>>,
    claims: mpsc::Receiver<Claim>,
    namespace: String,
    /// The name of the Secret with the authorities, and of the ConfigMap with their certificates.
    name: String,
    account: String,
    read_only: bool,
}

impl Door {
    /// Opens the door that the command line asks for.
    ///
    /// # Errors
    /// If the address or socket is taken, or the controller's namespace is unknown.
    pub(super) fn bind(matches: &ArgMatches, config: &ControllerConfig, runtime: &Runtime) -> anyhow::Result<Self> {
        let _within = runtime.enter();
        let Some(listen) = matches.get_one::<String>("control-listen") else {
            let socket = matches.get_one::<PathBuf>("control-socket").cloned().unwrap_or_default();
            let server = SocketServer::bind(&socket);
            let server = server.context("proxies can't connect; choose another place with --control-socket")?;
            return Ok(Self::Socket(server));
        };
        if matches.value_source("control-socket") == Some(ValueSource::CommandLine) {
            anyhow::bail!("--control-socket and --control-listen exclude each other");
        }
        let address = address(listen).with_context(|| {
            format!("--control-listen={listen}: expected an address and a port, such as :10256 or 127.0.0.1:10256")
        })?;
        let pod = config.pod.as_ref().context("POD_NAME and POD_NAMESPACE must be set for --control-listen")?;
        let (papers, has_papers) = watch::channel(None);
        let (sender, claims) = mpsc::channel(CLAIMS);
        let server = runtime.block_on(TcpServer::bind(address, has_papers, sender));
        let server =
            server.with_context(|| format!("cannot listen on {listen}; choose another port with --control-listen"))?;
        info!(address = %server.local_address()?, "open for proxies");
        let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
        Ok(Self::Address(Box::new(AddressDoor {
            server,
            papers,
            claims,
            namespace: pod.namespace.clone(),
            name: text("control-secret"),
            account: text("control-account"),
            read_only: config.read_only,
        })))
    }

    /// Serves proxies.
    pub(super) fn serve(self, runtime: &Runtime, client: &Client, hub: &Hub) -> OpenDoor {
        match self {
            Self::Socket(server) => {
                runtime.spawn(server.run(hub.clone()));
                OpenDoor { ready: watch::channel(true).1, close: None }
            }
            Self::Address(address) => {
                let AddressDoor { server, papers, claims, namespace, name, account, read_only } = *address;
                let keep = |kind, key| Keep::new(client.clone(), kind, &namespace, &name, key);
                let office = Office {
                    secret: keep(KeepKind::Secret, "authorities"),
                    published: keep(KeepKind::ConfigMap, "ca.crt"),
                    papers,
                    current: None,
                    read_only,
                };
                let (ready, is_ready) = watch::channel(false);
                let reviewer = TokenReviewer::new(client.clone(), AUDIENCE, &namespace, &account);
                runtime.spawn(check(claims, reviewer));
                runtime.spawn(office.run(ready));
                OpenDoor { ready: is_ready, close: Some(runtime.spawn(server.run(hub.clone())).abort_handle()) }
            }
        }
    }
}

/// Maintains the authorities, and this controller's certificate.
struct Office {
    secret: Keep,
    published: Keep,
    papers: watch::Sender<Option<Papers>>,
    /// The trusted certificates in the newest papers, and when those came into use.
    current: Option<(String, Instant)>,
    read_only: bool,
}

impl Office {
    async fn run(mut self, ready: watch::Sender<bool>) {
        let mut failing = false;
        loop {
            let settled = self.settle(SystemTime::now()).await;
            ready.send_replace(self.current.is_some());
            if let Err(error) = &settled
                && !failing
            {
                let error = format_args!("{error:#}");
                warn!(%error, "can't maintain the certificates for proxies; retrying");
            }
            failing = settled.is_err();
            sleep(if failing { LOOK_AGAIN } else { LOOK }).await;
        }
    }

    /// Brings the authorities up to date, and uses them.
    async fn settle(&mut self, now: SystemTime) -> anyhow::Result<()> {
        let kept = self.secret.read().await?;
        let before = match &kept {
            Some(kept) if !kept.text.is_empty() => {
                let read = Authorities::from_json(&kept.text);
                // Unreadable content is not overwritten: only a person can tell whose it is.
                Some(read.with_context(|| format!("the {:?}; delete it to have new ones", self.secret))?)
            }
            _ => None,
        };
        let due = match &before {
            None => Some(Authorities::new(now)?),
            Some(before) => before.due(now)?,
        };
        let authorities = match (due, before) {
            (None, Some(before)) => before,
            (Some(_), Some(before)) if self.read_only => before,
            (Some(due), _) if !self.read_only => {
                // If another controller was faster, the next check finds what it wrote.
                self.secret.write(&due.to_json()?, kept).await?;
                info!(
                    authority = due.newest(),
                    "there is a new authority for the certificates of controllers and proxies"
                );
                due
            }
            _ => anyhow::bail!("the {:?} has no authorities, and --read-only prevents creating one", self.secret),
        };
        let trusted = authorities.trusted();
        if !self.read_only {
            let published = self.published.read().await?;
            if published.as_ref().is_none_or(|published| published.text != trusted.as_bytes()) {
                self.published.write(trusted.as_bytes(), published).await?;
            }
        }
        if self.current.as_ref().is_none_or(|(of, since)| *of != trusted || since.elapsed() >= CERTIFICATE) {
            self.papers.send_replace(Some(Papers::new(authorities, now)?));
            self.current = Some((trusted, Instant::now()));
        }
        Ok(())
    }
}

/// Has the API server check the tokens presented by proxies.
async fn check(mut claims: mpsc::Receiver<Claim>, reviewer: TokenReviewer) {
    while let Some(Claim { token, answer }) = claims.recv().await {
        let reviewer = reviewer.clone();
        // The channel bounds how many run at a time.
        tokio::spawn(async move {
            let verdict = reviewer.review(token.expose()).await.map_err(|error| match error {
                Unrecognised::Token(reason) => Denied::Token(reason),
                Unrecognised::Review(error) => Denied::Unchecked(ErrorChain(&error).to_string()),
            });
            let _ = answer.send(verdict);
        });
    }
}

/// `HOST:PORT`; without a host, all addresses.
fn address(text: &str) -> anyhow::Result<SocketAddr> {
    Ok(match text.strip_prefix(':') {
        Some(port) if role::has_ipv6() => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.parse()?)),
        Some(port) => (IpAddr::from([0, 0, 0, 0]), port.parse()?).into(),
        None => text.parse()?,
    })
}
