//! What stages do with items.

use futures_util::stream;
use stageline::{Client, ErrorKind, ItemError, Registry, Stage, StageError, Stream};
use stageline_tests::cluster::guarded;
use stageline_tests::stages::{
    CHECK, CHECK_BLOCKING, CHECK_ODD, CHECK_REPEAT, CHECK_REPEAT_BLOCKING, DEAF, DOUBLE,
    DOUBLE_BLOCKING, LOOK, ODD, ODD_BLOCKING, PANICKY, PANICKY_AT_LAST, PANICKY_LATER, PEOPLE,
    Person, REPEAT, REPEAT_BLOCKING, REPEAT_ITER, complaint, repeated,
};

use tokio::runtime::Handle;

use crate::world::{everywhere, messages, sorted};

const ROOTS: std::ops::Range<u64> = 0..60;

fn roots() -> Stream<u64> {
    Stream::from_iter(ROOTS)
}

/// The complaints of the fallible functions about these numbers.
fn complaints(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    sorted(numbers.filter(|n| n % 5 == 0).map(complaint))
}

fn checked(n: u64) -> Result<u64, StageError> {
    if n.is_multiple_of(5) { Err(StageError::msg(complaint(n))) } else { Ok(n) }
}

#[tokio::test]
async fn a_map_gives_one_output_each() {
    everywhere(async |world| {
        let expected = sorted(ROOTS.map(|n| n * 2));
        for mapped in [
            roots().map(DOUBLE),
            roots().map(DOUBLE_BLOCKING),
            roots().map_local(|n: u64| async move { n * 2 }),
            roots().map("double"),
        ] {
            assert_eq!(sorted(mapped.collect(&world.client).await.unwrap()), expected);
        }
        for checked in [
            roots().try_map(CHECK),
            roots().try_map(CHECK_BLOCKING),
            roots().try_map_local(|n: u64| async move { checked(n) }),
        ] {
            let (values, errors) = checked.collect_split(&world.client).await.unwrap();
            assert_eq!(sorted(values), sorted(ROOTS.filter(|n| n % 5 > 0)));
            assert_eq!(messages(ErrorKind::Failed, &errors), complaints(ROOTS));
        }
    })
    .await;
}

#[tokio::test]
async fn a_filter_passes_items_on_or_drops_them() {
    everywhere(async |world| {
        let odd = sorted(ROOTS.filter(|n| n % 2 == 1));
        for filtered in [
            roots().filter(ODD),
            roots().filter(ODD_BLOCKING),
            roots().filter_local(|n: u64| async move { n % 2 == 1 }),
        ] {
            let results = filtered.results(&world.client);
            let job = results.job();
            let values = collect(results).await.0;
            assert_eq!(sorted(values), odd);
            let status = job.ended().await.unwrap();
            assert_eq!(status.stages[1].totals.filtered, 30, "drops are counted");
        }
        for checked in [
            roots().try_filter(CHECK_ODD),
            roots().try_filter_local(|n: u64| async move { Ok(checked(n)? % 2 == 1) }),
        ] {
            let (values, errors) = checked.collect_split(&world.client).await.unwrap();
            assert_eq!(sorted(values), sorted(ROOTS.filter(|n| n % 2 == 1 && n % 5 > 0)));
            assert_eq!(messages(ErrorKind::Failed, &errors), complaints(ROOTS));
        }
    })
    .await;
}

