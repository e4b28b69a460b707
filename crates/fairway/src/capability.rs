//! The right to listen on ports below 1024 without being root.
//!
//! The binary in the image has the capability as *permitted*, not as *effective*: the kernel refuses to start a program with an effective
//! capability that its container lacks (`execve` fails with EPERM under `drop: [ALL]`), but it starts this one, which raises the capability
//! if it is available.

use caps::{CapSet, Capability};

/// Makes the capability effective for this thread and all threads that it starts, if the process has it.
pub(crate) fn raise() {
    // Without the capability, only listening on a low port can fail, and that error names the address.
    let given = caps::has_cap(None, CapSet::Permitted, Capability::CAP_NET_BIND_SERVICE).unwrap_or(false);
    if given {
        let _ = caps::raise(None, CapSet::Effective, Capability::CAP_NET_BIND_SERVICE);
    }
}
