//! The engine at work: one loop owns it and its store; everybody else holds a handle.
//!
//! A process opens a session ([`CoordinatorHandle::open_session`]), says [`Up::Hello`] first, and
//! then speaks and listens until either end is dropped. What it says waits in a bounded queue of its
//! own, so a process that floods the coordinator waits alone. What it is told waits as the latest
//! word on each job, so one that does not listen costs little.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use stageline_protocol::control::{
    Census, Down, Hello, JobPhase, JobStatus, Outcome, ProcessKind, ProcessStatus, Up,
};
use stageline_protocol::text::shown;
use stageline_protocol::{JobId, Term, Time};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{Command, Config, Engine, Event, SessionId};
use crate::outbox::Outbox;
use crate::store::{MemoryStore, Record, Store, StoreError};

/// How many messages of one session may wait for the engine.
const INBOX: usize = 64;
/// How many inputs at most are taken before what follows from them is stored and said.
const ROUND: usize = 256;

/// Starts coordinators.
#[derive(Debug)]
pub struct Coordinator;

impl Coordinator {
    /// Starts one that keeps its records in memory. Call it inside a tokio runtime.
    #[must_use]
    pub fn start(config: Config) -> CoordinatorHandle {
        let at = wall_clock();
        Self::spawn(Engine::new(Term(at.as_micros()), config), at, MemoryStore::default())
    }

    /// Starts one that goes on from what its store has. `at` is the time of day since 1970: what is
    /// stored counts from there, and it is the coordinator's term, unless that of an earlier life was
    /// not lower (the machine's clock was set back). Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When the store cannot be read or written, or what it has contradicts itself.
    pub fn start_with(
        config: Config,
        at: Time,
        mut store: impl Store,
    ) -> Result<CoordinatorHandle, StoreError> {
        let stored = store.load()?;
        let term = Term(at.as_micros().max(stored.term.0.saturating_add(1)));
        store.put(&[Record::Term(term)])?;
        let (jobs, ended, processes) =
            (stored.jobs.len(), stored.ended.len(), stored.processes.len());
        if jobs + ended + processes > 0 {
            tracing::info!(jobs, ended, processes, "going on from what is stored");
        }
        let engine = Engine::restore(term, config, at, stored)
            .map_err(|error| StoreError(error.to_string()))?;
        Ok(Self::spawn(engine, at, store))
    }

    fn spawn(engine: Engine, at: Time, store: impl Store) -> CoordinatorHandle {
        let (inputs, queue) = mpsc::unbounded_channel();
        let handle = CoordinatorHandle {
            inputs,
            sessions: Arc::new(AtomicU64::new(1)),
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
            failure: Arc::new(OnceLock::new()),
        };
        let (stop, stopped) = (handle.stop.clone(), handle.stopped.clone());
        let failure = handle.failure.clone();
        tokio::spawn(async move {
            // Also when the loop panics: nobody must wait for it for ever.
            let _guard = stopped.drop_guard();
            let work = Loop {
                engine,
                store,
                sessions: BTreeMap::new(),
                answers: Vec::new(),
                at,
                origin: Instant::now(),
            };
            if let Err(error) = work.run(queue, stop).await {
                tracing::error!(%error, "the coordinator stops");
                let _only_one_loop = failure.set(error.to_string());
            }
        });
        handle
    }
}

/// The time of day, since 1970.
#[must_use]
pub fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::ZERO + since
}

/// The coordinator has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator has stopped")]
pub struct Stopped;

/// The session has ended; nothing more can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session with the coordinator has ended")]
pub struct SessionClosed;

/// A handle of a running coordinator; cheap to clone. The coordinator lives until
/// [`Self::shutdown`], or until every handle and session is dropped.
#[derive(Clone, Debug)]
pub struct CoordinatorHandle {
    inputs: mpsc::UnboundedSender<Input>,
    sessions: Arc<AtomicU64>,
    stop: CancellationToken,
    stopped: CancellationToken,
    failure: Arc<OnceLock<String>>,
}

