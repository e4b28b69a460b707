//! Completions and manual pages, generated from the same command line description as the help.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ArgMatches;
use clap_complete::Shell;

use crate::cli;
use crate::terminal::Terminal;

/// Prints the completions for a shell.
pub(crate) fn completions(matches: &ArgMatches) -> ExitCode {
    let shell = matches.get_one::<Shell>("shell").copied().unwrap_or(Shell::Bash);
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "fairway", &mut out);
    Terminal::plain().print(&String::from_utf8_lossy(&out));
    ExitCode::SUCCESS
}

/// Prints the manual page, or writes one per command.
pub(crate) fn man(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.get_one::<PathBuf>("folder") {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
            clap_mangen::generate_to(cli::command(), folder)
                .with_context(|| format!("writing manual pages to {}", folder.display()))?;
        }
        None => {
            let mut out = Vec::new();
            clap_mangen::Man::new(cli::command()).render(&mut out)?;
            Terminal::plain().print(&String::from_utf8_lossy(&out));
        }
    }
    Ok(ExitCode::SUCCESS)
}
