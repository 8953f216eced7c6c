//! The coordinator dies and comes back with its store: what was, is again.

use std::time::Duration;

use stageline_protocol::control::JobPhase;

use super::world::{Who, World, line};

const SECOND: Duration = Duration::from_secs(1);

/// A running job of one stage on two workers.
fn running() -> (World, Who, Who, Who) {
    let mut world = World::new();
    let client = world.client("c");
    let (a, b) = (world.worker("a", &["fetch"]), world.worker("b", &["fetch"]));
    world.submit(client, line(&["fetch"]));
    world.all_obey();
    (world, client, a, b)
}

fn back(world: &mut World, who: &[Who]) {
    for who in who {
        world.connect(*who);
        world.obey(*who);
    }
}

#[test]
fn a_running_job_goes_on_as_if_nothing_had_happened() {
    let (mut world, client, a, b) = running();
    let before = world.view(client).clone();
    world.restart();
    world.pass(9 * SECOND, &[]);
    back(&mut world, &[a, client, b]);
    world.all_obey();
    world.pass(20 * SECOND, &[client, a, b]);
    let after = world.view(client);
    assert!(after.term > before.term);
    assert_eq!((&after.tasks, &after.peers), (&before.tasks, &before.peers));
    assert_eq!((after.window, after.highest_epoch), (before.window, before.highest_epoch));
    assert_eq!(world.phase(), JobPhase::Running);
    world.source_at(client, 0, 5, Some(5));
    world.all_obey();
    assert_eq!(world.phase().name(), "completed");
}
