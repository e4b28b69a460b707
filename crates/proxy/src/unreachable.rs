//! Backends without a reachable endpoint: reported to the source of the configuration, which can inform the owner of the route.
//!
//! Invariants: only requests that failed to connect are handled here, so all others pay nothing; each worker keeps what it has seen
//! to itself, in bounded memory, and reports it at most every ten seconds per owner of a route.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairway_model::{BackendName, EndpointState, Origin};

use crate::live::Live;
use crate::reason::Reason;
use crate::record::RequestRecord;
use crate::upstream;

/// How long a failure counts against an endpoint. With few requests it takes a while until each endpoint has been tried.
// No limit: it decides what is reported, and refuses nothing.
const WINDOW: Duration = Duration::from_secs(60);

/// Time until the same report is repeated.
// No limit: the receiver has its own.
const PAUSE: Duration = Duration::from_secs(10);

/// Endpoints that a worker remembers. If more of them fail, some owners get no report.
// No limit: requests are not affected.
const REMEMBERED: usize = 4096;

/// A backend to whose endpoints no connection has succeeded lately.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unreachable {
    /// The object whose route leads to the backend.
    pub origin: Origin,
    /// The backend.
    pub backend: BackendName,
    /// Its endpoints that take requests, each with the reason why connecting failed, in the order of the configuration.
    pub endpoints: Vec<(SocketAddr, Reason)>,
}

/// Receives the reports. Workers call it, so it must not block.
#[derive(Clone, Default)]
pub struct UnreachableSink(Option<Arc<dyn Fn(Unreachable) + Send + Sync>>);

impl UnreachableSink {
    /// A sink that calls `tell` for each report.
    pub fn new(tell: impl Fn(Unreachable) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }
}

impl fmt::Debug for UnreachableSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnreachableSink")
    }
}

/// What one worker has seen of endpoints to which connecting fails.
#[derive(Debug)]
pub(crate) struct Failing {
    sink: UnreachableSink,
    /// The last failure of each endpoint.
    seen: HashMap<BackendName, HashMap<SocketAddr, (Reason, Instant)>>,
    /// When the owner of a route last got a report; forgotten after the pause.
    told: HashMap<Origin, Instant>,
    /// When `told` was last pruned.
    looked: Option<Instant>,
}

impl Failing {
    pub(crate) fn new(sink: UnreachableSink) -> Self {
        Self { sink, seen: HashMap::new(), told: HashMap::new(), looked: None }
    }

    /// Whether a request failed in a way that matters here.
    pub(crate) fn concerns(record: &RequestRecord<'_>) -> bool {
        record.cause.is_some_and(|cause| is_about_connecting(cause.reason))
    }

    /// Notes a request that [concerns](Self::concerns) this, and reports the backend if all of its endpoints have failed by now.
    pub(crate) fn note(&mut self, live: &Live, record: &RequestRecord<'_>, now: Instant) {
        let (Some(tell), Some(route), Some(backend)) =
            (&self.sink.0, record.route, record.alternative.or(record.backend))
        else {
            return;
        };
        if self.seen.values().map(HashMap::len).sum::<usize>() + record.tries.len() > REMEMBERED {
            self.seen.retain(|_, endpoints| {
                endpoints.retain(|_, (_, at)| now.duration_since(*at) < WINDOW);
                !endpoints.is_empty()
            });
            if self.seen.values().map(HashMap::len).sum::<usize>() + record.tries.len() > REMEMBERED {
                return;
            }
        }
        let seen = self.seen.entry(backend.name.clone()).or_default();
        for one in record.tries {
            match one.reason.filter(|reason| is_about_connecting(*reason)) {
                Some(reason) => drop(seen.insert(one.endpoint, (reason, now))),
                None => drop(seen.remove(&one.endpoint)),
            }
        }
        let recent = |address: &SocketAddr| {
            let (reason, at) = seen.get(address)?;
            (now.duration_since(*at) < WINDOW).then_some((*address, *reason))
        };
        let open = upstream::endpoints(live, &backend.name);
        let open = open.iter().filter(|endpoint| endpoint.state == EndpointState::Ready);
        let Some(endpoints) = open.map(|endpoint| recent(&endpoint.address)).collect::<Option<Vec<_>>>() else {
            return;
        };
        let Origin { kind, namespace, name, .. } = &route.origin;
        let origin = Origin::new(kind.clone(), namespace.clone(), name.clone());
        if endpoints.is_empty() || self.told.get(&origin).is_some_and(|at| now.duration_since(*at) < PAUSE) {
            return;
        }
        if self.looked.is_none_or(|at| now.duration_since(at) >= PAUSE) {
            self.told.retain(|_, at| now.duration_since(*at) < PAUSE);
            self.looked = Some(now);
        }
        self.told.insert(origin.clone(), now);
        tell(Unreachable { origin, backend: backend.name.clone(), endpoints });
    }
}

