//! Turns a container of a pod into a running process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::environment::expand;
use super::log::ContainerLog;
use super::spawner::{Network, PodProcesses, Spawner};
use crate::container::rights::{DEFAULT_CAPABILITIES, Rights};
use crate::container::{Place, Spec};
use crate::image::{Image, PATH};

/// The program of a container and its rights: everything except its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    /// Program and arguments.
    pub command: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// The directory in which it starts.
    pub working_directory: PathBuf,
    /// Its rights.
    pub rights: Rights,
    /// Its root is read-only.
    pub read_only: bool,
    /// It is privileged.
    pub privileged: bool,
}

/// Determines the program of a container.
///
/// # Errors
/// If there is nothing to run, or it would run as root although the pod forbids it.
pub(crate) fn program(
    pod: &Pod,
    container: &Container,
    image: &Image,
    variables: Vec<(String, String)>,
    hostname: &str,
) -> Result<Program, String> {
    let rights = rights(pod, container, image)?;
    let mut environment: BTreeMap<String, String> =
        [("PATH", PATH), ("HOSTNAME", hostname)].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    environment.insert("HOME".to_owned(), if rights.user == 0 { "/root" } else { "/" }.to_owned());
    environment.extend(image.environment.iter().cloned());
    environment.extend(variables);

    let replace = |text: &String| expand(text, &|name| environment.get(name).cloned());
    let given = |list: &Option<Vec<String>>| list.as_ref().filter(|list| !list.is_empty()).cloned();
    let (mut command, default) = match given(&container.command) {
        Some(command) => (command.iter().map(replace).collect(), Vec::new()),
        None => (image.entrypoint.clone(), image.arguments.clone()),
    };
    command.extend(given(&container.args).map_or(default, |arguments| arguments.iter().map(replace).collect()));
    if command.is_empty() {
        return Err("no command specified".to_owned());
    }
    let context = container.security_context.as_ref();
    let directory =
        container.working_dir.as_deref().filter(|path| !path.is_empty()).unwrap_or(&image.working_directory);
    Ok(Program {
        command,
        working_directory: PathBuf::from(directory),
        environment: environment.into_iter().collect(),
        rights,
        read_only: context.and_then(|context| context.read_only_root_filesystem) == Some(true),
        privileged: context.and_then(|context| context.privileged) == Some(true),
    })
}

fn rights(pod: &Pod, container: &Container, image: &Image) -> Result<Rights, String> {
    let own = container.security_context.as_ref();
    let shared = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let id = |value: i64| u32::try_from(value).map_err(|_| format!("invalid user or group id {value}"));

    let asked = own.and_then(|own| own.run_as_user).or(shared.and_then(|shared| shared.run_as_user));
    let user = asked.map_or(Ok(image.user.0), id)?;
    let group = own.and_then(|own| own.run_as_group).or(shared.and_then(|shared| shared.run_as_group));
    let group = match (group, asked) {
        (Some(group), _) => id(group)?,
        (None, Some(_)) if user != image.user.0 => 0,
        (None, _) => image.user.1,
    };
    let not_root = own.and_then(|own| own.run_as_non_root).or(shared.and_then(|shared| shared.run_as_non_root));
    if not_root == Some(true) && user == 0 {
        return Err(match asked {
            Some(_) => "container's runAsUser breaks non-root policy".to_owned(),
            None => "container has runAsNonRoot and image will run as root".to_owned(),
        });
    }
    let mut groups = vec![group];
    for extra in shared.iter().flat_map(|shared| shared.supplemental_groups.iter().flatten().chain(&shared.fs_group)) {
        groups.push(id(*extra)?);
    }
    groups.dedup();

    let privileged = own.and_then(|own| own.privileged) == Some(true);
    let changes = own.and_then(|own| own.capabilities.as_ref());
    let names = |list: Option<&Vec<String>>| -> Vec<String> {
        let names = list.into_iter().flatten().map(|name| name.to_uppercase());
        names.map(|name| name.trim_start_matches("CAP_").to_owned()).collect()
    };
    let (add, drop) = (names(changes.and_then(|c| c.add.as_ref())), names(changes.and_then(|c| c.drop.as_ref())));
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let mut keep: Vec<String> = if all(&add) {
        caps::all().iter().map(|capability| capability.to_string().trim_start_matches("CAP_").to_owned()).collect()
    } else if all(&drop) {
        Vec::new()
    } else {
        DEFAULT_CAPABILITIES.map(str::to_owned).to_vec()
    };
    keep.retain(|name| !drop.contains(name));
    keep.extend(add.into_iter().filter(|name| name != "ALL"));
    keep.sort();
    keep.dedup();

    let profile = own.and_then(|own| own.seccomp_profile.as_ref()).or(shared.and_then(|s| s.seccomp_profile.as_ref()));
    Ok(Rights {
        user,
        group,
        groups,
        capabilities: (!privileged).then_some(keep),
        no_new_privileges: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        seccomp: !privileged && profile.is_some_and(|profile| profile.type_ == "RuntimeDefault"),
    })
}

