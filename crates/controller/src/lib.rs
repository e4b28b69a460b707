//! The Kubernetes side: watches the API server, has the objects translated, passes the result on as deltas, and reports
//! to users about their objects by status and Events.
//!
//! Invariants: nothing is published before the first list of every watch is complete and everything that served objects
//! refer to has been fetched; an unavailable API server affects only the age of the served state; no user's object can
//! block the changes of another. This crate opens no socket except to the API server and doesn't know the proxy: it
//! sends [`Publish`] values to a channel.
//!
//! ```no_run
//! use fairway_controller::{Controller, ControllerConfig, Publish};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ControllerConfig::default();
//! let client = fairway_controller::connect(&config.api).await?;
//! let (sink, mut changes) = tokio::sync::mpsc::channel(1);
//! let controller = Controller::new(client, config, sink)?;
//! let ready = controller.readiness();
//! tokio::spawn(async move {
//!     while let Some(Publish { delta, live }) = changes.recv().await {
//!         // Have every worker take the delta, then:
//!         let _ = live.send(());
//!     }
//! });
//! let leave = std::future::pending();
//! let stop = std::future::pending();
//! controller.run(leave, stop).await?;
//! # Ok(())
//! # }
//! ```

mod address;
mod api;
mod backlog;
mod backoff;
mod config;
mod connect;
mod controller;
mod debounce;
mod event;
mod finding;
mod gate;
mod gateway;
mod install;
mod kept;
mod leader;
mod made;
mod nodes;
mod publish;
mod read;
mod reference;
mod report;
mod review;
mod source;
mod status;
mod store;
mod successor;
mod token;
mod watch;

pub use config::{AddressSource, ApiConfig, ControllerConfig, Election, Pod, StatusConfig, StatusWriting};
pub use connect::{ConnectError, connect};
pub use controller::FINDINGS;
pub use controller::{Controller, InvalidConfig, RunError};
pub use finding::Findings;
pub use install::{Process, ask, processes};
pub use kept::{Keep, KeepError, KeepKind, KeptText};
pub use kube::Client;
pub use nodes::{NoZone, own_zone};
pub use publish::Publish;
pub use read::{Cluster, ReadError, Told, events, read};
pub use report::{NotUnderstood, Reporter, Unreachable};
pub use review::Reviewer;
pub use token::{ReviewError, TokenReviewer, Unrecognised};
