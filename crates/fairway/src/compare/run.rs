//! Sends all requests to both addresses at a bounded rate, and keeps the differences.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::bail;
use fairway_model::Scheme;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::ask::Asker;
use super::difference::{Aspect, Change, Rules, differences, steady};
use super::question::Question;
use super::response::{NoAnswer, Response};
use crate::terminal::count;

/// Consecutive failed connections after which the run stops.
const FAILURES: usize = 5;

/// How often the old address is asked again after a difference. If two pods answer at random, all five answers come from one pod in 3 of
/// 100 cases.
const REPEATS: usize = 4;
/// After this many requests to a host with the same differences, later ones are repeated only once.
const CONFIRMED: usize = 3;

/// The outcome of all requests.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) asked: usize,
    /// Requests with the same response, apart from what is ignored.
    pub(super) same: usize,
    pub(super) different: Vec<Different>,
    /// Requests whose responses vary in some aspects at the old address itself.
    pub(super) unsteady: Vec<(Question, Vec<Aspect>)>,
    /// Why some requests were not sent.
    pub(super) stopped: Option<String>,
}

/// A request with different responses.
#[derive(Debug)]
pub(super) struct Different {
    pub(super) request: Question,
    pub(super) changes: Vec<Change>,
    pub(super) old: Option<Response>,
    pub(super) new: Option<Response>,
}

/// Runs until all requests are sent, an address stops answering, or the user interrupts.
pub(super) async fn run(
    sides: &mut [Asker; 2],
    requests: &[Question],
    rules: &Rules,
    pace: Duration,
) -> anyhow::Result<Compared> {
    probe(sides, requests).await?;
    let mut compared = Compared::default();
    let progress = Progress::new(requests.len());
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut clock = interval(pace);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = [0; 2];
    let mut confirmed = BTreeMap::new();
    for request in requests {
        let answers = tokio::select! {
            answers = both(sides, request, rules, &mut clock, &mut confirmed) => answers,
            _ = &mut interrupted => {
                compared.stopped = Some("interrupted".to_owned());
                break;
            }
        };
        for (at, outcome) in answers.outcomes.iter().enumerate() {
            let gone = matches!(outcome, Err(NoAnswer::Unreachable(_)));
            failures[at] = if gone { failures[at] + 1 } else { 0 };
        }
        if let Some(at) = failures.iter().position(|failed| *failed == FAILURES) {
            let why = answers.outcomes[at].as_ref().err().map(ToString::to_string).unwrap_or_default();
            compared.stopped = Some(format!("{} no longer answers: {why}", sides[at].place(request.scheme)));
            break;
        }
        compared.take(request, answers);
        progress.show(&compared);
    }
    progress.end();
    Ok(compared)
}

/// Fails at once if an address accepts no connection for a scheme that requests need.
async fn probe(sides: &[Asker; 2], requests: &[Question]) -> anyhow::Result<()> {
    for scheme in [Scheme::Http, Scheme::Https] {
        if !requests.iter().any(|request| request.scheme == scheme) {
            continue;
        }
        for (side, name) in sides.iter().zip(["OLD", "NEW"]) {
            if let Err(error) = side.probe(scheme).await {
                bail!(
                    "{name}, {}: {error}\nIs it the address of the controller (kubectl get service --all-namespaces), and can it be \
                     reached from here? Other ports for http and https are written ADDRESS:PORT,TLS-PORT",
                    side.place(scheme)
                );
            }
        }
    }
    Ok(())
}

/// The responses to one request, and their differences.
struct Answers {
    outcomes: [Result<Response, NoAnswer>; 2],
    changes: Vec<Change>,
    unsteady: Vec<Change>,
}

/// Number of requests by host and by what differed.
type Confirmed = BTreeMap<(String, Vec<Aspect>), usize>;

async fn both(
    sides: &mut [Asker; 2],
    request: &Question,
    rules: &Rules,
    clock: &mut Interval,
    confirmed: &mut Confirmed,
) -> Answers {
    clock.tick().await;
    let [old, new] = sides;
    let addresses = [&old.address().clone(), &new.address().clone()];
    let (first, second) = tokio::join!(old.ask(request), new.ask(request));
    let mut changes = differences(request, [&first, &second], addresses, rules);
    let mut unsteady = Vec::new();
    let aspects = |changes: &[Change]| changes.iter().map(|change| change.aspect.clone()).collect();
    let seen = confirmed.get(&(request.host.clone(), aspects(&changes))).copied().unwrap_or_default();
    let repeats = if seen < CONFIRMED { REPEATS } else { 1 };
    for _ in 0..repeats {
        if changes.is_empty() || !request.is_safe() {
            break;
        }
        clock.tick().await;
        let again = old.ask(request).await;
        let own = differences(request, [&first, &again], [addresses[0]; 2], rules);
        unsteady.append(&mut steady(&mut changes, &own));
    }
    if !changes.is_empty() {
        *confirmed.entry((request.host.clone(), aspects(&changes))).or_default() += 1;
    }
    Answers { outcomes: [first, second], changes, unsteady }
}

impl Compared {
    fn take(&mut self, request: &Question, answers: Answers) {
        self.asked += 1;
        if !answers.unsteady.is_empty() {
            let aspects = answers.unsteady.into_iter().map(|change| change.aspect).collect();
            self.unsteady.push((request.clone(), aspects));
        }
        if answers.changes.is_empty() {
            self.same += 1;
            return;
        }
        let [old, new] = answers.outcomes.map(Result::ok);
        self.different.push(Different { request: request.clone(), changes: answers.changes, old, new });
    }
}

/// A progress line on the terminal.
struct Progress {
    total: usize,
    shown: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { total, shown: std::io::stderr().is_terminal() }
    }

    fn show(&self, compared: &Compared) {
        if self.shown {
            let different = match compared.different.len() {
                1 => "1 differs".to_owned(),
                number => format!("{number} differ"),
            };
            let total = count(self.total, "request", "requests");
            let mut out = std::io::stderr().lock();
            let _ = write!(out, "\r\x1b[K{} of {total}, {different}", compared.asked).and_then(|()| out.flush());
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
