use std::sync::Mutex;

use super::super::*;
use crate::runtime::session::{SessionChannel, SessionFuture};

/// Coordinators that wait to be found, one session each: what goes up, and what comes down.
struct Played(Mutex<mpsc::UnboundedReceiver<SessionChannel>>);

impl SessionOpener for Played {
    fn open(&self) -> SessionFuture {
        let next = self.0.lock().unwrap().try_recv();
        Box::pin(async move {
            next.map_err(|_| SessionError { address: "h:1".into(), reason: "gone".into() })
        })
    }
}

/// A coordinator of that term: what its process says comes out of the first.
fn coordinator(
    found: &mpsc::UnboundedSender<SessionChannel>,
    term: u64,
) -> (mpsc::UnboundedReceiver<Up>, mpsc::UnboundedSender<Down>) {
    let ((up, said), (tell, down)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let lease = Duration::from_secs(10);
    tell.send(Down::Welcome(Welcome { version: 1, term: Term(term), lease })).unwrap();
    found.send(SessionChannel { up, down }).unwrap();
    (said, tell)
}

#[tokio::test(start_paused = true)]
async fn an_earlier_life_of_the_coordinator_is_not_obeyed_and_a_later_one_is_looked_for() {
    let (found, coordinators) = mpsc::unbounded_channel();
    let config = NodeConfig {
        kind: ProcessKind::Worker,
        name: "w".into(),
        address: None,
        registry: Arc::new(Registry::new()),
        limits: Limits::default(),
        give_up: None,
        dialler: Dialler::default(),
        threads: Threads::callers(),
        ids: Ids::default(),
    };
    let (node, handle) = Node::new(config, Arc::new(Played(Mutex::new(coordinators))));
    let running = tokio::spawn(node.run());

    let (mut said, first) = coordinator(&found, 5);
    assert!(matches!(said.recv().await, Some(Up::Hello(_))));
    assert!(matches!(said.recv().await, Some(Up::Heartbeat(_))));
    drop(first);

    // It hangs up on the earlier one, and does not do what that says: not even end.
    let (mut said, earlier) = coordinator(&found, 3);
    earlier.send(Down::Refused("go away".into())).unwrap();
    while said.recv().await.is_some() {}
    drop(earlier);
    assert!(!running.is_finished());

    let (mut said, _later) = coordinator(&found, 6);
    for _ in 0..5 {
        assert!(said.recv().await.is_some(), "it stays with the later one");
    }
    handle.stop().await;
}
