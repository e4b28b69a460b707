//! Client certificates: what a host asks for, and what is known about the one that a client presents.
//!
//! The TLS layer asks for a certificate and accepts any, so that a client without a good one gets an HTTP response that says so, unless the
//! host wants the handshake to fail. Invariant: only [`decide`](crate::decision::decide) admits a request to a host that asks for one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Authority, SearchRegex};

/// The client certificates that a host asks for.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ClientAuth {
    /// Whether a client needs one.
    pub mode: ClientAuthMode,
    /// Whose certificates are accepted.
    pub authorities: Arc<[Authority]>,
    /// Revocation lists in DER, of the authorities and of intermediate ones. If there are any, each link of a chain needs a current one.
    #[serde(default, skip_serializing_if = "<[Authority]>::is_empty")]
    pub revocation_lists: Arc<[Authority]>,
    /// Largest number of intermediate certificates between the client's and an authority.
    pub depth: u32,
    /// What the subject must match; others get 403.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<SearchRegex>,
    /// What a client gets in place of 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_page: Option<CertificateErrorPage>,
    /// Whether backends get the certificate itself.
    pub passes_certificate: bool,
    /// Whether a client without a good certificate fails in the handshake instead of getting a response.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_handshake: bool,
}

/// Whether a client needs a certificate, and how good it must be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ClientAuthMode {
    /// A good certificate is required.
    Required,
    /// None, or a good one.
    Optional,
    /// None, or one that is good except that its authority may be unknown.
    AnyAuthority,
    /// None, or any, however bad: backends get the result of its verification.
    Unverified,
}

/// What a client without a good certificate gets.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum CertificateErrorPage {
    /// A redirect to this URL with 302.
    Url(Box<str>),
    /// What the host has for this path.
    Path(Box<str>),
}

/// What is known about the certificate of a client.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientIdentity {
    /// How it was verified.
    pub verified: Verified,
    /// Whether only its authority is unknown.
    pub of_unknown_authority: bool,
    /// Its subject as in RFC 2253; empty without a certificate.
    pub subject: Box<str>,
    /// Its issuer as in RFC 2253.
    pub issuer: Box<str>,
    /// Its serial number in hexadecimal.
    pub serial: Box<str>,
    /// Start of its validity, as OpenSSL writes it.
    pub valid_from: Box<str>,
    /// End of its validity.
    pub valid_until: Box<str>,
    /// Whole days until then; 0 if it has expired.
    pub days_left: Box<str>,
    /// Its SHA-1 fingerprint in hexadecimal.
    pub fingerprint: Box<str>,
    /// The certificate in PEM, percent-encoded.
    pub escaped: Box<str>,
}

/// How the certificate of a client was verified.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Verified {
    /// There is none.
    #[default]
    Missing,
    /// It is good.
    Success,
    /// It is not, for this reason.
    Failed(&'static str),
}

impl fmt::Display for Verified {
    /// As nginx's `$ssl_client_verify`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("NONE"),
            Self::Success => f.write_str("SUCCESS"),
            Self::Failed(why) => write!(f, "FAILED:{why}"),
        }
    }
}

/// Why a client's certificate does not admit it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Inadmissible {
    /// There is none.
    Missing,
    /// It is not good.
    Refused,
    /// Its subject does not match.
    Subject,
}

impl ClientAuth {
    /// Whether a client is admitted. `None` stands for a connection without TLS, which can't ask for a certificate; its subject is empty.
    ///
    /// # Errors
    ///
    /// See [`Inadmissible`].
    pub fn admit(&self, identity: Option<&ClientIdentity>) -> Result<(), Inadmissible> {
        if let Some(identity) = identity {
            match (&identity.verified, self.mode) {
                (Verified::Missing, ClientAuthMode::Required) => return Err(Inadmissible::Missing),
                (Verified::Failed(_), ClientAuthMode::Unverified) => {}
                (Verified::Failed(_), ClientAuthMode::AnyAuthority) if identity.of_unknown_authority => {}
                (Verified::Failed(_), _) => return Err(Inadmissible::Refused),
                (Verified::Missing | Verified::Success, _) => {}
            }
        }
        let subject = identity.map_or("", |identity| &identity.subject);
        match &self.subject {
            Some(pattern) if !pattern.is_match(subject.as_bytes()) => Err(Inadmissible::Subject),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: ClientAuthMode, subject: Option<&str>) -> ClientAuth {
        ClientAuth {
            mode,
            authorities: [].into(),
            revocation_lists: [].into(),
            depth: 1,
            subject: subject.map(|text| text.parse().unwrap()),
            error_page: None,
            passes_certificate: false,
            in_handshake: false,
        }
    }

    fn identity(verified: Verified, of_unknown_authority: bool, subject: &str) -> ClientIdentity {
        ClientIdentity { verified, of_unknown_authority, subject: subject.into(), ..ClientIdentity::default() }
    }

    #[test]
    fn each_mode_admits_what_nginx_admits() {
        use ClientAuthMode::{AnyAuthority, Optional, Required};
        use Inadmissible::{Missing, Refused};
        let good = identity(Verified::Success, false, "CN=a");
        let none = identity(Verified::Missing, false, "");
        let unknown = identity(Verified::Failed("self-signed certificate"), true, "CN=a");
        let expired = identity(Verified::Failed("certificate has expired"), false, "CN=a");
        for (mode, of_none, of_unknown) in
            [(Required, Err(Missing), Err(Refused)), (Optional, Ok(()), Err(Refused)), (AnyAuthority, Ok(()), Ok(()))]
        {
            let policy = policy(mode, None);
            assert_eq!(policy.admit(Some(&good)), Ok(()));
            assert_eq!(policy.admit(Some(&none)), of_none);
            assert_eq!(policy.admit(Some(&unknown)), of_unknown);
            assert_eq!(policy.admit(Some(&expired)), Err(Refused));
            assert_eq!(policy.admit(None), Ok(()), "no TLS");
        }
    }

    #[test]
    fn the_subject_is_searched_and_letter_case_counts() {
        let policy = policy(ClientAuthMode::Optional, Some("CN=(foo|bar)"));
        let admits = |subject| policy.admit(Some(&identity(Verified::Success, false, subject)));
        assert_eq!(admits("O=x,CN=foobar"), Ok(()));
        assert_eq!(admits("CN=Foo"), Err(Inadmissible::Subject));
        assert_eq!(policy.admit(Some(&ClientIdentity::default())), Err(Inadmissible::Subject));
        assert_eq!(policy.admit(None), Err(Inadmissible::Subject), "as in ingress-nginx, also without TLS");
    }
}
