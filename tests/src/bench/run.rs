//! One run: the processes of a system are started, warmed up, timed, and asked what they saw.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use stageline::Client;

use super::node::{self, Node};
use super::outcome::{Cost, Outcome};
use super::plan::{Plan, System, Workload};
use super::process::{Part, Process, cpu, peak_resident};
use super::sdk::{self, Hand};
use super::tally::{self, Tally};
use super::work;
use crate::cluster::{self, Cluster, this_program};

/// Runs a plan on a system, once.
///
/// # Errors
/// When a process of it fails. A wrong result is no error: the outcome says so.
///
/// # Panics
/// When Stageline's coordinator does not start.
pub fn run(system: System, plan: &Plan) -> Result<Outcome> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (cost, seen) = runtime.block_on(async {
        match (system, plan.workload) {
            (System::Stageline, Workload::Embedded) => stageline_embedded(plan).await,
            (System::Stageline, _) => stageline_fleet(plan).await,
            (_, Workload::Embedded) => baseline_embedded(system, plan).await,
            _ => baseline(system, plan),
        }
    })?;
    Ok(Outcome::new(system, plan, cost, seen, &work::expected(plan)))
}

async fn stageline_fleet(plan: &Plan) -> Result<(Cost, Tally)> {
    let cluster = Cluster::start(&this_program()).await;
    let mut processes = Vec::new();
    for &role in plan.roles() {
        for number in 1..=plan.processes(role) {
            let name = format!("{}-{number}", role.name());
            let coordinator = cluster.address.clone();
            let hand = Hand { plan: *plan, role, name, coordinator };
            processes.push(Process::start(&Part::Hand(hand))?);
        }
    }
    cluster::eventually("the workers", async || {
        cluster::processes(&cluster.address).await.len() == processes.len()
    })
    .await;
    let client = cluster.client().await;

    let warm_up = plan.warm_up();
    source(&mut processes)?.source(warm_up.items)?;
    sdk::job(&warm_up, &client).await?;
    gather(&mut processes)?;
    source(&mut processes)?.source(plan.items)?;

    let mut ids: Vec<u32> = processes.iter().map(Process::id).collect();
    ids.extend([cluster.coordinator.id(), std::process::id()]);
    let before = used(&ids)?;
    let time = sdk::job(plan, &client).await?;
    let cost = cost(time, before, &ids)?;
    Ok((cost, gather(&mut processes)?))
}

async fn stageline_embedded(plan: &Plan) -> Result<(Cost, Tally)> {
    let client = Client::embedded(sdk::registry(*plan, plan.roles()));
    let warm_up = plan.warm_up();
    sdk::have(warm_up.items);
    sdk::job(&warm_up, &client).await?;
    let _warm_up = tally::take();
    sdk::have(plan.items);
    let ids = [std::process::id()];
    let before = used(&ids)?;
    let time = sdk::job(plan, &client).await?;
    Ok((cost(time, before, &ids)?, tally::take()))
}

async fn baseline_embedded(system: System, plan: &Plan) -> Result<(Cost, Tally)> {
    let source = node::in_one_process(system, *plan).await?;
    source.source(plan.warm_up().items).await?;
    let _warm_up = tally::take();
    let ids = [std::process::id()];
    let before = used(&ids)?;
    let started = Instant::now();
    source.source(plan.items).await?;
    Ok((cost(started.elapsed(), before, &ids)?, tally::take()))
}

fn baseline(system: System, plan: &Plan) -> Result<(Cost, Tally)> {
    // From the sink up, since each dials the next.
    let mut processes = Vec::new();
    let mut next = Vec::new();
    for &role in plan.roles().iter().rev() {
        let node = Node { system, plan: *plan, role, next };
        next = Vec::new();
        let count = if plan.waits(role) { plan.processes(role) } else { 1 };
        for _ in 0..count {
            let process = Process::start(&Part::Node(node.clone()))?;
            next.extend(process.address.clone());
            processes.push(process);
        }
    }
    processes.reverse();

    source(&mut processes)?.source(plan.warm_up().items)?;
    gather(&mut processes)?;
    let ids: Vec<u32> = processes.iter().map(Process::id).collect();
    let before = used(&ids)?;
    let started = Instant::now();
    source(&mut processes)?.source(plan.items)?;
    let cost = cost(started.elapsed(), before, &ids)?;
    Ok((cost, gather(&mut processes)?))
}

/// The process with the source: the first.
fn source(processes: &mut [Process]) -> Result<&mut Process> {
    processes.first_mut().context("a run begins with a source")
}

/// What all processes saw since they were last asked.
fn gather(processes: &mut [Process]) -> Result<Tally> {
    let mut seen = Tally::default();
    for process in processes {
        seen.add(process.tally()?);
    }
    Ok(seen)
}

fn used(ids: &[u32]) -> Result<Duration> {
    let all: Option<Duration> = ids.iter().map(|id| cpu(*id)).sum();
    all.context("a process of the run is gone, or Linux does not keep what threads use (schedstat)")
}

fn cost(time: Duration, before: Duration, ids: &[u32]) -> Result<Cost> {
    let cpu = used(ids)?.saturating_sub(before);
    let peak_resident = ids.iter().filter_map(|id| peak_resident(*id)).max().unwrap_or_default();
    Ok(Cost { time, cpu, peak_resident, procs: ids.len() })
}
