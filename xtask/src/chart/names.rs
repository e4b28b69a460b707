//! The flags and the keys of the global ConfigMap with their verdicts, read from the generated pages about them.
//!
//! The tables themselves are in `crates/translate`, which takes minutes to build; a test there keeps the pages in sync.

use anyhow::{Context, ensure};

use crate::workspace::Workspace;

const FLAGS: &str = "docs/flags.md";
const KEYS: &str = "docs/configmap.md";

/// The flags of `fairway run` that ingress-nginx doesn't have, and their argument.
pub(crate) const OWN_FLAGS: [(&str, &str); 16] = [
    ("access-log", "VALUE"),
    ("allow-backend-address", "VALUE"),
    ("gateway-address", "VALUE"),
    ("gateway-api", ""),
    ("gateway-controller-name", "VALUE"),
    ("gateway-ports", "VALUE"),
    ("handover-socket", "VALUE"),
    ("log-format", "VALUE"),
    ("metrics-detail", "VALUE"),
    ("observed", ""),
    ("read-only", ""),
    ("readiness-gate", ""),
    ("request-body-directory", "DIRECTORY"),
    ("request-body-space", "MEBIBYTES"),
    ("validating-webhook-client-authority", "FILE"),
    ("workers", "NUMBER"),
];

/// One flag, or one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Name {
    /// Without dashes.
    pub(crate) name: String,
    /// The argument of a flag as in its usage line; empty for a switch and for keys.
    pub(crate) takes: String,
    /// The default in ingress-nginx; empty for none.
    pub(crate) default: String,
    /// The verdict in one word.
    pub(crate) label: String,
    /// Further remarks.
    pub(crate) note: String,
}

impl Name {
    /// Whether setting it has no effect.
    pub(crate) fn is_in_vain(&self) -> bool {
        matches!(self.label.as_str(), "not yet" | "refused") || self.note.starts_with("Not built yet")
    }

    /// Whether it takes `true`, `false` or nothing, like switches in Go.
    pub(crate) fn is_switch(&self) -> bool {
        self.takes.is_empty() && matches!(self.default.as_str(), "true" | "false")
    }

    /// Splits `**label**. Note.`
    fn new(name: &str, takes: &str, default: &str, verdict: &str) -> anyhow::Result<Self> {
        let (label, note) =
            verdict.trim().strip_prefix("**").and_then(|rest| rest.split_once("**")).context("verdict")?;
        let default = default.trim();
        Ok(Self {
            name: name.to_owned(),
            takes: takes.to_owned(),
            default: if default == "none" { String::new() } else { default.trim_matches('`').to_owned() },
            label: label.to_owned(),
            note: note.trim_start_matches(". ").to_owned(),
        })
    }
}

/// Every flag of ingress-nginx.
pub(crate) fn flags(workspace: &Workspace) -> anyhow::Result<Vec<Name>> {
    parse_flags(&read(workspace, FLAGS)?)
}

/// Every key of ingress-nginx.
pub(crate) fn keys(workspace: &Workspace) -> anyhow::Result<Vec<Name>> {
    parse_keys(&read(workspace, KEYS)?)
}

fn read(workspace: &Workspace, path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(workspace.root.join(path)).with_context(|| path.to_owned())
}

/// Rows of a table: `` | `-s`, `--name TAKES` | `default` | meaning | **label**. Note. | ``.
fn parse_flags(page: &str) -> anyhow::Result<Vec<Name>> {
    let mut flags = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| `-")) {
        let columns: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        let [usage, default, _, verdict] = columns.as_slice() else { anyhow::bail!("{FLAGS}: {row}") };
        let usage = usage.trim().trim_matches('`');
        let (_, usage) = usage.rsplit_once("--").with_context(|| row.to_owned())?;
        let (name, takes) = usage.split_once(' ').unwrap_or((usage, ""));
        flags.push(Name::new(name, takes, default, verdict).with_context(|| row.to_owned())?);
    }
    ensure!(flags.len() > 70, "{FLAGS} has {} flags only", flags.len());
    Ok(flags)
}

/// Sections: the key as heading, then a list with its default and its verdict.
fn parse_keys(page: &str) -> anyhow::Result<Vec<Name>> {
    let mut keys = Vec::new();
    for section in page.split("\n### `").skip(1) {
        let (name, rest) = section.split_once('`').context("a heading")?;
        let item = |title: &str| rest.lines().find_map(|line| line.strip_prefix(title));
        let default = item("- Default: ").with_context(|| format!("{KEYS}: {name} has no default"))?;
        let verdict = item("- Verdict: ").with_context(|| format!("{KEYS}: {name} has no verdict"))?;
        keys.push(Name::new(name, "", default, verdict).with_context(|| name.to_owned())?);
    }
    ensure!(keys.len() > 150, "{KEYS} has {} keys only", keys.len());
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_read() {
        let flags = parse_flags(include_str!("../../../docs/flags.md")).unwrap();
        let flag = |name: &str| flags.iter().find(|flag| flag.name == name).expect(name);
        assert_eq!((flag("v").takes.as_str(), flag("v").default.as_str()), ("NUMBER", "0"));
        assert_eq!(flag("deep-inspect").takes, "");
        assert_eq!(flag("configmap").takes, "NAMESPACE/NAME");
        assert!(!flag("profiling").is_in_vain() && !flag("http-port").is_in_vain());
        assert!(flag("enable-ssl-chain-completion").is_in_vain());
        let keys = parse_keys(include_str!("../../../docs/configmap.md")).unwrap();
        let key = |name: &str| keys.iter().find(|key| key.name == name).expect(name);
        assert_eq!(key("hsts-max-age").default, "31536000");
        assert_eq!(key("block-referers").default, "");
        assert!(!key("ssl-redirect").is_in_vain() && !key("access-log-path").is_in_vain());
    }

    /// The schema names exactly the flags that the program accepts.
    #[test]
    fn own_flags_are_those_of_the_command_line() {
        let source = include_str!("../../../crates/fairway/src/cli.rs");
        let (_, run) = source.split_once("fn run() -> Command {").expect("the command run");
        let (run, _) = run.split_once("\n}").expect("its end");
        let arguments = [
            "access_log()",
            "\"log-format\"",
            "\"gateway-api\"",
            "\"readiness-gate\"",
            "\"observed\"",
            "gateway_address()",
            "gateway_controller_name()",
            "\"gateway-ports\"",
            "\"read-only\"",
            "\"validating-webhook-client-authority\"",
            "\"request-body-directory\"",
            "\"request-body-space\"",
            "workers()",
            "metrics_detail()",
            "allow_address()",
            "\"handover-socket\"",
        ];
        for argument in arguments {
            assert!(run.contains(argument), "{argument}");
        }
        assert_eq!(run.matches(".arg(").count(), arguments.len(), "a flag that the chart's schema doesn't know?");
        for (name, _) in OWN_FLAGS {
            assert!(source.contains(&format!(".long(\"{name}\")")), "{name}");
        }
    }
}
