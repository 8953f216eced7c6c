//! What is sent is what is read.

use std::time::Duration;

use proptest::prelude::*;
use stageline_protocol::control::Submit;

use super::{from_bytes, to_bytes, values};
use crate::Wire;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_frame_reads_back(frame in values::frame()) {
        prop_assert_eq!(from_bytes(to_bytes(&frame)), Ok(frame));
    }

    #[test]
    fn everything_that_a_process_says_reads_back(up in values::up()) {
        prop_assert_eq!(from_bytes(to_bytes(&up)), Ok(up));
    }

    #[test]
    fn everything_that_the_coordinator_says_reads_back(down in values::down()) {
        prop_assert_eq!(from_bytes(to_bytes(&down)), Ok(down));
    }

    #[test]
    fn what_people_look_at_reads_back(job in values::job_status(), process in values::process_status()) {
        prop_assert_eq!(from_bytes(to_bytes(&job)), Ok(job));
        prop_assert_eq!(from_bytes(to_bytes(&process)), Ok(process));
    }

    #[test]
    fn one_value_has_one_encoding(down in values::down()) {
        prop_assert_eq!(to_bytes(&down), to_bytes(&down.clone()));
    }
}

#[test]
fn a_short_time_never_becomes_none() {
    let wait = |wait_stages| {
        let submit = Submit { job: Default::default(), pipeline: Default::default(), wait_stages };
        Submit::decode(submit.encode()).unwrap().wait_stages
    };
    assert_eq!(wait(Duration::ZERO), Duration::ZERO);
    assert_eq!(wait(Duration::from_nanos(1)), Duration::from_micros(1));
    assert_eq!(wait(Duration::from_nanos(1_001)), Duration::from_micros(2));
    assert_eq!(wait(Duration::MAX), Duration::from_micros(u64::MAX));
}
