//! Real processes that are killed, stopped and cut off from each other, in the middle of jobs whose
//! results are known.
//!
//! The long runs are in `src/chaos`; here every fault strikes where a job stands, not when a clock
//! does, so that a slow machine sees the same.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use stageline::{Client, Error, ErrorKind, Job, JobStatus, Results, Stream, TaskStats};
use stageline_tests::chaos::fleet::{CLIENT, COORDINATOR, Fleet};
use stageline_tests::chaos::oracle::Verdict;
use stageline_tests::chaos::work::Shape;
use stageline_tests::cluster::{Cluster, eventually, guarded, processes, wait_for};
use stageline_tests::functions::{FIRST, SECOND, THIRD, TIRED};
use stageline_tests::proxy::Proxy;
use tokio::task::JoinHandle;

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");
const FLEET: &str = env!("CARGO_BIN_EXE_fleet");
const ROOTS: u64 = 500;
/// What the three stages together add.
const ADDED: u64 = 111_000_000;
/// Longer than the second between two heartbeats, by enough for a busy machine.
const LEASE: Duration = Duration::from_secs(3);

/// One process of every kind that the job has is killed after another, each when a number of results
/// drawn from the seed has come, and is started again.
async fn kill_each(
    fleet: &mut Fleet,
    rng: &mut fastrand::Rng,
    shape: Shape,
    roles: &[&str],
) -> Verdict {
    const ITEMS: u64 = 3_000;
    let job = fleet.submit(shape, ITEMS);
    let part = usize::try_from(ITEMS).unwrap() / (roles.len() + 1);
    for (place, role) in roles.iter().enumerate() {
        let moment = part * place + rng.usize(1..part);
        let victim = match *role {
            COORDINATOR => role.to_string(),
            _ => format!("{role}-{}", rng.u32(1..=2)),
        };
        wait_for("so many results", || fleet.progress(&job) >= moment).await;
        while !fleet.kill_sparing(&victim).await {}
        fleet.restart(&victim);
    }
    let mut verdict = None;
    wait_for("the job's end", || {
        verdict = fleet.verdict(&job);
        verdict.is_some()
    })
    .await;
    verdict.unwrap()
}

#[tokio::test]
async fn processes_of_every_kind_are_killed_and_every_result_comes_once() {
    let mut fleet = Fleet::start(CHAOS, 2, None).await;
    let mut rng = fastrand::Rng::with_seed(7);
    let mut sum = Verdict::default();
    for (shape, roles) in [
        (Shape::Plain, &["one", COORDINATOR, "two", "three"][..]),
        (Shape::Spread, &["source", "one", COORDINATOR, "two", "three"]),
        (Shape::Sink, &["one", "two", "sink"]),
    ] {
        let verdict = kill_each(&mut fleet, &mut rng, shape, roles).await;
        assert!(verdict.is_clean() && verdict.results == 3_000, "{shape:?}: {verdict:#?}");
        sum.add(verdict);
    }
    let roles = &["two", "one", "two", "three"];
    let verdict = kill_each(&mut fleet, &mut rng, Shape::Flaky, roles).await;
    assert!(verdict.is_clean() && verdict.told > 0, "{verdict:#?}");
    sum.add(verdict);
    assert!(sum.figures.resent > 0 && sum.figures.duplicates > 0, "vacuous: {sum:#?}");

    // A client takes its job with it, and saw nothing twice; its place is taken by another.
    let job = fleet.submit(Shape::Plain, 3_000);
    let moment = rng.usize(1..2_000);
    wait_for("some results", || fleet.progress(&job) >= moment).await;
    fleet.kill(CLIENT);
    let verdict = fleet.verdict(&job).unwrap();
    assert!(verdict.is_clean() && verdict.abandoned == 1, "{verdict:#?}");
    let verdict = kill_each(&mut fleet, &mut rng, Shape::Plain, &[]).await;
    assert!(verdict.is_clean() && verdict.results == 3_000, "{verdict:#?}");
    eventually("nothing is left of any job", async || fleet.busy().await.is_empty()).await;
}

/// Takes all results, in a task of its own.
fn collect(results: Results<u64>) -> JoinHandle<Vec<u64>> {
    tokio::spawn(async move {
        let mut values: Vec<u64> =
            results.map(|result| result.expect("no item fails")).collect().await;
        values.sort_unstable();
        values
    })
}

fn submit(client: &Client) -> (Job, JoinHandle<Vec<u64>>) {
    let results = Stream::from_iter(0..ROOTS).map(FIRST).map(SECOND).map(THIRD).results(client);
    (results.job(), collect(results))
}

fn all() -> Vec<u64> {
    (0..ROOTS).map(|root| root + ADDED).collect()
}

fn sum(status: Option<JobStatus>, of: fn(&TaskStats) -> u64) -> u64 {
    status.iter().flat_map(|s| &s.stages).map(|stage| of(&stage.totals)).sum()
}

