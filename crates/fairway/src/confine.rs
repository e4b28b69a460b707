//! The rights that the process parsing internet bytes gives up when it starts, so that an attacker who takes it over gains little: it can
//! write no file, start no program, inspect no other process, and read nothing below the places where Kubernetes mounts tokens.
//!
//! Two kernel mechanisms enforce this until the process ends: Landlock for files, seccomp for system calls. Without one of them the proxy
//! still serves, and logs that it is missing.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, LandlockStatus, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};
use tracing::{info, warn};

/// Where Kubernetes and container runtimes mount credentials. The proxy gets its certificates from the controller.
const CREDENTIALS: [&str; 2] = ["/run/secrets", "/var/run/secrets"];

/// The newest Landlock version whose rights are requested; an older kernel enforces those that it knows.
const LANDLOCK: ABI = ABI::V6;

/// System calls that a proxy never makes and that an intruder would need next.
const REFUSED: [libc::c_long; 38] = [
    // Start other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Inspect other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
    // Change namespaces and file systems.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    // Kernel subsystems with a history of vulnerabilities.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_personality,
];

/// musl's `libc` has no constant for this on ARM.
const KEXEC_FILE_LOAD: libc::c_long = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// With any of these flags, `clone` creates a namespace, as `unshare` would.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// On x86-64, numbers from here on belong to its second ABI (x32), which offers every call again. Other architectures have none.
const X32: u32 = 0x4000_0000;

/// Confines this thread and the threads that it starts from now on; call it before there are others. Nothing in `token` can be read
/// afterwards; files may be kept in `scratch`, and a socket in `sockets`.
pub(crate) fn confine(token: Option<&Path>, scratch: [Option<&Path>; 2], sockets: Option<&Path>) {
    let hidden: Vec<_> = CREDENTIALS.map(Path::new).into_iter().chain(token).collect();
    match files(&hidden, &scratch, sockets) {
        Ok(RestrictionStatus { ruleset: RulesetStatus::FullyEnforced, .. }) => {}
        Ok(RestrictionStatus { ruleset: RulesetStatus::PartiallyEnforced, .. }) => {
            info!("this kernel's Landlock is too old to restrict every access to files");
        }
        Ok(RestrictionStatus { landlock: LandlockStatus::Available { .. }, .. }) => {
            warn!("Landlock is not in force: the proxy may use all files of its container");
        }
        Ok(RestrictionStatus { landlock: LandlockStatus::NotEnabled, .. }) => {
            warn!(
                "Landlock is disabled in this kernel (boot parameter lsm): the proxy may use all files of its container"
            );
        }
        Ok(_) => warn!("this kernel has no Landlock: the proxy may use all files of its container"),
        Err(error) => warn!(%error, "the proxy may use all files of its container"),
    }
    if let Err(error) = calls() {
        warn!(%error, "the proxy may make all system calls that its container may make");
    }
}

/// Allows only reading files, except those in `hidden`, and creating, writing and removing files in `scratch` and sockets in `sockets`.
fn files(
    hidden: &[&Path],
    scratch: &[Option<&Path>],
    sockets: Option<&Path>,
) -> Result<RestrictionStatus, RulesetError> {
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(LANDLOCK))?.scope(Scope::from_all(LANDLOCK))?;
    let mut ruleset = ruleset.create()?;
    let mut readable = Vec::new();
    readable_in(Path::new("/"), hidden, &mut readable);
    for path in readable {
        // A path that has disappeared needs no rule.
        let Ok(file) = PathFd::new(&path) else { continue };
        let rights = if path.is_dir() { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::ReadFile.into() };
        ruleset = ruleset.add_rule(PathBeneath::new(file, rights))?;
    }
    // Standard output may be a device.
    if let Ok(devices) = PathFd::new("/dev") {
        ruleset = ruleset.add_rule(PathBeneath::new(devices, AccessFs::ReadFile | AccessFs::WriteFile))?;
    }
    for scratch in scratch.iter().flatten().filter_map(|scratch| PathFd::new(scratch).ok()) {
        let made = AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
        ruleset = ruleset.add_rule(PathBeneath::new(scratch, AccessFs::ReadFile | AccessFs::WriteFile | made))?;
    }
    if let Some(sockets) = sockets.and_then(|sockets| PathFd::new(sockets).ok()) {
        ruleset = ruleset.add_rule(PathBeneath::new(sockets, AccessFs::MakeSock | AccessFs::RemoveFile))?;
    }
    ruleset.restrict_self()
}

