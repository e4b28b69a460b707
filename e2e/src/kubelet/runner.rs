//! The life of one container: start, probes, end, restart.

mod back_off;
mod health;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use self::back_off::BackOff;
use self::health::{act, hook_and_probes};
use super::environment;
use super::links;
use super::log::{self, ContainerLog, Selection};
use super::pod::{PodWorker, RunningContainer};
use super::probe::ProbeAction;
use super::process::{self, ContainerProcess, Output, Program};
use super::status::{Current, Terminated};
use super::stop::Stop;
use crate::container::Place;
use crate::container::root::{Mount, RootLayout};
use crate::image;

/// Identifies a container of a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Which {
    /// An init container, by index.
    Init(usize),
    /// A container, by index.
    Main(usize),
}

/// When to restart a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Policy {
    /// Always.
    Always,
    /// After a failure.
    OnFailure,
    /// Never.
    Never,
}

/// Why a container must end although its pod doesn't.
struct Kill {
    reason: String,
    grace: Option<Duration>,
}

/// Runs a container until it is not restarted or the pod ends. Returns true if it succeeded.
pub(crate) async fn run(pod: Arc<PodWorker>, which: Which, policy: Policy, mut stop: Stop) -> bool {
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

/// Waits until everything the container needs is available. `None` if the pod ends first.
async fn prepare(
    pod: &Arc<PodWorker>,
    which: Which,
    container: &Container,
    links: &OnceCell<Vec<(String, String)>>,
    stop: &mut Stop,
) -> Option<(Program, image::Image)> {
    let mut reported = String::new();
    loop {
        let mut changes = pod.objects().changes();
        // Fetched once: a container restarts even while the API server is away.
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
        if reported != message {
            pod.event("Warning", "Failed", format!("Error: {message}"));
            reported.clone_from(&message);
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
    pod: &PodWorker,
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
    pod: &Arc<PodWorker>,
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
    let termination_log = directory.join("termination-log");
    let log = match begin(pod, container, attempt, &directory, &termination_log) {
        Ok(log) => log,
        Err(error) => return not_started(error.to_string()),
    };
    let layout = match layout(pod, container, program, image, &directory, &termination_log) {
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
    pod.set_running(
        &container.name,
        Some(RunningContainer { process: process.id, program: program.clone(), log: log.clone() }),
    );
    let has = |probe: &Option<_>| Option::is_some(probe);
    pod.update(which, |state| {
        state.current = Current::Running(started);
        state.started = !has(&container.startup_probe);
        state.ready = state.started && !has(&container.readiness_probe);
    });
    pod.event("Normal", "Started", format!("Container {} started", container.name));

    let exit = watch_over(pod, which, container, &mut process, stop).await;
    // Observers of its end also see all of its output.
    process.drained().await;
    pod.set_running(&container.name, None);
    let (exit_code, signal) = process::exit_code(exit);
    let mut message = std::fs::read(&termination_log)
        .ok()
        .map(|text| String::from_utf8_lossy(&text[..text.len().min(4096)]).into_owned());
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
    pod: &PodWorker,
    container: &Container,
    attempt: i32,
    directory: &Path,
    termination_log: &Path,
) -> std::io::Result<Arc<ContainerLog>> {
    std::fs::create_dir_all(directory.join("root"))?;
    process::termination_file(termination_log)?;
    ContainerLog::new(&pod.log_path(&container.name, attempt))
}

fn layout(
    pod: &PodWorker,
    container: &Container,
    program: &Program,
    image: &image::Image,
    directory: &Path,
    termination_log: &Path,
) -> Result<RootLayout, String> {
    let known =
        |name: &str| program.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expand = |text: &str| environment::expand(text, &known);
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let mut mounts = super::volume::mounts(mounts, &pod.volumes(), &expand)?;
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    mounts.push(Mount { source: termination_log.to_owned(), target: PathBuf::from(path), read_only: false });
    let object = pod.object();
    let hostname = pod.hostname();
    Ok(RootLayout {
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

/// Runs hooks and probes beside the process until it ends, by itself or on request.
async fn watch_over(
    pod: &Arc<PodWorker>,
    which: Which,
    container: &Container,
    process: &mut ContainerProcess,
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
    // Readiness probes continue while the container ends; the others do not.
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

/// preStop, SIGTERM, SIGKILL, each in its turn.
async fn end(
    pod: &Arc<PodWorker>,
    container: &Container,
    process: &mut ContainerProcess,
    stop: Stop,
) -> std::process::ExitStatus {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(hook) = hook {
        let work = async {
            let result = match ProbeAction::of_hook(hook, container) {
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
    // As in the kubelet: after a preStop hook that used all the time, at least 2 s are left.
    let least = if hook.is_some() { Instant::now() + Duration::from_secs(2) } else { Instant::now() };
    tokio::select! {
        exit = process.wait() => return exit,
        () = async { stop.due().await; sleep_until(least).await } => {}
    }
    let _ = kill(pid, Signal::SIGKILL);
    process.wait().await
}
