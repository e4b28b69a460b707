//! The destination of spans of requests that a policy traces: the endpoints of its backend at the time of sending.

use fairway_model::{EndpointState, TelemetryName};

use crate::live::Live;
use crate::span::{NoDestination, SpanDestination, SpanPlace, SpanTls};
use crate::upstream::{UpstreamVersion, apart, endpoints};

/// Endpoints that are tried for one message.
// No limit: the time for all of them is limited.
const TRIED: usize = 3;

/// Finds the receiver of a policy. Its endpoints take turns.
///
/// # Errors
/// Why there is none.
pub(super) fn find(live: &Live, policy: &TelemetryName, turn: usize) -> Result<SpanDestination, NoDestination> {
    let telemetry = live.snapshot.telemetry(policy).ok_or(NoDestination::Nobody)?;
    let receiver = telemetry.receiver.as_ref().ok_or(NoDestination::Nobody)?;
    let all = endpoints(live, &receiver.backend);
    let mut addresses: Vec<_> =
        all.iter().filter(|one| one.state == EndpointState::Ready).map(|one| one.address).collect();
    if addresses.is_empty() {
        return Err(NoDestination::NoEndpoint);
    }
    let first = turn % addresses.len();
    addresses.rotate_left(first);
    addresses.truncate(TRIED);
    let tls = receiver.tls.as_deref().map(|tls| {
        let certificate = tls.client_certificate.as_ref();
        let certificate = certificate.and_then(|name| live.snapshot.certificate(name)).map(|found| &**found);
        let version = if receiver.http { UpstreamVersion::Http1 } else { UpstreamVersion::Http2 };
        let made = apart(version, tls, certificate);
        made.map(|(config, name)| SpanTls { config, name }).map_err(|error| NoDestination::Tls(error.to_string()))
    });
    Ok(SpanDestination {
        place: SpanPlace::Addresses(addresses),
        authority: receiver.authority.to_string(),
        http: receiver.http,
        tls: tls.transpose()?,
        fields: receiver.fields.clone(),
        service: telemetry.service(&live.snapshot.settings().tracing).into(),
    })
}