/// Each item went through each of these functions exactly once.
fn nothing_ran_twice(cluster: &Cluster, functions: &[&str]) {
    for function in functions {
        let mut calls = BTreeMap::<String, u32>::new();
        for item in cluster.trace(function) {
            *calls.entry(item).or_default() += 1;
        }
        assert_eq!(calls.len() as u64, ROOTS, "{function}");
        calls.retain(|_, calls| *calls != 1);
        assert!(calls.is_empty(), "{function}: {calls:?}");
    }
}

/// A worker that is known to others by the address of a proxy in front of it.
async fn behind_proxy(cluster: &mut Cluster, name: &str, functions: &[&str]) -> Proxy {
    let proxy = Proxy::to("127.0.0.1:1").await;
    let (advertised, coordinator) = (proxy.address.to_string(), cluster.address.clone());
    let more = ["--advertise", &advertised];
    cluster.worker_at(name, functions, &coordinator, &more).await;
    let worker = cluster.workers.get_mut(name).unwrap();
    let line = worker.logged("listening on").await;
    let address = line.split("listening on ").nth(1).unwrap().split(',').next().unwrap();
    proxy.lead_to(address);
    proxy
}

/// The worker of the second stage is stopped while it holds items, until its lease has run out and
/// another has its work. It goes on without a word from the coordinator, and finishes what it holds:
/// the third stage refuses it.
#[tokio::test]
async fn a_zombie_is_refused_and_nothing_comes_twice() {
    let mut cluster = Cluster::start_with_lease(FLEET, LEASE).await;
    let session = Proxy::to(&cluster.address).await;
    let by_proxy = session.address.to_string();
    cluster.worker("one", &["first"]).await;
    cluster.worker_at("two", &["second"], &by_proxy, &[]).await;
    cluster.worker("three", &["third"]).await;
    cluster.close_gate("second");
    cluster.close_gate("third");
    let client = cluster.client().await;
    let (job, values) = submit(&client);
    wait_for("it holds items", || !cluster.trace("second-started").is_empty()).await;

    cluster.workers["two"].signal("STOP");
    cluster.worker("two-again", &["second"]).await;
    let address = cluster.address.clone();
    eventually("its lease runs out", async || {
        processes(&address).await.iter().all(|process| process.name != "two")
    })
    .await;
    session.cut();
    cluster.open_gate("second");
    cluster.workers["two"].signal("CONT");
    wait_for("it is refused", || sum(job.status(), |stats| stats.stale) > 0).await;
    session.mend();
    eventually("it is a worker again", async || {
        processes(&address).await.iter().any(|process| process.name == "two" && process.connected)
    })
    .await;
    cluster.open_gate("third");

    assert_eq!(guarded(values).await.unwrap(), all());
    let status = guarded(job.ended()).await.unwrap();
    assert!(sum(Some(status), |stats| stats.resent) > 0);
}

/// Longer than a lease, the coordinator is stopped; results keep coming. When it goes on, it counts
/// nobody dead for what it has not heard meanwhile.
#[tokio::test]
async fn a_stopped_coordinator_fences_nobody() {
    let mut cluster = Cluster::start_with_lease(FLEET, LEASE).await;
    for (name, function) in [("one", "first"), ("two", "second"), ("three", "third")] {
        cluster.worker(name, &[function]).await;
    }
    let before = processes(&cluster.address).await;
    let client = cluster.client().await;
    // So many that at this pace they take twice the lease.
    let pace = 2 * LEASE / u32::try_from(ROOTS).unwrap();
    let source = futures_util::stream::iter(0..ROOTS).then(move |n| async move {
        tokio::time::sleep(pace).await;
        n
    });
    let mut results =
        Stream::from_stream(source.boxed()).map(FIRST).map(SECOND).map(THIRD).results(&client);
    let job = results.job();
    let mut values = vec![guarded(results.next()).await.unwrap().unwrap()];
    cluster.coordinator.signal("STOP");
    while values.len() < ROOTS as usize - 10 {
        values.push(guarded(results.next()).await.unwrap().unwrap());
    }
    cluster.coordinator.signal("CONT");
    values.extend(guarded(collect(results)).await.unwrap());
    values.sort_unstable();

    assert_eq!(values, all());
    let status = guarded(job.ended()).await.unwrap();
    let mut after = processes(&cluster.address).await;
    after.retain(|process| before.iter().any(|known| known.name == process.name));
    let lives = |list: &[_]| -> Vec<_> {
        list.iter().map(|p: &stageline_protocol::control::ProcessStatus| p.incarnation).collect()
    };
    assert_eq!(lives(&before), lives(&after));
    assert!(
        !cluster.coordinator.log().contains("was heard of it"),
        "{}",
        cluster.coordinator.log()
    );
    let workers: Vec<usize> = status.stages[1..4].iter().map(|s| s.by_worker.len()).collect();
    assert_eq!(workers, [1, 1, 1]);
    nothing_ran_twice(&cluster, &["first", "second", "third"]);
}

