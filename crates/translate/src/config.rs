//! Configuration for all objects: the flags, the global ConfigMap and those that it names, the ports of TCP and UDP services.

pub mod configmap;
pub mod flag;
pub(crate) mod global;
pub mod options;
pub(crate) mod settings;
pub(crate) mod stream;
pub(crate) mod streams;
pub mod variable;
