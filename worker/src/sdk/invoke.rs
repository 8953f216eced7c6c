//! How the runtime calls a stage function: one [`Invoker`] a task, one call an item
//! (or, without policies, one for a run of them: see [`super::burst`]).
//!
//! The function is a [`tower::Service`], and the stage's policies are layers around it: a timeout
//! around each attempt, retries around that.
//!
//! - **A call ends** with a [`Reply`], or with the [`Fault`] of its last attempt. It never panics.
//! - **Repeated** are failures of the function and timeouts. Not repeated are permanent failures,
//!   panics (a mistake in the function, which the same input would show again), payloads that do not
//!   decode, and outputs that do not encode or are too large; nor is anything once the task's context
//!   is cancelled.
//! - **An expansion's attempt** includes the wait for its first output. From then on outputs may have
//!   left, so a failure is final: the stream's last item. The timeout holds for the first output, and
//!   anew for each next one, while it is waited for.
//! - **Dropping a call** drops an async function at once. A blocking one that has started goes on
//!   unheard, on its thread and in its slot: so does one that times out. See [`super::blocking`].

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use futures_util::future::{BoxFuture, Either};
use futures_util::stream::{self, BoxStream, StreamExt};
use stageline_protocol::ErrorKind;
use tower::retry::RetryLayer;
use tower::timeout::TimeoutLayer;
use tower::timeout::error::Elapsed;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};

use super::blocking::{Permit, Thread, Threads};
use super::burst::Burst;
use super::codec::Payload;
use super::context::Context;
use super::error::{Failure, Fault};
use super::function::{Calls, Each, Made, Outputs};
use super::outputs::{Expansion, admit, close, guarded};
use super::policy::{Request, Retry, Tried};

/// What came of a call.
pub enum Reply {
    /// A map's output.
    One(Payload),
    /// A filter keeps the input: it goes on as it is.
    Keep,
    /// A filter drops the input.
    Nothing,
    /// An expansion's outputs, possibly none. The first is there already. A fault is the last item.
    Many(BoxStream<'static, Result<Payload, Fault>>),
    /// A sink is done with the input.
    Done,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(payload) => write!(f, "One({payload:?})"),
            Self::Keep => f.write_str("Keep"),
            Self::Nothing => f.write_str("Nothing"),
            Self::Many(_) => f.write_str("Many(..)"),
            Self::Done => f.write_str("Done"),
        }
    }
}

/// The slot that a call occupies, as the call sees it: free during backoff.
///
/// For each repetition comes `retrying`, then `release`, and after the wait `acquire`. A call that is
/// dropped in between has released its slot and not acquired it again.
pub trait Slot: Send + Sync {
    /// The call waits, and another may run in its place.
    fn release(&self);
    /// The call wants to go on: completes when it may.
    fn acquire(&self) -> BoxFuture<'static, ()>;
    /// An attempt failed and will be repeated: to be counted.
    fn retrying(&self);
}

type Invoke = Arc<dyn Fn(Request) -> BoxFuture<'static, Result<Reply, Fault>> + Send + Sync>;

/// A stage's function under the stage's policies. Cheap to clone.
#[derive(Clone)]
pub struct Invoker {
    invoke: Invoke,
    burst: Option<Burst>,
    max_payload: usize,
}

impl Invoker {
    pub(crate) fn new(
        calls: Calls,
        threads: Threads,
        timeout: Option<Duration>,
        retries: u32,
        max_payload: usize,
    ) -> Self {
        let Calls { each, burst } = calls;
        // Policies are for each call, and layers around it.
        let burst = burst.filter(|_| timeout.is_none() && retries == 0);
        let retry = RetryLayer::new(Retry { retries });
        // A call waits for a thread before its attempt begins: no timeout runs meanwhile.
        let needs = matches!(each, Each::Blocking(_));
        let admission = AdmissionLayer { threads: needs.then(|| threads.clone()) };
        let function = Function { each, threads, timeout, max_payload };
        let invoke = match timeout {
            None => {
                let service = ServiceBuilder::new()
                    .layer(retry)
                    .map_err(|failure| Tried { failure, attempts: 1 })
                    .layer(admission)
                    .service(function);
                Self::of(service)
            }
            Some(limit) => {
                let service = ServiceBuilder::new()
                    .layer(retry)
                    .map_err(move |error| Tried {
                        failure: attempt_failure(error, limit),
                        attempts: 1,
                    })
                    .layer(admission)
                    .layer(TimeoutLayer::new(limit))
                    .service(function);
                Self::of(service)
            }
        };
        Self { invoke, burst, max_payload }
    }

