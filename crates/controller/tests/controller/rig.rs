//! A controller against the in-memory API server, with a snapshot to wait for in place of the proxy.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fairway_controller::{AddressSource, Controller, ControllerConfig, Findings, Pod, Publish, Reporter, RunError};
use fairway_model::Snapshot;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::apiserver::ApiServer;

pub(crate) struct Rig {
    snapshot: watch::Receiver<Snapshot>,
    ready: watch::Receiver<bool>,
    /// Takes the reports of the proxy.
    pub(crate) reporter: Reporter,
    pub(crate) findings: Findings,
    /// Every snapshot that was live, starting with the first.
    pub(crate) history: mpsc::UnboundedReceiver<Snapshot>,
    leave: Option<oneshot::Sender<()>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), RunError>>,
    cut: Arc<AtomicBool>,
}

/// A configuration with one fixed address for status, in the pod `name` of the namespace `ingress`.
pub(crate) fn config(name: &str) -> ControllerConfig {
    let mut config = ControllerConfig {
        pod: Some(Pod { name: name.into(), namespace: "ingress".into() }),
        ..ControllerConfig::default()
    };
    config.status.addresses = AddressSource::Fixed(vec!["192.0.2.1".into()]);
    config
}

impl Rig {
    pub(crate) fn start(api: &ApiServer, config: ControllerConfig) -> Self {
        Self::begin(api, config, |controller| controller)
    }

    /// With proxies in other processes: for each one the number of the last change that is in force there.
    pub(crate) fn start_with_proxies(
        api: &ApiServer,
        config: ControllerConfig,
        serves: &watch::Sender<Vec<u64>>,
    ) -> Self {
        let (changed, receiver) = watch::channel(0);
        let mut progress = serves.subscribe();
        tokio::spawn(async move {
            while progress.changed().await.is_ok() {
                changed.send_modify(|count| *count += 1);
            }
        });
        let serves = serves.subscribe();
        Self::begin(api, config, |controller| controller.with_proxies(receiver, move || serves.borrow().clone(), 1))
    }

    fn begin(api: &ApiServer, config: ControllerConfig, with: impl FnOnce(Controller) -> Controller) -> Self {
        let (sink, mut changes) = mpsc::channel::<Publish>(1);
        let (publish, snapshot) = watch::channel(Snapshot::default());
        let (past, history) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Publish { delta, live }) = changes.recv().await {
                publish.send_modify(|snapshot| *snapshot = snapshot.apply(delta));
                // The test may have ended.
                let _ = past.send(publish.borrow().clone());
                let _ = live.send(());
            }
        });
        let cut = Arc::<AtomicBool>::default();
        let controller = with(Controller::new(api.client(cut.clone()), config, sink).unwrap());
        let (ready, reporter, findings) = (controller.readiness(), controller.reporter(), controller.findings());
        let (leave, left) = oneshot::channel::<()>();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(controller.run(
            async {
                let _ = left.await;
            },
            async {
                let _ = stopped.await;
            },
        ));
        Self { snapshot, ready, reporter, findings, history, leave: Some(leave), stop: Some(stop), task, cut }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    pub(crate) async fn ready(&mut self) {
        let ready = timeout(Duration::from_secs(3600), self.ready.wait_for(|ready| *ready)).await;
        ready.expect("not ready").unwrap();
    }

    /// The live snapshot.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Waits until exactly these hosts (and the catch-all) are served.
    pub(crate) async fn serves(&mut self, hosts: &[&str]) {
        let expected: BTreeSet<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let wait = self.snapshot.wait_for(|snapshot| hosts_of(snapshot) == expected);
        let arrived = timeout(Duration::from_secs(3600), wait).await.is_ok();
        assert!(arrived, "waited for {expected:?}, got {:?}", hosts_of(&self.snapshot()));
    }

    /// Waits until the live snapshot passes the check.
    pub(crate) async fn until(&mut self, what: &str, check: impl Fn(&Snapshot) -> bool) {
        let wait = self.snapshot.wait_for(|snapshot| check(snapshot));
        let arrived = timeout(Duration::from_secs(3600), wait).await.is_ok();
        assert!(arrived, "waited for {what}");
    }

    /// Acts as the process does on a request to end.
    pub(crate) fn leave(&mut self) {
        self.leave.take().unwrap().send(()).unwrap();
    }

    /// Stops the controller gracefully.
    pub(crate) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// Stops the controller as a power cut would.
    pub(crate) fn kill(self) {
        self.cut.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

/// The names of the hosts, without the catch-all.
pub(crate) fn hosts_of(snapshot: &Snapshot) -> BTreeSet<String> {
    snapshot.hosts().iter().map(|host| host.pattern().to_string()).filter(|host| host != "*").collect()
}

/// An Ingress of class nginx for one host, named after it without `.example.com`.
pub(crate) fn ingress(name: &str) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"namespace": "shop", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "ingressClassName": "nginx",
            "rules": [{"host": format!("{name}.example.com"), "http": {"paths": [path]}}],
        },
    })
}

pub(crate) fn class() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "nginx"},
        "spec": {"controller": "k8s.io/ingress-nginx"},
    })
}

/// A cluster with the class, a Service, and an Ingress for each name.
pub(crate) fn cluster(ingresses: &[&str]) -> ApiServer {
    let api = ApiServer::start();
    api.put(class());
    api.put(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
    }));
    for name in ingresses {
        api.put(ingress(name));
    }
    api
}

/// The pod of a replica.
pub(crate) fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": "ingress",
            "name": name,
            "labels": {"app": "fairway", "pod-template-hash": name},
        },
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// The same during its deletion; created by a Deployment called `fairway`.
pub(crate) fn ending_pod(name: &str) -> Value {
    let mut pod = pod(name, "n1");
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["ownerReferences"] = json!([
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("fairway-{name}"), "uid": "u", "controller": true},
    ]);
    pod
}

/// The Deployment of such pods.
pub(crate) fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": "ingress", "name": "fairway"},
        "spec": {"replicas": replicas},
    })
}
