//! `tonic-item`: what comes from one call goes, through the function, into the next.

use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Result, ensure};
use futures_util::stream;
use futures_util::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::wire::{Ack, Item};
use super::{Acks, dial};
use crate::bench::node::{Node, Share};
use crate::bench::plan::{Plan, Role, SLOTS};
use crate::bench::work;

/// A sink acks when it has nothing to read, and after so many items at the latest.
const ACK_EVERY: u64 = 256;

pub(super) async fn source(node: Node, share: Share, to: String) -> Result<()> {
    let mut acks = dial(&to).await?.single(items(node.plan, share)).await?.into_inner();
    let mut acked = 0;
    while let Some(ack) = acks.message().await? {
        acked = ack.count;
    }
    ensure!(acked == share.items(), "{acked} of {} items were acked", share.items());
    Ok(())
}

fn items(plan: Plan, share: Share) -> impl Stream<Item = Item> + Send + 'static {
    let indexes = stream::iter(share.indexes());
    match share.pacer() {
        Some(pacer) => indexes
            .then(move |index| pacer.clone().make(index))
            .map(|payload| Item { payload })
            .left_stream(),
        None => indexes.map(move |index| Item { payload: work::make(&plan, index) }).right_stream(),
    }
}

pub(super) async fn answer(node: Node, call: Streaming<Item>) -> Result<Acks> {
    if node.role == Role::Sink {
        return Ok(Box::pin(Sink { node, call, count: 0, acked: 0, over: false }));
    }
    // A call that breaks ends early, and the source sees that acks are missing.
    let items = call.scan((), |(), item| ready(item.ok()));
    let mut next = dial(node.downstream()?).await?;
    let plan = node.plan;
    let answer = if plan.waits(node.role) {
        let wait = move |item: Item| async move {
            Item { payload: work::map_waiting(&plan, node.role, item.payload).await }
        };
        next.single(items.map(wait).buffered(SLOTS as usize)).await?
    } else {
        let map = move |item: Item| Item { payload: work::map(&plan, &item.payload) };
        next.single(items.map(map)).await?
    };
    // What the next process has acked is safe.
    Ok(Box::pin(answer.into_inner()))
}

/// Takes the items while its acks are read.
struct Sink {
    node: Node,
    call: Streaming<Item>,
    count: u64,
    acked: u64,
    over: bool,
}

impl Stream for Sink {
    type Item = Result<Ack, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.over && self.count < self.acked + ACK_EVERY {
            match self.call.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(item))) => {
                    work::take(&self.node.plan, &item.payload);
                    self.count += 1;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => self.over = true,
                Poll::Pending if self.count == self.acked => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if self.count == self.acked {
            return Poll::Ready(None);
        }
        self.acked = self.count;
        Poll::Ready(Some(Ok(Ack { count: self.count })))
    }
}
