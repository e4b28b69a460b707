//! Interprets an answer of ext_authz (`envoy.service.auth.v3.CheckResponse`).
//!
//! Invariant: anything but a plain yes denies, and so does a yes that can't be carried out exactly.

use super::{AuthGiven, GivenField};
use crate::field::is_same_field;
use crate::{Body, ConfiguredName, KnownField, KnownSet, Respond};

/// Fields that every response of the proxy has.
const OWN: [&str; 2] = ["Date", "Server"];

/// An answer as it was sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckAnswer {
    /// The code of its status, if it has a status.
    pub code: Option<i32>,
    /// The details of a yes.
    pub allowed: Option<CheckAllowed>,
    /// The details of a no.
    pub denied: Option<CheckDenied>,
}

/// The details of a yes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckAllowed {
    /// Fields for the backend.
    pub fields: Vec<CheckField>,
    /// Fields that the backend does not get.
    pub removed: Vec<String>,
    /// Fields for the client.
    pub response: Vec<CheckField>,
    /// Whether the query of the request is to be changed.
    pub edits_query: bool,
}

/// The details of a no.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckDenied {
    /// The status for the client; 0 for none.
    pub status: i32,
    /// Fields for the client.
    pub fields: Vec<CheckField>,
    /// The body for the client.
    pub body: String,
}

/// A field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckField {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
    /// What happens to existing fields; `None` if that is unknown.
    pub change: Option<CheckChange>,
}

/// What happens to existing fields with the same name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CheckChange {
    /// They stay.
    Append,
    /// They stay, and the new one is not written.
    AddIfAbsent,
    /// They are replaced.
    Replace,
    /// They are replaced, and without them the new one is not written.
    ReplaceIfPresent,
}

impl CheckChange {
    /// The change by the fields `append` and `append_action` of a `HeaderValueOption`. Without either, the old fields are replaced: that is
    /// the default for this service, whatever it is elsewhere, so that no field of the client remains next to one of the service.
    pub fn of(append: Option<bool>, action: i32) -> Option<Self> {
        match (append, action) {
            (Some(true), _) => Some(Self::Append),
            (Some(false), _) | (None, 0 | 2) => Some(Self::Replace),
            (None, 1) => Some(Self::AddIfAbsent),
            (None, 3) => Some(Self::ReplaceIfPresent),
            _ => None,
        }
    }
}

/// What an answer means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CheckVerdict {
    /// The request may go on, with these changes.
    Allowed(AuthGiven),
    /// The client gets this.
    Denied(Respond),
    /// The answer can't be carried out.
    Failed,
}

impl CheckAnswer {
    /// How many fields an answer may edit, of request and response together.
    pub const EDITS: usize = 128;

    /// What it means for a request. `has` tells which fields of the client the backend gets.
    pub fn judge(self, has: impl Fn(&[u8]) -> bool) -> CheckVerdict {
        match (self.code, self.allowed, self.denied) {
            (Some(0), allowed, None) => {
                allowed.unwrap_or_default().given(has).map_or(CheckVerdict::Failed, CheckVerdict::Allowed)
            }
            (None, ..) | (Some(0), _, Some(_)) => CheckVerdict::Failed,
            (Some(_), _, None) => CheckVerdict::Denied(Respond::page(403)),
            (Some(_), _, Some(denied)) => CheckVerdict::Denied(denied.respond()),
        }
    }
}

/// The changes to one field of a request.
struct Edited {
    name: ConfiguredName,
    /// Whether the client's own is dropped.
    replaces: bool,
    lines: Vec<Box<[u8]>>,
}

impl CheckAllowed {
    /// The changes to the request and its response; `None` if one of them is impossible.
    fn given(self, has: impl Fn(&[u8]) -> bool) -> Option<AuthGiven> {
        if self.edits_query || self.fields.len() + self.removed.len() + self.response.len() > CheckAnswer::EDITS {
            return None;
        }
        let mut all = Vec::<Edited>::new();
        for field in self.fields {
            let Some((name, value)) = field.about_request()? else { continue };
            let place = all.iter().position(|one| is_same_field(one.name.as_str().as_bytes(), field.name.as_bytes()));
            let is_there = match place.map(|place| &all[place]) {
                Some(Edited { lines, replaces, .. }) => !lines.is_empty() || (!replaces && has(field.name.as_bytes())),
                None => has(field.name.as_bytes()),
            };
            let change = field.change?;
            let replaces = match change {
                CheckChange::AddIfAbsent if is_there => continue,
                CheckChange::ReplaceIfPresent if !is_there => continue,
                CheckChange::Append | CheckChange::AddIfAbsent => false,
                CheckChange::Replace | CheckChange::ReplaceIfPresent => true,
            };
            let place = place.unwrap_or_else(|| {
                all.push(Edited { name, replaces: false, lines: Vec::new() });
                all.len() - 1
            });
            if replaces {
                all[place].replaces = true;
                all[place].lines.clear();
            }
            all[place].lines.extend(Some(value).filter(|value| !value.is_empty()));
        }
        let mut given = AuthGiven::default();
        for name in self.removed {
            all.retain(|one| !is_same_field(one.name.as_str().as_bytes(), name.as_bytes()));
            // Fields that can't be removed stay, as the protocol says of Host and pseudo-fields.
            let removable = !KnownSet::STRUCTURAL.contains(KnownField::classify(name.as_bytes()));
            given.removed.extend(ConfiguredName::try_from(name.as_str()).ok().filter(|_| removable));
        }
        for Edited { name, replaces, lines } in all {
            let lines = lines.into_iter().map(|line| (name.clone(), line));
            if !replaces {
                given.added.extend(lines);
            } else if lines.len() > 0 {
                given.others.extend(lines);
            } else {
                given.removed.push(name);
            }
        }
        for field in self.response {
            given.push_response(field)?;
        }
        Some(given)
    }
}

