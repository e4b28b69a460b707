//! The input of `/metrics`: the counts of all workers, and figures about the process and its configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairway_model::{Action, BackendName, Certificate, Endpoints, Host, Snapshot};

use super::process::ProcessFigures;
use super::{ChannelFigures, MetricFormat, MetricOptions, Pages, Totals};

/// What is known about the running configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigStatus {
    /// Changes that were applied, including those that leave a listener refused as before.
    pub successes: u64,
    /// Changes that were refused, at least in part: each refused listener counts at the first attempt, and again if its address
    /// or the kind of error changes.
    pub errors: u64,
    /// A number that is the same for the same configuration.
    pub hash: u64,
    /// Whether the whole configuration is in effect: no listener is refused.
    pub whole: bool,
    /// When a change was last applied, in seconds since 1970.
    pub last_success: f64,
    /// Number of the snapshot.
    pub version: u64,
}

/// Figures of the proxy as a whole that workers don't count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyFigures {
    /// Worker threads.
    pub workers: u64,
    /// Lines of the access log that were dropped.
    pub log_lines_dropped: u64,
    /// Spans that a collector has taken.
    pub spans_sent: u64,
    /// Spans that were dropped, or could not be sent.
    pub spans_dropped: u64,
    /// Names currently being resolved.
    pub resolver_names: u64,
    /// Queries for names so far.
    pub resolver_queries: u64,
    /// Queries that failed or returned no usable address.
    pub resolver_failures: u64,
    /// Certificates with a stapled OCSP response.
    pub ocsp_stapled: u64,
    /// Requests to OCSP responders.
    pub ocsp_fetches: u64,
    /// Those without a response that can be stapled.
    pub ocsp_failures: u64,
    /// Endpoints whose health is checked.
    pub health_checked: u64,
    /// Those of them that are unhealthy.
    pub health_unhealthy: u64,
    /// Health checks that have ended.
    pub health_checks: u64,
    /// Those of them with a bad answer or none.
    pub health_check_failures: u64,
    /// Endpoints refused so far because of their address.
    pub refused_endpoints: u64,
    /// Figures of the connection to other processes.
    pub channel: Option<ChannelFigures>,
}

/// Everything that goes into one response.
#[derive(Debug)]
pub struct Exposition {
    /// What is shown, and how.
    pub options: Arc<MetricOptions>,
    /// What all workers have counted.
    pub totals: Totals,
    /// The running configuration.
    pub snapshot: Arc<Snapshot>,
    /// What is known about it.
    pub config: ConfigStatus,
    /// Figures of the proxy.
    pub proxy: ProxyFigures,
    /// Figures of the process.
    pub process: ProcessFigures,
    /// How many findings there are, by severity and reason.
    pub findings: BTreeMap<(&'static str, &'static str), u64>,
}

impl Exposition {
    /// The response, page by page.
    pub fn pages(self, format: MetricFormat) -> Pages {
        let configured = Configured::of(&self.snapshot);
        Pages::new(self, configured, format)
    }
}

/// Figures of a snapshot.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) hosts: usize,
    pub(super) routes: usize,
    /// Routes to a backend that is unknown or has no endpoint, for example because its Service does not exist.
    pub(super) orphans: usize,
    /// Hosts with their certificates, sorted.
    pub(super) certificates: Vec<(Arc<Host>, Arc<Certificate>)>,
}

impl Configured {
    fn of(snapshot: &Snapshot) -> Self {
        let hosts = snapshot.hosts();
        let orphans = hosts.iter().flat_map(|host| host.tiers().flat_map(Host::reachable_routes)).filter(|route| {
            match &route.action {
                Action::Forward(forward) => !forward.all_backends().any(|name| has_endpoint(snapshot, name)),
                Action::Redirect(_) | Action::Respond(_) => false,
            }
        });
        let with_certificate = |host: &&Arc<Host>| {
            let certificate = snapshot.certificate(host.certificate()?)?;
            Some(((*host).clone(), certificate.clone()))
        };
        let mut certificates: Vec<_> = hosts.iter().filter_map(with_certificate).collect();
        // Several tables may contain a host.
        certificates.sort_by(|one, other| series_of(one).cmp(&series_of(other)));
        certificates.dedup_by(|one, other| series_of(one) == series_of(other));
        Self {
            hosts: hosts.len(),
            routes: hosts.iter().map(|host| host.reachable_routes().count()).sum(),
            orphans: orphans.count(),
            certificates,
        }
    }
}

/// Whether a backend is known and has an endpoint, or a name that may resolve to one.
fn has_endpoint(snapshot: &Snapshot, name: &BackendName) -> bool {
    let endpoints = snapshot.endpoint_set(name).map(|set| &set.endpoints);
    snapshot.backend(name).is_some()
        && match endpoints {
            Some(Endpoints::Addresses(list)) => !list.is_empty(),
            Some(Endpoints::Name { .. }) => true,
            None => false,
        }
}

fn series_of((host, certificate): &(Arc<Host>, Arc<Certificate>)) -> impl Ord {
    (host.pattern(), &certificate.origin.namespace, &certificate.origin.name, &certificate.fingerprint)
}
