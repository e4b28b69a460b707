//! TLS on client connections: certificates chosen by server name from the current snapshot, versions 1.2 and 1.3, and sessions
//! that any worker can resume.
//!
//! A handshake uses the newest snapshot; later changes don't affect the connection.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use fairway_model::{
    Certificate, CertificateName, ClientAuth, ErrorChain, Host, HostCiphers, HostPattern, KeyGroup, Origin,
    Passthrough, Snapshot, TableName, TlsCipher, TlsSettings, TlsVersions,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ProtocolVersion, ServerConfig};
use tokio::sync::mpsc;

use crate::limit::TLS_SESSIONS;
use crate::net::client_certificate::ClientPolicy;
use crate::net::session::{self, ScopedSessions, ScopedTickets, SharedTickets};
use crate::record::TlsView;
use crate::stream::ServerTls;

/// HTTP/2 in ALPN.
pub(crate) const HTTP2: &[u8] = b"h2";

/// HTTP/1.1 in ALPN.
const HTTP1: &[u8] = b"http/1.1";

/// The certificates of the current snapshot, ready for use.
pub(crate) struct Certificates {
    snapshot: RwLock<Arc<Snapshot>>,
    /// Parsed keys, kept as long as their resource is current.
    parsed: Mutex<HashMap<CertificateName, UsableKey>>,
    configs: Mutex<HashMap<TableName, Arc<ServerConfigs>>>,
    /// Those of hosts that ask for client certificates or have cipher suites of their own, by the memory addresses of both, which they keep
    /// alive.
    special: Mutex<HashMap<(TableName, usize, usize), Arc<HostConfigs>>>,
    /// Numbers the scopes of sessions.
    scopes: AtomicU64,
    sessions: Arc<dyn StoresServerSessions>,
    fallback: OnceLock<Option<Arc<CertifiedKey>>>,
    /// Where certificates that are used for the first time are announced, so that responses can be stapled to them.
    wanted: OnceLock<mpsc::UnboundedSender<Arc<Certificate>>>,
    /// Encrypts tickets for all workers; the library changes its key every six hours.
    tickets: OnceLock<Option<Arc<dyn ProducesTickets>>>,
}

/// The TLS configurations for a table of hosts.
#[derive(Debug)]
pub(crate) struct ServerConfigs {
    usual: ByProtocol,
    /// For clients that prefer ChaCha20, since they have no instructions for AES.
    without_aes: ByProtocol,
    /// The settings that they were made with.
    settings: TlsSettings,
    table: TableName,
    certificates: Arc<Certificates>,
}

/// Configurations that differ in what they offer by ALPN.
#[derive(Debug)]
struct ByProtocol {
    with_http2: Arc<ServerConfig>,
    with_http1: Arc<ServerConfig>,
    without_protocol: Arc<ServerConfig>,
}

impl ByProtocol {
    fn new(mut config: ServerConfig) -> Self {
        let without_protocol = Arc::new(config.clone());
        config.alpn_protocols = vec![HTTP1.to_vec()];
        let with_http1 = Arc::new(config.clone());
        config.alpn_protocols.insert(0, HTTP2.to_vec());
        Self { with_http2: Arc::new(config), with_http1, without_protocol }
    }
}

/// The TLS configurations for one host of a table that asks for client certificates, or has cipher suites of its own.
#[derive(Debug)]
pub(crate) struct HostConfigs {
    /// What it asks for.
    pub(crate) policy: Option<Arc<ClientPolicy>>,
    ciphers: Option<Arc<HostCiphers>>,
    /// The configurations.
    pub(crate) configs: ServerConfigs,
}

impl HostConfigs {
    /// Whether a host still uses what they were made for.
    fn are_needed(&self) -> bool {
        // Each host that uses it holds it as well.
        let is_held = |auth: &Arc<ClientAuth>| Arc::strong_count(auth) > 1;
        self.policy.as_ref().is_none_or(|policy| is_held(&policy.auth))
            && self.ciphers.as_ref().is_none_or(|ciphers| Arc::strong_count(ciphers) > 1)
    }
}

impl ServerConfigs {
    /// The configurations for the current settings.
    pub(crate) fn current(&self) -> Arc<Self> {
        self.certificates.server_configs(&self.table)
    }

