//! The loop around one task's machine: events in, frames and effects out.
//!
//! One loop owns the machine and the links of its task; nothing is locked. It never waits for a peer,
//! a function or a consumer, so every link is always read.

mod report;
mod start;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use stageline_protocol::control::{SourceReport, TaskEnd};
use stageline_protocol::frame::{Accept, Close, CloseReason, Open};
use stageline_protocol::item::shortened;
use stageline_protocol::suspect::Verdict;
use stageline_protocol::task::{Effect, Finished, LinkKey, Plan, Task};
use stageline_protocol::{Body, ConnId, Content, Frame, JobId, Lineage, TaskId, Time};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::burst::{self, Bursts};
use super::census::{Counted, Counters};
use super::cost::Cost;
use super::dial::{Dial, Transports};
use super::gate::{Alone, Gate};
use super::handle::{Applied, NodeEvent};
use super::link::{Handed, Outbound, OutboundStream};
use super::routes::Routes;
use super::source::Source;
use super::terminal::Terminal;
use super::work::{self, Place, TaskSlot, Work};
use crate::sdk::{Payload, TaskContext, blocking_calls, discard};

/// Events handled between two rounds of output, at the most: what forms batches.
const EVENTS_PER_ROUND: usize = 256;

/// The way to a task's loop.
pub(crate) type TaskSender = mpsc::UnboundedSender<Event>;

/// What a task's loop is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// What it should be like, where its peers are, and the view that says so.
    Plan(Box<Plan>, Arc<Peers>, Applied),
    /// A peer dialled.
    Incoming(Box<Open>, Incoming),
    /// A frame arrived; the permit bounds how many wait.
    Frame { key: LinkKey, conn: ConnId, frame: Frame, permit: Option<OwnedSemaphorePermit> },
    /// A connection ended, or could not be made.
    Down { key: LinkKey, conn: ConnId },
    /// The source wants to be asked elsewhere.
    Moved(Box<Source>),
    /// Roots that the source made.
    Roots { batch: Vec<Content>, exhausted: bool },
    /// Outputs that an expansion made; `room` is told when it may make more.
    Outputs { input: u64, payloads: Vec<Payload>, room: oneshot::Sender<()> },
    /// Calls are done, or will go on by themselves.
    Burst(Box<burst::Done>),
    /// A function is done.
    Finished { input: u64, finished: Finished },
    /// A function waits between two attempts.
    ReleaseSlot { input: u64 },
    /// It wants its slot back.
    WantSlot { input: u64, granted: oneshot::Sender<()> },
    /// The coordinator's answers for marked inputs.
    Verdicts(Vec<(Lineage, Verdict)>),
    /// The process is empty for this input.
    Isolated { input: u64, alone: Alone },
    /// The consumer has taken some items.
    Taken,
    /// The consumer wants no more.
    CutInputs,
    /// The coordinator has answered a heartbeat.
    CoordinatorHeard,
    /// What the task runs is broken: it ends, and the job fails with this message.
    Failed(String),
    /// Give back what has not started, and end when the rest is acked.
    Drain,
    /// Report now.
    Report,
    /// End now.
    Stop,
}

/// How the other end of a connection that it dialled is reached.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A task of this process.
    Local(TaskSender),
    /// A peer over gRPC, which waits for the answer.
    Grpc(oneshot::Sender<Result<Accepted, Close>>),
}

/// A connection over gRPC that a task has accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) key: LinkKey,
    pub(crate) conn: ConnId,
    pub(crate) outbound: OutboundStream,
    pub(crate) hang_up: CancellationToken,
    pub(crate) task: TaskSender,
}

/// Where the tasks of a job are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    /// Those in other processes: their address, if they can be dialled.
    pub(crate) remote: BTreeMap<TaskId, Option<String>>,
}

