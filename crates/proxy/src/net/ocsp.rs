//! OCSP (RFC 6960) as far as stapling needs it: where to ask about a certificate, the question, and whether an answer may be stapled. No
//! I/O.
//!
//! An answer is stapled only if clients will accept it: about this certificate, `good`, current, and signed by the issuer or by a
//! responder that the issuer has authorized. Answers come from the network; nothing in them causes a panic or more work than their length.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::limit::{OCSP_CERTIFICATES, OCSP_SKEW};

/// Tags of DER.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;

/// `id-ad-ocsp`.
const METHOD: &str = "1.3.6.1.5.5.7.48.1";

/// `id-pkix-ocsp-basic`, as the content of an identifier.
const BASIC: [u8; 9] = [0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// SHA-1 without parameters and with them, as the content of an algorithm. Every responder knows it, and nothing depends on its strength.
const SHA1: [&[u8]; 2] = [&[OID, 5, 0x2b, 14, 3, 2, 26], &[OID, 5, 0x2b, 14, 3, 2, 26, 5, 0]];

/// A certificate that can be asked about.
#[derive(Debug)]
pub(super) struct Question {
    /// Where to ask: `http` only, without the scheme.
    pub(super) responder: Box<str>,
    /// The request.
    pub(super) request: Vec<u8>,
    name_hash: Vec<u8>,
    key_hash: Vec<u8>,
    serial: Vec<u8>,
    issuer: CertificateDer<'static>,
}

/// Why a certificate can't be asked about.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum NoQuestion {
    /// The chain ends with the certificate.
    #[error("the chain lacks the certificate of its issuer")]
    NoIssuer,
    /// It names no responder for plain HTTP.
    #[error("the certificate names no OCSP responder with an http URL")]
    NoResponder,
    /// One of the two can't be parsed.
    #[error("the certificate is malformed")]
    Malformed,
}

/// Why an answer is not stapled.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum BadResponse {
    /// It is not an OCSP answer.
    #[error("the answer is malformed")]
    Malformed,
    /// The responder's status.
    #[error("the responder answers with status {0}")]
    Status(u8),
    /// It is about another certificate.
    #[error("the answer is about another certificate")]
    Other,
    /// The issuer has revoked the certificate, or does not know it.
    #[error("the certificate is revoked, or unknown to its issuer")]
    NotGood,
    /// It is not valid yet, or no longer.
    #[error("the answer is out of date")]
    OutOfDate,
    /// Neither the issuer nor a responder that it has authorized has signed it.
    #[error("the signature of the answer is not valid")]
    Signature,
}

