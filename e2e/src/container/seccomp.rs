//! The system calls that container runtimes reject for a container without added capabilities.
//!
//! The list is the complement of containerd's default profile: everything else is allowed. `clone3` fails with
//! `ENOSYS`, so that C libraries fall back to `clone`, whose flags can be inspected.

use std::collections::BTreeMap;

use anyhow::Context as _;
use nix::libc::{self, EAFNOSUPPORT, ENOSYS, EPERM};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

const REFUSED: [i64; 56] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_get_mempolicy,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    libc::SYS_vmsplice,
    libc::SYS_chroot,
];

/// `CLONE_NEWNS` and the other flags of new namespaces.
const NAMESPACES: u64 = 0x7E02_0000;

/// Installs the filters for this thread, which must already have `no_new_privs`.
///
/// # Errors
/// If the kernel refuses a filter.
pub(super) fn install() -> anyhow::Result<()> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    // Any flag of a new namespace: one rule per bit, since a rule can only compare for equality under a mask.
    let mut rules = Vec::new();
    for bit in (0..32).map(|shift| 1_u64 << shift).filter(|bit| NAMESPACES & bit != 0) {
        rules.push(rule(0, SeccompCmpOp::MaskedEq(bit), bit)?);
    }
    refused.insert(libc::SYS_clone, rules);
    filter(refused, EPERM)?;
    filter(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), ENOSYS)?;
    let families = [libc::AF_VSOCK, libc::AF_ALG].map(i64::from).map(i64::unsigned_abs);
    let families = families.into_iter().map(|family| rule(0, SeccompCmpOp::Eq, family));
    filter(BTreeMap::from([(libc::SYS_socket, families.collect::<Result<_, _>>()?)]), EAFNOSUPPORT)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> anyhow::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> anyhow::Result<()> {
    let architecture = std::env::consts::ARCH.try_into().context("an architecture without seccomp filters")?;
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter(&program).context("installing the seccomp filter")
}