/// Answers what is to be called once all that the answer rests on is safe.
type Question = Box<dyn FnOnce(&mut Engine, Time) -> Answer + Send>;
type Answer = Box<dyn FnOnce() + Send>;

enum Input {
    Opened(SessionId, Box<Hello>, Arc<Outbox>),
    /// With the leave of its session to have one more in the queue.
    Up(SessionId, Up, OwnedSemaphorePermit),
    Closed(SessionId),
    Ask(Question),
}

impl CoordinatorHandle {
    /// Opens a session: what its process says goes into the first, what it is told comes out of the
    /// second. `peer` is where it comes from, for a process that does not know its own address.
    #[must_use]
    pub fn open_session(&self, peer: Option<IpAddr>) -> (SessionTx, SessionRx) {
        let end = Arc::new(End {
            session: SessionId(self.sessions.fetch_add(1, Ordering::Relaxed)),
            outbox: Arc::new(Outbox::default()),
            inputs: self.inputs.clone(),
        });
        let room = Arc::new(Semaphore::new(INBOX));
        let tx =
            SessionTx { end: Closer(end.clone()), room, peer, greeted: AtomicBool::new(false) };
        (tx, SessionRx { end: Closer(end) })
    }

    /// The jobs: those that are not over, oldest first; then those that are, latest first.
    ///
    /// # Errors
    /// When the coordinator has stopped.
    pub async fn jobs(&self) -> Result<Vec<JobStatus>, Stopped> {
        self.ask(|engine, now| engine.jobs(now)).await
    }

    /// One job, if it is known.
    ///
    /// # Errors
    /// When the coordinator has stopped.
    pub async fn job(&self, id: JobId) -> Result<Option<JobStatus>, Stopped> {
        self.ask(move |engine, now| engine.job(id, now)).await
    }

    /// The processes that count as alive.
    ///
    /// # Errors
    /// When the coordinator has stopped.
    pub async fn processes(&self) -> Result<Vec<ProcessStatus>, Stopped> {
        self.ask(|engine, _| engine.processes()).await
    }

    /// What the coordinator itself runs: jobs that are not over as tasks, sessions as links.
    ///
    /// # Errors
    /// The coordinator has stopped.
    pub async fn census(&self) -> Result<Census, Stopped> {
        let (jobs, sessions) = self.ask(|engine, _| (engine.running(), engine.sessions())).await?;
        Ok(Census {
            runtime_tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64,
            tasks: jobs,
            links: sessions,
            children: 0,
            timers: 1,
        })
    }

    /// Ends a job; one that is over stays as it is. Answers with the job as it is then, if it is
    /// known; its tasks may still be ending.
    ///
    /// # Errors
    /// When the coordinator has stopped.
    pub async fn cancel(&self, id: JobId, reason: String) -> Result<Option<JobStatus>, Stopped> {
        self.ask(move |engine, now| {
            engine.handle(now, Event::CancelJob { job: id, reason });
            engine.job(id, now)
        })
        .await
    }

    /// Stops the coordinator, which ends every session. [`Self::stopped`] tells when that is done.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }

    /// Completes when the coordinator has stopped. Answers why, if nobody asked for it.
    pub async fn stopped(&self) -> Option<String> {
        self.stopped.cancelled().await;
        self.failure.get().cloned()
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine, Time) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |engine, now| {
            let found = question(engine, now);
            Box::new(move || {
                let _nobody_waits = answer.send(found);
            })
        });
        self.inputs.send(Input::Ask(question)).map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

/// What both halves of a session share.
#[derive(Debug)]
struct End {
    session: SessionId,
    outbox: Arc<Outbox>,
    inputs: mpsc::UnboundedSender<Input>,
}

/// Dropping either half ends the session. The word of it queues up behind what was said before, so
/// that a goodbye is heard.
#[derive(Debug)]
struct Closer(Arc<End>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.outbox.close();
        let _stopped_already = self.0.inputs.send(Input::Closed(self.0.session));
    }
}

