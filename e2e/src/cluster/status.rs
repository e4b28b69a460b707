//! The output of `cluster status`: components, Nodes, pods, Services with an address, and the paths of the logs.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::cluster::ready::is_ready;
use crate::cluster::{Cluster, ComponentStatus, State};
use crate::load_balancer::pool;
use crate::procfs::{self, Process};

/// An API server that does not respond within this time is reported rather than awaited.
const PATIENCE: Duration = Duration::from_secs(3);

/// How good a state is, for its colour.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tone {
    Good,
    Doubtful,
    Bad,
}

/// A table with a heading; the cell at `toned` of each row is coloured.
struct Table {
    heading: &'static str,
    columns: &'static [&'static str],
    toned: usize,
    rows: Vec<(Tone, Vec<String>)>,
}

/// Returns all of it as text; `colour` is for terminals.
pub fn show(cluster: &Cluster, colour: bool) -> anyhow::Result<String> {
    let mut text = String::new();
    components(cluster, &cluster.components()?).render(&mut text, colour)?;
    let runtime = cluster.runtime()?;
    let objects = runtime.block_on(async { tokio::time::timeout(PATIENCE, objects(cluster)).await });
    match objects.context("it does not answer").and_then(|objects| objects) {
        Ok(tables) => tables.iter().try_for_each(|table| table.render(&mut text, colour))?,
        Err(error) => writeln!(text, "\nNodes, pods and Services are not known: {error:#}. See kube-apiserver above.")?,
    }
    let layout = cluster.layout();
    writeln!(text, "\nKubeconfig  {}", layout.kubeconfig().display())?;
    writeln!(text, "Logs        {}", layout.logs().display())?;
    writeln!(text, "Audit log   {}", layout.audit_log().display())?;
    Ok(text)
}

fn components(cluster: &Cluster, components: &[ComponentStatus]) -> Table {
    let rows = components.iter().map(|component| {
        let (tone, state, pid) = match &component.state {
            State::Waiting => (Tone::Doubtful, "not started".to_owned(), None),
            State::Running { pid, paused: false } => (Tone::Good, "running".to_owned(), Some(*pid)),
            State::Running { pid, paused: true } => (Tone::Doubtful, "paused".to_owned(), Some(*pid)),
            State::Stopped => (Tone::Doubtful, "stopped".to_owned(), None),
            State::Died(how) => (Tone::Bad, format!("died: {how}"), None),
        };
        let pid =
            pid.and_then(|pid| outside(cluster.supervisor(), pid)).map_or_else(String::new, |pid| pid.to_string());
        (tone, vec![component.name.clone(), state, pid, relative(&component.log)])
    });
    let rows = rows.chain([(
        Tone::Good,
        vec![
            "supervisor".to_owned(),
            "running".to_owned(),
            cluster.supervisor().to_string(),
            relative(&cluster.layout().log("supervisor")),
        ],
    )]);
    Table { heading: "Components", columns: &["NAME", "STATE", "PID", "LOG"], toned: 1, rows: rows.collect() }
}

async fn objects(cluster: &Cluster) -> anyhow::Result<[Table; 3]> {
    let client = cluster.client().await?;
    let all = ListParams::default();
    let (nodes, pods, services) =
        (Api::<Node>::all(client.clone()), Api::<Pod>::all(client.clone()), Api::<Service>::all(client));
    let (nodes, pods, services) = tokio::try_join!(nodes.list(&all), pods.list(&all), services.list(&all))?;
    Ok([
        Table {
            heading: "Nodes",
            columns: &["NAME", "STATE", "ADDRESS", "PODS"],
            toned: 1,
            rows: nodes.iter().map(node).collect(),
        },
        Table {
            heading: "Pods",
            columns: &["NAMESPACE", "NAME", "STATE", "ADDRESS", "NODE"],
            toned: 2,
            rows: pods.iter().map(pod).collect(),
        },
        Table {
            heading: "Services of type LoadBalancer",
            columns: &["NAMESPACE", "NAME", "ADDRESS", "PORTS"],
            toned: 2,
            rows: services.iter().filter(|service| pool::is_ours(service)).map(load_balancer).collect(),
        },
    ])
}