impl Question {
    /// The question about the first certificate of a chain.
    ///
    /// # Errors
    /// See [`NoQuestion`].
    pub(super) fn new(chain: &[impl AsRef<[u8]>]) -> Result<Self, NoQuestion> {
        let [leaf, issuer, ..] = chain else { return Err(NoQuestion::NoIssuer) };
        let parse = |der| X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|_| NoQuestion::Malformed);
        let (parsed, of_issuer) = (parse(leaf.as_ref())?, parse(issuer.as_ref())?);
        if parsed.issuer().as_raw() != of_issuer.subject().as_raw() {
            return Err(NoQuestion::NoIssuer);
        }
        let responder = responder(&parsed).ok_or(NoQuestion::NoResponder)?;
        let hash = |bytes| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
        let name_hash = hash(parsed.issuer().as_raw());
        let key_hash = hash(&of_issuer.public_key().subject_public_key.data);
        let serial = parsed.raw_serial().to_vec();
        let id = [
            element(SEQUENCE, SHA1[1]),
            element(OCTET_STRING, &name_hash),
            element(OCTET_STRING, &key_hash),
            element(INTEGER, &serial),
        ];
        // OCSPRequest, TBSRequest, its list, Request, CertID.
        let request = (0..5).fold(id.concat(), |inner, _| element(SEQUENCE, &inner));
        let issuer = CertificateDer::from(issuer.as_ref().to_vec());
        Ok(Self { responder: responder.into(), request, name_hash, key_hash, serial, issuer })
    }

    /// Checks an answer at the time `now`, in seconds since 1970. Returns until when it may be stapled, if it says so.
    ///
    /// # Errors
    /// See [`BadResponse`].
    pub(super) fn check(&self, response: &[u8], now: i64) -> Result<Option<i64>, BadResponse> {
        let mut outer = Der(Der(response).of(SEQUENCE)?);
        match outer.of(ENUMERATED)? {
            [0] => {}
            [status] => return Err(BadResponse::Status(*status)),
            _ => return Err(BadResponse::Malformed),
        }
        let mut bytes = Der(Der(outer.of(0xa0)?).of(SEQUENCE)?);
        if bytes.of(OID)? != BASIC {
            return Err(BadResponse::Malformed);
        }
        let mut basic = Der(Der(bytes.of(OCTET_STRING)?).of(SEQUENCE)?);
        let signed = basic.next()?;
        let algorithm = basic.of(SEQUENCE)?;
        let [0, signature @ ..] = basic.of(BIT_STRING)? else { return Err(BadResponse::Malformed) };
        let certificates = basic.optional(0xa0)?;

        let until = self.single(signed.content, now)?;
        let (_, issuer) = X509Certificate::from_der(&self.issuer).map_err(|_| BadResponse::Malformed)?;
        let is_signed = verify(issuer.public_key(), algorithm, signed.whole, signature)
            || certificates.is_some_and(|all| {
                delegates(all, &issuer, now).any(|key| verify(key.public_key(), algorithm, signed.whole, signature))
            });
        if is_signed { Ok(until) } else { Err(BadResponse::Signature) }
    }

    /// Finds what `ResponseData` says about this certificate.
    fn single(&self, data: &[u8], now: i64) -> Result<Option<i64>, BadResponse> {
        let mut data = Der(data);
        data.optional(0xa0)?; // The version.
        data.next()?; // The responder's name or key.
        data.of(GENERALIZED_TIME)?; // When it was made.
        let mut all = Der(data.of(SEQUENCE)?);
        while !all.0.is_empty() {
            let mut single = Der(all.of(SEQUENCE)?);
            let mut id = Der(single.of(SEQUENCE)?);
            let is_sha1 = SHA1.contains(&id.of(SEQUENCE)?);
            let hashes = [id.of(OCTET_STRING)?, id.of(OCTET_STRING)?];
            if !is_sha1 || hashes != [&*self.name_hash, &*self.key_hash] || id.of(INTEGER)? != self.serial {
                continue;
            }
            if single.next()?.tag != 0x80 {
                return Err(BadResponse::NotGood);
            }
            let from = time(&single.next()?)?;
            let until = single.optional(0xa0)?.map(|until| time(&Der(until).next()?)).transpose()?;
            let skew = OCSP_SKEW.as_secs().cast_signed();
            return if from > now + skew || until.is_some_and(|until| until <= now) {
                Err(BadResponse::OutOfDate)
            } else {
                Ok(until)
            };
        }
        Err(BadResponse::Other)
    }
}

/// Where a certificate says that its issuer can be asked.
fn responder(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => access.iter().find_map(|one| match &one.access_location {
            GeneralName::URI(url) if one.access_method.to_id_string() == METHOD => {
                let (scheme, rest) = url.split_once("://")?;
                let fits = rest.len() <= 1024 && rest.bytes().all(|byte| byte.is_ascii_graphic());
                (fits && scheme.eq_ignore_ascii_case("http")).then(|| rest.to_owned())
            }
            _ => None,
        }),
        _ => None,
    })
}

