//! Decodes a [`Node`] to a Kubernetes type, as strictly as the API server does, and reports line and field of each mismatch.
//!
//! Faults that only `kubectl` would reject (unknown fields, repeated keys, `true` where text is expected) are noted, and the object is read
//! anyway; a value of the wrong kind is an error.

use std::cell::RefCell;
use std::fmt;

use fairway_translate::verdict::nearest;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::advice;
use super::node::{Entry, Node, Value};

/// A fault that doesn't prevent reading the object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Note {
    /// Line within the document, from 1.
    pub(super) line: u32,
    /// The field, as in `spec.rules[0].host`.
    pub(super) field: String,
    pub(super) blemish: Blemish,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Blemish {
    /// The field is unknown; this known one may have been meant.
    UnknownField(Option<&'static str>),
    /// The key is repeated; the last one counts.
    DuplicateKey,
    /// A plain scalar where text is expected, which the API server doesn't read as text.
    NotText {
        /// The scalar as written.
        written: String,
        /// What the API server reads it as.
        kind: &'static str,
    },
}

/// Why an object can't be read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DecodeError {
    /// Line within the document, from 1; 0 if unknown.
    pub(super) line: u32,
    /// The field.
    pub(super) field: String,
    /// The value as written, if it is a scalar.
    pub(super) value: String,
    wrong: Box<Wrong>,
    /// What was probably meant.
    correction: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Wrong {
    /// A value of the wrong kind; `expected` is named by serde or the Kubernetes types.
    Kind { expected: String, found: String },
    /// A number with a fraction where a whole number is expected.
    Fraction(f64),
    /// A number outside the range of a type.
    Range { expected: String, found: String },
    /// Anything else, in the words of the type that rejected it.
    Other(String),
}

/// Decodes a value; faults are appended to `notes`.
pub(super) fn decode<T: DeserializeOwned>(node: &Node<'_>, notes: &mut Vec<Note>) -> Result<T, DecodeError> {
    let found = RefCell::new(std::mem::take(notes));
    let root = Path { parent: None, step: Step::Root };
    let result = T::deserialize(Decoder { node, path: &root, siblings: &[], notes: &found });
    *notes = found.into_inner();
    result
}

/// A scalar by the rules of YAML 1.1, which `kubectl` follows.
enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    fn of(text: &'a str, plain: bool) -> Self {
        if !plain {
            return Self::Text(text);
        }
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Self::Bool(true),
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Self::Bool(false),
            _ => Self::number(text),
        }
    }

    fn number(text: &'a str) -> Self {
        let (negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return Self::Text(text);
        }
        let radix = |prefix: &str, radix| {
            let rest = digits.strip_prefix(prefix)?;
            i64::from_str_radix(&rest.replace('_', ""), radix).ok()
        };
        let decimal = || digits.bytes().all(|b| b.is_ascii_digit() || b == b'_').then(|| digits.replace('_', ""));
        // As in YAML 1.1, which Kubernetes reads: a leading zero means octal, unless there is a digit above 7.
        let octal = || if digits.len() > 1 { radix("0", 8) } else { None };
        let integer = radix("0x", 16)
            .or_else(|| radix("0o", 8))
            .or_else(octal)
            .or_else(|| radix("0b", 2))
            .or_else(|| decimal().and_then(|digits| digits.parse().ok()));
        if let Some(value) = integer {
            return Self::Integer(if negative { -value } else { value });
        }
        let numeric = digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
        match text.parse() {
            Ok(value) if numeric => Self::Float(value),
            _ if matches!(digits, ".inf" | ".Inf" | ".INF") => Self::Float(f64::INFINITY),
            _ => Self::Text(text),
        }
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match *self {
            Self::Null => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(value),
            Self::Integer(value) => Unexpected::Signed(value),
            Self::Float(value) => Unexpected::Float(value),
            Self::Text(text) => Unexpected::Str(text),
        }
    }
}

/// The location of a value, kept on the stack and formatted only when needed.
struct Path<'p> {
    parent: Option<&'p Self>,
    step: Step<'p>,
}

enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) if key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') => {
                let at_root = self.parent.is_none_or(|parent| matches!(parent.step, Step::Root));
                write!(f, "{}{key}", if at_root { "" } else { "." })
            }
            Step::Key(key) => write!(f, "[\"{}\"]", fairway_translate::diagnostic::bounded(key)),
        }
    }
}

#[derive(Clone, Copy)]
struct Decoder<'n, 'p> {
    node: &'n Node<'n>,
    path: &'p Path<'p>,
    /// Names of the fields that are possible here, for a hint.
    siblings: &'static [&'static str],
    notes: &'p RefCell<Vec<Note>>,
}

impl<'n> Decoder<'n, '_> {
    fn note(&self, blemish: Blemish) {
        self.notes.borrow_mut().push(Note { line: self.node.line, field: self.path.to_string(), blemish });
    }

    fn located(&self, mut error: DecodeError) -> DecodeError {
        if error.line == 0 {
            error.line = self.node.line;
            error.field = self.path.to_string();
            error.value = self.node.text().unwrap_or_default().to_owned();
            if let (Wrong::Kind { expected, .. }, Step::Key(key)) = (&*error.wrong, &self.path.step) {
                error.correction = advice::correction(expected, key, self.node);
            }
        }
        error
    }

    fn scalar(&self) -> Option<Scalar<'n>> {
        match &self.node.value {
            Value::Scalar { text, plain } => Some(Scalar::of(text, *plain)),
            _ => None,
        }
    }

    fn mismatch(&self, visitor: &dyn de::Expected) -> DecodeError {
        let error = match &self.node.value {
            Value::Sequence(_) => de::Error::invalid_type(Unexpected::Seq, visitor),
            Value::Mapping(_) => de::Error::invalid_type(Unexpected::Map, visitor),
            Value::Scalar { text, plain } => de::Error::invalid_type(Scalar::of(text, *plain).unexpected(), visitor),
        };
        self.located(error)
    }

    fn map<V: Visitor<'n>>(self, visitor: V, fields: &'static [&'static str]) -> Result<V::Value, DecodeError> {
        let Value::Mapping(entries) = &self.node.value else { return Err(self.mismatch(&visitor)) };
        let mut overridden = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            // Quadratic, but cheaper than a set for few keys. Beyond 64 nothing is checked, for ConfigMaps with many.
            let earlier = if at < 64 { &entries[..at] } else { &[] };
            let Some((other, earlier)) = earlier.iter().enumerate().rfind(|(_, earlier)| earlier.key == entry.key)
            else {
                continue;
            };
            overridden.push(other);
            if !earlier.merged {
                let path = Path { parent: Some(self.path), step: Step::Key(&entry.key) };
                let field = path.to_string();
                self.notes.borrow_mut().push(Note { line: entry.line, field, blemish: Blemish::DuplicateKey });
            }
        }
        let entries = Entries { decoder: self, fields, rest: entries.iter().enumerate(), overridden, value: None };
        visitor.visit_map(entries).map_err(|error| self.located(error))
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            match self.scalar() {
                Some(Scalar::Integer(value)) => visitor.visit_i64(value),
                Some(Scalar::Float(value)) => match whole(value) {
                    Some(value) => visitor.visit_i64(value),
                    None => visitor.visit_f64(value),
                },
                _ => return Err(self.mismatch(&visitor)),
            }
            .map_err(|error| self.located(error))
        }
    )*};
}

