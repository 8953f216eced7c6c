//! Payloads as JSON, for the edges that people see, and for functions of any type.
//!
//! JSON to MessagePack loses nothing. The other way, what JSON has no form for takes the nearest:
//! raw payloads and binary become base64 text (always, so that a field's form does not depend on its
//! content), numbers and booleans as keys become text, other keys their JSON text; floats that are
//! not finite become null; an extension type becomes `[type, base64]`.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::codec::{self, DecodeError, EncodeError, Payload};

/// A payload as JSON.
///
/// # Errors
/// When a MessagePack payload is broken.
pub fn from_payload(payload: &Payload) -> Result<Value, DecodeError> {
    codec::decode(payload.encoding, &payload.bytes)
}

/// JSON as a payload.
///
/// # Errors
/// None that is known: every JSON value has a MessagePack form.
pub fn to_payload(value: &Value) -> Result<Payload, EncodeError> {
    let (encoding, bytes) = codec::encode(value)?;
    Ok(Payload { encoding, bytes })
}

pub(crate) fn from_raw(bytes: &Bytes) -> Value {
    Value::String(base64(bytes))
}

pub(crate) fn from_message_pack(bytes: &Bytes) -> Result<Value, rmp_serde::decode::Error> {
    Ok(AnyValue::deserialize(&mut codec::deserializer(bytes))?.0)
}

/// JSON that also takes what only MessagePack has.
struct AnyValue(Value);

impl<'de> Deserialize<'de> for AnyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor).map(AnyValue)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::String(base64(value)))
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

    /// An extension type: the deserializer gives it as a sequence of its type and its bytes.
    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        // No room is reserved by the announced length: it comes from the network.
        let mut values = Vec::new();
        while let Some(AnyValue(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((AnyValue(key), AnyValue(value))) = map.next_entry()? {
            let key = match key {
                Value::String(text) => text,
                other => other.to_string(),
            };
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}

/// Base64 with the standard alphabet and padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |n: usize| u32::from(group.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            if n <= group.len() {
                let sextet = bits >> (18 - 6 * n) & 0x3f;
                text.push(char::from(ALPHABET[sextet as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::json;
    use stageline_protocol::Encoding;

    use super::*;

    fn shown<T: Serialize + 'static>(value: &T) -> Value {
        let (encoding, bytes) = codec::encode(value).unwrap();
        from_payload(&Payload { encoding, bytes }).unwrap()
    }

    #[derive(Serialize)]
    struct Record {
        id: u64,
        data: Bytes,
        ratio: f64,
        kind: Kind,
    }

    #[derive(Serialize)]
    enum Kind {
        Plain,
        Sized { bytes: i32 },
    }

    #[test]
    fn a_record_is_shown_with_its_fields() {
        let record = Record {
            id: u64::MAX,
            data: "abc".into(),
            ratio: 0.5,
            kind: Kind::Sized { bytes: -3 },
        };
        assert_eq!(
            shown(&record),
            json!({"id": u64::MAX, "data": "YWJj", "ratio": 0.5, "kind": {"Sized": {"bytes": -3}}})
        );
        assert_eq!(shown(&Kind::Plain), json!("Plain"));
    }

    #[test]
    fn what_json_lacks_takes_the_nearest_form() {
        assert_eq!(shown(&Bytes::from("abc")), json!("YWJj"));
        assert_eq!(shown(&[f64::NAN, f64::INFINITY]), json!([null, null]));
        assert_eq!(shown(&BTreeMap::from([(7, 'a')])), json!({"7": "a"}));
        assert_eq!(shown(&BTreeMap::from([((1, 2), 'a')])), json!({"[1,2]": "a"}));
        let extension = Bytes::from_static(&[0xd5, 5, b'h', b'i']);
        assert_eq!(from_message_pack(&extension).unwrap(), json!([5, "aGk="]));
    }

    #[test]
    fn base64_is_as_in_the_standard() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(".{0,8}", inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_comes_back_as_it_was(value in any_json()) {
            let payload = to_payload(&value).unwrap();
            prop_assert_eq!(payload.encoding, Encoding::MessagePack);
            prop_assert_eq!(from_payload(&payload).unwrap(), value);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = from_message_pack(&bytes);
            let _ = codec::decode::<BTreeMap<String, u64>>(Encoding::MessagePack, &bytes);
        }
    }
}