/// Everything in a folder that is not hidden, in as few paths as possible. Symlinks are left out: their targets have paths of their own.
fn readable_in(folder: &Path, hidden: &[&Path], found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, is_link) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        if is_link || hidden.contains(&&*path) {
            continue;
        }
        if hidden.iter().any(|hidden| hidden.starts_with(&path)) {
            readable_in(&path, hidden, found);
        } else {
            found.push(path);
        }
    }
}

/// Why the filter of system calls is not in place.
#[derive(Debug, thiserror::Error)]
enum NoFilter {
    #[error("seccomp: {0}")]
    Backend(#[from] seccompiler::BackendError),
    #[error("seccomp: {0}")]
    Apply(#[from] seccompiler::Error),
}

/// Blocks the calls that a proxy never makes.
fn calls() -> Result<(), NoFilter> {
    Ok(seccompiler::apply_filter(&program()?)?)
}

fn program() -> Result<BpfProgram, NoFilter> {
    let namespace = |flag: libc::c_int| {
        let flag = u64::from(flag.cast_unsigned());
        let given = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![given])
    };
    let namespaces = NAMESPACES.into_iter().map(namespace).collect::<Result<Vec<_>, _>>()?;
    let rules = REFUSED.map(|call| (call, Vec::new())).into_iter().chain([(libc::SYS_clone, namespaces)]).collect();
    let refusal = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, std::env::consts::ARCH.try_into()?)?;
    let mut program: BpfProgram = filter.try_into()?;
    // The flags of `clone3` are in memory, where no filter can read them. If the call is unknown, threads are started with `clone`. A
    // filter of `seccompiler` supports neither a second answer nor ranges, so these instructions go before its rules, after the four that
    // check the architecture and load the call number.
    let jump = |code: u16, k: u32, jt: u8, jf: u8| sock_filter { code, jt, jf, k };
    let unknown = [
        jump(JUMP_IF_LEAST, X32, 1, 0),
        jump(JUMP_IF_EQUAL, libc::SYS_clone3 as u32, 0, 1),
        sock_filter { code: RETURN, jt: 0, jf: 0, k: SeccompAction::Errno(libc::ENOSYS as u32).into() },
    ];
    program.splice(4..4, unknown);
    Ok(program)
}

