use std::fs;
use std::time::Duration;

use proptest::prelude::*;
use stageline_protocol::control::{
    Function, Hello, JobPhase, JobStatus, Outcome, ProcessKind, StageStatus, TaskStats,
};
use stageline_protocol::pipeline::{Op, Pipeline, Site, Stage};
use stageline_protocol::suspect::Death;
use stageline_protocol::{
    Epoch, Incarnation, JobId, Lineage, StageId, Step, TaskId, Term, Time, VERSIONS,
};

use super::*;
use crate::store::{MemoryStore, StoredTask};

fn hello(life: u64) -> Box<Hello> {
    let function = Function {
        name: "fetch".into(),
        op: Op::Map,
        slots: 4,
        input: None,
        output: None,
        replayable: true,
    };
    Box::new(Hello {
        versions: VERSIONS,
        kind: ProcessKind::Worker,
        name: format!("w{life}"),
        incarnation: Incarnation(life),
        address: Some("127.0.0.1:7".into()),
        functions: vec![function],
        leaving: false,
    })
}

fn pipeline() -> Pipeline {
    let stages = vec![
        Stage::new("in", Op::Source, Site::Client),
        Stage::new("out", Op::Terminal, Site::Client),
    ];
    Pipeline { name: "story".into(), stages, channels: Vec::new(), max_in_flight: Some(7) }
}

fn status(job: u64) -> Box<JobStatus> {
    let stage = StageStatus {
        name: "fetch".into(),
        op: Op::Map,
        slots: 2,
        totals: TaskStats { started: 9, ..TaskStats::default() },
        by_worker: [("w1".to_owned(), 9)].into(),
    };
    Box::new(JobStatus {
        job: JobId(job),
        name: "story".into(),
        phase: JobPhase::Ended(Outcome::Cancelled("so".into())),
        client: "c".into(),
        age: Duration::from_secs(3),
        stages: vec![stage],
        held_up_by: Vec::new(),
    })
}

fn submitted(job: u64) -> Record {
    Record::Submitted {
        job: JobId(job),
        client: Incarnation(1),
        client_name: "c".into(),
        at: Time::from_micros(5),
        pipeline: pipeline(),
        wait_stages: Duration::from_secs(60),
    }
}

fn task(job: u64, epoch: u64, slots: u32) -> Record {
    let task = StoredTask {
        id: TaskId { stage: StageId(1), epoch: Epoch(epoch) },
        process: Incarnation(2),
        worker: "w".into(),
        slots,
        held: slots + 1,
        start: 3,
        retiring: slots == 0,
    };
    Record::Task { job: JobId(job), task }
}

fn suspect(job: u64, root: u64, deaths: usize) -> Record {
    let death = Death { worker: "w".into(), process: Incarnation(2), alone: deaths == 1 };
    let lineage = Lineage::root(StageId(0), root).with(Step::Output(root)).with(Step::Branch(1));
    let (job, stage) = (JobId(job), StageId(1));
    Record::Suspect { job, stage, lineage, deaths: vec![death; deaths] }
}

fn record() -> impl Strategy<Value = Record> {
    let job = 1u64..4;
    prop_oneof![
        (1u64..9).prop_map(|term| Record::Term(Term(term))),
        (1u64..4).prop_map(|life| Record::Process(hello(life))),
        (1u64..4).prop_map(|life| Record::Gone(Incarnation(life))),
        prop::collection::vec(any::<u64>().prop_map(Incarnation), 0..4)
            .prop_map(Record::Superseded),
        job.clone().prop_map(submitted),
        (job.clone(), 0u64..9)
            .prop_map(|(job, n)| Record::Epochs { job: JobId(job), highest: Epoch(n) }),
        (job.clone(), 0u64..4, 0u32..4).prop_map(|(job, epoch, slots)| task(job, epoch, slots)),
        (job.clone(), 0u64..4)
            .prop_map(|(job, epoch)| Record::TaskOver { job: JobId(job), epoch: Epoch(epoch) }),
        (job.clone(), 0u32..2, 0u64..9).prop_map(|(job, stage, position)| Record::Position {
            job: JobId(job),
            stage: StageId(stage),
            position
        }),
        (job.clone(), 0u32..2)
            .prop_map(|(job, stage)| Record::Finished { job: JobId(job), stage: StageId(stage) }),
        (job.clone(), 0u64..3, 0usize..3)
            .prop_map(|(job, root, deaths)| suspect(job, root, deaths)),
        job.clone().prop_map(|job| Record::Ended {
            job: JobId(job),
            client: Incarnation(1),
            at: Time::from_micros(9),
            status: status(job),
        }),
        job.prop_map(|job| Record::Forgotten { job: JobId(job) }),
    ]
}