impl AuthGiven {
    /// Adds a field of the response; `None` if that is impossible.
    fn push_response(&mut self, field: CheckField) -> Option<()> {
        let Some((name, text)) = field.about_response()? else { return Some(()) };
        // Each cookie has a field of its own, independent of the others.
        let is_cookie = KnownField::classify(field.name.as_bytes()) == KnownField::SetCookie;
        let (replaces, only_with) = match field.change? {
            CheckChange::Append => (false, None),
            CheckChange::Replace if is_cookie => (false, None),
            CheckChange::AddIfAbsent => (false, Some(false)),
            CheckChange::Replace => (true, None),
            CheckChange::ReplaceIfPresent => (true, Some(true)),
        };
        if replaces && only_with.is_none() {
            let is_same = |other: &GivenField| is_same_field(other.name.as_str().as_bytes(), field.name.as_bytes());
            self.response.retain(|other| !is_same(other));
        }
        self.response.push(GivenField { name, value: text.into_boxed_bytes(), replaces, only_with });
        Some(())
    }
}

impl CheckField {
    /// Name and value of a field of a request; `Some(None)` for one that belongs to the connection or frames the message, which is left
    /// unchanged. `None` if it can't be sent: a field that would change what the request is for must not be skipped silently.
    fn about_request(&self) -> Option<Option<(ConfiguredName, Box<[u8]>)>> {
        let name = ConfiguredName::try_from(self.name.as_str()).ok()?;
        match KnownField::classify(self.name.as_bytes()) {
            KnownField::Host => None,
            known if KnownSet::STRUCTURAL.contains(known) => Some(None),
            _ => Some(Some((name, self.sendable()?.into()))),
        }
    }

    /// Like [`about_request`](Self::about_request), for a response, which has some fields from the proxy itself.
    fn about_response(&self) -> Option<Option<(ConfiguredName, Box<str>)>> {
        let name = ConfiguredName::try_from(self.name.as_str()).ok()?;
        let text = std::str::from_utf8(self.sendable()?).ok()?;
        let name_bytes = self.name.as_bytes();
        let is_kept = KnownSet::STRUCTURAL.contains(KnownField::classify(name_bytes))
            || OWN.iter().any(|own| is_same_field(own.as_bytes(), name_bytes));
        Some((!is_kept).then(|| (name, text.into())))
    }

    /// The value without surrounding whitespace, if a field may have it (RFC 9110 5.5).
    fn sendable(&self) -> Option<&[u8]> {
        let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        self.value.iter().all(is_text).then(|| self.value.trim_ascii())
    }
}

impl CheckDenied {
    /// The response for the client. A status that could be taken for another verdict counts as none, and what can't be sent is left out:
    /// the answer is a no in any case.
    pub fn respond(self) -> Respond {
        let is_answer = |status: &u16| matches!(status, 301 | 302 | 303 | 307 | 308 | 400..=599);
        let status = u16::try_from(self.status).ok().filter(is_answer).unwrap_or(403);
        let (mut content_type, mut fields) = (None, Vec::<(ConfiguredName, Box<str>)>::new());
        for field in self.fields.into_iter().take(CheckAnswer::EDITS) {
            let (Some(Some((name, text))), Some(change)) = (field.about_response(), field.change) else { continue };
            if text.is_empty() {
                continue;
            }
            if field.name.eq_ignore_ascii_case("Content-Type") {
                content_type = Some(text);
                continue;
            }
            let is_same = |(other, _): &(ConfiguredName, Box<str>)| {
                is_same_field(other.as_str().as_bytes(), field.name.as_bytes())
            };
            let is_there = fields.iter().any(is_same);
            match change {
                CheckChange::AddIfAbsent if is_there => continue,
                CheckChange::ReplaceIfPresent if !is_there => continue,
                // There is nothing to replace but other fields of this answer, all of which are intended.
                CheckChange::Append | CheckChange::AddIfAbsent | CheckChange::Replace => {}
                CheckChange::ReplaceIfPresent => fields.retain(|other| !is_same(other)),
            }
            fields.push((name, text));
        }
        let body = match self.body.is_empty() {
            true => Body::Empty,
            false => {
                Body::Text { content_type: content_type.unwrap_or_else(|| "text/plain".into()), text: self.body.into() }
            }
        };
        Respond { status, body, fields }
    }
}

#[cfg(test)]
mod tests;
