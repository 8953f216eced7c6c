use std::time::Duration;

use stageline_protocol::control::{
    Census, Function, JobPhase, JobView, Outcome, ProcessKind, Report, SourceReport, Submit,
    TaskEnd, TaskReport,
};
use stageline_protocol::pipeline::{Carries, Channel, Op, Pipeline, Site, Stage};
use stageline_protocol::{Incarnation, StageId, VERSIONS};

use super::*;
use crate::store::Stored;

const JOB: JobId = JobId(7);

#[tokio::test]
async fn a_job_runs_from_submission_to_its_final_status() {
    let coordinator = Coordinator::start(Config::default());
    let mut worker = Process::join(&coordinator, ProcessKind::Worker, "w").await;
    let mut client = Process::join(&coordinator, ProcessKind::Client, "c").await;
    client.say(Up::Submit(submit())).await;

    let view = worker.view(|view| !view.tasks.is_empty()).await;
    assert_eq!(view.peers.len(), 3);
    assert_eq!(coordinator.jobs().await.unwrap()[0].phase, JobPhase::Running);
    assert_eq!(coordinator.processes().await.unwrap().len(), 2);

    let view = client.view(|view| !view.tasks.is_empty()).await;
    let source = SourceReport { watermark: 3, exhausted: Some(3), ..SourceReport::default() };
    client.report(&view, |task| task.source = Some(source)).await;
    for process in [&mut worker, &mut client] {
        let ran = process.last.clone().unwrap();
        let ending = process.view(|view| view.tasks.is_empty()).await;
        assert_eq!(ending.phase, JobPhase::Ending(Outcome::Completed));
        let ran = JobView { revision: ending.revision, ..*ran };
        process.report(&ran, |task| task.ended = Some(TaskEnd::Stopped)).await;
    }
    let last =
        client.until(|down| matches!(down, Down::Status(s) if s.phase.name() == "completed"));
    last.await;
    assert_eq!(client.rx.recv().await, Some(Down::Forget(JOB)));
    worker.until(|down| *down == Down::Forget(JOB)).await;
    assert_eq!(coordinator.job(JOB).await.unwrap().unwrap().phase.name(), "completed");
}

#[tokio::test]
async fn a_worker_whose_session_ends_is_replaced_and_a_goodbye_is_heard_first() {
    let config = Config { reset_grace: Duration::from_millis(20), ..Config::default() };
    let coordinator = Coordinator::start(config);
    let mut client = Process::join(&coordinator, ProcessKind::Client, "c").await;
    let first = Process::join(&coordinator, ProcessKind::Worker, "w1").await;
    client.say(Up::Submit(submit())).await;
    client.view(|view| view.peers.len() == 3).await;
    drop(first);
    client.view(|view| view.peers.len() == 2).await;

    let mut second = Process::join(&coordinator, ProcessKind::Worker, "w2").await;
    client.view(|view| view.peers.len() == 3).await;
    second.say(Up::Goodbye).await;
    drop(second);
    client.view(|view| view.peers.len() == 2).await;

    // A client has its whole lease to come back, unless it says goodbye.
    client.say(Up::Goodbye).await;
    drop(client);
    let job = coordinator.job(JOB).await.unwrap().unwrap();
    assert!(matches!(job.phase, JobPhase::Ended(Outcome::Cancelled(why)) if why.contains("left")));
}

#[tokio::test]
async fn a_job_is_cancelled_by_hand() {
    let coordinator = Coordinator::start(Config::default());
    let mut client = Process::join(&coordinator, ProcessKind::Client, "c").await;
    client.say(Up::Submit(submit())).await;
    client.until(|down| matches!(down, Down::Status(_))).await;
    let status = coordinator.cancel(JOB, "by hand".into()).await.unwrap().unwrap();
    assert_eq!(status.phase, JobPhase::Ended(Outcome::Cancelled("by hand".into())));
    assert_eq!(coordinator.cancel(JobId(1), String::new()).await, Ok(None));
}

#[tokio::test]
async fn a_session_begins_with_its_only_hello() {
    let coordinator = Coordinator::start(Config::default());
    let (tx, mut rx) = coordinator.open_session(None);
    assert_eq!(tx.send(Up::Heartbeat(Census::default())).await, Err(SessionClosed));
    assert!(matches!(rx.recv().await, Some(Down::Refused(why)) if why.contains("hello")));
    assert_eq!(rx.recv().await, None);

    let mut twice = Process::join(&coordinator, ProcessKind::Worker, "w").await;
    twice.say(Up::Hello(hello(ProcessKind::Worker, "w"))).await;
    twice.until(|down| matches!(down, Down::Refused(_))).await;
    assert_eq!(twice.rx.recv().await, None);
    assert_eq!(twice.tx.send(Up::Goodbye).await, Err(SessionClosed));
}

#[tokio::test]
async fn an_address_without_a_host_is_where_the_session_comes_from() {
    let coordinator = Coordinator::start(Config::default());
    let rows = [
        (":7401", "10.0.0.9", "10.0.0.9:7401"),
        (":7401", "::ffff:10.0.0.9", "10.0.0.9:7401"),
        (":7401", "2001:db8::1", "[2001:db8::1]:7401"),
        ("me:1", "10.0.0.9", "me:1"),
    ];
    for (given, peer, expected) in rows {
        let (tx, mut rx) = coordinator.open_session(Some(peer.parse().unwrap()));
        let mut hello = hello(ProcessKind::Worker, "w");
        hello.address = Some(given.into());
        tx.send(Up::Hello(hello)).await.unwrap();
        rx.recv().await.unwrap();
        let listed = coordinator.processes().await.unwrap();
        assert_eq!(listed.last().unwrap().address.as_deref(), Some(expected));
        tx.send(Up::Goodbye).await.unwrap();
    }
}

