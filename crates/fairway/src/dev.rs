//! `fairway dev`: manifests from files, served on this machine; every saved edit is live at once.

mod backend;
mod change;
mod request_lines;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ArgMatches;
use fairway_model::{
    AccessLog, BackendName, Delta, Endpoints, Listener, ListenerName, LogEscape, Origin, ResourceName, Scheme,
    Snapshot, Template,
};
use fairway_proxy::access_log::LogSink;
use fairway_proxy::admin::{ChannelSource, FindingSource};
use fairway_proxy::{Proxy, Published, Publisher};
use fairway_translate::diagnostic::{Diagnostic, Severity};
use fairway_translate::objects::{Kind, Object, ObjectKey};
use fairway_translate::options::{Development, Options};
use fairway_translate::{Change, Translator, Update};

use crate::cli;
use crate::flags::{Flags, UsageError};
use crate::manifest::watch::{Saved, Watcher};
use crate::manifest::{Finding, Manifests, Parsed, Refused, Unread};
use crate::status::standing::Alone;
use crate::table::{Doors, routing_table};
use crate::terminal::{Style, Terminal, count};
use crate::wiring::{self, Signals};
use crate::{echo, reading, report, telemetry};

/// How long requests may continue after Ctrl-C. A second Ctrl-C ends them at once.
const DRAIN: Duration = Duration::from_secs(5);
/// Maximum number of findings listed at the start.
const FINDINGS: usize = 30;
/// Maximum number of Services listed that no file has.
const SERVICES: usize = 5;
/// How often certificates are checked for expiry while nothing is saved.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How often a port is tried that another program had.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);
/// Larger changes, in bytes, are read and parsed on another thread: this many take some 10 ms.
const LARGE: u64 = 256 << 10;

