//! A certificate and its key in files, created for each run.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;

/// The paths of the files.
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl TlsFiles {
    /// Makes `tls.crt` and `tls.key` in a folder: self-signed, P-256, for one host and two days.
    pub(crate) fn make(folder: &Path, host: &str) -> anyhow::Result<Self> {
        let files = Self { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        openssl.args(["-subj", &format!("/CN={host}"), "-addext", &format!("subjectAltName=DNS:{host}")]);
        shell::read(openssl.arg("-keyout").arg(&files.key).arg("-out").arg(&files.certificate))?;
        Ok(files)
    }

    /// The Secret `tls` in a namespace, as a YAML document.
    pub(crate) fn secret(&self, namespace: &str) -> anyhow::Result<String> {
        Ok(format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: tls, namespace: {namespace}}}\ntype: kubernetes.io/tls\n\
             data:\n  tls.crt: {}\n  tls.key: {}\n",
            encode(&self.certificate)?,
            encode(&self.key)?
        ))
    }
}

fn encode(file: &Path) -> anyhow::Result<String> {
    Ok(String::from_utf8(shell::read(Command::new("openssl").args(["base64", "-A", "-in"]).arg(file))?)?)
}
