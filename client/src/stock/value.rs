//! jq's values, in and out of anything that serde speaks: JSON at the edges, MessagePack on the way.
//!
//! Bytes stay bytes (a MessagePack `bin`), and whole numbers beyond 64 bits become floating-point
//! ones, because neither format has room for them. A number that is too large even for those is an
//! error: written as infinity, it would end as null. What jq itself computes to be infinite stays so.

use std::fmt;

use jaq_json::{Map, Num, Val};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap as _, SerializeSeq as _};
use serde::{Deserializer, Serialize, Serializer};

/// Reads a jq value from any self-describing format.
pub(super) fn from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Val, D::Error> {
    In.deserialize(deserializer)
}

struct In;

impl<'de> DeserializeSeed<'de> for In {
    type Value = Val;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Val, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for In {
    type Value = Val;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Val, E> {
        Ok(Val::Null)
    }

    fn visit_none<E>(self) -> Result<Val, E> {
        Ok(Val::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Val, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<Val, D::Error> {
        Err(D::Error::custom("a MessagePack extension type has no meaning to jq"))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Val, E> {
        Ok(Val::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Val, E> {
        Ok(Val::Num(Num::from_integral(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Val, E> {
        Ok(Val::Num(Num::from_integral(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Val, E> {
        Ok(Val::Num(Num::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Val, E> {
        Ok(Val::utf8_str(value.as_bytes().to_vec()))
    }

    fn visit_string<E>(self, value: String) -> Result<Val, E> {
        Ok(Val::utf8_str(value.into_bytes()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Val, E> {
        Ok(Val::byte_str(value.to_vec()))
    }

    fn visit_byte_buf<E>(self, value: Vec<u8>) -> Result<Val, E> {
        Ok(Val::byte_str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Val, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(values.into_iter().collect())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Val, A::Error> {
        let mut values = Map::default();
        while let Some(entry) = map.next_entry_seed(Self, Self)? {
            values.insert(entry.0, entry.1);
        }
        Ok(Val::obj(values))
    }
}

/// Values are nested no deeper than this where they leave an expression: what reads JSON elsewhere takes
/// no deeper ones either.
pub(super) const MOST_DEPTH: usize = 128;

/// A jq value to be written, which has so many values around it. Texts that are not UTF-8 have their bad bytes replaced by U+FFFD, as
/// jq does; a key of a record that is not text is an error.
pub(super) struct Out<'a>(pub(super) &'a Val, pub(super) usize);

impl Serialize for Out<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(value, around) = *self;
        if around == MOST_DEPTH && matches!(value, Val::Arr(_) | Val::Obj(_)) {
            return Err(S::Error::custom(format_args!(
                "an output is nested more than {MOST_DEPTH} deep"
            )));
        }
        match value {
            Val::Null => serializer.serialize_unit(),
            Val::Bool(value) => serializer.serialize_bool(*value),
            Val::Num(number) => serialize_number(number, serializer),
            Val::BStr(bytes) => serializer.serialize_bytes(bytes),
            Val::TStr(text) => serializer.serialize_str(&String::from_utf8_lossy(text)),
            Val::Arr(values) => {
                let mut seq = serializer.serialize_seq(Some(values.len()))?;
                values
                    .iter()
                    .try_for_each(|value| seq.serialize_element(&Out(value, around + 1)))?;
                seq.end()
            }
            Val::Obj(values) => {
                let mut map = serializer.serialize_map(Some(values.len()))?;
                for (key, value) in values.iter() {
                    let Val::TStr(key) = key else {
                        return Err(S::Error::custom(format_args!(
                            "the key {key} of a record is not text; write ({key} | tostring)"
                        )));
                    };
                    map.serialize_entry(&*String::from_utf8_lossy(key), &Out(value, around + 1))?;
                }
                map.end()
            }
        }
    }
}

fn serialize_number<S: Serializer>(number: &Num, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Num::Int(value) => serializer.serialize_i64(*value as i64),
        Num::Float(value) => serializer.serialize_f64(*value),
        // Both print as the digits of a number, so a parse says what fits where.
        Num::BigInt(_) | Num::Dec(_) => {
            let digits = Val::Num(number.clone()).to_string();
            match (digits.parse::<u64>(), digits.parse::<f64>()) {
                (Ok(whole), _) => serializer.serialize_u64(whole),
                (_, Ok(float)) if float.is_finite() => serializer.serialize_f64(float),
                (_, Ok(_)) => {
                    // Digits without end would bury what is said of them.
                    let number: String = digits.chars().take(40).collect();
                    let more = if number.len() < digits.len() { "…" } else { "" };
                    Err(S::Error::custom(format_args!(
                        "the number {number}{more} is beyond the range of 64-bit floating point; \
                         keep it as a text"
                    )))
                }
                _ => Err(S::Error::custom(format_args!("{digits} is not a number"))),
            }
        }
    }
}