/// The half of a session into which its process speaks.
#[derive(Debug)]
pub struct SessionTx {
    end: Closer,
    room: Arc<Semaphore>,
    peer: Option<IpAddr>,
    greeted: AtomicBool,
}

impl SessionTx {
    /// Says something; waits while too much of this session waits already. The first message must be
    /// [`Up::Hello`]. Cancel safe: a message is said wholly or not at all.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn send(&self, up: Up) -> Result<(), SessionClosed> {
        let permit = self.room.clone().acquire_owned().await.map_err(|_| SessionClosed)?;
        let end = &self.end.0;
        if end.outbox.is_closed() {
            return Err(SessionClosed);
        }
        let greeted = self.greeted.swap(true, Ordering::Relaxed);
        let input = match up {
            Up::Hello(mut hello) if !greeted => {
                fill_in(&mut hello, self.peer);
                Input::Opened(end.session, Box::new(hello), end.outbox.clone())
            }
            _ if !greeted => {
                self.refuse("a session begins with a hello");
                return Err(SessionClosed);
            }
            up => Input::Up(end.session, up, permit),
        };
        end.inputs.send(input).map_err(|_| SessionClosed)
    }

    /// Completes when the session has ended. Cancel safe.
    pub async fn closed(&self) {
        self.end.0.outbox.closed().await;
    }

    /// Ends the session from this side, and says why.
    pub fn refuse(&self, why: impl Into<String>) {
        self.end.0.outbox.push(Down::Refused(why.into()));
        self.end.0.outbox.close();
    }
}

/// The half of a session from which its process is told.
#[derive(Debug)]
pub struct SessionRx {
    end: Closer,
}

impl SessionRx {
    /// The next message; none when the session has ended. Cancel safe.
    pub async fn recv(&mut self) -> Option<Down> {
        self.end.0.outbox.recv().await
    }
}

/// An address without a host stands for the one that the session comes from.
fn fill_in(hello: &mut Hello, peer: Option<IpAddr>) {
    let port = hello.address.as_deref().and_then(|address| address.strip_prefix(':'));
    if let (Some(port), Some(peer)) = (port.and_then(|port| port.parse().ok()), peer) {
        hello.address = Some(SocketAddr::new(peer.to_canonical(), port).to_string());
    }
}

struct Loop<S> {
    engine: Engine,
    store: S,
    sessions: BTreeMap<SessionId, Connected>,
    /// To questions of this round.
    answers: Vec<Answer>,
    /// The time of day at `origin`.
    at: Time,
    origin: Instant,
}

/// A session as the loop knows it.
struct Connected {
    outbox: Arc<Outbox>,
    /// Whose it is, for the log.
    name: String,
}

impl<S: Store> Loop<S> {
    async fn run(
        mut self,
        mut queue: mpsc::UnboundedReceiver<Input>,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        self.carry_out()?;
        loop {
            let due = self.engine.poll_timeout().map(|due| self.instant(due));
            tokio::select! {
                () = stop.cancelled() => break,
                input = queue.recv() => match input {
                    Some(input) => {
                        self.take(input);
                        // What else there is shares one transaction of the store.
                        for _ in 1..ROUND {
                            let Ok(input) = queue.try_recv() else { break };
                            self.take(input);
                        }
                    }
                    None => break,
                },
                () = sleep_until(due) => self.engine.handle_timeout(self.now()),
            }
            self.carry_out()?;
        }
        Ok(())
    }

