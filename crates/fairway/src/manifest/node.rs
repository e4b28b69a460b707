//! A YAML document as a tree with line numbers. JSON is read by the same parser.
//!
//! Its size is bounded for any text: the parser limits nesting, [`ALIAS_NODES`] and [`ALIAS_BYTES`] limit the copies made by aliases.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle};

/// Nodes that aliases may add to one document. Hand-written manifests repeat only a few.
const ALIAS_NODES: usize = 10_000;
/// Bytes of text that aliases may add to one document.
const ALIAS_BYTES: usize = 1 << 20;
/// Nesting of blocks and of brackets. Kubernetes objects stay below 20.
const NESTING: usize = 64;
/// Characters searched for the end of a key: more than YAML's 1024, to allow JSON on one line.
const KEY_LOOKAHEAD: usize = 4096;

/// A value and the line where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node<'a> {
    /// Line within the document, from 1.
    pub(super) line: u32,
    pub(super) value: Value<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Scalar {
        text: Cow<'a, str>,
        /// Whether it is unquoted, so that `80` is a number and `true` is not text.
        plain: bool,
    },
    Sequence(Vec<Node<'a>>),
    Mapping(Vec<Entry<'a>>),
}

/// A key of a mapping and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry<'a> {
    pub(super) key: Cow<'a, str>,
    /// Line of the key.
    pub(super) line: u32,
    pub(super) value: Node<'a>,
    /// Whether it comes from a merge key.
    pub(super) merged: bool,
}

/// Why a text is not valid YAML.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(super) struct SyntaxError {
    /// Line within the document, from 1.
    pub(super) line: u32,
    message: String,
}

impl SyntaxError {
    fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl<'a> Node<'a> {
    /// Parses one document; `None` if it is empty.
    pub(super) fn parse(text: &'a str) -> Result<Option<Self>, SyntaxError> {
        let mut options = granit_parser::options! {
            simple_key_max_lookahead: KEY_LOOKAHEAD,
            flow_nesting_limit: NESTING,
            block_nesting_limit: NESTING,
        };
        options.set_emit_comments(false);
        let mut builder = Builder::default();
        for step in Parser::new_from_str_with_options(text, options) {
            let (event, span) = step.map_err(|error| {
                let column = error.marker().col() + 1;
                SyntaxError::new(line(error.marker()), format!("{}, at column {column}", error.info()))
            })?;
            builder.take(event, line(&span.start))?;
        }
        Ok(builder.root)
    }

    /// The value of a key, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The text, if this is a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The line of the field that a diagnostic names, such as `spec.rules[0].host`, or of the nearest enclosing field.
    pub(super) fn line_of(&self, field: &str) -> u32 {
        let (mut node, mut line) = (self, self.line);
        for step in steps(field) {
            let next = match (&node.value, step) {
                (Value::Mapping(_), FieldStep::Key(key)) => node.entry(key).map(|entry| (&entry.value, entry.line)),
                (Value::Sequence(items), FieldStep::Index(index)) => items.get(index).map(|item| (item, item.line)),
                _ => None,
            };
            match next {
                Some(found) => (node, line) = found,
                None => break,
            }
        }
        line
    }

    fn entry(&self, key: &str) -> Option<&Entry<'a>> {
        match &self.value {
            // The last of repeated keys counts, as in the API server.
            Value::Mapping(entries) => entries.iter().rev().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// Number of nodes, and length of their text.
    fn size(&self) -> (usize, usize) {
        let add = |(nodes, bytes): (usize, usize), node: &Self| {
            let (more, longer) = node.size();
            (nodes + more, bytes + longer)
        };
        match &self.value {
            Value::Scalar { text, .. } => (1, text.len()),
            Value::Sequence(items) => items.iter().fold((1, 0), add),
            Value::Mapping(entries) => {
                entries.iter().fold((1, 0), |sum, entry| add((sum.0, sum.1 + entry.key.len()), &entry.value))
            }
        }
    }
}

/// One step of a field path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FieldStep<'a> {
    Key(&'a str),
    Index(usize),
}

/// The steps of `a.b[0]["c/d"]`, up to the first one that can't be parsed.
fn steps(field: &str) -> impl Iterator<Item = FieldStep<'_>> {
    let mut rest = field;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let (key, tail) = quoted.split_once("\"]")?;
            rest = tail;
            return Some(FieldStep::Key(key));
        }
        if let Some(index) = rest.strip_prefix('[') {
            let (index, tail) = index.split_once(']')?;
            rest = tail;
            return index.parse().ok().map(FieldStep::Index);
        }
        let (key, tail) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
        rest = tail;
        (!key.is_empty()).then_some(FieldStep::Key(key))
    })
}

/// The tree under construction: open collections, and the anchors seen so far.
#[derive(Default)]
struct Builder<'a> {
    open: Vec<Open<'a>>,
    root: Option<Node<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    repeated: (usize, usize),
}

struct Open<'a> {
    node: Node<'a>,
    anchor: usize,
    /// A key that awaits its value.
    key: Option<(Cow<'a, str>, u32)>,
}

