//! Counts with callgrind the instructions it takes to find a host and a route: repeatable on any machine, however busy.
//!
//! `cargo bench -p fairway-model` prints the table. Each case runs this program again under valgrind, with collection
//! switched on only inside the lookup function. The benchmark fails when a lookup among many costs more than twice as
//! much as one among few.

use std::process::{Command, ExitCode};

use fairway_model::{
    Action, Delta, Host, HostPattern, Origin, PathMatch, Resource, Respond, Route, Snapshot, TableName,
};

const LOOKUPS: usize = 1000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [case, size] = &args[..] {
        let size = size.parse().expect("a size");
        match case.as_str() {
            "host" => measured(
                &hosts(size),
                (0..LOOKUPS).map(|at| (format!("h{}.example", at * 7919 % size), "/".to_owned())),
            ),
            _ => measured(
                &paths(size),
                (0..LOOKUPS).map(|at| ("a.example".to_owned(), format!("/p{}/x/y", at * 7919 % size))),
            ),
        }
        return ExitCode::SUCCESS;
    }
    let mut failed = false;
    println!("{:<28}{:>14}{:>14}{:>8}", "instructions per lookup", "few", "many", "ratio");
    for (case, few, many) in [("host", 100, 100_000), ("path", 10, 1000)] {
        let (low, high) = (count(case, few), count(case, many));
        let ratio = high / low;
        failed |= ratio > 2.0;
        println!("{:<28}{low:>14.0}{high:>14.0}{ratio:>8.2}", format!("{case}, {few} to {many}"));
    }
    if failed {
        eprintln!("a lookup among many costs more than twice one among few");
    }
    ExitCode::from(u8::from(failed))
}

/// Runs one case under callgrind and returns the instructions per lookup.
fn count(case: &str, size: usize) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*look_up_all*"])
        .arg(std::env::current_exe().expect("this program"))
        .args([case, &size.to_string()])
        .output()
        .expect("valgrind runs (Debian package valgrind)");
    let log = String::from_utf8_lossy(&output.stderr);
    let collected = log.lines().find_map(|line| line.split_once("Collected : ")).expect("callgrind prints its count").1;
    collected.trim().parse::<f64>().expect("a number") / LOOKUPS as f64
}

fn measured(snapshot: &Snapshot, questions: impl Iterator<Item = (String, String)>) {
    let questions: Vec<_> = questions.collect();
    assert_eq!(look_up_all(snapshot, &TableName::from("t"), &questions), LOOKUPS);
}

#[inline(never)]
fn look_up_all(snapshot: &Snapshot, table: &TableName, questions: &[(String, String)]) -> usize {
    questions.iter().filter_map(|(host, path)| snapshot.host(table, host.as_bytes())?.route(path.as_bytes())).count()
}

fn route(path: PathMatch) -> Route {
    Route::new(Origin::new("Ingress", "bench", "a"), path, Action::Respond(Respond::not_found()))
}

fn snapshot(hosts: impl Iterator<Item = Host>) -> Snapshot {
    Snapshot::default().apply(Delta::upsert(hosts.map(Resource::from)))
}

fn hosts(count: usize) -> Snapshot {
    snapshot((0..count).map(|at| {
        let pattern = HostPattern::parse(&format!("h{at}.example")).expect("a name");
        Host::new("t".into(), pattern, vec![route(PathMatch::prefix("/").expect("a path"))])
    }))
}

fn paths(count: usize) -> Snapshot {
    let path = |at| PathMatch::prefix(&format!("/p{at}")).expect("a path");
    let pattern = HostPattern::parse("a.example").expect("a name");
    snapshot(std::iter::once(Host::new("t".into(), pattern, (0..count).map(|at| route(path(at))).collect())))
}
