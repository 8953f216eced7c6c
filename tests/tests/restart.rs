//! The coordinator dies, or stands still, and comes back, over real processes.

use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use stageline::{Client, Results, Stream};
use stageline_tests::cluster::{Cluster, Process, eventually, guarded, processes, wait_for};
use stageline_tests::functions::{FIRST, SECOND, THIRD};
use tokio::task::JoinHandle;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");
const ROOTS: u64 = 300;
/// What the three stages together add.
const ADDED: u64 = 111_000_000;

fn collect(results: Results<u64>) -> JoinHandle<Vec<u64>> {
    tokio::spawn(async move {
        let mut values: Vec<u64> =
            results.map(|result| result.expect("no item fails")).collect().await;
        values.sort_unstable();
        values
    })
}

fn all() -> Vec<u64> {
    (0..ROOTS).map(|root| root + ADDED).collect()
}

async fn cluster() -> Cluster {
    let mut cluster = Cluster::start(PROGRAM).await;
    for name in ["a", "b"] {
        cluster.worker(name, &[]).await;
    }
    cluster
}

async fn are_back(cluster: &Cluster, count: usize) {
    eventually("all have a session again", async || {
        let all = processes(&cluster.address).await;
        all.iter().filter(|process| process.connected).count() == count
    })
    .await;
}

/// While it is gone, items go on through links that are there. When it is back, nobody's task is
/// begun again, and nothing runs twice.
#[tokio::test]
async fn a_job_runs_on_while_the_coordinator_is_gone_and_ends_when_it_is_back() {
    let mut cluster = cluster().await;
    cluster.close_gate("third");
    let client = cluster.client().await;
    let results = Stream::from_iter(0..ROOTS).map(FIRST).map(SECOND).map(THIRD).results(&client);
    let job = results.job();
    let values = collect(results);
    wait_for("it is under way", || !cluster.trace("second").is_empty()).await;

    cluster.kill_coordinator();
    cluster.open_gate("third");
    wait_for("all items are through", || cluster.trace("third").len() as u64 == ROOTS).await;
    cluster.start_coordinator().await;
    assert_eq!(guarded(values).await.unwrap(), all());
    let status = guarded(job.ended()).await.unwrap();
    assert_eq!(status.stages[1].totals.started, ROOTS, "{status:?}");
    for stage in ["first", "second", "third"] {
        assert_eq!(cluster.trace(stage).len() as u64, ROOTS, "{stage} ran something twice");
    }
    for worker in cluster.workers.values_mut() {
        worker.logged("is back").await;
        let log = worker.log();
        assert_eq!(log.matches(" WARN ").count(), 1, "{log}");
        assert!(log.contains(&format!("lost the coordinator at {}", cluster.address)), "{log}");
    }
}

/// A worker that dies while nobody watches is replaced by the coordinator that comes back.
#[tokio::test]
async fn a_worker_that_dies_while_the_coordinator_is_gone_loses_nothing() {
    let mut cluster = cluster().await;
    cluster.close_gate("second");
    let client = cluster.client().await;
    let results = Stream::from_iter(0..ROOTS).map(FIRST).map(SECOND).map(THIRD).results(&client);
    let values = collect(results);
    wait_for("it is under way", || !cluster.trace("second-started").is_empty()).await;
    cluster.kill_coordinator();
    cluster.kill("a");
    cluster.start_coordinator().await;
    cluster.open_gate("second");
    assert_eq!(guarded(values).await.unwrap(), all());
}

#[tokio::test]
async fn a_job_that_waits_for_a_stage_still_waits_after_a_restart() {
    let mut cluster = Cluster::start(PROGRAM).await;
    let client = cluster.client().await;
    let results = Stream::from_iter(0..ROOTS).map(FIRST).map(SECOND).map(THIRD).results(&client);
    let job = results.job();
    let values = collect(results);
    let waits = || job.status().is_some_and(|it| it.phase.name() == "waiting");
    wait_for("it waits", waits).await;
    cluster.kill_coordinator();
    cluster.start_coordinator().await;
    are_back(&cluster, 1).await;
    cluster.worker("late", &[]).await;
    assert_eq!(guarded(values).await.unwrap(), all());
}