    /// Whether a client that names this host, or none if it is empty, is refused.
    pub(crate) fn rejects(&self, server_name: &[u8]) -> bool {
        let is_named = |host: &Arc<Host>| *host.pattern() != HostPattern::Any;
        self.settings.reject_unknown_names
            && !self.certificates.snapshot().host(&self.table, server_name).is_some_and(is_named)
    }

    /// The configuration for a client with which no protocol is negotiated.
    pub(crate) fn without_protocol(&self, hello: &ClientHello<'_>) -> &Arc<ServerConfig> {
        &self.by_suites(hello).without_protocol
    }

    fn by_suites(&self, hello: &ClientHello<'_>) -> &ByProtocol {
        let kind = |suite: &CipherSuite| Some(preference(*suite)).filter(|kind| *kind != Preference::Other);
        match hello.cipher_suites().iter().find_map(kind) {
            Some(Preference::ChaCha20) => &self.without_aes,
            _ => &self.usual,
        }
    }

    /// Where the connection of a client that names this host passes to, if no requests are read from it.
    pub(crate) fn passthrough(&self, server_name: &[u8]) -> Option<Arc<Passthrough>> {
        self.certificates.snapshot().passthrough(&self.table, server_name).cloned()
    }

    /// The listener that a name selects; empty if it belongs to none.
    pub(crate) fn listener(&self, server_name: &[u8]) -> Option<Arc<str>> {
        let snapshot = self.certificates.snapshot();
        let chosen = snapshot.host(&self.table, server_name).and_then(|host| host.listener().cloned());
        Some(chosen.unwrap_or_default())
    }

    /// The configurations for a host with its own. An empty name is that of a client that names none.
    pub(crate) fn of_host(&self, server_name: &[u8]) -> Option<Arc<HostConfigs>> {
        self.certificates.of_host(&self.table, server_name)
    }

    /// The configuration for a client that offers these protocols. One that offers only unsupported ones is served as if it had
    /// offered none.
    pub(crate) fn choose(&self, hello: &ClientHello<'_>, http2: bool) -> &Arc<ServerConfig> {
        let spoken = |name: &[u8]| name == HTTP1 || (http2 && name == HTTP2);
        let configs = self.by_suites(hello);
        match hello.alpn().map(|mut names| names.any(spoken)) {
            Some(false) => &configs.without_protocol,
            _ if http2 => &configs.with_http2,
            _ => &configs.with_http1,
        }
    }
}

/// A certificate resource with its key; `None` if it can't be used.
type UsableKey = (Arc<Certificate>, Option<Arc<CertifiedKey>>);

impl Certificates {
    /// Creates the certificates of a snapshot.
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Arc<Self> {
        Arc::new(Self {
            snapshot: RwLock::new(snapshot),
            parsed: Mutex::default(),
            configs: Mutex::default(),
            special: Mutex::default(),
            scopes: AtomicU64::new(0),
            sessions: ServerSessionMemoryCache::new(TLS_SESSIONS),
            fallback: OnceLock::new(),
            wanted: OnceLock::new(),
            tickets: OnceLock::new(),
        })
    }

    /// Makes new handshakes use this snapshot.
    pub(crate) fn publish(&self, snapshot: Arc<Snapshot>) {
        locked(&self.parsed).retain(|name, (resource, _)| {
            snapshot.certificate(name).is_some_and(|current| Arc::ptr_eq(current, resource))
        });
        let (tls, before) = (&snapshot.settings().tls, self.snapshot());
        if *tls != before.settings().tls {
            locked(&self.special).clear();
        }
        let staples_change = tls.staple != before.settings().tls.staple;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
        if staples_change {
            // They are announced again, or lose their staples.
            locked(&self.parsed).clear();
        }
        locked(&self.special).retain(|_, configs| configs.are_needed());
    }

    /// Announces certificates in use to the result from now on. Call it once.
    pub(crate) fn staple_by(&self) -> mpsc::UnboundedReceiver<Arc<Certificate>> {
        let (wanted, received) = mpsc::unbounded_channel();
        let _ = self.wanted.set(wanted);
        received
    }