/// The link between two workers is cut while the second holds items, and comes back: the same task
/// takes up what it still holds.
#[tokio::test]
async fn a_cut_link_comes_back_and_nothing_runs_twice() {
    let mut cluster = Cluster::start(FLEET).await;
    cluster.worker("one", &["first"]).await;
    let proxy = behind_proxy(&mut cluster, "two", &["second"]).await;
    cluster.worker("three", &["third"]).await;
    cluster.close_gate("second");
    let client = cluster.client().await;
    let (job, values) = submit(&client);
    wait_for("it holds items", || cluster.trace("second-started").len() >= 64).await;

    proxy.cut();
    cluster.workers.get_mut("one").unwrap().logged("link down").await;
    cluster.open_gate("second");
    wait_for("it works on what it holds", || cluster.trace("second").len() >= 64).await;
    assert!(cluster.trace("second").len() < ROOTS as usize, "it was cut off");
    let before = proxy.carried();
    proxy.mend();

    assert_eq!(guarded(values).await.unwrap(), all());
    assert!(proxy.carried() > before);
    let status = guarded(job.ended()).await.unwrap();
    assert_eq!(sum(Some(status), |stats| stats.duplicates), 0);
    nothing_ran_twice(&cluster, &["first", "second", "third"]);
}

/// The client loses the coordinator and every worker for a while, and nothing but time.
#[tokio::test]
async fn a_client_that_is_cut_off_for_less_than_its_lease_goes_on() {
    let mut cluster = Cluster::start(FLEET).await;
    let mut proxies = vec![behind_proxy(&mut cluster, "one", &["first"]).await];
    proxies.push(behind_proxy(&mut cluster, "two", &["second"]).await);
    proxies.push(behind_proxy(&mut cluster, "three", &["third"]).await);
    proxies.push(Proxy::to(&cluster.address).await);
    cluster.close_gate("second");
    let address = proxies[3].address.to_string();
    let client = Client::builder().name("cut-off").connect(address).await.unwrap();
    let (job, values) = submit(&client);
    wait_for("items are under way", || !cluster.trace("second-started").is_empty()).await;

    // The workers' proxies carry the workers' links, too: everybody is cut off from everybody.
    proxies.iter().for_each(Proxy::cut);
    let address = cluster.address.clone();
    let connected = async || {
        let all = processes(&address).await;
        all.iter().any(|process| process.name == "cut-off" && process.connected)
    };
    eventually("its session breaks", async || !connected().await).await;
    cluster.open_gate("second");
    proxies.iter().for_each(Proxy::mend);

    assert_eq!(guarded(values).await.unwrap(), all());
    guarded(job.ended()).await.unwrap();
    nothing_ran_twice(&cluster, &["first", "second", "third"]);
}

/// The client and the one worker of its first stage cannot reach each other for longer than two leases,
/// and the coordinator hears both.
#[tokio::test]
async fn a_client_that_is_parted_from_the_only_worker_of_a_stage_waits_for_it() {
    let mut cluster = Cluster::start_with_lease(FLEET, LEASE).await;
    let proxy = behind_proxy(&mut cluster, "one", &["first"]).await;
    cluster.worker("two", &["second", "third"]).await;
    cluster.close_gate("first");
    let client = cluster.client().await;
    let (job, values) = submit(&client);
    wait_for("items are under way", || !cluster.trace("first-started").is_empty()).await;

    proxy.cut();
    cluster.open_gate("first");
    cluster.coordinator.logged("it goes on dialling").await;
    assert!(!values.is_finished(), "the job waits");
    proxy.mend();

    assert_eq!(guarded(values).await.unwrap(), all());
    guarded(job.ended()).await.unwrap();
}

/// The expansion's worker dies when all that it made waits behind it, but for its end; and the second run
/// comes no further than two outputs.
#[tokio::test]
async fn an_expansion_that_times_out_when_it_runs_again_tells_so() {
    let mut cluster = Cluster::start(FLEET).await;
    cluster.worker("ex", &["tired"]).await;
    cluster.worker("two", &["second"]).await;
    cluster.close_gate("second");
    let client = cluster.client().await;
    let timeout = Duration::from_secs(1);
    let stream = Stream::from_iter([7_u64]).flat_map(TIRED).timeout(timeout).map(SECOND);
    let results = stream.workers(1).buffer(16).results(&client);
    let job = results.job();
    let all = tokio::spawn(results.collect::<Vec<_>>());
    let made = || {
        let stages = job.status().map(|status| status.stages).unwrap_or_default();
        stages.get(1).is_some_and(|tired| tired.totals.sent == 5 && tired.totals.busy == 0)
    };
    wait_for("the end has left", made).await;
    wait_for("the first output is in process", || !cluster.trace("second-started").is_empty())
        .await;

    cluster.workers["ex"].signal("KILL");
    cluster.worker("ex", &["tired"]).await;
    wait_for("it runs again", || cluster.trace("tired").len() == 2).await;
    cluster.open_gate("second");

    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in guarded(all).await.unwrap() {
        match result {
            Ok(value) => values.push(value),
            Err(Error::Item(error)) => errors.push((error.stage.clone(), error.kind)),
            Err(error) => panic!("the job fails: {error}"),
        }
    }
    values.sort_unstable();
    assert_eq!(values, [10_000_070, 10_000_071]);
    assert_eq!(errors, [("tired".to_owned(), ErrorKind::Timeout)]);
    guarded(job.ended()).await.unwrap();
}
