//! Starts, shows and stops a cluster; and, called by the cluster itself, is its supervisor and its kubelets.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use fairway_e2e::cluster::{self, Action, Cluster, Options, status, supervisor};
use fairway_e2e::{container, echo, kubelet};

/// A real Kubernetes control plane and two Nodes in namespaces of this machine's kernel.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask cluster", bin_name = "cargo xtask cluster", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask cluster up
  cargo xtask cluster status
  cargo xtask cluster exec -- kubectl get pods -A -o wide
  cargo xtask cluster exec -- curl http://198.19.0.200/
  cargo xtask cluster exec --node node-a -- nft list ruleset
  cargo xtask cluster component kube-apiserver stop
  cargo xtask cluster up --name other --control-plane-taint
  cargo xtask cluster down --name other";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster and wait until it is ready
    Up {
        #[command(flatten)]
        name: NameArgument,
        #[command(flatten)]
        options: Options,
    },
    /// End a cluster; its logs stay until the next `up`
    Down(NameArgument),
    /// Run a command inside the cluster's network; it ends with the cluster
    Exec {
        #[command(flatten)]
        name: NameArgument,
        /// Run it in the network of this Node instead
        #[arg(long)]
        node: Option<String>,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Show components, Nodes, pods, addresses, and where the logs are
    Status(NameArgument),
    /// Stop, kill, start, pause or resume one component
    Component {
        #[command(flatten)]
        name: NameArgument,
        /// Its name, as `status` shows it
        component: String,
        /// What to do
        action: Action,
    },
    /// The process kubelet of one Node
    #[command(hide = true)]
    Kubelet(kubelet::KubeletOptions),
    /// The program behind the echo images
    #[command(hide = true)]
    Echo(echo::EchoOptions),
    /// The first process of a container
    #[command(hide = true)]
    Container { spec: PathBuf },
    /// The first process of a cluster
    #[command(hide = true)]
    Supervise {
        #[command(flatten)]
        name: NameArgument,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Debug, Args)]
struct NameArgument {
    /// The cluster's name
    #[arg(long, default_value = "dev")]
    name: String,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        // Before this process does anything else, in particular before it starts a second thread.
        Command::Container { spec } => return Ok(container::main(&spec)),
        Command::Up { name: NameArgument { name }, options } => up(&name, &options)?,
        Command::Down(NameArgument { name }) => {
            let was = if cluster::down(&name)? { "is down" } else { "was not running" };
            println!("cluster {name} {was}");
        }
        Command::Exec { name: NameArgument { name }, node, command } => {
            // Returns only if it could not be started.
            let error = Cluster::find(&name)?.shell(node.as_deref(), &command)?.exec();
            return Err(error).context("starting nsenter (Debian package util-linux)");
        }
        Command::Status(NameArgument { name }) => {
            let mut output = std::io::stdout();
            let text = status::show(&Cluster::find(&name)?, output.is_terminal())?;
            output.write_all(text.as_bytes())?;
        }
        Command::Component { name: NameArgument { name }, component, action } => {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            runtime.block_on(Cluster::find(&name)?.component(&component, action))?;
        }
        Command::Supervise { name: NameArgument { name }, options } => {
            log();
            supervisor::run(&name, &options)?;
        }
        Command::Kubelet(options) => {
            log();
            tokio::runtime::Runtime::new()?.block_on(kubelet::run(options))?;
        }
        Command::Echo(options) => {
            log();
            tokio::runtime::Runtime::new()?.block_on(echo::run(options))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn up(name: &str, options: &Options) -> anyhow::Result<()> {
    let start = Instant::now();
    // A closed output is no reason to take the cluster down.
    let say = |text: &str| drop(writeln!(std::io::stdout(), "{text}"));
    let step = |step: &str| say(&format!("{:>5.1}s  {step}", start.elapsed().as_secs_f64()));
    let cluster = Cluster::start(name, options, step)?;
    step("ready");
    say(&format!("\nKUBECONFIG={} works inside its network:", cluster.layout().kubeconfig().display()));
    say(&format!("  cargo xtask cluster exec --name {name} -- kubectl get nodes"));
    Ok(())
}

/// Writes a line per event to standard error, which is the log of the process.
fn log() {
    let filter = tracing_subscriber::EnvFilter::new("info,kube=warn,kube_client=off");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
