//! Requests as users' clients send them. Any failure is an error, never a panic: a test may retry.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use fairway_testkit::{Client, Response, TlsClient};
use tokio::time::timeout;

/// Time limit of a response: less than the time after which the client panics.
const LIMIT: Duration = Duration::from_secs(8);

/// Time limit of a connection. One whose first packet arrives before kube-proxy knows the address never gets a
/// response: the kernel remembers that it leads nowhere.
const CONNECT: Duration = Duration::from_secs(3);

/// A connection for sequential requests.
pub struct Session {
    client: Client,
}

impl Session {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let client = timeout(CONNECT, Client::try_connect(address)).await.context("connecting takes too long")?;
        Ok(Self { client: client.with_context(|| format!("connecting to {address}"))? })
    }

    /// Connects with TLS and requests the certificate of `name`, which is not verified: see [`Session::certificate`].
    pub async fn connect_tls(address: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let builder = TlsClient::unverified(name);
        let client = timeout(CONNECT, builder.try_connect(address)).await.context("connecting takes too long")?;
        Ok(Self { client: client.with_context(|| format!("connecting to {address} with TLS"))? })
    }

    /// The server's certificate, in DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.client.tls().chain.first().map(|certificate| certificate.to_vec()).unwrap_or_default()
    }

    /// Requests `target` of `host`.
    pub async fn get(&mut self, host: &str, target: &str) -> anyhow::Result<Response> {
        self.send(&format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n"), "GET").await
    }

    /// Sends a request unchanged and reads the response to a request with `method`.
    pub async fn send(&mut self, request: &str, method: &str) -> anyhow::Result<Response> {
        let exchange = async {
            self.client.try_send(request).await.context("sending")?;
            self.client.try_read_response_to(method).await.map_err(|error| anyhow!("reading the answer: {error:?}"))
        };
        timeout(LIMIT, exchange).await.context("no answer in time")?
    }
}
