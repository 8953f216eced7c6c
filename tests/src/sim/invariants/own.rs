//! What a task knows of itself: its ledger, its slots, its links; and that its timers advance.

use stageline_protocol::Time;
use stageline_protocol::task::Task;

/// After every call.
pub(in crate::sim) fn check(task: &Task) -> Result<(), String> {
    task.check_invariants().map_err(|broken| format!("{}: {broken}", task.id()))
}

/// After its timer has been handled.
pub(in crate::sim) fn advances(task: &Task, now: Time) -> Result<(), String> {
    match task.poll_timeout() {
        Some(next) if next <= now => {
            Err(format!("{}: its timer does not advance: {next:?} at {now:?}", task.id()))
        }
        _ => Ok(()),
    }
}
