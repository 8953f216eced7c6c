//! Panics whose payload panics, too, when it is dropped: each is an error of its item, and no more.

use std::panic::panic_any;
use std::time::Duration;

use stageline::{ErrorKind, Stream};
use stageline_tests::cluster::guarded;

use crate::world::{everywhere, sorted};

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

fn unless_a_fifth(n: u64) -> u64 {
    if n.is_multiple_of(5) { panic_any(Bomb) } else { n }
}

#[tokio::test]
async fn they_end_neither_the_job_nor_wait_for_ever() {
    everywhere(async |world| {
        let numbers = || Stream::from_iter(1..60u64);
        let later = |n: u64| async move {
            tokio::task::yield_now().await;
            unless_a_fifth(n)
        };
        let jobs = [
            numbers().map_local(|n: u64| async move { unless_a_fifth(n) }),
            numbers().map_local(later),
            numbers().map_local(later).timeout(Duration::from_secs(60)),
            numbers().map_local(later).retry(2),
        ];
        for job in jobs {
            let (values, errors) = guarded(job.collect_split(&world.client)).await.unwrap();
            assert_eq!(sorted(values), sorted((1..60).filter(|n| n % 5 > 0)));
            let kinds: Vec<ErrorKind> = errors.iter().map(|error| error.kind).collect();
            assert_eq!(kinds, [ErrorKind::Panicked; 11]);
        }
    })
    .await;
}
