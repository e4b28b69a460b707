//! The Node object: created if missing, corrected if wrong, kept alive.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::KubeletOptions;

/// How often the Node's Lease is renewed, as by the kubelet.
const RENEWAL: Duration = Duration::from_secs(10);

/// How often the status is written without a change, as by the kubelet.
const HEARTBEAT: Duration = Duration::from_secs(300);

/// The port of the kubelet's server.
pub(crate) const PORT: u16 = 10250;

/// The desired Node.
pub(crate) fn node(options: &KubeletOptions) -> Node {
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), options.node.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), architecture().to_owned()),
    ]);
    labels.extend(options.label.iter().cloned());
    let quantities = || {
        let resources = [("cpu", "8"), ("memory", "32Gi"), ("pods", "110"), ("ephemeral-storage", "100Gi")];
        Some(resources.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into())
    };
    let now = Time(Timestamp::now());
    let condition = |kind: &str, status: &str, reason: &str, message: &str| NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    };
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    Node {
        metadata: ObjectMeta { name: Some(options.node.clone()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(NodeSpec {
            pod_cidr: Some(options.pod_cidr.to_string()),
            pod_cidrs: Some(vec![options.pod_cidr.to_string()]),
            provider_id: Some(format!("process://{}", options.node)),
            taints: (!options.taint.is_empty()).then(|| options.taint.clone()),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            addresses: Some(vec![
                address("InternalIP", options.address.to_string()),
                address("Hostname", options.node.clone()),
            ]),
            allocatable: quantities(),
            capacity: quantities(),
            conditions: Some(vec![
                condition(
                    "MemoryPressure",
                    "False",
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available",
                ),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ]),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(PORT) }),
            }),
            node_info: Some(NodeSystemInfo {
                architecture: architecture().to_owned(),
                container_runtime_version: concat!("process://", env!("CARGO_PKG_VERSION")).to_owned(),
                kernel_version: kernel(),
                kubelet_version: "v1.36.3".to_owned(),
                machine_id: options.node.clone(),
                operating_system: "linux".to_owned(),
                os_image: "processes".to_owned(),
                system_uuid: options.node.clone(),
                boot_id: options.node.clone(),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }),
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Maintains the Node and its Lease, forever. A failed round is repeated soon.
pub(crate) async fn keep(client: Client, node: Node) {
    let name = node.metadata.name.clone().unwrap_or_default();
    let mut tick = interval(RENEWAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written: Option<Instant> = None;
    loop {
        tick.tick().await;
        let due = written.is_none_or(|written| written.elapsed() >= HEARTBEAT);
        match look(&client, &name, &node, due).await {
            Ok(wrote) => {
                if wrote {
                    written = Some(Instant::now());
                }
            }
            Err(error) => {
                tracing::warn!(%error, node = name, "keeping the Node failed");
                tick.reset_after(Duration::from_millis(500));
            }
        }
    }
}

/// Renews the Lease and checks the Node. Returns true if its status was written.
async fn look(client: &Client, name: &str, wanted: &Node, due: bool) -> Result<bool, kube::Error> {
    let nodes = Api::<Node>::all(client.clone());
    let found = match nodes.get_opt(name).await? {
        Some(found) => found,
        None => nodes.create(&PostParams::default(), wanted).await?,
    };
    let ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    // Admission taints a new Node until it is ready; no controller here removes that taint.
    let taints = found.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let kept: Vec<&Taint> = taints.clone().filter(|taint| taint.key != "node.kubernetes.io/not-ready").collect();
    let labels = wanted.metadata.labels.as_ref();
    let known = found.metadata.labels.clone().unwrap_or_default();
    let labelled = labels.into_iter().flatten().all(|(name, value)| known.get(name) == Some(value));
    if kept.len() != taints.count() || !labelled {
        // Labels and taints set by others stay.
        let patch = json!({
            "metadata": { "labels": labels, "resourceVersion": found.metadata.resource_version },
            "spec": { "taints": kept },
        });
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    let write = due || !ready(&found);
    if write {
        let mut status = wanted.status.clone().unwrap_or_default();
        let before = found.status.and_then(|status| status.conditions).unwrap_or_default();
        let now = Time(Timestamp::now());
        for condition in status.conditions.iter_mut().flatten() {
            let same = before.iter().find(|old| old.type_ == condition.type_ && old.status == condition.status);
            condition.last_transition_time = same.map_or(Some(now.clone()), |old| old.last_transition_time.clone());
            condition.last_heartbeat_time = Some(now.clone());
        }
        nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(json!({ "status": status }))).await?;
    }

    let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
    let renew_time = Some(MicroTime(Timestamp::now()));
    let spec = LeaseSpec {
        holder_identity: Some(name.to_owned()),
        lease_duration_seconds: Some(40),
        renew_time,
        ..LeaseSpec::default()
    };
    let patch = Patch::Merge(json!({ "spec": &spec }));
    match leases.patch(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            // The namespace is created with the API server, but a moment later.
            match leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(write),
                result => result.map(|_| write),
            }
        }
        result => result.map(|_| write),
    }
}
