//! The job that every seed runs: its size and settings from the seed, its stages' functions, and exactly what
//! must come out.
//!
//! *numbers → work → split → finish → results*. Each value is a number that looks random and is made from the one before,
//! so a result names itself; every function fails on some, and an expansion may fail after its outputs.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use futures_util::{StreamExt, stream};
use stageline::{Error, Registry, Stage, StageError, Stream};

const WORK: Stage<Item, Item> = Stage::named("work");
const SPLIT: Stage<Item, Item> = Stage::named("split");
const FINISH: Stage<Item, Item> = Stage::named("finish");

/// A number, and something that makes it larger.
type Item = (u64, String);

/// What comes out: a number, or the message of an error.
pub(crate) type Outcome = Result<u64, String>;

/// The size and the settings of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    seed: u64,
    roots: u64,
    /// Slots of the three stages.
    workers: [u32; 3],
    buffers: [Option<u32>; 3],
}

impl Workload {
    pub(crate) fn draw(seed: u64, rng: &mut Rng) -> Self {
        let buffers = [None, None, Some(0), Some(1), Some(8)];
        Self {
            seed,
            roots: rng.u64(200..400),
            workers: std::array::from_fn(|_| rng.u32(3..12)),
            buffers: std::array::from_fn(|_| buffers[rng.usize(..buffers.len())]),
        }
    }

    /// The pipeline, without its terminal.
    pub(crate) fn stream(self) -> Stream<Item> {
        let roots = (0..self.roots).map(move |number| item(mix(self.seed, number + 1)));
        let [work, split, finish] = self.workers;
        let stream = Stream::from_iter(roots).try_map(WORK).workers(work);
        let stream = buffer(stream, self.buffers[0]).try_flat_map(SPLIT).workers(split);
        let stream = buffer(stream, self.buffers[1]).try_map(FINISH).workers(finish);
        buffer(stream, self.buffers[2])
    }

    /// What must come out, each once.
    pub(crate) fn expected(self) -> BTreeSet<Outcome> {
        let mut expected = BTreeSet::new();
        for number in 0..self.roots {
            let value = match work(mix(self.seed, number + 1)) {
                Ok(value) => value,
                Err(message) => {
                    expected.insert(Err(message));
                    continue;
                }
            };
            let (outputs, end) = split(value);
            expected.extend(outputs.into_iter().map(finish));
            expected.extend(end.map(Err));
        }
        expected
    }
}

fn buffer(stream: Stream<Item>, items: Option<u32>) -> Stream<Item> {
    match items {
        Some(items) => stream.buffer(items),
        None => stream,
    }
}

/// A result as the oracle compares it.
///
/// # Errors
/// The failure of the job.
pub(crate) fn outcome(result: Result<Item, Error>) -> Result<Outcome, String> {
    match result {
        Ok((value, _)) => Ok(Ok(value)),
        Err(Error::Item(error)) => Ok(Err(error.message)),
        Err(error) => Err(error.to_string()),
    }
}

/// The functions of one of the three workers: each function is on two of them.
pub(crate) fn registry(worker: usize) -> Registry {
    let mut registry = Registry::new();
    if worker != 0 {
        registry = registry.try_map(WORK, |(value, _): Item| async move {
            pause(value).await;
            work(value).map(item).map_err(failure)
        });
    }
    if worker != 1 {
        registry = registry.try_flat_map(SPLIT, |(value, _): Item| {
            let (outputs, end) = split(value);
            let outputs = outputs.into_iter().map(|output| Ok(item(output)));
            let end = end.map(|message| Err(failure(message)));
            stream::iter(outputs.chain(end)).then(move |output| async move {
                pause(value).await;
                output
            })
        });
    }
    if worker != 2 {
        registry = registry.try_map(FINISH, |(value, _): Item| async move {
            pause(value).await;
            finish(value).map(item).map_err(failure)
        });
    }
    registry
}

fn failure(message: String) -> StageError {
    StageError::msg(message).permanent()
}

fn work(value: u64) -> Outcome {
    unless(13, "work", value)?;
    Ok(mix(value, 1))
}

fn split(value: u64) -> (Vec<u64>, Option<String>) {
    let outputs = (0..mix(value, 2) % 4).map(|i| mix(value, 100 + i)).collect();
    (outputs, unless(11, "split", value).err())
}

fn finish(value: u64) -> Outcome {
    unless(17, "finish", value)?;
    Ok(mix(value, 3))
}

/// One value in `share` fails.
fn unless(share: u64, stage: &str, value: u64) -> Result<(), String> {
    if mix(value, 4).is_multiple_of(share) { Err(format!("{stage} {value}")) } else { Ok(()) }
}

/// Some values are large.
fn item(value: u64) -> Item {
    let size = match mix(value, 5) % 32 {
        0 => 200_000,
        1..8 => 3_000,
        _ => 10,
    };
    (value, "x".repeat(size))
}

/// From 5 to 150 ms; one value in fifty takes a second.
async fn pause(value: u64) {
    let millis = if mix(value, 6).is_multiple_of(50) { 1_000 } else { 5 + mix(value, 7) % 145 };
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// A number that looks random, and is not.
const fn mix(value: u64, salt: u64) -> u64 {
    let mut z = value.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