#[tokio::test]
async fn one_that_never_reads_neither_grows_nor_stops_the_others() {
    let coordinator = Coordinator::start(Config::default());
    let mut deaf = Process::join(&coordinator, ProcessKind::Worker, "deaf").await;
    let mut client = Process::join(&coordinator, ProcessKind::Client, "c").await;
    for _ in 0..10 * INBOX {
        deaf.say(Up::Heartbeat(Census::default())).await;
    }
    client.say(Up::Submit(submit())).await;
    client.view(|view| view.peers.len() == 3).await;
    // Ten times the queue of heartbeats, one answer; then the job.
    assert_eq!(deaf.rx.recv().await, Some(Down::Alive));
    assert!(matches!(deaf.rx.recv().await, Some(Down::View(_))));
}

#[tokio::test]
async fn a_coordinator_that_stops_ends_every_session() {
    let coordinator = Coordinator::start(Config::default());
    let mut worker = Process::join(&coordinator, ProcessKind::Worker, "w").await;
    coordinator.shutdown();
    assert_eq!(worker.rx.recv().await, None);
    assert_eq!(worker.tx.send(Up::Goodbye).await, Err(SessionClosed));
    assert_eq!(coordinator.jobs().await, Err(Stopped));
    assert_eq!(coordinator.stopped().await, None, "somebody asked for it");
}

#[tokio::test]
async fn a_coordinator_whose_store_fails_announces_nothing_and_says_why() {
    struct Full;
    impl Store for Full {
        fn load(&mut self) -> Result<Stored, StoreError> {
            Ok(Stored::default())
        }
        fn put(&mut self, records: &[Record]) -> Result<(), StoreError> {
            match records.iter().any(|record| matches!(record, Record::Epochs { .. })) {
                true => Err(StoreError("the disk is full".into())),
                false => Ok(()),
            }
        }
    }
    let coordinator = Coordinator::start_with(Config::default(), wall_clock(), Full).unwrap();
    let mut worker = Process::join(&coordinator, ProcessKind::Worker, "w").await;
    let mut client = Process::join(&coordinator, ProcessKind::Client, "c").await;
    client.say(Up::Submit(submit())).await;
    assert_eq!(worker.rx.recv().await, None, "the tasks were not announced");
    assert!(coordinator.stopped().await.unwrap().contains("the disk is full"));
}

/// A played process.
struct Process {
    tx: SessionTx,
    rx: SessionRx,
    last: Option<Box<JobView>>,
}

impl Process {
    async fn join(coordinator: &CoordinatorHandle, kind: ProcessKind, name: &str) -> Self {
        let (tx, mut rx) = coordinator.open_session(None);
        tx.send(Up::Hello(hello(kind, name))).await.unwrap();
        assert!(matches!(rx.recv().await, Some(Down::Welcome(_))));
        Self { tx, rx, last: None }
    }

    async fn say(&mut self, up: Up) {
        self.tx.send(up).await.unwrap();
    }

    async fn until(&mut self, wanted: impl Fn(&Down) -> bool) -> Down {
        loop {
            let down = self.rx.recv().await.expect("the session lives");
            if wanted(&down) {
                return down;
            }
        }
    }

    async fn view(&mut self, wanted: impl Fn(&JobView) -> bool) -> Box<JobView> {
        let down = self.until(|down| matches!(down, Down::View(view) if wanted(view))).await;
        let Down::View(view) = down else { unreachable!() };
        self.last = Some(view.clone());
        view
    }

    /// Reports the tasks of a view.
    async fn report(&mut self, view: &JobView, change: impl Fn(&mut TaskReport)) {
        let tasks = view.tasks.iter().map(|plan| {
            let mut task = TaskReport { id: plan.id, ..TaskReport::default() };
            change(&mut task);
            task
        });
        let tasks = tasks.collect();
        self.say(Up::Report(Report {
            job: view.job,
            term: view.term,
            revision: view.revision,
            tasks,
        }))
        .await;
    }
}

fn hello(kind: ProcessKind, name: &str) -> Hello {
    let function = Function {
        name: "fetch".into(),
        op: Op::Map,
        slots: 4,
        input: None,
        output: None,
        replayable: true,
    };
    let incarnation = name.bytes().fold(1, |hash: u64, byte| hash * 257 + u64::from(byte));
    Hello {
        versions: VERSIONS,
        kind,
        name: name.into(),
        incarnation: Incarnation(incarnation),
        address: None,
        functions: if kind == ProcessKind::Worker { vec![function] } else { Vec::new() },
        leaving: false,
    }
}

fn submit() -> Submit {
    let channel = |from: u32| Channel {
        from: StageId(from),
        to: StageId(from + 1),
        carries: Carries::All,
        buffer: None,
    };
    let pipeline = Pipeline {
        name: "story".into(),
        stages: vec![
            Stage::new("in", Op::Source, Site::Client),
            Stage::new("fetch", Op::Map, Site::Fleet),
            Stage::new("out", Op::Terminal, Site::Client),
        ],
        channels: vec![channel(0), channel(1)],
        max_in_flight: None,
    };
    Submit { job: JOB, pipeline, wait_stages: Duration::from_secs(60) }
}
