//! Certificates, keys and kubeconfigs: the identities of the components.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use crate::cluster::network::{API_PORT, OUTSIDE};

/// A certificate and its key, in files.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// An identity: RBAC takes the common name as the user and the organisation as the group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) user: &'a str,
    pub(crate) group: Option<&'a str>,
}

/// The cluster's certificate authority, and the folder for all files.
pub(crate) struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Creates an authority whose certificate is `ca.crt` in `directory`.
    pub(crate) fn create(directory: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "cluster");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?;
        let authority = Self { directory: directory.to_owned(), issuer: Issuer::new(parameters, key) };
        write(&authority.certificate(), &certificate.pem())?;
        Ok(authority)
    }

    /// The file with the authority's certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// A certificate for a server with these names and addresses.
    pub(crate) fn server(&self, file: &str, names: &[&str], addresses: &[IpAddr]) -> anyhow::Result<Pair> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names)?;
        parameters.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        parameters.distinguished_name.push(DnType::CommonName, file);
        self.sign(file, parameters, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client.
    pub(crate) fn client(&self, file: &str, subject: Subject<'_>) -> anyhow::Result<Pair> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, subject.user);
        if let Some(group) = subject.group {
            parameters.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.sign(file, parameters, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A kubeconfig at `path` for `subject`, with a certificate of its own.
    pub(crate) fn kubeconfig(&self, path: &Path, subject: Subject<'_>) -> anyhow::Result<()> {
        let pair = self.client(&subject.user.replace(':', "-"), subject)?;
        // JSON strings are YAML strings: a path with a space or a colon remains intact.
        let quote = |path: &Path| serde_json::Value::String(path.to_string_lossy().into_owned()).to_string();
        let text = format!(
            "apiVersion: v1\n\
             kind: Config\n\
             current-context: cluster\n\
             clusters:\n\
             - name: cluster\n  \
               cluster:\n    \
                 server: https://{OUTSIDE}:{API_PORT}\n    \
                 certificate-authority: {}\n\
             users:\n\
             - name: user\n  \
               user:\n    \
                 client-certificate: {}\n    \
                 client-key: {}\n\
             contexts:\n\
             - name: cluster\n  \
               context:\n    \
                 cluster: cluster\n    \
                 user: user\n",
            quote(&self.certificate()),
            quote(&pair.certificate),
            quote(&pair.key),
        );
        write(path, &text)
    }

    /// A key pair for signing ServiceAccount tokens: the private key, with the public key in place of the certificate.
    pub(crate) fn service_account(&self) -> anyhow::Result<Pair> {
        let pair = self.pair("service-account");
        let key = KeyPair::generate()?;
        write(&pair.key, &key.serialize_pem())?;
        write(&pair.certificate, &key.public_key_pem())?;
        Ok(pair)
    }

    fn sign(
        &self,
        file: &str,
        mut parameters: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
    ) -> anyhow::Result<Pair> {
        parameters.extended_key_usages = vec![purpose];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let pair = self.pair(file);
        let key = KeyPair::generate()?;
        write(&pair.certificate, &parameters.signed_by(&key, &self.issuer)?.pem())?;
        write(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }

    fn pair(&self, file: &str) -> Pair {
        Pair {
            certificate: self.directory.join(format!("{file}.crt")),
            key: self.directory.join(format!("{file}.key")),
        }
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
