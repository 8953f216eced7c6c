use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{FutureExt, stream};
use stageline_protocol::control::{TaskEnd, TaskPlan};
use stageline_protocol::pipeline::{Carries, Channel, Pipeline, Stage};
use stageline_protocol::{Epoch, StageId, Term};

use tokio::sync::Notify;

use super::super::*;
use crate::runtime::{SessionChannel, SessionFuture, consumer};
use crate::sdk::{Roots, StageError};

const JOB: JobId = JobId(1);
const LEASE: Duration = Duration::from_secs(5);

/// The workers were given up, and then the coordinator died: the client has neither a session nor
/// links, for longer than its lease. Its job is there when the coordinator is.
#[tokio::test(start_paused = true)]
async fn a_client_keeps_its_own_job_however_long_the_coordinator_is_away() {
    let coordinator = Arc::new(Coordinator::default());
    let (node, handle) = Node::new(config(ProcessKind::Client), coordinator.clone());
    let node = tokio::spawn(node.run());
    let mut session = coordinator.session().await;
    let (results, _taken) = consumer();
    let roots = stream::pending::<Result<u64, StageError>>();
    let local = LocalJob {
        stages: BTreeMap::from([
            (SOURCE, LocalStage::Source(Roots::new(roots, 1))),
            (TERMINAL, LocalStage::Terminal(results)),
        ]),
        ..LocalJob::default()
    };
    let submit = Submit { job: JOB, pipeline: pipeline(), wait_stages: LEASE };
    let updates = handle.submit(submit, local);
    session.says(Down::View(view(1)));
    assert_eq!(session.reported(1).await, [None, None], "source and terminal run");

    coordinator.away(session, LEASE * 10).await;
    let mut session = coordinator.session().await;
    session.says(Down::View(view(2)));
    assert_eq!(session.reported(2).await, [None, None], "both run on");
    drop((updates, handle));
    node.abort();
}

/// A worker's task that nobody can reach any more would run for nobody.
#[tokio::test(start_paused = true)]
async fn a_worker_ends_what_has_neither_session_nor_links_for_a_lease() {
    let coordinator = Arc::new(Coordinator::default());
    let registry = Registry::new().map(WORK, |n: u64| async move { n });
    let config = NodeConfig { registry: Arc::new(registry), ..config(ProcessKind::Worker) };
    let (node, handle) = Node::new(config, coordinator.clone());
    let node = tokio::spawn(node.run());
    let mut session = coordinator.session().await;
    let work = TaskPlan { id: task(1), slots: 1, drain: false, again: false };
    session.says(Down::View(Box::new(JobView { tasks: vec![work], ..*view(1) })));
    assert_eq!(session.reported(1).await, [None], "it runs");

    coordinator.away(session, LEASE * 10).await;
    let mut session = coordinator.session().await;
    session.says(Down::View(Box::new(JobView { tasks: vec![work], ..*view(2) })));
    assert_eq!(session.reported(2).await, [Some(TaskEnd::Stopped)]);
    drop(handle);
    node.abort();
}

const WORK: crate::sdk::Stage<u64, u64> = crate::sdk::Stage::named("work");
const SOURCE: StageId = StageId(0);
const TERMINAL: StageId = StageId(2);

/// The coordinator's end of sessions.
#[derive(Default)]
struct Coordinator {
    away: AtomicBool,
    opened: Mutex<Vec<Session>>,
    news: Notify,
}

struct Session {
    up: mpsc::UnboundedReceiver<Up>,
    down: mpsc::UnboundedSender<Down>,
}

impl SessionOpener for Coordinator {
    fn open(&self) -> SessionFuture {
        if self.away.load(Ordering::Relaxed) {
            let (address, reason) = ("here".to_owned(), "away".to_owned());
            return async { Err(SessionError { address, reason }) }.boxed();
        }
        let (up, ups) = mpsc::unbounded_channel();
        let (downs, down) = mpsc::unbounded_channel();
        self.opened.lock().unwrap().push(Session { up: ups, down: downs });
        self.news.notify_one();
        async { Ok(SessionChannel { up, down }) }.boxed()
    }
}

impl Coordinator {
    /// A process says hello, and is welcomed.
    async fn session(&self) -> Session {
        self.news.notified().await;
        let mut session = self.opened.lock().unwrap().pop().unwrap();
        assert!(matches!(session.up.recv().await, Some(Up::Hello(_))));
        session.says(Down::Welcome(Welcome { version: 1, term: Term(1), lease: LEASE }));
        session
    }

    /// Breaks the session; nobody is there for so long.
    async fn away(&self, session: Session, time: Duration) {
        self.away.store(true, Ordering::Relaxed);
        drop(session);
        tokio::time::sleep(time).await;
        self.away.store(false, Ordering::Relaxed);
    }
}

impl Session {
    fn says(&self, message: Down) {
        self.down.send(message).unwrap();
    }

    /// How the tasks stand, by the first report that knows that view.
    async fn reported(&mut self, revision: u64) -> Vec<Option<TaskEnd>> {
        loop {
            if let Some(Up::Report(report)) = self.up.recv().await
                && report.revision == revision
            {
                return report.tasks.into_iter().map(|task| task.ended).collect();
            }
        }
    }
}

fn config(kind: ProcessKind) -> NodeConfig {
    NodeConfig {
        kind,
        name: "process".into(),
        address: None,
        registry: Arc::new(Registry::new()),
        limits: Limits::default(),
        dialler: Dialler::default(),
        threads: Threads::callers(),
        ids: Ids::default(),
        give_up: None,
    }
}

fn pipeline() -> Pipeline {
    let channel = |from, to| Channel { from, to, carries: Carries::All, buffer: None };
    Pipeline {
        stages: vec![
            Stage::new("source", Op::Source, Site::Client),
            Stage::new("work", Op::Map, Site::Fleet),
            Stage::new("terminal", Op::Terminal, Site::Client),
        ],
        channels: vec![channel(SOURCE, StageId(1)), channel(StageId(1), TERMINAL)],
        ..Pipeline::default()
    }
}

/// The client's part, while no worker is there.
fn view(revision: u64) -> Box<JobView> {
    let plan = |stage| TaskPlan { id: task(stage), slots: 64, drain: false, again: false };
    Box::new(JobView {
        job: JOB,
        term: Term(1),
        revision,
        pipeline: pipeline(),
        phase: JobPhase::Running,
        tasks: vec![plan(0), plan(2)],
        peers: Vec::new(),
        highest_epoch: Epoch(3),
        window: 100,
        pause_sources: false,
        cut: Vec::new(),
        positions: BTreeMap::new(),
    })
}

fn task(stage: u32) -> TaskId {
    TaskId { stage: StageId(stage), epoch: Epoch(u64::from(stage) + 1) }
}