impl<'a> Builder<'a> {
    fn take(&mut self, event: Event<'a>, line: u32) -> Result<(), SyntaxError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.core_suffix() != Some("str"));
                self.put(Node { line, value: Value::Scalar { text, plain } }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Value::Sequence(Vec::new()), anchor, line),
            Event::MappingStart(_, anchor, _) => self.open(Value::Mapping(Vec::new()), anchor, line),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, anchor, .. }) => self.put(node, anchor),
                None => Ok(()),
            },
            Event::Alias(id) => {
                let node = self.anchors.get(&id);
                // An alias within its own anchor finds nothing yet.
                let node = node.ok_or_else(|| SyntaxError::new(line, "an alias refers to what contains it"))?;
                let (nodes, bytes) = node.size();
                let node = node.clone();
                self.repeated.0 += nodes;
                self.repeated.1 += bytes;
                if self.repeated.0 > ALIAS_NODES || self.repeated.1 > ALIAS_BYTES {
                    return Err(SyntaxError::new(line, "the aliases of this document repeat too much"));
                }
                self.put(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, value: Value<'a>, anchor: usize, line: u32) -> Result<(), SyntaxError> {
        if let Some(Open { node: Node { value: Value::Mapping(_), .. }, key: None, .. }) = self.open.last() {
            return Err(SyntaxError::new(line, "a key must be a text, not a list or a mapping"));
        }
        self.open.push(Open { node: Node { line, value }, anchor, key: None });
        Ok(())
    }

    fn put(&mut self, node: Node<'a>, anchor: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            // Stored copies count as repeated: otherwise a chain of nested anchors would cost the square of its length.
            let (nodes, bytes) = node.size();
            self.repeated.0 += nodes;
            self.repeated.1 += bytes;
            if self.repeated.0 > ALIAS_NODES || self.repeated.1 > ALIAS_BYTES {
                return Err(SyntaxError::new(node.line, "the anchors of this document hold too much"));
            }
            self.anchors.insert(anchor, node.clone());
        }
        let Some(Open { node: Node { value, .. }, key, .. }) = self.open.last_mut() else {
            if self.root.is_none() {
                self.root = Some(node);
            }
            return Ok(());
        };
        match value {
            Value::Sequence(items) => items.push(node),
            Value::Mapping(entries) => match key.take() {
                Some((name, _)) if name == "<<" => merge(entries, node)?,
                Some((name, line)) => entries.push(Entry { key: name, line, value: node, merged: false }),
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some((text, node.line)),
                    _ => return Err(SyntaxError::new(node.line, "a key must be a text, not a list or a mapping")),
                },
            },
            Value::Scalar { .. } => {}
        }
        Ok(())
    }
}

/// YAML's merge key: the mapping takes keys that it lacks from one or several other mappings.
fn merge<'a>(entries: &mut Vec<Entry<'a>>, from: Node<'a>) -> Result<(), SyntaxError> {
    match from.value {
        Value::Mapping(others) => {
            // Merged keys go in front, so that the mapping's own keys, which come later, override them.
            entries.splice(0..0, others.into_iter().map(|entry| Entry { merged: true, ..entry }));
            Ok(())
        }
        Value::Sequence(items) => items.into_iter().try_for_each(|item| merge(entries, item)),
        Value::Scalar { .. } => Err(SyntaxError::new(from.line, "<< expects a mapping")),
    }
}

fn line(marker: &granit_parser::Marker) -> u32 {
    u32::try_from(marker.line()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Node<'_> {
        Node::parse(text).unwrap().unwrap()
    }

    #[test]
    fn fields_are_found_with_their_lines() {
        let node =
            parse("metadata:\n  annotations:\n    a.b/c: x\nspec:\n  rules:\n  - host: a\n  - host: b\n    http: {}\n");
        for (field, line) in [
            ("metadata", 1),
            ("metadata.annotations[\"a.b/c\"]", 3),
            ("spec.rules[1].host", 7),
            ("spec.rules[1].http.paths[0].path", 8),
            ("spec.rules[9]", 5),
            ("nothing", 1),
        ] {
            assert_eq!(node.line_of(field), line, "{field}");
        }
    }

    #[test]
    fn aliases_are_bounded() {
        let mut bomb = "a0: &a0 x\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(", ")));
        }
        assert!(Node::parse(&bomb).unwrap_err().to_string().contains("too much"));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), ["*a"; 100].join(", "));
        assert!(Node::parse(&long).unwrap_err().to_string().contains("too much"));
        assert!(Node::parse("a: &a [*a]").is_err());
    }

    #[test]
    fn merge_keys_give_what_is_not_said() {
        let node = parse("base: &base {a: 1, b: 2}\nx:\n  <<: *base\n  b: 3\n");
        let x = node.get("x").unwrap();
        assert_eq!(x.get("a").unwrap().text(), Some("1"));
        assert_eq!(x.get("b").unwrap().text(), Some("3"));
    }

    #[test]
    fn json_is_read_too() {
        let node = parse("{\n\t\"a\": [1, \"two\\u0041\\/\"],\n\t\"b\":{\"c\":null}\n}\n");
        let Value::Sequence(items) = &node.get("a").unwrap().value else { panic!("{node:?}") };
        assert_eq!(items[1].text(), Some("twoA/"));
        assert!(matches!(items[1].value, Value::Scalar { plain: false, .. }));
        assert_eq!(node.get("b").unwrap().line, 3);
    }

    #[test]
    fn errors_name_line_and_reason() {
        let error = Node::parse("a: 1\nb: [\nc: 2\n").unwrap_err();
        assert!(error.line >= 2 && error.to_string().contains("column"), "{error:?}");
        for text in ["a: b: c", "\"", "? [a]\n: b", "*x", &"[".repeat(1000), "a: \u{0}"] {
            assert!(Node::parse(text).is_err(), "{text:?}");
        }
    }
}
