//! What the operator decides about the Kubernetes side, by flags of ingress-nginx's names.

use std::path::PathBuf;
use std::time::Duration;

use fairway_translate::options::Options;

/// Everything that a [`Controller`](crate::Controller) and [`connect`](crate::connect) need to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControllerConfig {
    /// How objects are read. `watch_namespace` and `namespace_selector` decide what is watched, too.
    pub options: Options,
    /// Where the API server is and who we are there.
    pub api: ApiConfig,
    /// The pod we run in. `None` outside a cluster: then there is no election, and node addresses can't be found.
    pub pod: Option<Pod>,
    /// Who of several replicas writes.
    pub election: Election,
    /// The status of Ingresses.
    pub status: StatusConfig,
    /// `--disable-sync-events`: no Event "Sync" on Ingresses.
    pub disable_sync_events: bool,
    /// `--read-only`: nothing is written at all, neither status nor Events nor a Lease.
    pub read_only: bool,
}

/// Where the API server is. With neither kubeconfig nor host, the service account of the pod is used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ApiConfig {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// Without [`kubeconfig`](Self::kubeconfig): the user's own, as kubectl finds it (`KUBECONFIG`, else `~/.kube/config`), in place
    /// of the service account of a pod.
    pub own_kubeconfig: bool,
    /// `--context`: one of the kubeconfig, in place of its current one.
    pub context: Option<String>,
    /// `--apiserver-host`: the URL, in place of the one of the kubeconfig.
    pub host: Option<String>,
    /// `--certificate-authority`: PEM file of the authority that signed the API server's certificate. Only read together with
    /// [`host`](Self::host).
    pub certificate_authority: Option<PathBuf>,
}

/// The pod that this process runs in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pod {
    /// `POD_NAME`.
    pub name: String,
    /// `POD_NAMESPACE`: also where the Lease lives.
    pub namespace: String,
}

/// How one replica is chosen to write status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Election {
    /// `--election-id`: the name of the Lease.
    pub id: String,
    /// `--election-ttl`: how long the Lease holds without renewal. Zero means 30 s.
    pub ttl: Duration,
    /// `--disable-leader-election`: every replica writes.
    pub disabled: bool,
}

impl Default for Election {
    fn default() -> Self {
        Self { id: "ingress-controller-leader".into(), ttl: Duration::from_secs(30), disabled: false }
    }
}

/// What is written to `status.loadBalancer` of Ingresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatusConfig {
    /// `--update-status`.
    pub update: bool,
    /// `--update-status-on-shutdown`: the last replica takes its addresses back when none is to follow.
    pub update_on_shutdown: bool,
    /// Where the addresses come from.
    pub addresses: AddressSource,
    /// `--status-update-interval`; at least 5 s. New and changed Ingresses are written at once whatever it says.
    pub interval: Duration,
}

impl Default for StatusConfig {
    fn default() -> Self {
        Self {
            update: true,
            update_on_shutdown: true,
            addresses: AddressSource::default(),
            interval: Duration::from_secs(60),
        }
    }
}

/// Where the addresses in the status of Ingresses come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AddressSource {
    /// `--publish-status-address`: these, as they are.
    Fixed(Vec<String>),
    /// `--publish-service`: those of the Service in front of us.
    Service {
        /// Its namespace, which need not be one that is watched.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Those of the nodes on which ready pods of ours run.
    Nodes {
        /// `--report-node-internal-ip-address`: the internal address, even if there is an external one.
        internal: bool,
    },
}

impl Default for AddressSource {
    fn default() -> Self {
        Self::Nodes { internal: false }
    }
}