// Instructions as defined in `linux/bpf_common.h`.
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::process::Command;

    #[test]
    fn what_leads_to_something_hidden_is_opened_no_further_than_needed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for path in ["etc", "run/secrets/token", "run/other", "var/run/secrets", "var/lib"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("run"), root.join("link")).unwrap();
        let mut found = Vec::new();
        readable_in(&root, &[&root.join("run/secrets"), &root.join("var/run/secrets")], &mut found);
        found.sort();
        assert_eq!(found, ["etc", "run/other", "var/lib"].map(|path| root.join(path)));
    }

    /// What the kernel would do with a call, determined by interpreting the program.
    fn judged(call: libc::c_long, flags: libc::c_int) -> u32 {
        const LOAD: u16 = 0x20;
        const AND: u16 = 0x54;
        const JUMP: u16 = 0x05;
        let program = program().unwrap();
        let (mut at, mut value) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            let jump = |is_met: bool| usize::from(if is_met { jt } else { jf });
            at += 1 + match code {
                RETURN => return k,
                JUMP => k as usize,
                JUMP_IF_EQUAL => jump(value == k),
                JUMP_IF_LEAST => jump(value >= k),
                AND => {
                    value &= k;
                    0
                }
                LOAD => {
                    value = match k {
                        0 => call as u32,
                        // AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64.
                        4 => {
                            if cfg!(target_arch = "x86_64") {
                                0xc000_003e
                            } else {
                                0xc000_00b7
                            }
                        }
                        16 => flags.cast_unsigned(),
                        other => panic!("loads {other}"),
                    };
                    0
                }
                other => panic!("instruction {other:#x}"),
            };
        }
    }

    #[test]
    fn calls_that_make_namespaces_are_refused_in_all_their_forms_and_threads_can_be_started() {
        let of_thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_THREAD | libc::CLONE_SETTLS;
        let [allowed, refused, unknown] =
            [SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Errno(libc::ENOSYS as u32)]
                .map(u32::from);
        let x32 = libc::c_long::from(X32);
        for (call, flags, expected) in [
            (libc::SYS_read, 0, allowed),
            (libc::SYS_clone, of_thread, allowed),
            (libc::SYS_clone, libc::CLONE_NEWUSER, refused),
            (libc::SYS_clone, libc::CLONE_NEWNS | libc::CLONE_VM, refused),
            (libc::SYS_unshare, 0, refused),
            (libc::SYS_execve, 0, refused),
            (KEXEC_FILE_LOAD, 0, refused),
            (libc::SYS_clone3, 0, unknown),
            (x32, 0, unknown),
            (x32 + libc::SYS_unshare, 0, unknown),
            (x32 + 520, 0, unknown),
        ] {
            assert_eq!(judged(call, flags), expected, "{call} with {flags:#x}");
        }
    }

    /// Runs in a thread, so that the confinement ends with it.
    #[test]
    fn a_confined_thread_reads_what_is_not_hidden_and_can_do_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let [hidden, open, scratch, sockets] = ["hidden", "open", "scratch", "sockets"].map(|name| root.join(name));
        for path in [&hidden, &open, &scratch, &sockets] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("file"), "text").unwrap();
        }
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                let status = files(&[&hidden], &[Some(&scratch)], Some(&sockets)).unwrap();
                calls().unwrap();
                let program = Command::new("/bin/true").status().map_err(|error| error.kind());
                assert_eq!(program.map(|_| ()), Err(ErrorKind::PermissionDenied));
                if status.ruleset == RulesetStatus::NotEnforced {
                    let has_landlock = matches!(status.landlock, LandlockStatus::Available { .. });
                    assert!(!has_landlock, "the kernel has it");
                    return;
                }
                // Threads can still be started.
                assert_eq!(std::thread::spawn(|| 1).join().unwrap(), 1);
                assert_eq!(std::fs::read_to_string(open.join("file")).unwrap(), "text");
                let denied = |result: std::io::Result<()>| result.unwrap_err().kind() == ErrorKind::PermissionDenied;
                assert!(denied(std::fs::read_to_string(hidden.join("file")).map(|_| ())));
                assert!(denied(std::fs::write(open.join("file"), "other")));
                assert!(denied(std::fs::write(open.join("new"), "other")));
                std::fs::write(scratch.join("new"), "body").unwrap();
                std::fs::rename(scratch.join("new"), scratch.join("other")).unwrap();
                std::fs::remove_file(scratch.join("other")).unwrap();
                tempfile::tempfile_in(&scratch).unwrap();
                drop(std::os::unix::net::UnixListener::bind(sockets.join("socket")).unwrap());
                std::fs::remove_file(sockets.join("socket")).unwrap();
                assert!(denied(std::fs::write(sockets.join("new"), "other")));
                assert!(denied(std::os::unix::net::UnixListener::bind(open.join("socket")).map(|_| ())));
                assert!(denied(Command::new(scratch.join("file")).status().map(|_| ())));
            });
            confined.join().unwrap();
        });
        // Other threads are not confined.
        std::fs::write(open.join("file"), "other").unwrap();
    }
}
