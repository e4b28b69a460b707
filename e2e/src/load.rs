//! A continuous load of requests, each accounted for, while a test changes the servers behind the address.
//!
//! ```no_run
//! # async fn example(address: std::net::SocketAddr) {
//! use fairway_e2e::load::Load;
//!
//! let load = Load::to(address).host("shop.example").connections(4).rate(200).start();
//! // ... a rolling update ...
//! let account = load.stop().await;
//! assert!(account.failures.is_empty(), "{account}");
//! # }
//! ```
//!
//! The client does what clients do, and no more: a connection that the server closed while idle is replaced, and a GET
//! on a reused connection that ends without one byte of the response is retried once on a new one (RFC 9112 9.3.1).
//! Retries are counted, see [`Account::retried`].

mod account;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairway_testkit::{Client, Ended, ReadError, Response};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

pub use self::account::{Account, Failure, Histogram, Kind};

/// Less than the time after which the test client panics.
const LIMIT: Duration = Duration::from_secs(8);

/// The requests to send; [`Load::start`] sends them.
#[derive(Clone, Debug)]
#[must_use]
pub struct Load {
    address: SocketAddr,
    host: String,
    target: String,
    fields: String,
    connections: usize,
    rate: u32,
    fresh: bool,
}

/// Load that continues until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    account: Arc<Mutex<Account>>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Load {
    /// GET requests for `/` to an address, from 4 connections, at most 200 per second in total.
    pub fn to(address: SocketAddr) -> Self {
        Self {
            address,
            host: address.ip().to_string(),
            target: "/".to_owned(),
            fields: String::new(),
            connections: 4,
            rate: 200,
            fresh: false,
        }
    }

    /// Sets the Host of the requests; the default is the address.
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Sets the path and query of the requests.
    pub fn target(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// Adds a field to each request.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.fields, "{name}: {value}\r\n");
        self
    }

    /// Sets how many requests may be in progress at the same time.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Limits the requests per second in total. Tests share few cores: the goal is continuity.
    pub fn rate(mut self, rate: u32) -> Self {
        self.rate = rate.max(1);
        self
    }

    /// Sends each request over a new connection, so that each may reach another pod of a Service.
    pub fn new_connections(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// Starts on the caller's runtime.
    pub fn start(self) -> Running {
        let account = Arc::new(Mutex::new(Account::new()));
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        let begin = Instant::now();
        let connection = if self.fresh { "connection: close\r\n" } else { "" };
        let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n{}{connection}\r\n", self.target, self.host, self.fields);
        let step = Duration::from_secs(1) / self.rate;
        for index in 0..self.connections {
            let mut ticks = interval_at(begin + step * index as u32, step * self.connections as u32);
            // Requests that could not be sent in time are skipped.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (account, mut stopped) = (account.clone(), stopped.clone());
            let mut client =
                LoadClient { address: self.address, request: request.clone(), connection: None, pod: None };
            let fresh = self.fresh;
            clients.spawn(async move {
                loop {
                    tokio::select! {
                        biased;
                        _ = stopped.wait_for(|stopped| *stopped) => return,
                        _ = ticks.tick() => {}
                    }
                    let sent = Instant::now();
                    let mut retried = false;
                    let result = client.exchange(&mut retried).await;
                    let mut account = account.lock().unwrap_or_else(PoisonError::into_inner);
                    account.retried += u64::from(retried);
                    let before = client.pod.clone();
                    match result {
                        Ok(pod) => {
                            account.succeeded(sent.elapsed(), pod.as_deref());
                            client.pod = pod.or(before);
                        }
                        Err(kind) => {
                            let (at, took) = (sent - begin, sent.elapsed());
                            account.failed(Failure { sent: sent.into_std(), at, took, kind, pod: before });
                            client.connection = None;
                        }
                    }
                    if fresh {
                        client.connection = None;
                    }
                }
            });
        }
        Running { account, stop, clients }
    }
}

