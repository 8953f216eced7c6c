//! One end of a connection under a link, as the task loop holds it.
//!
//! Towards a task of the same process, frames are handed over as they are. Over gRPC they go through
//! a short queue to the transport: when it is full, the task's machine is asked for no more frames of
//! that link, so that cumulative frames (grants, acks) melt together instead of piling up.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::Stream;
use stageline_proto::{Wire, v1};
use stageline_protocol::task::LinkKey;
use stageline_protocol::{ConnId, Frame};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::census::Tally;
use super::task::{Event, TaskSender};

/// Frames that wait for the transport, at the most.
const OUTBOX: usize = 16;
/// Frames of one connection that wait for their task loop, at the most.
pub(super) const INBOX: usize = 64;

/// The sending side of a connection. Dropping it ends the connection once its frames are out.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(super) conn: ConnId,
    way: Way,
    _tally: Tally,
}

#[derive(Debug)]
enum Way {
    /// To a task in this process: how that task names the link, and its loop.
    Local(LinkKey, TaskSender),
    Grpc {
        queue: mpsc::Sender<Frame>,
        state: Arc<OutState>,
        _hang_up: DropGuard,
    },
}

#[derive(Debug)]
struct OutState {
    full: AtomicBool,
    writable: Arc<Notify>,
}

/// Whether a frame could be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Handed {
    /// It was, and more would be.
    Ready,
    /// It was, but the next one would not be.
    Full,
    /// The connection is gone.
    Gone,
}

impl Outbound {
    pub(super) fn local(conn: ConnId, key: LinkKey, to: TaskSender, tally: Tally) -> Self {
        Self { conn, way: Way::Local(key, to), _tally: tally }
    }

    /// A connection over gRPC: the sending side, the stream that the transport reads, and the token
    /// that is cancelled when the sending side is dropped. `writable` is notified when a full queue
    /// has room again.
    pub(super) fn grpc(
        conn: ConnId,
        writable: Arc<Notify>,
        tally: Tally,
    ) -> (Self, OutboundStream, CancellationToken) {
        let (queue, frames) = mpsc::channel(OUTBOX);
        let state = Arc::new(OutState { full: AtomicBool::new(false), writable });
        let hang_up = CancellationToken::new();
        let way = Way::Grpc { queue, state: state.clone(), _hang_up: hang_up.clone().drop_guard() };
        (Self { conn, way, _tally: tally }, OutboundStream { frames, state }, hang_up)
    }

    pub(super) fn hand(&self, frame: Frame) -> Handed {
        match &self.way {
            Way::Local(key, to) => {
                let event = Event::Frame { key: *key, conn: self.conn, frame, permit: None };
                if to.send(event).is_ok() { Handed::Ready } else { Handed::Gone }
            }
            Way::Grpc { queue, state, .. } => match queue.try_send(frame) {
                Ok(()) if queue.capacity() > 0 => Handed::Ready,
                Ok(()) => {
                    state.full.store(true, Ordering::SeqCst);
                    if queue.capacity() > 0 { Handed::Ready } else { Handed::Full }
                }
                Err(_) => Handed::Gone,
            },
        }
    }

    pub(super) fn has_room(&self) -> bool {
        match &self.way {
            Way::Local(..) => true,
            Way::Grpc { queue, .. } => queue.capacity() > 0,
        }
    }

    /// Tells a task of this process that the connection is over. Over gRPC, dropping does that.
    pub(super) fn close(self) {
        if let Way::Local(key, to) = &self.way {
            let _gone_already = to.send(Event::Down { key: *key, conn: self.conn });
        }
    }
}

/// The frames of a connection, encoded, for the transport to read.
#[derive(Debug)]
pub(crate) struct OutboundStream {
    frames: mpsc::Receiver<Frame>,
    state: Arc<OutState>,
}

impl Stream for OutboundStream {
    type Item = v1::LinkFrame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<v1::LinkFrame>> {
        let frame = self.frames.poll_recv(cx);
        if frame.is_ready() && self.state.full.swap(false, Ordering::SeqCst) {
            self.state.writable.notify_one();
        }
        frame.map(|frame| frame.map(|frame| frame.encode()))
    }
}

/// Bounds how many frames of a connection wait for their task loop.
#[derive(Clone, Debug)]
pub(super) struct Inbox(Arc<tokio::sync::Semaphore>);

impl Inbox {
    pub(super) fn new() -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(INBOX)))
    }

    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_owned().await.ok()
    }
}
