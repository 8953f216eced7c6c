//! A cluster of real processes on this machine: a coordinator, workers, and whatever a test does to
//! them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stageline::{Census, Client};
use stageline_coordinator::engine::Config;
use stageline_coordinator::server::Coordinator;
use stageline_coordinator::service::{self, Listener};
use stageline_proto::v1::jobs_client::JobsClient;
use stageline_proto::v1::list_processes_response::Listed;
use stageline_proto::{Wire, v1};
use stageline_protocol::control::ProcessStatus;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

/// Turns a hang into a failure.
pub const GUARD: Duration = Duration::from_secs(60);
/// What each process logs: how it goes, and each link that breaks.
const LOG: &str = "info,stageline_worker=debug";

/// A process of a cluster; killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process whose standard error goes to a file.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(program: &str, arguments: &[&str], dir: &Path, name: &str) -> Self {
        let log = dir.join(format!("{name}-{}.log", fastrand::u32(..)));
        let errors = File::create(&log).expect("the log can be written");
        let child = Command::new(program)
            .args(arguments)
            .env("STAGELINE_TEST_DIR", dir)
            .env("NO_COLOR", "1")
            .env("STAGELINE_LOG", LOG)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("the process starts");
        Self { child, log }
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has logged something that contains `text`, and answers that line.
    pub async fn logged(&mut self, text: &str) -> String {
        let found = || self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
        wait_for(text, || found().is_some()).await;
        found().unwrap_or_default()
    }

    /// Kills it as the kernel does when memory runs out: no goodbye.
    pub fn kill(&mut self) {
        let _dead_already = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// Sends it a signal, by its name (`INT`, `TERM`, `STOP`, `CONT`).
    ///
    /// # Panics
    /// When there is no `kill` command.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {id}");
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit code, once it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1))
    }

    /// Its resident memory, in bytes.
    #[must_use]
    pub fn resident(&self) -> u64 {
        resident(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A coordinator and its workers.
#[derive(Debug)]
pub struct Cluster {
    program: String,
    /// Where its gates, traces and logs are.
    pub dir: tempfile::TempDir,
    /// The coordinator.
    pub coordinator: Process,
    /// Where it listens.
    pub address: String,
    /// The workers, by name.
    pub workers: BTreeMap<String, Process>,
}

impl Cluster {
    /// A coordinator without workers. `program` is a `stageline` command line.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(program: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let coordinator = start_coordinator(program, "127.0.0.1:0", dir.path());
        Self::with_coordinator(program, dir, coordinator).await
    }

    /// As [`start`](Self::start), with a lease of that length; `program` calls [`as_process`]. A living
    /// worker gives a sign of life every second. Nothing is stored.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_with_lease(program: &str, lease: Duration) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let arguments = [BRIEF, &lease.as_millis().to_string()];
        let coordinator = Process::start(program, &arguments, dir.path(), "coordinator");
        Self::with_coordinator(program, dir, coordinator).await
    }

    async fn with_coordinator(
        program: &str,
        dir: tempfile::TempDir,
        mut coordinator: Process,
    ) -> Self {
        let address = listening(&mut coordinator).await;
        Self { program: program.to_owned(), dir, coordinator, address, workers: BTreeMap::new() }
    }

    /// Where the coordinator keeps its jobs.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        store(self.dir.path())
    }

    /// Kills the coordinator without a goodbye; [`Self::start_coordinator`] starts it again.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.kill();
    }

    /// Starts the coordinator again, at the same port and with the same store, and waits until it
    /// listens.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_coordinator(&mut self) {
        self.coordinator = start_coordinator(&self.program, &self.address, self.dir.path());
        assert_eq!(listening(&mut self.coordinator).await, self.address);
    }

    /// Adds a worker that offers these functions (none: all), and waits until it is listed.
    pub async fn worker(&mut self, name: &str, functions: &[&str]) {
        let address = self.address.clone();
        self.worker_at(name, functions, &address, &[]).await;
    }

    /// As [`worker`](Self::worker), for one that reaches the coordinator by another address, with more
    /// arguments.
    pub async fn worker_at(
        &mut self,
        name: &str,
        functions: &[&str],
        coordinator: &str,
        more: &[&str],
    ) {
        let only = functions.join(",");
        let mut arguments = vec!["worker", "--coordinator", coordinator, "--name", name];
        arguments.extend(more);
        if !only.is_empty() {
            arguments.extend(["--only", &only]);
        }
        let worker = Process::start(&self.program, &arguments, self.dir.path(), name);
        self.workers.insert(name.to_owned(), worker);
        let address = self.address.clone();
        eventually(name, async || {
            processes(&address).await.iter().any(|process| process.name == name)
        })
        .await;
    }

    /// Kills a worker without a goodbye.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn kill(&mut self, name: &str) {
        self.workers.remove(name).expect("a worker of that name").kill();
    }

    /// Kills a worker without a goodbye, unless its death would convict an innocent item: one that runs
    /// a suspect is spared. Stopped first, it cannot begin with one in between. Answers whether it is
    /// dead.
    ///
    /// # Panics
    /// When there is none of that name.
    pub async fn kill_sparing(&mut self, name: &str) -> bool {
        let worker = self.workers.get_mut(name).expect("a worker of that name");
        worker.signal("STOP");
        let spared = suspects(&self.address, name).await != Some(0);
        let worker = self.workers.get_mut(name).expect("a worker of that name");
        if spared {
            worker.signal("CONT");
        } else {
            worker.kill();
        }
        !spared
    }

    /// A client of this cluster.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn client(&self) -> Client {
        Client::connect(&self.address).await.expect("the coordinator is there")
    }

    /// Runs the command line with these arguments, to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn run(&self, arguments: &[&str]) -> std::process::Output {
        let (program, dir) = (self.program.clone(), self.dir.path().to_owned());
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let run = tokio::task::spawn_blocking(move || {
            Command::new(program).args(arguments).env("STAGELINE_TEST_DIR", dir).output()
        });
        guarded(run).await.expect("it does not panic").expect("it starts")
    }

    /// Closes a gate: functions that come to it wait.
    ///
    /// # Panics
    /// When the folder is gone.
    pub fn close_gate(&self, name: &str) {
        crate::functions::close_gate(self.dir.path(), name).expect("the folder is there");
    }

    /// Opens a gate that was closed.
    ///
    /// # Panics
    /// When it was not closed.
    pub fn open_gate(&self, name: &str) {
        crate::functions::open_gate(self.dir.path(), name).expect("the gate was closed");
    }

    /// The lines that the functions left under that name.
    #[must_use]
    pub fn trace(&self, name: &str) -> Vec<String> {
        crate::functions::read_trace(self.dir.path(), name)
    }
}