/// Whether nothing was sent, because there was no connection.
fn is_about_connecting(reason: Reason) -> bool {
    matches!(reason, Reason::ConnectRefused | Reason::ConnectFailed | Reason::ConnectTimeout | Reason::TlsHandshake)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use fairway_model::{Delta, Endpoint, EndpointSet, Endpoints, Resource, Snapshot};

    use super::*;
    use crate::reason::Cause;
    use crate::record::Try;
    use crate::record::fixture::{Fixture, backend};
    use crate::resolve::AddressPolicy;

    /// A worker's view, the reports that it makes, and a backend with these endpoints.
    fn watched(endpoints: &[&str]) -> (Failing, Arc<Mutex<Vec<Unreachable>>>, Arc<Live>) {
        let told = Arc::<Mutex<Vec<Unreachable>>>::default();
        let sink = UnreachableSink::new({
            let told = told.clone();
            move |one| told.lock().unwrap().push(one)
        });
        let list = endpoints.iter().map(|address| Endpoint::ready(address.parse().unwrap())).collect();
        let set = EndpointSet { backend: backend().name, endpoints: Endpoints::Addresses(list) };
        let snapshot = Snapshot::default().apply(Delta::upsert([Resource::from(backend()), Resource::from(set)]));
        (Failing::new(sink), told, Live::first(snapshot, None, AddressPolicy::default()))
    }

    fn refused(address: &str) -> Try {
        Try { reason: Some(Reason::ConnectRefused), ..crate::record::fixture::one_try(address, 502) }
    }

    #[test]
    fn it_is_told_once_all_endpoints_have_failed_and_not_again_at_once() {
        let (mut failing, told, live) = watched(&["10.0.0.1:80", "10.0.0.2:80"]);
        let fixture = Fixture::new("GET /a HTTP/1.1", "");
        let cause = Some(Cause::from(Reason::ConnectRefused));
        let now = Instant::now();
        let mut fail = |address: &str, at: Duration| {
            let tries = [refused(address)];
            let record = RequestRecord { cause, tries: &tries, ..fixture.record() };
            assert!(Failing::concerns(&record));
            failing.note(&live, &record, now + at);
            told.lock().unwrap().len()
        };
        assert_eq!(fail("10.0.0.1:80", Duration::ZERO), 0, "the other one has not been asked");
        assert_eq!(fail("10.0.0.1:80", Duration::from_secs(1)), 0);
        assert_eq!(fail("10.0.0.2:80", Duration::from_secs(2)), 1);
        assert_eq!(fail("10.0.0.2:80", Duration::from_secs(3)), 1, "just told");
        assert_eq!(fail("10.0.0.1:80", Duration::from_secs(13)), 2);
        assert_eq!(fail("10.0.0.1:80", WINDOW + Duration::from_secs(4)), 2, "the other one may be fine by now");
        let told = told.lock().unwrap();
        assert_eq!(told[0].origin, Origin::new("Ingress", "default", "web"));
        let endpoints: Vec<String> = told[0].endpoints.iter().map(|(at, why)| format!("{at} {why}")).collect();
        assert_eq!(endpoints, ["10.0.0.1:80 connect_refused", "10.0.0.2:80 connect_refused"]);
    }

    #[test]
    fn other_failures_and_answers_do_not_concern_it() {
        let fixture = Fixture::new("GET /a HTTP/1.1", "");
        for reason in [Reason::ReadTimeout, Reason::NoEndpoint, Reason::ClientGone, Reason::Upstream5xx] {
            let cause = Some(Cause::from(reason));
            assert!(!Failing::concerns(&RequestRecord { cause, ..fixture.record() }), "{reason}");
        }
        let tries = [refused("10.0.0.1:80")];
        assert!(!Failing::concerns(&RequestRecord { tries: &tries, ..fixture.record() }), "another endpoint answered");
    }

    #[test]
    fn owners_are_forgotten_when_they_may_be_told_again() {
        let (mut failing, told, live) = watched(&["10.0.0.1:80"]);
        let cause = Some(Cause::from(Reason::ConnectRefused));
        let (begin, tries) = (Instant::now(), [refused("10.0.0.1:80")]);
        let fixture = Fixture::new("GET /a HTTP/1.1", "");
        for number in 0..100_u32 {
            failing.told.insert(Origin::new("Ingress", "default", format!("other-{number}")), begin);
        }
        failing.note(&live, &RequestRecord { cause, tries: &tries, ..fixture.record() }, begin + PAUSE);
        assert_eq!((told.lock().unwrap().len(), failing.told.len()), (1, 1));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut failing, _, live) = watched(&["10.0.0.1:80"]);
        let fixture = Fixture::new("GET /a HTTP/1.1", "");
        let cause = Some(Cause::from(Reason::ConnectRefused));
        let now = Instant::now();
        for number in 0..2 * REMEMBERED {
            let tries = [refused(&format!("10.1.{}.{}:80", number / 256, number % 256))];
            failing.note(&live, &RequestRecord { cause, tries: &tries, ..fixture.record() }, now);
        }
        assert_eq!(failing.seen.values().map(HashMap::len).sum::<usize>(), REMEMBERED);
        failing.note(
            &live,
            &RequestRecord { cause, tries: &[refused("10.2.0.1:80")], ..fixture.record() },
            now + WINDOW,
        );
        assert_eq!(failing.seen.values().map(HashMap::len).sum::<usize>(), 1, "what is old makes room");
    }
}
