//! Outputs that are computed ahead of whoever takes them.
//!
//! A function that blocks makes them on a thread of its own, as far ahead as they may wait: in number,
//! and the large ones in bytes, too. So neither many outputs nor large ones take memory without end.

use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};
use serde_json::Value;
use stageline_worker::sdk::StageError;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// How many outputs may wait.
const WAITING: usize = 64;
/// How many bytes of large ones, which are those that so many of would be more; a larger one waits alone.
const WAITING_BYTES: usize = 1 << 20;
const LARGE: usize = WAITING_BYTES / WAITING;

type Output = Result<Value, StageError>;

/// The outputs that `make` hands over, until it is answered that nobody takes them any more.
pub(super) fn ahead(
    make: impl FnOnce(&mut dyn FnMut(Output) -> bool) + Send + 'static,
) -> impl Stream<Item = Output> + Send + 'static {
    let (sender, receiver) = mpsc::channel(WAITING);
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    let here = Handle::current();
    let run = tokio::task::spawn_blocking(move || {
        make(&mut |output| {
            let size = output.as_ref().map_or(0, size);
            let room = (size >= LARGE).then(|| {
                let share = size.min(WAITING_BYTES) as u32;
                here.block_on(Arc::clone(&room).acquire_many_owned(share))
            });
            // The room is free again when the output is taken or dropped.
            sender.blocking_send((output, room)).is_ok()
        });
    });
    // A function that broke must not pass for one that had no more outputs.
    let broke = stream::once(run).filter_map(|end| async move {
        end.err().map(|error| Err(StageError::msg(format!("the expression broke: {error}"))))
    });
    ReceiverStream::new(receiver).map(|(output, _room)| output).chain(broke)
}

/// About how much memory a value takes.
fn size(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(size).sum(),
            Value::Object(values) => {
                values.iter().map(|(key, value)| key.len() + size(value)).sum()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Takes outputs of this size, and answers how many at the most had been made beyond those taken.
    async fn most_ahead(bytes: usize) -> usize {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let mut outputs = std::pin::pin!(ahead(move |give| {
            for _ in 0..300 {
                count.fetch_add(1, Ordering::SeqCst);
                if !give(Ok(Value::String("x".repeat(bytes)))) {
                    return;
                }
            }
        }));
        let (mut taken, mut most) = (0, 0);
        while let Some(output) = outputs.next().await {
            assert!(output.is_ok());
            taken += 1;
            tokio::task::yield_now().await;
            most = most.max(made.load(Ordering::SeqCst) - taken);
        }
        assert_eq!(taken, 300);
        most
    }

    #[tokio::test]
    async fn large_outputs_are_made_ahead_by_their_bytes() {
        let most = most_ahead(400_000).await;
        // Two wait, and one more waits for room.
        assert!(most <= 3, "{most} ahead");
        let most = most_ahead(3 << 20).await;
        assert!(most <= 2, "{most} ahead");
        assert!(most_ahead(10).await <= WAITING + 1);
    }

    #[tokio::test]
    async fn whoever_waits_for_room_hears_that_nobody_takes_it() {
        let (gone, hears) = tokio::sync::oneshot::channel();
        let mut outputs = Box::pin(ahead(move |give| {
            while give(Ok(Value::String("x".repeat(600_000)))) {}
            gone.send(()).unwrap();
        }));
        assert!(outputs.next().await.is_some());
        drop(outputs);
        hears.await.unwrap();
    }
}
