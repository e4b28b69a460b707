//! The webhook's certificate, reread when its files change: a renewed certificate must not require a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

/// The state of a file when it was read.
type FileStamp = Option<(SystemTime, u64)>;

/// Largest file that is read.
const FILE: u64 = 1 << 20;

/// The files, and what was last read from them.
pub(super) struct Certificates {
    certificate: PathBuf,
    key: PathBuf,
    /// The authority that must have signed client certificates; without one, clients need none.
    authority: Option<PathBuf>,
    stamps: Vec<FileStamp>,
    tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Certificates {
    pub(super) fn new(certificate: PathBuf, key: PathBuf, authority: Option<PathBuf>) -> Self {
        Self { certificate, key, authority, stamps: Vec::new(), tls: None }
    }

    /// Reads files that have changed, and returns the settings in effect. If files can't be used, the previous ones stay in effect.
    pub(super) fn refresh(&mut self) -> Option<TlsAcceptor> {
        let files = [Some(&self.certificate), Some(&self.key), self.authority.as_ref()];
        let stamps: Vec<FileStamp> = files.into_iter().flatten().map(|file| stamp(file)).collect();
        if stamps != self.stamps {
            self.stamps = stamps;
            match self.read() {
                Ok(tls) => {
                    info!(certificate = %self.certificate.display(), "certificate of the admission webhook read");
                    self.tls = Some(tls);
                }
                Err(why) => {
                    let error = format!("{why:#}");
                    let then = if self.tls.is_some() { "the previous one stays" } else { "connections are closed" };
                    error!(error, then, "the certificate of the admission webhook can't be used");
                }
            }
        }
        self.tls.clone()
    }

    fn read(&self) -> anyhow::Result<TlsAcceptor> {
        let chain = certificates(&self.certificate)?;
        let key = text(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key).with_context(|| format!("the key in {}", self.key.display()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let config = match &self.authority {
            None => config.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(file)? {
                    roots.add(authority).with_context(|| format!("an authority in {}", file.display()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build()?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let mut config = config.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let text = text(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.with_context(|| format!("the certificates in {}", file.display()))?;
    ensure!(!found.is_empty(), "no certificate in {}", file.display());
    Ok(found)
}

fn text(file: &Path) -> anyhow::Result<Vec<u8>> {
    let size = fs::metadata(file).with_context(|| format!("reading {}", file.display()))?.len();
    ensure!(size <= FILE, "{} is larger than 1 MiB", file.display());
    fs::read(file).with_context(|| format!("reading {}", file.display()))
}

/// Follows symlinks: the kubelet renews the files of a Secret by changing a symlink.
fn stamp(file: &Path) -> FileStamp {
    let found = fs::metadata(file).ok()?;
    Some((found.modified().ok()?, found.len()))
}
