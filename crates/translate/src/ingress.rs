//! Ingress as ingress-nginx reads it: each object on its own first ([`part`]), then all that name a host together ([`merge`]).

mod backend_tls;
mod guard;
mod inspect;
mod merge;
mod part;
mod route;

pub(crate) use backend_tls::{BackendTls, build as build_backend_tls};
pub(crate) use merge::{HostInput, Merged, merge};
pub(crate) use part::{Age, Part, Parts, parse};
pub(crate) use route::Policies;
