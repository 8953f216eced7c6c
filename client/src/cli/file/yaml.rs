//! YAML as a tree in which everything knows its place. The only module that knows the YAML crate.
//!
//! The tree is decoded in a second step (`super::decode`), so that an error can say more than a
//! generic decoder knows: the place, the nearest valid key, all valid keys.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_saphyr::{Location, Spanned};

/// A place in a file; line and column count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The character in it.
    pub column: u64,
}

/// A node and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

/// A key of a table and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) at: Place,
    pub(super) name: String,
}

/// Parses a file of one document. Its depth and size are limited by the parser.
pub(super) fn parse(text: &str) -> Result<Node, (Place, String)> {
    serde_saphyr::from_str::<Node>(text).map_err(|error| {
        let error = error.without_snippet();
        let at = error.location().map(place).unwrap_or_default();
        (at, explain(error))
    })
}

/// The error in words. The place stands in front of it, and what the crate would have its caller
/// do means nothing to a user.
fn explain(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error::{DuplicateMappingKey, MultipleDocuments};
    match error {
        DuplicateMappingKey { key: Some(key), .. } => format!("`{key}` is there twice"),
        DuplicateMappingKey { .. } => "a key that is there twice".to_owned(),
        MultipleDocuments { .. } => {
            "a second document (`---`); a pipeline file has only one".to_owned()
        }
        error => {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            if message.starts_with("mapping values are not allowed") {
                return "a `:` where none may be; a text with `: ` in it needs quotes".to_owned();
            }
            format!("this is no YAML: {message}")
        }
    }
}

impl Value {
    /// What it is, as an error says it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("the boolean {value}"),
            Self::Int(value) => format!("the number {value}"),
            Self::Uint(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(text) => match text.char_indices().nth(40) {
                None => format!("the text {text:?}"),
                Some((end, _)) => format!("the text {:?}…", &text[..end]),
            },
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

fn place(location: Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { at: place(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { at: place(spanned.referenced), name: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Uint(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Table(entries))
    }
}

/// A node as the plain value that it is: how parameters are handed over.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Uint(value) => serializer.serialize_u64(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::Text(value) => serializer.serialize_str(value),
            Value::List(nodes) => serializer.collect_seq(nodes),
            Value::Table(entries) => {
                serializer.collect_map(entries.iter().map(|(key, node)| (&key.name, node)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_knows_its_place() {
        let tree = parse("a: 1\nlist:\n  - x\n  - {k: [true, null, -1.5]}\n").expect("parses");
        let Value::Table(entries) = &tree.value else { panic!("{tree:?}") };
        assert_eq!(
            (entries[1].0.name.as_str(), entries[1].0.at),
            ("list", Place { line: 2, column: 1 })
        );
        let Value::List(list) = &entries[1].1.value else { panic!("{entries:?}") };
        assert_eq!(list[0].at, Place { line: 3, column: 5 });
        let Value::Table(inner) = &list[1].value else { panic!("{list:?}") };
        assert_eq!(inner[0].0.at, Place { line: 4, column: 6 });
        assert_eq!(
            serde_json::to_value(&tree).expect("plain"),
            serde_json::json!({"a": 1, "list": ["x", {"k": [true, null, -1.5]}]})
        );
    }

    #[test]
    fn what_is_not_yaml_is_placed_too() {
        for (text, line) in
            [("a: [1\nb: 2\n", 2), ("a: 1\na: 2\n", 2), ("a: 'x\n", 1), ("a: b: c", 1)]
        {
            let (at, message) = parse(text).expect_err(text);
            assert!(at.line >= line && !message.is_empty(), "{text:?}: {at:?} {message}");
            assert!(!message.contains("line"), "{message}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
        for (text, why) in [
            ("a: 1\na: 2\n", "`a` is there twice"),
            ("a: 1\n---\nb: 2\n", "only one"),
            ("jq: .a | {b: .c}\n", "needs quotes"),
            ("a: *x\n", "anchor"),
        ] {
            let (_, message) = parse(text).expect_err(text);
            assert!(message.contains(why), "{text:?}: {message}");
        }
    }
}