fn store(dir: &Path) -> PathBuf {
    dir.join("coordinator.redb")
}

fn start_coordinator(program: &str, listen: &str, dir: &Path) -> Process {
    let store = store(dir);
    let store = store.to_str().expect("the folder's name is in UTF-8");
    let arguments = ["coordinator", "--listen", listen, "--store", store];
    Process::start(program, &arguments, dir, "coordinator")
}

async fn listening(coordinator: &mut Process) -> String {
    let line = coordinator.logged("listening on").await;
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// The resident memory of a process, in bytes; 0 if it is gone.
#[must_use]
pub fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// The command of a coordinator with a lease of so many milliseconds.
const BRIEF: &str = "coordinator-with-lease";

/// A program that measures a cluster is its processes, too: when it was started as one of them, runs
/// that and answers its exit code.
///
/// # Panics
/// When a coordinator with a lease of its own does not start.
#[must_use]
pub fn as_process() -> Option<std::process::ExitCode> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next()?.as_str() {
        "coordinator" | "worker" => Some(stageline::main(crate::functions::registry())),
        BRIEF => {
            let lease = arguments.next().and_then(|millis| millis.parse().ok());
            let lease = Duration::from_millis(lease.expect("a number of milliseconds"));
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(coordinator_with_lease(lease));
            Some(std::process::ExitCode::SUCCESS)
        }
        _ => None,
    }
}

async fn coordinator_with_lease(lease: Duration) {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let listener = Listener::bind("127.0.0.1:0").await.expect("a free port");
    tracing::info!("coordinator listening on {}", listener.address());
    let coordinator = Coordinator::start(Config { lease, ..Config::default() });
    service::serve(listener, coordinator, CancellationToken::new()).await.expect("it serves");
}

/// The path of this program, for [`Cluster::start`].
///
/// # Panics
/// When the system does not tell it.
#[must_use]
pub fn this_program() -> String {
    let path = std::env::current_exe().expect("the program has a path");
    path.to_str().expect("in UTF-8").to_owned()
}

/// The processes that a coordinator lists.
///
/// # Panics
/// When the coordinator does not answer.
pub async fn processes(coordinator: &str) -> Vec<ProcessStatus> {
    list(coordinator).await.0
}

/// How many suspects a worker runs, or was told to run; none when the coordinator does not answer.
pub async fn suspects(coordinator: &str, worker: &str) -> Option<u64> {
    let asked = async {
        let mut jobs = JobsClient::connect(format!("http://{coordinator}")).await.ok()?;
        let (processes, _) = listed(&mut jobs).await.ok()?;
        let those = processes.into_iter().filter(|process| process.name == worker);
        Some(those.map(|process| process.suspects).sum())
    };
    tokio::time::timeout(Duration::from_secs(2), asked).await.ok().flatten()
}

/// What every process of a cluster runs, by name: the coordinator, and those that it lists.
///
/// # Panics
/// When the coordinator does not answer.
pub async fn censuses(coordinator: &str) -> BTreeMap<String, Census> {
    let (processes, own) = list(coordinator).await;
    let listed = processes.into_iter().map(|process| (process.name, process.census));
    listed.chain([("coordinator".to_owned(), own)]).collect()
}

async fn list(coordinator: &str) -> (Vec<ProcessStatus>, Census) {
    let mut jobs = JobsClient::connect(format!("http://{coordinator}"))
        .await
        .expect("the coordinator is there");
    let (processes, own) = listed(&mut jobs).await.expect("it answers");
    let decoded = processes.into_iter().map(Wire::decode);
    let processes = decoded.collect::<Result<_, _>>().expect("the answer decodes");
    let own = own.expect("the coordinator counts itself, too");
    (processes, Census::decode(own).expect("the answer decodes"))
}

async fn listed(
    jobs: &mut JobsClient<Channel>,
) -> Result<(Vec<v1::ProcessStatus>, Option<v1::Census>), Status> {
    let mut answer = jobs.list_processes(v1::ListProcessesRequest {}).await?.into_inner();
    let (mut processes, mut own) = (Vec::new(), None);
    while let Some(next) = answer.message().await? {
        match next.listed {
            Some(Listed::Process(process)) => processes.push(process),
            Some(Listed::Coordinator(census)) => own = Some(census),
            None => {}
        }
    }
    Ok((processes, own))
}

/// Waits until the condition holds; names it when it never does.
///
/// # Panics
/// When it does not hold within [`GUARD`].
pub async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, async || condition()).await;
}

/// As [`wait_for`], for a condition that takes asking.
///
/// # Panics
/// When it does not hold within [`GUARD`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < GUARD, "still waiting for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Turns a hang into a failure.
///
/// # Panics
/// When it takes longer than [`GUARD`].
pub async fn guarded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, future).await.expect("no hang")
}