/// Runs the command until it is interrupted.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_matches(matches);
    telemetry::start(telemetry::Form::Text, flags.int("v"), true);
    let paths = cli::all::<PathBuf>(matches, "paths");
    let mut manifests = Manifests::open(&paths, Refused::LeftOut)?;
    let options = options(matches, &flags)?;
    let terminal = Terminal::new();
    for flag in flags.not_honoured() {
        terminal.print(&format!("--{}: {}: {}\n", flag.name, flag.verdict.label(), flag.verdict.note()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = Signals::new(&runtime)?;
    // Watching begins before reading, so that no save is missed.
    let mut watcher = Watcher::new(&paths)?;
    watcher.watch(manifests.folders())?;
    let mut translator = Translator::new(options.clone());
    translator.apply(manifests.reload(None), now());
    let admin = matches.get_one("admin").copied();
    let mut config =
        wiring::proxy_config(matches, &flags, &options, admin, access_log(matches, terminal, translator.snapshot())?)?;
    // The server that stands in for all pods exists.
    config.addresses.loopback_endpoints = true;
    config.channel = Some(ChannelSource::new(Alone("dev")));
    let findings = SharedFindings::default();
    config.findings = findings.source();
    let proxy = Proxy::start(doors_only(translator.snapshot()), config).context(
        "the proxy cannot start; choose other addresses with --http, --https and --admin, or port 0 for any free port",
    )?;
    proxy.readiness().serving();
    let publisher = proxy.publisher();
    let mut session = Session {
        manifests,
        translator,
        options,
        publisher,
        findings,
        terminal,
        reading: None,
        unread: None,
        large: None,
    };
    session.name_https_port(&proxy);
    let notes = runtime.block_on(session.open());
    session.greet(&proxy, &notes);
    runtime.block_on(serve(session, watcher, proxy, signals))
}

fn options(matches: &ArgMatches, flags: &Flags) -> anyhow::Result<Options> {
    let mut options = reading::options(flags)?;
    let address = |name: &str, flag: &str, default: u16| {
        let port = if flags.is_set(flag) { flags.port(flag) } else { default };
        matches.get_one(name).copied().unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    };
    options.http = vec![address("http", "http-port", 8080)];
    options.https = vec![address("https", "https-port", 8443)];
    options.stream_addresses = vec![Ipv4Addr::LOCALHOST.into()];
    let backends = backend::parse(&cli::all::<String>(matches, "backend"))?;
    let echo = if matches.get_flag("no-echo") { None } else { Some(echo::start().context("starting the echo")?) };
    let https_port = named(options.https.first());
    options.development = Some(Development { echo, echo_for_missing: true, backends, https_port, judged: false });
    Ok(options)
}

/// The same without the ports of Gateways and of TCP and UDP services: if another program has one, the others are served all the same.
fn doors_only(snapshot: &Snapshot) -> Snapshot {
    let gateways = snapshot.listeners().filter(|listener| is_of_gateway(listener));
    let gateways = gateways.map(|listener| ResourceName::Listener(listener.name.clone()));
    let streams = snapshot.stream_listeners().map(|listener| ResourceName::StreamListener(listener.name.clone()));
    snapshot.apply(Delta { removals: gateways.chain(streams).collect(), ..Delta::default() })
}

/// The port that redirects to https name. Port 0 has no number before the listener is open.
fn named(https: Option<&SocketAddr>) -> Option<u16> {
    https.map(SocketAddr::port).filter(|port| ![0, 443].contains(port))
}

/// Applies saved changes until the process is asked to end.
async fn serve(
    mut session: Session,
    mut watcher: Watcher,
    mut proxy: Proxy,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let mut look_again = tokio::time::interval(LOOK_AGAIN);
    let mut listen_again = tokio::time::interval(LISTEN_AGAIN);
    loop {
        tokio::select! {
            // In this order, so that a small change goes before the next part of a large one.
            biased;
            () = signals.next() => break,
            saved = watcher.saved() => {
                session.saved(saved).await;
                watcher.watch(session.manifests.folders())?;
            }
            parsed = PendingReading::ended(&mut session.reading) => session.parsed(parsed).await,
            _ = look_again.tick() => session.time_passed().await,
            _ = listen_again.tick() => session.listen_again().await,
            () = std::future::ready(()), if session.has_more() => session.proceed().await,
        }
    }
    if std::io::stderr().is_terminal() {
        eprintln!(
            "Ending: waiting for open requests for up to {} s. Press Ctrl-C again to end at once.",
            DRAIN.as_secs()
        );
    }
    tokio::select! {
        _ = proxy.drain(Duration::ZERO, DRAIN) => {}
        () = signals.next() => wiring::end_at_once(),
    }
    Ok(ExitCode::SUCCESS)
}

/// The stages that a saved change passes through.
struct Session {
    manifests: Manifests,
    translator: Translator,
    options: Options,
    publisher: Publisher,
    /// What was printed and still holds.
    findings: SharedFindings,
    terminal: Terminal,
    reading: Option<PendingReading>,
    /// Saved paths that can't be read before the current reading ends.
    unread: Option<Saved>,
    large: Option<Large>,
}

impl Session {
    /// With `--https` and port 0, the port is only known now: everything is translated again, so that redirects name it.
    fn name_https_port(&mut self, proxy: &Proxy) {
        let doors = doors(proxy, &self.options, &self.publisher);
        let port = named(doors.https.as_ref());
        let Some(development) = self.options.development.as_mut().filter(|development| development.https_port != port)
        else {
            return;
        };
        development.https_port = port;
        let objects = self.translator.objects().in_order().into_iter().cloned().map(Change::Upsert).collect::<Vec<_>>();
        self.translator = Translator::new(self.options.clone());
        self.translator.apply(objects, now());
    }

    /// Opens the ports that were not open at the start, and returns the remarks about them.
    async fn open(&self) -> String {
        let delta = Snapshot::diff(&self.publisher.snapshot(), self.translator.snapshot());
        if delta.is_empty() { String::new() } else { remarks(&self.publisher.publish(delta).await) }
    }

    /// Prints what is served where.
    fn greet(&self, proxy: &Proxy, notes: &str) {
        let terminal = self.terminal;
        let findings = self.current_findings();
        self.findings.replace(&findings);
        let shown = self.located(findings.iter().take(FINDINGS).cloned().collect());
        let doors = doors(proxy, &self.options, &self.publisher);
        let snapshot = self.publisher.snapshot();
        let counts = self.manifests.counts();
        let mut out = String::new();
        for finding in &shown {
            out.push_str(&report::line(finding, terminal));
        }
        if findings.len() > FINDINGS {
            let more = count(findings.len() - FINDINGS, "more finding", "more findings");
            let _ = writeln!(out, "… and {more}: see `fairway check`");
        }
        out.push_str(&routing_table(&snapshot, &doors, self.options.development.as_ref(), &self.manifests, terminal));
        for ((service, port), address) in self.options.development.iter().flat_map(|development| &development.backends)
        {
            let name = format!("{}/{}:{port}", service.namespace, service.name);
            let xbackend = ObjectKey::new(Kind::XBackend, &*service.namespace, &*service.name);
            if leads_to(&snapshot, &xbackend.origin(), *address) {
                if let Some(field) = spoken_otherwise(self.translator.objects().get(&xbackend)) {
                    let _ = writeln!(
                        out,
                        "--backend {name}: {address} is spoken to in plain HTTP/1.1, not as {field} of {xbackend} says"
                    );
                }
            } else if !leads_to(&snapshot, &service.origin(), *address) {
                let _ =
                    writeln!(out, "--backend {name}: no Ingress or route leads to this port of a Service or XBackend");
            }
        }
        out.push_str(&self.services_not_in_files(&snapshot));
        let _ = write!(
            out,
            "{} from {} in {}; watching for changes\n{}{notes}",
            count(counts.objects, "object", "objects"),
            count(counts.files, "file", "files"),
            terminal.style(Style::Dim, format!("{:.0} ms", wiring::age().as_secs_f64() * 1e3)),
            addresses(&doors, proxy, &snapshot),
        );
        terminal.print(&out);
    }

    /// A line about the Services for which the echo answers though no file has them: a cluster without them would not serve that.
    fn services_not_in_files(&self, snapshot: &Snapshot) -> String {
        let Some(echo) = self.options.development.as_ref().and_then(|development| development.echo) else {
            return String::new();
        };
        let is_echo = |name: &BackendName| {
            let endpoints = snapshot.endpoint_set(name).map(|set| &set.endpoints);
            matches!(endpoints, Some(Endpoints::Addresses(list)) if matches!(&list[..], [one] if one.address == echo))
        };
        let missing = snapshot.backends().into_iter().filter(|backend| is_echo(&backend.name));
        let missing = missing.filter(|backend| self.manifests.place(&backend.origin).is_none());
        let names: BTreeSet<_> =
            missing.map(|backend| format!("{}/{}", backend.origin.namespace, backend.origin.name)).collect();
        let more = match names.len() {
            0 => return String::new(),
            all if all > SERVICES => format!(" and {}", count(all - SERVICES, "other", "others")),
            _ => String::new(),
        };
        let list = names.into_iter().take(SERVICES).collect::<Vec<_>>().join(", ");
        format!(
            "Services that the files lack: {list}{more}; the echo answers in their place, where a cluster would answer with an error\n"
        )
    }

    /// Applies saved files and prints the changes. Large files are read while other changes go on, even those saved at the same moment.
    async fn saved(&mut self, saved: Saved) {
        let mut large = self.manifests.look(saved.paths.as_ref());
        // One reading at a time: the parsed documents must match what is known about the file.
        let mut waits = match &self.reading {
            Some(reading) => large.leave_out(|path| reading.paths.contains(path)),
            None => false,
        };
        let small = large.split_small(LARGE).parse();
        // New objects may refer to those in the large files, and what is gone may have moved there. Edits go ahead.
        let mut with = None;
        if large.is_empty() || self.manifests.are_edits(&small) {
            let changes = self.manifests.take(small);
            self.take(changes, saved.at).await;
        } else {
            with = Some(small);
        }
        if !large.is_empty() && self.reading.is_some() {
            self.manifests.put_back(large);
            waits = true;
        } else if !large.is_empty() {
            self.reading = Some(PendingReading::begin(large, with, saved.at));
        }
        if waits {
            self.unread = Some(match self.unread.take() {
                Some(unread) => unread.and(saved),
                None => saved,
            });
        }
    }

    /// Applies files that were read while other changes went on.
    async fn parsed(&mut self, (parsed, at): (Parsed, Instant)) {
        self.reading = None;
        let changes = self.manifests.take(parsed);
        self.take(changes, at).await;
        if let Some(saved) = self.unread.take() {
            self.saved(saved).await;
        }
    }

    async fn take(&mut self, changes: Vec<Change>, since: Instant) {
        let waited = self.translator.has_more();
        if self.manifests.has_more() {
            self.large.get_or_insert_with(|| Large { since, lines: Vec::new() });
            if changes.is_empty() {
                return;
            }
        }
        if changes.is_empty() {
            // An irrelevant file, unchanged content, or a file that can't be read.
            let (new, cleared) = self.compare_findings();
            if !new.is_empty() || !cleared.is_empty() {
                self.terminal.print(&change::render(&[], Duration::ZERO, &new, &cleared, self.terminal));
            }
            return;
        }
        let many = self.translator.is_large(changes.len());
        let update = self.translator.apply_part(changes, now());
        if many || (self.translator.has_more() && !waited) {
            self.large.get_or_insert_with(|| Large { since, lines: Vec::new() });
            self.publish_part(update).await;
        } else {
            self.publish(update, since).await;
        }
    }

    async fn time_passed(&mut self) {
        let update = self.translator.apply_part([], now());
        if !update.is_empty() {
            self.publish(update, Instant::now()).await;
        }
    }

    /// Tries to open the ports that another program had.
    async fn listen_again(&self) {
        if let Some(published) = self.publisher.listen_again().await {
            self.terminal.print(&remarks(&published));
        }
    }

    /// Whether a part of a large change waits for its turn.
    fn has_more(&self) -> bool {
        self.manifests.has_more() || self.translator.has_more()
    }

    /// Continues with a large change. All of it is known before any of it goes live: what others refer to goes before them.
    async fn proceed(&mut self) {
        if self.manifests.has_more() {
            let changes = self.manifests.proceed();
            self.translator.postpone(changes);
            if self.has_more() {
                return;
            }
        }
        let update = self.translator.proceed(now());
        self.publish_part(update).await;
    }

    /// Publishes a part of a large change; its changes are printed once all of it is live.
    async fn publish_part(&mut self, update: Update) {
        let (lines, notes) = self.make_live(update).await;
        if !notes.is_empty() {
            self.terminal.print(&notes);
        }
        let large = self.large.get_or_insert_with(|| Large { since: Instant::now(), lines: Vec::new() });
        large.lines.extend(lines);
        if !self.has_more()
            && let Some(Large { since, lines }) = self.large.take()
        {
            self.tell(&lines, since, "");
        }
    }

    async fn publish(&self, update: Update, since: Instant) {
        let (lines, notes) = self.make_live(update).await;
        self.tell(&lines, since, &notes);
    }

    /// Publishes, and returns the differences and the remarks about listeners.
    async fn make_live(&self, update: Update) -> (Vec<change::Line>, String) {
        let before = self.publisher.snapshot();
        let published = self.publisher.publish(update.delta.clone()).await;
        let after = self.publisher.snapshot();
        let lines = change::lines(&before, &after, &update.delta, self.options.development.as_ref());
        (lines, remarks(&published))
    }

    /// Prints the differences and the new findings.
    fn tell(&self, lines: &[change::Line], since: Instant, notes: &str) {
        let took = since.elapsed();
        let (new, cleared) = self.compare_findings();
        let text = change::render(lines, took, &new, &cleared, self.terminal);
        self.terminal.print(&(text + notes));
    }

    /// The findings that are new, and those that are gone. They are compared when nothing waits any more.
    fn compare_findings(&self) -> (Vec<Finding>, Vec<Finding>) {
        if self.has_more() {
            return (Vec::new(), Vec::new());
        }
        let findings = self.current_findings();
        let before = self.findings.replace(&findings);
        let (new, cleared) = change::compare_findings(&before, &findings);
        (self.located(new), cleared)
    }

    /// All current findings, with the place of the object.
    fn current_findings(&self) -> Vec<Finding> {
        let told = self.translator.diagnostics().values().flatten().cloned();
        let (mut findings, told) = reading::without_second_opinions(self.manifests.findings(), told.collect());
        let not_served = reading::not_served(self.translator.left_out(), &self.options);
        let placed = |diagnostic: Diagnostic| Finding { place: self.manifests.place(&diagnostic.origin), diagnostic };
        let gateways = reading::gateways_not_served(self.translator.objects(), &self.options);
        let annotations = reading::annotations_of_routes(self.translator.objects(), &self.options);
        findings.extend(told.into_iter().chain(not_served).chain(gateways).chain(annotations).map(placed));
        // It may be written any moment, so it is no error yet.
        let missing = reading::missing_objects(self.translator.objects(), &self.options, reading::Source::Files);
        let missing = missing.into_iter().chain(reading::nothing(&self.manifests));
        findings.extend(missing.map(|mut found| {
            found.diagnostic.severity = Severity::Warning;
            found
        }));
        report::sort(&mut findings);
        findings
    }

    /// The same with the line of the field, for as many as are shown: the files are read for it.
    fn located(&self, mut findings: Vec<Finding>) -> Vec<Finding> {
        let rest = findings.split_off(findings.len().min(FINDINGS));
        let mut located = self.manifests.locate_objects(findings);
        report::sort(&mut located);
        located.extend(rest);
        located
    }
}

/// Whether a backend of this Service is the local process at this address, whichever name or number its port has.
fn leads_to(snapshot: &Snapshot, service: &Origin, address: SocketAddr) -> bool {
    snapshot.backends().iter().filter(|backend| backend.origin == *service).any(|backend| {
        let set = snapshot.endpoint_set(&backend.name).map(|set| &set.endpoints);
        matches!(set, Some(Endpoints::Addresses(list)) if list.iter().any(|endpoint| endpoint.address == address))
    })
}

/// The field by which an XBackend is spoken to in another way than a local process in its place.
fn spoken_otherwise(xbackend: Option<&Object>) -> Option<&'static str> {
    let Some(Object::XBackend(xbackend)) = xbackend else { return None };
    let is_plain = |protocol: &String| ["HTTP", "HTTP11", "TCP"].contains(&&**protocol);
    match (&xbackend.spec.tls, &xbackend.spec.protocol) {
        (Some(tls), _) if tls.mode != "None" => Some("spec.tls"),
        (_, Some(protocol)) if !is_plain(protocol) => Some("spec.protocol"),
        _ => None,
    }
}

/// The ports that could not be opened, and those that are open at last.
fn remarks(published: &Published) -> String {
    let mut notes = String::new();
    for refused in published.refused.iter().filter(|refused| !refused.known) {
        let advice = "end the program that has it, or change the port in the manifest";
        let _ = writeln!(notes, "  cannot listen on {}: {}; {advice}", refused.address, refused.error);
    }
    for address in published.opened.values() {
        let _ = writeln!(notes, "  now listening on {address}");
    }
    notes
}

/// What was found so far, also for the admin server.
#[derive(Clone, Default)]
struct SharedFindings(Arc<Mutex<Vec<Finding>>>);

impl SharedFindings {
    /// Returns those before.
    fn replace(&self, findings: &[Finding]) -> Vec<Finding> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), findings.to_vec())
    }

    fn source(&self) -> FindingSource {
        let own = self.clone();
        FindingSource::new(move || {
            let findings = own.0.lock().unwrap_or_else(PoisonError::into_inner);
            findings.iter().map(|found| report::shown(found.diagnostic.clone())).collect()
        })
    }
}