    /// Whether a certificate is in use and current, and wants a staple.
    pub(crate) fn holds(&self, certificate: &Arc<Certificate>) -> bool {
        let wants = self.snapshot().settings().tls.staple;
        wants
            && locked(&self.parsed)
                .get(&certificate.name)
                .is_some_and(|(resource, _)| Arc::ptr_eq(resource, certificate))
    }

    /// Staples a response to a certificate, or takes the stapled one away; `false` if the certificate is not in use any more.
    pub(crate) fn staple(&self, certificate: &Arc<Certificate>, response: Option<Vec<u8>>) -> bool {
        let wants = self.snapshot().settings().tls.staple;
        match locked(&self.parsed).get_mut(&certificate.name) {
            Some((resource, Some(key))) if wants && Arc::ptr_eq(resource, certificate) => {
                *key = Arc::new(CertifiedKey { ocsp: response, ..(**key).clone() });
                true
            }
            _ => false,
        }
    }

    /// The TLS configuration for the listeners that serve a table of hosts.
    pub(crate) fn server_configs(self: &Arc<Self>, table: &TableName) -> Arc<ServerConfigs> {
        let snapshot = self.snapshot();
        let settings = &snapshot.settings().tls;
        let mut configs = locked(&self.configs);
        if let Some(made) = configs.get(table)
            && made.settings == *settings
        {
            return made.clone();
        }
        let made = Arc::new(self.make_configs(table.clone(), settings, None, None));
        configs.insert(table.clone(), made.clone());
        made
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configurations for a host with its own. An empty name is that of a client that names none.
    fn of_host(self: &Arc<Self>, table: &TableName, server_name: &[u8]) -> Option<Arc<HostConfigs>> {
        let snapshot = self.snapshot();
        let host = snapshot.greeted(table, server_name)?;
        let (auth, ciphers) = (host.client_auth(), host.ciphers());
        if auth.is_none() && ciphers.is_none() {
            return None;
        }
        let mut special = locked(&self.special);
        let auth_address = auth.map_or(0, |auth| Arc::as_ptr(auth) as usize);
        let key = (table.clone(), auth_address, ciphers.map_or(0, |ciphers| Arc::as_ptr(ciphers) as usize));
        let make = || {
            let policy = auth.map(|auth| Arc::new(ClientPolicy::new(auth.clone())));
            let ciphers = ciphers.cloned();
            let settings = &snapshot.settings().tls;
            let configs = self.make_configs(table.clone(), settings, policy.as_ref(), ciphers.as_deref());
            Arc::new(HostConfigs { configs, policy, ciphers })
        };
        Some(special.entry(key).or_insert_with(make).clone())
    }

    fn make_configs(
        self: &Arc<Self>,
        table: TableName,
        settings: &TlsSettings,
        policy: Option<&Arc<ClientPolicy>>,
        own: Option<&HostCiphers>,
    ) -> ServerConfigs {
        let ciphers = own.map(|own| &own.ciphers).filter(|own| !own.is_empty()).unwrap_or(&settings.ciphers);
        let resolver = Arc::new(CertificateResolver { certificates: self.clone(), table: table.clone() });
        let builder = |provider: CryptoProvider, versions| {
            ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions)
        };
        // Settings that leave nothing for a version, which none of ours do, would be treated as the default.
        let chosen = builder(provider(ciphers, &settings.groups), versions(settings.versions))
            .or_else(|_| builder(aws_lc_rs::default_provider(), rustls::ALL_VERSIONS));
        let Ok(builder) = chosen else { unreachable!("aws-lc-rs has cipher suites for TLS 1.2 and 1.3") };
        let builder = match policy {
            Some(policy) => builder.with_client_cert_verifier(policy.asking()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver);
        // A session begun where other certificates, or none, were asked for is not resumed.
        let scope = self.scopes.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let (sessions, lifetime) = (self.sessions.clone(), settings.remembered.map(|time| time.as_secs()));
        config.session_storage = Arc::new(ScopedSessions { scope, sessions, lifetime });
        let tickets = || match &settings.ticket_key {
            Some(key) => {
                let tickets: Arc<dyn ProducesTickets> = Arc::new(SharedTickets::new(key)?);
                Some((session::lasting_scope(&table, policy.map(|policy| &*policy.auth)), tickets))
            }
            None => {
                self.tickets.get_or_init(|| aws_lc_rs::Ticketer::new().ok()).clone().map(|tickets| (scope, tickets))
            }
        };
        if let Some((scope, tickets)) = settings.tickets.then(tickets).flatten() {
            config.ticketer = Arc::new(ScopedTickets { scope, tickets });
        }
        config.max_early_data_size = 0;
        config.ignore_client_order = own.is_none_or(|own| !own.client_order);
        let usual = ByProtocol::new(config.clone());
        // A user's own list is kept as it is.
        config.ignore_client_order &= !ciphers.is_empty();
        ServerConfigs {
            usual,
            without_aes: ByProtocol::new(config),
            settings: settings.clone(),
            table,
            certificates: self.clone(),
        }
    }

    /// The certificate for a name: its own, else the default, else the self-signed one. An unusable certificate counts as
    /// missing.
    fn resolve(&self, table: &TableName, name: Option<&[u8]>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.snapshot();
        let own = snapshot.certificate_for(table, name).and_then(|certificate| self.parse(certificate));
        let default = || {
            let name = snapshot.settings().default_certificate.as_ref()?;
            self.parse(snapshot.certificate(name)?)
        };
        own.or_else(default).or_else(|| self.fallback.get_or_init(self_signed).clone())
    }

    /// The certificate of a name with another kind of key than its own.
    fn alternative(&self, table: &TableName, name: &[u8]) -> Option<Arc<CertifiedKey>> {
        self.parse(self.snapshot().alternative_certificate_for(table, name)?)
    }

    fn parse(&self, certificate: &Arc<Certificate>) -> Option<Arc<CertifiedKey>> {
        let mut parsed = locked(&self.parsed);
        if let Some((resource, key)) = parsed.get(&certificate.name)
            && Arc::ptr_eq(resource, certificate)
        {
            return key.clone();
        }
        let key = certified(certificate);
        if let Err(error) = &key {
            let Origin { kind, namespace, name, .. } = &certificate.origin;
            let error = ErrorChain(error);
            tracing::warn!(kind = &**kind, namespace = &**namespace, name = &**name, %error, "a certificate cannot be used");
        }
        let key = key.ok().map(Arc::new);
        parsed.insert(certificate.name.clone(), (certificate.clone(), key.clone()));
        if let (Some(_), Some(wanted)) = (&key, self.wanted.get())
            && self.snapshot().settings().tls.staple
        {
            // Without the task, the process is about to end.
            wanted.send(certificate.clone()).ok();
        }
        key
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

/// Locks even after a panic in another thread: the maps stay consistent.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn certified(certificate: &Certificate) -> Result<CertifiedKey, rustls::Error> {
    let chain = certificate.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certificate.key.der().to_vec()));
    let (chain, provider): (Vec<_>, _) = (chain, aws_lc_rs::default_provider());
    match CertifiedKey::from_der(chain.clone(), key(), &provider) {
        // rustls can't parse X.509 version 1, but it can serve it. Reading the certificate checked that the key matches.
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(_))) => {
            Ok(CertifiedKey::new(chain, provider.key_provider.load_private_key(key())?))
        }
        result => result,
    }
}

