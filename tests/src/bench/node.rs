//! A process of a baseline: a source, a map or a sink of a chain, each dialling the next.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::plan::{Plan, Role, System, Workload};
use super::work::Pacer;
use super::{grpc, tcp};

/// What a process of a baseline knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// What carries the items.
    pub system: System,
    /// What is run.
    pub plan: Plan,
    /// Its place in it.
    pub role: Role,
    /// Where the next processes listen.
    pub next: Vec<String>,
}

impl Node {
    /// Where the one next process listens.
    ///
    /// # Errors
    /// When there is none.
    pub fn downstream(&self) -> Result<&str> {
        Ok(self.next.first().context("a map has somebody downstream")?)
    }

    /// Serves whoever dials, as a map or a sink.
    ///
    /// # Errors
    /// When the port fails.
    pub async fn serve(self, listener: TcpListener) -> Result<()> {
        match self.system {
            System::Tcp => tcp::serve(self, listener).await,
            _ => grpc::serve(self, listener).await,
        }
    }

    /// Sends so many items down the chain, and returns when all are acked.
    ///
    /// # Errors
    /// When a connection breaks.
    pub async fn source(&self, items: u64) -> Result<()> {
        let plan = Plan { items, ..self.plan };
        let mut runs = Vec::new();
        for (part, to) in self.next.iter().enumerate() {
            let share = Share { plan, part, parts: self.next.len() };
            let node = Self { plan, ..self.clone() };
            runs.push(match self.system {
                System::Tcp => spawn(tcp::source(node, share, to.clone())),
                _ => spawn(grpc::source(node, share, to.clone())),
            });
        }
        for run in runs {
            run.await?;
        }
        Ok(())
    }
}

/// The part of the items that goes over one of several connections.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    plan: Plan,
    part: usize,
    parts: usize,
}

impl Share {
    /// The indexes of its items.
    pub fn indexes(&self) -> std::iter::StepBy<Range<u64>> {
        (self.part as u64..self.plan.items).step_by(self.parts.max(1))
    }

    /// How many items it has.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.indexes().count() as u64
    }

    /// The schedule of its items, if they have one.
    #[must_use]
    pub fn pacer(&self) -> Option<Arc<Pacer>> {
        (self.plan.workload == Workload::Latency).then(|| Arc::new(Pacer::start(&self.plan)))
    }
}

/// A task of a baseline. Baselines recover from nothing: a failure ends the process, and so the run.
pub fn spawn(task: impl Future<Output = Result<()>> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = task.await {
            eprintln!("bench, process {}: {error:#}", std::process::id());
            std::process::exit(1);
        }
    })
}

/// The nodes of a plan in one process, over loopback as ever: answers the source.
///
/// # Errors
/// When there is no port.
pub async fn in_one_process(system: System, plan: Plan) -> Result<Node> {
    let mut next = Vec::new();
    for &role in plan.roles().iter().rev() {
        let node = Node { system, plan, role, next: std::mem::take(&mut next) };
        if role == Role::Source {
            return Ok(node);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        next = vec![listener.local_addr()?.to_string()];
        spawn(node.serve(listener));
    }
    anyhow::bail!("a plan begins with a source")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::Wait;

    #[test]
    fn shares_make_a_whole() {
        let workload = Workload::Fanout;
        let plan = Plan { workload, payload: 8, items: 11, rate: 1, workers: 1, wait: Wait::First };
        let shares = [0, 1].map(|part| Share { plan, part, parts: 2 });
        let mut all: Vec<u64> = shares.iter().flat_map(Share::indexes).collect();
        all.sort_unstable();
        assert_eq!(all, (0..11).collect::<Vec<_>>());
        assert_eq!(shares.map(|share| share.items()), [6, 5]);
    }
}
