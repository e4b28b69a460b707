//! Names by which resources refer to each other. Cloning one copies a pointer.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// Name of a [`Listener`](crate::Listener) or [`StreamListener`](crate::StreamListener), for example `http`.
    ListenerName
    /// Name of a set of hosts that listeners serve: `ingress` for all Ingress objects, one for each Gateway listener.
    TableName
    /// Name of a [`Backend`](crate::Backend) and of its [`EndpointSet`](crate::EndpointSet), `namespace/service:port`.
    BackendName
    /// Name of a [`Certificate`](crate::Certificate), `namespace/secret`.
    CertificateName
    /// Name of a [`Telemetry`](crate::Telemetry), `namespace/policy`.
    TelemetryName
}