/// All results are there, and the coordinator dies before it knows; or knows, and has told nobody.
#[tokio::test]
async fn a_job_that_finishes_as_the_coordinator_dies_is_completed() {
    let mut cluster = cluster().await;
    let client = cluster.client().await;
    for _ in 0..5 {
        let results =
            Stream::from_iter(0..ROOTS).map(FIRST).map(SECOND).map(THIRD).results(&client);
        let job = results.job();
        let values = collect(results);
        let before = cluster.trace("third").len() as u64;
        wait_for("it is nearly done", || cluster.trace("third").len() as u64 - before > ROOTS / 2)
            .await;
        cluster.kill_coordinator();
        cluster.start_coordinator().await;
        assert_eq!(guarded(values).await.unwrap(), all());
        let status = guarded(job.ended()).await.unwrap();
        assert_eq!(status.phase.name(), "completed");
    }
    let listed = cluster.run(&["jobs", "--coordinator", &cluster.address]).await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.matches("completed").count(), 5, "{listed}");
}

/// Lease time counts only while the coordinator runs.
#[tokio::test]
async fn a_coordinator_that_stood_still_for_longer_than_a_lease_fences_nobody() {
    let cluster = cluster().await;
    cluster.close_gate("second");
    let client = cluster.client().await;
    let results = Stream::from_iter(0..ROOTS).map(FIRST).map(SECOND).map(THIRD).results(&client);
    let values = collect(results);
    wait_for("it is under way", || !cluster.trace("second-started").is_empty()).await;
    cluster.coordinator.signal("STOP");
    // The one thing that can only be waited for: a lease of 10 s.
    tokio::time::sleep(Duration::from_secs(12)).await;
    cluster.coordinator.signal("CONT");
    are_back(&cluster, 3).await;
    cluster.open_gate("second");
    assert_eq!(guarded(values).await.unwrap(), all());
    assert_eq!(cluster.trace("second-started").len() as u64, ROOTS, "something ran twice");
    let log = cluster.coordinator.log();
    assert!(!log.contains("counts as dead") && !log.contains("job failed"), "{log}");
}

/// Starts a coordinator that is to be refused. Answers its exit code, and what it says.
async fn refused(cluster: &Cluster) -> (i32, String) {
    let store = cluster.store();
    let arguments = ["coordinator", "--listen", "127.0.0.1:0", "--store", store.to_str().unwrap()];
    let mut other = Process::start(PROGRAM, &arguments, cluster.dir.path(), "other");
    wait_for("it ends", || other.ended().is_some()).await;
    (other.ended().unwrap(), other.log())
}

#[tokio::test]
async fn a_store_that_is_in_use_or_damaged_is_refused() {
    let mut cluster = Cluster::start(PROGRAM).await;
    let (code, told) = refused(&cluster).await;
    assert_ne!(code, 0);
    assert!(told.contains("is in use by another process") && told.contains("--store"), "{told}");
    assert!(!told.contains("listening"), "{told}");
    cluster.worker("w", &[]).await;

    cluster.kill_coordinator();
    let bytes = std::fs::read(cluster.store()).unwrap();
    for damage in [&bytes[..bytes.len() / 2], b"", b"name: links\n"] {
        std::fs::write(cluster.store(), damage).unwrap();
        // Whoever starts it again does not change that.
        for _ in 0..2 {
            let (code, told) = refused(&cluster).await;
            assert_ne!(code, 0);
            assert!(told.contains("coordinator.redb") && !told.contains("panicked"), "{told}");
        }
    }
    std::fs::write(cluster.store(), bytes).unwrap();
    cluster.start_coordinator().await;
    are_back(&cluster, 1).await;
}

