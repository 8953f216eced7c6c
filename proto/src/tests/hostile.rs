//! Bytes that nobody in their right mind sends: never a panic, and what is accepted is a value like
//! any other.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use stageline_protocol::Frame;
use stageline_protocol::control::{Down, JobStatus, ProcessStatus, Up};
use stageline_protocol::frame::Items;

use super::{from_bytes, to_bytes, values};
use crate::{Wire, v1};

/// Reads the bytes; what is accepted must survive being sent on.
fn read<T: Wire + PartialEq + std::fmt::Debug>(bytes: &Bytes) {
    if let Ok(value) = from_bytes::<T>(bytes.clone()) {
        assert_eq!(from_bytes(to_bytes(&value)), Ok(value));
    }
}

/// One thing done to a message on its way.
#[derive(Clone, Debug)]
enum Damage {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    Repeat(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(i, b)| Damage::Set(i, b)),
        (at(), 0..8_u8).prop_map(|(i, bit)| Damage::Flip(i, 1 << bit)),
        at().prop_map(Damage::Remove),
        (at(), any::<u8>()).prop_map(|(i, b)| Damage::Insert(i, b)),
        at().prop_map(Damage::Truncate),
        at().prop_map(Damage::Repeat),
    ]
}

fn damaged(bytes: &Bytes, all: &[Damage]) -> Bytes {
    let mut bytes = bytes.to_vec();
    for one in all {
        if bytes.is_empty() {
            break;
        }
        let n = bytes.len();
        match one {
            Damage::Set(i, b) => bytes[i.index(n)] = *b,
            Damage::Flip(i, bit) => bytes[i.index(n)] ^= bit,
            Damage::Remove(i) => drop(bytes.remove(i.index(n))),
            Damage::Insert(i, b) => bytes.insert(i.index(n), *b),
            Damage::Truncate(i) => bytes.truncate(i.index(n)),
            Damage::Repeat(i) => bytes.extend_from_within(i.index(n)..),
        }
    }
    bytes.into()
}

/// A batch of any columns at all; of sizes near each other, so that some fit.
fn any_columns() -> impl Strategy<Value = v1::Items> {
    let few = || vec(prop_oneof![6 => 0..4_u64, 1 => any::<u64>()], 0..7);
    let lengths = (vec(any::<u8>(), 0..7), 0..4_u64, few());
    let kinds = (-1..5_i32, vec(-1..5_i32, 0..4));
    let roots = (values::number(), prop::option::of(any::<i64>()), vec(any::<i64>(), 0..3));
    let steps = (few(), vec(0..3_u32, 0..4));
    let marks = (any::<bool>(), prop_oneof![4 => Just(vec![]), 1 => vec(0..4_u32, 0..4)]);
    let rest = (steps, marks);
    (lengths, kinds, (0..2_u32, vec(any::<u32>(), 0..4)), roots, rest).prop_map(
        |((blob, length, lengths), (kind, kinds), (source, sources), roots, rest)| v1::Items {
            blob: blob.into(),
            length,
            lengths,
            kind,
            kinds,
            source,
            sources,
            first_root: roots.0,
            root_delta: roots.1,
            root_deltas: roots.2,
            steps: rest.0.0,
            step_counts: rest.0.1,
            marked: rest.1.0,
            marks: rest.1.1,
            ..v1::Items::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_048))]

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        read::<Frame>(&bytes);
        read::<Items>(&bytes);
        read::<Up>(&bytes);
        read::<Down>(&bytes);
        read::<JobStatus>(&bytes);
        read::<ProcessStatus>(&bytes);
    }

    #[test]
    fn any_columns_do_no_harm(proto in any_columns()) {
        if let Ok(items) = Items::decode(proto) {
            prop_assert_eq!(Items::decode(items.encode()), Ok(items));
        }
    }

    #[test]
    fn a_damaged_frame_does_no_harm(frame in values::frame(), damage in vec(damage(), 1..5)) {
        read::<Frame>(&damaged(&to_bytes(&frame), &damage));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_damaged_session_does_no_harm(up in values::up(), down in values::down(), damage in vec(damage(), 1..5)) {
        read::<Up>(&damaged(&to_bytes(&up), &damage));
        read::<Down>(&damaged(&to_bytes(&down), &damage));
    }
}
