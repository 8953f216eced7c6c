//! Embedded mode: a coordinator and a worker in the client's process, over in-memory sessions and
//! links.

use std::sync::Arc;

use stageline_coordinator::server::{Coordinator, CoordinatorHandle};
use stageline_protocol::control::ProcessKind;
use stageline_protocol::task::Limits;
use stageline_worker::runtime::{
    Dialler, Ids, Node, NodeConfig, NodeHandle, SessionChannel, SessionFuture, SessionOpener,
    Threads,
};
use stageline_worker::sdk::Registry;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;

/// What runs beside the client; it ends with it.
#[derive(Debug)]
pub(crate) struct Embedded {
    coordinator: CoordinatorHandle,
    worker: NodeHandle,
}

impl Embedded {
    pub(crate) fn start(registry: Registry, limits: Limits, ids: Ids) -> Self {
        let coordinator = Coordinator::start(Default::default());
        let opener = Arc::new(InMemory { coordinator: coordinator.clone(), after: None });
        let config = NodeConfig {
            kind: ProcessKind::Worker,
            name: "embedded".to_owned(),
            address: None,
            registry: Arc::new(registry),
            limits,
            dialler: Dialler::default(),
            threads: threads(),
            give_up: None,
            ids,
        };
        let session = config.threads.session().clone();
        let (node, worker) = Node::new(config, opener);
        session.spawn(node.run());
        Self { coordinator, worker }
    }

    /// Ends it, and completes when nothing of it runs.
    pub(crate) async fn end(&self) {
        self.worker.stop().await;
        self.worker.ended().await;
        self.coordinator.shutdown();
        self.coordinator.stopped().await;
    }

    pub(crate) const fn worker(&self) -> &NodeHandle {
        &self.worker
    }

    /// The client's sessions: opened once the worker is known, so that no stage seems to be missing.
    pub(crate) fn client_opener(&self) -> Arc<dyn SessionOpener> {
        let after = Some(self.worker.clone());
        Arc::new(InMemory { coordinator: self.coordinator.clone(), after })
    }
}

/// A runtime of one thread keeps everything: who has one wants no others, or has stopped its clock for a
/// test.
fn threads() -> Threads {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Threads::callers(),
        _ => Threads::own().unwrap_or_else(|error| {
            tracing::warn!(%error, "no threads for the stages: they run in the caller's runtime");
            Threads::callers()
        }),
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.worker.stop_soon();
        self.coordinator.shutdown();
    }
}

struct InMemory {
    coordinator: CoordinatorHandle,
    after: Option<NodeHandle>,
}

impl SessionOpener for InMemory {
    fn open(&self) -> SessionFuture {
        let (coordinator, after) = (self.coordinator.clone(), self.after.clone());
        Box::pin(async move {
            if let Some(worker) = after {
                worker.welcomed().await;
            }
            let (to_coordinator, mut from_coordinator) = coordinator.open_session(None);
            let (up, mut ups) = mpsc::unbounded_channel();
            let (downs, down) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        message = ups.recv() => {
                            let Some(message) = message else { return };
                            if to_coordinator.send(message).await.is_err() {
                                return;
                            }
                        }
                        message = from_coordinator.recv() => {
                            let Some(message) = message else { return };
                            if downs.send(message).is_err() {
                                return;
                            }
                        }
                    }
                }
            });
            Ok(SessionChannel { up, down })
        })
    }
}