impl<'n> de::Deserializer<'n> for Decoder<'n, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Some(scalar) = self.scalar() else {
            return match &self.node.value {
                Value::Sequence(_) => self.deserialize_seq(visitor),
                _ => self.map(visitor, &[]),
            };
        };
        match scalar {
            Scalar::Null => visitor.visit_unit(),
            Scalar::Bool(value) => visitor.visit_bool(value),
            Scalar::Integer(value) => visitor.visit_i64(value),
            Scalar::Float(value) => visitor.visit_f64(value),
            Scalar::Text(text) => visitor.visit_borrowed_str(text),
        }
        .map_err(|error| self.located(error))
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.scalar() {
            Some(Scalar::Bool(value)) => visitor.visit_bool(value).map_err(|error| self.located(error)),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_f32 deserialize_f64
    }

    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Value::Scalar { text, plain } = &self.node.value else { return Err(self.mismatch(&visitor)) };
        let kind = match Scalar::of(text, *plain) {
            Scalar::Text(_) => None,
            Scalar::Null => return visitor.visit_str("").map_err(|error| self.located(error)),
            Scalar::Bool(_) => Some("a boolean"),
            Scalar::Integer(_) | Scalar::Float(_) => Some("a number"),
        };
        if let Some(kind) = kind {
            self.note(Blemish::NotText { written: text.to_string(), kind });
        }
        visitor.visit_borrowed_str(text).map_err(|error| self.located(error))
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.scalar() {
            Some(Scalar::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|error| self.located(error))
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self).map_err(|error| self.located(error))
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Value::Sequence(items) = &self.node.value else { return Err(self.mismatch(&visitor)) };
        let items = Items { decoder: self, rest: items.iter().enumerate() };
        visitor.visit_seq(items).map_err(|error| self.located(error))
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.map(visitor, &[])
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.map(visitor, fields)
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if let Step::Key(key) = self.path.step {
            self.note(Blemish::UnknownField(nearest(key, self.siblings.iter().copied())));
        }
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'n>>
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

/// The whole number written with a point or an exponent; its JSON form has neither.
fn whole(number: f64) -> Option<i64> {
    if number.fract() == 0.0 { format!("{number:.0}").parse().ok() } else { None }
}

struct Entries<'n, 'p> {
    decoder: Decoder<'n, 'p>,
    fields: &'static [&'static str],
    rest: std::iter::Enumerate<std::slice::Iter<'n, Entry<'n>>>,
    /// Positions of keys that occur again later: some types refuse repeated keys.
    overridden: Vec<usize>,
    value: Option<&'n Entry<'n>>,
}

