//! The life of one container: start, probes, end, start again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::environment;
use super::links;
use super::log::{self, Log, Selection};
use super::pod::{Live, Run};
use super::probe::{self, Action, Tally};
use super::process::{self, Output, Process, Program};
use super::status::{Current, Terminated};
use super::stop::Stop;
use crate::container::Place;
use crate::container::root::{Layout, Mount};
use crate::image;

/// Which container of a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Which {
    /// An init container, by index.
    Init(usize),
    /// A container, by index.
    Main(usize),
}

/// When a container is started again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Policy {
    /// Always.
    Always,
    /// After a failure.
    OnFailure,
    /// Never.
    Never,
}

/// How long a container waits after its ends: not at all after the first, then 10 s, doubling to 5 minutes; from the start
/// again after it ran for 10 minutes.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    next: Option<Duration>,
}

impl BackOff {
    const FIRST: Duration = Duration::from_secs(10);
    const LAST: Duration = Duration::from_secs(300);
    const FORGET: Duration = Duration::from_secs(600);

    /// What to wait after a run of that length.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= Self::FORGET {
            self.next = None;
        }
        let wait = self.next.unwrap_or_default();
        self.next = Some(self.next.map_or(Self::FIRST, |next| (next * 2).min(Self::LAST)));
        wait
    }
}

/// Why a container is to end though nobody ends its pod.
struct Kill {
    reason: String,
    grace: Option<Duration>,
}

/// Runs a container until it is not started again or the pod ends. True: it ended well.
pub(crate) async fn run(pod: Arc<Run>, which: Which, policy: Policy, mut stop: Stop) -> bool {
    let container = pod.container(which);
    let mut back_off = BackOff::default();
    let links = OnceCell::new();
    let mut attempt: i32 = pod.state(which).restarts;
    if pod.state(which).last.is_some() {
        attempt += 1;
    }
    loop {
        let Some(program) = prepare(&pod, which, &container, &links, &mut stop).await else { return false };
        let started = Instant::now();
        let ended = once(&pod, which, &container, &program, attempt, &mut stop).await;
        let good = ended.exit_code == 0;
        let stopping = stop.is_set();
        pod.update(which, |state| {
            state.current = Current::Terminated(ended.clone());
            state.started = false;
            state.ready = good && state.ready && matches!(policy, Policy::OnFailure | Policy::Never);
        });
        let again = match policy {
            Policy::Always => true,
            Policy::OnFailure => !good,
            Policy::Never => false,
        };
        if stopping || !again {
            return good;
        }
        let wait = back_off.after(started.elapsed());
        let name = pod.name();
        if !wait.is_zero() {
            let message =
                format!("back-off {}s restarting failed container={} pod={name}", wait.as_secs(), container.name);
            pod.event("Warning", "BackOff", format!("Back-off restarting failed container {}", container.name));
            pod.update(which, |state| {
                state.last = Some(ended.clone());
                state.current = Current::Waiting("CrashLoopBackOff".to_owned(), Some(message));
            });
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.begun() => {
                    pod.update(which, |state| state.current = Current::Terminated(ended));
                    return good;
                }
            }
        }
        attempt += 1;
        pod.update(which, |state| state.last = Some(ended));
    }
}

/// Waits until everything that the container needs is there. `None`: the pod ends first.
async fn prepare(
    pod: &Arc<Run>,
    which: Which,
    container: &Container,
    links: &OnceCell<Vec<(String, String)>>,
    stop: &mut Stop,
) -> Option<(Program, image::Image)> {
    let mut told = String::new();
    loop {
        let mut changes = pod.objects().changes();
        // Asked once: a container starts again also while the API server is away.
        let object = pod.object();
        let known = links.get_or_try_init(|| links::find(&pod.node().client, &object)).await;
        let ready = match known {
            Ok(links) => configure(pod, container, links),
            Err(error) => Err(("CreateContainerConfigError", format!("services have not been read: {error}"))),
        };
        let (reason, message) = match ready {
            Ok(_) if stop.is_set() => return None,
            Ok(ready) => return Some(ready),
            Err(refused) => refused,
        };
        if told != message {
            pod.event("Warning", "Failed", format!("Error: {message}"));
            told.clone_from(&message);
        }
        pod.update(which, |state| state.current = Current::Waiting(reason.to_owned(), Some(message)));
        tokio::select! {
            () = changes.next() => {}
            () = sleep(Duration::from_secs(10)) => {}
            () = stop.begun() => return None,
        }
    }
}