/// Large files, which are read on another thread.
struct PendingReading {
    paths: HashSet<PathBuf>,
    at: Instant,
    job: tokio::task::JoinHandle<Parsed>,
}

impl PendingReading {
    /// Reads files. `with` are others that were parsed already and must be applied together with them.
    fn begin(unread: Unread, with: Option<Parsed>, at: Instant) -> Self {
        let others = with.iter().flat_map(Parsed::paths);
        let paths = unread.paths().chain(others).map(PathBuf::from).collect();
        let job = tokio::task::spawn_blocking(|| match with {
            Some(with) => unread.parse().and(with),
            None => unread.parse(),
        });
        Self { paths, at, job }
    }

    /// The files that were read, and when they were saved. Safe to cancel and call again.
    async fn ended(reading: &mut Option<Self>) -> (Parsed, Instant) {
        match reading {
            Some(reading) => {
                let parsed = (&mut reading.job).await;
                (parsed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())), reading.at)
            }
            None => std::future::pending().await,
        }
    }
}

/// A change that goes live in parts.
struct Large {
    since: Instant,
    /// The differences so far.
    lines: Vec<change::Line>,
}

/// The addresses that the kernel chose.
fn doors(proxy: &Proxy, options: &Options, publisher: &Publisher) -> Doors {
    let local: BTreeMap<_, _> = proxy.local_addresses();
    let snapshot = publisher.snapshot();
    let of = |scheme: Scheme| {
        let mut found = snapshot.listeners().filter(|listener| listener.scheme == scheme && !is_of_gateway(listener));
        found.find_map(|listener| local.get(&listener.name).copied())
    };
    let known = |found: Option<SocketAddr>, asked: &[SocketAddr]| found.or_else(|| asked.first().copied());
    Doors { http: known(of(Scheme::Http), &options.http), https: known(of(Scheme::Https), &options.https) }
}

