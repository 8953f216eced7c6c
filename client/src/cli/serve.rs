//! `stageline coordinator` and `stageline worker`: processes that run until they are told to end.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use stageline_coordinator::engine::Config;
use stageline_coordinator::server::{Coordinator, wall_clock};
use stageline_coordinator::service::{self, Listener};
use stageline_coordinator::store::RedbStore;
use stageline_protocol::text::{NOT_PLAIN, is_plain};
use stageline_worker::{RunningWorker, Worker};
use tokio_util::sync::CancellationToken;

use super::progress::summary::Exit;
use super::units::show_duration;
use super::{By, Told, args};
use crate::Registry;

/// How long open connections may take to close.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

pub(super) async fn coordinator(args: args::Coordinator) -> anyhow::Result<Exit> {
    let mut told = Told::listen()?;
    let listener = Listener::bind(&args.listen.to_string()).await?;
    // Before anybody is told that it listens: it may not come to that.
    let coordinator = match store(args.store, args.listen.port())? {
        Some(path) => {
            let store = RedbStore::open(&path)?;
            tracing::info!("keeping jobs in {}", path.display());
            Coordinator::start_with(Config::default(), wall_clock(), store)?
        }
        None => {
            tracing::info!("keeping jobs in memory: they end with this process");
            Coordinator::start(Config::default())
        }
    };
    tracing::info!("coordinator listening on {}", listener.address());
    let stop = CancellationToken::new();
    let mut serving = tokio::spawn(service::serve(listener, coordinator, stop.clone()));
    tokio::select! {
        served = &mut serving => {
            served??;
        }
        by = told.ended_by() => {
            tracing::info!("{by}: the coordinator ends");
            stop.cancel();
            if let Ok(served) = tokio::time::timeout(CLOSE_GRACE, serving).await {
                served??;
            }
        }
    }
    Ok(Exit::Fine)
}

/// The file that keeps the jobs; none for memory. A port that the system picks names nothing that
/// could be found again.
fn store(given: Option<PathBuf>, port: u16) -> anyhow::Result<Option<PathBuf>> {
    match given {
        Some(path) if path.as_os_str().eq_ignore_ascii_case("none") => Ok(None),
        Some(path) => Ok(Some(path)),
        None if port == 0 => Ok(None),
        None => {
            let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
            let state = absolute("XDG_STATE_HOME")
                .or_else(|| Some(absolute("HOME")?.join(".local/state")))
                .ok_or_else(|| {
                    anyhow::anyhow!(
                        "neither XDG_STATE_HOME nor HOME says where to keep the jobs: name a file \
                         with --store, or keep them in memory with --store none"
                    )
                })?;
            Ok(Some(state.join(format!("stageline/coordinator-{port}.redb"))))
        }
    }
}

pub(super) async fn worker(args: args::Worker, mut registry: Registry) -> anyhow::Result<Exit> {
    if !args.only.is_empty() {
        registry = registry
            .only(args.only.iter().map(String::as_str))
            .map_err(|error| anyhow::anyhow!("--only: {error}"))?;
    }
    for (function, slots) in &args.slots {
        registry
            .set_slots(function, *slots)
            .map_err(|error| anyhow::anyhow!("--slots {function}={slots}: {error}"))?;
    }
    let mut worker = Worker::new(registry, &args.coordinator);
    if let Some(name) = args.name {
        // Not in the grammar, which would quote it as it is.
        if !is_plain(&name) {
            anyhow::bail!("--name {name:?}: the name {NOT_PLAIN}");
        }
        worker = worker.name(name);
    }
    if let Some(listen) = args.listen {
        worker = worker.listen(listen.to_string());
    }
    if let Some(advertise) = args.advertise {
        worker = worker.advertise(advertise);
    }
    if let Some(limit) = args.connect_timeout {
        worker = worker.connect_timeout(limit);
    }
    let mut told = Told::listen()?;
    let mut worker = worker.start().await?;
    tracing::info!(
        "worker {} listening on {}, for the coordinator at {}",
        worker.name(),
        worker.address(),
        args.coordinator
    );
    tokio::select! {
        stopped = worker.stopped() => Err(stopped.into()),
        by = told.ended_by() => {
            if by == By::Terminate {
                leave(&worker, args.grace, &mut told).await;
            } else {
                tracing::info!("{by}: the worker ends");
            }
            worker.stop().await;
            Ok(Exit::Fine)
        }
    }
}

/// Leaves in good order, unless somebody asks again.
async fn leave(worker: &RunningWorker, grace: Duration, told: &mut Told) {
    tracing::info!(
        "SIGTERM: leaving; what has begun may take {} to finish, the rest goes to other workers (a \
         second signal ends the worker at once)",
        show_duration(grace)
    );
    tokio::select! {
        () = worker.leave(grace) => tracing::info!("the worker has left"),
        by = told.ended_by() => tracing::info!("{by}: the worker ends at once"),
    }
}
