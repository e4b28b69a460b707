//! Where a proxy finds its controller, and how it proves its identity there.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tonic::{Code, Status};
use tracing::{error, info, warn};

use crate::authority::CONTROLLER;
use crate::enrol::{EnrolRequest, EnrolResponse, Token};
use crate::grpc::{Connection, enrol};
use crate::limit::{FILE, PROOF_AGAIN, STRANGER, TOKEN};
use crate::socket;
use crate::tcp::PROTOCOL;

/// Where a controller is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In the same pod, at a Unix socket.
    Socket(PathBuf),
    /// In another pod, over TLS.
    Server(Arc<ControlServer>),
}

/// A controller in another pod, and this proxy's proof of identity.
pub struct ControlServer {
    /// `HOST:PORT`.
    address: String,
    /// The file of the authorities that sign certificates of controllers. It is read for each connection, because it changes.
    authorities: PathBuf,
    proof: Mutex<Proof>,
}

/// A proxy's proof of identity.
struct Proof {
    /// `None` once it has been accepted or rejected.
    token: Option<Token>,
    identity: Option<Identity>,
}

/// A key, and the certificate for it.
struct Identity {
    key: Vec<u8>,
    certificate: CertificateDer<'static>,
    renew_at: Instant,
    until: Instant,
}

/// Why there is no connection to a controller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("connecting")]
    Connect(#[from] io::Error),
    #[error("reading the authorities in {path}")]
    Authorities { path: PathBuf, source: io::Error },
    #[error("preparing TLS")]
    Tls(#[from] rustls::Error),
    #[error("making a key")]
    Key(#[from] rcgen::Error),
    #[error("asking for a certificate: {} ({:?})", .0.message(), .0.code())]
    Enrol(#[source] Status),
    #[error("asking for a certificate takes more than {STRANGER:?}")]
    Slow,
    /// A new process has a new token.
    #[error("this proxy can't prove who it is any more: start it anew")]
    Unproven,
}

impl Place {
    /// Connects.
    pub(crate) async fn connect(&self) -> Result<Connection, PlaceError> {
        match self {
            Self::Socket(path) => Ok(socket::connect(path).await?),
            Self::Server(server) => server.connect().await,
        }
    }

    /// Renews the certificate before it expires. Never ends.
    pub(crate) async fn keep(&self) {
        match self {
            Self::Socket(_) => std::future::pending().await,
            Self::Server(server) => server.keep().await,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Server(server) => server.address.fmt(f),
        }
    }
}

impl PlaceError {
    /// Whether only a new process has a new proof.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Unproven)
    }
}

impl ControlServer {
    /// A controller at `HOST:PORT` with a certificate of the authorities in a file. Reads the token, once: call it before the process gives
    /// up the right to.
    ///
    /// # Errors
    /// If the token can't be read.
    pub fn new(address: String, authorities: PathBuf, token: &Path) -> io::Result<Self> {
        let text = String::from_utf8(read(token)?).unwrap_or_default();
        let token = Some(Token::new(text.trim())).filter(|token| (1..=TOKEN).contains(&token.expose().len()));
        if token.is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no token in it"));
        }
        Ok(Self { address, authorities, proof: Mutex::new(Proof { token, identity: None }) })
    }

    pub(crate) async fn connect(&self) -> Result<Connection, PlaceError> {
        let shown = {
            let mut proof = self.proof();
            // An expired one would be refused.
            proof.identity = proof.identity.take().filter(|identity| Instant::now() < identity.until);
            proof.identity.is_some()
        };
        if !shown {
            self.enrol().await?;
        }
        self.dial(true).await
    }

    /// A connection over TLS, with the certificate or without.
    pub(crate) async fn dial(&self, shown: bool) -> Result<Connection, PlaceError> {
        let mut roots = RootCertStore::empty();
        let unreadable = |source| PlaceError::Authorities { path: self.authorities.clone(), source };
        let text = read(&self.authorities).map_err(unreadable)?;
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok));
        if roots.is_empty() {
            return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in it")));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let identity = self.proof().identity.as_ref().filter(|_| shown).map(Identity::copy);
        let mut config = match identity {
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key)?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from(CONTROLLER).map_err(io::Error::other)?, stream);
        Ok(Box::pin(stream.await?))
    }

    /// Gets a certificate for a new key, with the current one or with the token.
    pub(crate) async fn enrol(&self) -> Result<(), PlaceError> {
        let (token, renewed) = {
            let proof = self.proof();
            (proof.token.clone(), proof.identity.is_some())
        };
        if !renewed && token.is_none() {
            return Err(PlaceError::Unproven);
        }
        let key = KeyPair::generate()?;
        let token = token.map(|token| token.expose().to_owned()).filter(|_| !renewed).unwrap_or_default();
        let request = EnrolRequest { token, public_key: Bytes::copy_from_slice(key.public_key_raw()) };
        // Counted from before the request: the certificate is made after that.
        let begin = Instant::now();
        let answer = async { enrol(self.dial(renewed).await?, request).await.map_err(PlaceError::Enrol) };
        let answer = timeout(STRANGER, answer).await.map_err(|_| PlaceError::Slow)?;
        match answer {
            Ok(response) => {
                let validity = response.validity();
                let identity = Identity::new(&key, response, begin);
                let mut proof = self.proof();
                (proof.token, proof.identity) = (None, Some(identity));
                drop(proof);
                info!(renewed, days = validity.as_secs() / 86_400, "the controller has given this proxy a certificate");
                Ok(())
            }
            Err(PlaceError::Enrol(status)) if status.code() == Code::Unauthenticated && !renewed => {
                // The refusal is final: the token has expired, or is not for this purpose.
                self.proof().token = None;
                error!(reason = status.message(), "the controller does not take the token of this proxy");
                Err(PlaceError::Unproven)
            }
            Err(other) => Err(other),
        }
    }

    async fn keep(&self) {
        let mut failed = false;
        loop {
            let due = self.proof().identity.as_ref().map(|identity| (identity.renew_at, identity.until));
            let Some((renew_at, until)) = due else {
                sleep(PROOF_AGAIN).await;
                continue;
            };
            sleep_until(renew_at).await;
            match self.enrol().await {
                Ok(()) => failed = false,
                Err(error) => {
                    if !failed {
                        let error = fairway_model::ErrorChain(&error);
                        warn!(%error, days_left = until.saturating_duration_since(Instant::now()).as_secs() / 86_400, "can't renew the certificate for the controller: trying again each minute");
                    }
                    failed = true;
                    sleep(PROOF_AGAIN).await;
                }
            }
        }
    }

    fn proof(&self) -> MutexGuard<'_, Proof> {
        self.proof.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the proof.
