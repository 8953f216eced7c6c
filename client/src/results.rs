//! A running job, and the stream of its results.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::de::DeserializeOwned;
use stageline_protocol::control::{JobPhase, JobStatus};
use stageline_protocol::{Body, ErrorKind, ItemError, JobId};
use stageline_worker::runtime::{Deliveries, Delivery, JobUpdate, Stopped};
use stageline_worker::sdk::codec;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::client::Shared;
use crate::error::{Error, JobError};

/// A running job. Cloned freely; the job is cancelled, everywhere, when the last handle to it and
/// its [`Results`] are dropped before its end.
#[derive(Clone, Debug)]
pub struct Job {
    guard: Arc<Guard>,
}

#[derive(Debug)]
struct Guard {
    id: JobId,
    client: Arc<Shared>,
    updates: watch::Receiver<JobUpdate>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if end_of(&self.updates.borrow()).is_none() {
            self.client.node().cancel(self.id, "its client dropped it");
        }
    }
}

impl Job {
    pub(crate) fn new(id: JobId, client: Arc<Shared>, updates: watch::Receiver<JobUpdate>) -> Self {
        Self { guard: Arc::new(Guard { id, client, updates }) }
    }

    /// Its name, as `stageline jobs` lists it.
    #[must_use]
    pub fn id(&self) -> JobId {
        self.guard.id
    }

    /// How it goes, as last told by the coordinator (about twice a second); none before it has
    /// answered.
    #[must_use]
    pub fn status(&self) -> Option<JobStatus> {
        self.guard.updates.borrow().status.clone()
    }

    /// Cancels the job, everywhere.
    pub fn cancel(&self, reason: impl Into<String>) {
        self.guard.client.node().cancel(self.guard.id, reason);
    }

    /// Waits until the job has ended on all processes, and answers its last figures. Cancel safe.
    ///
    /// # Errors
    /// Why it did not complete.
    pub async fn ended(&self) -> Result<JobStatus, JobError> {
        let mut updates = self.guard.updates.clone();
        let update = updates.wait_for(|update| end_of(update).is_some()).await;
        // What is borrowed from the channel must not be held over a wait.
        let update = update.ok().map(|update| update.clone());
        let Some(update) = update else {
            return Err(self.guard.client.stopped().await.into());
        };
        match (end_of(&update), update.status) {
            (Some(Some(error)), _) => Err(error),
            (_, Some(status)) => Ok(status),
            (_, None) => Err(JobError::Forgotten),
        }
    }
}

/// Whether the job is over: and if so, the error that it ended with, if any.
#[allow(clippy::option_option, reason = "over or not, and then well or not")]
fn end_of(update: &JobUpdate) -> Option<Option<JobError>> {
    if let Some(JobPhase::Ended(outcome)) = update.status.as_ref().map(|status| &status.phase) {
        return Some(JobError::of(outcome));
    }
    update.forgotten.then_some(Some(JobError::Forgotten))
}

/// The results of a job as they come, values and errors of items; [`futures_util::Stream`].
///
/// An item counts as delivered when the stream has yielded it: what is not taken holds the pipeline
/// back. A failure of the job itself is the last item. Dropping the stream (and every [`Job`] handle)
/// before its end cancels the job everywhere.
#[must_use = "streams do nothing unless polled, and dropping this one cancels the job"]
pub struct Results<T> {
    job: Job,
    deliveries: Deliveries,
    ends: BoxStream<'static, Result<(), JobError>>,
    over: bool,
    items: PhantomData<fn() -> T>,
}

impl<T> Results<T> {
    pub(crate) fn new(job: Job, deliveries: Deliveries) -> Self {
        let updates = WatchStream::new(job.guard.updates.clone());
        let client = job.guard.client.clone();
        let ends = updates
            .filter_map(|update| async move { end_of(&update) })
            .map(|end| end.map_or(Ok(()), Err))
            .chain(futures_util::stream::once(async move {
                Err(JobError::from(client.stopped().await))
            }))
            .boxed();
        Self { job, deliveries, ends, over: false, items: PhantomData }
    }

    /// A handle to the job: its id, its figures, its end.
    #[must_use]
    pub fn job(&self) -> Job {
        self.job.clone()
    }

    /// The next item, not yet taken; none at the end of the job. Cancel safe.
    pub(crate) async fn next_delivery(&mut self) -> Option<Result<Delivery<'_>, JobError>> {
        match std::future::poll_fn(|cx| self.poll_ready(cx)).await? {
            Ok(()) => self.deliveries.next().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    /// Waits for an item, which is at hand then.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), JobError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // The sender goes away with the terminal's task; the job's end comes with its status.
        if self.deliveries.poll_ready(cx) == Poll::Ready(true) {
            return Poll::Ready(Some(Ok(())));
        }
        match self.ends.poll_next_unpin(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(end) => {
                self.over = true;
                Poll::Ready(match end {
                    Some(Err(error)) => Some(Err(error)),
                    _ => None,
                })
            }
        }
    }
}

impl<T: DeserializeOwned + 'static> futures_util::Stream for Results<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(self.poll_ready(cx)) {
            Some(Ok(())) => self.deliveries.next().map(|delivery| Ok(take(delivery)?)),
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }
}

impl<T> std::fmt::Debug for Results<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Results").field("job", &self.job).finish_non_exhaustive()
    }
}

/// Takes an item: its value, or its error.
pub(crate) fn take<T: DeserializeOwned + 'static>(delivery: Delivery<'_>) -> Result<T, ItemError> {
    let decoded = decode(&delivery);
    delivery.take();
    decoded
}

/// The value of an item, or its error.
pub(crate) fn decode<T: DeserializeOwned + 'static>(
    delivery: &Delivery<'_>,
) -> Result<T, ItemError> {
    let undecodable = |message| ItemError {
        stage: "results".to_owned(),
        kind: ErrorKind::Decode,
        message: format!("item {}{message}", delivery.lineage()),
        attempts: 1,
        worker: "client".to_owned(),
    };
    match delivery.body() {
        Body::Value(encoding, bytes) => {
            codec::decode(encoding, &bytes).map_err(|error| undecodable(format!(": {error}")))
        }
        Body::Error(error) => Err(*error),
        // A terminal is given values and errors only.
        Body::End => Err(undecodable(" is the end of an expansion".to_owned())),
    }
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Self {
        Self::Job(stopped.into())
    }
}
