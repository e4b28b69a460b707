//! TLS to the endpoints of a request: the name that they are told, who verifies them, and what they are shown.

use fairway_model::{AlternativeName, Trust, UpstreamTls};

use super::account::{BackendTls, VerifiedBy};

pub(super) fn of(tls: &UpstreamTls) -> BackendTls {
    let (verified_by, authorities) = match &tls.trust {
        Trust::Anyone => (VerifiedBy::Nobody, None),
        Trust::Authorities(all) => (VerifiedBy::Authorities, Some(all.len())),
        Trust::System => (VerifiedBy::System, None),
    };
    let name = |name: &AlternativeName| match name {
        AlternativeName::Dns(name) | AlternativeName::Uri(name) => name.to_string(),
    };
    let names = match (verified_by, &tls.alternative_names[..]) {
        (VerifiedBy::Nobody, _) => Vec::new(),
        (_, []) => tls.name.iter().map(ToString::to_string).collect(),
        (_, others) => others.iter().map(name).collect(),
    };
    BackendTls {
        server_name: tls.name.as_ref().filter(|_| tls.sni).map(ToString::to_string),
        verified_by,
        authorities,
        names,
        client_certificate: tls.client_certificate.as_ref().map(ToString::to_string),
    }
}

/// The same in words.
pub(super) fn text(tls: &BackendTls) -> String {
    let server_name = match &tls.server_name {
        Some(name) => format!("server name {name}"),
        None => "no server name".to_owned(),
    };
    let names = if tls.names.is_empty() { String::new() } else { format!(" for {}", tls.names.join(" or ")) };
    let verified = match (tls.verified_by, tls.authorities) {
        (VerifiedBy::Nobody, _) => "any certificate is accepted".to_owned(),
        (VerifiedBy::Authorities, Some(1)) => format!("only a certificate{names} of its authority is accepted"),
        (VerifiedBy::Authorities, count) => {
            format!("only a certificate{names} of one of its {} authorities is accepted", count.unwrap_or_default())
        }
        (VerifiedBy::System, _) => format!("only a certificate{names} of an authority of the system is accepted"),
    };
    let shown = tls.client_certificate.as_ref().map(|shown| format!("; shows certificate {shown}"));
    format!("{server_name}; {verified}{}", shown.unwrap_or_default())
}
