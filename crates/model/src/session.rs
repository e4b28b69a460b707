//! Sessions of a rule, which lead the requests of a client to the endpoint that answered its first one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decision::Facts;
use crate::{BackendName, ConfiguredName, SessionCookie, WeightedBackend};

/// Sessions of a rule (`sessionPersistence` of the Gateway API). They take precedence over the [`Affinity`](crate::Affinity) of a backend,
/// and over the weights of backends.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct Session {
    /// What names the endpoint.
    pub carrier: SessionCarrier,
    /// The time after which a session ends, whatever the client does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Duration>,
}

/// What a client shows to stay in its session.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub enum SessionCarrier {
    /// A cookie.
    Cookie {
        /// Its name and attributes.
        cookie: SessionCookie,
        /// Its Path.
        path: Box<str>,
    },
    /// A field that the first response of a session has and that the client repeats.
    Header(ConfiguredName),
}

impl Session {
    /// The backend among these that has the session of the request, whatever its weight.
    pub(crate) fn share<'s>(
        &self,
        list: &'s [WeightedBackend],
        facts: &mut impl Facts,
    ) -> Option<(&'s BackendName, Option<&'s WeightedBackend>)> {
        let found = list.iter().find(|share| facts.keeps(self, &share.backend))?;
        Some((&found.backend, Some(found)))
    }
}
