//! An ACME authority, pebble, which validates as a public one does: it looks up the address of a name in DNS and sends its request there,
//! to port 80. Its DNS has only the names that a test enters.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, ensure};
use fairway_e2e::scene::Scene;
use fairway_testkit::Ca;
use serde_json::json;
use tempfile::TempDir;

use super::start;
use crate::ground::Background;

/// The address of its DNS server.
pub(super) const DNS: &str = "127.0.0.1:8053";

/// The ACME directory, where clients start.
pub(super) const DIRECTORY: &str = "https://127.0.0.1:14000/dir";

/// The root certificate, on the management interface.
const ROOT: &str = "https://127.0.0.1:15000/roots/0";

/// The address at which names are entered.
const NAMES: &str = "127.0.0.1:8055";

/// Ends when dropped.
pub(super) struct Authority<'a> {
    scene: &'a Scene,
    folder: TempDir,
    /// The authority that signs the server's own certificate, not the one that signs orders.
    ca: Ca,
    _processes: [Background; 2],
}

impl<'a> Authority<'a> {
    /// Starts pebble and waits until it answers.
    pub(super) async fn start(scene: &'a Scene) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ca = Ca::new("authority");
        let leaf = ca.leaf(&["127.0.0.1"]);
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("ca.pem"), ca.pem())?;
        fs::write(path("tls.crt"), leaf.certificate_pem())?;
        fs::write(path("tls.key"), leaf.key_pem())?;
        let settings = json!({"pebble": {
            "listenAddress": "127.0.0.1:14000",
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": path("tls.crt"),
            "privateKey": path("tls.key"),
            "httpPort": 80,
            "tlsPort": 443,
            "retryAfter": {"authz": 1, "order": 1},
            "keyAlgorithm": "ecdsa",
        }});
        fs::write(path("pebble.json"), settings.to_string())?;
        let none =
            ["http01", "https01", "tlsalpn01", "doh", "defaultIPv4", "defaultIPv6"].map(|name| format!("-{name}="));
        let own = [format!("-dnsserver={DNS}"), format!("-management={NAMES}")];
        let names = start(scene, "pebble-challtestsrv", &[], &[&none[..], &own].concat())?;
        // Every order is validated again, without the random delays that are the default.
        let variables = [("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")];
        let arguments = [format!("-config={}", path("pebble.json")), format!("-dnsserver={DNS}")];
        let pebble = start(scene, "pebble", &variables, &arguments)?;
        let authority = Self { scene, folder, ca, _processes: [pebble, names] };
        let root = scene.find("the authority answers", async || authority.curl(&[ROOT]).await.map(Some)).await?;
        fs::write(authority.path("root.pem"), root)?;
        Ok(authority)
    }

    /// The certificate of the authority for the server's own certificate, for ACME clients.
    pub(super) fn ca(&self) -> String {
        self.ca.pem()
    }

    /// Makes a name resolve to an address.
    pub(super) async fn enter(&self, name: &str, address: IpAddr) -> anyhow::Result<()> {
        let record = json!({"host": name, "addresses": [address]}).to_string();
        self.curl(&["--data", &record, &format!("http://{NAMES}/add-a")]).await.map(drop)
    }

    /// The https response for a host at an address. The client trusts only this authority, so other certificates make it fail.
    pub(super) async fn get(&self, host: &str, address: IpAddr) -> anyhow::Result<String> {
        let (root, place) = (self.path("root.pem"), format!("{host}:443:{address}"));
        self.curl(&["--cacert", &root, "--resolve", &place, &format!("https://{host}/")]).await
    }

    async fn curl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let ca = self.path("ca.pem");
        let common = ["--silent", "--show-error", "--fail", "--max-time", "5", "--noproxy", "*", "--cacert", &ca];
        let output = self.scene.output("curl", &[&common, arguments].concat()).await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).context("an answer of text")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}
