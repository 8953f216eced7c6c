//! The threads of one process: where its links and task loops run, and where its functions do.
//!
//! What an item passes on its way through a process is a chain of steps, each much shorter than waking
//! another thread, and its bytes are in one core's cache. So a task's loop, the connections that it dials
//! and those that the process accepts share **one thread**; a second task of the process has another one,
//! and so on up to the number of cores. The session with the coordinator has another one, so that no
//! function keeps a heartbeat from being sent, whatever it does and wherever it runs.
//!
//! Functions belong to the caller's runtime. A call that is done at once is done on the task's thread, but
//! what it spawns, and the timers and sockets that it opens, are the caller's too.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::runtime::{Builder, Handle, Runtime};

/// Where the parts of a process run.
#[derive(Clone, Debug)]
pub struct Threads {
    callers: Handle,
    own: Option<Arc<Own>>,
}

impl Threads {
    /// Everything in the caller's runtime.
    ///
    /// # Panics
    /// When it is not called inside a tokio runtime.
    #[must_use]
    pub fn callers() -> Self {
        Self { callers: Handle::current(), own: None }
    }

    /// Threads of the process's own. They end when nothing holds them any more.
    ///
    /// # Errors
    /// When the system gives no thread.
    ///
    /// # Panics
    /// When it is not called inside a tokio runtime.
    pub fn own() -> io::Result<Self> {
        let (control, first) = (Thread::start("control")?, Thread::start("0")?);
        let most = thread::available_parallelism().map_or(1, usize::from);
        let (session, links) = (control.handle(), first.handle());
        let own =
            Own { session, links, most, control: Some(control), tasks: Mutex::new(vec![first]) };
        Ok(Self { own: Some(Arc::new(own)), ..Self::callers() })
    }

    /// Where the [`Node`](super::Node) runs, and its session.
    #[must_use]
    pub fn session(&self) -> &Handle {
        self.own.as_ref().map_or(&self.callers, |own| &own.session)
    }

    /// Where connections are accepted: on the thread of the first task.
    #[must_use]
    pub fn links(&self) -> &Handle {
        self.own.as_ref().map_or(&self.callers, |own| &own.links)
    }

    /// Where functions run.
    pub(super) const fn functions(&self) -> &Handle {
        &self.callers
    }

    /// A place for a task: on the thread with the fewest, which is a new one as long as there are cores.
    pub(super) fn seat(&self) -> Seat {
        match &self.own {
            None => Seat { thread: self.callers.clone(), _taken: Arc::default() },
            Some(own) => own.seat(),
        }
    }

    /// How many tokio tasks there are on all these threads, other users of the caller's included.
    pub(super) fn alive_tasks(&self) -> usize {
        let callers = self.callers.metrics().num_alive_tasks();
        callers + self.own.as_ref().map_or(0, |own| own.alive_tasks())
    }
}

/// A task's place on a thread, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) thread: Handle,
    _taken: Arc<()>,
}

#[derive(Debug)]
struct Own {
    session: Handle,
    links: Handle,
    /// How many threads may have tasks.
    most: usize,
    /// Always there, until this is dropped.
    control: Option<Thread>,
    tasks: Mutex<Vec<Thread>>,
}

impl Own {
    fn seat(&self) -> Seat {
        let mut threads = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let free = threads.iter().any(|thread| thread.taken() == 0);
        if !free && threads.len() < self.most {
            match Thread::start(&threads.len().to_string()) {
                Ok(thread) => threads.push(thread),
                Err(error) => tracing::warn!(%error, "no thread for a task: it shares another's"),
            }
        }
        // The first one is there as long as this is.
        match threads.iter().min_by_key(|thread| thread.taken()) {
            Some(thread) => Seat { thread: thread.handle(), _taken: thread.seats.clone() },
            None => Seat { thread: self.links.clone(), _taken: Arc::default() },
        }
    }

    fn alive_tasks(&self) -> usize {
        let threads = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let all = threads.iter().map(Thread::handle).chain([self.session.clone()]);
        all.map(|thread| thread.metrics().num_alive_tasks()).sum()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let threads = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..).chain(self.control.take()) {
            // Whoever drops this may be on one of them.
            thread.runtime.shutdown_background();
        }
    }
}

/// What the allocator may keep for the next batches is more than a link has on its way.
const KEPT: usize = 2 << 20;

/// Has the allocator keep what batches leave behind. glibc's gives the end of its heap back to the system
/// whenever 128 KiB of it are free, and takes it again for the next batch, page by page: a tenth of the
/// time of a link at 64 KiB an item. It learns from what is freed, as mallopt(3) says of
/// `M_MMAP_THRESHOLD`: one block of this size, which is never written to, and it keeps twice as much.
fn keep_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT)));
}

#[derive(Debug)]
struct Thread {
    runtime: Runtime,
    /// One more owner for each seat that is taken.
    seats: Arc<()>,
}

impl Thread {
    fn start(name: &str) -> io::Result<Self> {
        keep_memory();
        // Not a current-thread runtime: functions may use `block_in_place`, on this thread too.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(format!("stageline-{name}"))
            .enable_all()
            .build()?;
        Ok(Self { runtime, seats: Arc::default() })
    }

    fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }

    fn taken(&self) -> usize {
        Arc::strong_count(&self.seats) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_have_threads_of_their_own_up_to_the_number_of_cores() {
        let threads = Threads::own().unwrap();
        let cores = thread::available_parallelism().unwrap().get();
        let seats: Vec<Seat> = (0..2 * cores).map(|_| threads.seat()).collect();
        let mut on: Vec<String> = seats.iter().map(|seat| seat.thread.id().to_string()).collect();
        assert_eq!(on[0], threads.links().id().to_string());
        assert!(!on.contains(&threads.session().id().to_string()));
        on.sort();
        let distinct = on.chunk_by(PartialEq::eq).map(<[_]>::len);
        assert_eq!(distinct.collect::<Vec<_>>(), vec![2; cores]);

        drop(seats);
        assert_eq!(threads.seat().thread.id(), threads.links().id());
    }

    #[tokio::test]
    async fn they_may_be_dropped_on_themselves() {
        let threads = Threads::own().unwrap();
        for thread in [threads.session().clone(), threads.links().clone()] {
            let threads = threads.clone();
            thread.spawn(async move { drop(threads) }).await.unwrap();
        }
        let last = threads.links().clone();
        last.spawn(async move { drop(threads) }).await.unwrap();
    }

    #[tokio::test]
    async fn in_the_callers_runtime_all_are_there() {
        let threads = Threads::callers();
        let caller = Handle::current().id();
        let seat = threads.seat();
        for handle in [threads.session(), threads.links(), threads.functions(), &seat.thread] {
            assert_eq!(handle.id(), caller);
        }
    }
}
