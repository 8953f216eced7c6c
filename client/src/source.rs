//! Where roots come from in the client's process.

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
