//! Items that may have killed a process: what a task says of them, and what the coordinator answers.
//!
//! An item that was unacked when a process died is *marked*, and so is all that comes of it. A mark
//! costs one question: a marked item starts only when the coordinator has noted that it does. Noted
//! as in process when another process dies, it is a *suspect*: it starts only when nothing else is in
//! process there, and a death there *convicts* it: it becomes an error item. So an item is convicted
//! by its third death, and by one at which nothing but the item was in that process.
//!
//! A question goes: [`MarkState::Asking`] → [`Verdict::Run`], and the item starts; or
//! [`Verdict::Alone`] → the process is emptied → [`MarkState::Holding`] → [`Verdict::Start`], and it
//! starts. What runs alone gives the process up only when the coordinator knows: [`MarkState::Done`]
//! (or [`MarkState::Away`]) → [`Verdict::Left`]. Between the two answers nothing else is in process,
//! whatever is lost or late; that is why no innocent item is ever convicted.
//!
//! States are levels, reported until they change; answers that are repeated or late change nothing.
//!
//! When the root of an item is complete, what is known of its deaths is forgotten. Copies of it may
//! live on; one that asks is told [`Verdict::Finished`], so that a killer does not begin anew.

use crate::ids::{Incarnation, JobId, TaskId, Term};
use crate::lineage::Lineage;

/// A marked item that is, or wants to be, in process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MarkedItem {
    /// Which.
    pub lineage: Lineage,
    /// How far it is.
    pub state: MarkState,
}

/// How far a marked item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarkState {
    /// It has a slot, and asks whether it may start; or it waits for the process to be empty.
    Asking,
    /// It is to run alone, and nothing else is in process any more: it asks to start.
    Holding,
    /// As `Holding`, but blocking calls that were abandoned still run: no death proves anything.
    Crowded,
    /// It has started, beside others.
    Running,
    /// It has started alone.
    Alone,
    /// It ran alone and waits for room or for its next attempt: it gives the process up when this is
    /// heard, and asks anew to go on.
    Away,
    /// It ran alone and is done: it gives the process up when this is heard.
    Done,
}

/// What the coordinator answers a task that asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verdicts {
    /// The job.
    pub job: JobId,
    /// The coordinator's life that says so.
    pub term: Term,
    /// The task that asked.
    pub task: TaskId,
    /// The answers.
    pub verdicts: Vec<(Lineage, Verdict)>,
}

/// The answer for one item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// To `Asking`: it is noted, and may start beside others.
    Run,
    /// To `Asking`: it is a suspect, and is to ask again when it has the process to itself.
    Alone,
    /// To `Holding` or `Crowded`: it is noted, and may start.
    Start,
    /// To `Asking`, `Holding` or `Crowded`: it is not to start, but to become an error item.
    Convicted(Vec<Death>),
    /// To `Asking`, `Holding` or `Crowded`: its root is complete, this is a copy, and need not run.
    Finished,
    /// To `Away` or `Done`: it is noted that it is not in process.
    Left,
}

/// The death of a process with an item in process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Death {
    /// The name of the process.
    pub worker: String,
    /// Which life of it.
    pub process: Incarnation,
    /// Whether nothing else was in process there.
    pub alone: bool,
}

/// The history of a convicted item, in words for its error.
#[must_use]
pub fn history(deaths: &[Death]) -> String {
    let name = |death: &Death| {
        let alone = if death.alone { " (where it ran alone)" } else { "" };
        format!("{:?}{alone}", death.worker)
    };
    let names: Vec<String> = deaths.iter().map(name).collect();
    format!(
        "its process died each time that this item was in it: workers {}; it is not tried again",
        names.join(", ")
    )
}