/// The certificate that ingress-nginx serves for names without one when the default is missing.
fn self_signed() -> Option<Arc<CertifiedKey>> {
    let made = || -> Result<CertifiedKey, Box<dyn std::error::Error>> {
        let mut params = rcgen::CertificateParams::new(vec!["ingress.local".to_owned()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Acme Co");
        params.distinguished_name.push(rcgen::DnType::CommonName, "Kubernetes Ingress Controller Fake Certificate");
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::from_der(vec![certificate.der().clone()], der, &aws_lc_rs::default_provider())?)
    };
    made().inspect_err(|error| tracing::error!(%error, "no self-signed certificate can be made")).ok().map(Arc::new)
}

/// The versions that these settings allow.
fn versions(versions: TlsVersions) -> &'static [&'static rustls::SupportedProtocolVersion] {
    static ALL: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match versions {
        TlsVersions::All => &ALL,
        TlsVersions::Tls12 => &ALL[1..],
        TlsVersions::Tls13 => &ALL[..1],
    }
}

/// The cipher suites and groups that these settings allow.
fn provider(ciphers: &[TlsCipher], groups: &[KeyGroup]) -> CryptoProvider {
    use aws_lc_rs::kx_group as group;
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| preference(suite.suite()));
    restrict(&mut provider, ciphers);
    let groups = if groups.is_empty() { KeyGroup::ALL } else { groups };
    provider.kx_groups = groups
        .iter()
        .map(|group| match group {
            KeyGroup::X25519MlKem768 => group::X25519MLKEM768,
            KeyGroup::X25519 => group::X25519,
            KeyGroup::P256 => group::SECP256R1,
            KeyGroup::P384 => group::SECP384R1,
        })
        .collect();
    provider
}

