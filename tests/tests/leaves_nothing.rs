//! However a job ends, every process is afterwards what it was before: runtime tasks, links, child
//! processes and timers are counted by each process itself.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use futures_util::StreamExt;
use stageline::{Census, Client, JobError, Stream};
use stageline_tests::cluster::{Cluster, GUARD, censuses, eventually, guarded, wait_for};
use stageline_tests::functions::{FIRST, SECOND, THIRD};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");

/// How many readings in a row must be alike for a process to be at rest: longer than the second
/// between two heartbeats.
const ALIKE: usize = 30;

/// Items of the job that runs first.
const WARM: u64 = 100;

struct Before {
    cluster: Cluster,
    client: Client,
    census: BTreeMap<String, Census>,
}

/// A cluster on which a job has run already, so that what is made once is made; at rest.
async fn before() -> Before {
    let mut cluster = Cluster::start(PROGRAM).await;
    for name in ["one", "two"] {
        cluster.worker(name, &[]).await;
    }
    let client = cluster.client().await;
    let warm = Stream::from_iter(0..WARM).map(FIRST).map(SECOND).map(THIRD).count(&client);
    assert_eq!(guarded(warm).await, Ok(WARM));
    let mut readings: Vec<BTreeMap<String, Census>> = Vec::new();
    eventually("processes at rest", async || {
        readings.push(read(&cluster, &client).await);
        let last = &readings[readings.len().saturating_sub(ALIKE)..];
        last.len() == ALIKE && last.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await;
    let census = readings.pop().unwrap();
    let idle = |c: &Census| (c.tasks, c.children) == (0, 0);
    assert!(census.len() == 4 && census.values().all(idle), "{census:?}");
    Before { cluster, client, census }
}

/// What every process runs. The client's own is read before the others are asked for, since asking
/// takes a connection.
async fn read(cluster: &Cluster, client: &Client) -> BTreeMap<String, Census> {
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let own = client.census();
    let mut all = censuses(&cluster.address).await;
    all.retain(|name, _| ["coordinator", "one", "two"].contains(&name.as_str()));
    all.insert("client".to_owned(), own);
    all
}

impl Before {
    /// An endless job over both workers.
    fn endless(&self) -> Stream<u64> {
        Stream::from_iter(0..).map(FIRST).map(SECOND).map(THIRD)
    }

    /// Waits until every process is what it was.
    async fn is_back(&self) {
        let mut last = BTreeMap::new();
        let back = async {
            while last != self.census {
                last = read(&self.cluster, &self.client).await;
            }
        };
        let back = tokio::time::timeout(GUARD, back).await;
        assert!(back.is_ok(), "before: {:#?}\nafter: {last:#?}", self.census);
    }
}

#[tokio::test]
async fn take_ends_an_endless_job() {
    let before = before().await;
    let five = guarded(before.endless().take(5, &before.client)).await.unwrap();
    assert_eq!(five.len(), 5);
    assert!(five.iter().all(|n| *n >= 111_000_000));
    before.is_back().await;
}

#[tokio::test]
async fn dropping_the_stream_ends_the_job() {
    let before = before().await;
    let mut results = before.endless().results(&before.client);
    let first = guarded(results.next()).await;
    assert!(first.is_some_and(|result| result.is_ok()));
    drop(results);
    before.is_back().await;
}

#[tokio::test]
async fn jobs_cancel_ends_the_job() {
    let before = before().await;
    let mut results = before.endless().results(&before.client);
    assert!(guarded(results.next()).await.is_some());
    let (job, address) = (results.job(), before.cluster.address.clone());
    let id = job.id().to_string();
    let output = before.cluster.run(&["jobs", "cancel", &id, "--coordinator", &address]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let end = guarded(job.ended()).await;
    assert!(matches!(&end, Err(JobError::Cancelled(by)) if by.contains("jobs cancel")), "{end:?}");
    drop((results, job));
    before.is_back().await;
}

#[tokio::test]
async fn a_killed_client_ends_its_job() {
    let before = before().await;
    let dir = before.cluster.dir.path();
    let file = dir.join("endless.yaml");
    std::fs::write(&file, "source: stdin\nstages: [jq: 'tonumber', { run: first }]\n").unwrap();
    before.cluster.close_gate("first");
    let mut client = Command::new(PROGRAM)
        .args(["run", file.to_str().unwrap(), "--coordinator", &before.cluster.address])
        .env("STAGELINE_TEST_DIR", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = client.stdin.take().unwrap();
    std::io::Write::write_all(&mut lines, b"1\n2\n3\n").unwrap();
    let started = || before.cluster.trace("first-started").len() as u64;
    wait_for("the job's items are under way", || started() == WARM + 3).await;
    assert_ne!(
        read(&before.cluster, &before.client).await["coordinator"],
        before.census["coordinator"]
    );
    client.kill().unwrap();
    client.wait().unwrap();
    before.cluster.open_gate("first");
    before.is_back().await;
}
