//! The cookie, or the field, that ties a client's session to an endpoint.

use std::hint::cold_path;

use fairway_model::{Forward, Scheme, SessionCarrier};

use super::Exchange;
use crate::balance::Pick;
use crate::balance::cookie::{Circumstances, write, write_value};
use crate::balance::rule::{ends, seconds_since_1970};
use crate::http::KnownField;
use crate::upstream::Service;

impl Exchange<'_> {
    /// Creates the value of Set-Cookie, or of the header field that the rule uses for sessions, unless the session is not new or the route
    /// sets no cookie.
    pub(super) fn start_session(&mut self, forward: &Forward, service: &Service, pick: &Pick) {
        self.scratch.session = None;
        let out = &mut self.scratch.cookie;
        out.clear();
        let Some(key) = &pick.session else { return };
        let now = seconds_since_1970();
        let mut circumstances = Circumstances {
            path: "/",
            tls: self.facts.arrival.scheme == Scheme::Https,
            user_agent: self
                .client
                .head()
                .and_then(|head| head.parsed.fields().get(KnownField::UserAgent, head.bytes))
                .unwrap_or_default(),
            now,
            ends: None,
        };
        if let Some(session) = &forward.policy.session {
            cold_path();
            circumstances.ends = ends(session, now);
            match &session.carrier {
                SessionCarrier::Cookie { cookie, path } => {
                    circumstances.path = path;
                    write(out, cookie, key, service.key(), &circumstances);
                }
                SessionCarrier::Header(name) => {
                    let mut value = Vec::new();
                    write_value(&mut value, key, service.key(), circumstances.ends);
                    self.scratch.session = Some((name.clone(), String::from_utf8_lossy(&value).into()));
                }
            }
            return;
        }
        let Some(path) = &forward.session_cookie_path else { return };
        circumstances.path = path;
        service.with_backend(|backend| {
            let Some(affinity) = &backend.affinity else { return };
            write(out, &affinity.cookie, key, service.key(), &circumstances);
        });
    }
}
