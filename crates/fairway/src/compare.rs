//! `fairway compare`: sends the same requests to two addresses, for example ingress-nginx and Fairway, and reports what differs, by
//! Ingress and annotation.
//!
//! Requests go to the two named addresses and nowhere else: it resolves no name from a request and follows no redirect. Rate, time, body
//! size and number of requests are all bounded.

mod address;
mod ask;
mod cause;
mod credential;
mod derive;
mod difference;
mod formats;
mod list;
mod log;
mod question;
mod response;
mod run;
mod text;

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::ArgMatches;
use fairway_model::{Origin, Scheme};
use fairway_translate::diagnostic::Severity;

use crate::cli;
use crate::cluster;
use crate::explain::Explainer;
use crate::flags::{Flags, UsageError};
use crate::manifest::Refused;
use crate::reading::{Missing, Reading, Source, read};
use crate::terminal::{Terminal, count};

pub(crate) use address::Address;
use ask::{Asker, Bounds};
use difference::Rules;
use question::Question;

/// The options that concern several modules.
#[derive(Debug)]
struct Options {
    methods: Vec<String>,
    /// The host for log lines that name none.
    host: Option<String>,
    /// The scheme for log lines that name none.
    scheme: Option<Scheme>,
    /// Fields for every request. They may be credentials, so reports omit them.
    fields: Vec<(String, String)>,
    max_requests: usize,
}

/// Requests, and the number of those left out, by reason.
#[derive(Debug, Default)]
struct Collected {
    requests: Vec<Question>,
    left_out: BTreeMap<String, u64>,
    /// Lines whose query held credentials, which were replaced.
    redacted: u64,
}

impl Collected {
    fn leave_out(&mut self, reason: impl Into<String>) {
        *self.left_out.entry(reason.into()).or_default() += 1;
    }
}

/// A request that Ingresses suggest.
pub(crate) struct Suggested {
    pub(crate) method: String,
    pub(crate) url: String,
    /// `name:value`.
    pub(crate) fields: Vec<String>,
    /// The Ingress that suggests it.
    pub(crate) origin: Option<Origin>,
    /// The Ingress that has the path, if that is not the Ingress that has the name.
    pub(crate) beside: Option<Origin>,
}

/// The requests that the Ingresses of these objects suggest.
pub(crate) fn suggested(reading: &Reading) -> Vec<Suggested> {
    let methods = ["GET", "HEAD", "OPTIONS", "POST"].map(str::to_owned).to_vec();
    let options = Options { methods, host: None, scheme: None, fields: Vec::new(), max_requests: usize::MAX };
    let own = derive::requests(reading, &options).requests;
    let asked: HashSet<_> = own.iter().map(|question| Question { origin: None, ..question.clone() }).collect();
    let is_new = |(question, _): &(Question, _)| !asked.contains(&Question { origin: None, ..question.clone() });
    let crossing = derive::crossing(reading).into_iter().filter(is_new);
    let all = own.into_iter().map(|question| (question, None));
    all.chain(crossing.map(|(question, origin)| (question, Some(origin))))
        .map(|(question, beside)| Suggested {
            url: question.url(),
            method: question.method,
            fields: question.fields.iter().map(|(name, value)| format!("{name}:{value}")).collect(),
            origin: question.origin,
            beside,
        })
        .collect()
}

