//! The controller against a scripted API server. Time is paused: it advances by itself when all tasks wait.
#![allow(clippy::unwrap_used, reason = "a test that goes wrong panics")]

mod apiserver;
mod election;
mod events;
mod gate;
mod gateway;
mod order;
mod paging;
mod queue;
mod read;
mod rig;
mod status;
mod stream;
mod sync;
