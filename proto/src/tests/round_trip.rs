//! What is sent is what is read.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use stageline_protocol::control::Submit;
use stageline_protocol::frame::Items;
use stageline_protocol::{Content, Encoding, Frame, Lineage, Packed, Run, StageId};

use super::{from_bytes, to_bytes, values};
use crate::{MAX_BATCH, Wire};

/// Every item a run of its own.
fn split(items: Items) -> Items {
    let batch = items.batch.iter().flat_map(Run::items).map(Run::from).collect();
    Items { batch, ..items }
}

/// The frame, however its items are cut into runs.
fn one_by_one(frame: Frame) -> Frame {
    match frame {
        Frame::Items(items) => Frame::Items(split(items)),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_frame_reads_back(frame in values::frame()) {
        prop_assert_eq!(from_bytes(to_bytes(&frame)).map(one_by_one), Ok(one_by_one(frame)));
    }

    #[test]
    fn a_run_reads_back_as_one(run in values::run()) {
        let frame = Frame::Items(Items { batch: vec![run], ..Items::default() });
        prop_assert_eq!(from_bytes(to_bytes(&frame)), Ok(frame));
    }

    #[test]
    fn what_goes_on_is_joined(items in values::items()) {
        let read = Items::decode(items.encode()).unwrap();
        for (run, next) in read.batch.iter().zip(&read.batch[1.min(read.batch.len())..]) {
            let last = run.lineage.after(run.len() - 1);
            let (Content::Values(own, _), Content::Values(other, _)) = (&run.content, &next.content)
            else { continue };
            let goes_on = last.is_before(&next.lineage);
            prop_assert!(!goes_on || own != other || run.marked != next.marked, "{run:?} and {next:?}");
        }
    }

    #[test]
    fn the_encoding_does_not_tell_how_a_batch_was_cut(items in values::items()) {
        prop_assert_eq!(to_bytes(&items), to_bytes(&split(items)));
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

#[test]
fn the_largest_batch_reads_back() {
    let largest = |values: Option<Packed>| {
        let content = Content::Values(Encoding::Raw, values.unwrap());
        let run = Run::new(Lineage::root(StageId(3), 1 << 40), content);
        assert_eq!(run.len(), MAX_BATCH as u64);
        Items { batch: vec![run], ..Items::default() }
    };
    let count = MAX_BATCH as u32;
    let alike = largest(Packed::alike(vec![1; 3 * MAX_BATCH].into(), 3, count.into()));
    assert_eq!(from_bytes(to_bytes(&alike)), Ok(alike));
    let uneven = (1..=count).map(|n| 3 * n - n % 2);
    let uneven = uneven.map(|end| end.min(3 * count - 1)).collect();
    let uneven = largest(Packed::cut(vec![1; 3 * MAX_BATCH - 1].into(), uneven));
    assert_eq!(from_bytes(to_bytes(&uneven)), Ok(uneven.clone()));
    assert_eq!(from_bytes(to_bytes(&split(uneven.clone()))), Ok(uneven));
}

#[test]
fn a_run_ends_at_the_largest_root() {
    let values = Packed::alike(Bytes::from_static(b"abc"), 1, 3);
    let content = Content::Values(Encoding::Raw, values.unwrap());
    let batch = vec![Run::new(Lineage::root(StageId(0), u64::MAX - 1), content)];
    let read = Items::decode(Items { batch: batch.clone(), ..Items::default() }.encode()).unwrap();
    assert_eq!(read.batch, [batch[0].slice(0..2), batch[0].slice(2..3)]);
}
