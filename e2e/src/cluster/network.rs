//! The network of a cluster: the addresses are the same in each, as each has its own network namespace.
//!
//! The cluster's own namespace is the outside: clients, load generators, API server. Its bridge `lan` connects the
//! Nodes. Each Node is a namespace with `eth0` (to `lan`) and a bridge `pods`, to which the kubelet connects each pod's
//! `eth0`.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};

/// One Node with its own network namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Node {
    /// Its name, and that of its network namespace.
    pub name: &'static str,
    /// Its address in the LAN.
    pub address: Ipv4Addr,
    /// The bridge's address in its pod network, which is the pods' gateway.
    pub gateway: Ipv4Addr,
    /// Its pod network.
    pub pods: &'static str,
    /// The mark of connections that the load balancer sends to it, and the number of the routing table.
    pub mark: u32,
}

/// The Nodes of every cluster.
pub const NODES: [Node; 2] = [
    Node {
        name: "node-a",
        address: Ipv4Addr::new(198, 19, 0, 11),
        gateway: Ipv4Addr::new(198, 18, 1, 1),
        pods: "198.18.1.0/24",
        mark: 101,
    },
    Node {
        name: "node-b",
        address: Ipv4Addr::new(198, 19, 0, 12),
        gateway: Ipv4Addr::new(198, 18, 2, 1),
        pods: "198.18.2.0/24",
        mark: 102,
    },
];

/// The address of the outside: kube-apiserver listens on it, and clients come from it.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// The port of kube-apiserver.
pub const API_PORT: u16 = 6443;
/// The address of etcd in the cluster's namespace.
pub const ETCD: &str = "http://127.0.0.1:2379";
/// All pods of all Nodes.
pub const CLUSTER_CIDR: &str = "198.18.0.0/16";
/// The ClusterIPs.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The ClusterIP of the API server.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Creates the namespaces, bridges, addresses and routes. Called once, in the cluster's own network and mount
/// namespace.
pub(crate) fn set_up() -> anyhow::Result<()> {
    // Namespace names are bound in this folder: with a private file system on it, they end with the mount namespace.
    nix::mount::mount(Some("tmpfs"), "/run", Some("tmpfs"), nix::mount::MsFlags::empty(), Some("mode=755"))
        .context("mounting a file system of our own on /run")?;
    let mut outside = "link set lo up\nlink add lan type bridge\n".to_owned();
    outside += &format!("address add {OUTSIDE}/24 dev lan\nlink set lan up\n");
    for Node { name, .. } in NODES {
        outside += &format!("netns add {name}\nlink add {name} type veth peer name eth0 netns {name}\n");
        outside += &format!("link set {name} master lan up\n");
    }
    for Node { address, pods, mark, .. } in NODES {
        outside += &format!("route add {pods} via {address}\n");
        // The load balancer's route to the Node: see `load_balancer::route`.
        outside += &format!("route add default via {address} table {mark}\nrule add fwmark {mark} table {mark}\n");
    }
    outside += &format!("route add {SERVICE_CIDR} via {}\n", NODES[0].address);
    batch(&outside)?;
    // Between Nodes the outside is a wire: it must not track the traffic on its bridge.
    sysctl("net/bridge/bridge-nf-call-iptables", "0")?;
    routing()?;
    for node in NODES {
        within(&namespace(node.name), || set_up_node(&node)).with_context(|| format!("setting up {}", node.name))?;
    }
    Ok(())
}

fn set_up_node(node: &Node) -> anyhow::Result<()> {
    let Node { address, gateway, .. } = node;
    let mut commands = format!("link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n");
    commands += &format!("link add pods type bridge\naddress add {gateway}/24 dev pods\nlink set pods up\n");
    commands += &format!("route add default via {OUTSIDE}\n");
    for other in NODES.iter().filter(|other| *other != node) {
        commands += &format!("route add {} via {}\n", other.pods, other.address);
    }
    batch(&commands)?;
    // Pods of one Node reach each other through the bridge; responses of a Service's endpoint must pass the address
    // translation.
    sysctl("net/bridge/bridge-nf-call-iptables", "1")?;
    routing()
}

/// Makes this namespace forward without sending redirects, which would bypass the address translation.
fn routing() -> anyhow::Result<()> {
    sysctl("net/ipv4/ip_forward", "1")?;
    for entry in fs::read_dir("/proc/sys/net/ipv4/conf")? {
        fs::write(entry?.path().join("send_redirects"), "0").context("turning redirects off")?;
    }
    Ok(())
}

fn sysctl(name: &str, value: &str) -> anyhow::Result<()> {
    let path = Path::new("/proc/sys").join(name);
    fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
}

/// The file that represents a network namespace, as seen inside the cluster's mount namespace.
pub fn namespace(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Moves the calling thread, and only it, into a network namespace.
pub fn enter(namespace: &File) -> anyhow::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the network namespace (root is needed)")
}

/// Runs `work` on a thread of its own inside the network namespace represented by `path`.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let file = File::open(path).with_context(|| format!("opening the network namespace {}", path.display()))?;
    inside(&file, work)
}

/// Like [`within`], for an open namespace.
pub fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let run = move || {
        enter(namespace)?;
        work()
    };
    thread::scope(|scope| match scope.spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Passes `commands`, one per line, to ip(8), which stops at the first failure.
pub(crate) fn batch(commands: &str) -> anyhow::Result<()> {
    feed(Command::new("ip").args(["-batch", "-"]), commands)
}

/// Runs `command` with `input` on its standard input; an error includes its output.
pub(crate) fn feed(command: &mut Command, input: &str) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name} (`cargo xtask needs` installs missing programs)"))?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output().with_context(|| format!("waiting for {name}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{name} failed: {}\nIts input was:\n{input}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
