//! The reader of Ingresses, as ingress-nginx reads them: each object on its own first ([`part`]), then all that name a host together
//! ([`merge`]). [`reader`] knows which of them are ours and in force, [`hosts`] what is served under which name.

pub mod annotation;
mod backend_tls;
mod class;
mod guard;
pub(crate) mod hosts;
mod inspect;
mod merge;
mod part;
pub(crate) mod reader;
mod route;
mod wishes;

pub(crate) use hosts::Hosts;
pub(crate) use part::Part;
pub(crate) use reader::Ingresses;
