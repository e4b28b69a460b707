//! The process kubelet: runs the pods that are bound to its Node.
//!
//! A container is a process in its own namespaces, see [`crate::container`]; the name of an image selects its program,
//! see [`crate::image`]. Everything else is as users of a cluster know it: volumes, probes, restarts, status, logs,
//! host ports.
//!
//! Containers end together with their kubelet. A restarted kubelet starts the Node's pods again, in new networks, with
//! one more restart in their status.

mod environment;
mod event;
mod host_port;
mod links;
mod log;
mod network;
mod node;
mod objects;
mod pod;
mod probe;
mod process;
mod runner;
mod server;
mod spawner;
mod status;
mod stop;
mod volume;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures::{StreamExt as _, pin_mut};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config, Resource as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::procfs::Process;

use pod::{PodWorker, Update};

/// Options of a kubelet about its Node.
#[derive(Args, Clone, Debug)]
pub struct KubeletOptions {
    /// Name of the Node.
    #[arg(long)]
    pub node: String,
    /// Address of the Node.
    #[arg(long)]
    pub address: Ipv4Addr,
    /// The range that its pods get their addresses from; the first one is the Node's.
    #[arg(long)]
    pub pod_cidr: Ipv4Net,
    /// How to reach the API server.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Certificate chain of the server on port 10250, PEM.
    #[arg(long)]
    pub certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long)]
    pub key: PathBuf,
    /// Who may call it: certificates of this authority, PEM.
    #[arg(long)]
    pub client_ca: PathBuf,
    /// Where the files of pods and their logs are kept.
    #[arg(long)]
    pub directory: PathBuf,
    /// The root file system of our own image.
    #[arg(long)]
    pub image_root: PathBuf,
    /// A label of the Node, NAME=VALUE.
    #[arg(long, value_parser = label)]
    pub label: Vec<(String, String)>,
    /// A taint of the Node, NAME[=VALUE]:EFFECT.
    #[arg(long, value_parser = taint)]
    pub taint: Vec<Taint>,
    /// Where pods find the API server: address of the Service `kubernetes`.
    #[arg(long, default_value = "10.96.0.1")]
    pub service_host: IpAddr,
    /// The name server of pods with the DNS policy `ClusterFirst`.
    #[arg(long, default_value = "10.96.0.10")]
    pub cluster_dns: IpAddr,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not of the form NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn taint(text: &str) -> Result<Taint, String> {
    let (name, effect) = text.rsplit_once(':').ok_or("not of the form NAME[=VALUE]:EFFECT")?;
    let (key, value) = name.split_once('=').map_or((name, None), |(key, value)| (key, Some(value.to_owned())));
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), ..Taint::default() })
}

/// A kubelet: the state shared by all pods of the Node.
pub(crate) struct Kubelet {
    options: KubeletOptions,
    client: Client,
    spawner: spawner::Spawner,
    addresses: Arc<network::Addresses>,
    cache: Arc<objects::Cache>,
    host_ports: host_port::HostPorts,
    node: Node,
    host_ip: String,
    events: mpsc::Sender<event::EventRecord>,
    pods: Mutex<BTreeMap<String, Arc<PodWorker>>>,
}

/// Runs until SIGTERM or SIGINT. The containers end with it.
///
/// # Errors
/// If an option can't be used, or its port is in use.
pub async fn run(options: KubeletOptions) -> anyhow::Result<()> {
    let options = KubeletOptions {
        directory: std::path::absolute(&options.directory).context("finding the directory")?,
        image_root: std::path::absolute(&options.image_root).context("finding the image")?,
        ..options
    };
    std::fs::create_dir_all(options.directory.join("pods")).context("making the directory")?;
    kill_orphans(&options.directory);
    let addresses = network::Addresses::new(options.pod_cidr, &options.directory);
    network::prepare_node(addresses.gateway())?;

    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig).context("reading the kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_secs(2));
    // A stopped or unreachable API server is noticed soon; watches end and resume every 290 s in any case.
    let mut patient = config.clone();
    patient.read_timeout = Some(Duration::from_secs(300));
    config.read_timeout = Some(Duration::from_secs(10));
    let client = Client::try_from(config).context("making a client")?;
    let watching = Client::try_from(patient).context("making a client")?;

    let (events, records) = mpsc::channel(256);
    let node = node::node(&options);
    let kubelet = Arc::new(Kubelet {
        spawner: spawner::Spawner::new(tokio::runtime::Handle::current())?,
        addresses,
        cache: objects::Cache::new(watching.clone()),
        host_ports: host_port::HostPorts::default(),
        node: node.clone(),
        host_ip: options.address.to_string(),
        events,
        pods: Mutex::default(),
        client: client.clone(),
        options,
    });
    kubelet.host_ports.clear().await?;
    let server = server::Server::new(kubelet.clone()).await?;
    tracing::info!(node = kubelet.options.node, address = kubelet.host_ip, "kubelet started");

    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        () = server.run() => anyhow::bail!("the server ended"),
        () = node::keep(client.clone(), node) => anyhow::bail!("the Node is no longer kept"),
        () = event::write(client, kubelet.options.node.clone(), records) => anyhow::bail!("events are no longer written"),
        () = follow(kubelet.clone(), watching) => anyhow::bail!("the watch of pods ended"),
        _ = terminate.recv() => Ok(()),
        result = tokio::signal::ctrl_c() => result.context("waiting for a signal"),
    }
}