    fn take(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Opened(session, hello, outbox) => {
                let kind = match hello.kind {
                    ProcessKind::Worker => "worker",
                    ProcessKind::Client => "client",
                };
                let address = hello.address.as_deref().unwrap_or("none: it only dials");
                // Whether the engine takes that name is yet to be seen.
                let name = format!("{kind} {}", shown(&hello.name));
                tracing::info!(
                    session = session.0, incarnation = %hello.incarnation, address,
                    "{name} is here"
                );
                self.sessions.insert(session, Connected { outbox, name });
                self.engine.handle(now, Event::SessionOpened { session, hello: *hello });
            }
            Input::Up(session, message, _room) => {
                self.engine.handle(now, Event::Message { session, message });
            }
            // Both halves say so.
            Input::Closed(session) => {
                if let Some(Connected { name, .. }) = self.sessions.remove(&session) {
                    tracing::info!(session = session.0, "session of {name} over");
                    self.engine.handle(now, Event::SessionClosed { session });
                }
            }
            Input::Ask(question) => {
                let answer = question(&mut self.engine, now);
                self.answers.push(answer);
            }
        }
    }

    /// All records of a round are one transaction, and safe before anything is said: so what one
    /// event makes of several things is kept wholly or not at all.
    fn carry_out(&mut self) -> Result<(), StoreError> {
        let mut records = Vec::new();
        let mut rest = Vec::new();
        while let Some(command) = self.engine.poll_command() {
            match command {
                Command::Persist(record) => records.push(record),
                said => rest.push(said),
            }
        }
        if !records.is_empty() {
            // The loop's thread waits for the disk meanwhile, and so it should: there is nothing
            // that it could say before.
            self.store.put(&records)?;
            records.iter().for_each(log);
        }
        for command in rest {
            match command {
                Command::Persist(_) => {}
                Command::Send { session, message } => {
                    if let Down::Refused(why) = &message {
                        tracing::warn!(session = session.0, %why, "refused");
                    }
                    if let Some(connected) = self.sessions.get(&session) {
                        connected.outbox.push(message);
                    }
                }
                Command::Warn(what) => tracing::warn!("{what}"),
                Command::CloseSession { session } => {
                    if let Some(Connected { outbox, .. }) = self.sessions.remove(&session) {
                        outbox.close();
                    }
                }
            }
        }
        for answer in self.answers.drain(..) {
            answer();
        }
        Ok(())
    }

    fn now(&self) -> Time {
        self.at + self.origin.elapsed()
    }

    fn instant(&self, time: Time) -> Instant {
        self.origin + time.since(self.at)
    }
}

impl<S> Drop for Loop<S> {
    fn drop(&mut self) {
        for connected in self.sessions.values() {
            connected.outbox.close();
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn log(record: &Record) {
    match record {
        Record::Submitted { job, client, pipeline, .. } => {
            tracing::info!(%job, %client, pipeline = %pipeline.name, "job submitted");
        }
        // Put once more when its tasks have ended.
        Record::Ended { job, status, .. } => match &status.phase {
            JobPhase::Ending(Outcome::Completed) => tracing::info!(%job, "job completed"),
            JobPhase::Ending(Outcome::Cancelled(by)) => tracing::info!(%job, %by, "job cancelled"),
            JobPhase::Ending(Outcome::Failed(failure)) => {
                tracing::warn!(%job, "job failed: {failure}");
            }
            _ => {}
        },
        Record::Epochs { job, highest } => tracing::debug!(%job, %highest, "epochs given out"),
        Record::Position { job, stage, position } => {
            tracing::debug!(%job, %stage, position, "position");
        }
        Record::Suspect { job, stage, lineage, deaths } => match deaths.last() {
            None => tracing::info!(%job, "item {lineage} of {stage} is no longer a suspect"),
            Some(death) if death.alone => tracing::warn!(
                %job, worker = %death.worker, deaths = deaths.len(),
                "item {lineage} of {stage} ran alone when its process died: it is convicted"
            ),
            Some(death) => tracing::warn!(
                %job, worker = %death.worker, deaths = deaths.len(),
                "item {lineage} of {stage} was in process when a process died again: it runs alone"
            ),
        },
        Record::Forgotten { job } => tracing::debug!(%job, "job forgotten"),
        record => tracing::trace!(?record, "kept"),
    }
}

#[cfg(test)]
mod tests;
