//! The loop around the engine: one task owns engine and store, everybody else holds a handle.
//!
//! Sessions are pairs of channels. Embedded mode uses them as they are; [`crate::service`] puts them
//! on gRPC streams. What comes in is bounded for each session; what goes out is one slot for each job
//! and kind of message, the latest wins: a process that does not read cannot grow the coordinator.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use stageline_protocol::control::{Down, JobStatus, ProcessStatus, Up};
use stageline_protocol::{JobId, Term, Time};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{Command, Config, Engine, Event, SessionId};
use crate::store::{MemoryStore, Store};

/// Requests that wait for the engine, from all sessions together.
const REQUESTS: usize = 1024;
/// Messages of one session that wait.
const MESSAGES: usize = 64;

/// Starts coordinators.
#[derive(Debug)]
pub struct Coordinator;

impl Coordinator {
    /// Starts a coordinator that keeps its state in memory. Call it inside a tokio runtime.
    #[must_use]
    pub fn start(config: Config) -> CoordinatorHandle {
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let stop = CancellationToken::new();
        let core = Core {
            engine: Engine::new(Term(1), config),
            store: MemoryStore::default(),
            started: Instant::now(),
            sessions: BTreeMap::new(),
            next_session: 0,
        };
        tokio::spawn(core.run(inbox, stop.clone()));
        CoordinatorHandle { requests, stop }
    }
}

/// A handle to a running coordinator. Cheap to clone; the coordinator ends with
/// [`shutdown`](Self::shutdown), or when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct CoordinatorHandle {
    requests: mpsc::Sender<Request>,
    stop: CancellationToken,
}

#[derive(Debug)]
enum Request {
    Open(Arc<Outbox>, oneshot::Sender<SessionId>),
    Message(SessionId, Option<IpAddr>, Up),
    Closed(SessionId),
    Jobs(oneshot::Sender<Vec<JobStatus>>),
    Job(JobId, oneshot::Sender<Option<JobStatus>>),
    Processes(oneshot::Sender<Vec<ProcessStatus>>),
    Cancel(JobId, String, oneshot::Sender<Option<JobStatus>>),
}

impl CoordinatorHandle {
    /// Opens a session. `peer` is where the process is, for those that announce a port only; none if
    /// it is this process. The session ends when either end is dropped.
    #[must_use]
    pub fn open_session(&self, peer: Option<IpAddr>) -> (mpsc::Sender<Up>, mpsc::Receiver<Down>) {
        let (up, mut ups) = mpsc::channel(MESSAGES);
        let (downs, down) = mpsc::channel(1);
        let outbox = Arc::new(Outbox::default());
        let requests = self.requests.clone();
        tokio::spawn(async move {
            let (opened, session) = oneshot::channel();
            if requests.send(Request::Open(outbox.clone(), opened)).await.is_err() {
                return;
            }
            let Ok(session) = session.await else { return };
            let inward = async {
                while let Some(message) = ups.recv().await {
                    let message = Request::Message(session, peer, message);
                    if requests.send(message).await.is_err() {
                        return;
                    }
                }
            };
            let outward = async {
                while let Some(message) = outbox.next().await {
                    if downs.send(message).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = inward => {}
                () = outward => {}
            }
            let _over = requests.send(Request::Closed(session)).await;
        });
        (up, down)
    }

    /// The jobs: those that run first.
    pub async fn jobs(&self) -> Vec<JobStatus> {
        self.ask(Request::Jobs).await.unwrap_or_default()
    }

    /// One job.
    pub async fn job(&self, id: JobId) -> Option<JobStatus> {
        self.ask(|answer| Request::Job(id, answer)).await.flatten()
    }

    /// The processes that count as alive.
    pub async fn processes(&self) -> Vec<ProcessStatus> {
        self.ask(Request::Processes).await.unwrap_or_default()
    }

    /// Ends a job; answers how it stands, or none if there is no such job.
    pub async fn cancel(&self, id: JobId, reason: impl Into<String>) -> Option<JobStatus> {
        let reason = reason.into();
        self.ask(|answer| Request::Cancel(id, reason, answer)).await.flatten()
    }

    /// Ends the coordinator: all sessions close.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.ok()?;
        answered.await.ok()
    }
}

struct Core {
    engine: Engine,
    store: MemoryStore,
    started: Instant,
    sessions: BTreeMap<SessionId, Arc<Outbox>>,
    next_session: u64,
}

