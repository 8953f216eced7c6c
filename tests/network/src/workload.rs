//! The job that every seed runs: its size and settings from the seed, its stages' functions, and exactly
//! what must come out.
//!
//! *numbers → work → split → finish → results*. Each value is a number that looks random and is made from
//! the one before, so a result names itself; every function fails on some, and an expansion may fail after
//! its outputs. In half of the seeds calls also fail by chance, whatever their input, as they do at a timeout.

use std::time::Duration;

use fastrand::Rng;
use futures_util::{StreamExt, future, stream};
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
    /// One step of a call in so many fails, whatever its input.
    chance: Option<u64>,
}

impl Workload {
    pub(crate) fn draw(seed: u64, rng: &mut Rng) -> Self {
        let buffers = [None, None, Some(0), Some(1), Some(8)];
        Self {
            seed,
            roots: rng.u64(200..400),
            workers: std::array::from_fn(|_| rng.u32(3..12)),
            buffers: std::array::from_fn(|_| buffers[rng.usize(..buffers.len())]),
            chance: rng.bool().then_some(25),
        }
    }

    /// The pipeline, without its terminal.
    pub(crate) fn stream(self) -> Stream<Item> {
        let roots = (0..self.roots).map(move |number| item(self.root(number)));
        let [work, split, finish] = self.workers;
        let stream = Stream::from_iter(roots).try_map(WORK).workers(work);
        let stream = buffer(stream, self.buffers[0]).try_flat_map(SPLIT).workers(split);
        let stream = buffer(stream, self.buffers[1]).try_map(FINISH).workers(finish);
        buffer(stream, self.buffers[2])
    }

    pub(crate) const fn roots(self) -> u64 {
        self.roots
    }

    /// What a root is.
    pub(crate) const fn root(self, number: u64) -> u64 {
        mix(self.seed, number + 1)
    }

    pub(crate) const fn chance(self) -> Option<u64> {
        self.chance
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

/// The functions of one of the three workers: each function is on two of them. `chance`: one step of a call
/// in so many fails.
pub(crate) fn registry(worker: usize, chance: Option<u64>) -> Registry {
    let mut registry = Registry::new();
    if worker != 0 {
        registry = registry.try_map(WORK, move |(value, _): Item| async move {
            pause(value).await;
            by_chance(chance, || by_chance_at("work", value))?;
            work(value).map(item).map_err(failure)
        });
    }
    if worker != 1 {
        registry = registry.try_flat_map(SPLIT, move |(value, _): Item| {
            let (outputs, end) = split(value);
            let outputs = outputs.into_iter().map(|output| Ok(item(output)));
            let end = end.map(|message| Err(failure(message)));
            let steps = outputs.chain(end).chain([Ok(item(END))]).enumerate();
            let steps = stream::iter(steps).then(move |(made, output)| async move {
                pause(value).await;
                by_chance(chance, || split_by_chance(value, made as u64))?;
                output
            });
            // The last step is none but for its chance to fail.
            steps.filter(|step| future::ready(!matches!(step, Ok((END, _)))))
        });
    }
    if worker != 2 {
        registry = registry.try_map(FINISH, move |(value, _): Item| async move {
            pause(value).await;
            by_chance(chance, || by_chance_at("finish", value))?;
            finish(value).map(item).map_err(failure)
        });
    }
    registry
}

/// No value: the end of an expansion's steps.
const END: u64 = u64::MAX;

/// Fails once in so many times. All processes draw from the seed, one after the other.
fn by_chance(one_in: Option<u64>, message: impl Fn() -> String) -> Result<(), StageError> {
    match one_in {
        Some(one_in) if fastrand::u64(..one_in) == 0 => Err(failure(message())),
        _ => Ok(()),
    }
}

/// The message of a call that fails by chance.
pub(crate) fn by_chance_at(stage: &str, value: u64) -> String {
    format!("by chance: {stage} {value}")
}

/// The message of an expansion that fails by chance after so many outputs.
pub(crate) fn split_by_chance(value: u64, made: u64) -> String {
    format!("by chance: split {value} after {made}")
}

fn failure(message: String) -> StageError {
    StageError::msg(message).permanent()
}

pub(crate) fn work(value: u64) -> Outcome {
    unless(13, "work", value)?;
    Ok(mix(value, 1))
}

pub(crate) fn split(value: u64) -> (Vec<u64>, Option<String>) {
    let outputs = (0..mix(value, 2) % 4).map(|i| mix(value, 100 + i)).collect();
    (outputs, unless(11, "split", value).err())
}

pub(crate) fn finish(value: u64) -> Outcome {
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
