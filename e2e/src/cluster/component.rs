//! The programs of a cluster and their arguments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::cluster::credential::{Authority, Subject};
use crate::cluster::layout::{self, Layout};
use crate::cluster::network::{
    API_PORT, API_SERVICE, CLUSTER_CIDR, ETCD, NODES, Node, OUTSIDE, SERVICE_CIDR, namespace,
};

/// The controllers that kube-controller-manager runs. Excludes those for Nodes (managed by hand here), volumes, and
/// clouds.
const CONTROLLERS: &str = "\
    clusterrole-aggregation-controller,cronjob-controller,daemonset-controller,deployment-controller,disruption-controller,\
    endpoints-controller,endpointslice-controller,endpointslice-mirroring-controller,garbage-collector-controller,\
    job-controller,namespace-controller,replicaset-controller,root-ca-certificate-publisher-controller,\
    serviceaccount-controller,statefulset-controller,ttl-after-finished-controller";

/// Every request with its user, its target and the status of the response; a watch when it starts and when it ends.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// A program of the cluster with everything needed to start it, any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Component {
    /// Its name, unique in the cluster and also used for its log.
    pub(crate) name: String,
    /// The Node whose network it runs in; the others run in the cluster's own.
    pub(crate) node: Option<&'static str>,
    program: PathBuf,
    arguments: Vec<String>,
    /// Its log; receives both of its output streams.
    pub(crate) log: PathBuf,
}

/// How a cluster differs from the default.
#[derive(Clone, Debug, Default, Eq, PartialEq, clap::Args)]
pub struct Options {
    /// Make node-a look like the Node of kind: the control plane's label and taint, and `ingress-ready=true`
    #[arg(long)]
    pub control_plane_taint: bool,
    /// Make kube-proxy follow each change at once, not at most once a second
    #[arg(long)]
    pub prompt_proxies: bool,
}

impl Component {
    fn new(layout: &Layout, name: impl Into<String>, program: PathBuf, arguments: Vec<String>) -> Self {
        let name = name.into();
        let log = layout.log(&name);
        Self { name, node: None, program, arguments, log }
    }

    fn on(self, node: &'static str) -> Self {
        Self { node: Some(node), ..self }
    }

    /// The command that starts it. Its process is the program itself, even in a Node's network, so that signals reach
    /// it.
    pub(crate) fn command(&self) -> Command {
        let mut command = match self.node {
            Some(node) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace(node).display())).arg("--").arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&self.arguments);
        command
    }
}

/// All components in the order in which they start; writes their files.
pub(crate) fn all(layout: &Layout, authority: &Authority, options: &Options) -> anyhow::Result<Vec<Component>> {
    let files = Files { layout, authority };
    let mut components = vec![files.etcd(), files.api_server()?, files.controller_manager()?, files.scheduler()?];
    for node in &NODES {
        components.push(files.kubelet(node, options)?);
    }
    for node in &NODES {
        components.push(files.kube_proxy(node, options)?);
    }
    Ok(components)
}

/// Writes the files that the components read.
struct Files<'a> {
    layout: &'a Layout,
    authority: &'a Authority,
}

