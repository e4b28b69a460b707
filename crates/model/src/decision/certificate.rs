//! The check of a client's certificate, before a route is chosen.

use std::ops::ControlFlow;

use super::{Facts, Failure, Plan, Received, Scratch, Step};
use crate::path::canonicalize;
use crate::{CertificateErrorPage, Fields, Host, Inadmissible, Scheme};

/// Checks the certificate of a client against what the host asks for. `Break` if the plan has got its step.
#[cold]
pub(super) fn check<'a, F: Fields<'a>>(
    host: &Host,
    received: &Received<'a, F>,
    facts: &mut impl Facts,
    scratch: &mut Scratch,
    plan: &mut Plan<'_>,
) -> Result<ControlFlow<()>, Failure> {
    let wanted = host.client_auth();
    if received.arrival.scheme == Scheme::Https {
        scratch.identity = Some(facts.client_identity(wanted).ok_or(Failure::Misdirected)?);
    }
    let Some(auth) = wanted else { return Ok(ControlFlow::Continue(())) };
    let failure = match auth.admit(scratch.identity.as_deref()) {
        Ok(()) => return Ok(ControlFlow::Continue(())),
        Err(Inadmissible::Subject) => return Err(Failure::Subject),
        Err(Inadmissible::Missing) => Failure::NoCertificate,
        Err(Inadmissible::Refused) => Failure::Certificate,
    };
    match &auth.error_page {
        Some(CertificateErrorPage::Url(url)) => {
            scratch.location.clear();
            scratch.location.extend_from_slice(url.as_bytes());
            plan.step = Step::Redirect(302);
            Ok(ControlFlow::Break(()))
        }
        // nginx serves the page to any method, as if GET were asked for. A body sent with another method would be read by a backend.
        Some(CertificateErrorPage::Path(page)) if matches!(received.head.method, b"GET" | b"HEAD") => {
            let path = canonicalize(page.as_bytes(), &mut scratch.path)?;
            scratch.matched.clear();
            scratch.matched.extend_from_slice(path.matched);
            scratch.target.clear();
            scratch.target.extend_from_slice(path.forwarded);
            plan.replaced = true;
            Ok(ControlFlow::Continue(()))
        }
        _ => Err(failure),
    }
}