/// What a loop is made of.
pub(super) struct TaskLoop {
    pub(super) task: Task,
    pub(super) job: JobId,
    pub(super) work: Work,
    pub(super) place: Arc<Place>,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) own: TaskSender,
    pub(super) node: mpsc::UnboundedSender<NodeEvent>,
    pub(super) routes: Routes,
    pub(super) transports: Transports,
    pub(super) counters: Counters,
    /// What its calls go through; none in a client.
    pub(super) gate: Option<Gate>,
    /// Where its functions run.
    pub(super) functions: Handle,
    pub(super) started: Instant,
    /// What the contexts of its functions show: cancelled when the task ends.
    pub(super) cancelled: CancellationToken,
}

impl TaskLoop {
    /// Runs the task until it ends, by itself or because it is told to. Its last report is final.
    pub(super) async fn run(self) {
        let counters = self.counters.clone();
        let (_task, _timer) = (counters.count(Counted::Task), counters.count(Counted::Timer));
        let cancelled = self.cancelled;
        let cx =
            TaskContext::new(self.job, &self.place.stage, &self.place.worker, cancelled.clone());
        let (pulls, pulled) = mpsc::unbounded_channel();
        let mut running = JoinSet::new();
        let mut bursts = None;
        let sink = match self.work {
            Work::Source(roots) => {
                let source = Source {
                    roots,
                    gate: self.gate.clone(),
                    place: self.place.clone(),
                    pulls: pulled,
                    task: self.own.clone(),
                    cost: Cost::default(),
                };
                source.spawn(&mut running, &self.functions);
                Sink::Source
            }
            Work::Function(invoker) => {
                bursts = invoker.burst().map(|(burst, max_payload)| {
                    Bursts::new(burst::Calls {
                        burst,
                        max_payload,
                        cx: cx.clone(),
                        place: self.place.clone(),
                        gate: self.gate.clone(),
                        own: self.own.clone(),
                        functions: self.functions.clone(),
                        started: self.started,
                    })
                });
                Sink::Function(invoker)
            }
            Work::Terminal(consumer) => Sink::Terminal(Terminal::new(consumer, self.own.clone())),
        };
        let mut state = State {
            task: self.task,
            job: self.job,
            place: self.place,
            sink,
            bursts,
            own: self.own,
            node: self.node,
            routes: self.routes,
            transports: self.transports,
            counters: self.counters,
            gate: self.gate,
            functions: self.functions,
            isolating: BTreeMap::new(),
            alone: BTreeMap::new(),
            started: self.started,
            cx,
            cancelled,
            running,
            pulls,
            connections: BTreeMap::new(),
            dials: JoinSet::new(),
            peers: Arc::default(),
            writable: Arc::new(Notify::new()),
            resuming: BTreeMap::new(),
            expansions: VecDeque::new(),
            applied: Applied::default(),
            told: None,
            ended: None,
        };
        state.run(self.events).await;
        // The function with it, and what that has captured.
        discard(state);
    }
}

enum Sink {
    Source,
    Function(crate::sdk::Invoker),
    Terminal(Terminal),
}

struct State {
    task: Task,
    job: JobId,
    place: Arc<Place>,
    sink: Sink,
    /// None if its function is not called by the burst.
    bursts: Option<Bursts>,
    own: TaskSender,
    node: mpsc::UnboundedSender<NodeEvent>,
    routes: Routes,
    transports: Transports,
    counters: Counters,
    gate: Option<Gate>,
    functions: Handle,
    /// Inputs for which the process is being emptied.
    isolating: BTreeMap<u64, AbortHandle>,
    /// Inputs that have the process to themselves.
    alone: BTreeMap<u64, Alone>,
    started: Instant,
    cx: TaskContext,
    cancelled: CancellationToken,
    running: JoinSet<()>,
    pulls: mpsc::UnboundedSender<(u64, u64)>,
    connections: BTreeMap<LinkKey, Outbound>,
    dials: JoinSet<()>,
    peers: Arc<Peers>,
    writable: Arc<Notify>,
    /// Functions that wait for their slot.
    resuming: BTreeMap<u64, oneshot::Sender<()>>,
    /// Expansions that wait for room.
    expansions: VecDeque<(u64, oneshot::Sender<()>)>,
    /// The newest view that has been applied.
    applied: Applied,
    /// What was last told of the source.
    told: Option<SourceReport>,
    ended: Option<TaskEnd>,
}