/// A disk without room, in a real process: the limit on the size of files.
#[tokio::test]
async fn a_full_disk_ends_the_coordinator_and_nothing_that_was_stored_is_lost() {
    let mut cluster = Cluster::start(PROGRAM).await;
    cluster.worker("w", &[]).await;
    cluster.kill_coordinator();
    let size = std::fs::metadata(cluster.store()).unwrap().len();
    // In blocks of 512 or of 1,024 bytes, as the shell has it: room for nothing new, or little.
    let blocks = size.div_ceil(1024);
    let command = format!(
        "trap '' XFSZ; ulimit -f {blocks}; exec {PROGRAM} coordinator --listen {} --store {}",
        cluster.address,
        cluster.store().display()
    );
    let mut limited = Process::start("/bin/sh", &["-c", &command], cluster.dir.path(), "full");
    wait_for("it listens, or has ended", || {
        limited.log().contains("listening") || limited.ended().is_some()
    })
    .await;
    // It may have had room to begin with. Then come jobs with long names, until it has none.
    if limited.ended().is_none() {
        let client = Client::connect(&cluster.address).await.unwrap();
        while limited.ended().is_none() {
            let long = Stream::from_iter(0..1u64).map_local(async |n: u64| n);
            let run = long.name("x".repeat(200_000)).collect(&client);
            let _until_it_breaks = tokio::time::timeout(Duration::from_secs(2), run).await;
        }
    }
    let told = limited.log();
    assert_ne!(limited.ended(), Some(0), "{told}");
    assert!(told.contains("coordinator.redb") && told.contains("has room"), "{told}");
    assert!(!told.contains("panicked"), "{told}");

    cluster.start_coordinator().await;
    are_back(&cluster, 1).await;
}

/// What a user sees: one warning, one word that it is back, and the end as if nothing had happened.
#[tokio::test]
async fn a_run_goes_on_over_a_restart_with_one_warning() {
    let mut cluster = cluster().await;
    let file = cluster.dir.path().join("hold.yaml");
    let input = cluster.dir.path().join("lines.txt");
    let lines: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    std::fs::write(&input, lines.join("\n")).unwrap();
    let output = cluster.dir.path().join("out.jsonl");
    std::fs::write(&file, format!("source: {{ lines: {:?} }}\nstages: [hold]\n", input)).unwrap();
    cluster.close_gate("hold");
    let mut run = std::process::Command::new(PROGRAM)
        .args(["run", file.to_str().unwrap(), "--coordinator", &cluster.address])
        .args(["--output", output.to_str().unwrap()])
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(cluster.dir.path().join("run.log")).unwrap())
        .spawn()
        .unwrap();
    let log = || std::fs::read_to_string(cluster.dir.path().join("run.log")).unwrap();
    eventually("it runs", async || {
        let jobs = cluster.run(&["jobs", "--coordinator", &cluster.address]).await;
        String::from_utf8_lossy(&jobs.stdout).contains("running")
    })
    .await;
    cluster.coordinator.kill();
    wait_for("it says so", || log().contains("lost the coordinator")).await;
    let asked = cluster
        .run(&["jobs", "--coordinator", &cluster.address, "--connect-timeout", "100ms"])
        .await;
    let told = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(!asked.status.success() && told.contains(&cluster.address), "{told}");
    cluster.open_gate("hold");
    let address = cluster.address.clone();
    cluster.start_coordinator().await;
    wait_for("it ends", || run.try_wait().unwrap().is_some()).await;
    let log = std::fs::read_to_string(cluster.dir.path().join("run.log")).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0), "{log}");
    assert_eq!(log.matches(" WARN ").count(), 1, "{log}");
    assert_eq!(log.matches(&format!("coordinator at {address} is back")).count(), 1, "{log}");
    assert!(log.contains("start it again"), "{log}");
    let results = std::fs::read_to_string(output).unwrap();
    assert_eq!(results.lines().count(), 2_000);
}
