//! What makes two connections to endpoints different. The pool is keyed by it, so that no request uses a connection that was opened in
//! another way than its route requires.

use std::cell::{Cell, RefCell};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use fairway_model::decision::Forwarding;
use fairway_model::{Backend, Certificate, UpstreamTls};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::service::Service;
use super::tls::{InvalidTls, TlsWay, UpstreamVersion, WayNumber};
use crate::live::Live;

/// The address that a connection leads to, and how it was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Target {
    /// The address.
    pub(crate) address: SocketAddr,
    /// How it was opened.
    pub(crate) way: WayNumber,
}

/// Hashes the numbers in which nearly all targets differ, as a few words: the derived form takes the address byte by byte.
impl Hash for Target {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let WayNumber(way) = self.way;
        state.write_u64(u64::from(way) << 16 | u64::from(self.address.port()));
        match self.address.ip() {
            IpAddr::V4(v4) => state.write_u32(v4.to_bits()),
            IpAddr::V6(v6) => state.write_u128(v6.to_bits()),
        }
    }
}

/// How connections are opened, apart from the address.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    Plain(UpstreamVersion),
    Tls(Rc<TlsWay>),
}

impl Way {
    /// Its number.
    pub(crate) fn number(&self) -> WayNumber {
        match self {
            Self::Plain(UpstreamVersion::Http1) => WayNumber::PLAIN,
            Self::Plain(UpstreamVersion::Http2) => WayNumber::PLAIN_HTTP2,
            Self::Tls(way) => way.number,
        }
    }

    /// Whether a connection carries one request at a time, as over HTTP/1.
    pub(crate) fn is_exclusive(&self) -> bool {
        let version = match self {
            Self::Plain(version) => *version,
            Self::Tls(way) => way.version,
        };
        version == UpstreamVersion::Http1
    }
}

/// Everything that determines a way over TLS.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Ingredients {
    version: UpstreamVersion,
    tls: UpstreamTls,
    certificate: Option<Shown>,
}

/// The client certificate.
#[derive(Clone, Debug)]
struct Shown(Arc<Certificate>);

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Shown {}

impl Hash for Shown {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.fingerprint.hash(state);
    }
}

/// One worker's ways over TLS.
#[derive(Debug)]
pub(crate) struct Ways {
    /// By the address of the policy's value, and the version. The weak reference keeps other values from getting that address, so a request
    /// has nothing else to compare.
    known: RefCell<HashMap<(usize, UpstreamVersion), Known, RandomState>>,
    /// By their ingredients, so that a route that is translated again keeps its connections.
    made: RefCell<HashMap<Ingredients, Made, RandomState>>,
    last: Cell<u32>,
}

#[derive(Debug)]
struct Known {
    tls: Weak<UpstreamTls>,
    certificate: Option<Shown>,
    way: Rc<TlsWay>,
}

#[derive(Debug)]
struct Made {
    way: Rc<TlsWay>,
    /// How many times in a row no policy used it.
    unused: u32,
}

/// How many times a way may be found unused before it is removed; checked once a second. By then a change of configuration is over, and so
/// is the idle time of most connections.
// No limit: it decides when unused memory is freed.
const UNUSED: u32 = 60;

impl Default for Ways {
    fn default() -> Self {
        Self { known: RefCell::default(), made: RefCell::default(), last: Cell::new(WayNumber::PLAIN_HTTP2.0) }
    }
}

impl Ways {
    /// The way of clients' requests to a service.
    ///
    /// # Errors
    /// If it can't be built because something that it refers to is missing or unusable.
    pub(crate) fn for_request(
        &self,
        live: &Live,
        forwarding: &Forwarding<'_>,
        service: &Service,
    ) -> Result<Way, InvalidTls> {
        let policy = |backend: &Backend| (UpstreamVersion::of(forwarding, backend), forwarding.tls(backend));
        let (version, tls) = service.with_backend(policy);
        self.find(live, version, tls)
    }

    /// The way of the proxy's own requests to a service: questions about a client's request, and copies of it.
    ///
    /// # Errors
    /// See [`for_request`](Self::for_request).
    pub(crate) fn for_own(
        &self,
        live: &Live,
        forwarding: &Forwarding<'_>,
        service: &Service,
    ) -> Result<Way, InvalidTls> {
        self.find(live, UpstreamVersion::Http1, service.with_backend(|backend| forwarding.tls(backend)))
    }

