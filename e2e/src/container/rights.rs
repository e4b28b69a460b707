//! The rights of a program: user, groups, capabilities, and whether it may gain more.

use anyhow::Context as _;
use caps::{CapSet, Capability};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use super::seccomp;

/// The default capabilities of container runtimes.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The rights of a program.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rights {
    /// User id.
    pub user: u32,
    /// Primary group id.
    pub group: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
    /// The capability bounding set, without `CAP_`; `None` for all capabilities (a privileged container). A program of
    /// root starts with these; for any other user they only limit what a file's capabilities may raise, as in runtimes.
    pub capabilities: Option<Vec<String>>,
    /// Programs gain no rights from `exec` (`allowPrivilegeEscalation: false`).
    pub no_new_privileges: bool,
    /// Whether to reject the system calls that runtimes reject by default. Only honoured together with
    /// [`Self::no_new_privileges`], since the filter is installed without any capability.
    pub seccomp: bool,
}

/// Drops everything that is not in `rights`. Takes effect with the next `exec`.
///
/// # Errors
/// If the kernel refuses a step or the name of a capability is unknown.
pub fn apply(rights: &Rights) -> anyhow::Result<()> {
    if let Some(names) = &rights.capabilities {
        let mut keep = Vec::new();
        for name in names {
            let name = caps::to_canonical(name);
            keep.push(name.parse::<Capability>().map_err(|_| anyhow::anyhow!("unknown capability {name}"))?);
        }
        for capability in caps::all() {
            // A kernel that does not know a capability does not have it in its set either.
            if !keep.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, capability).with_context(|| format!("dropping {capability}"))?;
            }
        }
    }
    caps::clear(None, CapSet::Inheritable).context("clearing inheritable capabilities")?;
    caps::clear(None, CapSet::Ambient).context("clearing ambient capabilities")?;

    let groups: Vec<Gid> = rights.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).context("setting supplementary groups")?;
    let (user, group) = (Uid::from_raw(rights.user), Gid::from_raw(rights.group));
    setresgid(group, group, group).context("setting the group")?;
    setresuid(user, user, user).context("setting the user")?;
    if rights.no_new_privileges {
        prctl::set_no_new_privs().context("setting no_new_privs")?;
        if rights.seccomp {
            seccomp::install()?;
        }
    }
    Ok(())
}
