//! Field edits as data: fields to set, add or remove in requests and responses.

use serde::{Deserialize, Serialize};

use crate::field::is_same_field;
use crate::{ConfiguredName, InvalidName, KnownField, KnownSet, Settings, Template};

/// One edit of a field.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(from = "EditData", into = "EditData")]
pub struct FieldEdit {
    name: ConfiguredName,
    change: Change,
    /// The field, if it is known by exactly this name.
    known: Option<KnownField>,
    allowed: bool,
}

/// The change that an edit makes to a field.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Replaces all lines of the field with one. An empty value removes the field.
    Set(Template),
    /// Adds a line to the existing ones.
    Add(Template),
    /// Removes all lines.
    Remove,
}

impl FieldEdit {
    /// An edit of a field by name.
    pub fn new(name: ConfiguredName, change: Change) -> Self {
        const STRUCTURE: KnownSet = KnownSet::HOP_BY_HOP.with(KnownField::ContentLength);
        let allowed = !STRUCTURE.contains(KnownField::classify(name.as_str().as_bytes()));
        Self { known: KnownField::named(name.as_str()), name, change, allowed }
    }

    /// Sets a field, or removes it if the value is empty.
    ///
    /// # Errors
    ///
    /// If the name is not a valid field name.
    pub fn set(name: &str, value: &str) -> Result<Self, InvalidName> {
        let change = if value.is_empty() { Change::Remove } else { Change::Set(Template::parse(value)) };
        Ok(Self::new(name.try_into()?, change))
    }

    /// The name.
    pub fn name(&self) -> &ConfiguredName {
        &self.name
    }

    /// The field, if it is known by exactly this name.
    pub fn known(&self) -> Option<KnownField> {
        self.known
    }

    /// Whether a name is that of the field, in any spelling that a backend could take for it.
    pub fn is_about(&self, name: &[u8]) -> bool {
        is_same_field(self.name.as_str().as_bytes(), name)
    }

    /// The change to make.
    pub fn change(&self) -> &Change {
        &self.change
    }

    /// The value to set or add.
    pub fn value(&self) -> Option<&Template> {
        match &self.change {
            Change::Set(value) | Change::Add(value) => Some(value),
            Change::Remove => None,
        }
    }

    /// Whether received lines are dropped.
    pub fn replaces(&self) -> bool {
        !matches!(self.change, Change::Add(_))
    }

    /// Whether users may edit the field: not if it delimits a message or controls its connection.
    pub fn is_allowed(&self) -> bool {
        self.allowed
    }
}

/// A set of field names, fast to query: known fields as bits, others one by one.
#[derive(Clone, Debug, Default)]
pub struct NameSet {
    known: KnownSet,
    names: Vec<Box<[u8]>>,
}

impl NameSet {
    /// Creates a set of names. `spellings` says whether fields may arrive in spellings that a backend could take for
    /// one of them.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>, spellings: bool) -> Self {
        let mut set = Self::default();
        for name in names {
            let known = KnownField::named(name);
            set.known = set.known.with(known.unwrap_or(KnownField::Other));
            if spellings || known.is_none() {
                set.names.push(name.as_bytes().into());
            }
        }
        set
    }

    /// The known fields in the set.
    pub fn known(&self) -> KnownSet {
        self.known
    }

    /// Whether fields that are not in [`known`](Self::known) belong to the set.
    pub fn has_others(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether a field that is not in [`known`](Self::known) still belongs to the set.
    #[inline]
    pub fn has_other(&self, name: &[u8]) -> bool {
        self.names.iter().any(|own| is_same_field(own, name))
    }

    /// Whether a field belongs to the set.
    pub fn contains(&self, known: KnownField, name: &[u8]) -> bool {
        self.known.contains(known) || self.has_other(name)
    }
}

/// The lengths of some names, which rule out most other names at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NameLengths(u64);

impl NameLengths {
    /// Adds a name.
    pub(crate) fn add(&mut self, name: &str) {
        self.0 |= Self::bit(name.len());
    }

    /// Whether there are none.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a name may be one of them.
    pub(crate) fn may_have(self, name: &[u8]) -> bool {
        self.0 & Self::bit(name.len()) != 0
    }

    /// The last bit stands for all long names.
    fn bit(length: usize) -> u64 {
        1 << length.min(63)
    }
}