    /// The way of connections that are passed on unread. The handshake offers no protocol, because it is unknown which one they carry.
    ///
    /// # Errors
    /// See [`for_request`](Self::for_request).
    pub(crate) fn for_stream(&self, live: &Live, tls: Option<&Arc<UpstreamTls>>) -> Result<Way, InvalidTls> {
        self.find(live, UpstreamVersion::Http1, tls)
    }

    /// The way that a policy requires.
    fn find(&self, live: &Live, version: UpstreamVersion, tls: Option<&Arc<UpstreamTls>>) -> Result<Way, InvalidTls> {
        let Some(tls) = tls else { return Ok(Way::Plain(version)) };
        let certificate = match &tls.client_certificate {
            None => None,
            Some(name) => Some(live.snapshot.certificate(name).ok_or(InvalidTls::NoCertificate)?),
        };
        let key = (Arc::as_ptr(tls) as usize, version);
        if let Some(Known { certificate: own, way, .. }) = self.known.borrow().get(&key) {
            let same = match (own, certificate) {
                (None, None) => true,
                (Some(own), Some(current)) => Arc::ptr_eq(&own.0, current),
                _ => false,
            };
            if same {
                return Ok(Way::Tls(way.clone()));
            }
        }
        let certificate = certificate.cloned().map(Shown);
        let way = self.make(Ingredients { version, tls: (**tls).clone(), certificate: certificate.clone() })?;
        let known = Known { tls: Arc::downgrade(tls), certificate, way: way.clone() };
        self.known.borrow_mut().insert(key, known);
        Ok(Way::Tls(way))
    }

    fn make(&self, from: Ingredients) -> Result<Rc<TlsWay>, InvalidTls> {
        let mut made = self.made.borrow_mut();
        if let Some(Made { way, unused }) = made.get_mut(&from) {
            *unused = 0;
            return Ok(way.clone());
        }
        let number = WayNumber(self.last.get() + 1);
        let way =
            Rc::new(TlsWay::new(number, from.version, &from.tls, from.certificate.as_ref().map(|shown| &*shown.0))?);
        self.last.set(number.0);
        made.insert(from, Made { way: way.clone(), unused: 0 });
        Ok(way)
    }

    /// Removes the ways of policies that are gone. Called periodically.
    pub(crate) fn keep_house(&self) {
        self.known.borrow_mut().retain(|_, known| known.tls.strong_count() > 0);
        self.made.borrow_mut().retain(|_, Made { way, unused }| {
            *unused = if Rc::strong_count(way) > 1 { 0 } else { *unused + 1 };
            *unused <= UNUSED
        });
    }
}

#[cfg(test)]
mod tests {
    use fairway_model::Snapshot;

    use super::*;

    fn number(ways: &Ways, live: &Live, tls: &Arc<UpstreamTls>) -> WayNumber {
        ways.find(live, UpstreamVersion::Http1, Some(tls)).unwrap().number()
    }

    #[test]
    fn a_way_is_kept_for_equal_values_and_forgotten_after_the_last() {
        let live = Live::first(Snapshot::default(), None, Default::default());
        let (ways, first) = (Ways::default(), Arc::new(UpstreamTls::default()));
        let of_first = number(&ways, &live, &first);
        assert_ne!(of_first, WayNumber::PLAIN);
        assert_eq!(ways.find(&live, UpstreamVersion::Http1, None).unwrap().number(), WayNumber::PLAIN);
        assert_eq!(ways.find(&live, UpstreamVersion::Http2, None).unwrap().number(), WayNumber::PLAIN_HTTP2);
        let other = number(&ways, &live, &Arc::new(UpstreamTls { sni: true, ..UpstreamTls::default() }));
        assert_ne!(of_first, other);
        drop(first);
        ways.keep_house();
        let again = Arc::new(UpstreamTls::default());
        assert_eq!(number(&ways, &live, &again), of_first, "a moment without a policy is none");
        for _ in 0..=UNUSED {
            ways.keep_house();
        }
        assert_eq!((ways.known.borrow().len(), ways.made.borrow().len()), (1, 1));
        drop(again);
        for _ in 0..=UNUSED {
            ways.keep_house();
        }
        assert_eq!((ways.known.borrow().len(), ways.made.borrow().len()), (0, 0));
        assert_ne!(number(&ways, &live, &Arc::new(UpstreamTls::default())), of_first, "no number is used twice");
    }
}
