//! What one run came to: a line of JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::plan::{Plan, SLOTS, SPREAD, System, WAIT, Workload};
use super::stats::percentile;
use super::tally::Tally;

/// What one run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(non_snake_case, reason = "the names of a line of JSON, with their units")]
pub struct Outcome {
    /// What carried the items.
    pub system: System,
    /// What was done with them.
    pub workload: Workload,
    /// What the source made, in bytes.
    pub payload: usize,
    /// How many.
    pub items: u64,
    /// Whether a sender learns that its items are safe: in all of these systems it does.
    pub ack: bool,
    /// Whether count and checksum at the far end were right.
    pub ok: bool,
    /// From the submission of the job to its end.
    pub seconds: f64,
    /// Items a second.
    pub items_per_s: f64,
    /// Millions of payload bytes a second, as the source made them.
    pub MB_per_s: f64,
    /// Processor time of all processes, user and system, while the job ran.
    pub cpu_seconds: f64,
    /// The same for an item, in microseconds.
    pub cpu_us_per_item: f64,
    /// The most memory that the largest process had, in MiB.
    pub peak_rss_mb: f64,
    /// How many processes took part.
    pub procs: usize,
    /// Half of the items took no longer than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// 99 % took no longer than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// 99.9 % took no longer than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999_us: Option<f64>,
    /// The shortest wait of a map for an item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortest_wait_ms: Option<f64>,
    /// The most items that one process waited for at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_at_once: Option<u64>,
    /// Items × 2 ms ÷ 32 slots, as a share of the time that it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of_ideal: Option<f64>,
}

/// What a run cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From the submission of the job to its end.
    pub time: Duration,
    /// Processor time of all processes meanwhile.
    pub cpu: Duration,
    /// The most memory of the largest process, in bytes.
    pub peak_resident: u64,
    /// How many processes took part.
    pub procs: usize,
}

impl Outcome {
    /// What a run came to that cost this, and whose processes saw that.
    #[must_use]
    pub fn new(system: System, plan: &Plan, cost: Cost, mut seen: Tally, expected: &Tally) -> Self {
        let seconds = cost.time.as_secs_f64();
        let items = plan.items as f64;
        seen.latencies.sort_unstable();
        let micros = |share| Some(percentile(&seen.latencies, share)? as f64 / 1e3);
        let fanout = plan.workload == Workload::Fanout;
        let ideal = WAIT.as_secs_f64() * items / (SPREAD as f64 * f64::from(SLOTS));
        Self {
            system,
            workload: plan.workload,
            payload: plan.payload,
            items: plan.items,
            ack: true,
            ok: (seen.count, seen.sum) == (expected.count, expected.sum),
            seconds: rounded(seconds, 6),
            items_per_s: rounded(items / seconds, 1),
            MB_per_s: rounded(items * plan.payload as f64 / seconds / 1e6, 3),
            cpu_seconds: rounded(cost.cpu.as_secs_f64(), 3),
            cpu_us_per_item: rounded(cost.cpu.as_secs_f64() * 1e6 / items, 4),
            peak_rss_mb: rounded(cost.peak_resident as f64 / f64::from(1 << 20), 1),
            procs: cost.procs,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            shortest_wait_ms: seen.shortest_wait.map(|nanos| nanos as f64 / 1e6),
            most_at_once: fanout.then_some(seen.most_at_once),
            share_of_ideal: fanout.then(|| rounded(ideal / seconds, 4)),
        }
    }
}

fn rounded(number: f64, places: i32) -> f64 {
    let scale = 10_f64.powi(places);
    (number * scale).round() / scale
}
