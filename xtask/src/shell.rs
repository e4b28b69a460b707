//! Runs commands: output is captured, and shown only as progress until something fails.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::console::Console;

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) success: bool,
    /// Both output streams, in the order written.
    pub(crate) output: String,
}

/// Runs `command` to completion. Lines selected by `keep` stay on the screen.
pub(crate) fn run(console: &Console, command: &mut Command, keep: impl Fn(&str) -> bool) -> anyhow::Result<Finished> {
    let name = display(command);
    let (reader, writer) = std::io::pipe().context("a pipe")?;
    let errors = writer.try_clone().context("a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("starting `{name}`"))?;
    // The command keeps its write ends until they are replaced: otherwise the output would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut output = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.with_context(|| format!("reading from `{name}`"))?;
        let line = String::from_utf8_lossy(&line);
        if keep(&line) {
            console.line(&line);
        } else {
            console.progress(&line);
        }
        output.push_str(&line);
        output.push('\n');
    }
    let status = child.wait().with_context(|| format!("waiting for `{name}`"))?;
    if status.code().is_none() {
        // A command killed by a signal prints nothing.
        output.push_str(&format!("`{name}` ended: {status}\n"));
    }
    Ok(Finished { success: status.success(), output })
}

/// Returns what `command` prints to standard output.
///
/// # Errors
/// If it fails, with its error output.
pub(crate) fn read(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let name = display(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{name}`"))?;
    if !output.status.success() {
        anyhow::bail!("`{name}` failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// Whether `command` can be started and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The command as a person would type it.
pub(crate) fn display(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.file_name().unwrap_or_default().to_string_lossy()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_are_kept_in_order() {
        let console = Console::new(false);
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let finished = run(&console, &mut command, |_| false).unwrap();
        assert_eq!((finished.success, finished.output.as_str()), (false, "one\ntwo\nthree\n"));
    }

    #[test]
    fn the_signal_that_ended_a_command_is_named() {
        let finished =
            run(&Console::new(false), Command::new("sh").args(["-c", "echo one; kill -PIPE $$"]), |_| false).unwrap();
        assert!(!finished.success);
        assert_eq!(finished.output, "one\n`sh -c echo one; kill -PIPE $$` ended: signal: 13 (SIGPIPE)\n");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = read(&mut Command::new("no-such-program")).unwrap_err();
        assert_eq!(error.to_string(), "starting `no-such-program`");
    }
}
