//! What a batch costs, and that payloads are not copied.

use bytes::Bytes;
use prost::Message;
use stageline_protocol::frame::Items;
use stageline_protocol::{
    Body, Content, Encoding, ErrorKind, Frame, Item, ItemError, Lineage, Packed, Run, StageId, Step,
};

use super::{from_bytes, to_bytes};
use crate::{Wire, v1};

fn value(root: u64, content: &Bytes) -> Item {
    let body = Body::Value(Encoding::MessagePack, content.clone());
    Item::new(Lineage::root(StageId(0), root), body)
}

/// Each a run of its own.
fn frame(batch: Vec<Item>) -> Frame {
    let batch = batch.into_iter().map(Run::from).collect();
    Frame::Items(Items { batch, ..Items::default() })
}

/// The bytes that a batch takes beyond its contents. It reads back as one run.
fn overhead(batch: Vec<Item>) -> usize {
    let contents: usize = batch
        .iter()
        .map(|item| match &item.body {
            Body::Value(_, content) => content.len(),
            _ => 0,
        })
        .sum();
    let bytes = to_bytes(&frame(batch.clone()));
    let overhead = bytes.len() - contents;
    let Ok(Frame::Items(read)) = from_bytes(bytes) else { panic!("not a batch") };
    assert_eq!(read.batch.len(), 1);
    assert_eq!(read.batch[0].items().collect::<Vec<_>>(), batch);
    overhead
}

#[test]
fn a_batch_of_a_source_costs_its_blob_and_a_few_bytes() {
    let content = Bytes::from_static(&[7; 16]);
    let batch = (1_000_000..).take(256).map(|root| value(root, &content)).collect();
    let overhead = overhead(batch);
    println!("256 items of 16 B with consecutive roots: 4096 + {overhead} bytes");
    assert!(overhead < 20, "{overhead}");
}

#[test]
fn a_batch_of_an_expansion_costs_its_steps_besides() {
    let content = Bytes::from_static(&[7; 16]);
    let root = value(1_000_000, &content);
    let output = |n| Item { lineage: root.lineage.with(Step::Output(n)), ..root.clone() };
    let overhead = overhead((0..128).map(output).collect());
    println!("128 outputs of one root, 16 B each: 2048 + {overhead} bytes");
    assert!(overhead < 2 * 128 + 20, "{overhead}");
}

#[test]
fn an_empty_batch_is_its_senders_state() {
    assert_eq!(to_bytes(&Frame::Items(Items::default())).len(), 2);
    let state = Frame::Items(Items { backlog: 1_000, ..Items::default() });
    let bytes = to_bytes(&state);
    assert!(bytes.len() < 8);
    assert_eq!(from_bytes(bytes), Ok(state));
}

#[test]
fn contents_are_slices_of_the_received_message() {
    let error = ItemError {
        stage: "parse".to_owned(),
        kind: ErrorKind::Failed,
        message: "no number".to_owned(),
        attempts: 1,
        worker: "w".to_owned(),
    };
    let error = Body::Error(Box::new(error));
    let batch = vec![
        value(1, &Bytes::from_static(&[1; 40])),
        value(2, &Bytes::from_static(b"!")),
        Item::new(Lineage::root(StageId(0), 3), error),
        value(4, &Bytes::from_static(b"!!")),
    ];
    let bytes = to_bytes(&frame(batch.clone()));
    let message = bytes.as_ptr_range();
    let Ok(Frame::Items(items)) = from_bytes(bytes.clone()) else { panic!("not a batch") };
    assert_eq!(items.batch.iter().map(Run::len).collect::<Vec<_>>(), [2, 1, 1]);
    assert_eq!(items.batch.iter().flat_map(Run::items).collect::<Vec<_>>(), batch);
    for run in items.batch {
        let Content::Values(_, values) = run.content else { continue };
        assert!(message.contains(&values.blob().as_ptr()), "copied");
    }
}

#[test]
fn a_batch_of_one_run_is_not_copied_to_be_sent() {
    let blob = Bytes::from(vec![1; 1_000]);
    for values in [
        Packed::from(blob.clone()),
        Packed::alike(blob.clone(), 10, 100).unwrap(),
        Packed::cut(blob.clone(), vec![1, 7, 1_000]).unwrap(),
    ] {
        let content = Content::Values(Encoding::Raw, values);
        let batch = vec![Run::new(Lineage::root(StageId(0), 1), content)];
        let items = Items { batch, ..Items::default() };
        assert_eq!(items.encode().blob.as_ptr(), blob.as_ptr());
    }
}

#[test]
fn lengths_that_are_alike_are_one_however_they_were_cut() {
    let lengths = |values: &[Packed]| {
        let run = |(root, values): (u64, &Packed)| {
            let content = Content::Values(Encoding::Raw, values.clone());
            Run::new(Lineage::root(StageId(0), root), content)
        };
        let batch = (0..).step_by(10).zip(values).map(run).collect();
        let items = Items { batch, ..Items::default() }.encode();
        (items.length, items.lengths)
    };
    let cut = |blob: &'static str, ends: &[u32]| Packed::cut(blob.into(), ends.to_vec()).unwrap();
    assert_eq!(lengths(&[cut("aabb", &[2, 4])]), (2, vec![]));
    assert_eq!(lengths(&[cut("aabb", &[2, 4]), Bytes::from("cc").into()]), (2, vec![]));
    assert_eq!(lengths(&[cut("aabb", &[2, 4]), Bytes::from("c").into()]), (0, vec![2, 2, 1]));
    assert_eq!(lengths(&[cut("", &[0, 0])]), (0, vec![0, 0]));
}

/// What one end sends today the other must read for years: these bytes do not change.
#[test]
fn the_format_stays_as_it_is() {
    let batch = vec![
        value(5, &Bytes::from_static(b"ab")),
        value(6, &Bytes::from_static(b"c")),
        Item::new(Lineage::root(StageId(0), 6).with(Step::End(1)), Body::End),
    ];
    let watermarks = vec![(StageId(0), 5)];
    let batch = batch.into_iter().map(Run::from).collect();
    let sent = Items { batch, backlog: 3, forfeited: 4, watermarks };
    let golden: &[u8] = &[
        0x1a, 38, // LinkFrame.items
        0x0a, 3, b'a', b'b', b'c', // blob
        0x1a, 3, 2, 1, 0, // lengths
        0x2a, 3, 0, 0, 3, // kinds
        0x40, 5, // first_root
        0x52, 2, 2, 0, // root_deltas: +1, 0
        0x5a, 2, 2, 1, // steps: end of 1
        0x62, 3, 0, 0, 1, // step_counts
        0x68, 3, // backlog
        0x70, 4, // forfeited
        0x7a, 2, 0x10, 5, // watermarks
    ];
    assert_eq!(to_bytes(&Frame::Items(sent.clone())), golden);
    let read = v1::LinkFrame::decode(golden).unwrap();
    let Ok(Frame::Items(read)) = Frame::decode(read) else { panic!("not a batch") };
    let items = |items: &Items| items.batch.iter().flat_map(Run::items).collect::<Vec<_>>();
    assert_eq!(items(&read), items(&sent));
    assert_eq!(Items { batch: vec![], ..read }, Items { batch: vec![], ..sent });
}