impl Core {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>, stop: CancellationToken) {
        loop {
            let timeout = self.engine.poll_timeout();
            tokio::select! {
                () = stop.cancelled() => break,
                request = inbox.recv() => match request {
                    None => break,
                    Some(request) => self.handle(request),
                },
                () = sleep_until(self.started, timeout) => {
                    let now = self.now();
                    self.engine.handle_timeout(now);
                }
            }
            if !self.carry_out() {
                break;
            }
        }
        for outbox in self.sessions.values() {
            outbox.close();
        }
    }

    fn now(&self) -> Time {
        let micros = self.started.elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    fn handle(&mut self, request: Request) {
        let now = self.now();
        match request {
            Request::Open(outbox, opened) => {
                let session = SessionId(self.next_session);
                self.next_session += 1;
                self.sessions.insert(session, outbox);
                let _gone = opened.send(session);
            }
            Request::Message(session, peer, message) => {
                let event = match message {
                    Up::Hello(mut hello) => {
                        hello.address = hello.address.map(|address| reachable(address, peer));
                        tracing::info!(process = %hello.name, address = ?hello.address, "hello");
                        Event::SessionOpened { session, hello }
                    }
                    message => Event::Message { session, message },
                };
                self.engine.handle(now, event);
            }
            Request::Closed(session) => {
                if self.sessions.remove(&session).is_some() {
                    self.engine.handle(now, Event::SessionClosed { session });
                }
            }
            Request::Jobs(answer) => {
                let _gone = answer.send(self.engine.jobs(now));
            }
            Request::Job(id, answer) => {
                let _gone = answer.send(self.engine.job(id, now));
            }
            Request::Processes(answer) => {
                let _gone = answer.send(self.engine.processes());
            }
            Request::Cancel(job, reason, answer) => {
                self.engine.handle(now, Event::CancelJob { job, reason });
                let _gone = answer.send(self.engine.job(job, now));
            }
        }
    }

    /// Carries out the engine's commands, in order. False if the store failed: nothing may be
    /// announced after that.
    fn carry_out(&mut self) -> bool {
        while let Some(command) = self.engine.poll_command() {
            match command {
                Command::Persist(record) => {
                    if let Err(error) = self.store.put(record) {
                        tracing::error!(%error, "the coordinator stops: what it says next would rest on what was not kept");
                        return false;
                    }
                }
                Command::Send { session, message } => {
                    if let Some(outbox) = self.sessions.get(&session) {
                        outbox.put(message);
                    }
                }
                Command::CloseSession { session } => {
                    if let Some(outbox) = self.sessions.get(&session) {
                        outbox.close();
                    }
                }
            }
        }
        true
    }
}

/// A process that announces a port only is reached where its session comes from.
fn reachable(address: String, peer: Option<IpAddr>) -> String {
    match (address.strip_prefix(':'), peer) {
        (Some(port), Some(IpAddr::V6(ip))) => format!("[{ip}]:{port}"),
        (Some(port), Some(ip)) => format!("{ip}:{port}"),
        _ => address,
    }
}

/// What waits to be sent to one process: the latest of each thing that can be superseded.
#[derive(Debug, Default)]
struct Outbox {
    state: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Down>,
    closed: bool,
}

impl Outbox {
    fn put(&self, message: Down) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(older) = state.queue.iter_mut().find(|older| supersedes(&message, older)) {
            *older = message;
        } else {
            state.queue.push_back(message);
        }
        drop(state);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_one();
    }

    async fn next(&self) -> Option<Down> {
        loop {
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(message) = state.queue.pop_front() {
                    return Some(message);
                }
                if state.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Whether a newer message makes an older one, not yet sent, pointless.
fn supersedes(newer: &Down, older: &Down) -> bool {
    match (newer, older) {
        (Down::Alive, Down::Alive) => true,
        (Down::View(newer), Down::View(older)) => newer.job == older.job,
        (Down::Status(newer), Down::Status(older)) => newer.job == older.job,
        (Down::Forget(newer), Down::Forget(older)) => newer == older,
        _ => false,
    }
}

async fn sleep_until(started: Instant, at: Option<Time>) {
    match at {
        Some(at) => {
            let at = started + std::time::Duration::from_micros(at.as_micros());
            tokio::time::sleep_until(at).await;
        }
        None => std::future::pending().await,
    }
}
