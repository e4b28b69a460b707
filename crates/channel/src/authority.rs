//! The authorities that sign the certificates of controllers and proxies, and that they trust.
//!
//! Invariant: an authority signs only after all parties have had a day to learn of it, and is trusted until everything it has signed has
//! expired. What each may do follows from its age alone, so controllers need to agree only on the list.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

/// The name in the certificates of controllers, which proxies expect. It is not looked up.
pub(crate) const CONTROLLER: &str = "controller.fairway";

const DAY: Duration = Duration::from_secs(86_400);

/// The age at which an authority gets a successor.
const SUCCESSION: Duration = DAY.saturating_mul(90);

/// How long a successor is trusted before it signs: each file that names it is rewritten within minutes.
const NOTICE: Duration = DAY;

/// How long a certificate is valid. A proxy's is renewed after half of this, so that it can do without controllers for days.
pub(crate) const VALIDITY: Duration = DAY.saturating_mul(7);

/// How long an authority lasts: beyond the last certificate that it can have signed if its successor was made in time.
const LIFE: Duration = DAY.saturating_mul(120);

/// By how much clocks may differ.
const SKEW: Duration = Duration::from_secs(3600);

/// Most authorities that are read: a longer list comes from something else.
const MOST: usize = 8;

/// The authorities of an installation, the oldest first. There is at least one.
#[derive(Clone)]
pub struct Authorities(Vec<Arc<Authority>>);

struct Authority {
    name: String,
    made: SystemTime,
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

/// An authority as it is kept.
#[derive(Deserialize, Serialize)]
struct Kept {
    name: String,
    /// Seconds since the beginning of 1970.
    made: u64,
    certificate: String,
    key: String,
}

/// Why there are no authorities.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A certificate or a key can't be made or read.
    #[error("making or reading a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The list is not one that this module has written.
    #[error("reading the list of authorities")]
    List(#[from] serde_json::Error),
    /// A certificate can't be parsed.
    #[error("the certificate of the authority {0} can't be read")]
    Unreadable(String),
    /// There are none, or too many.
    #[error("expected 1 to {MOST} authorities, found {0}")]
    Count(usize),
}

/// The holder of a signed certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    Controller,
    Proxy,
}

/// A public key of the curve P-256, as a point. A point off the curve makes a useless certificate.
pub(crate) struct PublicKey([u8; 65]);

impl PublicKey {
    /// An uncompressed point.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().filter(|point: &[u8; 65]| point[0] == 4).map(Self)
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl Authorities {
    /// A first authority, which signs at once.
    ///
    /// # Errors
    /// If there is no randomness for a key.
    pub fn new(now: SystemTime) -> Result<Self, AuthorityError> {
        Ok(Self(vec![Arc::new(Authority::new(now)?)]))
    }

    /// Reads what [`to_json`](Self::to_json) has written.
    ///
    /// # Errors
    /// If it is something else.
    pub fn from_json(text: &[u8]) -> Result<Self, AuthorityError> {
        let kept: Vec<Kept> = serde_json::from_slice(text)?;
        if kept.is_empty() || kept.len() > MOST {
            return Err(AuthorityError::Count(kept.len()));
        }
        let mut authorities =
            kept.into_iter().map(|one| Authority::from_kept(one).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        authorities.sort_by_key(|authority| authority.made);
        Ok(Self(authorities))
    }

    /// The whole list, with keys.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_json(&self) -> Result<Vec<u8>, AuthorityError> {
        let kept: Vec<_> = self.0.iter().map(|authority| authority.kept()).collect();
        Ok(serde_json::to_vec(&kept)?)
    }

    /// The certificates of all authorities, which every party trusts.
    pub fn trusted(&self) -> String {
        self.0.iter().map(|authority| authority.pem.as_str()).collect()
    }

    /// The name of the newest.
    pub fn newest(&self) -> &str {
        self.0.last().map_or("", |authority| &authority.name)
    }

    /// The list as it should be at this time; `None` if it already is.
    ///
    /// # Errors
    /// If there is no randomness for a key.
    pub fn due(&self, now: SystemTime) -> Result<Option<Self>, AuthorityError> {
        let signs_for = |at: usize| self.0.get(at + 1).map(|next| next.age(now).saturating_sub(NOTICE));
        // A predecessor goes when the last certificate it signed has expired.
        let is_over =
            |at: usize| self.0[at].age(now) >= LIFE || signs_for(at).is_some_and(|time| time >= VALIDITY + DAY);
        let mut due: Vec<_> = (0..self.0.len()).filter(|at| !is_over(*at)).map(|at| self.0[at].clone()).collect();
        let as_is = due.len() == self.0.len();
        if self.0.last().is_some_and(|newest| newest.age(now) < SUCCESSION) {
            return Ok((!as_is).then_some(Self(due)));
        }
        due.push(Arc::new(Authority::new(now)?));
        Ok(Some(Self(due)))
    }

    /// The certificates that every party trusts.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        self.0.iter().map(|authority| authority.certificate.clone())
    }