fn configure(
    pod: &Run,
    container: &Container,
    links: &[(String, String)],
) -> Result<(Program, image::Image), (&'static str, String)> {
    let name = container.image.as_deref().unwrap_or_default();
    let image = match image::find(name, &pod.node().options.image_root) {
        Ok(Some(image)) => image,
        Ok(None) => {
            let message = format!("Container image {name:?} is not present with pull policy of Never");
            return Err(("ErrImageNeverPull", message));
        }
        Err(error) => return Err(("ErrImageNeverPull", format!("Container image {name:?}: {error:#}"))),
    };
    let refused = |message: String| ("CreateContainerConfigError", message);
    let object = pod.object();
    let spec = object.spec.as_ref();
    if spec.and_then(|spec| spec.share_process_namespace) == Some(true)
        || spec.and_then(|spec| spec.host_pid) == Some(true)
    {
        return Err(refused("shareProcessNamespace and hostPID are not supported by this kubelet".to_owned()));
    }
    let sources = pod.sources(&object);
    let fixed = [links, &pod.node().fixed_variables()].concat();
    let variables = environment::variables(container, &sources, pod.objects(), fixed)
        .map_err(|error| refused(error.to_string()))?;
    let program = process::program(&object, container, &image, variables, &pod.hostname()).map_err(refused)?;
    Ok((program, image))
}

/// One run of a container, from start to end.
async fn once(
    pod: &Arc<Run>,
    which: Which,
    container: &Container,
    (program, image): &(Program, image::Image),
    attempt: i32,
    stop: &mut Stop,
) -> Terminated {
    let started = Timestamp::now();
    let id = format!("process://{}-{}-{attempt}", pod.uid(), container.name);
    let not_started = |message: String| Terminated {
        exit_code: 128,
        signal: None,
        reason: "StartError".to_owned(),
        message: Some(message),
        started,
        finished: Timestamp::now(),
        id: Some(id.clone()),
    };
    pod.update(which, |state| {
        state.restarts = attempt;
        state.id = Some(id.clone());
        state.image_id.clone_from(&image.id);
    });
    let directory = pod.directory().join("containers").join(&container.name);
    let last_words = directory.join("termination-log");
    let log = match begin(pod, container, attempt, &directory, &last_words) {
        Ok(log) => log,
        Err(error) => return not_started(error.to_string()),
    };
    let layout = match layout(pod, container, program, image, &directory, &last_words) {
        Ok(layout) => layout,
        Err(error) => return not_started(error),
    };
    let output = Output::Log(log.clone());
    let place = Place::New(layout);
    let mut process = match process::start(&pod.node().spawner, pod.network(), program, place, &directory, output).await
    {
        Ok(process) => process,
        Err(error) => {
            pod.event("Warning", "Failed", format!("Error: failed to start container {}: {error}", container.name));
            return not_started(error);
        }
    };
    pod.node().remember(process.id, &directory);
    pod.live(&container.name, Some(Live { process: process.id, program: program.clone(), log: log.clone() }));
    let has = |probe: &Option<_>| Option::is_some(probe);
    pod.update(which, |state| {
        state.current = Current::Running(started);
        state.started = !has(&container.startup_probe);
        state.ready = state.started && !has(&container.readiness_probe);
    });
    pod.event("Normal", "Started", format!("Container {} started", container.name));

    let exit = watch_over(pod, which, container, &mut process, stop).await;
    // Who sees that it has ended sees all that it said.
    process.drained().await;
    pod.live(&container.name, None);
    let (exit_code, signal) = process::exit_code(exit);
    let mut message =
        std::fs::read(&last_words).ok().map(|text| String::from_utf8_lossy(&text[..text.len().min(4096)]).into_owned());
    let wants_log = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if exit_code != 0 && wants_log && message.as_deref().is_none_or(str::is_empty) {
        let selection = Selection { tail: Some(80), limit: Some(2048), ..Selection::default() };
        message = log::read(log.path(), &selection).ok().map(|(text, _)| String::from_utf8_lossy(&text).into_owned());
    }
    Terminated {
        exit_code,
        signal,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: message.filter(|message| !message.is_empty()),
        started,
        finished: Timestamp::now(),
        id: Some(id),
    }
}

fn begin(
    pod: &Run,
    container: &Container,
    attempt: i32,
    directory: &std::path::Path,
    last_words: &std::path::Path,
) -> std::io::Result<Arc<Log>> {
    std::fs::create_dir_all(directory.join("root"))?;
    process::termination_file(last_words)?;
    Log::new(&pod.log_path(&container.name, attempt))
}

