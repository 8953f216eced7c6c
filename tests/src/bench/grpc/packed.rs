//! `tonic-packed`: the work, and a task and a channel between it and each call.

use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::Streaming;

use super::pack::{self, Packer};
use super::wire::{Ack, Pack};
use super::{Acks, dial};
use crate::bench::node::{Node, Share, spawn};
use crate::bench::plan::{Role, SLOTS};
use crate::bench::window::Window;
use crate::bench::work;

/// Messages between the work and a call, at the most.
const QUEUE: usize = 4;
/// A sink acks when it has nothing to read, and after so many packs at the latest.
const ACK_EVERY: u64 = 8;
/// How many outputs of a map that waits are packed together.
const TOGETHER: usize = 256;

pub(super) async fn source(node: Node, share: Share, to: String) -> Result<()> {
    let (mut sender, acks) = connect(&to, None).await?;
    let mut packer = Packer::default();
    if let Some(pacer) = share.pacer() {
        for index in share.indexes() {
            sender.add(&mut packer, &pacer.clone().make(index).await).await?;
            sender.flush(&mut packer).await?;
        }
    } else {
        for index in share.indexes() {
            sender.add(&mut packer, &work::make(&node.plan, index)).await?;
        }
    }
    sender.finish(packer).await?;
    Ok(acks.await?)
}

pub(super) async fn answer(node: Node, call: Streaming<Pack>) -> Result<Acks> {
    let (counts, acks) = watch::channel(0);
    let packs = receive(call);
    if node.role == Role::Sink {
        spawn(sink(node, packs, counts));
    } else {
        let (sender, _acks) = connect(node.downstream()?, Some(counts)).await?;
        spawn(async move {
            if node.plan.waits(node.role) {
                map_waiting(&node, packs, sender).await
            } else {
                map(&node, packs, sender).await
            }
        });
    }
    // What was acked in between is in what is acked last.
    Ok(Box::pin(WatchStream::from_changes(acks).map(|count| Ok(Ack { count }))))
}

/// Reads a call into a channel, by a task of its own.
fn receive(mut call: Streaming<Pack>) -> mpsc::Receiver<Pack> {
    let (queue, packs) = mpsc::channel(QUEUE);
    spawn(async move {
        while let Some(pack) = call.message().await? {
            let bytes: usize = pack.lengths.iter().map(|length| *length as usize).sum();
            ensure!(bytes == pack.blob.len(), "a pack of {bytes} bytes has {}", pack.blob.len());
            queue.send(pack).await?;
        }
        Ok(())
    });
    packs
}

async fn sink(node: Node, mut packs: mpsc::Receiver<Pack>, acks: watch::Sender<u64>) -> Result<()> {
    let (mut count, mut unacked) = (0, 0);
    while let Some(pack) = packs.recv().await {
        let mut rest = &pack.blob[..];
        for length in &pack.lengths {
            let (payload, behind) = rest.split_at(*length as usize);
            work::take(&node.plan, payload);
            rest = behind;
        }
        count += pack.lengths.len() as u64;
        unacked += 1;
        if packs.is_empty() || unacked == ACK_EVERY {
            unacked = 0;
            acks.send_replace(count);
        }
    }
    Ok(())
}

async fn map(node: &Node, mut packs: mpsc::Receiver<Pack>, mut sender: Sender) -> Result<()> {
    let mut packer = Packer::default();
    while let Some(pack) = packs.recv().await {
        let mut rest = &pack.blob[..];
        for length in &pack.lengths {
            let (payload, behind) = rest.split_at(*length as usize);
            sender.add(&mut packer, &work::map(&node.plan, payload)).await?;
            rest = behind;
        }
        // Nothing more is there: what is packed shall not wait for it.
        if packs.is_empty() {
            sender.flush(&mut packer).await?;
        }
    }
    sender.finish(packer).await
}

/// With as many items at a time as there are slots.
async fn map_waiting(node: &Node, packs: mpsc::Receiver<Pack>, mut sender: Sender) -> Result<()> {
    let results = ReceiverStream::new(packs)
        .flat_map(|pack| futures_util::stream::iter(pack.payloads().collect::<Vec<_>>()))
        .map(|payload| work::map_waiting(&node.plan, node.role, payload))
        .buffered(SLOTS as usize)
        .ready_chunks(TOGETHER);
    let mut results = std::pin::pin!(results);
    let mut packer = Packer::default();
    while let Some(ready) = results.next().await {
        for payload in ready {
            sender.add(&mut packer, &payload).await?;
        }
        sender.flush(&mut packer).await?;
    }
    sender.finish(packer).await
}

struct Sender {
    queue: mpsc::Sender<Pack>,
    window: Arc<Window<Pack>>,
}

/// A call to the next process; its acks are passed on.
async fn connect(
    to: &str,
    upstream: Option<watch::Sender<u64>>,
) -> Result<(Sender, JoinHandle<()>)> {
    let (queue, packs) = mpsc::channel(QUEUE);
    let mut acks = dial(to).await?.packed(ReceiverStream::new(packs)).await?.into_inner();
    let window = Arc::<Window<Pack>>::default();
    let retained = window.clone();
    let acks = spawn(async move {
        while let Some(ack) = acks.message().await? {
            retained.acked(ack.count);
            if let Some(upstream) = &upstream {
                upstream.send_replace(ack.count);
            }
        }
        ensure!(retained.is_drained(), "the call ended before everything was acked");
        Ok(())
    });
    Ok((Sender { queue, window }, acks))
}

impl Sender {
    async fn add(&mut self, packer: &mut Packer, payload: &Bytes) -> Result<()> {
        if !packer.has_room_for(payload) {
            self.flush(packer).await?;
        }
        if payload.len() >= pack::BYTES {
            // It is not copied to be alone.
            let length = u32::try_from(payload.len())?;
            return self.send(Pack { blob: payload.clone(), lengths: vec![length] }).await;
        }
        packer.push(payload);
        Ok(())
    }

    async fn flush(&mut self, packer: &mut Packer) -> Result<()> {
        let Some(pack) = packer.take() else { return Ok(()) };
        self.send(pack).await?;
        // The memory of what is safe serves again.
        if let Some(spare) = self.window.spare() {
            packer.reuse(spare);
        }
        Ok(())
    }

    async fn send(&mut self, pack: Pack) -> Result<()> {
        let items = pack.lengths.len() as u64;
        self.window.admit(items, pack.blob.len(), pack.clone()).await;
        Ok(self.queue.send(pack).await?)
    }

    /// Sends the rest, waits until all is acked, and says that nothing follows.
    async fn finish(mut self, mut packer: Packer) -> Result<()> {
        self.flush(&mut packer).await?;
        self.window.drained().await;
        Ok(())
    }
}