impl Files<'_> {
    fn etcd(&self) -> Component {
        let arguments = [
            "--name=etcd".to_owned(),
            format!("--data-dir={}", self.layout.directory().join("etcd").display()),
            // A cluster that dies is recreated: nothing must survive a crash of the machine.
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        self.tool("etcd", arguments.into())
    }

    fn api_server(&self) -> anyhow::Result<Component> {
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        let server = self.authority.server("kube-apiserver", &names, &[OUTSIDE.into(), API_SERVICE.into()])?;
        let subject = Subject { user: "kube-apiserver-kubelet-client", group: Some("system:masters") };
        let kubelet_client = self.authority.client("kube-apiserver-kubelet-client", subject)?;
        let service_account = self.authority.service_account()?;
        let authority = self.authority.certificate();
        let policy = self.layout.credentials().join("audit-policy.yaml");
        write(&policy, AUDIT_POLICY)?;
        let arguments = [
            format!("--etcd-servers={ETCD}"),
            format!("--bind-address={OUTSIDE}"),
            format!("--advertise-address={OUTSIDE}"),
            format!("--secure-port={API_PORT}"),
            format!("--tls-cert-file={}", server.certificate.display()),
            format!("--tls-private-key-file={}", server.key.display()),
            format!("--client-ca-file={}", authority.display()),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", service_account.certificate.display()),
            format!("--service-account-signing-key-file={}", service_account.key.display()),
            "--authorization-mode=Node,RBAC".to_owned(),
            // It taints new Nodes until the node lifecycle controller, which does not run here, finds them ready.
            "--disable-admission-plugins=TaintNodesByCondition".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--kubelet-certificate-authority={}", authority.display()),
            format!("--kubelet-client-certificate={}", kubelet_client.certificate.display()),
            format!("--kubelet-client-key={}", kubelet_client.key.display()),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", self.layout.audit_log().display()),
            // One file for the whole life of the cluster, so that later readers miss nothing.
            "--audit-log-maxsize=0".to_owned(),
            "--profiling=false".to_owned(),
        ];
        Ok(self.tool("kube-apiserver", arguments.into()))
    }

    fn controller_manager(&self) -> anyhow::Result<Component> {
        let arguments = vec![
            self.kubeconfig("system:kube-controller-manager", None)?,
            format!("--controllers={CONTROLLERS}"),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            format!(
                "--service-account-private-key-file={}",
                self.layout.credentials().join("service-account.key").display()
            ),
            format!("--root-ca-file={}", self.authority.certificate().display()),
            "--profiling=false".to_owned(),
        ];
        Ok(self.tool("kube-controller-manager", arguments))
    }

    fn scheduler(&self) -> anyhow::Result<Component> {
        let arguments = vec![
            self.kubeconfig("system:kube-scheduler", None)?,
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        Ok(self.tool("kube-scheduler", arguments))
    }

    fn kube_proxy(&self, node: &Node, options: &Options) -> anyhow::Result<Component> {
        let mut arguments = vec![
            self.kubeconfig("system:kube-proxy", None)?,
            "--proxy-mode=nftables".to_owned(),
            format!("--hostname-override={}", node.name),
            format!("--cluster-cidr={CLUSTER_CIDR}"),
            "--nodeport-addresses=primary".to_owned(),
            // Keep the machine's limits.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0".to_owned(),
            "--healthz-bind-address=0.0.0.0:10256".to_owned(),
            "--metrics-bind-address=127.0.0.1:10249".to_owned(),
        ];
        if options.prompt_proxies {
            // This applies to nftables too.
            arguments.push("--iptables-min-sync-period=0s".to_owned());
        }
        let name = format!("kube-proxy-{}", node.name);
        Ok(Component::new(self.layout, name, layout::tools().join("kube-proxy"), arguments).on(node.name))
    }

    fn kubelet(&self, node: &Node, options: &Options) -> anyhow::Result<Component> {
        let directory = self.layout.node(node.name);
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let server = self.authority.server(&format!("kubelet-{}", node.name), &[node.name], &[node.address.into()])?;
        let mut arguments: Vec<String> = ["kubelet", "--node", node.name].map(str::to_owned).into();
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        option("--address", node.address.to_string());
        option("--pod-cidr", node.pods.to_owned());
        let user = format!("system:node:{}", node.name);
        let kubeconfig = self.layout.credentials().join(format!("kubelet-{}.kubeconfig", node.name));
        self.authority.kubeconfig(&kubeconfig, Subject { user: &user, group: Some("system:nodes") })?;
        option("--kubeconfig", text(&kubeconfig));
        option("--certificate", text(&server.certificate));
        option("--key", text(&server.key));
        option("--client-ca", text(&self.authority.certificate()));
        option("--directory", text(&directory));
        option("--image-root", text(&layout::image()));
        if options.control_plane_taint && *node == NODES[0] {
            option("--label", "ingress-ready=true".to_owned());
            option("--label", "node-role.kubernetes.io/control-plane=".to_owned());
            option("--taint", "node-role.kubernetes.io/control-plane=:NoSchedule".to_owned());
        }
        let name = format!("kubelet-{}", node.name);
        Ok(Component::new(self.layout, name, self.layout.program(), arguments).on(node.name))
    }

    fn tool(&self, name: &str, arguments: Vec<String>) -> Component {
        Component::new(self.layout, name, layout::tools().join(name), arguments)
    }

    /// Writes a kubeconfig for `user`; returns the argument that names it.
    fn kubeconfig(&self, user: &str, group: Option<&str>) -> anyhow::Result<String> {
        let path = self.layout.credentials().join(format!("{}.kubeconfig", user.replace(':', "-")));
        self.authority.kubeconfig(&path, Subject { user, group })?;
        Ok(format!("--kubeconfig={}", path.display()))
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
