//! The operator's settings for the Kubernetes side, by flags with the names of ingress-nginx.

use std::path::PathBuf;
use std::time::Duration;

use fairway_translate::options::Options;

/// All settings that a [`Controller`](crate::Controller) and [`connect`](crate::connect) need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControllerConfig {
    /// How to read objects. `watch_namespace` and `namespace_selector` also determine what is watched.
    pub options: Options,
    /// The API server and our identity there.
    pub api: ApiConfig,
    /// The pod this process runs in. `None` outside a cluster: then there is no election, and node addresses can't be
    /// found.
    pub pod: Option<Pod>,
    /// Which of several replicas writes.
    pub election: Election,
    /// The status of Ingresses.
    pub status: StatusConfig,
    /// `--disable-sync-events`: no Event "Sync" on Ingresses.
    pub disable_sync_events: bool,
    /// `--gateway-api`: also serve the Gateway API, as soon as its CRDs exist.
    pub gateway_api: bool,
    /// `--readiness-gate`: set the condition of pods that wait for the proxies to know them.
    pub readiness_gate: bool,
    /// `--observed`: report on Ingresses and routes that ask for it which generation is in force at how many proxies.
    pub observed: bool,
    /// `--read-only`: write nothing, neither status nor Events nor a Lease.
    pub read_only: bool,
}

/// How to reach the API server. With neither kubeconfig nor host, the service account of the pod is used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ApiConfig {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// Without [`kubeconfig`](Self::kubeconfig): use the user's own, as kubectl finds it (`KUBECONFIG`, else
    /// `~/.kube/config`), instead of the service account of a pod.
    pub own_kubeconfig: bool,
    /// `--context`: a context of the kubeconfig instead of its current one.
    pub context: Option<String>,
    /// `--apiserver-host`: the URL instead of the one in the kubeconfig.
    pub host: Option<String>,
    /// `--certificate-authority`: PEM file of the authority that signed the API server's certificate. Used only
    /// together with [`host`](Self::host).
    pub certificate_authority: Option<PathBuf>,
}

/// The pod that this process runs in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pod {
    /// `POD_NAME`.
    pub name: String,
    /// `POD_NAMESPACE`: also the namespace of the Lease.
    pub namespace: String,
}

/// How to choose the replica that writes status.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Election {
    /// `--election-id`: the name of the Lease.
    pub id: String,
    /// `--election-ttl`: how long the Lease lasts without renewal. Zero means 30 s.
    pub ttl: Duration,
    /// `--disable-leader-election`: every replica writes.
    pub disabled: bool,
}

impl Default for Election {
    fn default() -> Self {
        Self { id: "ingress-controller-leader".into(), ttl: Duration::from_secs(30), disabled: false }
    }
}

/// The contents of `status.loadBalancer` of Ingresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatusConfig {
    /// Whether and until when it is written.
    pub writing: StatusWriting,
    /// The source of the addresses.
    pub addresses: AddressSource,
    /// `--status-update-interval`; at least 5 s. New and changed Ingresses are written at once in any case.
    pub interval: Duration,
}

impl StatusConfig {
    /// Whether it is written at all.
    pub(crate) fn is_written(&self) -> bool {
        self.writing != StatusWriting::Never
    }
}

impl Default for StatusConfig {
    fn default() -> Self {
        Self {
            writing: StatusWriting::default(),
            addresses: AddressSource::default(),
            interval: Duration::from_secs(60),
        }
    }
}

/// Whether the addresses are written, and what the last replica does with them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum StatusWriting {
    /// `--update-status=false`: no status is written at all.
    Never,
    /// `--update-status-on-shutdown=false`: the addresses stay after the end of the last replica.
    Keep,
    /// The last replica removes its addresses if none follows.
    #[default]
    RemoveAtEnd,
}

/// The source of the addresses in the status of Ingresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AddressSource {
    /// `--publish-status-address`: these, unchanged.
    Fixed(Vec<String>),
    /// `--publish-service`: those of the Service in front of the proxy.
    Service {
        /// Its namespace, which need not be watched.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Those of the nodes that run our ready pods.
    Nodes {
        /// `--control-pods`: the labels of the pods that serve, if those are not replicas of this one.
        pods: Option<String>,
        /// `--report-node-internal-ip-address`: the internal address, even if there is an external one.
        internal: bool,
    },
}

impl Default for AddressSource {
    fn default() -> Self {
        Self::Nodes { pods: None, internal: false }
    }
}
