//! Every schedule of a small job, by the model checker stateright, on the real machines.
//!
//! The simulation (`stageline_tests::sim`) draws schedules at random; here there are few items and few faults,
//! and *all* schedules. The [`World`] has the tasks of one job as they are in the product, and between
//! them connections that keep the order of frames, each way. What happens next is any of these: a frame
//! arrives, a timer fires (so a flush may come at any moment), a function is done, a task hears of its
//! new neighbours. What may happen beside it costs a [`Fault`].
//!
//! What must hold in every state is in `properties`. "It ends" is one of them: in a state in which
//! nothing but a fault can happen, everything has come out and is acked. (stateright's `eventually`
//! would miss a cycle; a cycle without progress is ruled out by the finite counters of the machines,
//! which would make the state space endless.)
//!
//! What is not here: leases, forfeits and the pace of a stage. They need time that passes, and the
//! simulation has them.

mod setup;
mod shell;
mod world;

use std::time::Instant;

use stageline_protocol::task::Bug;
use stateright::{Checker, HasDiscoveries, Model};

use setup::{ACK_MEANS_SAFE, Dialler, ENDS, Setup, Shape, Timers};

/// Source and terminal. All of it; with more between them, either items or faults are fewer.
const LINK: Setup = Setup {
    items: 4,
    faults: 2,
    shape: Shape::Link(Dialler::Upstream),
    timers: Timers::Anytime,
    slots: 1,
    buffer: 1,
    bug: None,
};

/// An expansion, and a stage behind it.
const EXPANSION: Setup =
    Setup { shape: Shape::Expansion, timers: Timers::WhenIdle, items: 1, ..LINK };

/// Explores all of it; prints how much that was.
fn explore(setup: Setup) {
    let began = Instant::now();
    let checker = setup.checker().spawn_dfs().join();
    eprintln!(
        "{setup:?}: {} states, {} of them different, at most {} steps, {:.1?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    for property in setup.properties() {
        if let Some(path) = checker.discovery(property.name)
            && property.expectation.discovery_is_failure()
        {
            let broken = path.last_state().broken().map(str::to_owned);
            panic!("{}: {broken:?} after {:#?}", property.name, path.into_actions());
        }
    }
    assert!(checker.is_done(), "all of it");
    checker.assert_properties();
}

#[test]
fn a_link_that_breaks_twice_dialled_by_its_sender() {
    explore(LINK);
}

#[test]
fn a_link_that_breaks_twice_dialled_by_its_receiver() {
    explore(Setup { shape: Shape::Link(Dialler::Downstream), ..LINK });
}

#[test]
fn a_chain_in_which_anything_breaks_once() {
    explore(Setup { shape: Shape::Chain, timers: Timers::WhenIdle, faults: 1, ..LINK });
}

#[test]
fn a_chain_in_which_anything_breaks_twice() {
    explore(Setup { shape: Shape::Chain, timers: Timers::WhenIdle, items: 2, ..LINK });
}

/// What the first run made waits behind the expansion when that dies, or is lost; the second fails.
#[test]
fn an_expansion_that_dies_and_fails_when_it_runs_again() {
    explore(EXPANSION);
}

/// The defect breaks the property in some schedule.
fn finds(setup: Setup, property: &'static str) {
    assert!(setup.bug.is_some());
    let any = HasDiscoveries::AnyOf([property].into());
    let checker = setup.checker().finish_when(any).spawn_dfs().join();
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{:?} is not found", setup.bug));
    let (steps, states) = (path.into_actions().len(), checker.state_count());
    eprintln!("{:?}: after {states} states, by {steps} steps: {property}", setup.bug);
}

#[test]
fn a_planted_bug_is_found() {
    let chain = Setup { shape: Shape::Chain, timers: Timers::WhenIdle, items: 2, ..LINK };
    finds(Setup { bug: Some(Bug::EarlyAck), faults: 0, ..chain }, ACK_MEANS_SAFE);
    finds(Setup { bug: Some(Bug::DuplicateAckedFirst), faults: 1, ..chain }, ACK_MEANS_SAFE);
    finds(Setup { bug: Some(Bug::ForgottenUnacked), faults: 1, ..chain }, ENDS);
    finds(Setup { bug: Some(Bug::LowerEndSwallowed), ..EXPANSION }, ACK_MEANS_SAFE);
    // This one loses a credit every eight items.
    let link = Setup { timers: Timers::WhenIdle, faults: 0, items: 20, ..LINK };
    finds(Setup { bug: Some(Bug::LostCredit), ..link }, ENDS);
}