/// The certificates of an answer that may sign it: those that the issuer has made for this (RFC 6960, 4.2.2.2).
fn delegates<'a>(all: &'a [u8], issuer: &X509Certificate<'_>, now: i64) -> impl Iterator<Item = X509Certificate<'a>> {
    let mut all = Der(Der(all).of(SEQUENCE).unwrap_or_default());
    let ders = std::iter::from_fn(move || all.next().ok()).take(OCSP_CERTIFICATES);
    let valid = move |one: &X509Certificate<'_>| {
        let validity = one.validity();
        let signed = Der(one.as_ref()).next().ok().and_then(|outer| {
            let mut outer = Der(outer.content);
            let (signed, algorithm) = (outer.next().ok()?, outer.of(SEQUENCE).ok()?);
            Some(verify(issuer.public_key(), algorithm, signed.whole, &one.signature_value.data))
        });
        one.issuer().as_raw() == issuer.subject().as_raw()
            && one.extended_key_usage().ok().flatten().is_some_and(|usage| usage.value.ocsp_signing)
            && (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
            && signed == Some(true)
    };
    let parse = |der: DerElement<'a>| X509Certificate::from_der(der.whole).ok().map(|(_, parsed)| parsed);
    ders.filter_map(parse).filter(valid).collect::<Vec<_>>().into_iter()
}

/// Whether a key has made a signature, with an algorithm that the TLS library accepts.
fn verify(key: &SubjectPublicKeyInfo<'_>, algorithm: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let kind = || {
        let mut outer = Der(Der(key.raw).of(SEQUENCE).ok()?);
        outer.of(SEQUENCE).ok()
    };
    let Some(kind) = kind() else { return false };
    let known = default_provider().signature_verification_algorithms.all;
    let fit = |one: &&&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
        one.signature_alg_id().as_ref() == algorithm && one.public_key_alg_id().as_ref() == kind
    };
    let key = &*key.subject_public_key.data;
    known.iter().filter(fit).any(|one| one.verify_signature(key, message, signature).is_ok())
}

fn time(element: &DerElement<'_>) -> Result<i64, BadResponse> {
    let (_, time) = ASN1Time::from_der(element.whole).map_err(|_| BadResponse::Malformed)?;
    Ok(time.timestamp())
}

/// An element of DER.
#[derive(Clone, Copy, Debug)]
struct DerElement<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

/// Elements, one after another.
#[derive(Clone, Copy, Debug)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn next(&mut self) -> Result<DerElement<'a>, BadResponse> {
        self.take().ok_or(BadResponse::Malformed)
    }

    fn take(&mut self) -> Option<DerElement<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(DerElement { tag, content, whole })
    }

    /// The content of the next element, which has this tag.
    fn of(&mut self, tag: u8) -> Result<&'a [u8], BadResponse> {
        let element = self.next()?;
        if element.tag == tag { Ok(element.content) } else { Err(BadResponse::Malformed) }
    }

    /// The content of the next element, if it has this tag; else it stays.
    fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, BadResponse> {
        if self.0.first() == Some(&tag) { self.of(tag).map(Some) } else { Ok(None) }
    }
}

/// An element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = length.iter().position(|byte| *byte != 0).map_or(&[0][..], |at| &length[at..]);
    let mut element = vec![tag];
    if content.len() >= 0x80 {
        element.push(0x80 | significant.len() as u8);
    }
    element.extend_from_slice(significant);
    element.extend_from_slice(content);
    element
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_written_as_they_are_read() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let written = element(SEQUENCE, &vec![7; length]);
            let mut read = Der(&written);
            assert_eq!(read.of(SEQUENCE).unwrap().len(), length);
            assert!(read.0.is_empty());
        }
        for wrong in [&[][..], &[0x30], &[0x30, 1], &[0x30, 0x80], &[0x30, 0x84, 0, 0, 0, 0], &[0x30, 0x82, 1]] {
            assert_eq!(Der(wrong).of(SEQUENCE), Err(BadResponse::Malformed));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_bytes_are_no_answer(bytes in proptest::collection::vec(any::<u8>(), 0..64), tag in any::<u8>()) {
            let question = Question {
                responder: "".into(),
                request: Vec::new(),
                name_hash: Vec::new(),
                key_hash: Vec::new(),
                serial: Vec::new(),
                issuer: CertificateDer::from(Vec::new()),
            };
            prop_assert!(question.check(&bytes, 0).is_err());
            let mut der = Der(&bytes);
            while der.next().is_ok() {}
            let status = [element(ENUMERATED, &[0]), element(0xa0, &element(tag, &bytes))].concat();
            prop_assert!(question.check(&element(SEQUENCE, &status), 0).is_err());
        }
    }
}
