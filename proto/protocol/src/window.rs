//! A source's window: how many roots may be admitted and not yet acked.
//!
//! The *watermark* is the lowest root that is not yet acked. Root `n` is admitted only while
//! `n < announced watermark + window`; this bounds, together, what the whole section retains and
//! what its boundaries must remember. The announced watermark is the own one for a source that
//! lives and dies with its job, and the stored one for a source that can be replaced.

use crate::ranges::Settled;

/// To store a position and hear of it is worth this part of a window: done for each ack, it would cost more
/// than the items, and done when the window is full, it would hold the source up.
const WORTH: u64 = 4;

/// The roots of one source.
#[derive(Clone, Debug, Hash)]
pub struct Window {
    acked: Settled,
    announced: u64,
    next: u64,
    size: u64,
    exhausted: bool,
}

impl Window {
    /// A source that starts at a position: below it, all roots are acked.
    #[must_use]
    pub fn starting_at(position: u64, size: u64) -> Self {
        Self {
            acked: Settled::from_parts(position, []),
            announced: position,
            next: position,
            size,
            exhausted: false,
        }
    }

    /// Changes the window's size; roots that are out stay out.
    pub const fn resize(&mut self, size: u64) {
        self.size = size;
    }

    /// Whether enough roots have been acked since that watermark to be worth a round: a good part of the
    /// window, or all that are out if it is full.
    #[must_use]
    pub fn is_worth_telling(&self, since: u64) -> bool {
        let acked = self.watermark().saturating_sub(since.max(self.announced));
        let all = self.room() == 0 && self.watermark() == self.next;
        acked >= self.size.div_ceil(WORTH).max(1) || acked > 0 && all
    }

    /// How many roots may be admitted now.
    #[must_use]
    pub const fn room(&self) -> u64 {
        if self.exhausted {
            return 0;
        }
        self.announced.saturating_add(self.size).saturating_sub(self.next)
    }

    /// Admits so many roots and answers the number of the first.
    pub const fn admit(&mut self, roots: u64) -> u64 {
        self.next += roots;
        self.next - roots
    }

    /// Everything that came of these roots is safe.
    pub fn ack(&mut self, roots: std::ops::Range<u64>) {
        self.acked.insert_range(roots);
    }

    /// The lowest root not yet acked.
    #[must_use]
    pub const fn watermark(&self) -> u64 {
        self.acked.prefix()
    }

    /// The watermark that may be told to others.
    #[must_use]
    pub const fn announced(&self) -> u64 {
        self.announced
    }

    /// The watermark up to here may be told to others. It never falls.
    pub fn announce(&mut self, watermark: u64) {
        self.announced = self.announced.max(watermark.min(self.watermark()));
    }

    /// There are no more roots.
    pub const fn exhaust(&mut self) {
        self.exhausted = true;
    }

    /// The number of roots, once there are no more.
    #[must_use]
    pub fn exhausted(&self) -> Option<u64> {
        self.exhausted.then_some(self.next)
    }

    /// Roots admitted so far, those before the starting position included.
    #[must_use]
    pub const fn admitted(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_window_is_worth_telling_and_so_are_all_that_are_out_when_it_is_full() {
        let mut window = Window::starting_at(0, 80);
        window.admit(30);
        window.ack(0..19);
        assert!(!window.is_worth_telling(0), "19 of 80");
        window.ack(19..20);
        assert!(window.is_worth_telling(0) && !window.is_worth_telling(1));
        window.announce(1);
        assert!(!window.is_worth_telling(0));
        window.ack(20..30);
        window.announce(20);
        assert!(!window.is_worth_telling(0), "there is room for more");
        window.resize(10);
        assert!(window.is_worth_telling(0), "nothing else would come of it");
        assert!(!window.is_worth_telling(30), "that has been told");
    }

    #[test]
    fn the_window_is_bounded_by_the_oldest_root() {
        let mut window = Window::starting_at(0, 3);
        let roots: Vec<u64> = (0..window.room()).map(|_| window.admit(1)).collect();
        assert_eq!((roots, window.room()), (vec![0, 1, 2], 0));
        window.ack(1..3);
        window.announce(window.watermark());
        assert_eq!((window.watermark(), window.room()), (0, 0), "root 0 holds it up");
        window.ack(0..1);
        assert_eq!(window.room(), 0, "nothing opens before the watermark is announced");
        window.announce(99);
        assert_eq!((window.announced(), window.room()), (3, 3));
        window.resize(1);
        assert_eq!(window.room(), 1);
        window.exhaust();
        assert_eq!((window.room(), window.exhausted()), (0, Some(3)));
    }

    #[test]
    fn a_replacement_starts_at_the_stored_position() {
        let mut window = Window::starting_at(40, 2);
        assert_eq!((window.admit(1), window.admit(1), window.room()), (40, 41, 0));
    }
}
