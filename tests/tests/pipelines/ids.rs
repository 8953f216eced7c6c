//! Programs that seed their random numbers: what names a job or a process is not drawn from those.

use futures_util::StreamExt;
use stageline::{Results, Stream};
use stageline_tests::cluster::guarded;
use stageline_tests::stages::DOUBLE;

use crate::world::everywhere;

#[tokio::test]
async fn jobs_of_a_program_that_seeds_its_random_numbers_are_distinct() {
    everywhere(async |world| {
        for items in [10, 20] {
            fastrand::seed(7);
            let job = Stream::from_iter(0..items).map(DOUBLE).collect(&world.client);
            assert_eq!(guarded(job).await.unwrap().len() as u64, items);
        }
    })
    .await;
}

#[tokio::test]
async fn two_such_jobs_at_once_are_distinct() {
    everywhere(async |world| {
        let [ten, twenty] = [10, 20].map(|items| {
            fastrand::seed(7);
            Stream::from_iter(0..items).map(DOUBLE).results(&world.client)
        });
        let (ten, twenty) = guarded(async { tokio::join!(values(ten), values(twenty)) }).await;
        assert_eq!((ten, twenty), (10, 20));
    })
    .await;
}

async fn values(mut results: Results<u64>) -> u64 {
    let mut count = 0;
    while let Some(next) = results.next().await {
        next.unwrap();
        count += 1;
    }
    count
}
