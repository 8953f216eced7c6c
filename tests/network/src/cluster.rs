//! The processes on their simulated hosts: one coordinator, three workers, one client.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use futures_util::StreamExt;
use stageline::{Client, TaskStats};
use stageline_coordinator::engine::Config;
use stageline_coordinator::server::Coordinator;
use stageline_coordinator::service;
use stageline_coordinator::store::MemoryStore;
use stageline_protocol::Time;
use stageline_protocol::task::{Bug, Limits};
use stageline_worker::Worker;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

use crate::net;
use crate::oracle::Oracle;
use crate::workload::{self, Workload};

pub(crate) const COORDINATOR: &str = "coordinator";
pub(crate) const WORKERS: [&str; 3] = ["worker-0", "worker-1", "worker-2"];
pub(crate) const CLIENT: &str = "client";

const COORDINATOR_PORT: u16 = 7400;
const LINK_PORT: u16 = 7401;
/// How long a worker that leaves may take to finish what it runs.
const GRACE: Duration = Duration::from_secs(3);

/// What the client has seen; shared with whoever drives the simulation.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) oracle: Oracle,
    /// The job's last figures, by stage.
    pub(crate) figures: BTreeMap<String, TaskStats>,
    /// Why the job did not complete.
    pub(crate) failure: Option<String>,
    /// The job is over, and the client has ended.
    pub(crate) over: bool,
}

/// Settings of the processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) lease: Duration,
    /// The consumer takes so long for each result.
    pub(crate) consumer: Duration,
    pub(crate) limits: Limits,
}

impl Settings {
    pub(crate) fn draw(rng: &mut Rng, bug: Option<Bug>) -> Self {
        let leases = [5, 10, 30];
        let consumers = [0, 0, 1, 10];
        Self {
            lease: Duration::from_secs(leases[rng.usize(..leases.len())]),
            consumer: Duration::from_millis(consumers[rng.usize(..consumers.len())]),
            limits: Limits { bug, ..Limits::default() },
        }
    }
}

/// What is outside of the processes, and outlives them.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    /// The coordinator's, as a file would be.
    pub(crate) store: MemoryStore,
    /// By worker: what asks it to leave.
    pub(crate) leave: BTreeMap<&'static str, Rc<Notify>>,
}

/// Puts the processes on their hosts. They run when the simulation is stepped.
pub(crate) fn build(
    sim: &mut Sim<'_>,
    settings: Settings,
    workload: Workload,
) -> (Rc<RefCell<Seen>>, Hosts) {
    let mut hosts = Hosts::default();
    let store = hosts.store.clone();
    sim.host(COORDINATOR, move || coordinator(settings, store.clone()));
    for (number, name) in WORKERS.into_iter().enumerate() {
        let asked = hosts.leave.entry(name).or_default().clone();
        let limits = settings.limits;
        let chance = workload.chance();
        sim.host(name, move || worker(number, name, limits, chance, asked.clone()));
    }
    let seen = Rc::new(RefCell::new(Seen {
        oracle: Oracle::new(workload),
        figures: BTreeMap::new(),
        failure: None,
        over: false,
    }));
    sim.client(CLIENT, client(settings, workload, seen.clone()));
    (seen, hosts)
}

async fn coordinator(settings: Settings, store: MemoryStore) -> turmoil::Result {
    let config = Config { lease: settings.lease, ..Config::default() };
    let now = Time::ZERO + turmoil::since_epoch().unwrap_or_default();
    let coordinator = Coordinator::start_with(config, now, store)?;
    let connections = net::listen(COORDINATOR_PORT).await?;
    let address = net::address(COORDINATOR, COORDINATOR_PORT);
    service::serve_on(address, connections, coordinator, CancellationToken::new()).await?;
    Ok(())
}

async fn worker(
    number: usize,
    name: &'static str,
    limits: Limits,
    chance: Option<u64>,
    leave: Rc<Notify>,
) -> turmoil::Result {
    let connections = net::listen(LINK_PORT).await?;
    let mut worker = Worker::new(workload::registry(number, chance), coordinator_address())
        .name(name)
        .limits(limits)
        .dialler(net::dialler())
        .ids(net::ids())
        .start_on(net::address(name, LINK_PORT), connections)?;
    tokio::select! {
        stopped = worker.stopped() => tracing::warn!(name, %stopped, "a worker ended by itself"),
        () = leave.notified() => {
            worker.leave(GRACE).await;
            worker.stop().await;
        }
    }
    Ok(())
}

async fn client(
    settings: Settings,
    workload: Workload,
    seen: Rc<RefCell<Seen>>,
) -> turmoil::Result {
    let client = Client::builder()
        .name(CLIENT)
        .limits(settings.limits)
        .connect_timeout(None)
        .dialler(net::dialler())
        .ids(net::ids())
        .connect(coordinator_address())
        .await?;
    let mut results = workload.stream().results(&client);
    let job = results.job();
    while let Some(result) = results.next().await {
        match workload::outcome(result) {
            Ok(outcome) => seen.borrow_mut().oracle.deliver(outcome),
            Err(failure) => seen.borrow_mut().failure = Some(failure),
        }
        if !settings.consumer.is_zero() {
            tokio::time::sleep(settings.consumer).await;
        }
    }
    match job.ended().await {
        Ok(status) => {
            let stages = status.stages.into_iter().map(|stage| (stage.name, stage.totals));
            seen.borrow_mut().figures = stages.collect();
        }
        Err(error) => seen.borrow_mut().failure = Some(error.to_string()),
    }
    client.close().await;
    seen.borrow_mut().over = true;
    Ok(())
}

fn coordinator_address() -> String {
    format!("{COORDINATOR}:{COORDINATOR_PORT}")
}
