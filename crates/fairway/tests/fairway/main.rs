//! The binary as users run it, a file for each command and each role. One program, because each program is linked anew.

mod backend_tls;
mod check;
#[cfg(feature = "cluster")]
mod cluster;
mod compare;
mod convert;
mod dev;
mod explain;
mod gateway;
#[cfg(feature = "cluster")]
mod handover;
mod listen;
mod nginx;
#[cfg(feature = "cluster")]
mod pair;
#[cfg(feature = "cluster")]
mod run;
#[cfg(feature = "cluster")]
mod shares;
mod shell;
mod sign_in;
mod skew;
#[path = "../support/mod.rs"]
mod support;
mod webhook;
