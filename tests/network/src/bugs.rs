//! Bugs planted on purpose: a bed that does not catch them shows nothing by being quiet.

use stageline_protocol::task::Bug;

use crate::many;

/// What this bed catches. The others need schedules that are rare among real timers; the simulation of the
/// pure machines finds those.
const CAUGHT: [Bug; 8] = [
    Bug::EarlyAck,
    Bug::AckedAfterFirstChild,
    Bug::NoDeduplication,
    Bug::LostCredit,
    Bug::ForgottenUnacked,
    Bug::WatermarkTooHigh,
    Bug::ReturnTakenAsAck,
    Bug::LowerEndSwallowed,
];

/// A bug by its name.
///
/// # Errors
/// When there is none of that name: lists those that there are.
pub(crate) fn parse(name: &str) -> Result<Bug, String> {
    let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    bug.ok_or_else(|| format!("there is no such bug; there are: {:?}", Bug::ALL))
}

/// Plants one after the other, and prints which seed caught it.
///
/// # Errors
/// Bugs that none of so many seeds caught.
pub(crate) fn hunt(first: u64, seeds: u64) -> Result<(), String> {
    let mut missed = Vec::new();
    for bug in CAUGHT {
        let caught =
            (first..first.saturating_add(seeds)).find_map(|seed| many::one(seed, Some(bug)).err());
        match caught {
            Some((_, why)) => println!("{bug:?}: {}", why.lines().next().unwrap_or_default()),
            None => missed.push(bug),
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("not caught: {missed:?}")) }
}
