//! Members that this version does not know. They come from a newer CRD and may restrict access, so a reader must not ignore them.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

/// The first unknown member of a record, in the order of the text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Newer(pub(super) Option<Box<str>>);

impl Newer {
    /// Records a member by its first 63 characters.
    fn note(&mut self, name: &str) {
        self.0.get_or_insert_with(|| name.chars().take(63).collect::<String>().into());
    }
}

/// Reads a record as `deserializer` does, and records the members that its type lacks.
pub(super) struct Noting<'a, D> {
    pub(super) deserializer: D,
    pub(super) newer: &'a mut Newer,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Noting<'_, D> {
    type Error = D::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_struct(name, fields, NotingVisitor { visitor, fields, newer: self.newer })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct NotingVisitor<'a, V> {
    visitor: V,
    fields: &'static [&'static str],
    newer: &'a mut Newer,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for NotingVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(NotingMap { map, fields: self.fields, newer: self.newer })
    }
}

struct NotingMap<'a, A> {
    map: A,
    fields: &'static [&'static str],
    newer: &'a mut Newer,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for NotingMap<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(key) = self.map.next_key::<String>()? else { return Ok(None) };
        if !self.fields.contains(&&*key) {
            self.newer.note(&key);
        }
        let key: StringDeserializer<A::Error> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}
