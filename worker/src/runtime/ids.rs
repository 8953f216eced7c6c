//! The ids that a process draws: one for its own life, one for each job that it submits.
//!
//! They are what others tell processes and jobs apart by, so they come from the operating system: what a
//! program draws from may be seeded, and then two of its jobs, or two of its processes, would be one.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Where a process's ids come from. By default, the operating system. Cheap to clone.
#[derive(Clone, Default)]
pub struct Ids {
    drawn: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
}

impl Ids {
    /// Ids that something else draws, for simulations, which must draw the same ones each time. Of two
    /// processes that draw the same, the second takes the place of the first; a job whose id is in use is
    /// refused.
    pub fn drawn_by(draw: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { drawn: Some(Arc::new(draw)) }
    }

    /// The next one; never 0.
    pub(super) fn draw(&self) -> u64 {
        self.drawn.as_ref().map_or_else(of_the_system, |draw| draw()).max(1)
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.drawn.is_some() { "Ids(drawn)" } else { "Ids(system)" })
    }
}

fn of_the_system() -> u64 {
    getrandom::u64().unwrap_or_else(|error| {
        tracing::warn!(%error, "the system gives no random numbers: ids come from the time instead");
        of_the_time()
    })
}

/// Distinct in this process, and most likely so among all.
fn of_the_time() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let mut hasher = DefaultHasher::new();
    let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
    (SystemTime::now(), std::process::id(), drawn).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn they_differ_whatever_the_program_has_seeded() {
        let seeded = || {
            fastrand::seed(7);
            Ids::default().draw()
        };
        let drawn: BTreeSet<u64> = (0..100).map(|_| seeded()).collect();
        assert_eq!(drawn.len(), 100);
        assert_eq!((0..100).map(|_| of_the_time()).collect::<BTreeSet<_>>().len(), 100);
    }

    #[test]
    fn a_simulation_draws_them_itself() {
        fastrand::seed(7);
        let expected = fastrand::u64(..);
        fastrand::seed(7);
        assert_eq!(Ids::drawn_by(|| fastrand::u64(..)).draw(), expected);
        assert_eq!(Ids::drawn_by(|| 0).draw(), 1);
    }
}