#[tokio::test]
async fn an_expansion_gives_any_number_of_outputs_none_included() {
    everywhere(async |world| {
        let expected = sorted(ROOTS.flat_map(repeated));
        for expanded in [
            roots().flat_map(REPEAT),
            roots().flat_map(REPEAT_ITER),
            roots().flat_map(REPEAT_BLOCKING),
            roots().flat_map_local(|n: u64| stream::iter(repeated(n))),
        ] {
            assert_eq!(sorted(expanded.collect(&world.client).await.unwrap()), expected);
        }
        let empty = roots().flat_map_local(|_: u64| stream::empty::<u64>());
        assert_eq!(empty.count(&world.client).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn an_expansion_that_fails_later_keeps_what_it_has_given() {
    everywhere(async |world| {
        for expanded in [
            roots().try_flat_map(CHECK_REPEAT),
            roots().try_flat_map(CHECK_REPEAT_BLOCKING),
            roots().try_flat_map_local(|n: u64| {
                stream::iter(repeated(n).map(Ok).chain(checked(n).err().map(Err)))
            }),
        ] {
            let (values, errors) = expanded.collect_split(&world.client).await.unwrap();
            assert_eq!(sorted(values), sorted(ROOTS.flat_map(repeated)));
            assert_eq!(messages(ErrorKind::Failed, &errors), complaints(ROOTS));
        }
    })
    .await;
}

#[tokio::test]
async fn expansions_of_expansions_lose_and_double_nothing() {
    everywhere(async |world| {
        let nested = roots()
            .flat_map(REPEAT)
            .flat_map(REPEAT)
            .name("again")
            .try_flat_map(CHECK_REPEAT)
            .flat_map_local(|n: u64| stream::iter(repeated(n)));
        let (values, errors) = nested.collect_split(&world.client).await.unwrap();
        let checked = || ROOTS.flat_map(repeated).flat_map(repeated);
        assert_eq!(sorted(values), sorted(checked().flat_map(repeated).flat_map(repeated)));
        assert_eq!(messages(ErrorKind::Failed, &errors), complaints(checked()));
    })
    .await;
}

#[tokio::test]
async fn one_item_may_become_very_many() {
    everywhere(async |world| {
        let many =
            Stream::from_iter([3u64, 0, 5]).flat_map_local(|n: u64| stream::iter(0..n * 1_000));
        let values = many.map(DOUBLE).collect(&world.client).await.unwrap();
        assert_eq!(sorted(values), sorted((0..3_000).chain(0..5_000).map(|n| n * 2)));
    })
    .await;
}

/// What becomes of a root in the pipeline below, by plain code.
fn model(n: u64) -> Vec<Result<u64, String>> {
    let check = |n: u64| if n.is_multiple_of(5) { Err(complaint(n)) } else { Ok(n) };
    let Ok(n) = check(n) else { return vec![Err(complaint(n))] };
    let expanded = repeated(n).map(Ok).chain(check(n).err().map(Err));
    let panicky = expanded.map(|item| item.and_then(check));
    let chosen = panicky.filter_map(|item| match item.and_then(check) {
        Ok(n) if n % 2 == 0 => None,
        other => Some(other),
    });
    chosen.map(|item| item.map(|n| n * 2)).collect()
}

#[tokio::test]
async fn every_item_comes_out_as_a_value_or_as_an_error() {
    everywhere(async |world| {
        let pipeline = Stream::from_iter(0..500u64)
            .try_map(CHECK)
            .try_flat_map(CHECK_REPEAT)
            .map(PANICKY)
            .try_filter(CHECK_ODD)
            .map_local(|n: u64| async move { n * 2 });
        let (values, errors) = pipeline.collect_split(&world.client).await.unwrap();
        let expected: Vec<_> = (0..500).flat_map(model).collect();
        assert_eq!(values.len() + errors.len(), expected.len());
        let expected_values = expected.iter().filter_map(|item| item.as_ref().ok().copied());
        assert_eq!(sorted(values), sorted(expected_values));
        let expected_errors = expected.iter().filter_map(|item| item.as_ref().err().cloned());
        assert_eq!(sorted(errors.into_iter().map(|e| e.message)), sorted(expected_errors));
    })
    .await;
}

#[tokio::test]
async fn a_panic_is_an_error_item_and_its_worker_lives() {
    everywhere(async |world| {
        for stage in [PANICKY_LATER, PANICKY_AT_LAST] {
            let numbers = Stream::from_iter(1..60u64).flat_map(stage);
            let (values, errors) = numbers.collect_split(&world.client).await.unwrap();
            assert_eq!(sorted(values), sorted(1..60));
            assert_eq!(messages(ErrorKind::Panicked, &errors), sorted((1..60).map(complaint)));
        }
        // Afterwards, on the same workers.
        let closure = |n: u64| async move {
            assert!(!n.is_multiple_of(5), "{}", complaint(n));
            n
        };
        for panicky in [roots().map(PANICKY), roots().map_local(closure)] {
            let (values, errors) = panicky.collect_split(&world.client).await.unwrap();
            assert_eq!(sorted(values), sorted(ROOTS.filter(|n| n % 5 > 0)));
            assert_eq!(messages(ErrorKind::Panicked, &errors), complaints(ROOTS));
            assert!(errors.iter().all(|error| error.attempts == 1));
        }
    })
    .await;
}

#[tokio::test]
async fn the_context_tells_a_function_what_it_works_on() {
    everywhere(async |world| {
        let results = roots().map(LOOK).name("window").results(&world.client);
        let job = results.job();
        let seen = sorted(collect(results).await.0);
        for (n, seen) in ROOTS.zip(&seen) {
            assert_eq!((seen.item, seen.attempt), (n, 1));
            assert_eq!(seen.lineage, n.to_string());
            assert_eq!((seen.job, seen.stage.as_str()), (job.id().0, "window"));
            assert!(world.workers().contains(&seen.worker.as_str()), "{seen:?}");
        }
        assert_eq!(seen.len(), 60);

        let outputs = Stream::from_iter([3u64]).flat_map(REPEAT).map(LOOK);
        let seen = sorted(outputs.collect(&world.client).await.unwrap());
        let lineages: Vec<&str> = seen.iter().map(|seen| seen.lineage.as_str()).collect();
        assert_eq!(lineages, ["0.0", "0.1", "0.2"]);
    })
    .await;
}

#[tokio::test]
async fn a_blocking_function_hears_that_it_is_cancelled() {
    everywhere(async |world| {
        let results = Stream::from_iter([1u64]).map(DEAF).results(&world.client);
        world.until_traced("deaf", "+", 1).await;
        drop(results);
        world.until_traced("deaf", "cancelled 1", 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_payload_that_does_not_decode_is_an_error_that_names_the_field() {
    everywhere(async |world| {
        let ages = Stream::from_iter(0..9u64).map(PEOPLE).map::<u32>("age");
        let (values, errors) = ages.collect_split(&world.client).await.unwrap();
        assert_eq!(sorted(values), [0, 1, 3, 4, 6, 7]);
        assert_decode_errors(&errors, 3);

        // At a closure and at the terminal, too.
        let people = || Stream::from_iter(0..9u64).map::<Person>("people");
        let closure = people().map_local(|person: Person| async move { person.age });
        let (values, errors) = closure.collect_split(&world.client).await.unwrap();
        assert_eq!(sorted(values), [0, 1, 3, 4, 6, 7]);
        assert_decode_errors(&errors, 3);
        let (values, errors) = people().collect_split(&world.client).await.unwrap();
        assert_eq!(values.len(), 6);
        assert_decode_errors(&errors, 3);
    })
    .await;
}

fn assert_decode_errors(errors: &[ItemError], count: usize) {
    assert_eq!(errors.len(), count, "{errors:?}");
    for error in errors {
        assert_eq!(error.kind, ErrorKind::Decode);
        assert!(error.message.contains("age"), "{error}");
    }
}

/// Values and errors of results that are streamed; no failure of the job.
async fn collect<T: serde::de::DeserializeOwned + 'static>(
    results: stageline::Results<T>,
) -> (Vec<T>, Vec<ItemError>) {
    use futures_util::StreamExt;
    let mut results = results;
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    while let Some(next) = results.next().await {
        match next {
            Ok(value) => values.push(value),
            Err(stageline::Error::Item(error)) => errors.push(error),
            Err(error) => panic!("{error}"),
        }
    }
    (values, errors)
}

/// Also when they run on a thread of the worker's own, as those do that are done at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_see_the_runtime_of_their_program() {
    const INSIDE: Stage<u64, (u64, bool)> = Stage::named("inside");
    const BLOCKING_IN_PLACE: Stage<(u64, bool), (u64, bool)> = Stage::named("blocking-in-place");

    guarded(async {
        let program = Handle::current().id();
        let registry = Registry::new()
            .map(INSIDE, move |n: u64| async move { (n, Handle::current().id() == program) })
            .map(
                BLOCKING_IN_PLACE,
                |n: (u64, bool)| async move { tokio::task::block_in_place(|| n) },
            );
        let client = Client::embedded(registry);
        let seen = Stream::from_iter(0..5_000).map(INSIDE).map(BLOCKING_IN_PLACE);
        let seen = sorted(seen.collect(&client).await.unwrap());
        assert_eq!(seen, (0..5_000).map(|n| (n, true)).collect::<Vec<_>>());
    })
    .await;
}
