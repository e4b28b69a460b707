//! Kubernetes ingress controller and proxy: one binary whose modes are the modules below.

mod capability;
mod check;
mod cli;
mod cluster;
mod compare;
#[cfg(feature = "cluster")]
mod confine;
#[cfg(feature = "cluster")]
mod controller;
mod convert;
mod dev;
mod echo;
mod explain;
mod flags;
#[cfg(feature = "cluster")]
mod handover;
mod manifest;
mod open_files;
mod pattern;
mod plugin;
#[cfg(feature = "cluster")]
mod proxy;
mod reading;
mod report;
#[cfg(feature = "cluster")]
mod role;
#[cfg(feature = "cluster")]
mod run;
#[cfg(feature = "cluster")]
mod serve;
mod shell;
mod status;
mod table;
mod telemetry;
mod terminal;
mod wiring;

use std::process::ExitCode;

/// The C library's allocator would keep the memory of thousands of deleted objects, in pages that a few live ones share.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status for a command line that can't be carried out as written; clap uses the same.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // The first call starts the clock that measures the startup.
    wiring::age();
    capability::raise();
    open_files::raise_limit();
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let usage = error.is::<flags::UsageError>() || error.is::<manifest::NoSuchPath>();
            if usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    if plugin::is_called() {
        return plugin::main();
    }
    let matches = cli::command().get_matches();
    match matches.subcommand() {
        Some(("dev", matches)) => dev::main(matches),
        Some(("check", matches)) => check::main(matches),
        Some(("explain", matches)) => explain::main(matches),
        Some(("compare", matches)) => compare::main(matches),
        Some(("convert", matches)) => convert::main(matches),
        #[cfg(feature = "cluster")]
        Some(("run", matches)) => run::main(matches),
        #[cfg(feature = "cluster")]
        Some(("controller", matches)) => controller::main(matches),
        #[cfg(feature = "cluster")]
        Some(("proxy", matches)) => proxy::main(matches),
        #[cfg(not(feature = "cluster"))]
        Some(("run" | "controller" | "proxy", _)) => cluster::run(),
        Some(("status", matches)) => status::main(matches),
        Some(("completions", matches)) => Ok(shell::completions(matches)),
        Some(("man", matches)) => shell::man(matches),
        _ => {
            println!("fairway {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}
