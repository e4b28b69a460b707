//! The human-readable status.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::standing::{Connected, Standing};
use super::{Process, Status};
use crate::terminal::{Style, Terminal, count, printable, table};

pub(super) fn render(status: &Status, terminal: Terminal) -> String {
    let mut out = String::new();
    let mut parts = vec![processes(&status.processes, terminal), proxies(&status.processes, terminal)];
    parts.extend([refused(&status.processes, terminal), versions(&status.processes, terminal)]);
    parts.extend(status.ingresses.as_ref().map(|ingresses| ingresses.text(terminal)));
    for part in parts.iter().filter(|part| !part.is_empty()) {
        out.push_str(if out.is_empty() { "" } else { "\n" });
        out.push_str(part);
    }
    out
}

fn processes(all: &[Process], terminal: Terminal) -> String {
    if all.is_empty() {
        return "no pod runs Fairway here, as far as its labels say\n".to_owned();
    }
    let header = ["PROCESS", "ROLE", "STATE", "AGE", "CHANGED", "RESOURCES", "REFUSED", "PROXIES", "VERSION"];
    let mut rows = vec![header.map(str::to_owned)];
    let (silent, answering): (Vec<_>, Vec<_>) = all.iter().partition(|process| process.standing.is_none());
    for (process, standing) in answering.iter().filter_map(|process| Some((process, process.standing.as_ref()?))) {
        let of = |proxies: &Vec<Connected>| {
            let current = proxies.iter().filter(|proxy| proxy.current).count();
            format!("{current} of {}", proxies.len())
        };
        let refused = standing.proxies.iter().flatten().map(|proxy| proxy.refused.len()).sum::<usize>();
        rows.push([
            process.process.clone(),
            standing.role.clone(),
            state(standing).to_owned(),
            time(standing.age_seconds),
            standing.changed_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{} ago", time(seconds))),
            standing.resources.to_string(),
            (standing.refused.len() + refused).to_string(),
            standing.proxies.as_ref().map_or_else(|| "-".to_owned(), of),
            standing.fairway.clone(),
        ]);
    }
    let mut out = if rows.len() > 1 { table(&rows, terminal) } else { String::new() };
    for process in silent {
        let error = process.error.as_deref().unwrap_or_default();
        let line = format!("{}: {}", printable(&process.process), printable(error));
        let _ = writeln!(out, "{}", terminal.style(Style::Red, line));
    }
    out
}

/// The state of a process in one word.
fn state(standing: &Standing) -> &'static str {
    match (standing.complete, standing.current, &*standing.role) {
        (false, ..) => "starting",
        (true, true, _) => "current",
        (true, false, "controller") => "behind",
        (true, false, "proxy") => "stale",
        (true, false, _) => "partial",
    }
}

/// The proxies of controllers that are not current or refuse something; the table above only counts the others.
fn proxies(all: &[Process], terminal: Terminal) -> String {
    let mut rows = vec![["PROXY", "OF", "STATE", "LAST CHANGE", "RESOURCES", "VERSION"].map(str::to_owned)];
    for (process, proxy) in connected(all).filter(|(_, proxy)| !proxy.current || !proxy.refused.is_empty()) {
        rows.push([
            proxy.name.clone(),
            process.process.clone(),
            if proxy.current { "current" } else { "behind" }.to_owned(),
            format!("{} ago", time(proxy.seconds as f64)),
            proxy.resources.to_string(),
            proxy.version.clone(),
        ]);
    }
    if rows.len() > 1 { table(&rows, terminal) } else { String::new() }
}

fn connected(all: &[Process]) -> impl Iterator<Item = (&Process, &Connected)> {
    all.iter().flat_map(|process| {
        let proxies = process.standing.iter().filter_map(|standing| standing.proxies.as_ref());
        proxies.flatten().map(move |proxy| (process, proxy))
    })
}

fn refused(all: &[Process], terminal: Terminal) -> String {
    let own = all.iter().filter_map(|process| Some((&process.process, &process.standing.as_ref()?.refused)));
    let of_others = connected(all).map(|(_, proxy)| (&proxy.name, &proxy.refused));
    let mut rows = vec![["REFUSED", "BY", "REASON"].map(str::to_owned)];
    for (process, refused) in own.chain(of_others) {
        rows.extend(refused.iter().map(|(name, reason)| [name.clone(), process.clone(), reason.clone()]));
    }
    if rows.len() > 1 { table(&rows, terminal) } else { String::new() }
}

