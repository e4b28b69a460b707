//! The echo server's TLS: a certificate from files, and the result of a handshake as reported in the response.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ProtocolVersion, ServerConfig, ServerConnection};
use serde::Serialize;
use tokio_rustls::TlsAcceptor;

/// The result of a handshake.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TlsInfo {
    version: String,
    #[serde(rename = "serverName")]
    server_name: String,
    #[serde(rename = "negotiatedProtocol", skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(rename = "cipherSuite")]
    cipher_suite: String,
}

impl TlsInfo {
    pub(super) fn of(connection: &ServerConnection) -> Self {
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
            other => format!("{other:?}"),
        };
        let suite = connection.negotiated_cipher_suite();
        Self {
            version,
            server_name: connection.server_name().unwrap_or_default().to_owned(),
            protocol: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            cipher_suite: suite.map(|suite| format!("{:?}", suite.suite())).unwrap_or_default(),
        }
    }
}

/// The certificate named by the images' variables, if any.
pub(super) fn acceptor_of_variables() -> anyhow::Result<Option<TlsAcceptor>> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match (variable("TLS_SERVER_CERT"), variable("TLS_SERVER_PRIVKEY")) {
        (Some(certificate), Some(key)) => Ok(Some(acceptor(certificate.as_ref(), key.as_ref())?)),
        _ => Ok(None),
    }
}

/// Serves with the chain and the key in two files.
pub(super) fn acceptor(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate).and_then(|certificates| certificates.collect());
    let chain: Vec<_> = chain.with_context(|| format!("reading {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("reading {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
