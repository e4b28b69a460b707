//! The right to listen on ports below 1024 without being root.
//!
//! The binary in the image has it as *permitted*, not as *effective*: the kernel refuses to start a program with an effective
//! capability that its container may not have (`execve` fails with EPERM under `drop: [ALL]`), but it starts this one, which
//! takes the right if it is available.

use caps::{CapSet, Capability};

/// Makes the right effective for this thread and all threads that it starts, if the process has it.
pub(crate) fn raise() {
    // Without it, only listening on a low port can fail, and that error names the address.
    let given = caps::has_cap(None, CapSet::Permitted, Capability::CAP_NET_BIND_SERVICE).unwrap_or(false);
    if given {
        let _ = caps::raise(None, CapSet::Effective, Capability::CAP_NET_BIND_SERVICE);
    }
}