fn layout(
    pod: &Run,
    container: &Container,
    program: &Program,
    image: &image::Image,
    directory: &std::path::Path,
    last_words: &std::path::Path,
) -> Result<Layout, String> {
    let known =
        |name: &str| program.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expand = |text: &str| environment::expand(text, &known);
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let mut mounts = super::volume::mounts(mounts, &pod.volumes(), &expand)?;
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    mounts.push(Mount { source: last_words.to_owned(), target: PathBuf::from(path), read_only: false });
    let object = pod.object();
    let hostname = pod.hostname();
    Ok(Layout {
        scratch: directory.join("root"),
        image: match &image.root {
            image::Root::Directory(path) => Some(path.clone()),
            image::Root::Host => None,
        },
        program: pod.node().spawner.program.clone(),
        read_only: program.read_only,
        privileged: program.privileged,
        files: process::small_files(&object, &hostname, pod.target().address, pod.node().options.cluster_dns),
        hostname,
        mounts,
    })
}

/// Runs hooks and probes beside the process until it ends, by itself or because it is told to.
async fn watch_over(
    pod: &Arc<Run>,
    which: Which,
    container: &Container,
    process: &mut Process,
    stop: &mut Stop,
) -> std::process::ExitStatus {
    let (kill_sender, mut kills) = mpsc::channel(1);
    let (end_sender, ending) = watch::channel(false);
    // Aborted when this function returns.
    let mut beside = tokio::task::JoinSet::new();
    beside.spawn(hook_and_probes(pod.clone(), which, container.clone(), kill_sender, ending));
    let killed = tokio::select! {
        exit = process.wait() => return exit,
        () = stop.begun() => None,
        Some(kill) = kills.recv() => Some(kill),
    };
    // Readiness goes on while the container ends; the other probes do not.
    end_sender.send_replace(true);
    match killed {
        None => {
            pod.event("Normal", "Killing", format!("Stopping container {}", container.name));
            end(pod, container, process, stop.clone()).await
        }
        Some(Kill { reason, grace }) => {
            pod.event("Normal", "Killing", reason);
            let deadline = Instant::now() + grace.unwrap_or_else(|| pod.grace());
            end(pod, container, process, stop.limited(deadline)).await
        }
    }
}

/// preStop, SIGTERM, SIGKILL: each when its time has come.
async fn end(pod: &Arc<Run>, container: &Container, process: &mut Process, stop: Stop) -> std::process::ExitStatus {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(hook) = hook {
        let work = async {
            let result = match Action::of_hook(hook, container) {
                Ok(action) => act(pod, &container.name, &action, None).await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                pod.event("Warning", "FailedPreStopHook", format!("PreStopHook failed: {error}"));
            }
        };
        tokio::select! {
            exit = process.wait() => return exit,
            () = work => {}
            () = stop.due() => {}
        }
    }
    let term = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    let term = term.and_then(|name| name.parse().ok()).unwrap_or(Signal::SIGTERM);
    let pid = Pid::from_raw(process.id);
    let _ = kill(pid, term);
    // As the kubelet has it: after a preStop hook that took all the time, at least 2 s are left.
    let least = if hook.is_some() { Instant::now() + Duration::from_secs(2) } else { Instant::now() };
    tokio::select! {
        exit = process.wait() => return exit,
        () = async { stop.due().await; sleep_until(least).await } => {}
    }
    let _ = kill(pid, Signal::SIGKILL);
    process.wait().await
}

