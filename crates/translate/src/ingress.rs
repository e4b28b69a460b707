//! The reader of Ingresses, as ingress-nginx reads them: first each object by itself ([`part`]), then all Ingresses of a host
//! together ([`merge`]). [`reader`] knows which of them are ours and in effect, [`hosts`] what each name serves.

pub mod annotation;
mod backend_tls;
mod canary;
mod class;
mod client_auth;
mod guard;
mod headers;
pub(crate) mod hosts;
mod inspect;
mod merge;
mod part;
pub(crate) mod reader;
pub mod review;
mod route;
pub mod snippet;

pub(crate) use hosts::Hosts;
pub(crate) use part::{Part, Referrer};
pub(crate) use reader::Ingresses;
pub(crate) use route::RedirectPorts;
