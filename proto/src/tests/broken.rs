//! Each rule of the format, broken once: the error names the field.

use bytes::Bytes;
use prost::Message;
use stageline_protocol::control::{Down, JobView, TaskStats, Up};
use stageline_protocol::frame::Items;
use stageline_protocol::ranges::Settled;
use stageline_protocol::{Frame, VersionRange};

use super::complaint;
use crate::v1::link_frame::Frame as Choice;
use crate::{MAX_BATCH, MAX_BLOB, MAX_STEPS, Problem, Wire, v1};

/// Three values of two bytes.
fn good() -> v1::Items {
    v1::Items { blob: Bytes::from_static(b"aabbcc"), length: 2, ..v1::Items::default() }
}

#[test]
fn a_batch_whose_columns_disagree_is_refused() {
    assert_eq!(Items::decode(good()).unwrap().count(), 3);

    type Break = fn(&mut v1::Items);
    let cases: [(&str, Break); 26] = [
        ("length", |p| p.length = 4),
        ("length", |p| p.length = u64::MAX),
        ("length", |p| p.blob = Bytes::new()),
        ("length", |p| p.lengths = vec![2, 2, 2]),
        ("lengths", |p| p.length = 0),
        ("lengths", |p| (p.length, p.lengths) = (0, vec![2, 2, 1])),
        ("lengths", |p| (p.length, p.lengths) = (0, vec![2, 2, 2, 2])),
        ("lengths", |p| (p.length, p.lengths) = (0, vec![u64::MAX, 7])),
        ("kind", |p| p.kind = 9),
        ("kind", |p| (p.kind, p.kinds) = (1, vec![0, 1, 0])),
        ("kinds", |p| p.kinds = vec![0, 1]),
        ("kinds[1]", |p| p.kinds = vec![0, -1, 0]),
        ("sources", |p| p.sources = vec![1, 2, 3, 4]),
        ("source", |p| (p.source, p.sources) = (1, vec![1, 2, 3])),
        ("source", |p| (p.source, p.sources) = (1, vec![1, 1, 1])),
        ("root_deltas", |p| p.root_deltas = vec![1, 2, 3]),
        ("root_delta", |p| (p.root_delta, p.root_deltas) = (Some(1), vec![1, 2])),
        ("steps", |p| p.steps = vec![0, 1, 0]),
        ("steps", |p| p.steps = vec![0, 1, 0, 1]),
        ("steps[2]", |p| p.steps = vec![0, 1, 3, 1, 0, 1]),
        ("steps[4]", |p| p.steps = vec![0, 1, 0, 1, 1, 1 << 32]),
        ("step_counts", |p| p.step_counts = vec![1, 0]),
        ("step_counts", |p| (p.steps, p.step_counts) = (vec![0, 1], vec![1, 1, 0])),
        ("marked", |p| (p.marked, p.marks) = (true, vec![1])),
        ("marks", |p| p.marks = vec![1, 1]),
        ("marks", |p| p.marks = vec![0, 3]),
    ];
    for (i, (field, breaks)) in cases.into_iter().enumerate() {
        let mut items = good();
        breaks(&mut items);
        let frame = v1::LinkFrame { frame: Some(Choice::Items(items)) };
        let (path, problem) = complaint::<Frame>(frame);
        assert_eq!(path, format!("Items.{field}"), "case {i}: {problem}");
    }
}

#[test]
fn columns_without_items_are_refused() {
    for items in [
        v1::Items { kinds: vec![0], ..v1::Items::default() },
        v1::Items { sources: vec![0], ..v1::Items::default() },
        v1::Items { root_deltas: vec![0], ..v1::Items::default() },
        v1::Items { steps: vec![0, 0], ..v1::Items::default() },
        v1::Items { step_counts: vec![0], ..v1::Items::default() },
        v1::Items { blob: Bytes::from_static(b"a"), ..v1::Items::default() },
    ] {
        assert!(Items::decode(items.clone()).is_err(), "{items:?}");
    }
}

#[test]
fn a_batch_above_a_limit_is_refused() {
    let limit = |items| match complaint::<Items>(items) {
        (path, Problem::Limit { limit, found }) => (path, limit, found),
        other => panic!("{other:?}"),
    };
    let blob = |n| Bytes::from(vec![0; n]);

    let most = v1::Items { blob: blob(MAX_BATCH), length: 1, ..v1::Items::default() };
    assert_eq!(Items::decode(most).unwrap().count(), MAX_BATCH as u64);
    let many = v1::Items { blob: blob(MAX_BATCH + 1), length: 1, ..v1::Items::default() };
    assert_eq!(limit(many), ("length".to_owned(), MAX_BATCH, MAX_BATCH + 1));
    let empty = v1::Items { lengths: vec![0; MAX_BATCH + 1], ..v1::Items::default() };
    assert_eq!(limit(empty), ("lengths".to_owned(), MAX_BATCH, MAX_BATCH + 1));
    let large = v1::Items { blob: blob(MAX_BLOB + 1), length: 1, ..v1::Items::default() };
    assert_eq!(limit(large), ("blob".to_owned(), MAX_BLOB, MAX_BLOB + 1));

    let deep = |n: usize| v1::Items { steps: vec![0; 6 * n], ..good() };
    assert!(Items::decode(deep(MAX_STEPS)).is_ok());
    assert_eq!(limit(deep(MAX_STEPS + 1)), ("steps".to_owned(), MAX_STEPS, MAX_STEPS + 1));
    let uneven = v1::Items { step_counts: vec![0, u32::MAX, 0], ..good() };
    assert_eq!(limit(uneven), ("step_counts".to_owned(), MAX_STEPS, u32::MAX as usize));
}