    /// Signs a certificate.
    pub(crate) fn sign(
        &self,
        subject: Subject,
        key: &impl PublicKeyData,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let (names, name, purpose) = match subject {
            Subject::Controller => (vec![CONTROLLER.to_owned()], "controller", ExtendedKeyUsagePurpose::ServerAuth),
            Subject::Proxy => (Vec::new(), "proxy", ExtendedKeyUsagePurpose::ClientAuth),
        };
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(1970, 1, 1) + since(now).saturating_sub(SKEW);
        params.not_after = date_time_ymd(1970, 1, 1) + since(now) + VALIDITY;
        let authority = self.signing(now).ok_or(AuthorityError::Count(0))?;
        let issuer = Issuer::new(Authority::params(&authority.name, authority.made), &authority.key);
        Ok(params.signed_by(key, &issuer)?.der().clone())
    }

    /// The newest one that every party knows.
    fn signing(&self, now: SystemTime) -> Option<&Authority> {
        let lasting = || self.0.iter().filter(|authority| authority.age(now) < LIFE);
        let known = lasting().rfind(|authority| authority.age(now) >= NOTICE);
        known.or_else(|| lasting().next()).map(|authority| &**authority)
    }
}

/// Without keys.
impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|authority| &authority.name)).finish()
    }
}

impl Authority {
    fn new(now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let name = format!("fairway {}", since(now).as_secs());
        let certificate = Self::params(&name, now).self_signed(&key)?;
        Ok(Self { name, made: now, pem: certificate.pem(), certificate: certificate.der().clone(), key })
    }

    fn from_kept(kept: Kept) -> Result<Self, AuthorityError> {
        let Kept { name, made, certificate: pem, key } = kept;
        let Ok(certificate) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
            return Err(AuthorityError::Unreadable(name));
        };
        let made = UNIX_EPOCH.checked_add(Duration::from_secs(made)).unwrap_or(UNIX_EPOCH);
        Ok(Self { name, made, certificate, pem, key: KeyPair::from_pem(&key)? })
    }

    fn kept(&self) -> Kept {
        Kept {
            name: self.name.clone(),
            made: since(self.made).as_secs(),
            certificate: self.pem.clone(),
            key: self.key.serialize_pem(),
        }
    }

    /// The same each time, so that certificates name it identically, whichever controller signs with its key.
    fn params(name: &str, made: SystemTime) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(SerialNumber::from(since(made).as_secs().max(1)));
        params.not_before = date_time_ymd(1970, 1, 1) + since(made).saturating_sub(SKEW);
        // It outlasts everything that it has signed.
        params.not_after = date_time_ymd(1970, 1, 1) + since(made) + LIFE + VALIDITY;
        params
    }

    fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.made).unwrap_or_default()
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn since(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> SystemTime {
        UNIX_EPOCH + DAY.saturating_mul(20_000 + u32::try_from(days).unwrap())
    }

    fn names(authorities: &Authorities) -> Vec<SystemTime> {
        authorities.0.iter().map(|authority| authority.made).collect()
    }

    /// The list after a controller has revised it on a day.
    fn on(authorities: Authorities, days: u64) -> Authorities {
        authorities.due(at(days)).unwrap().unwrap_or(authorities)
    }

    fn signing(authorities: &Authorities, days: u64) -> SystemTime {
        authorities.signing(at(days)).unwrap().made
    }

    #[test]
    fn a_successor_signs_once_it_is_known_and_the_predecessor_is_trusted_as_long_as_it_counts() {
        let first = Authorities::new(at(0)).unwrap();
        assert_eq!(signing(&first, 0), at(0), "there is no other");
        let first = on(first, 89);
        assert_eq!(names(&first), [at(0)]);
        let both = on(first, 90);
        assert_eq!((names(&both), signing(&both, 90)), (vec![at(0), at(90)], at(0)));
        assert_eq!(signing(&both, 91), at(90));
        let both = on(both, 98);
        assert_eq!(names(&both), [at(0), at(90)], "what was signed on day 91 counts until day 98");
        let second = on(both, 99);
        assert_eq!((names(&second), signing(&second, 99)), (vec![at(90)], at(90)));
    }

    #[test]
    fn after_a_long_pause_there_is_a_new_authority_that_signs_at_once() {
        let late = on(Authorities::new(at(0)).unwrap(), 200);
        assert_eq!((names(&late), signing(&late, 200)), (vec![at(200)], at(200)));
        // If it has not reached its end, the old one signs for another day.
        let late = on(Authorities::new(at(0)).unwrap(), 118);
        assert_eq!((names(&late), signing(&late, 118), signing(&late, 119)), (vec![at(0), at(118)], at(0), at(118)));
    }

    #[test]
    fn a_list_that_is_kept_is_the_same_when_it_is_read() {
        let both = on(Authorities::new(at(0)).unwrap(), 90);
        let read = Authorities::from_json(&both.to_json().unwrap()).unwrap();
        assert_eq!((names(&read), read.trusted()), (names(&both), both.trusted()));
        assert_eq!(read.trusted().matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!read.trusted().contains("KEY") && !format!("{read:?}").contains("KEY"));
        assert!(Authorities::from_json(b"[]").is_err() && Authorities::from_json(b"{}").is_err());
        let without_key = br#"[{"name": "a", "made": 1, "certificate": "", "key": ""}]"#;
        assert!(Authorities::from_json(without_key).is_err());
    }

    #[test]
    fn only_a_point_in_full_is_a_public_key() {
        let key = KeyPair::generate().unwrap();
        assert!(PublicKey::from_bytes(key.public_key_raw()).is_some());
        assert!(PublicKey::from_bytes(&[2; 65]).is_none() && PublicKey::from_bytes(&[4; 64]).is_none());
    }
}