/// What an engine would put: nothing about a job that is not there, and what only rises, rises.
fn sensible(memory: &MemoryStore, record: &Record) -> bool {
    let stored = memory.stored();
    let job = |job: &JobId| stored.jobs.get(job);
    match record {
        Record::Term(term) => *term > stored.term,
        Record::Submitted { job, .. } => {
            !stored.jobs.contains_key(job) && !stored.ended.contains_key(job)
        }
        Record::Ended { job, .. } => {
            stored.jobs.contains_key(job) || stored.ended.contains_key(job)
        }
        Record::Epochs { job: id, highest } => job(id).is_some_and(|it| it.highest < *highest),
        Record::Position { job: id, stage, position } => {
            job(id).is_some_and(|it| it.positions.get(stage).is_none_or(|at| at < position))
        }
        record => stored.knows(record),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn what_was_put_is_there_after_a_restart(
        batches in prop::collection::vec(prop::collection::vec(record(), 1..8), 1..6)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let mut memory = MemoryStore::default();
        for batch in batches {
            let mut records = Vec::new();
            for record in batch.into_iter().chain([Record::Finished { job: JobId(1), stage: StageId(0) }]) {
                if sensible(&memory, &record) {
                    memory.put(std::slice::from_ref(&record)).unwrap();
                    records.push(record);
                }
            }
            RedbStore::open(&path).unwrap().put(&records).unwrap();
            prop_assert_eq!(RedbStore::open(&path).unwrap().load().unwrap(), memory.stored());
        }
    }
}

/// A store with a few jobs in it, and its bytes.
fn filled(folder: &Path) -> (PathBuf, Stored, Vec<u8>) {
    let path = folder.join("store.redb");
    let mut store = RedbStore::open(&path).unwrap();
    for job in 1..20 {
        let epochs = Record::Epochs { job: JobId(job), highest: Epoch(2) };
        store.put(&[submitted(job), epochs, task(job, 2, 4)]).unwrap();
    }
    let stored = store.load().unwrap();
    drop(store);
    let bytes = fs::read(&path).unwrap();
    (path, stored, bytes)
}

fn reload(path: &Path) -> Result<Stored, StoreError> {
    RedbStore::open(path)?.load()
}

#[test]
fn a_damaged_file_is_refused_or_has_all_that_was_put() {
    let folder = tempfile::tempdir().unwrap();
    let (path, stored, bytes) = filled(folder.path());
    assert_eq!(reload(&path).unwrap(), stored);
    let mut refused = 0;
    let mut random = proptest::test_runner::TestRng::deterministic_rng(
        proptest::test_runner::RngAlgorithm::ChaCha,
    );
    for round in 0..64 {
        let mut damaged = bytes.clone();
        // Blocks of 64 bytes, half of them where something is: the file has free pages, too.
        let used: Vec<usize> = (0..damaged.len() / 64)
            .filter(|at| damaged[at * 64..][..64].iter().any(|b| *b != 0))
            .collect();
        let at = used[random.random_range(0..used.len())] * 64;
        for byte in &mut damaged[at..=at + round] {
            *byte ^= 0x55;
        }
        fs::write(&path, &damaged).unwrap();
        let before = refused;
        // A second time, too: what the first attempt left behind is no repair.
        for _ in 0..2 {
            match reload(&path) {
                // What was hit is in no use: a page that was given up, or the slot of an older state.
                Ok(read) => assert!(read == stored, "byte {at} was changed and nobody noticed"),
                Err(error) => {
                    refused += 1;
                    let text = error.to_string();
                    assert!(text.contains("store.redb is "), "{text}");
                }
            }
        }
        assert_ne!(refused, before + 1, "byte {at}: refused, and then taken, or the other way");
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_truncated_or_empty_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _, bytes) = filled(folder.path());
    for left in [0, 1, 9, 100, 320, 4096, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..left]).unwrap();
        let error = reload(&path).unwrap_err().to_string();
        assert!(error.contains("store.redb"), "{error}");
        assert!(error.contains("damaged") || error.contains("not the store"), "{left}: {error}");
        assert!(reload(&path).is_err(), "{left}: refused once, and then taken");
    }
}