/// The order in which cipher suites are preferred, as by ingress-nginx in TLS 1.2. AES-128 needs less than AES-256 for each byte,
/// and less than half of its instructions for a handshake: its hash is SHA-256, for which processors have instructions.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Preference {
    Aes128,
    Aes256,
    ChaCha20,
    /// Not spoken here.
    Other,
}

fn preference(suite: CipherSuite) -> Preference {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Preference::Aes128,
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Preference::Aes256,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Preference::ChaCha20,
        _ => Preference::Other,
    }
}

/// Leaves only these cipher suites of TLS 1.2, in this order; all of them if none are given.
pub(crate) fn restrict(provider: &mut CryptoProvider, ciphers: &[TlsCipher]) {
    use aws_lc_rs::cipher_suite as suite;
    if !ciphers.is_empty() {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        provider.cipher_suites.extend(ciphers.iter().map(|cipher| match cipher {
            TlsCipher::EcdsaAes128 => suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            TlsCipher::EcdsaAes256 => suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            TlsCipher::EcdsaChaCha20 => suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            TlsCipher::RsaAes128 => suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            TlsCipher::RsaAes256 => suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            TlsCipher::RsaChaCha20 => suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        }));
    }
}

struct CertificateResolver {
    certificates: Arc<Certificates>,
    table: TableName,
}

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("table", &self.table).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(canonical);
        let name = name.as_deref().map(str::as_bytes);
        let own = self.certificates.resolve(&self.table, name)?;
        // The first certificate is served wherever it can be; another one only if the client can't verify the first.
        let fits = |key: &Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let alternative = || name.and_then(|name| self.certificates.alternative(&self.table, name)).filter(fits);
        Some(if fits(&own) { own } else { alternative().unwrap_or(own) })
    }
}

/// The canonical form of a name in a hello. rustls refuses names that are not DNS names, so only case and final dot are left.
pub(crate) fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The log's view of a connection's session.
pub(crate) fn view(tls: &ServerTls) -> TlsView<'_> {
    let session = tls.session();
    TlsView {
        protocol: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "",
        },
        cipher: session.negotiated_cipher_suite().map_or("", |suite| cipher_name(suite.suite())),
        server_name: tls.server_name(),
        resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
    }
}

/// Names as used by OpenSSL, which nginx logs.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::{Origin, PrivateKey};
    use rustls::pki_types::pem::PemObject;

    /// Made by `openssl x509 -req -signkey` without extensions, valid for a hundred years.
    const VERSION_1: &str = include_str!("../../../testkit/version-1.crt");
    const KEY_OF_VERSION_1: &str = include_str!("../../../testkit/version-1.key");

    #[test]
    fn a_certificate_of_version_1_can_be_served() {
        let chain = CertificateDer::from_pem_slice(VERSION_1.as_bytes()).unwrap();
        let key = PrivatePkcs8KeyDer::from_pem_slice(KEY_OF_VERSION_1.as_bytes()).unwrap();
        let mut certificate = Certificate {
            name: "a/b".into(),
            origin: Origin::new("Secret", "a", "b"),
            fingerprint: "".into(),
            not_after: 0,
            chain: vec![chain.as_ref().into()],
            key: PrivateKey::new(key.secret_pkcs8_der().to_vec()),
        };
        assert!(certified(&certificate).is_ok());
        certificate.chain = vec![b"no certificate".as_slice().into()];
        assert!(certified(&certificate).is_err());
    }
}
