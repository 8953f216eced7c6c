//! What becomes of results, and how jobs end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use stageline::{Client, ErrorKind, JobError, Outcome, Stream};
use stageline_protocol::control::JobPhase;
use stageline_tests::cluster::{guarded, wait_for};
use stageline_tests::stages::{CHECK, DOUBLE, HELD, STORE, complaint, registry};

use crate::world::{everywhere, item_error, messages, sorted};

/// All numbers; tells when it is dropped.
struct Endless(u64, Arc<AtomicBool>);

impl Iterator for Endless {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        self.0 += 1;
        Some(self.0)
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

fn endless() -> (Stream<u64>, Arc<AtomicBool>) {
    let dropped = Arc::new(AtomicBool::new(false));
    (Stream::from_iter(Endless(0, dropped.clone())), dropped)
}

async fn until(flag: &AtomicBool) {
    wait_for("the source is dropped", || flag.load(Ordering::SeqCst)).await;
}

#[tokio::test]
async fn collect_ends_with_the_first_error_and_cancels_the_job() {
    everywhere(async |world| {
        let (source, dropped) = endless();
        let error = item_error(source.map(CHECK).collect(&world.client).await);
        assert_eq!((error.kind, error.stage.as_str()), (ErrorKind::Failed, "check"));
        assert!(error.message.ends_with("is a multiple of five"), "{error}");
        assert!(world.workers().contains(&error.worker.as_str()), "{error:?}");
        until(&dropped).await;
        world.until_over("cancelled").await;
    })
    .await;
}

#[tokio::test]
async fn count_counts_values_and_ends_with_the_first_error() {
    everywhere(async |world| {
        let counted = Stream::from_iter(0..321u64).map(DOUBLE).count(&world.client);
        assert_eq!(counted.await.unwrap(), 321);
        let (source, dropped) = endless();
        item_error(source.map(CHECK).count(&world.client).await);
        until(&dropped).await;
    })
    .await;
}

#[tokio::test]
async fn take_ends_an_endless_job_with_exactly_so_many() {
    everywhere(async |world| {
        let (source, dropped) = endless();
        let taken = source.map(DOUBLE).take(5, &world.client).await.unwrap();
        let distinct = sorted(taken.clone());
        assert_eq!(taken.len(), 5);
        assert!(distinct.windows(2).all(|pair| pair[0] < pair[1]), "{distinct:?}");
        assert!(distinct.iter().all(|n| n % 2 == 0 && *n > 0), "{distinct:?}");
        until(&dropped).await;
        world.until_over("completed").await;

        // Nothing else is under way that could stand in for a value that is missing.
        let (source, dropped) = endless();
        let taken = source.max_in_flight(1).map(DOUBLE).take(5, &world.client).await.unwrap();
        assert_eq!(taken, [2, 4, 6, 8, 10]);
        until(&dropped).await;
    })
    .await;
}

#[tokio::test]
async fn take_of_more_than_there_is_gives_what_there_is() {
    everywhere(async |world| {
        let few = Stream::from_iter(0..3u64).map(DOUBLE).take(9, &world.client).await.unwrap();
        assert_eq!(sorted(few), [0, 2, 4]);
        let (source, dropped) = endless();
        assert!(source.map(DOUBLE).take(0, &world.client).await.unwrap().is_empty());
        until(&dropped).await;
        let (source, dropped) = endless();
        item_error(source.map(CHECK).take(usize::MAX, &world.client).await);
        until(&dropped).await;
    })
    .await;
}

#[tokio::test]
async fn a_named_sink_gets_every_value_and_gives_errors_back() {
    everywhere(async |world| {
        let stored = Stream::from_iter(0..100u64).map(CHECK).map(DOUBLE);
        let (status, errors) = stored.for_each(STORE, &world.client).await.unwrap();
        // 0, 5, 10, … fail on the way; nothing is left of the others that the sink refuses.
        let expected = sorted((0..100u64).filter(|n| n % 5 > 0).map(|n| (n * 2).to_string()));
        assert_eq!(sorted(world.trace("stored")), expected);
        let on_the_way = sorted((0..100).filter(|n| n % 5 == 0).map(complaint));
        assert_eq!(messages(ErrorKind::Failed, &errors), on_the_way);
        assert_eq!(status.phase, JobPhase::Ended(Outcome::Completed));
    })
    .await;
}

#[tokio::test]
async fn errors_of_a_named_sink_come_back_beside_those_of_stages_before_it() {
    everywhere(async |world| {
        let times_five =
            |n: u64| async move { if n.is_multiple_of(3) { n * 5 } else { n * 5 + 1 } };
        let stored = Stream::from_iter(0..60u64).map(CHECK).map_local(times_five);
        let (_, errors) = stored.for_each(STORE, &world.client).await.unwrap();
        let checked = || (0..60u64).filter(|n| n % 5 > 0);
        let refused = checked().filter(|n| n % 3 == 0).map(|n| complaint(n * 5));
        let failed = (0..60).filter(|n| n % 5 == 0).map(complaint);
        assert_eq!(messages(ErrorKind::Failed, &errors), sorted(refused.chain(failed)));
        let of_the_sink = errors.iter().filter(|error| error.stage == "store").count();
        assert_eq!(of_the_sink, checked().filter(|n| n % 3 == 0).count());
        let expected = checked().filter(|n| n % 3 > 0).map(|n| (n * 5 + 1).to_string());
        assert_eq!(sorted(world.trace("stored")), sorted(expected));
    })
    .await;
}

#[tokio::test]
async fn a_local_sink_gets_the_values_one_after_the_other() {
    everywhere(async |world| {
        let mut seen = Vec::new();
        let source = Stream::from_iter(0..100u64).map(DOUBLE);
        let status = source
            .for_each_local(&world.client, |n| {
                seen.push(n);
                tokio::task::yield_now()
            })
            .await
            .unwrap();
        assert_eq!(sorted(seen), sorted((0..100).map(|n| n * 2)));
        assert_eq!(status.stages[0].totals.received, 100);

        let (source, dropped) = endless();
        let failed = source.map(CHECK).for_each_local(&world.client, |_| async {}).await;
        item_error(failed);
        until(&dropped).await;
    })
    .await;
}

#[tokio::test]
async fn results_that_are_dropped_in_the_middle_cancel_the_job_everywhere() {
    everywhere(async |world| {
        world.close_gate("held");
        let (source, dropped) = endless();
        let results = source.map(HELD).workers(4).results(&world.client);
        world.until_traced("held", "+", 4).await;
        drop(results);
        until(&dropped).await;
        world.until_traced("held", "dropped", 4).await;
        assert_eq!(world.trace("held").len(), 8, "no call was started after that");
        world.until_over("cancelled").await;
    })
    .await;
}

#[tokio::test]
async fn a_job_lives_as_long_as_a_handle_to_it() {
    everywhere(async |world| {
        world.close_gate("held");
        let (source, dropped) = endless();
        let results = source.map(HELD).workers(4).results(&world.client);
        let (job, other) = (results.job(), results.job());
        drop((results, job));
        world.until_traced("held", "+", 4).await;
        assert_eq!(world.traced("held", "dropped"), 0);
        assert!(!dropped.load(Ordering::SeqCst));
        other.cancel("seen enough");
        assert_eq!(other.ended().await, Err(JobError::Cancelled("seen enough".to_owned())));
        until(&dropped).await;
        world.until_traced("held", "dropped", 4).await;
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_dropped_before_there_was_a_session_never_runs_on() {
    // Nothing has run on this thread yet: the client has not been welcomed.
    let client = Client::embedded(registry(None));
    let (source, dropped) = endless();
    drop(source.map(DOUBLE).results(&client));
    guarded(until(&dropped)).await;
    let idle = || (client.census().tasks, client.census().links) == (0, 0);
    wait_for("the client is idle", idle).await;
    // The next job has the worker for itself.
    let values = Stream::from_iter(0..10u64).map(DOUBLE).collect(&client).await.unwrap();
    assert_eq!(values.len(), 10);
}

#[tokio::test]
async fn a_job_tells_how_it_goes_and_how_it_went() {
    everywhere(async |world| {
        world.close_gate("held");
        let source = Stream::from_iter(0..20u64).pipeline_name("nightly");
        let results = source.map(HELD).name("slow").workers(2).results(&world.client);
        let job = results.job();
        let running = || job.status().is_some_and(|s| s.stages[1].totals.busy == 2);
        wait_for("two items run", running).await;
        let status = job.status().unwrap();
        assert_eq!((status.job, status.name.as_str()), (job.id(), "nightly"));
        assert_eq!((status.client.as_str(), &status.phase), ("client", &JobPhase::Running));
        let names: Vec<&str> = status.stages.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!(names, ["source", "slow", "results"]);
        assert_eq!(status.stages[1].slots, 2);
        world.open_gate("held");
        assert_eq!(results.map(Result::unwrap).count().await, 20);
        let status = job.ended().await.unwrap();
        let totals: Vec<(u64, u64)> =
            status.stages.iter().map(|s| (s.totals.received, s.totals.busy)).collect();
        assert_eq!(totals, [(20, 0), (20, 0), (20, 0)]);
        assert_eq!(status.stages[1].by_worker.values().sum::<u64>(), 20);
    })
    .await;
}

#[tokio::test]
async fn many_jobs_of_one_client_do_not_mix() {
    everywhere(async |world| {
        let job = |k: u64| {
            let client = world.client.clone();
            async move {
                let items = (0..50).map(move |n| k * 1_000 + n);
                let values = Stream::from_iter(items.clone()).map(DOUBLE).collect(&client).await;
                assert_eq!(sorted(values.unwrap()), sorted(items.map(|n| n * 2)));
            }
        };
        futures_util::future::join_all((0..8).map(job)).await;
    })
    .await;
}