impl Running {
    /// The counts so far.
    pub fn so_far(&self) -> Account {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` more requests have succeeded or failed.
    pub async fn more(&self, count: u64) {
        let until = self.so_far().requests + count;
        while self.so_far().requests < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops sending, waits for requests in progress, and returns the account.
    ///
    /// # Panics
    /// If a client panicked.
    pub async fn stop(mut self) -> Account {
        let _ = self.stop.send(true);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
        self.so_far()
    }
}

/// One client with one connection.
struct LoadClient {
    address: SocketAddr,
    request: String,
    connection: Option<Client>,
    pod: Option<String>,
}

impl LoadClient {
    /// Sends one request; returns the pod that answered it.
    async fn exchange(&mut self, retried: &mut bool) -> Result<Option<String>, Kind> {
        let end = Instant::now() + LIMIT;
        let used = match self.connection.take() {
            Some(mut client) => (!client.is_closed().await).then_some(client),
            None => None,
        };
        let response = match used {
            Some(client) => match self.on(client, end).await {
                Err(Kind::Closed | Kind::Reset) => {
                    *retried = true;
                    let client = Self::connect(self.address, end).await?;
                    self.on(client, end).await?
                }
                other => other?,
            },
            None => {
                let client = Self::connect(self.address, end).await?;
                self.on(client, end).await?
            }
        };
        let text = response.text();
        if !(200..300).contains(&response.status) {
            return Err(Kind::Status(response.status, text.lines().next().unwrap_or_default().to_owned()));
        }
        Ok(pod(&text))
    }

    async fn connect(address: SocketAddr, end: Instant) -> Result<Client, Kind> {
        let left = end - Instant::now();
        match timeout(left, Client::try_connect(address)).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(Kind::Connect(error.to_string())),
            Err(_) => Err(Kind::Connect("no answer in time".to_owned())),
        }
    }

    /// Sends the request and reads the response. Keeps the connection if it can be reused.
    async fn on(&mut self, mut client: Client, end: Instant) -> Result<Response, Kind> {
        let exchange = async {
            // A server that has closed may have responded before: reading shows it.
            let _ = client.try_send(self.request.as_bytes()).await;
            client.try_read_response().await
        };
        let response = match timeout(end - Instant::now(), exchange).await {
            Ok(Ok(response)) => response,
            Ok(Err(ReadError::Ended(Ended::Closed))) => return Err(Kind::Closed),
            Ok(Err(ReadError::Ended(Ended::Reset))) => return Err(Kind::Reset),
            Ok(Err(ReadError::Truncated(_, ended))) => return Err(Kind::Truncated(ended)),
            Ok(Err(ReadError::Malformed(what))) => return Err(Kind::Malformed(what)),
            Err(_) => return Err(Kind::Timeout),
        };
        let close = response.headers().get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        self.connection = (!close).then_some(client);
        Ok(response)
    }
}

/// The name of the pod in a response of the echo server.
fn pod(answer: &str) -> Option<String> {
    let (_, rest) = answer.split_once("\"pod\": \"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use fairway_testkit::{Origin, Reply, eventually};

    use super::*;

    #[tokio::test]
    async fn answers_are_counted_by_pod() {
        let origin = Origin::new("o").reply(Reply::ok().body("{\n \"pod\": \"web-1\"\n}")).start();
        let load = Load::to(origin.address()).host("a.example").target("/x").connections(2).rate(2000).start();
        load.more(20).await;
        let account = load.stop().await;
        assert!(account.failures.is_empty(), "{account}");
        assert_eq!((account.requests, account.retried), (account.pods["web-1"], 0));
        assert!(account.latency.quantile(0.99) >= account.latency.quantile(0.5));
        let seen = &origin.seen()[0];
        assert_eq!((seen.target.as_str(), seen.headers().get("host")), ("/x", Some("a.example")));
        assert_eq!(origin.connections(), 2);
    }

    #[tokio::test]
    async fn failures_say_what_happened_and_who_answered_before() {
        let origin = Origin::new("o").reply(Reply::ok().body("\"pod\": \"web-1\"")).start();
        let load = Load::to(origin.address()).connections(1).rate(1000).start();
        load.more(1).await;
        origin.set_reply(Reply::status(503).body("no endpoint\nmore"));
        eventually("a failure", async || !load.so_far().failures.is_empty()).await;
        let account = load.stop().await;
        let failure = &account.failures[0];
        assert_eq!(failure.kind, Kind::Status(503, "no endpoint".into()));
        assert_eq!(failure.pod.as_deref(), Some("web-1"));
        assert!(account.to_string().contains("503 no endpoint, after web-1"), "{account}");
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_failure() {
        let origin = Origin::start("o");
        let load = Load::to(origin.address()).connections(1).rate(1000).new_connections().start();
        load.more(3).await;
        origin.stop_listening();
        eventually("a failure", async || !load.so_far().failures.is_empty()).await;
        let account = load.stop().await;
        assert!(matches!(account.failures[0].kind, Kind::Connect(_)), "{account}");
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_while_idle_is_replaced_and_nothing_else_is_tried_again() {
        let origin = Origin::start("o");
        let load = Load::to(origin.address()).connections(1).rate(200).start();
        load.more(2).await;
        origin.close_connections();
        load.more(3).await;
        let account = load.stop().await;
        assert!(account.failures.is_empty(), "{account}");
        // A new connection that ends without a response.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let load = Load::to(listener.local_addr().unwrap()).connections(1).rate(200).start();
        let (stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 16];
        stream.readable().await.unwrap();
        let _ = stream.try_read(&mut bytes);
        drop(stream);
        eventually("a failure", async || !load.so_far().failures.is_empty()).await;
        drop(listener);
        let account = load.stop().await;
        assert!(matches!(account.failures[0].kind, Kind::Closed | Kind::Reset), "{account}");
        assert_eq!(account.retried, 0);
    }
}
