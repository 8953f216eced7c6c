//! Pipelines that cannot run: told when they are submitted, with the place and the remedy.

use stageline::{Client, Error, JobError, Registry, Stage, Stream};
use stageline_tests::stages::{DOUBLE, ODD};

use crate::world::{everywhere, failure, sorted};

fn numbers() -> Stream<u64> {
    Stream::from_iter(0..10u64)
}

#[tokio::test]
async fn an_unknown_stage_is_told_at_once_with_the_nearest_name() {
    everywhere(async |world| {
        let result = numbers().map::<u64>("duoble").collect(&world.client).await;
        match &result {
            Err(Error::Job(error @ JobError::Failed(_))) => assert!(error.is_retryable()),
            other => panic!("{other:?}"),
        }
        let message = failure(result);
        assert!(message.contains("\"duoble\"") && message.contains("\"double\""), "{message}");
        let message = failure(
            Stream::source("bottomless")
                .collect(&world.client)
                .await
                .map(|values: Vec<u64>| values),
        );
        assert!(message.contains("\"bottomless\""), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_pipeline_is_refused_by_stage_and_setting() {
    everywhere(async |world| {
        let refused = [
            (numbers().map(DOUBLE).map(DOUBLE), &["\"double\"", "name(..)"][..]),
            (numbers().map(DOUBLE).workers(0), &["\"double\"", "workers(0)"]),
            (numbers().map(DOUBLE).workers_per(0), &["\"double\"", "workers_per(0)"]),
            (numbers().map(DOUBLE).name(""), &["empty name"]),
            (numbers().workers(3).map(DOUBLE), &["\"source\"", "workers"]),
            (numbers().retry(3).map(DOUBLE), &["\"source\"", "retry"]),
            (numbers().max_in_flight(0).map(DOUBLE), &["max_in_flight(0)"]),
            (numbers().filter("double"), &["\"double\"", "filter", "map"]),
            (numbers().map("odd"), &["\"odd\"", "filter"]),
        ];
        for (pipeline, words) in refused {
            let message = failure(pipeline.collect(&world.client).await);
            for word in words {
                assert!(message.contains(word), "{word} is missing: {message}");
            }
        }
        let named = numbers().map(DOUBLE).map(DOUBLE).name("again").filter(ODD);
        assert_eq!(named.count(&world.client).await.unwrap(), 0, "the client goes on");
    })
    .await;
}

#[tokio::test]
async fn types_that_do_not_fit_are_refused_when_rust_could_not_see_them() {
    const TO_TEXT: Stage<u64, String> = Stage::named("double");
    const NEWER: Stage<u64, u64> = Stage::named("double").input_version(2);
    everywhere(async |world| {
        let message = failure(numbers().map(TO_TEXT).collect(&world.client).await);
        for word in ["\"double\"", "String", "u64", "same declaration"] {
            assert!(message.contains(word), "{word} is missing: {message}");
        }
        let message = failure(numbers().map(NEWER).collect(&world.client).await);
        assert!(message.contains("u64 v2"), "{message}");
        // Between two stages: what the second takes is not what the first makes.
        let texts = Stream::from_iter(["a".to_owned()]).map::<u64>("double");
        let message = failure(texts.collect(&world.client).await);
        assert!(message.contains("String"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_registry_with_mistakes_runs_nothing_and_says_why() {
    let registry = Registry::new()
        .map(DOUBLE, |n: u64| async move { n })
        .map(DOUBLE, |n: u64| async move { n * 2 });
    let client = Client::embedded(registry);
    let message = failure(numbers().map(DOUBLE).collect(&client).await);
    assert!(message.contains("\"double\" is registered twice"), "{message}");
}

#[tokio::test]
async fn a_client_works_on_after_a_refusal() {
    everywhere(async |world| {
        for _ in 0..3 {
            failure(numbers().map(DOUBLE).workers(0).collect(&world.client).await);
        }
        let values = numbers().map(DOUBLE).collect(&world.client).await.unwrap();
        assert_eq!(sorted(values), sorted((0..10).map(|n| n * 2)));
    })
    .await;
}