/// Whether only Gateways use a listener.
fn is_of_gateway(listener: &Listener) -> bool {
    listener.name.as_str().starts_with("gateway-")
}

/// Which local port stands for the port of a Gateway.
fn gateway_line(listener: &Listener, address: SocketAddr) -> String {
    let place = listener.name.as_str().trim_start_matches("gateway-");
    let of = match place.rsplit_once('-') {
        Some((gateway, port)) if gateway.contains('/') => format!("port {port} of Gateway {gateway}"),
        _ => format!("port {place} of Gateways"),
    };
    format!("{:<5} on {address}, for {of}", listener.scheme)
}

fn addresses(doors: &Doors, proxy: &Proxy, snapshot: &Snapshot) -> String {
    let mut out = String::new();
    for (name, door) in [("http", doors.http), ("https", doors.https), ("admin", proxy.admin_address())] {
        if let Some(door) = door {
            let _ = writeln!(out, "{name:<5} on {door}");
        }
    }
    let local = proxy.local_addresses();
    let open = |name: &ListenerName| local.get(name).copied();
    for listener in snapshot.listeners().filter(|listener| is_of_gateway(listener)) {
        if let Some(address) = open(&listener.name) {
            let _ = writeln!(out, "{}", gateway_line(listener, address));
        }
    }
    for listener in snapshot.stream_listeners() {
        if let Some(address) = open(&listener.name) {
            let _ = writeln!(out, "{}", change::stream_line(listener, address));
        }
    }
    out
}

/// The log of requests: in the format of the flag, else of the ConfigMap's `log-format-upstream`, else a short one.
fn access_log(
    matches: &ArgMatches,
    terminal: Terminal,
    snapshot: &Snapshot,
) -> Result<(LogSink, Option<(Template, LogEscape)>), UsageError> {
    let lines = || LogSink::Writer(Box::new(request_lines::RequestLines::new(terminal)));
    let own_format = snapshot.settings().access_log.format.text() != AccessLog::UPSTREAMINFO;
    Ok(match matches.get_one::<String>("access-log").map(String::as_str) {
        Some("off") => (LogSink::Off, None),
        Some(other) => (LogSink::Stdout, Some(wiring::log_format(other)?)),
        None if own_format => (LogSink::Stdout, None),
        None => (lines(), Some((Template::parse(request_lines::TEMPLATE), LogEscape::Default))),
    })
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
