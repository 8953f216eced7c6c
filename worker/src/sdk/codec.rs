//! How values travel.
//!
//! A value is MessagePack with named fields: self-describing, so that a reader needs no schema, and
//! binary-safe. Types with two forms, such as addresses and dates, use the one for people, because
//! payloads are shown as JSON and come back from it ([`json`]). [`Bytes`] travel raw, as they are.
//!
//! Decoding is lenient where the forms agree: raw bytes decode as any type that reads bytes (a
//! `String` if they are UTF-8), and MessagePack binary or text decodes as `Bytes`.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use rmp_serde::decode::Deserializer;
use rmp_serde::encode::Serializer;
use serde::Serialize;
use serde::de::value::BytesDeserializer;
use serde::de::{self, DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use stageline_protocol::Encoding;

use super::json;
use super::type_name::short_name;

/// How deep values may be nested, as in JSON: bounds the stack that decoding takes. A deeper one is
/// refused where it is decoded.
pub const MAX_DEPTH: usize = 128;

/// An encoded value.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// How it is encoded.
    pub encoding: Encoding,
    /// The encoded value.
    pub bytes: Bytes,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({})", describe(self.encoding, &self.bytes))
    }
}

/// A value that cannot be encoded: a map whose keys MessagePack cannot hold, say, or a value whose
/// own `Serialize` fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value of type {expected} cannot be encoded: {reason}")]
pub struct EncodeError {
    expected: String,
    reason: String,
}

/// A payload that is not a value of the expected type. Names the field, the type, and what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}{reason} (expected {expected}, came {came})")]
pub struct DecodeError {
    field: String,
    reason: String,
    expected: String,
    came: String,
}

/// Encodes a value: [`Bytes`] raw, all else as MessagePack with named fields.
///
/// # Errors
/// When the value's `Serialize` fails.
pub fn encode<T: Serialize + 'static>(value: &T) -> Result<(Encoding, Bytes), EncodeError> {
    if let Some(bytes) = (value as &dyn Any).downcast_ref::<Bytes>() {
        return Ok((Encoding::Raw, bytes.clone()));
    }
    let mut out = Vec::with_capacity(128);
    write(value, &mut out)?;
    Ok((Encoding::MessagePack, out.into()))
}

/// Encodes a value that is not needed any more: [`Bytes`] as they are, without even a share of them.
///
/// # Errors
/// As [`encode`].
pub fn encode_owned<T: Serialize + 'static>(value: T) -> Result<(Encoding, Bytes), EncodeError> {
    match into_bytes(value) {
        Ok(bytes) => Ok((Encoding::Raw, bytes)),
        Err(value) => encode(&value),
    }
}

/// The value itself, if it is [`Bytes`].
#[inline]
pub(crate) fn into_bytes<T: 'static>(value: T) -> Result<Bytes, T> {
    if is_same_type::<T, Bytes>() {
        return Ok(same_type(|| value).unwrap_or_default());
    }
    Err(value)
}

/// Adds a value as MessagePack to what is there already.
pub(crate) fn write<T: Serialize>(value: &T, to: &mut Vec<u8>) -> Result<(), EncodeError> {
    value
        .serialize(&mut Serializer::new(to).with_struct_map().with_human_readable())
        .map_err(|e| EncodeError { expected: short_name::<T>(), reason: e.to_string() })
}

/// Decodes a payload as a value of type `T`. [`Value`] takes every payload (see [`json`]).
///
/// # Errors
/// When the payload is not a value of that type.
pub fn decode<T: DeserializeOwned + 'static>(
    encoding: Encoding,
    bytes: &Bytes,
) -> Result<T, DecodeError> {
    match encoding {
        Encoding::Raw => {
            if let Some(value) = same_type(|| bytes.clone()) {
                return Ok(value);
            }
            if let Some(value) = same_type(|| json::from_raw(bytes)) {
                return Ok(value);
            }
            T::deserialize(BytesDeserializer::new(bytes))
                .map_err(|e: de::value::Error| refused::<T>("", &e, encoding, bytes))
        }
        Encoding::MessagePack => {
            if is_same_type::<T, Value>() {
                let value = json::from_message_pack(bytes)
                    .map_err(|e| refused::<T>("", &e, encoding, bytes))?;
                return same_type(|| value)
                    .ok_or_else(|| refused::<T>("", &"not a JSON value", encoding, bytes));
            }
            T::deserialize(&mut deserializer(bytes)).map_err(|_| explain::<T>(bytes))
        }
    }
}

/// Decodes a payload that is not needed any more: raw ones are [`Bytes`] as they are.
#[inline]
pub(crate) fn decode_owned<T: DeserializeOwned + 'static>(
    encoding: Encoding,
    bytes: Bytes,
) -> Result<T, DecodeError> {
    let mut bytes = Some(bytes);
    if let Some(value) = as_bytes(encoding, || bytes.take().unwrap_or_default()) {
        return Ok(value);
    }
    decode(encoding, &bytes.unwrap_or_default())
}

