//! Resources that any kind of route can refer to: backends with their endpoints, and the contents of Secrets and ConfigMaps. [`backend`]
//! and [`certificate`] read them; [`backends`], [`secrets`] and [`config_maps`] keep them up to date and know their owners.

pub(crate) mod backend;
pub(crate) mod backends;
pub(crate) mod certificate;
pub(crate) mod config_maps;
pub(crate) mod owner;
pub(crate) mod secrets;

pub(crate) use backends::Backends;
pub(crate) use config_maps::ConfigMaps;
pub(crate) use owner::{Age, Aged, BackendWishes, ByAge, Owner};
pub(crate) use secrets::Secrets;
