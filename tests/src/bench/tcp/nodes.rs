//! The processes of a chain of sockets: source, map, sink.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::frame::{self, Batch, Packer};
use crate::bench::node::{Node, Share, spawn};
use crate::bench::plan::{Role, SLOTS};
use crate::bench::window::Window;
use crate::bench::work;

/// What is read at a time, in bytes.
const READ: usize = 64 << 10;
/// How many outputs of a map that waits are packed together.
const TOGETHER: usize = 256;

/// Makes the items and sends them; returns when all are acked.
///
/// # Errors
/// When a connection breaks.
pub async fn source(node: Node, share: Share, to: String) -> Result<()> {
    let (mut sender, acks) = connect(&to).await?;
    let acks = spawn(acks.follow(sender.window.clone(), None));
    let mut packer = Packer::default();
    if let Some(pacer) = share.pacer() {
        for index in share.indexes() {
            packer.push(pacer.clone().make(index).await);
            sender.send(packer.take()).await?;
        }
    } else {
        for index in share.indexes() {
            packer.push(work::make(&node.plan, index));
            if packer.is_full() {
                sender.send(packer.take()).await?;
            }
        }
    }
    sender.finish(packer).await?;
    Ok(acks.await?)
}

/// Accepts connections, and is a map or a sink on each.
///
/// # Errors
/// When nothing can be accepted any more.
pub async fn serve(node: Node, listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let receiver = Receiver { read, buffer: BytesMut::with_capacity(READ) };
        let node = node.clone();
        spawn(async move {
            match node.role {
                Role::Sink => sink(&node, receiver, write).await,
                _ => map(node, receiver, write).await,
            }
        });
    }
}

async fn sink(node: &Node, mut receiver: Receiver, mut acks: OwnedWriteHalf) -> Result<()> {
    let mut count = 0_u64;
    while receiver.more().await? {
        let mut done = 0;
        while let Some((payload, length)) = frame::next(&receiver.buffer[done..]) {
            work::take(&node.plan, payload);
            done += length;
            count += 1;
        }
        receiver.buffer.advance(done);
        acks.write_all(&count.to_le_bytes()).await?;
    }
    Ok(())
}

async fn map(node: Node, receiver: Receiver, upstream: OwnedWriteHalf) -> Result<()> {
    let (sender, acks) = connect(node.downstream()?).await?;
    let acks = spawn(acks.follow(sender.window.clone(), Some(upstream)));
    if node.plan.waits(node.role) {
        map_waiting(&node, receiver, sender).await?;
    } else {
        map_at_once(&node, receiver, sender).await?;
    }
    Ok(acks.await?)
}

async fn map_at_once(node: &Node, mut receiver: Receiver, mut sender: Sender) -> Result<()> {
    let mut packer = Packer::default();
    while receiver.more().await? {
        let mut done = 0;
        while let Some((payload, length)) = frame::next(&receiver.buffer[done..]) {
            packer.push(work::map(&node.plan, payload));
            done += length;
            if packer.is_full() {
                sender.send(packer.take()).await?;
            }
        }
        receiver.buffer.advance(done);
        // Nothing more is there: what is packed shall not wait for it.
        if !packer.is_empty() {
            sender.send(packer.take()).await?;
        }
    }
    sender.finish(packer).await
}

/// With as many items at a time as there are slots.
async fn map_waiting(node: &Node, mut receiver: Receiver, mut sender: Sender) -> Result<()> {
    let (payloads, queue) = mpsc::channel::<Bytes>(SLOTS as usize);
    let reader = spawn(async move {
        while receiver.more().await? {
            while let Some((payload, length)) = frame::next(&receiver.buffer) {
                let payload = Bytes::copy_from_slice(payload);
                receiver.buffer.advance(length);
                payloads.send(payload).await?;
            }
        }
        Ok(())
    });
    let results = ReceiverStream::new(queue)
        .map(|payload| work::map_waiting(&node.plan, node.role, payload))
        .buffered(SLOTS as usize)
        .ready_chunks(TOGETHER);
    let mut results = std::pin::pin!(results);
    let mut packer = Packer::default();
    while let Some(ready) = results.next().await {
        ready.into_iter().for_each(|payload| packer.push(payload));
        sender.send(packer.take()).await?;
    }
    reader.await?;
    sender.finish(packer).await
}

async fn connect(to: &str) -> Result<(Sender, Acks)> {
    let stream = TcpStream::connect(to).await.with_context(|| format!("no connection to {to}"))?;
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    Ok((Sender { write, window: Arc::default() }, Acks(read)))
}

struct Sender {
    write: OwnedWriteHalf,
    window: Arc<Window<Batch>>,
}

impl Sender {
    async fn send(&mut self, mut batch: Batch) -> Result<()> {
        self.window.admit(batch.items, batch.bytes, batch.clone()).await;
        Ok(self.write.write_all_buf(&mut batch).await?)
    }

    /// Sends the rest, waits until all is acked, and says that nothing follows.
    async fn finish(mut self, mut packer: Packer) -> Result<()> {
        if !packer.is_empty() {
            self.send(packer.take()).await?;
        }
        self.window.drained().await;
        Ok(self.write.shutdown().await?)
    }
}

struct Acks(OwnedReadHalf);

impl Acks {
    /// Reads acks until there are no more, and passes them on.
    async fn follow(
        mut self,
        window: Arc<Window<Batch>>,
        mut upstream: Option<OwnedWriteHalf>,
    ) -> Result<()> {
        let mut buffer = BytesMut::with_capacity(1 << 10);
        while self.0.read_buf(&mut buffer).await? > 0 {
            let whole = buffer.len() / 8 * 8;
            let Some(last) = buffer[..whole].last_chunk::<8>().copied() else { continue };
            buffer.advance(whole);
            buffer.reserve(1 << 10);
            window.acked(u64::from_le_bytes(last));
            if let Some(upstream) = &mut upstream {
                upstream.write_all(&last).await?;
            }
        }
        ensure!(window.is_drained(), "the connection ended before everything was acked");
        Ok(())
    }
}

struct Receiver {
    read: OwnedReadHalf,
    buffer: BytesMut,
}

impl Receiver {
    /// Reads more; false at the end.
    async fn more(&mut self) -> Result<bool> {
        self.buffer.reserve(frame::missing(&self.buffer).max(READ));
        Ok(self.read.read_buf(&mut self.buffer).await? > 0)
    }
}