impl<'n> MapAccess<'n> for Entries<'n, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((_, entry)) = self.rest.find(|(at, _)| !self.overridden.contains(at)) else { return Ok(None) };
        self.value = Some(entry);
        seed.deserialize((&*entry.key).into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let entry = self.value.take().ok_or_else(|| de::Error::custom("a value without a key"))?;
        let path = Path { parent: Some(self.decoder.path), step: Step::Key(&entry.key) };
        seed.deserialize(Decoder { node: &entry.value, path: &path, siblings: self.fields, ..self.decoder })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Items<'n, 'p> {
    decoder: Decoder<'n, 'p>,
    rest: std::iter::Enumerate<std::slice::Iter<'n, Node<'n>>>,
}

impl<'n> SeqAccess<'n> for Items<'n, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        let path = Path { parent: Some(self.decoder.path), step: Step::Index(index) };
        seed.deserialize(Decoder { node, path: &path, siblings: &[], ..self.decoder }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

impl DecodeError {
    fn new(wrong: Wrong) -> Self {
        Self { line: 0, field: String::new(), value: String::new(), wrong: Box::new(wrong), correction: None }
    }

    /// Whether base64 was expected and the value isn't base64.
    pub(super) fn is_base64(&self) -> bool {
        // The type decodes the value itself, so only the decoder's message is left.
        matches!(&*self.wrong, Wrong::Other(words) if words.starts_with("Invalid ") || words.starts_with("Encoded text "))
    }
}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Wrong::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = expected.to_string();
        let found = match found {
            Unexpected::Float(number) if number.fract() != 0.0 && advice::range(&expected).is_some() => {
                return Self::new(Wrong::Fraction(number));
            }
            Unexpected::Seq => "a list",
            Unexpected::Map => "a mapping",
            Unexpected::Bool(_) => "true or false",
            Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_) => "a number",
            Unexpected::Unit | Unexpected::Option => "nothing",
            _ => "a text",
        };
        Self::new(Wrong::Kind { expected, found: found.to_owned() })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let number = match found {
            Unexpected::Signed(number) => Some(number.to_string()),
            Unexpected::Unsigned(number) => Some(number.to_string()),
            _ => None,
        };
        let expected = expected.to_string();
        Self::new(match (number, advice::range(&expected)) {
            (Some(found), Some(expected)) => Wrong::Range { expected, found },
            _ => Wrong::Kind { expected, found: found.to_string() },
        })
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.wrong {
            Wrong::Other(words) => f.write_str(words)?,
            Wrong::Fraction(number) => write!(f, "expected a whole number, and {number} is not whole")?,
            Wrong::Range { expected, found } => write!(f, "expected a whole number from {expected}, not {found}")?,
            Wrong::Kind { expected, found } => write!(f, "expected {}, not {found}", advice::expectation(expected))?,
        }
        self.correction.as_ref().map_or(Ok(()), |correction| write!(f, ": write {correction}"))
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_translate::gateway::api::Gateway;
    use fairway_translate::gateway::policy::RoutePolicy;
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::networking::v1::Ingress;

    fn read<T: DeserializeOwned>(text: &str) -> (Result<T, DecodeError>, Vec<Note>) {
        let mut notes = Vec::new();
        let result = decode(&Node::parse(text).unwrap().unwrap(), &mut notes);
        (result, notes)
    }

    #[test]
    fn unknown_fields_are_noted_with_line_and_hint() {
        let (ingress, notes) = read::<Ingress>(
            "metadata: {name: a}\nspec:\n  rules:\n  - hosts: x\n    http:\n      paths:\n      - path: /\n        pathTyp: Exact\n",
        );
        assert_eq!(ingress.unwrap().metadata.name.as_deref(), Some("a"));
        let found: Vec<_> = notes.iter().map(|note| (note.line, note.field.as_str(), &note.blemish)).collect();
        assert_eq!(
            found,
            [
                (4, "spec.rules[0].hosts", &Blemish::UnknownField(Some("host"))),
                (8, "spec.rules[0].http.paths[0].pathTyp", &Blemish::UnknownField(Some("pathType"))),
            ]
        );
    }

    #[test]
    fn wrong_kinds_are_errors_with_line_and_field() {
        let (ingress, _) = read::<Ingress>("spec:\n  rules:\n  - http:\n      paths: yes please\n");
        let error = ingress.unwrap_err();
        assert_eq!((error.line, error.field.as_str()), (4, "spec.rules[0].http.paths"));
        assert_eq!(error.to_string(), "expected a list, not a text");
        let text = "spec:\n  defaultBackend:\n    service:\n      name: a\n      port:\n        number: \"80\"\n";
        let error = read::<Ingress>(text).0.unwrap_err();
        assert_eq!((error.line, error.value.as_str()), (6, "80"));
        assert_eq!(error.to_string(), "expected a whole number, not a text: write number: 80, without quotes");
        let error = read::<Ingress>(&text.replace("\"80\"", "99999999999")).0.unwrap_err();
        assert_eq!(error.to_string(), "expected a whole number from -2147483648 to 2147483647, not 99999999999");
        let error = read::<Ingress>(&text.replace("\"80\"", "1.5")).0.unwrap_err();
        assert_eq!(error.to_string(), "expected a whole number, and 1.5 is not whole");
    }

    #[test]
    fn a_whole_number_may_have_a_point() {
        for (written, port) in [("80.0", 80), ("8.08e3", 8080)] {
            let (service, _) = read::<Service>(&format!("spec:\n  ports:\n  - {{port: {written}}}\n"));
            assert_eq!(service.unwrap().spec.unwrap().ports.unwrap()[0].port, port, "{written}");
        }
    }

    #[test]
    fn corrections_show_what_to_write() {
        let backend = |backend: &str| {
            let text = format!("spec:\n  defaultBackend: {backend}\n");
            read::<Ingress>(&text).0.unwrap_err().to_string()
        };
        for (written, expected) in [
            ("{service: {name: a, port: 80}}", "expected a mapping, not a number: write port: {number: 80}"),
            ("{service: {name: a, port: \"80\"}}", "expected a mapping, not a text: write port: {number: 80}"),
            ("{service: {name: a, port: http}}", "expected a mapping, not a text: write port: {name: http}"),
            ("{service: a}", "expected a mapping, not a text: write service: {name: a, port: {number: 80}}"),
            (
                "{service: {name: a, port: {number: http}}}",
                "expected a whole number, not a text: write name: http, if it is the name of a port",
            ),
        ] {
            assert_eq!(backend(written), expected, "{written}");
        }
        let policy = "spec:\n  targetRefs: web\n";
        assert_eq!(
            read::<RoutePolicy>(policy).0.unwrap_err().to_string(),
            "expected a list, not a text: write targetRefs: [{name: web}]"
        );
        let policy = "spec:\n  targetRefs: []\n  access: [a]\n";
        assert_eq!(read::<RoutePolicy>(policy).0.unwrap_err().to_string(), "expected a mapping, not a list");
        let text = "spec:\n  ports:\n  - {port: [80]}\n";
        assert_eq!(read::<Service>(text).0.unwrap_err().to_string(), "expected a whole number, not a list");
    }

    #[test]
    fn texts_without_quotes_are_noted() {
        let (ingress, notes) =
            read::<Ingress>("metadata:\n  annotations:\n    a/b: true\n    c: 5\n    d: v1\n    e: \"1\"\n");
        let annotations = ingress.unwrap().metadata.annotations.unwrap();
        assert_eq!(annotations["a/b"], "true");
        let fields: Vec<_> = notes.iter().map(|note| note.field.as_str()).collect();
        assert_eq!(fields, ["metadata.annotations[\"a/b\"]", "metadata.annotations.c"]);
    }

    #[test]
    fn keys_that_stand_twice_are_noted_and_the_last_counts() {
        let (ingress, notes) = read::<Ingress>("spec:\n  ingressClassName: a\n  ingressClassName: b\n");
        assert_eq!(ingress.unwrap().spec.unwrap().ingress_class_name.as_deref(), Some("b"));
        assert_eq!(notes[0].blemish, Blemish::DuplicateKey);
        assert_eq!(notes[0].line, 3);
        // The type itself also refuses repeated keys.
        let text = "spec:\n  gatewayClassName: a\n  gatewayClassName: b\n  listeners: []\n";
        let (gateway, notes) = read::<Gateway>(text);
        assert_eq!(gateway.unwrap().spec.gateway_class_name, "b");
        assert_eq!(notes.iter().map(|note| &note.blemish).collect::<Vec<_>>(), [&Blemish::DuplicateKey]);
        // A key from a merge is not a repetition.
        let (gateway, notes) =
            read::<Gateway>("spec:\n  <<: {gatewayClassName: a}\n  gatewayClassName: b\n  listeners: []\n");
        assert_eq!((gateway.unwrap().spec.gateway_class_name.as_str(), notes), ("b", Vec::new()));
    }

    #[test]
    fn ports_are_numbers_or_names() {
        let text = "spec:\n  ports:\n  - {port: 80, targetPort: http}\n  - {port: 81, targetPort: 8081}\n";
        let ports = read::<Service>(text).0.unwrap().spec.unwrap().ports.unwrap();
        assert_eq!(format!("{:?}", ports[0].target_port), "Some(String(\"http\"))");
        assert_eq!(format!("{:?}", ports[1].target_port), "Some(Int(8081))");
    }

    #[test]
    fn scalars_are_what_kubectl_takes_them_for() {
        let kind = |text| match Scalar::of(text, true) {
            Scalar::Null => "null",
            Scalar::Bool(_) => "bool",
            Scalar::Integer(_) => "integer",
            Scalar::Float(_) => "float",
            Scalar::Text(_) => "text",
        };
        for (text, expected) in [
            ("", "null"),
            ("~", "null"),
            ("yes", "bool"),
            ("off", "bool"),
            ("0", "integer"),
            ("-12", "integer"),
            ("0x1F", "integer"),
            ("1_000", "integer"),
            ("1.5", "float"),
            ("1e3", "float"),
            ("5s", "text"),
            ("1.2.3", "text"),
            ("10.0.0.0/8", "text"),
            ("2026-11-21", "text"),
            ("a", "text"),
            (".", "text"),
            ("1m", "text"),
            ("-", "text"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    #[test]
    fn a_leading_zero_means_octal_as_for_kubectl() {
        let number = |text| match Scalar::of(text, true) {
            Scalar::Integer(number) => Some(number),
            _ => None,
        };
        for (text, expected) in [("017620", 8080), ("0o17", 15), ("089", 89), ("00", 0), ("0", 0), ("-017", -15)] {
            assert_eq!(number(text), Some(expected), "{text}");
        }
    }
}
