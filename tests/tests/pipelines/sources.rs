//! Where roots come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{FutureExt, StreamExt, stream};
use stageline::{Error, ErrorKind, Stage, StageError, Stream};
use stageline_tests::cluster::wait_for;
use stageline_tests::stages::{BROKEN, DOUBLE, HELD, SILENT, UNSURE};

use crate::world::{everywhere, failure, messages, sorted};

#[tokio::test]
async fn an_iterator_and_an_async_stream_give_all_their_items() {
    everywhere(async |world| {
        let doubled = sorted((0..700).map(|n| n * 2));
        let iterator = Stream::from_iter(0..700u64).map(DOUBLE).collect(&world.client).await;
        assert_eq!(sorted(iterator.unwrap()), doubled);

        let slow = stream::iter(0..700u64).then(|n| async move {
            if n % 100 == 0 {
                tokio::task::yield_now().await;
            }
            n
        });
        let stream = Stream::from_stream(slow).map(DOUBLE).collect(&world.client).await;
        assert_eq!(sorted(stream.unwrap()), doubled);

        let nothing = Stream::from_iter(Vec::<u64>::new()).map(DOUBLE).collect(&world.client).await;
        assert!(nothing.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_failure_of_a_source_stands_for_an_item_and_the_source_goes_on() {
    everywhere(async |world| {
        let items = stream::iter(0..30u64)
            .map(|n| if n % 7 == 0 { Err(StageError::msg(format_args!("no {n}"))) } else { Ok(n) });
        for source in [Stream::try_from_stream(items), Stream::source(UNSURE)] {
            let (values, errors) = source.map(DOUBLE).collect_split(&world.client).await.unwrap();
            assert_eq!(sorted(values), sorted((0..30).filter(|n| n % 7 > 0).map(|n| n * 2)));
            let expected = sorted([0, 7, 14, 21, 28].map(|n| format!("no {n}")));
            assert_eq!(messages(ErrorKind::Failed, &errors), expected);
            let stage = &errors[0].stage;
            assert!(["source", "unsure"].contains(&stage.as_str()), "{errors:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_channel_makes_its_program_wait_when_the_pipeline_is_full() {
    everywhere(async |world| {
        let (sender, source) = Stream::channel(2);
        let mut results = source.max_in_flight(3).map(DOUBLE).results(&world.client);
        // Three are in the pipeline, whose results nobody takes; two are in the channel.
        for n in 0..5u64 {
            sender.send(n).await.unwrap();
        }
        let job = results.job();
        let at_the_terminal = || job.status().map_or(0, |status| status.stages[2].totals.received);
        wait_for("three items arrive", || at_the_terminal() == 3).await;
        assert!(sender.send(5).now_or_never().is_none(), "there was room for a sixth");

        let mut values = vec![results.next().await.unwrap().unwrap()];
        let pusher = sender.clone();
        let pushing = tokio::spawn(async move {
            for n in 5..40 {
                pusher.send(n).await.unwrap();
            }
        });
        drop(sender);
        values.extend(results.map(Result::unwrap).collect::<Vec<_>>().await);
        pushing.await.unwrap();
        assert_eq!(sorted(values), sorted((0..40).map(|n| n * 2)));
    })
    .await;
}

#[tokio::test]
async fn a_push_gives_the_item_back_when_the_job_is_over() {
    everywhere(async |world| {
        let (sender, source) = Stream::channel(1);
        let results = source.map(DOUBLE).results(&world.client);
        sender.send(1u64).await.unwrap();
        results.job().cancel("enough");
        let given_back = async {
            loop {
                if let Err(item) = sender.send(2).await {
                    return item;
                }
            }
        };
        assert_eq!(given_back.await, 2);

        const NOWHERE: Stage<u64, u64> = Stage::named("nowhere");
        let (sender, source) = Stream::channel(1);
        source.map(NOWHERE).collect(&world.client).await.unwrap_err();
        assert_eq!(sender.send(3u64).await, Err(3), "the job was refused");
        let (sender, source) = Stream::channel(1);
        drop(source);
        assert_eq!(sender.send(4u64).await, Err(4), "the pipeline was dropped");
    })
    .await;
}

#[tokio::test]
async fn a_source_admits_what_may_be_in_flight_and_not_one_more() {
    everywhere(async |world| {
        let made = Arc::new(AtomicU64::new(0));
        let counter = made.clone();
        let numbers = (0..200u64).inspect(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let source = Stream::from_iter(numbers).max_in_flight(7);
        let results = source.map(DOUBLE).results(&world.client);
        let job = results.job();
        let arrived = || job.status().map_or(0, |status| status.stages[2].totals.received);
        wait_for("seven items arrive", || arrived() == 7).await;
        assert_eq!(made.load(Ordering::SeqCst), 7);
        let values: Vec<u64> = results.map(Result::unwrap).collect().await;
        assert_eq!(sorted(values), sorted((0..200).map(|n| n * 2)));
        assert_eq!(made.load(Ordering::SeqCst), 200);
    })
    .await;
}

#[tokio::test]
async fn a_source_that_panics_fails_the_job_and_does_not_look_exhausted() {
    everywhere(async |world| {
        let here = Stream::from_iter((0..).inspect(|n: &u64| {
            assert!(*n < 3, "the disk is gone");
        }));
        for (source, name) in [(here, "source"), (Stream::source(BROKEN), "broken")] {
            let message = failure(source.map(DOUBLE).collect(&world.client).await);
            let expected = format!("stage {name:?} failed on ");
            assert!(message.starts_with(&expected), "{message}");
            assert!(
                message.contains("panicked") && message.contains("the disk is gone"),
                "{message}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_source_hears_that_its_job_is_cancelled() {
    everywhere(async |world| {
        let mut results = Stream::source(SILENT).map(HELD).results(&world.client);
        world.until_traced("silent", "+", 1).await;
        results.job().cancel("no more");
        match results.next().await {
            Some(Err(Error::Job(error))) => {
                assert_eq!(error.to_string(), "the job was cancelled: no more");
            }
            other => panic!("{other:?}"),
        }
        assert!(results.next().await.is_none());
        world.until_traced("silent", "cancelled", 1).await;
    })
    .await;
}