/// Each resource with the version that most processes have, and the processes that have another one.
fn versions(all: &[Process], terminal: Terminal) -> String {
    let known: Vec<_> = all.iter().filter_map(|process| Some((&process.process, process.versions.as_ref()?))).collect();
    if known.is_empty() {
        return String::new();
    }
    let names: BTreeSet<&String> = known.iter().flat_map(|(_, versions)| versions.keys()).collect();
    let mut rows = vec![["RESOURCE", "VERSION", "DIFFERENT AT"].map(str::to_owned)];
    let mut different = 0;
    for name in &names {
        let version = |versions: &BTreeMap<String, Option<String>>| match versions.get(*name) {
            Some(Some(version)) => version.clone(),
            Some(None) => "refused".to_owned(),
            None => "missing".to_owned(),
        };
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        known.iter().for_each(|(_, versions)| *counts.entry(version(versions)).or_default() += 1);
        let most = counts.into_iter().max_by_key(|(_, number)| *number).map(|(version, _)| version).unwrap_or_default();
        let others: Vec<_> = known
            .iter()
            .map(|(process, versions)| (process, version(versions)))
            .filter(|(_, version)| *version != most)
            .map(|(process, version)| format!("{process} {version}"))
            .collect();
        different += usize::from(!others.is_empty());
        let others = if others.is_empty() { "-".to_owned() } else { others.join(", ") };
        rows.push([(*name).clone(), most, others]);
    }
    let mut out = table(&rows, terminal);
    let _ = writeln!(
        out,
        "{}, {} between {}",
        count(names.len(), "resource", "resources"),
        count(different, "different", "different"),
        count(known.len(), "process", "processes")
    );
    out
}

/// A time in the largest unit that is precise enough.
fn time(seconds: f64) -> String {
    match seconds.max(0.0) {
        0.0 => "0 s".to_owned(),
        short if short < 1.0 => format!("{:.0} ms", short * 1e3),
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        minutes if minutes < 7200.0 => format!("{:.0} min", minutes / 60.0),
        hours if hours < 172_800.0 => format!("{:.0} h", hours / 3600.0),
        days => format!("{:.0} d", days / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, version: Option<&str>, standing: Standing) -> Process {
        let versions = [("host/ingress a.example".to_owned(), version.map(str::to_owned))].into();
        Process { process: name.to_owned(), error: None, standing: Some(standing), versions: Some(versions) }
    }

    #[test]
    fn what_differs_and_what_is_refused_is_named() {
        let standing = |role: &str| Standing { role: role.to_owned(), complete: true, ..Standing::default() };
        let refused = [("host/ingress a.example".to_owned(), "only_from is not known here".to_owned())].into();
        let proxy = Connected { name: "p1".to_owned(), refused, ..Connected::default() };
        let controller = Standing { proxies: Some(vec![proxy]), ..standing("controller") };
        let processes = vec![
            process("c", Some("aa"), Standing { current: true, ..controller }),
            process("p1", None, Standing { age_seconds: 7200.0, ..standing("proxy") }),
            process("p2", Some("aa"), Standing { current: true, ..standing("proxy") }),
            Process { process: "p3".to_owned(), error: Some("gone".to_owned()), ..Process::default() },
        ];
        assert_eq!(processes.iter().map(Process::is_good).collect::<Vec<_>>(), [false, false, true, false]);
        let text = render(&Status { processes, ingresses: None }, Terminal::plain());
        let lines = || text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let words = |start: &str| lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(words("c "), "c controller current 0 s - 0 1 0 of 1");
        assert_eq!(words("p1 proxy"), "p1 proxy stale 2 h - 0 0 -");
        assert!(text.contains("\np3: gone\n"), "{text}");
        assert!(text.contains("only_from is not known here"), "{text}");
        assert!(text.contains("aa       p1 refused\n1 resource, 1 different between 3 processes\n"), "{text}");
    }
}