#[test]
fn an_error_item_or_an_end_with_a_wrong_content_is_named_by_its_place() {
    let with = |content: Vec<u8>, kind| v1::Items {
        lengths: vec![0, content.len() as u64],
        blob: content.into(),
        kinds: vec![0, kind],
        ..v1::Items::default()
    };
    assert_eq!(complaint::<Items>(with(b"x".to_vec(), 3)).0, "blob[1]");
    let (path, problem) = complaint::<Items>(with(vec![0xff; 3], 2));
    assert_eq!(path, "blob[1]");
    assert!(matches!(problem, Problem::NotAMessage(_)), "{problem}");
    let unknown = v1::ItemError { kind: 99, ..v1::ItemError::default() };
    let (path, problem) = complaint::<Items>(with(unknown.encode_to_vec(), 2));
    assert_eq!((path.as_str(), problem), ("blob[1].kind", Problem::Unknown(99)));
}

#[test]
fn ranges_that_are_not_ranges_are_refused() {
    let bad = [
        vec![1],
        vec![1, 0],
        vec![0, 1],
        vec![1, 1, 0, 1],
        vec![u64::MAX, 1],
        vec![1, u64::MAX],
        vec![1, 1, 1, u64::MAX],
    ];
    for above in bad {
        let (path, _) = complaint::<Settled>(v1::Settled { prefix: 3, above });
        assert_eq!(path, "above");
    }
    // From the very start a range may begin at once.
    let returned = v1::Return { numbers: vec![0, 1] };
    let frame = v1::LinkFrame { frame: Some(Choice::Return(returned)) };
    assert!(Frame::decode(frame).is_ok());
}

#[test]
fn what_must_be_set_is_named_when_it_is_not() {
    let frame = |frame| complaint::<Frame>(v1::LinkFrame { frame });
    assert_eq!(frame(None), ("LinkFrame.frame".into(), Problem::Missing));
    assert_eq!(frame(Some(Choice::Ack(v1::Ack::default()))).0, "Ack.settled");
    assert_eq!(frame(Some(Choice::Open(v1::Open::default()))).0, "Open.versions");
    let open = v1::Open {
        versions: Some(v1::VersionRange::default()),
        link: Some(v1::LinkId { to: Some(v1::TaskId::default()), ..v1::LinkId::default() }),
        ..v1::Open::default()
    };
    assert_eq!(frame(Some(Choice::Open(open))).0, "Open.link.from");
    let accept = v1::Accept { summary: Some(v1::Summary::default()), ..v1::Accept::default() };
    assert_eq!(frame(Some(Choice::Accept(accept))).0, "Accept.summary.conn");
    assert_eq!(
        frame(Some(Choice::Close(v1::Close::default()))),
        ("Close.reason".into(), Problem::Unknown(0))
    );

    assert_eq!(complaint::<Up>(v1::SessionUp { message: None }).0, "SessionUp.message");
    assert_eq!(complaint::<Down>(v1::SessionDown { message: None }).0, "SessionDown.message");
    let stages = vec![v1::Stage { op: 2, site: 1, ..v1::Stage::default() }, v1::Stage::default()];
    let pipeline = Some(v1::Pipeline { stages, ..v1::Pipeline::default() });
    let view = v1::JobView { pipeline, ..v1::JobView::default() };
    assert_eq!(complaint::<JobView>(view).0, "pipeline.stages[1].op");
}

#[test]
fn one_kind_of_error_is_counted_once() {
    let twice = vec![v1::ErrorCount { kind: 1, count: 2 }; 2];
    let stats = v1::TaskStats { errors: twice, ..v1::TaskStats::default() };
    assert_eq!(complaint::<TaskStats>(stats).0, "errors");
}

#[test]
fn a_range_of_versions_is_not_upside_down() {
    assert_eq!(complaint::<VersionRange>(v1::VersionRange { oldest: 2, newest: 1 }).0, "oldest");
}

#[test]
fn an_error_reads_as_a_sentence() {
    let close = v1::Close { reason: 77, message: String::new() };
    let error = Frame::decode(v1::LinkFrame { frame: Some(Choice::Close(close)) }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Close.reason has the value 77, which this version does not know"
    );
    let error = Items::decode(v1::Items { kinds: vec![0], ..good() }).unwrap_err();
    assert_eq!(error.to_string(), "kinds has 1 entries where 3 are due");
}
