//! Refuses requests by the program that sent them or the page that led to them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Fields, KnownField, RequestView, SearchRegex};

/// Values of two fields for which a request is refused. All routes share the lists.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct FieldBlock {
    /// Values of User-Agent.
    pub user_agents: Arc<[BlockedValue]>,
    /// Values of Referer.
    pub referers: Arc<[BlockedValue]>,
}

/// A selection of values.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum BlockedValue {
    /// This value, in any letter case (as in nginx's `map`).
    Equal(Box<str>),
    /// Values that contain a match.
    Search(SearchRegex),
}

impl BlockedValue {
    fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Equal(text) => value.eq_ignore_ascii_case(text.as_bytes()),
            Self::Search(regex) => regex.is_match(value),
        }
    }
}

impl FieldBlock {
    /// Whether a request is refused. A missing field counts as an empty value.
    pub fn refuses<'a, F: Fields<'a>>(&self, head: &RequestView<'a, F>) -> bool {
        let has = |field, blocked: &[BlockedValue]| {
            let value = head.fields.get(field).unwrap_or_default();
            blocked.iter().any(|blocked| blocked.is_match(value))
        };
        has(KnownField::UserAgent, &self.user_agents) || has(KnownField::Referer, &self.referers)
    }
}
