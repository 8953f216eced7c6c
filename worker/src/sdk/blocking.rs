//! Threads for blocking code: each function of a process has its own, as many as it has slots.
//!
//! A call takes a [`Permit`] before its attempt begins (so that no timeout runs while it waits), is handed
//! to an idle thread or a new one, and gives the permit back when its code *returns*. Nothing can stop
//! code that blocks: a call that nobody waits for any more, since it timed out or its job is over, is
//! *abandoned*. It keeps its permit. So a function never has more threads than slots, one function cannot
//! starve another, and a function whose calls never return comes to a stop, which
//! [`Threads::abandoned`] tells: the coordinator then has its work done elsewhere.
//!
//! Threads that have nothing to do end after a while. Nobody waits for any of them at the end of the
//! process.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stageline_protocol::ErrorKind;
use stageline_protocol::control::AbandonedCalls;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::context::Context;
use super::error::Failure;
use super::panic::{caught, discard};

/// A thread that has had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(10);
/// The stack of the threads of blocking functions, in bytes: 256 MiB. What is not touched takes no memory.
pub const BLOCKING_STACK: usize = 256 << 20;
/// A call is told to be abandoned only after it has gone on for so long: most end soon.
const SOON: Duration = Duration::from_secs(1);

/// Blocking calls that run in this process, those that nobody waits for any more among them. Of the
/// process and not of a node: what kills it, kills all of it.
static RUNNING: AtomicU64 = AtomicU64::new(0);

/// How many blocking calls run in this process, abandoned ones included.
pub(crate) fn blocking_calls() -> u64 {
    RUNNING.load(Ordering::Acquire)
}

/// The threads of one function. Clones are the same.
#[derive(Clone)]
pub(crate) struct Threads {
    inner: Arc<Inner>,
}

struct Inner {
    function: String,
    slots: u32,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
    /// There is work, for one idle thread.
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    idle: usize,
    calls: BTreeMap<u64, Running>,
    next: u64,
}

struct Job {
    call: u64,
    run: Box<dyn FnOnce() + Send>,
}

/// A call that has been handed over and has not returned.
struct Running {
    stage: String,
    lineage: String,
    abandoned: Option<Instant>,
    told: bool,
}

/// Leave to run one call: given back when its code has returned.
pub(crate) struct Permit {
    _slot: OwnedSemaphorePermit,
}

/// Where one call runs.
pub(crate) struct Thread {
    pub(crate) threads: Threads,
    pub(crate) permit: Option<Permit>,
}

impl Thread {
    /// Runs blocking code: see [`Threads::run`].
    pub(crate) fn run<R: Send + 'static>(
        self,
        cx: Context,
        code: impl FnOnce() -> R + Send + 'static,
    ) -> impl Future<Output = Result<R, Failure>> + Send + 'static {
        self.threads.run(cx, self.permit, code)
    }
}

impl Threads {
    pub(crate) fn new(function: &str, slots: u32) -> Self {
        Self {
            inner: Arc::new(Inner {
                function: function.to_owned(),
                slots,
                permits: Arc::new(Semaphore::new(slots as usize)),
                state: Mutex::default(),
                work: Condvar::new(),
            }),
        }
    }

    /// Waits until a call may run. Cancel safe.
    pub(crate) async fn permit(&self) -> Option<Permit> {
        let permit = self.inner.permits.clone().acquire_owned().await;
        permit.ok().map(|_slot| Permit { _slot })
    }

