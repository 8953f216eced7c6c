//! A source's side of a task: it admits roots while its window and its output queue have room.

use std::time::Duration;

use crate::control::SourceReport;
use crate::lineage::Lineage;
use crate::link::Inputs;
use crate::round_trip::RoundTrip;
use crate::run::{Content, Run};
use crate::time::Time;
use crate::window::Window;

use super::inputs::{Input, Origin};
use super::pace::Pace;
use super::{Effect, Task};

/// What an automatic window holds: what the source admits in so long, and in what it takes until a root's ack
/// is back. Without the latter, a long way would make a small window, and a small window a low pace.
const AUTOMATIC_WINDOW: Duration = Duration::from_millis(200);
/// No automatic window is larger, unless slots and buffers are.
const LARGEST_WINDOW: u64 = 1 << 18;

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct State {
    pulling: bool,
    pub(super) paused: bool,
    /// Whether it may be replaced: its position is stored elsewhere, which then decides what is
    /// announced.
    stored: bool,
    reported: SourceReport,
    /// Roots below this are marked: those that its predecessor may have admitted. Unset until the
    /// first plan.
    marks_below: Option<u64>,
    /// Whether nobody has declared how large the window is.
    automatic: bool,
    /// What it is at least, then.
    least_window: u64,
    pace: Pace,
    /// From a root to its ack: measured of one at a time, this one now.
    trip: RoundTrip,
    traced: Option<u64>,
}

impl State {
    pub(super) fn new(stored: bool, declared: Option<u64>, position: u64) -> Self {
        let pace = Pace::from(position);
        Self { stored, automatic: declared.is_none(), pace, ..Self::default() }
    }

    /// The first plan says whether it takes the place of another source.
    pub(super) fn replaces(&mut self, again: bool, window: Option<&Window>, room: u64) {
        if let (None, Some(window)) = (self.marks_below, window) {
            let first = window.watermark();
            self.marks_below = Some(if again { first.saturating_add(room) } else { 0 });
        }
    }
}

impl Task {
    /// Asks the shell for roots, if there is room for some. A batch is asked for at a time, so that a
    /// source runs ahead of its credit by one batch at the most: by one item, if items are large.
    pub(super) fn pull(&mut self, now: Time) {
        self.follow_pace(now);
        let Some(window) = &self.window else { return };
        if self.source.pulling || self.source.paused || self.draining || self.slots == 0 {
            return;
        }
        let (queued, bytes) = self.queued();
        let items = self.limits.batch_items.saturating_sub(queued).min(window.room());
        // Not for a few at a time: they would go on as few.
        let low = queued <= self.limits.batch_items / 2;
        if items > 0 && low && bytes < self.limits.batch_bytes {
            self.source.pulling = true;
            let bytes = self.limits.batch_bytes - bytes;
            self.effects.push_back(Effect::Pull { items, bytes });
        }
    }

    /// So many roots may be under way, or more if nobody has said how many and the source is fast.
    pub(super) fn set_window(&mut self, size: u64) {
        self.source.least_window = size;
        if let Some(window) = &mut self.window {
            window.resize(size);
        }
    }

    fn follow_pace(&mut self, now: Time) {
        if let Some(window) = &mut self.window
            && self.source.automatic
        {
            let State { pace, trip, traced, .. } = &mut self.source;
            if traced.is_some_and(|root| root < window.watermark()) {
                *traced = None;
                trip.ends(now);
            }
            // Of roots that are out, the newest: while none is, there is nothing to wait for.
            if traced.is_none() && window.watermark() < window.admitted() {
                *traced = Some(window.admitted() - 1);
                trip.begins(now);
            }
            let span = AUTOMATIC_WINDOW + trip.smoothed().unwrap_or_default();
            let pace = pace.measure(now, window.admitted(), span);
            window.resize(pace.min(LARGEST_WINDOW).max(self.source.least_window));
        }
    }

    /// The answer to [`Effect::Pull`]: some roots (never more than were asked for), and whether there
    /// are no more.
    pub fn roots(&mut self, now: Time, roots: Vec<Content>, exhausted: bool) {
        self.source.pulling = false;
        if self.draining && !roots.is_empty() {
            // Whoever takes its place makes them again.
            return;
        }
        for content in roots {
            let Some(window) = &mut self.window else { return };
            if window.exhausted().is_some() {
                break;
            }
            let count = content.len();
            let root = window.admit(count);
            // Those that its predecessor may have admitted are marked.
            let marks = self.source.marks_below.unwrap_or(0).saturating_sub(root).min(count);
            if marks > 0 {
                self.admit_roots(now, root, content.slice(0..marks), true);
            }
            if marks < count {
                self.admit_roots(now, root + marks, content.slice(marks..count), false);
            }
        }
        if exhausted && let Some(window) = &mut self.window {
            window.exhaust();
        }
        self.announce(now);
        self.settle_down(now);
    }

    fn admit_roots(&mut self, now: Time, root: u64, content: Content, marked: bool) {
        let lineage = Lineage::root(self.id.stage, root);
        let count = content.len();
        let entry = Input::new(Origin::Root(root), lineage.clone(), count, marked);
        let input = self.ledger.push(entry);
        self.stats.received += count;
        self.stats.started += count;
        if let Content::Error(error) = &content {
            self.count_error(error);
        }
        self.send_on(Run { lineage, content, marked }, Inputs::Each(input));
        self.complete(now, input..input + count);
    }

    /// The oldest roots may have been acked.
    pub(super) fn announce(&mut self, now: Time) {
        let Some(window) = &mut self.window else { return };
        if !self.source.stored {
            window.announce(window.watermark());
        }
        let worth = self.source.stored && window.is_worth_telling(self.source.reported.watermark);
        let announced = window.announced();
        #[cfg(any(test, feature = "planted-bugs"))]
        let announced = announced + u64::from(self.has_bug(super::Bug::WatermarkTooHigh));
        self.raise_watermark(now, self.id.stage, announced);
        let report = self.source_report().unwrap_or_default();
        // The end is what the coordinator waits for; a stored position keeps the window open.
        let ended = report.exhausted == Some(report.watermark);
        if report != self.source.reported && (ended || worth) {
            self.source.reported = report;
            self.effects.push_back(Effect::Report);
        }
    }

    /// The position is stored up to here.
    pub(super) fn stored_position(&mut self, now: Time, position: u64) {
        if let Some(window) = &mut self.window {
            window.announce(position);
        }
        self.announce(now);
    }

    pub(super) fn source_report(&self) -> Option<SourceReport> {
        let window = self.window.as_ref()?;
        Some(SourceReport {
            watermark: window.watermark(),
            exhausted: window.exhausted(),
            full: window.exhausted().is_none() && window.room() == 0,
        })
    }
}