/// A raw payload itself, if [`Bytes`] are wanted.
#[inline]
pub(crate) fn as_bytes<T: 'static>(encoding: Encoding, bytes: impl FnOnce() -> Bytes) -> Option<T> {
    if encoding == Encoding::Raw { same_type(bytes) } else { None }
}

/// The deserializer of a MessagePack payload.
pub(crate) fn deserializer(
    bytes: &Bytes,
) -> Deserializer<rmp_serde::decode::ReadRefReader<'_, Bytes>, HumanReadable> {
    let mut deserializer = Deserializer::from_read_ref(bytes).with_human_readable();
    deserializer.set_max_depth(MAX_DEPTH);
    deserializer
}

type HumanReadable = rmp_serde::config::HumanReadableConfig<rmp_serde::config::DefaultConfig>;

#[inline]
fn is_same_type<T: 'static, U: 'static>() -> bool {
    std::any::TypeId::of::<T>() == std::any::TypeId::of::<U>()
}

/// What `make` makes, if that is a `T`; else `make` is not called.
#[inline]
fn same_type<T: 'static, U: 'static>(make: impl FnOnce() -> U) -> Option<T> {
    if !is_same_type::<T, U>() {
        return None;
    }
    let mut made = Some(make());
    (&mut made as &mut dyn Any).downcast_mut::<Option<T>>().and_then(Option::take)
}

/// Decodes once more to learn where it fails: keeping track of the place costs, and only a failure
/// needs it. Of a type that does not fit, MessagePack's decoder says little; the same payload as JSON,
/// if it fails in the same place, says what was expected.
fn explain<T: DeserializeOwned + 'static>(bytes: &Bytes) -> DecodeError {
    let refused = |path: &str, reason: &dyn fmt::Display| {
        refused::<T>(path, reason, Encoding::MessagePack, bytes)
    };
    let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut deserializer(bytes)) else {
        return refused("", &"it decodes at times only");
    };
    let path = error.path().to_string();
    if !matches!(error.inner(), rmp_serde::decode::Error::TypeMismatch(_)) {
        return refused(&path, error.inner());
    }
    match json::from_message_pack(bytes).map(serde_path_to_error::deserialize::<_, T>) {
        Ok(Err(as_json)) if as_json.path().to_string() == path => refused(&path, as_json.inner()),
        _ => refused(&path, &"another type is expected"),
    }
}

fn refused<T>(
    path: &str,
    reason: &dyn fmt::Display,
    encoding: Encoding,
    bytes: &Bytes,
) -> DecodeError {
    let field = if path.is_empty() || path == "." { String::new() } else { format!("{path}: ") };
    DecodeError {
        field,
        reason: reason.to_string(),
        expected: short_name::<T>(),
        came: describe(encoding, bytes),
    }
}

/// A payload's form in words, with a map's first keys: enough to see which type it may have been.
fn describe(encoding: Encoding, bytes: &Bytes) -> String {
    let size = bytes.len();
    if encoding == Encoding::Raw {
        return format!("{size} raw bytes");
    }
    let form = match bytes.first() {
        None => "nothing".to_owned(),
        Some(0xc0) => "nil".to_owned(),
        Some(0xc2 | 0xc3) => "a boolean".to_owned(),
        Some(0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff) => "an integer".to_owned(),
        Some(0xca | 0xcb) => "a float".to_owned(),
        Some(0xa0..=0xbf | 0xd9..=0xdb) => "a text".to_owned(),
        Some(0xc4..=0xc6) => "binary".to_owned(),
        Some(0x90..=0x9f | 0xdc | 0xdd) => "an array".to_owned(),
        Some(0x80..=0x8f | 0xde | 0xdf) => match keys(bytes) {
            Some(keys) => format!("a map with the keys {keys}"),
            None => "a map".to_owned(),
        },
        Some(0xc7..=0xc9 | 0xd4..=0xd8) => "an extension type".to_owned(),
        Some(0xc1) => "what is not MessagePack".to_owned(),
    };
    format!("{form}, {size} bytes")
}

