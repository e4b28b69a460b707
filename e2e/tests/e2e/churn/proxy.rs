//! Sends requests to proxies until all of them know a change.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fairway_e2e::scene::{Release, Session};
use fairway_testkit::Response;
use tokio::time::sleep;

/// When a change counts as lost.
const LOST: Duration = Duration::from_secs(10);
/// The pause between requests while waiting for a change, as short as the clock allows: it is part of what is measured.
const PAUSE: Duration = Duration::from_millis(1);

/// All proxies of a release.
pub(super) struct Proxies(Vec<Proxy>);

struct Proxy {
    address: SocketAddr,
    /// Idle connections for the next requests.
    idle: Mutex<Vec<Session>>,
}

impl Proxies {
    pub(super) async fn of(fairway: &Release<'_>) -> anyhow::Result<Self> {
        let addresses = fairway.pods().await?.into_iter().filter_map(|pod| pod.status?.pod_ip?.parse::<IpAddr>().ok());
        Ok(Self(addresses.map(|ip| Proxy { address: (ip, 80).into(), idle: Mutex::default() }).collect()))
    }

    /// Requests a host of each proxy until the response is right; returns how long that took at the slowest.
    pub(super) async fn shows(&self, host: &str, right: impl Fn(&Response) -> bool) -> anyhow::Result<Duration> {
        let each = self.0.iter().map(|proxy| proxy.shows(host, &right));
        let delays = futures::future::try_join_all(each).await?;
        delays.into_iter().max().context("no proxy")
    }
}

impl Proxy {
    async fn shows(&self, host: &str, right: impl Fn(&Response) -> bool) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let idle = self.idle.lock().expect("no holder of this lock panics").pop();
        let mut session = match idle {
            Some(session) => session,
            None => Session::connect(self.address).await?,
        };
        loop {
            let response = session.get(host, "/").await.with_context(|| format!("asking for {host}"))?;
            let elapsed = begin.elapsed();
            // After as many requests as `keep-alive-requests` allows.
            if response.header("connection") == Some("close") {
                session = Session::connect(self.address).await?;
            }
            if right(&response) {
                self.idle.lock().expect("no holder of this lock panics").push(session);
                return Ok(elapsed);
            }
            ensure!(begin.elapsed() < LOST, "{host} still answers {} {:?}", response.status, response.text());
            sleep(PAUSE).await;
        }
    }
}