/// The settings for fields, compiled once for each change.
#[derive(Clone, Debug, Default)]
pub struct FieldRules {
    /// Edits of every request.
    pub request: Vec<FieldEdit>,
    /// Fields that these edits replace.
    pub replaced_in_request: NameSet,
    /// Names besides the known ones under which a trusted peer names the client.
    pub client_names: Vec<Box<[u8]>>,
    /// Edits of every response.
    pub response: Vec<FieldEdit>,
    /// Fields that these edits replace, and hidden fields.
    pub replaced_in_response: NameSet,
    /// Whether one of these has a value with variables.
    pub response_varies: bool,
    /// Strict-Transport-Security, for routes that ask for it.
    pub strict_transport_security: Option<FieldEdit>,
    /// The value of Server in every response. Hiding the field affects only that of endpoints, as in nginx.
    pub server: Option<&'static [u8]>,
    /// Whether an endpoint's Server field is forwarded.
    pub server_passes: bool,
    /// Whether requests carry their original target.
    pub original_uri: bool,
}

impl FieldRules {
    /// Compiles settings.
    pub fn new(settings: &Settings) -> Self {
        let allowed = |edits: &[FieldEdit]| edits.iter().filter(|edit| edit.is_allowed()).cloned().collect::<Vec<_>>();
        let (request, response) = (allowed(&settings.request_fields), allowed(&settings.response_fields));
        let spellings = settings.underscores_in_headers || !settings.ignore_invalid_headers;
        let replaced = |edits: &[FieldEdit]| {
            let names = edits.iter().filter(|edit| edit.replaces()).map(|edit| edit.name.as_str());
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        let hidden = settings.hidden_response_fields.iter().map(|name| name.to_string());
        let gone: Vec<String> = replaced(&response).into_iter().chain(hidden).collect();
        let forwarded = [&settings.forwarded.address_field, &settings.forwarded.host_field];
        let custom = forwarded.into_iter().filter(|name| KnownField::named(name).is_none());
        let own_server = response.iter().any(|edit| edit.replaces() && edit.is_about(b"Server"));
        Self {
            replaced_in_request: NameSet::new(replaced(&request).iter().map(String::as_str), spellings),
            client_names: custom.map(|name| name.as_bytes().into()).collect(),
            replaced_in_response: NameSet::new(gone.iter().map(String::as_str), false),
            strict_transport_security: settings
                .strict_transport_security
                .as_ref()
                .and_then(|value| FieldEdit::set("Strict-Transport-Security", value).ok()),
            server: (settings.server_tokens && !own_server).then_some(b"fairway"),
            server_passes: settings.server_tokens && settings.allow_backend_server_header,
            original_uri: settings.original_uri_header,
            response_varies: response.iter().filter_map(FieldEdit::value).any(|value| value.literal().is_none()),
            request,
            response,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct EditData {
    name: ConfiguredName,
    #[serde(flatten)]
    change: ChangeData,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChangeData {
    Set(Template),
    Add(Template),
    Remove(bool),
}

impl From<EditData> for FieldEdit {
    fn from(data: EditData) -> Self {
        let change = match data.change {
            ChangeData::Set(value) => Change::Set(value),
            ChangeData::Add(value) => Change::Add(value),
            ChangeData::Remove(_) => Change::Remove,
        };
        Self::new(data.name, change)
    }
}

impl From<FieldEdit> for EditData {
    fn from(edit: FieldEdit) -> Self {
        let change = match edit.change {
            Change::Set(value) => ChangeData::Set(value),
            Change::Add(value) => ChangeData::Add(value),
            Change::Remove => ChangeData::Remove(true),
        };
        Self { name: edit.name, change }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_matches_spellings_where_they_can_occur() {
        let set = |spellings| NameSet::new(["User-Agent", "X-Tenant"], spellings);
        let has = |set: &NameSet, name: &str| set.contains(KnownField::Other, name.as_bytes());
        assert!(set(false).contains(KnownField::UserAgent, b"user-agent") && has(&set(false), "x-tenant"));
        assert!(has(&set(true), "X_Tenant") && has(&set(true), "User_Agent") && !has(&set(true), "X-Tenants"));
    }

    #[test]
    fn lengths_rule_out_no_name_that_is_there() {
        let (mut lengths, long) = (NameLengths::default(), "x".repeat(70));
        assert!(lengths.is_empty() && !lengths.may_have(b"X-A"));
        lengths.add("X-A");
        lengths.add(&long);
        assert!(lengths.may_have(b"X-B") && lengths.may_have(long.as_bytes()) && !lengths.is_empty());
        assert!(!lengths.may_have(b"X-Abc") && !lengths.may_have(b""));
    }

    #[test]
    fn edits_are_read_as_they_are_written() {
        for edit in [FieldEdit::set("X-A", "$host").unwrap(), FieldEdit::set("X-A", "").unwrap()] {
            let text = serde_json::to_string(&edit).unwrap();
            assert_eq!(serde_json::from_str::<FieldEdit>(&text).unwrap(), edit, "{text}");
        }
        assert!(!FieldEdit::set("Transfer-Encoding", "x").unwrap().is_allowed());
        assert!(FieldEdit::set("a b", "x").is_err());
    }
}