/// The first few keys of a map that has texts as keys.
fn keys(bytes: &Bytes) -> Option<String> {
    const SHOWN: usize = 8;

    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<String>, A::Error> {
            let mut keys = Vec::new();
            while let Some(key) = map.next_key::<String>()? {
                map.next_value::<IgnoredAny>()?;
                keys.push(if keys.len() < SHOWN { format!("{key:?}") } else { "...".to_owned() });
                if keys.len() > SHOWN {
                    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                }
            }
            Ok(keys)
        }
    }
    let keys = de::Deserializer::deserialize_map(&mut deserializer(bytes), Keys).ok()?;
    (!keys.is_empty()).then(|| keys.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Page {
        url: String,
        links: Vec<Link>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Link {
        href: String,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Relative,
        To(IpAddr),
    }

    fn there_and_back<T: Serialize + DeserializeOwned + 'static>(value: &T) -> T {
        let (encoding, bytes) = encode(value).unwrap();
        decode(encoding, &bytes).unwrap()
    }

    fn refusal<T: DeserializeOwned + fmt::Debug + 'static>(
        sent: &(impl Serialize + 'static),
    ) -> String {
        let (encoding, bytes) = encode(sent).unwrap();
        decode::<T>(encoding, &bytes).unwrap_err().to_string()
    }

    #[test]
    fn values_come_back_as_they_were() {
        let page = Page {
            url: "a".into(),
            links: vec![
                Link { href: "b".into(), kind: Kind::Relative },
                Link { href: "c".into(), kind: Kind::To("::1".parse().unwrap()) },
            ],
        };
        assert_eq!(there_and_back(&page), page);
        assert_eq!(there_and_back(&Some(7_u64)), Some(7));
        assert_eq!(there_and_back(&None::<u64>), None);
        assert_eq!(there_and_back(&()), ());
        assert_eq!(there_and_back(&(u64::MAX, i64::MIN, 1.5)), (u64::MAX, i64::MIN, 1.5));
        assert_eq!(there_and_back(&BTreeMap::from([(1, 'a')])), BTreeMap::from([(1, 'a')]));
        assert_eq!(
            there_and_back(&serde_json::json!({"a": [1, null]})),
            serde_json::json!({"a": [1, null]})
        );
    }

    #[test]
    fn bytes_travel_raw_and_uncopied() {
        let sent = Bytes::from(vec![0xff; 64]);
        let (encoding, bytes) = encode(&sent).unwrap();
        assert_eq!(encoding, Encoding::Raw);
        let back: Bytes = decode(encoding, &bytes).unwrap();
        assert_eq!(back.as_ptr(), sent.as_ptr());
    }

    #[test]
    fn raw_and_text_pass_for_each_other() {
        let text: String = decode(Encoding::Raw, &Bytes::from("grün")).unwrap();
        assert_eq!(text, "grün");
        let (encoding, bytes) = encode(&"grün".to_owned()).unwrap();
        let raw: Bytes = decode(encoding, &bytes).unwrap();
        assert_eq!(raw, "grün");
        assert!(decode::<String>(Encoding::Raw, &Bytes::from_static(&[0xff])).is_err());
    }

    #[test]
    fn a_refusal_names_the_field_the_type_and_what_came() {
        let sent = serde_json::json!({"url": "a", "links": [
            {"href": "b", "kind": "Relative"},
            {"href": 5, "kind": "Relative"},
        ]});
        let said = refusal::<Page>(&sent);
        assert!(said.starts_with("links[1].href: invalid type: integer `5`"), "{said}");
        assert!(said.contains("expected Page, came a map with the keys"), "{said}");

        let said = refusal::<Page>(&serde_json::json!({"uri": "a"}));
        assert!(said.contains("missing field `url`"), "{said}");
        assert!(said.contains(r#"came a map with the keys "uri""#), "{said}");

        let said = refusal::<Page>(&7);
        assert!(said.ends_with("(expected Page, came an integer, 1 bytes)"), "{said}");
        let said = refusal::<Vec<u64>>(&("a", [0.5]));
        assert!(said.starts_with("[0]: invalid type: string \"a\", expected u64 (exp"), "{said}");
        let said = refusal::<Vec<u64>>(&Bytes::from_static(b"abc"));
        assert!(said.ends_with("(expected Vec<u64>, came 3 raw bytes)"), "{said}");
    }

    #[test]
    fn a_map_of_many_keys_is_described_by_its_first() {
        let many: BTreeMap<String, u8> = (0..20).map(|n| (format!("k{n:02}"), 0)).collect();
        let said = refusal::<u64>(&many);
        assert!(said.contains(r#""k07", ..., "#), "{said}");
        assert!(!said.contains("k08"), "{said}");
    }

    #[test]
    fn garbage_and_bottomless_payloads_are_refused() {
        let deep = Bytes::from(vec![0x91; 100_000]); // arrays in arrays in arrays
        assert!(decode::<Value>(Encoding::MessagePack, &deep).is_err());
        assert!(decode::<Page>(Encoding::MessagePack, &deep).is_err());
        assert!(decode::<IgnoredAny>(Encoding::MessagePack, &deep).is_err());
        let huge = Bytes::from_static(&[0xdd, 0xff, 0xff, 0xff, 0xff]); // 2^32 elements, it says
        assert!(decode::<Vec<u64>>(Encoding::MessagePack, &huge).is_err());
        assert!(decode::<Value>(Encoding::MessagePack, &huge).is_err());
        assert!(decode::<u64>(Encoding::MessagePack, &Bytes::new()).is_err());
        assert!(decode::<u64>(Encoding::MessagePack, &Bytes::from_static(&[0xc1])).is_err());
    }
}