/// The host name and the small files below `/etc` that every container has.
pub(crate) fn small_files(pod: &Pod, hostname: &str, address: IpAddr, dns: IpAddr) -> Vec<(PathBuf, String)> {
    let spec = pod.spec.as_ref();
    let mut hosts = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n".to_owned();
    hosts.push_str(&format!("{address}\t{hostname}\n"));
    for alias in spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()) {
        let names = alias.hostnames.iter().flatten().map(String::as_str).collect::<Vec<_>>();
        hosts.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let host_network = spec.and_then(|spec| spec.host_network) == Some(true);
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let cluster = policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !host_network);
    let (mut servers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
    if cluster {
        servers.push(dns.to_string());
        search.extend([format!("{namespace}.svc.cluster.local"), "svc.cluster.local".into(), "cluster.local".into()]);
        options.push("ndots:5".to_owned());
    }
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        servers.extend(config.nameservers.iter().flatten().cloned());
        search.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            options.retain(|known: &String| known.split(':').next() != Some(name));
            options.push(option.value.as_ref().map_or(name.to_owned(), |value| format!("{name}:{value}")));
        }
    }
    let mut resolv = String::new();
    if !search.is_empty() {
        resolv.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers {
        resolv.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        resolv.push_str(&format!("options {}\n", options.join(" ")));
    }
    [("/etc/hosts", hosts), ("/etc/resolv.conf", resolv), ("/etc/hostname", format!("{hostname}\n"))]
        .map(|(path, content)| (PathBuf::from(path), content))
        .to_vec()
}

/// A started process.
#[derive(Debug)]
pub(crate) struct ContainerProcess {
    /// Its id, as seen by the kubelet.
    pub id: i32,
    child: Child,
    output: JoinSet<()>,
}

/// How long to wait for remaining output after a process ends. Only a process outside the container can hold the pipe
/// open: all others end with the first one.
const REST: Duration = Duration::from_secs(1);

impl ContainerProcess {
    /// Waits for it to end.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        // Waiting fails only if another caller has waited, which never happens.
        self.child.wait().await.unwrap_or_else(|_| ExitStatus::from_raw(9))
    }

    /// Waits until all output before its end has been delivered.
    pub(crate) async fn drained(&mut self) {
        let _ = timeout(REST, async { while self.output.join_next().await.is_some() {} }).await;
    }
}

/// Starts `program` at a place; `directory` holds the description that the process reads. Its output goes to `output`, if given, and is
/// discarded otherwise.
///
/// # Errors
/// Why the program does not run.
pub(crate) async fn start(
    spawner: &Spawner,
    network: Option<Network>,
    program: &Program,
    place: Place,
    directory: &Path,
    output: Output,
) -> Result<ContainerProcess, String> {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let io = |error: std::io::Error| error.to_string();
    let processes = match &place {
        Place::New(_) => PodProcesses::New,
        Place::Inside(process) => PodProcesses::Of(*process),
    };
    let spec = Spec {
        place,
        command: program.command.clone(),
        environment: program.environment.clone(),
        working_directory: program.working_directory.clone(),
        rights: program.rights.clone(),
    };
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = directory.join(format!("start-{count}.json"));
    let text = serde_json::to_vec(&spec).map_err(|error| error.to_string())?;
    {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(0o600).open(&path).map_err(io)?;
        file.write_all(&text).map_err(io)?;
    }
    let started = spawn(spawner, network, processes, &path, output).await;
    // Absent only if the directory was cleared.
    let _ = std::fs::remove_file(&path);
    started
}

async fn spawn(
    spawner: &Spawner,
    network: Option<Network>,
    processes: PodProcesses,
    spec: &Path,
    output: Output,
) -> Result<ContainerProcess, String> {
    let io = |error: std::io::Error| error.to_string();
    let pipe = || std::io::pipe().map_err(io);
    let ((report, report_writer), (out, out_writer), (err, err_writer)) = (pipe()?, pipe()?, pipe()?);
    let mut command = Command::new(&spawner.program);
    command.arg("container").arg(spec).current_dir("/");
    let stdio = [report_writer.into(), out_writer.into(), err_writer.into()];
    let child = spawner.spawn(network, processes, command, stdio).await.map_err(io)?;
    let receiver = |pipe: std::io::PipeReader| Receiver::from_owned_fd(pipe.into()).map_err(io);
    let output = output.collect(receiver(out)?, receiver(err)?);
    let id = child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(-1);
    let mut process = ContainerProcess { id, child, output };
    let mut message = String::new();
    let _ = receiver(report)?.read_to_string(&mut message).await;
    if message.is_empty() {
        return Ok(process);
    }
    process.wait().await;
    Err(message)
}

/// The destination of a process's output.
#[derive(Debug)]
pub(crate) enum Output {
    /// To a log.
    Log(Arc<ContainerLog>),
    /// To the caller that waits for it; only the start is kept.
    Collected(tokio::sync::mpsc::Sender<Vec<u8>>),
}

/// How much of a collected output is kept, in bytes.
const COLLECTED: u64 = 64 << 10;

impl Output {
    fn collect(self, out: Receiver, err: Receiver) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        match self {
            Self::Log(log) => {
                tasks.spawn(log.clone().copy(out, "stdout"));
                tasks.spawn(log.copy(err, "stderr"));
            }
            Self::Collected(sender) => {
                for mut pipe in [out, err] {
                    let sender = sender.clone();
                    tasks.spawn(async move {
                        let mut text = Vec::new();
                        let _ = (&mut pipe).take(COLLECTED).read_to_end(&mut text).await;
                        let _ = sender.send(text).await;
                        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
                    });
                }
            }
        }
        tasks
    }
}

impl Drop for ContainerProcess {
    fn drop(&mut self) {
        // Read the output of remaining writers to the end.
        self.output.detach_all();
    }
}

/// The exit code as reported by container runtimes, and the signal, if one ended the process.
pub(crate) fn exit_code(status: ExitStatus) -> (i32, Option<i32>) {
    match (status.code(), status.signal()) {
        (Some(code), _) => (code, None),
        (None, Some(signal)) => (128 + signal, Some(signal)),
        (None, None) => (255, None),
    }
}

/// Creates the file for a container's termination message.
///
/// # Errors
/// If it can't be created.
pub(crate) fn termination_file(path: &Path) -> std::io::Result<()> {
    std::fs::write(path, "")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
}

#[cfg(test)]
mod tests;
