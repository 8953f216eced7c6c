//! What the processes log: counted where it tells of something that must not happen, and written out
//! where somebody wants to see it, with simulated times.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// A process said that another broke the protocol: credits, numbers, what must not be.
static VIOLATIONS: AtomicU64 = AtomicU64::new(0);

/// How many links were closed because a peer broke the protocol.
pub(crate) fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}

/// Watches from now on; with levels, writes the log to standard output.
///
/// # Errors
/// When the levels cannot be read.
pub(crate) fn start(levels: Option<&str>) -> Result<(), String> {
    let written = match levels {
        None => None,
        Some(levels) => {
            let filter = EnvFilter::try_new(levels)
                .map_err(|error| format!("--trace {levels:?}: {error}"))?;
            let buffered = io::LineWriter::new(io::stdout());
            let layer = tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .with_timer(Simulated)
                .with_writer(std::sync::Mutex::new(buffered))
                .with_filter(filter);
            Some(layer)
        }
    };
    tracing_subscriber::registry().with(written).with(Watch.with_filter(LevelFilter::WARN)).init();
    Ok(())
}

struct Watch;

impl<S: Subscriber> Layer<S> for Watch {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let mut violation = Violation(false);
        event.record(&mut violation);
        if violation.0 {
            VIOLATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether an event has a field of that name.
struct Violation(bool);

impl Visit for Violation {
    fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
        self.0 |= field.name() == "violation";
    }
}

/// The time in the simulation; between its steps there is none.
struct Simulated;

impl FormatTime for Simulated {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        match turmoil::sim_elapsed() {
            Some(elapsed) => write!(w, "{:>10.3}", elapsed.as_secs_f64()),
            None => write!(w, "{:>10}", "-"),
        }
    }
}