    fn of<S>(service: S) -> Invoke
    where
        S: Service<Request, Response = Reply, Error = Tried> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let invoke = move |request| -> BoxFuture<'static, Result<Reply, Fault>> {
            let reply = service.clone().oneshot(request);
            Box::pin(async move { reply.await.map_err(|e| e.failure.into_fault(e.attempts)) })
        };
        Arc::new(invoke)
    }

    /// The function for a run at a time, and the largest payload that it may make. None for one with
    /// policies, a blocking one or an expansion, whose calls need more than that.
    pub(crate) fn burst(&self) -> Option<(Burst, usize)> {
        self.burst.clone().map(|burst| (burst, self.max_payload))
    }

    /// Calls the function with an item's payload, as often as the stage's policies allow. The caller
    /// holds the slot when it calls, and again when the call has ended. For drops, see the module.
    pub fn invoke(
        &self,
        cx: Context,
        input: Payload,
        slot: Arc<dyn Slot>,
    ) -> BoxFuture<'static, Result<Reply, Fault>> {
        (self.invoke)(Request { cx, input, slot })
    }
}

impl fmt::Debug for Invoker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invoker")
    }
}

/// Tower's timeout puts every error into a box: takes ours out again.
fn attempt_failure(error: BoxError, limit: Duration) -> Failure {
    match error.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(error) if error.is::<Elapsed>() => {
            Failure::timeout(format_args!("no answer within {limit:?}"))
        }
        Err(error) => Failure::permanent(ErrorKind::Failed, error),
    }
}

/// An attempt that may begin.
struct Admitted {
    request: Request,
    permit: Option<Permit>,
}

/// Makes an [`Admission`] of a service.
struct AdmissionLayer {
    threads: Option<Threads>,
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { threads: self.threads.clone(), inner }
    }
}

/// Waits for a thread, where the function needs one.
#[derive(Clone)]
struct Admission<S> {
    threads: Option<Threads>,
    inner: S,
}

impl<S> Service<Request> for Admission<S>
where
    S: Service<Admitted> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<BoxFuture<'static, Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(threads) = self.threads.clone() else {
            return Either::Right(self.inner.call(Admitted { request, permit: None }));
        };
        let inner = self.inner.clone();
        Either::Left(Box::pin(async move {
            let permit = threads.permit().await;
            inner.oneshot(Admitted { request, permit }).await
        }))
    }
}

/// The innermost service: one attempt.
#[derive(Clone)]
struct Function {
    each: Each,
    threads: Threads,
    timeout: Option<Duration>,
    max_payload: usize,
}

impl Service<Admitted> for Function {
    type Response = Reply;
    type Error = Failure;
    type Future = Attempt;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, admitted: Admitted) -> Attempt {
        let Admitted { request: Request { cx, input, .. }, permit } = admitted;
        let attempt = cx.attempt();
        let call = match &self.each {
            Each::Async(call) => call(cx, input),
            Each::Blocking(call) => {
                call(cx, input, Thread { threads: self.threads.clone(), permit })
            }
        };
        Attempt {
            state: AttemptState::Calling(call),
            timeout: self.timeout,
            max_payload: self.max_payload,
            attempt,
        }
    }
}

/// One attempt, under way.
struct Attempt {
    state: AttemptState,
    timeout: Option<Duration>,
    max_payload: usize,
    attempt: u32,
}

enum AttemptState {
    Calling(BoxFuture<'static, Result<Made, Failure>>),
    /// An expansion, waiting for its first output.
    Expanding(Outputs),
}

impl Future for Attempt {
    type Output = Result<Reply, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        loop {
            let max_payload = self.max_payload;
            match &mut self.state {
                AttemptState::Calling(call) => {
                    let made = ready!(guarded(|| call.as_mut().poll(cx)))??;
                    return Poll::Ready(Ok(match made {
                        Made::One(payload) => Reply::One(admit(payload, max_payload)?),
                        Made::Keep => Reply::Keep,
                        Made::Nothing => Reply::Nothing,
                        Made::Done => Reply::Done,
                        Made::Many(outputs) => {
                            self.state = AttemptState::Expanding(outputs);
                            continue;
                        }
                    }));
                }
                AttemptState::Expanding(outputs) => {
                    let first = ready!(guarded(|| outputs.as_mut().poll_next(cx)))?;
                    let rest = std::mem::replace(outputs, stream::empty().boxed());
                    let Some(first) = first else {
                        close(Some(rest))?;
                        return Poll::Ready(Ok(Reply::Many(stream::empty().boxed())));
                    };
                    let first = admit(first?, max_payload)?;
                    let expansion =
                        Expansion::new(first, rest, max_payload, self.timeout, self.attempt);
                    return Poll::Ready(Ok(Reply::Many(expansion.boxed())));
                }
            }
        }
    }
}