impl fmt::Debug for ControlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Identity {
    fn new(key: &KeyPair, response: EnrolResponse, begin: Instant) -> Self {
        let validity = response.validity();
        let certificate = CertificateDer::from(response.certificate.to_vec());
        Self {
            key: key.serialize_der(),
            certificate,
            renew_at: begin + renewal(validity, crate::client::jitter()),
            until: begin + validity,
        }
    }

    fn copy(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        (self.certificate.clone(), PrivatePkcs8KeyDer::from(self.key.clone()).into())
    }
}

/// When a certificate is renewed: after half of its time, and up to a tenth of that earlier, so that proxies that started together don't
/// renew together.
fn renewal(validity: Duration, random: f64) -> Duration {
    (validity / 2).mul_f64(1.0 - random.clamp(0.0, 1.0) / 10.0)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_while_half_of_its_time_is_left() {
        let day = Duration::from_secs(86_400);
        assert_eq!(renewal(day, 0.0), day / 2);
        assert!(renewal(day, 1.0) < day / 2 && renewal(day, 1.0) > day / 3);
    }

    #[test]
    fn a_file_without_a_token_is_no_proof() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        let server = || ControlServer::new("localhost:1".to_owned(), "ca.crt".into(), &token);
        assert_eq!(server().unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&token, " \n").unwrap();
        assert_eq!(server().unwrap_err().kind(), io::ErrorKind::InvalidData);
        std::fs::write(&token, "text\n").unwrap();
        assert!(!format!("{:?}", server().unwrap()).contains("text"));
    }
}