/// Watches the Node's pods and runs a worker for each.
async fn follow(kubelet: Arc<Kubelet>, client: Client) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", kubelet.options.node));
    let events = watcher::watcher(Api::<Pod>::all(client), config);
    pin_mut!(events);
    let mut pods: HashMap<String, watch::Sender<Update>> = HashMap::new();
    let mut listed: Option<Vec<String>> = None;
    let mut first = true;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Some(Vec::new()),
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if let Some(listed) = &mut listed {
                    listed.push(uid.clone());
                }
                pods.retain(|_, sender| !sender.is_closed());
                let update = Update { object: Arc::new(pod), gone: false };
                if let Some(sender) = pods.get(&uid) {
                    sender.send_replace(update);
                } else {
                    let (sender, receiver) = watch::channel(update);
                    tokio::spawn(pod::life::run(kubelet.clone(), receiver));
                    pods.insert(uid, sender);
                }
            }
            Ok(Event::InitDone) => {
                let listed = listed.take().unwrap_or_default();
                for (uid, sender) in &pods {
                    if !listed.contains(uid) {
                        sender.send_modify(|update| update.gone = true);
                    }
                }
                if std::mem::take(&mut first) {
                    kubelet.remove_orphans(&listed);
                }
            }
            Ok(Event::Delete(pod)) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if let Some(sender) = pods.remove(&uid) {
                    sender.send_replace(Update { object: Arc::new(pod), gone: true });
                }
            }
            Err(error) => {
                tracing::debug!(%error, "watching pods failed");
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

impl Kubelet {
    /// The variables of every container: the address of the API server.
    fn fixed_variables(&self) -> Vec<(String, String)> {
        let host = self.options.service_host;
        let url = format!("tcp://{host}:443");
        [
            ("KUBERNETES_SERVICE_HOST", host.to_string()),
            ("KUBERNETES_SERVICE_PORT", "443".to_owned()),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "443".to_owned()),
            ("KUBERNETES_PORT", url.clone()),
            ("KUBERNETES_PORT_443_TCP", url),
            ("KUBERNETES_PORT_443_TCP_PROTO", "tcp".to_owned()),
            ("KUBERNETES_PORT_443_TCP_PORT", "443".to_owned()),
            ("KUBERNETES_PORT_443_TCP_ADDR", host.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    fn pod_directory(&self, uid: &str) -> PathBuf {
        self.options.directory.join("pods").join(uid)
    }

    fn event(&self, pod: &Pod, kind: &'static str, reason: &'static str, message: String) {
        // Too many at once: the rest is dropped.
        let _ = self.events.try_send(event::EventRecord { about: pod.object_ref(&()), kind, reason, message });
    }

    fn register(&self, pod: &Arc<PodWorker>) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.uid().to_owned(), pod.clone());
    }

    fn forget(&self, pod: &PodWorker) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(pod.uid());
    }

    /// All known pods.
    fn pods(&self) -> Vec<Arc<PodWorker>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Records a container's first process for the next kubelet, in case this one is killed.
    fn remember(&self, process: i32, directory: &Path) {
        if let Some(birth) = Process::new(process).birth() {
            // If this fails, only the kernel's own tie remains.
            let _ = std::fs::write(directory.join("process"), format!("{process} {birth}"));
        }
    }

    /// Removes the remains of pods that are gone from an earlier kubelet.
    fn remove_orphans(&self, known: &[String]) {
        let entries = std::fs::read_dir(self.options.directory.join("pods")).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| !known.iter().any(|uid| entry.file_name() == **uid)) {
            if let Err(error) = volume::remove_all(&entry.path()) {
                tracing::warn!(%error, path = %entry.path().display(), "removing a pod's directory failed");
            }
        }
    }
}

/// Kills containers of an earlier kubelet that the kernel did not end with it.
fn kill_orphans(directory: &Path) {
    let entries = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    for container in entries(directory.join("pods")).flat_map(|pod| entries(pod.join("containers"))) {
        let text = std::fs::read_to_string(container.join("process")).unwrap_or_default();
        if let Some((process, born)) = text.split_once(' ')
            && let Ok(process) = process.parse()
            && Process::new(process).birth().as_deref() == Some(born)
        {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}
