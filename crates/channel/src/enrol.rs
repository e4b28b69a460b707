//! How a proxy in another pod gets the certificate with which it follows a controller.
//!
//! It makes a key, which never leaves it, and proves its identity: the first time with the token of its ServiceAccount, which the API
//! server can check, later with its current certificate. The token goes only to a controller whose certificate is valid.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::{Request, Response, Status};
use tower_service::Service;
use tracing::{info, warn};

use crate::authority::{Authorities, PublicKey, Subject, VALIDITY};
use crate::limit::{CLAIMS, TOKEN};

/// The audience of proxies' tokens. The API server accepts no token that is for this audience alone.
pub const AUDIENCE: &str = "fairway.dev/control";

/// A token of a ServiceAccount. It is never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Token(String);

/// A token that a client presents. The answer is the name of the proxy, if it is one.
#[derive(Debug)]
pub struct Claim {
    /// The token presented.
    pub token: Token,
    /// Takes the answer.
    pub answer: oneshot::Sender<Result<String, Denied>>,
}

/// Why a token does not prove that a client is a proxy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Denied {
    /// It is not a proxy's.
    #[error("the token is not that of a proxy: {0}")]
    Token(String),
    /// It can't be checked at the moment.
    #[error("the token can't be checked: {0}")]
    Unchecked(String),
}

/// A proxy's request for a certificate.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct EnrolRequest {
    /// Empty if the proxy presents a certificate.
    #[prost(string, tag = "1")]
    pub(crate) token: String,
    /// An uncompressed point of P-256.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) public_key: Bytes,
}

/// The answer to it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EnrolResponse {
    /// The certificate (DER).
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) certificate: Bytes,
    /// How long it is valid.
    #[prost(uint64, tag = "2")]
    pub(crate) seconds: u64,
}

/// Where proxies enrol.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    claims: mpsc::Sender<Claim>,
    turns: Arc<Semaphore>,
}

/// A desk and the client at it, as a service for tonic.
pub(crate) struct Enrol {
    pub(crate) desk: Desk,
    pub(crate) authorities: Arc<Authorities>,
    /// Whether the client presented a proxy's certificate.
    pub(crate) known: bool,
}

impl Token {
    /// A token.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to be checked.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Without the token.
impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest").finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn new(claims: mpsc::Sender<Claim>) -> Self {
        Self { claims, turns: Arc::new(Semaphore::new(CLAIMS)) }
    }

    async fn check(&self, token: String) -> Result<String, Status> {
        if token.is_empty() || token.len() > TOKEN {
            return Err(Status::unauthenticated("show a token or a certificate"));
        }
        // Each check is a call to the API server.
        let _turn = self.turns.acquire().await.map_err(|_| ending())?;
        let (answer, answered) = oneshot::channel();
        self.claims.send(Claim { token: Token(token), answer }).await.map_err(|_| ending())?;
        match answered.await.map_err(|_| ending())? {
            Ok(name) => Ok(name),
            Err(denied) => {
                warn!(error = %denied, "somebody is not given the certificate of a proxy");
                let text = denied.to_string();
                Err(match denied {
                    Denied::Token(_) => Status::unauthenticated(text),
                    Denied::Unchecked(_) => Status::unavailable(text),
                })
            }
        }
    }
}

impl Service<Request<EnrolRequest>> for Enrol {
    type Response = Response<EnrolResponse>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<EnrolRequest>) -> Self::Future {
        let (desk, authorities, known) = (self.desk.clone(), self.authorities.clone(), self.known);
        Box::pin(async move {
            let EnrolRequest { token, public_key } = request.into_inner();
            let Some(key) = PublicKey::from_bytes(&public_key) else {
                return Err(Status::invalid_argument("expected a public key of P-256"));
            };
            if !known {
                let proxy = desk.check(token).await?;
                info!(proxy, "a proxy has proved who it is");
            }
            let certificate = authorities.sign(Subject::Proxy, &key, SystemTime::now());
            let certificate = certificate.map_err(|error| Status::internal(error.to_string()))?;
            let certificate = Bytes::copy_from_slice(&certificate);
            Ok(Response::new(EnrolResponse { certificate, seconds: VALIDITY.as_secs() }))
        })
    }
}

impl EnrolResponse {
    /// How long the certificate is valid, at most as long as any.
    pub(crate) fn validity(&self) -> Duration {
        Duration::from_secs(self.seconds).min(VALIDITY)
    }
}

fn ending() -> Status {
    Status::unavailable("the controller ends")
}