async fn hook_and_probes(
    pod: Arc<Run>,
    which: Which,
    container: Container,
    kills: mpsc::Sender<Kill>,
    ending: watch::Receiver<bool>,
) {
    let post_start = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    if let Some(hook) = post_start {
        let result = match Action::of_hook(hook, &container) {
            Ok(action) => act(&pod, &container.name, &action, None).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            pod.event("Warning", "FailedPostStartHook", format!("PostStartHook failed: {error}"));
            let reason = format!("Container {} failed its postStart hook and will be restarted", container.name);
            let _ = kills.send(Kill { reason, grace: None }).await;
            return;
        }
    }
    let start = Instant::now();
    if container.startup_probe.is_some() {
        let mut ending = ending.clone();
        tokio::select! {
            passed = probe(&pod, which, &container, Kind::Startup, start, &kills) => if !passed { return },
            _ = ending.wait_for(|ending| *ending) => return,
        }
    }
    let start = if container.startup_probe.is_some() { Instant::now() } else { start };
    let liveness = async {
        let mut ending = ending.clone();
        tokio::select! {
            _ = probe(&pod, which, &container, Kind::Liveness, start, &kills) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    };
    let readiness = probe(&pod, which, &container, Kind::Readiness, start, &kills);
    tokio::join!(liveness, readiness);
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

/// Probes until the container ends, or, for a startup probe, has started. False: the container is to be ended.
async fn probe(
    pod: &Arc<Run>,
    which: Which,
    container: &Container,
    kind: Kind,
    start: Instant,
    kills: &mpsc::Sender<Kill>,
) -> bool {
    let (spec, word) = match kind {
        Kind::Startup => (&container.startup_probe, "Startup"),
        Kind::Liveness => (&container.liveness_probe, "Liveness"),
        Kind::Readiness => (&container.readiness_probe, "Readiness"),
    };
    let Some(spec) = spec else { return true };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
    };
    let delay = seconds(spec.initial_delay_seconds, 0);
    let period = seconds(spec.period_seconds, 10).max(Duration::from_secs(1));
    let limit = seconds(spec.timeout_seconds, 1).max(Duration::from_secs(1));
    let action = Action::of_probe(spec, container);
    let mut tally = Tally::new(spec, kind == Kind::Liveness);
    let mut told = false;
    // The kubelet's first probe comes about a second after the start, when it has noticed it. What is ready before is seen
    // before; what fails before then is not counted.
    let early = [50, 100, 200, 400, 700].map(Duration::from_millis);
    let mut early = early.into_iter().filter(|_| delay.is_zero() && kind != Kind::Liveness);
    let mut due = start + delay;
    loop {
        let uncounted = early.next();
        match uncounted {
            Some(offset) => sleep_until(start + offset).await,
            None => {
                if delay.is_zero() && due == start {
                    due = start + Duration::from_secs(1);
                }
                sleep_until(due).await;
                due += period;
                // A probe that took longer than its period is not made up for.
                due = due.max(Instant::now());
            }
        }
        let result = match &action {
            Ok(action) => act(pod, &container.name, action, Some(limit)).await,
            Err(error) => Err(error.clone()),
        };
        let good = result.is_ok();
        if !good && uncounted.is_some() {
            continue;
        }
        if uncounted.is_some() {
            early.by_ref().for_each(drop);
            due = Instant::now() + period;
        }
        if let Err(error) = result
            && !told
        {
            pod.event("Warning", "Unhealthy", format!("{word} probe failed: {error}"));
        }
        told = !good;
        if !tally.record(good) {
            continue;
        }
        match kind {
            Kind::Readiness => pod.update(which, |state| state.ready = good),
            Kind::Startup if good => {
                let ready = container.readiness_probe.is_none();
                pod.update(which, |state| {
                    state.started = true;
                    state.ready = ready;
                });
                return true;
            }
            Kind::Liveness if good => {}
            Kind::Startup | Kind::Liveness => {
                let failed =
                    format!("Container {} failed {} probe, will be restarted", container.name, word.to_lowercase());
                let grace = spec.termination_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok());
                let _ = kills.send(Kill { reason: failed, grace: grace.map(Duration::from_secs) }).await;
                return false;
            }
        }
    }
}

/// Does what a probe or a hook says.
async fn act(pod: &Arc<Run>, container: &str, action: &Action, limit: Option<Duration>) -> Result<(), String> {
    let target = pod.target();
    let work = async {
        match action {
            Action::Http { .. } => probe::http(action, target).await,
            Action::Tcp { host, port } => probe::tcp(host.as_deref(), *port, target).await,
            Action::Sleep(duration) => {
                sleep(*duration).await;
                Ok(())
            }
            Action::Exec(command) => match pod.execute(container, command.clone()).await? {
                (0, _) => Ok(()),
                (code, output) => Err(format!("exit code {code}: {}", String::from_utf8_lossy(&output).trim_end())),
            },
        }
    };
    match limit {
        None => work.await,
        Some(limit) => match timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(format!("timeout: no answer within {limit:?}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_begins_with_nothing_doubles_and_is_forgotten() {
        let mut back_off = BackOff::default();
        let short = Duration::from_secs(1);
        let waits: Vec<u64> = (0..8).map(|_| back_off.after(short).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(back_off.after(Duration::from_secs(600)).as_secs(), 0);
    }
}
