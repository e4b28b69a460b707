//! The traces of a cluster while it runs, and after it has ended.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use fairway_e2e::cluster::{Cluster, layout};
use fairway_e2e::procfs::{self, KINDS, Namespace, Process};

use super::succeed;

/// The parts of a cluster that the kernel knows.
#[derive(Debug)]
pub(crate) struct Footprint {
    /// Each with its start time, because ids are reused.
    processes: BTreeSet<(Process, String)>,
    /// The namespaces of its processes, without those of this one.
    pub(crate) namespaces: Vec<Namespace>,
}

impl Footprint {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let processes = descendants(Process::new(cluster.supervisor()));
        let own = Process::new(std::process::id().try_into().unwrap());
        let mut namespaces = Vec::new();
        for (process, _) in &processes {
            for kind in KINDS {
                // The process may have ended meanwhile.
                let Ok(namespace) = process.namespace(kind) else { continue };
                if !namespace.holds(own, kind) && !namespaces.contains(&namespace) {
                    namespaces.push(namespace);
                }
            }
        }
        Self { processes, namespaces }
    }

    /// Checks that no process is left, not even an unrelated one in one of the namespaces.
    pub(crate) fn assert_gone(&self) {
        for (process, birth) in &self.processes {
            assert_ne!(process.birth().as_ref(), Some(birth), "left: {process:?}, {:?}", process.words());
        }
        let left = procfs::inhabitants(&self.namespaces).unwrap();
        let left: Vec<_> = left.iter().map(|process| (process, process.words())).collect();
        assert!(left.is_empty(), "in a namespace of the cluster: {left:?}");
    }
}

/// The process and all its descendants; a process that lost its parent in a process namespace has the namespace's first process as
/// parent.
fn descendants(root: Process) -> BTreeSet<(Process, String)> {
    let parents: Vec<_> = procfs::all().unwrap().filter_map(|process| Some((process, process.parent()?))).collect();
    let mut found = BTreeSet::from([root]);
    loop {
        let more = parents.iter().filter(|(process, parent)| found.contains(parent) && !found.contains(process));
        let more: Vec<_> = more.map(|(process, _)| *process).collect();
        if more.is_empty() {
            return found.into_iter().filter_map(|process| Some((process, process.birth()?))).collect();
        }
        found.extend(more);
    }
}

/// The state of this machine outside of clusters: it must be the same before and after one. Only traces that could be a cluster's
/// count, because the machine is shared.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Surroundings {
    mounts: Vec<String>,
    named_namespaces: String,
    links: BTreeSet<String>,
    tables: Vec<String>,
    files: Vec<BTreeSet<String>>,
}

/// Folders in which programs store things that outlive them.
const FOLDERS: [&str; 4] = ["/run", "/run/lock", "/var/lib", "/etc"];

/// Parts of the names of everything that a cluster creates, whether by our code or by Kubernetes.
const NAMES: [&str; 5] = ["fairway", "kube", "etcd", "helm", "load-balancer"];

impl Surroundings {
    pub(crate) fn look() -> Self {
        let names = |path: &str| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<BTreeSet<_>>()
        };
        let is_ours = |name: &String| NAMES.iter().any(|part| name.contains(part));
        let clusters = layout::target().join("cluster");
        // In a cluster /run and /proc are file systems of its own, and volumes of pods are mounted below its folder.
        let could_be = |place: &str| {
            ["/run", "/proc"].contains(&place)
                || place.starts_with("/run/netns")
                || place.starts_with(&*clusters.to_string_lossy())
        };
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mounts = mounts.lines().filter(|line| line.split(' ').nth(1).is_some_and(could_be));
        // The names that `set_up` of the cluster's network and the kubelet give them.
        let is_link = |name: &String| {
            ["lan", "pods"].contains(&name.as_str()) || name.starts_with("node-") || name.starts_with("pod")
        };
        let tables = succeed(Command::new("nft").args(["list", "tables"]));
        Self {
            mounts: mounts.map(str::to_owned).collect(),
            named_namespaces: succeed(Command::new("ip").args(["netns", "list"])),
            links: names("/sys/class/net").into_iter().filter(is_link).collect(),
            tables: tables.lines().map(str::to_owned).filter(is_ours).collect(),
            files: FOLDERS.map(|folder| names(folder).into_iter().filter(is_ours).collect()).into(),
        }
    }
}