fn node(node: &Node) -> (Tone, Vec<String>) {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let address = addresses.into_iter().find(|address| address.type_ == "InternalIP").map(|it| it.address.clone());
    let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
    let cordoned = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
    let (tone, state) = match (is_ready(node), cordoned) {
        (true, false) => (Tone::Good, "ready"),
        (true, true) => (Tone::Doubtful, "ready, cordoned"),
        (false, _) => (Tone::Bad, "not ready"),
    };
    (tone, vec![node.name_any(), state.to_owned(), address.unwrap_or_default(), range.unwrap_or_default()])
}

fn pod(pod: &Pod) -> (Tone, Vec<String>) {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let ready = containers.iter().filter(|container| container.ready).count();
    let reason = containers.iter().find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = status.phase.unwrap_or_default();
    let (tone, state) = match phase.as_str() {
        _ if pod.metadata.deletion_timestamp.is_some() => (Tone::Doubtful, "ending".to_owned()),
        "Succeeded" => (Tone::Good, "succeeded".to_owned()),
        "Running" if ready == containers.len() => (Tone::Good, "running".to_owned()),
        "Failed" => (Tone::Bad, "failed".to_owned()),
        other => {
            let reason = reason.map(|reason| format!(", {reason}")).unwrap_or_default();
            (Tone::Doubtful, format!("{} {ready}/{}{reason}", other.to_lowercase(), containers.len()))
        }
    };
    let place = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let address = status.pod_ip.unwrap_or_default();
    (tone, vec![pod.namespace().unwrap_or_default(), pod.name_any(), state, address, place])
}

fn load_balancer(service: &Service) -> (Tone, Vec<String>) {
    let (tone, address) = match pool::in_status(service) {
        Some(address) => (Tone::Good, address.to_string()),
        None => (Tone::Doubtful, "none".to_owned()),
    };
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports: Vec<String> = ports.map(|port| port.port.to_string()).collect();
    (tone, vec![service.namespace().unwrap_or_default(), service.name_any(), address, ports.join(",")])
}

impl Table {
    fn render(&self, text: &mut String, colour: bool) -> std::fmt::Result {
        writeln!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, self.heading)?;
        if self.rows.is_empty() {
            return writeln!(text, "  none");
        }
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|(_, row)| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([self.columns[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut line = |cells: &[String], tone: Option<Tone>| {
            let mut line = String::new();
            for (column, cell) in cells.iter().enumerate() {
                let padded = format!("{cell:<width$}", width = widths[column]);
                let code = match tone {
                    Some(Tone::Good) => 32,
                    Some(Tone::Doubtful) => 33,
                    Some(Tone::Bad) => 31,
                    None => 1,
                };
                let coloured = colour && (tone.is_none() || column == self.toned);
                line += "  ";
                line += &if coloured { format!("\x1b[{code}m{padded}\x1b[0m") } else { padded };
            }
            writeln!(text, "{}", line.trim_end())
        };
        let titles: Vec<String> = self.columns.iter().map(|title| (*title).to_owned()).collect();
        line(&titles, None)?;
        self.rows.iter().try_for_each(|(tone, cells)| line(cells, Some(*tone)))
    }
}

/// The process id, as seen from here, of the process that has `pid` in the process namespace whose first process is
/// `init`.
fn outside(init: i32, pid: i32) -> Option<i32> {
    let own = Process::new(init).namespace("pid").ok()?;
    let mut inside = procfs::all().ok()?.filter(|process| own.holds(*process, "pid"));
    // One number for each process namespace it is in, the innermost last.
    let is_it = |process: &Process| {
        let numbers = process.field("NSpid").unwrap_or_default();
        numbers.split_whitespace().last().and_then(|number| number.parse().ok()) == Some(pid)
    };
    Some(inside.find(is_it)?.id())
}

/// The path relative to the current folder if that is shorter.
fn relative(path: &Path) -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_colour_is_optional() {
        let row = |tone, name: &str, state: &str| (tone, vec![name.to_owned(), state.to_owned()]);
        let rows = vec![row(Tone::Good, "a", "ready"), row(Tone::Bad, "longer", "not ready")];
        let table = Table { heading: "Nodes", columns: &["NAME", "STATE"], toned: 1, rows };
        let mut text = String::new();
        table.render(&mut text, false).unwrap();
        assert_eq!(text, "Nodes\n  NAME    STATE\n  a       ready\n  longer  not ready\n");
        text.clear();
        table.render(&mut text, true).unwrap();
        assert!(text.contains("\x1b[31mnot ready\x1b[0m"), "{text:?}");
    }
}