    /// Runs blocking code. Dropped, the call is abandoned if it runs, and never starts if it does not
    /// yet.
    pub(crate) fn run<R: Send + 'static>(
        self,
        cx: Context,
        permit: Option<Permit>,
        code: impl FnOnce() -> R + Send + 'static,
    ) -> impl Future<Output = Result<R, Failure>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        let (span, runtime) = (tracing::Span::current(), Handle::try_current().ok());
        let run = move || {
            RUNNING.fetch_add(1, Ordering::AcqRel);
            let entered = runtime.as_ref().map(Handle::enter);
            let result = span.in_scope(|| caught(code));
            drop(entered);
            RUNNING.fetch_sub(1, Ordering::AcqRel);
            // Nobody may be waiting, and what was made may panic when it is dropped.
            discard(answer.send(result));
            drop(permit);
        };
        let running = Running {
            stage: cx.stage().to_owned(),
            lineage: cx.lineage().to_string(),
            abandoned: None,
            told: false,
        };
        let handed = self.hand_over(running, Box::new(run));
        let call = handed.map(|call| Call { threads: self, call });
        async move {
            let call = call.map_err(|error| {
                let why = format_args!("no thread can be started: {error}");
                Failure::permanent(ErrorKind::Failed, why)
            })?;
            let result = answered.await;
            drop(call);
            match result {
                Ok(Ok(made)) => Ok(made),
                Ok(Err(panic)) => Err(Failure::panicked(panic)),
                Err(_) => Err(Failure::permanent(ErrorKind::Failed, "its thread is gone")),
            }
        }
    }

    fn hand_over(&self, running: Running, run: Box<dyn FnOnce() + Send>) -> std::io::Result<u64> {
        let mut state = self.inner.lock();
        let call = state.next;
        state.next += 1;
        state.calls.insert(call, running);
        state.queue.push_back(Job { call, run });
        if state.queue.len() <= state.idle {
            self.inner.work.notify_one();
            return Ok(call);
        }
        let inner = self.inner.clone();
        let name = format!("call {}", self.inner.function);
        let started = std::thread::Builder::new()
            .name(name)
            .stack_size(BLOCKING_STACK)
            .spawn(move || inner.work_on());
        if let Err(error) = started {
            // Another thread may have been busy, and takes what is queued.
            if state.calls.len() == 1 {
                state.queue.clear();
                state.calls.clear();
                return Err(error);
            }
        }
        Ok(call)
    }

    /// Calls that are abandoned, and still run; those that have gone on for a while are logged, once.
    pub(crate) fn abandoned(&self) -> Option<AbandonedCalls> {
        let mut state = self.inner.lock();
        let now = Instant::now();
        let mut lasting = state.calls.values_mut().filter_map(|call| {
            let since = now.saturating_duration_since(call.abandoned?);
            (since >= SOON).then_some((since, call))
        });
        let (mut calls, mut oldest, mut example) = (0, Duration::ZERO, String::new());
        for (since, call) in lasting.by_ref() {
            calls += 1;
            if !std::mem::replace(&mut call.told, true) {
                tracing::warn!(
                    stage = %call.stage, item = %call.lineage, function = %self.inner.function,
                    "a call that nobody waits for any more still runs, {since:.0?} after it was given up: \
                     it keeps one of the function's {} slots until it returns",
                    self.inner.slots
                );
            }
            if since >= oldest {
                oldest = since;
                example = format!("item {} of stage {:?}", call.lineage, call.stage);
            }
        }
        (calls > 0).then(|| AbandonedCalls {
            function: self.inner.function.clone(),
            calls,
            slots: self.inner.slots,
            oldest,
            example,
        })
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Threads").field(&self.inner.function).field(&self.inner.slots).finish()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life.
    fn work_on(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                (job.run)();
                state = self.lock();
                state.calls.remove(&job.call);
                continue;
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, IDLE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                return;
            }
        }
    }
}

/// A call that somebody waits for, until it is dropped.
struct Call {
    threads: Threads,
    call: u64,
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.threads.inner.lock();
        let queued = state.queue.iter().position(|job| job.call == self.call);
        let never_begun = queued.and_then(|place| state.queue.remove(place));
        if never_begun.is_some() {
            state.calls.remove(&self.call);
        } else if let Some(running) = state.calls.get_mut(&self.call) {
            running.abandoned = Some(Instant::now());
        }
        drop(state);
        discard(never_begun);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::context::test_context;
    use super::*;

    fn threads(slots: u32) -> Threads {
        Threads::new("f", slots)
    }

    #[tokio::test]
    async fn code_runs_on_a_thread_and_its_answer_or_its_panic_comes_back() {
        let threads = threads(2);
        let made = threads.clone().run(test_context(), threads.permit().await, || 7).await;
        assert_eq!(made.expect("it is made"), 7);
        let panicked = threads.clone().run(test_context(), None, || panic!("no")).await;
        let failure: Failure = panicked.map(|(): ()| ()).expect_err("it panicked");
        assert_eq!(failure.kind, ErrorKind::Panicked);
    }

    #[tokio::test]
    async fn an_abandoned_call_keeps_its_permit_until_it_returns() {
        let threads = threads(1);
        let (go_on, waits) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel::<()>();
        let code = move || {
            begun.send(()).expect("the test waits");
            let _gone = waits.recv();
        };
        let call = threads.clone().run(test_context(), threads.permit().await, code);
        has_begun.recv().expect("it has begun");
        drop(call);
        let mut next = Box::pin(threads.permit());
        assert!(futures_util::FutureExt::now_or_never(&mut next).is_none(), "its slot is taken");
        go_on.send(()).expect("it waits");
        assert!(next.await.is_some());
        assert_eq!(threads.abandoned(), None);
    }

    #[tokio::test]
    async fn a_call_that_has_not_begun_never_does() {
        let threads = threads(1);
        let (go_on, waits) = mpsc::channel::<()>();
        let first = threads.clone().run(test_context(), None, move || waits.recv().is_ok());
        // Behind it, since no thread is idle... one more is started for each call without a permit.
        let second = threads.clone().run(test_context(), None, || true);
        drop(second);
        go_on.send(()).expect("it waits");
        assert!(first.await.expect("it returns"));
    }
}
