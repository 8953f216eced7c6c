//! The guard: what an item costs, counted in figures that do not depend on how fast the machine is.
//!
//! The workload is [`workload`]'s; counted are the calls of the allocator, the frames, and where valgrind
//! is installed the instructions. Each figure is the difference between a run and a longer one, divided by
//! the items that the latter has more, so that setting up a cluster does not count. It is compared with
//! the recorded one in `recorded.json`: growth by more than a tenth fails, and is either mended, or
//! recorded with the reason in the commit. The figures are those of the dev profile, in which CI runs.

mod callgrind;
mod figures;
mod pipes;
mod workload;

use std::alloc::System;
use std::env;
use std::io::{self, Write as _};

use alloc_tracker::{Allocator, Session};
use anyhow::{Result, bail, ensure};

use callgrind::Count;
use figures::{COMMAND, Figures, Instructions};

#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator::system();

/// The items of the two jobs of which allocations and frames are counted. Far apart: the order in which
/// tasks run is up to chance here and there, which is worth some thousand allocations.
const ITEMS: [u64; 2] = [100_000, 600_000];
/// The same under callgrind, which makes a program some fifty times as slow.
const FEWER: [u64; 2] = [6_000, 12_000];

#[test]
#[cfg_attr(not(debug_assertions), ignore = "the record is of the dev profile")]
fn an_item_costs_no_more_than_recorded() -> Result<()> {
    if let Some(items) = callgrind::items() {
        workload::run(items);
        return Ok(());
    }
    let now = count("an_item_costs_no_more_than_recorded")?;
    if env::var("GUARD").is_ok_and(|what| what == "record") {
        tell(&format!("recorded: {now:?}"));
        return now.record();
    }
    let verdict = now.compare(&Figures::recorded()?);
    for words in &verdict.alike {
        tell(words);
    }
    for words in &verdict.fallen {
        tell(&format!("{words}; keep that, with a new record: {COMMAND}"));
    }
    if !verdict.grown.is_empty() {
        let grown = verdict.grown.join("\n");
        bail!("{grown}\nIf it is worth that, record it, and say why in the commit: {COMMAND}");
    }
    Ok(())
}

/// Counts. The runs under callgrind go on beside the others.
fn count(test: &str) -> Result<Figures> {
    let [fewer, more] = FEWER.map(|items| Count::start(test, items));
    let [few, many] = ITEMS.map(allocations_and_frames);
    let items = (ITEMS[1] - ITEMS[0]) as f64;
    let instructions = match (fewer?, more?) {
        (Some(fewer), Some(more)) => {
            let (fewer, more) = (fewer.finish()?, more.finish()?);
            ensure!(more > fewer, "{more} instructions for more items, {fewer} for fewer");
            let per_item = (more - fewer) as f64 / (FEWER[1] - FEWER[0]) as f64;
            Some(Instructions { arch: env::consts::ARCH.to_owned(), per_item })
        }
        _ => {
            tell("valgrind is not installed: instructions were not counted");
            None
        }
    };
    Ok(Figures {
        allocations_per_item: (many.0 as f64 - few.0 as f64) / items,
        frames_per_item: (many.1 as f64 - few.1 as f64) / items,
        instructions,
    })
}

/// Both of one job; everything runs on this thread.
fn allocations_and_frames(items: u64) -> (u64, u64) {
    let session = Session::new().no_stdout().no_file();
    let frames = {
        let _span = session.operation("job").measure_thread().no_peak().iterations(1);
        workload::run(items)
    };
    let report = session.to_report();
    (report.operations().map(|(_, job)| job.total_allocations_count()).sum(), frames)
}

/// Says it in the output of a test that passes, too, which is captured otherwise.
fn tell(words: &str) {
    let _nobody_listens = writeln!(io::stderr(), "guard: {words}");
}
