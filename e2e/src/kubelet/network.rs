//! The network of a pod: a namespace with one interface and an address of the Node's range; everything else is reached
//! through the Node.
//!
//! The address is a host address (/32) and the gateway is reached on the link, so that even two pods of one Node
//! communicate through the Node, whose rules for Services then see both directions.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use ipnet::Ipv4Net;

use super::spawner::{Network, Spawner};

/// The bridge of the Node that connects its pods.
pub(crate) const BRIDGE: &str = "pods";

/// Assigns addresses to pods: each is the next one of the range, so that an address is reused as late as possible.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: Ipv4Net,
    /// The file that keeps the last assigned address across restarts.
    memory: PathBuf,
    state: Mutex<NetworkState>,
}

#[derive(Debug)]
struct NetworkState {
    last: u32,
    taken: Vec<u32>,
}

/// An address reserved for one pod while this is held.
#[derive(Debug)]
pub(crate) struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    owner: Arc<Addresses>,
}

impl Addresses {
    /// The addresses of a Node; `directory` keeps the position across restarts.
    pub(crate) fn new(range: Ipv4Net, directory: &Path) -> Arc<Self> {
        let memory = directory.join("last-address");
        let last = std::fs::read_to_string(&memory).ok().and_then(|text| text.trim().parse::<Ipv4Addr>().ok());
        let last = last.map_or(0, u32::from);
        Arc::new(Self { range, memory, state: Mutex::new(NetworkState { last, taken: Vec::new() }) })
    }

    /// The gateway of the range: its first address, which is the Node's.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()) + 1)
    }

    /// The next free address.
    ///
    /// # Errors
    /// If all are in use.
    pub(crate) fn take(self: &Arc<Self>) -> anyhow::Result<Address> {
        let (first, end) = (u32::from(self.range.network()) + 2, u32::from(self.range.broadcast()));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if (first..end - 1).contains(&state.last) { state.last + 1 } else { first };
        let free = (next..end).chain(first..next).find(|address| !state.taken.contains(address));
        let free = free.with_context(|| format!("no free address in {}", self.range))?;
        state.last = free;
        state.taken.push(free);
        let ip = Ipv4Addr::from(free);
        // Losing the position only means that an address is reused sooner.
        let _ = std::fs::write(&self.memory, ip.to_string());
        Ok(Address { ip, owner: self.clone() })
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        let mut state = self.owner.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.taken.retain(|taken| *taken != u32::from(self.ip));
    }
}

/// Prepares the Node's namespace: pods that share a Node go through it without redirects, and their gateway keeps its
/// hardware address.
///
/// # Errors
/// If a setting can't be written.
pub(crate) fn prepare_node(gateway: Ipv4Addr) -> anyhow::Result<()> {
    // A bridge without an address of its own takes the lowest one of its ports: that could change with each pod that
    // comes or goes, and traffic to the previous address would be lost until the pods ask again.
    ip_batch(&format!("link set {BRIDGE} address {}\n", hardware(gateway))).context("setting the gateway's address")?;
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        (&format!("net.ipv4.conf.{BRIDGE}.send_redirects"), "0"),
    ] {
        sysctl(name, value).with_context(|| format!("setting {name}"))?;
    }
    Ok(())
}

/// A pod's namespace, connected.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    /// The namespace.
    pub namespace: Network,
    /// The pod's address.
    pub address: Address,
    /// The Node's end of the pod's link.
    interface: String,
}

impl PodNetwork {
    /// Creates and connects the namespace of the pod with this uid, with its own kernel settings.
    ///
    /// # Errors
    /// If no address is free, or the kernel refuses a step or a setting.
    pub(crate) async fn new(
        spawner: &Spawner,
        addresses: &Arc<Addresses>,
        uid: &str,
        sysctls: Vec<(String, String)>,
    ) -> anyhow::Result<Self> {
        let address = addresses.take()?;
        let namespace = spawner.network().await.context("making a network namespace")?;
        let interface = interface(uid);
        let ip = address.ip;
        let hardware = hardware(ip);
        let file = std::os::fd::AsRawFd::as_raw_fd(&*namespace.0);
        let outer = format!(
            "link add {interface} type veth peer name eth0 address {hardware} netns /proc/{}/fd/{file}\n\
             link set {interface} master {BRIDGE} up\n\
             link set {interface} type bridge_slave hairpin on\n",
            std::process::id()
        );
        // Remove one left by an earlier kubelet; usually there is none.
        let stale = interface.clone();
        spawner
            .within(None, move || {
                let _ = ip_batch(&format!("link del {stale}\n"));
                ip_batch(&outer)
            })
            .await
            .context("connecting the pod to the Node")?;
        let gateway = addresses.gateway();
        let inner = format!(
            "link set lo up\naddr add {ip}/32 dev eth0\nlink set eth0 up\n\
             route add {gateway} dev eth0 scope link\nroute add default via {gateway}\n"
        );
        let pod = Self { namespace: namespace.clone(), address, interface };
        spawner
            .within(Some(namespace), move || {
                ip_batch(&inner)?;
                for (name, value) in sysctls {
                    sysctl(&name, &value)
                        .map_err(|error| io::Error::new(error.kind(), format!("setting {name}: {error}")))?;
                }
                Ok(())
            })
            .await
            .context("setting up the pod's network")?;
        Ok(pod)
    }

    /// Removes the interface at once; the address is free afterwards.
    pub(crate) async fn remove(self, spawner: &Spawner) {
        let interface = self.interface.clone();
        // The interface may already be gone, and disappears with its namespace in any case.
        let _ = spawner.within(None, move || ip_batch(&format!("link del {interface}\n"))).await;
    }
}

/// A hardware address derived from the address, so that no neighbour holds a stale one when an address is reused.
fn hardware(ip: Ipv4Addr) -> String {
    let [a, b, c, d] = ip.octets();
    format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A name of at most 15 bytes that differs between pods.
fn interface(uid: &str) -> String {
    let digits: String = uid.chars().filter(char::is_ascii_alphanumeric).take(11).collect();
    format!("pod{digits}")
}

/// Runs `ip` commands in the calling thread's network namespace.
fn ip_batch(commands: &str) -> io::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("ip: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Writes a kernel setting of the calling thread's network namespace.
fn sysctl(name: &str, value: &str) -> io::Result<()> {
    // Both spellings of a name are allowed: dots between parts, or slashes with dots inside parts.
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    std::fs::write(Path::new("/proc/sys").join(path), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_only_after_all_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let range: Ipv4Net = "198.18.1.0/29".parse().expect("a range");
        let addresses = Addresses::new(range, directory.path());
        assert_eq!(addresses.gateway().to_string(), "198.18.1.1");
        let given: Vec<String> = (0..7).map(|_| addresses.take().expect("free").ip.to_string()).collect();
        assert_eq!(given[..5], ["198.18.1.2", "198.18.1.3", "198.18.1.4", "198.18.1.5", "198.18.1.6"]);
        assert_eq!(given[5..], ["198.18.1.2", "198.18.1.3"]);

        let again = Addresses::new(range, directory.path());
        let held: Vec<Address> = (0..5).map(|_| again.take().expect("free")).collect();
        assert_eq!(held[0].ip.to_string(), "198.18.1.4", "a restart goes on where it was");
        again.take().expect_err("all taken");
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        assert_eq!(interface("1b4e28ba-2fa1-11d2-883f-0016d3cca427"), "pod1b4e28ba2fa");
    }
}