/// Runs the command. It fails if any answers differ.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let address = |name: &str| matches.get_one::<Address>(name).cloned();
    let (Some(old), Some(new)) = (address("old"), address("new")) else {
        bail!(UsageError("expected two addresses: OLD and NEW".into()))
    };
    let flags = Flags::from_matches(matches);
    let options = options(matches)?;
    let reading = objects(matches, &flags)?;
    let mut collected = collect(matches, &options, reading.as_ref())?;
    bound(&mut collected, &options, &old, &new);
    if matches.contains_id("log") {
        // They are sorted by frequency. Sorting by host takes fewer TLS handshakes.
        collected.requests.sort_by(|one, other| one.host.cmp(&other.host));
    }
    if collected.requests.is_empty() {
        let left_out = collected.left_out.iter();
        let why: Vec<_> = left_out
            .map(|(reason, number)| format!("{}: {reason}", count(*number as usize, "time", "times")))
            .collect();
        let why = if why.is_empty() { "the objects or files hold none".to_owned() } else { why.join("; ") };
        bail!(UsageError(format!("there is no request to send ({why})")));
    }
    let explainer = reading.as_ref().map(Explainer::new);
    let seconds = |name: &str| matches.get_one::<f64>(name).copied();
    let bounds = Bounds {
        time: Duration::from_secs_f64(seconds("timeout").unwrap_or(10.0)),
        body: matches.get_one::<u64>("max-body").copied().unwrap_or(ask::BODY),
    };
    let rules = Rules {
        only: cli::all::<String>(matches, "field").iter().map(|name| name.to_ascii_lowercase()).collect(),
        ignored: cli::all::<String>(matches, "ignore").iter().map(|name| name.to_ascii_lowercase()).collect(),
        strict: matches.get_flag("strict"),
    };
    let pace = Duration::from_secs_f64(1.0 / seconds("rate").unwrap_or(20.0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let compared = runtime.block_on(async {
        let asker = |address: &Address| Asker::new(address.clone(), bounds, options.fields.clone());
        let mut sides = [asker(&old), asker(&new)];
        run::run(&mut sides, &collected.requests, &rules, pace).await
    })?;
    let report = cause::report(compared, reading.as_ref(), explainer.as_ref(), &options.fields, &rules);
    let sides = [&old, &new].map(ToString::to_string);
    match matches.get_one::<String>("output").map(String::as_str) {
        Some("json") => {
            let json = formats::json(&sides, &report, &collected.left_out, collected.redacted);
            Terminal::plain().print(&format!("{json:#}\n"));
        }
        _ => {
            let terminal = Terminal::new();
            let explain = explain_command(matches, reading.as_ref());
            terminal.print(&text::render(&sides, &report, &collected, explain.as_deref(), terminal));
        }
    }
    Ok(if report.groups.is_empty() && report.stopped.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command line that runs `explain` for a request against the same objects.
fn explain_command(matches: &ArgMatches, reading: Option<&Reading>) -> Option<String> {
    let paths = cli::all::<PathBuf>(matches, "paths");
    let paths: String = paths.iter().map(|path| format!(" {}", path.display())).collect();
    match reading?.source {
        Source::Files => Some(format!("fairway explain{paths}")),
        Source::Cluster => Some("kubectl fairway explain".to_owned()),
    }
}

fn options(matches: &ArgMatches) -> Result<Options, UsageError> {
    let methods = cli::all::<String>(matches, "methods");
    let methods = if methods.is_empty() { ["GET", "HEAD", "OPTIONS"].map(str::to_owned).to_vec() } else { methods };
    let scheme = match matches.get_one::<String>("scheme").map(String::as_str) {
        Some("https") => Some(Scheme::Https),
        Some(_) => Some(Scheme::Http),
        None => None,
    };
    let fields = cli::all::<String>(matches, "header").iter().map(|field| question::field(field)).collect();
    Ok(Options {
        methods: methods.iter().map(|method| method.trim().to_ascii_uppercase()).collect(),
        host: matches.get_one::<String>("host").cloned(),
        scheme,
        fields: Result::<Vec<_>, _>::map_err(fields, UsageError)?,
        max_requests: matches.get_one::<NonZeroUsize>("max-requests").map_or(10_000, |number| number.get()),
    })
}

/// The objects by which differences are grouped.
fn objects(matches: &ArgMatches, flags: &Flags) -> anyhow::Result<Option<Reading>> {
    let paths = cli::all::<PathBuf>(matches, "paths");
    let reading = if cluster::is_named(matches, flags) {
        cluster::read(matches, flags)?
    } else if paths.is_empty() {
        return Ok(None);
    } else {
        read(&paths, flags, Missing::Echo, Refused::Read)?
    };
    let errors = reading.findings.iter().filter(|finding| finding.diagnostic.severity == Severity::Error).count();
    if errors > 0 {
        eprintln!("warning: the objects have {}; fairway check shows them", count(errors, "error", "errors"));
    }
    Ok(Some(reading))
}

fn collect(matches: &ArgMatches, options: &Options, reading: Option<&Reading>) -> anyhow::Result<Collected> {
    let file = |name: &str| matches.get_one::<PathBuf>(name);
    match (file("requests"), file("log"), reading) {
        (Some(path), ..) => list::read(path, options),
        (None, Some(path), _) => log::read(path, options, reading),
        (None, None, Some(reading)) => Ok(derive::requests(reading, options)),
        (None, None, None) => bail!(UsageError(
            "there are no requests to send: name the Ingresses by PATH, --kubeconfig or --context, or give --requests FILE or --log FILE"
                .into()
        )),
    }
}

/// Leaves out requests that can't be sent, and those beyond the limit.
fn bound(collected: &mut Collected, options: &Options, old: &Address, new: &Address) {
    let requests = std::mem::take(&mut collected.requests);
    for request in requests {
        let port = |address: &Address| address.port(request.scheme).is_some();
        if !options.methods.contains(&request.method) {
            collected.leave_out(format!("{} is not among --methods", request.method));
        } else if !port(old) || !port(new) {
            let scheme = request.scheme;
            collected.leave_out(format!("an address has no port for {scheme} (see --help, OLD and NEW)"));
        } else if !request.can_be_sent() {
            collected.leave_out("the method, the host or the path has bytes that no client sends");
        } else if collected.requests.len() == options.max_requests {
            collected.leave_out("more than --max-requests");
        } else {
            collected.requests.push(request);
        }
    }
}
