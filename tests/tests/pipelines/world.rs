//! Where a scenario runs, and what it can see there.

use std::path::PathBuf;

use stageline::{Client, Error, ErrorKind, ItemError, JobError, JobStatus};
use stageline_proto::{Wire, v1};
use stageline_tests::cluster::{Cluster, eventually, guarded, wait_for};
use stageline_tests::functions;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fleet");

/// Where a scenario runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// All in this process.
    Embedded,
    /// A coordinator and two workers that have every function, each a process.
    Fleet,
}

/// A place that is up, with a client.
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) client: Client,
    dir: PathBuf,
    cluster: Option<Cluster>,
    _folder: Option<tempfile::TempDir>,
}

/// Runs a scenario in every place.
pub(crate) async fn everywhere(scenario: impl AsyncFn(&World)) {
    for place in [Place::Embedded, Place::Fleet] {
        eprintln!("place: {place:?}");
        let world = World::new(place).await;
        guarded(scenario(&world)).await;
    }
}

impl World {
    pub(crate) async fn new(place: Place) -> Self {
        match place {
            Place::Embedded => {
                let folder = tempfile::tempdir().unwrap();
                let dir = folder.path().to_owned();
                let registry = stageline_tests::stages::registry(Some(dir.clone()));
                let client = Client::builder().name("client").embedded(registry);
                Self { place, client, dir, cluster: None, _folder: Some(folder) }
            }
            Place::Fleet => {
                let mut cluster = Cluster::start(PROGRAM).await;
                for name in ["a", "b"] {
                    cluster.worker(name, &[]).await;
                }
                let client =
                    Client::builder().name("client").wait_stages(std::time::Duration::ZERO);
                let client = client.connect(&cluster.address).await.unwrap();
                let dir = cluster.dir.path().to_owned();
                Self { place, client, dir, cluster: Some(cluster), _folder: None }
            }
        }
    }

    /// The names of the processes that run stages.
    pub(crate) fn workers(&self) -> &'static [&'static str] {
        match self.place {
            Place::Embedded => &["embedded"],
            Place::Fleet => &["a", "b"],
        }
    }

    pub(crate) fn close_gate(&self, name: &str) {
        functions::close_gate(&self.dir, name).unwrap();
    }

    pub(crate) fn open_gate(&self, name: &str) {
        functions::open_gate(&self.dir, name).unwrap();
    }

    pub(crate) fn trace(&self, name: &str) -> Vec<String> {
        functions::read_trace(&self.dir, name)
    }

    /// How many lines of the trace begin so.
    pub(crate) fn traced(&self, name: &str, prefix: &str) -> usize {
        self.trace(name).iter().filter(|line| line.starts_with(prefix)).count()
    }

    /// Waits until as many lines of the trace begin so.
    pub(crate) async fn until_traced(&self, name: &str, prefix: &str, count: usize) {
        let what = format!("{count} lines {prefix:?} in {name}");
        wait_for(&what, || self.traced(name, prefix) >= count).await;
    }

    /// The phases of the jobs that the coordinator lists; none embedded, where nobody can ask.
    async fn phases(&self) -> Option<Vec<String>> {
        let address = format!("http://{}", self.cluster.as_ref()?.address);
        let mut jobs = v1::jobs_client::JobsClient::connect(address).await.unwrap();
        let mut answer = jobs.list_jobs(v1::ListJobsRequest {}).await.unwrap().into_inner();
        let mut phases = Vec::new();
        while let Some(next) = answer.message().await.unwrap() {
            let job = JobStatus::decode(next.job.unwrap()).unwrap();
            phases.push(job.phase.name().to_owned());
        }
        Some(phases)
    }

    /// Waits until the coordinator says that its one job is in that phase, and nothing of it is left
    /// in the client.
    pub(crate) async fn until_over(&self, phase: &str) {
        eventually(phase, async || match self.phases().await {
            Some(phases) => phases == [phase],
            None => true,
        })
        .await;
        let census = || self.client.census();
        wait_for("the client is idle", || (census().tasks, census().links) == (0, 0)).await;
    }
}

/// A value, sorted.
pub(crate) fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort_unstable();
    items
}

/// The messages of errors, sorted; all are of one kind.
pub(crate) fn messages(kind: ErrorKind, errors: &[ItemError]) -> Vec<String> {
    assert!(errors.iter().all(|error| error.kind == kind), "{errors:?}");
    sorted(errors.iter().map(|error| error.message.clone()))
}

/// The error of an item.
pub(crate) fn item_error<T: std::fmt::Debug>(result: Result<T, Error>) -> ItemError {
    match result {
        Err(Error::Item(error)) => error,
        other => panic!("no error of an item: {other:?}"),
    }
}

/// The message of a job that the coordinator refused or failed.
pub(crate) fn failure<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Job(JobError::Failed(failure))) => failure.message,
        other => panic!("no failed job: {other:?}"),
    }
}
