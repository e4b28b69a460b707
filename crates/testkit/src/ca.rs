//! A certificate authority for tests: leaves that are valid, expired, for other names, or with another leaf's key.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    RevokedCertParams, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A root or an intermediate that issues leaves.
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The certificates between a leaf and the root, the leaf's issuer first; empty for a root.
    intermediates: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
}

impl Ca {
    /// A self-signed root with this common name.
    pub fn new(name: &str) -> Self {
        let issuer = CertifiedIssuer::self_signed(Self::params(name), key(false)).expect("a self-signed root");
        Self { root: issuer.der().clone(), issuer, intermediates: Vec::new() }
    }

    /// An intermediate below this authority. Its leaves include it in their chain.
    pub fn intermediate(&self, name: &str) -> Self {
        let issuer = CertifiedIssuer::signed_by(Self::params(name), key(false), &self.issuer).expect("an intermediate");
        let mut intermediates = vec![issuer.der().clone()];
        intermediates.extend_from_slice(&self.intermediates);
        Self { issuer, intermediates, root: self.root.clone() }
    }

    /// A valid EC P-256 leaf for DNS names or addresses.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.certificate(names).issue()
    }

    /// Builds a leaf with options, see [`LeafBuilder`].
    pub fn certificate(&self, names: &[&str]) -> LeafBuilder<'_> {
        let names: Vec<_> = names.iter().copied().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names.clone()).expect("names that fit a certificate");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("leaf", String::as_str));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        LeafBuilder { ca: self, params, rsa: false, mismatched: false }
    }

    /// A revocation list with these serial numbers in DER, as in `ca.crl`; it expires in the year 2001 or 4000.
    pub fn revocation_list(&self, serials: &[u8], current: bool) -> Vec<u8> {
        let revoked = |serial: &u8| RevokedCertParams {
            serial_number: vec![*serial].into(),
            revocation_time: date_time_ymd(2000, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 1, 1),
            next_update: date_time_ymd(if current { 4000 } else { 2001 }, 1, 1),
            crl_number: vec![1].into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a signed list").der().to_vec()
    }

    /// The root, as in `ca.crt`.
    pub fn pem(&self) -> String {
        pem(std::slice::from_ref(&self.root))
    }

    /// The root.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// A store that trusts only the root.
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("our own root parses");
        Arc::new(roots)
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }
}

/// Options for a leaf; [`LeafBuilder::issue`] creates it.
#[must_use]
pub struct LeafBuilder<'a> {
    ca: &'a Ca,
    params: CertificateParams,
    rsa: bool,
    mismatched: bool,
}

impl LeafBuilder<'_> {
    /// Uses a 2048-bit RSA key in place of EC P-256.
    pub fn rsa(mut self) -> Self {
        self.rsa = true;
        self
    }

    /// Makes it expire in the year 2001.
    pub fn expired(self) -> Self {
        self.valid((2000, 1, 1), (2001, 1, 1))
    }

    /// Makes it valid from the year 4000.
    pub fn not_yet_valid(self) -> Self {
        self.valid((4000, 1, 1), (4001, 1, 1))
    }

    /// Makes it valid between two dates, each a year, month and day.
    pub fn valid(mut self, from: (i32, u8, u8), until: (i32, u8, u8)) -> Self {
        self.params.not_before = date_time_ymd(from.0, from.1, from.2);
        self.params.not_after = date_time_ymd(until.0, until.1, until.2);
        self
    }

    /// Sets the serial number.
    pub fn serial(mut self, number: u8) -> Self {
        self.params.serial_number = Some(vec![number].into());
        self
    }

    /// Sets the common name, by default the first of the names.
    pub fn common_name(mut self, name: &str) -> Self {
        self.params.distinguished_name.push(DnType::CommonName, name);
        self
    }

    /// Adds a URI to its names.
    pub fn uri(mut self, uri: &str) -> Self {
        let uri = uri.try_into().expect("a URI in ASCII");
        self.params.subject_alt_names.push(rcgen::SanType::URI(uri));
        self
    }

    /// Pairs it with the private key of another certificate.
    pub fn mismatched_key(mut self) -> Self {
        self.mismatched = true;
        self
    }

    /// Signs the leaf.
    pub fn issue(self) -> Leaf {
        let pair = key(self.rsa);
        let certificate = self.params.signed_by(&pair, &self.ca.issuer).expect("a signed leaf");
        let mut chain = vec![certificate.der().clone()];
        chain.extend_from_slice(&self.ca.intermediates);
        Leaf { chain, key: if self.mismatched { key(self.rsa) } else { pair } }
    }
}

/// A certificate chain with a private key.
pub struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Leaf {
    /// The chain, leaf first and without the root, as in `tls.crt`.
    pub fn certificate_pem(&self) -> String {
        pem(&self.chain)
    }

    /// The private key in PKCS#8, as in `tls.key`.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The chain, leaf first and without the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf alone.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// The private key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

fn key(rsa: bool) -> KeyPair {
    KeyPair::generate_for(if rsa { &PKCS_RSA_SHA256 } else { &PKCS_ECDSA_P256_SHA256 }).expect("a new key")
}

fn pem(chain: &[CertificateDer<'static>]) -> String {
    chain.iter().map(|der| encode_pem("CERTIFICATE", der)).collect()
}

/// RFC 7468: base64 in lines of 64 characters between two markers.
fn encode_pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut body = String::new();
    for group in der.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for position in 0..4 {
            if body.len() % 65 == 64 {
                body.push('\n');
            }
            let symbol = ALPHABET[(bits >> (18 - 6 * position)) as usize & 63];
            body.push(if position <= group.len() { char::from(symbol) } else { '=' });
        }
    }
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn pem_reads_back_with_the_chain_in_order() {
        let ca = Ca::new("root").intermediate("between");
        let leaf = ca.leaf(&["a.example", "127.0.0.1"]);
        let read: Vec<_> =
            CertificateDer::pem_slice_iter(leaf.certificate_pem().as_bytes()).map(Result::unwrap).collect();
        assert_eq!(read, leaf.chain());
        assert_eq!(read.len(), 2);
        assert_eq!(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap(), *ca.der());
        assert_eq!(PrivateKeyDer::from_pem_slice(leaf.key_pem().as_bytes()).unwrap(), leaf.key());
    }

    #[test]
    fn rsa_and_mismatched_keys_are_as_requested() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let ca = Ca::new("root");
        let certified = |leaf: Leaf| rustls::sign::CertifiedKey::from_der(leaf.chain.clone(), leaf.key(), &provider);
        let rsa = certified(ca.certificate(&["a.example"]).rsa().issue()).unwrap();
        assert_eq!(rsa.key.algorithm(), rustls::SignatureAlgorithm::RSA);
        assert!(certified(ca.certificate(&["a.example"]).mismatched_key().issue()).is_err());
    }
}
