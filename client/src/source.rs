//! Where roots come from in the client's process.

use futures_util::StreamExt;
use serde::Serialize;
use stageline_protocol::ErrorKind;
use stageline_worker::runtime::RootStream;
use stageline_worker::sdk::{DEFAULT_MAX_PAYLOAD, Fault, Payload, StageError, codec};
use tokio::sync::mpsc;

/// The pushing end of [`Stream::channel`](crate::Stream::channel). Cloned freely; the source is
/// exhausted when the last one is dropped.
#[derive(Debug)]
pub struct Sender<T> {
    inner: mpsc::Sender<T>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T> Sender<T> {
    pub(crate) const fn new(inner: mpsc::Sender<T>) -> Self {
        Self { inner }
    }

    /// Pushes an item. Waits while the channel is full: that is how a slow pipeline slows the program
    /// down. Cancel safe: an item whose push was dropped was not pushed.
    ///
    /// # Errors
    /// Gives the item back if the job is over.
    pub async fn send(&self, item: T) -> Result<(), T> {
        self.inner.send(item).await.map_err(|error| error.0)
    }
}

pub(crate) fn roots<T: Serialize + 'static>(
    items: impl futures_util::Stream<Item = Result<T, StageError>> + Send + 'static,
) -> RootStream {
    items.map(|item| encode(item)).boxed()
}

fn encode<T: Serialize + 'static>(item: Result<T, StageError>) -> Result<Payload, Fault> {
    let fault = |kind, message| Fault { kind, message, attempts: 1 };
    let item = item.map_err(|error| fault(ErrorKind::Failed, error.to_string()))?;
    let (encoding, bytes) =
        codec::encode(&item).map_err(|error| fault(ErrorKind::Encode, error.to_string()))?;
    if bytes.len() > DEFAULT_MAX_PAYLOAD {
        let message = format!(
            "the source made a payload of {} bytes; the largest is {DEFAULT_MAX_PAYLOAD}",
            bytes.len()
        );
        return Err(fault(ErrorKind::TooLarge, message));
    }
    Ok(Payload { encoding, bytes })
}