impl State {
    async fn run(&mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        let writable = self.writable.clone();
        let mut alarm = Alarm::new();
        while self.ended.is_none() {
            self.next_turn();
            self.output();
            while !self.alone.is_empty() && self.park_suspects() {
                self.output();
            }
            if self.ended.is_some() {
                break;
            }
            let left = self.is_left();
            if left {
                tokio::task::yield_now().await;
            }
            alarm.set(self.task.poll_timeout().map(|at| self.instant(at)));
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { break };
                    self.handle(event);
                }
                () = alarm.rings() => self.task.handle_timeout(self.now()),
                () = writable.notified() => {
                    for (key, connection) in &self.connections {
                        if connection.has_room() {
                            self.task.unblock(*key);
                        }
                    }
                }
                () = std::future::ready(()), if left => {}
            }
            for _ in 1..EVENTS_PER_ROUND {
                match events.try_recv() {
                    Ok(event) => self.handle(event),
                    Err(_) => break,
                }
            }
            while let Some(ended) = self.running.try_join_next() {
                work::reap(ended);
            }
            while self.dials.try_join_next().is_some() {}
        }
        self.stop().await;
    }

    async fn stop(&mut self) {
        self.cancelled.cancel();
        for (_, connection) in std::mem::take(&mut self.connections) {
            connection.close();
        }
        self.running.abort_all();
        while let Some(ended) = self.running.join_next().await {
            work::reap(ended);
        }
        let end = self.ended.take().unwrap_or(TaskEnd::Stopped);
        let report = self.task.report(Some(end));
        let event = NodeEvent::Report(self.job, self.applied, Box::new(report));
        let _node_over = self.node.send(event);
        // Connections end in good order by themselves, within their grace.
        self.dials.detach_all();
    }

    fn now(&self) -> Time {
        let micros = self.started.elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    fn instant(&self, at: Time) -> Instant {
        self.started + Duration::from_micros(at.as_micros())
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Plan(plan, peers, view) => {
                self.peers = peers;
                self.applied = view;
                self.task.set_plan(now, &plan);
                self.confirm();
            }
            Event::Incoming(open, incoming) => self.accept(now, &open, incoming),
            Event::Frame { key, conn, frame, permit } => {
                drop(permit);
                if let Err(violation) = self.task.on_frame(now, key, conn, frame) {
                    tracing::warn!(
                        job = %self.job, stage = %self.place.stage, task = %self.task.id(),
                        peer = %key.peer, %violation, "a peer broke the protocol; its link is closed"
                    );
                    let reason = CloseReason::Violation;
                    let close = Frame::Close(Close { reason, message: violation.to_string() });
                    if let Some(connection) = self.connections.get(&key) {
                        let _closing_anyway = connection.hand(close);
                    }
                }
            }
            Event::Down { key, conn } => self.task.on_down(now, key, conn),
            Event::Moved(source) => source.spawn(&mut self.running, &self.functions),
            Event::Roots { batch, exhausted } => self.task.roots(now, batch, exhausted),
            Event::Outputs { input, payloads, room } => {
                for payload in payloads {
                    self.task.emit(now, input, payload.encoding, payload.bytes);
                }
                self.expansions.push_back((input, room));
            }
            Event::Burst(done) => self.burst_done(*done),
            Event::Finished { input, finished } => self.task.finish(now, input, finished),
            Event::ReleaseSlot { input } => self.task.release_slot(now, input),
            Event::WantSlot { input, granted } => {
                self.resuming.insert(input, granted);
                self.task.want_slot(now, input);
            }
            Event::Verdicts(verdicts) => {
                for (lineage, verdict) in verdicts {
                    self.task.verdict(now, &lineage, &verdict);
                }
            }
            Event::Isolated { input, alone } => {
                if self.isolating.remove(&input).is_some() {
                    self.alone.insert(input, alone);
                    self.task.isolated(now, input, blocking_calls() > 0);
                }
            }
            Event::Taken => {
                if let Sink::Terminal(terminal) = &mut self.sink {
                    for inputs in terminal.taken() {
                        self.task.finish_all(now, inputs, false);
                    }
                }
            }
            Event::CutInputs => self.task.cut_inputs(now),
            Event::CoordinatorHeard => self.task.heard(now),
            Event::Drain => self.task.drain(now),
            Event::Report => self.report(),
            Event::Failed(message) => {
                self.ended.get_or_insert(TaskEnd::Failed(shortened(message)));
            }
            Event::Stop => {
                self.ended.get_or_insert(TaskEnd::Stopped);
            }
        }
    }

    /// Puts out all that the machine has to say and to do.
    fn output(&mut self) {
        let now = self.now();
        loop {
            while let Some((key, conn, frame)) = self.task.poll_frame(now) {
                let handed = match self.connections.get(&key) {
                    Some(connection) if connection.conn == conn => connection.hand(frame),
                    _ => Handed::Gone,
                };
                match handed {
                    Handed::Ready => {}
                    Handed::Full => self.task.block(key),
                    Handed::Gone => self.task.on_down(now, key, conn),
                }
            }
            if !self.apply_next() {
                break;
            }
        }
        while self.task.can_emit() {
            let Some((_, room)) = self.expansions.pop_front() else { break };
            let _dropped = room.send(());
        }
    }

    /// Suspects that wait for room give the process up: what makes room may need it.
    fn park_suspects(&mut self) -> bool {
        let waits = |(input, _): &(u64, _)| self.task.is_alone(*input);
        let Some(place) = self.expansions.iter().position(waits) else { return false };
        if let Some((input, room)) = self.expansions.remove(place) {
            self.resuming.insert(input, room);
            self.task.park(self.now(), input);
        }
        true
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Dial(key, open) => self.dial(key, *open),
            Effect::HangUp(key, conn) => {
                if self.connections.get(&key).is_some_and(|c| c.conn == conn)
                    && let Some(connection) = self.connections.remove(&key)
                {
                    connection.close();
                }
            }
            Effect::Start { input, run } => self.start_run(input, run),
            Effect::Resume { input } => {
                if let Some(granted) = self.resuming.remove(&input) {
                    let _dropped = granted.send(());
                }
            }
            Effect::Isolate { input, lineage } => {
                let stage = &self.place.stage;
                if self.resuming.contains_key(&input) {
                    tracing::debug!(job = %self.job, %stage, %lineage, "a suspect runs alone again");
                } else {
                    tracing::warn!(
                        job = %self.job,
                        "item {lineage} of stage {stage:?} was in process at two deaths: it runs alone"
                    );
                }
                let Some(gate) = self.gate.clone() else { return };
                let own = self.own.clone();
                let isolate = async move {
                    let alone = gate.alone().await;
                    let _task_over = own.send(Event::Isolated { input, alone });
                };
                self.isolating.insert(input, self.running.spawn(isolate));
            }
            Effect::Rejoin { input } => {
                if let Some(isolating) = self.isolating.remove(&input) {
                    isolating.abort();
                }
                self.alone.remove(&input);
            }
            Effect::Drop { input } => {
                self.resuming.remove(&input);
            }
            Effect::Abort => {
                self.cancelled.cancel();
                self.running.abort_all();
                self.cancelled = CancellationToken::new();
                self.cx = TaskContext::new(
                    self.job,
                    &self.place.stage,
                    &self.place.worker,
                    self.cancelled.clone(),
                );
                if let Some(bursts) = &mut self.bursts {
                    bursts.abort(self.cx.clone());
                }
                // A source that is about to move ends instead.
                self.pulls = mpsc::unbounded_channel().0;
                self.resuming.clear();
                self.expansions.clear();
            }
            Effect::Pull { items, bytes } => {
                let _source_over = self.pulls.send((items, bytes));
            }
            Effect::Report => self.report(),
            Effect::End(end) => self.ended = Some(end),
        }
    }

    fn start(&mut self, input: u64, lineage: stageline_protocol::Lineage, body: Body) {
        match &self.sink {
            Sink::Source | Sink::Terminal(_) => {}
            Sink::Function(invoker) => {
                let Body::Value(encoding, bytes) = body else { return };
                let (invoker, own) = (invoker.clone(), self.own.clone());
                let payload = Payload { encoding, bytes };
                let (cx, place) = (self.cx.item(lineage), self.place.clone());
                // Whoever is alone is past the gate.
                let gate = self.gate.clone().filter(|_| !self.alone.contains_key(&input));
                let slot = TaskSlot::new(input, own, gate);
                let call = work::run_function(invoker, cx, payload, place, slot);
                self.running.spawn_on(call, &self.functions);
            }
        }
    }

    fn dial(&mut self, key: LinkKey, open: Open) {
        let conn = open.conn;
        let tally = self.counters.count(Counted::Link);
        match self.peers.remote.get(&key.peer) {
            Some(Some(address)) => {
                let (connection, outbound, hang_up) =
                    Outbound::grpc(conn, self.writable.clone(), tally);
                let _has_room = connection.hand(Frame::Open(open));
                self.connections.insert(key, connection);
                let dial = Dial {
                    transports: self.transports.clone(),
                    address: address.clone(),
                    key,
                    conn,
                    outbound,
                    hang_up,
                    task: self.own.clone(),
                };
                self.dials.spawn(dial.run());
            }
            Some(None) => {
                let _own_loop = self.own.send(Event::Down { key, conn });
            }
            None => {
                let Some(peer) = self.routes.find(self.job, key.peer) else {
                    let _own_loop = self.own.send(Event::Down { key, conn });
                    return;
                };
                let theirs = LinkKey { channel: key.channel, peer: self.task.id() };
                let connection = Outbound::local(conn, theirs, peer.clone(), tally);
                self.connections.insert(key, connection);
                let event = Event::Incoming(Box::new(open), Incoming::Local(self.own.clone()));
                if peer.send(event).is_err() {
                    let _own_loop = self.own.send(Event::Down { key, conn });
                }
            }
        }
    }

    fn accept(&mut self, now: Time, open: &Open, incoming: Incoming) {
        let conn = open.conn;
        match (self.task.on_open(now, open), incoming) {
            (Ok((key, accept)), Incoming::Local(peer)) => {
                let theirs = LinkKey { channel: key.channel, peer: self.task.id() };
                let tally = self.counters.count(Counted::Link);
                self.install(key, Outbound::local(conn, theirs, peer, tally), accept);
            }
            (Ok((key, accept)), Incoming::Grpc(answer)) => {
                let tally = self.counters.count(Counted::Link);
                let (connection, outbound, hang_up) =
                    Outbound::grpc(conn, self.writable.clone(), tally);
                self.install(key, connection, accept);
                let task = self.own.clone();
                if answer.send(Ok(Accepted { key, conn, outbound, hang_up, task })).is_err() {
                    self.task.on_down(now, key, conn);
                }
            }
            (Err(close), Incoming::Local(peer)) => {
                let key = LinkKey { channel: open.link.channel, peer: self.task.id() };
                let frame = Frame::Close(close);
                let _gone = peer.send(Event::Frame { key, conn, frame, permit: None });
            }
            (Err(close), Incoming::Grpc(answer)) => {
                let _gone = answer.send(Err(close));
            }
        }
    }

    fn install(&mut self, key: LinkKey, connection: Outbound, accept: Accept) {
        let _has_room = connection.hand(Frame::Accept(accept));
        // An older connection is superseded: its own end of it closes it.
        self.connections.insert(key, connection);
        self.task.unblock(key);
    }
}
