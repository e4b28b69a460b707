//! The cookie that ties a client's session to an endpoint.

use std::time::{SystemTime, UNIX_EPOCH};

use fairway_model::{Forward, Scheme};

use super::Exchange;
use crate::balance::Pick;
use crate::balance::cookie::{Circumstances, write};
use crate::http::KnownField;
use crate::upstream::Service;

impl Exchange<'_> {
    /// Creates the value of Set-Cookie, or leaves it empty if the session is not new or the route sets no cookies.
    pub(super) fn start_session(&mut self, forward: &Forward, service: &Service, pick: &Pick) {
        let cookie = &mut self.scratch.cookie;
        cookie.clear();
        let (Some(key), Some(path)) = (&pick.session, &forward.session_cookie_path) else {
            return;
        };
        service.with_backend(|backend| {
            let Some(affinity) = &backend.affinity else { return };
            let circumstances = Circumstances {
                path,
                tls: self.facts.arrival.scheme == Scheme::Https,
                user_agent: self
                    .client
                    .head()
                    .and_then(|head| head.parsed.fields().get(KnownField::UserAgent, head.bytes))
                    .unwrap_or_default(),
                now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64),
            };
            write(cookie, &affinity.cookie, key, service.key(), &circumstances);
        });
    }
}
