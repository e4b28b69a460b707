//! The controller's side of the channel over TCP, for proxies in other pods.
//!
//! Invariant: only a client that presents a proxy's certificate gets the configuration with its keys. Any other can only ask for that
//! certificate, and has a bounded share of connections and time for it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rcgen::KeyPair;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::authority::{Authorities, AuthorityError, Subject};
use crate::enrol::{Claim, Desk};
use crate::grpc::{Served, accept};
use crate::hub::Hub;
use crate::limit::{AGAIN_FIRST, PROXIES, STRANGER, STRANGERS, STRANGERS_EACH};

/// The protocol within TLS.
pub(crate) const PROTOCOL: &[u8] = b"h2";

/// An address at which a controller serves proxies of other pods.
#[derive(Debug)]
pub struct TcpServer {
    listener: TcpListener,
    desk: Desk,
    papers: watch::Receiver<Option<Papers>>,
}

/// The certificate of this controller, and the authorities that it trusts.
#[derive(Clone, Debug)]
pub struct Papers {
    tls: Arc<ServerConfig>,
    authorities: Arc<Authorities>,
}

/// Why a controller has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum PapersError {
    /// It can't be signed.
    #[error("signing the certificate of this controller")]
    Sign(#[from] AuthorityError),
    /// There is no key.
    #[error("making a key")]
    Key(#[from] rcgen::Error),
    /// It can't be used.
    #[error("using the certificate of this controller")]
    Tls(#[from] rustls::Error),
    /// No authority can be trusted.
    #[error("using the certificates of the authorities")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Connections of clients that have not presented a certificate.
#[derive(Clone, Debug, Default)]
struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them; dropping it makes room.
#[derive(Debug)]
struct Stranger(Strangers, IpAddr);

impl Papers {
    /// A certificate with a new key, signed by the authority that signs at this time. Must be replaced when the authorities change, and
    /// each day.
    ///
    /// # Errors
    /// If an authority can't be used.
    pub fn new(authorities: Authorities, now: SystemTime) -> Result<Self, PapersError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in authorities.certificates() {
            roots.add(certificate)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let verifier = verifier.allow_unauthenticated().build()?;
        let key = KeyPair::generate()?;
        let certificate = authorities.sign(Subject::Controller, &key, now)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)?;
        tls.alpn_protocols = vec![PROTOCOL.to_vec()];
        // A resumed session would outlive the certificates that it began with.
        tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        Ok(Self { tls: Arc::new(tls), authorities: Arc::new(authorities) })
    }
}

impl TcpServer {
    /// Opens an address. No client is served before there are papers. Tokens that clients present become `claims`.
    ///
    /// # Errors
    /// If the address can't be opened.
    pub async fn bind(
        address: SocketAddr,
        papers: watch::Receiver<Option<Papers>>,
        claims: mpsc::Sender<Claim>,
    ) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, desk: Desk::new(claims), papers })
    }

    /// The address.
    ///
    /// # Errors
    /// If the operating system does not know it.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves proxies. Never ends; when it is dropped, their connections end.
    pub async fn run(self, hub: Hub) {
        let Self { listener, desk, papers } = self;
        let strangers = Strangers::default();
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "can't accept a proxy");
                    // Perhaps the process has no file descriptors left; other connections may end.
                    tokio::time::sleep(AGAIN_FIRST).await;
                    continue;
                }
            };
            let papers = papers.borrow().clone();
            let (Some(papers), Some(stranger)) = (papers, strangers.admit(peer.ip())) else { continue };
            if connections.len() >= PROXIES + STRANGERS {
                continue;
            }
            let (hub, desk) = (hub.clone(), desk.clone());
            connections.spawn(async move {
                if let Err(error) = serve(stream, papers, hub, desk, stranger).await {
                    debug!(%peer, error = %fairway_model::ErrorChain(&error), "the connection of a proxy ended");
                }
            });
        }
    }
}

impl Strangers {
    fn admit(&self, address: IpAddr) -> Option<Stranger> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of_one, of_all) = (STRANGERS_EACH, STRANGERS);
        if counts.values().sum::<usize>() >= of_all || counts.get(&address).is_some_and(|count| *count >= of_one) {
            return None;
        }
        *counts.entry(address).or_default() += 1;
        Some(Stranger(self.clone(), address))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

async fn serve(stream: TcpStream, papers: Papers, hub: Hub, desk: Desk, stranger: Stranger) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Papers { tls, authorities } = papers;
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let handshake = timeout(STRANGER, TlsAcceptor::from(tls).accept(stream));
    let stream = handshake.await.map_err(|_| late())??;
    let known = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
    let served = Served { hub, desk: Some((desk, authorities)), known };
    let connection = accept(served, Box::pin(stream));
    if known {
        drop(stranger);
        return connection.await;
    }
    let ended = timeout(STRANGER, connection).await;
    drop(stranger);
    ended.map_err(|_| late())?
}

#[cfg(test)]
mod tests;