#[test]
fn somebody_elses_file_is_refused_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    for text in ["name: links\nsource: stdin\n", &"some text\n".repeat(5_000)] {
        fs::write(&path, text).unwrap();
        let error = reload(&path).unwrap_err().to_string();
        assert!(error.contains("is not the store of a coordinator"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::remove_file(&path).unwrap();
    let other: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("other");
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(other).unwrap().insert("a", &b"b"[..]).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = reload(&path).unwrap_err().to_string();
    assert!(error.contains("is not the store of a coordinator"), "{error}");
}

fn meddle(path: &Path, table: TableDefinition<'_, &str, &[u8]>, key: &str, value: &[u8]) {
    let database = Database::open(path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(table).unwrap().insert(key, value).unwrap();
    write.commit().unwrap();
}

#[test]
fn another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ..) = filled(folder.path());
    meddle(&path, META, FORMAT, &(VERSION + 1).to_be_bytes());
    let error = reload(&path).unwrap_err().to_string();
    assert!(error.contains("format 2, and this program reads 1"), "{error}");
    meddle(&path, META, FORMAT, b"x");
    assert!(reload(&path).unwrap_err().to_string().contains("damaged"));
}

#[test]
fn a_fact_that_makes_no_sense_is_refused_and_named() {
    let epochs = Record::Epochs { job: JobId(77), highest: Epoch(1) };
    let Change::Put(orphan, fact) = fact::change(&epochs) else { panic!() };
    let rows: [(&str, &[u8], &str); 5] = [
        ("term", b"\xff\xff", "term"),
        ("term", b"", "says nothing"),
        ("term", &[fact.as_slice(), b"\x78\x01"].concat(), "more in it"),
        ("process/7", &fact, "belongs under"),
        (&orphan, &fact, "no such job"),
    ];
    for (key, value, why) in rows {
        let folder = tempfile::tempdir().unwrap();
        let (path, ..) = filled(folder.path());
        meddle(&path, FACTS, key, value);
        let error = reload(&path).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&format!("{key:?}")), "{error}");
    }
}

#[test]
fn a_store_in_use_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let mut first = RedbStore::open(&path).unwrap();
    let error = RedbStore::open(&path).unwrap_err().to_string();
    assert!(error.contains("in use by another process") && error.contains("--store"), "{error}");
    first.put(&[Record::Term(Term(3))]).unwrap();
    drop(first);
    assert_eq!(reload(&path).unwrap().term, Term(3));
}

#[test]
fn folders_are_made_and_one_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/store.redb");
    assert_eq!(reload(&path).unwrap(), Stored::default());
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing is left beside it");

    let error = RedbStore::open(path.join("c/store.redb")).unwrap_err().to_string();
    assert!(error.contains("store.redb") && error.contains("--store"), "{error}");
    let error = RedbStore::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is not a file"), "{error}");
}
