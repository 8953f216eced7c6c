//! Decoding of every message that a peer sends: any bytes are a value or a [`DecodeError`] that names a
//! field; a value goes back onto the wire, and comes out the same.
//!
//! [`DecodeError`]: stageline_proto::DecodeError
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use stageline_proto::Wire;
use stageline_protocol::Frame;
use stageline_protocol::control::{Down, JobStatus, ProcessStatus, Up};

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 8 {
        0 => check::<Up>(bytes),
        1 => check::<Down>(bytes),
        2 => check::<JobStatus>(bytes),
        3 => check::<ProcessStatus>(bytes),
        _ => check::<Frame>(bytes),
    }
});

fn check<T: Wire + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = T::Proto::decode(bytes) else { return };
    match T::decode(message) {
        Ok(value) => {
            let again = value.encode().encode_to_vec();
            let message = T::Proto::decode(again.as_slice()).expect("what was encoded, decodes");
            let back = T::decode(message).expect("what was encoded, makes sense");
            assert_eq!(back, value);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
