//! What a batch costs, and that payloads are not copied.

use bytes::Bytes;
use prost::Message;
use stageline_protocol::frame::Items;
use stageline_protocol::{Body, Encoding, Frame, Item, Lineage, StageId, Step};

use super::{from_bytes, to_bytes};
use crate::{Wire, v1};

fn value(root: u64, content: &Bytes) -> Item {
    let body = Body::Value(Encoding::MessagePack, content.clone());
    Item::new(Lineage::root(StageId(0), root), body)
}

/// The bytes that a batch takes beyond its contents.
fn overhead(batch: Vec<Item>, backlog: u64) -> usize {
    let contents: usize = batch
        .iter()
        .map(|item| match &item.body {
            Body::Value(_, content) => content.len(),
            _ => 0,
        })
        .sum();
    let frame = Frame::Items(Items { batch, backlog, ..Items::default() });
    let bytes = to_bytes(&frame);
    let overhead = bytes.len() - contents;
    assert_eq!(from_bytes(bytes), Ok(frame));
    overhead
}

#[test]
fn a_batch_of_a_source_costs_its_blob_and_a_few_bytes() {
    let content = Bytes::from_static(&[7; 16]);
    let batch = (1_000_000..).take(256).map(|root| value(root, &content)).collect();
    let overhead = overhead(batch, 1_000);
    println!("256 items of 16 B with consecutive roots: 4096 + {overhead} bytes");
    assert!(overhead < 20, "{overhead}");
}

#[test]
fn a_batch_of_an_expansion_costs_its_steps_besides() {
    let content = Bytes::from_static(&[7; 16]);
    let root = value(1_000_000, &content);
    let output = |n| Item { lineage: root.lineage.with(Step::Output(n)), ..root.clone() };
    let overhead = overhead((0..128).map(output).collect(), 0);
    println!("128 outputs of one root, 16 B each: 2048 + {overhead} bytes");
    assert!(overhead < 2 * 128 + 20, "{overhead}");
}

#[test]
fn an_empty_batch_is_its_senders_state() {
    assert_eq!(to_bytes(&Frame::Items(Items::default())).len(), 2);
    assert!(overhead(Vec::new(), 1_000) < 8);
}

#[test]
fn contents_are_slices_of_the_received_message() {
    let batch = vec![value(1, &Bytes::from_static(&[1; 40])), value(2, &Bytes::from_static(b"!"))];
    let bytes = to_bytes(&Frame::Items(Items { batch, ..Items::default() }));
    let message = bytes.as_ptr_range();
    let Ok(Frame::Items(items)) = from_bytes(bytes.clone()) else { panic!("not a batch") };
    for item in items.batch {
        let Body::Value(_, content) = item.body else { panic!("not a value") };
        assert!(message.contains(&content.as_ptr()), "copied");
    }
}

#[test]
fn a_batch_of_one_is_not_copied_to_be_sent() {
    let content = Bytes::from(vec![1; 1_000]);
    let items = Items { batch: vec![value(1, &content)], ..Items::default() };
    assert_eq!(items.encode().blob.as_ptr(), content.as_ptr());
}

/// What one end sends today the other must read for years: these bytes do not change.
#[test]
fn the_format_stays_as_it_is() {
    let batch = vec![
        value(5, &Bytes::from_static(b"ab")),
        value(6, &Bytes::from_static(b"c")),
        Item::new(Lineage::root(StageId(0), 6).with(Step::End(1)), Body::End),
    ];
    let frame =
        Frame::Items(Items { batch, backlog: 3, forfeited: 4, watermarks: vec![(StageId(0), 5)] });
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
    assert_eq!(to_bytes(&frame), golden);
    let read = v1::LinkFrame::decode(golden).unwrap();
    assert_eq!(Frame::decode(read), Ok(frame));
}
