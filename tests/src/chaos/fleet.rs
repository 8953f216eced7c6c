//! The processes of a run, each known by a name under which it is started again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::net::Net;
use super::oracle::{Verdict, judge};
use super::work::{ROLES, Shape};
use crate::cluster::{Process, censuses, suspects, wait_for};

/// The name of the coordinator.
pub const COORDINATOR: &str = "coordinator";
/// The name of the client.
pub const CLIENT: &str = "client";

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It has been stopped (SIGSTOP).
    Stopped,
    /// It has been told to end (SIGTERM), and may not have yet.
    Leaving,
    /// It is dead.
    Dead,
}

#[derive(Debug)]
struct Member {
    process: Process,
    state: State,
    arguments: Vec<String>,
}

/// A job whose client runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its sort.
    pub shape: Shape,
    /// How many results are due.
    pub items: u64,
    /// When it began.
    pub since: Instant,
    to: PathBuf,
}

/// A coordinator, two workers of each role, and at times a client.
#[derive(Debug)]
pub struct Fleet {
    program: String,
    /// Its logs, traces and results; kept when a run breaks.
    pub dir: tempfile::TempDir,
    /// Where the coordinator listens.
    pub address: String,
    /// The networks of the processes, if each has its own.
    pub net: Option<Net>,
    members: BTreeMap<String, Member>,
    jobs: usize,
}

impl Fleet {
    /// Starts a coordinator, which keeps its jobs in the run's folder, and `each` workers for every
    /// role, all of them the program `chaos`; waits until they are registered. With a net, each
    /// process has a namespace of its own in it.
    ///
    /// # Panics
    /// When a process does not start.
    pub async fn start(program: &str, each: usize, net: Option<Net>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let listen = net.as_ref().map_or_else(
            || "127.0.0.1:0".to_owned(),
            |net| format!("{}:7400", net.address(COORDINATOR)),
        );
        let mut fleet = Self {
            program: program.to_owned(),
            dir,
            address: listen.clone(),
            net,
            members: BTreeMap::new(),
            jobs: 0,
        };
        let mut arguments = vec!["coordinator".to_owned(), "--listen".to_owned(), listen];
        let file = fleet.path("coordinator.redb").display().to_string();
        arguments.extend(["--store".to_owned(), file]);
        fleet.launch(COORDINATOR, arguments);
        let line = fleet.coordinator().logged("listening on").await;
        fleet.address = line.rsplit(' ').next().unwrap_or_default().to_owned();
        if let Some(member) = fleet.members.get_mut(COORDINATOR) {
            member.arguments[2].clone_from(&fleet.address);
        }
        for name in workers(each) {
            let role = name.split('-').next().unwrap_or_default();
            let functions = ROLES.iter().find(|(name, _)| *name == role).map_or(&[][..], |r| r.1);
            let arguments = ["worker", "--coordinator", &fleet.address, "--name", &name, "--only"];
            let mut arguments = arguments.map(str::to_owned).to_vec();
            arguments.push(functions.join(","));
            if let Some(net) = &fleet.net {
                arguments.extend(["--listen".to_owned(), format!("{}:7401", net.address(&name))]);
            }
            fleet.launch(&name, arguments);
        }
        for name in workers(each) {
            fleet.coordinator().logged(&format!("worker {name} is here")).await;
        }
        fleet
    }

    /// A file in the run's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn coordinator(&mut self) -> &mut Process {
        &mut self.members.get_mut(COORDINATOR).expect("it was started").process
    }

    fn launch(&mut self, name: &str, arguments: Vec<String>) {
        let mut all = vec![self.program.clone()];
        if let Some(net) = &self.net {
            all.splice(0..0, net.command(name));
        }
        all.extend(arguments.iter().cloned());
        let words: Vec<&str> = all[1..].iter().map(String::as_str).collect();
        let process = Process::start(&all[0], &words, self.dir.path(), name);
        let member = Member { process, state: State::Running, arguments };
        self.members.insert(name.to_owned(), member);
    }

    /// The processes in that state, in the order of their names.
    #[must_use]
    pub fn names(&self, state: State) -> Vec<String> {
        let those = self.members.iter().filter(|(_, member)| member.state == state);
        those.map(|(name, _)| name.clone()).collect()
    }

    /// What that process is doing, as far as the driver knows.
    #[must_use]
    pub fn state(&self, name: &str) -> State {
        self.members.get(name).map_or(State::Dead, |member| member.state)
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.get_mut(name).unwrap_or_else(|| panic!("there is no process {name}"))
    }

    /// SIGKILL.
    pub fn kill(&mut self, name: &str) {
        let member = self.member(name);
        member.process.kill();
        member.state = State::Dead;
    }

    /// SIGKILL, unless that would convict an innocent item: a worker that runs a suspect is spared, and
    /// so is one of which the coordinator cannot be asked just now. Stopped first, it cannot begin with
    /// one in between. Answers whether it is dead.
    pub async fn kill_sparing(&mut self, name: &str) -> bool {
        let coordinator = self.state(COORDINATOR);
        let worker = name != COORDINATOR && name != CLIENT;
        // One that is dead counts no deaths.
        if worker && coordinator != State::Dead {
            self.member(name).process.signal("STOP");
            let suspects = match coordinator {
                State::Running => suspects(&self.address, name).await,
                _ => None,
            };
            if suspects != Some(0) {
                self.member(name).process.signal("CONT");
                return false;
            }
        }
        self.kill(name);
        true
    }

    /// SIGSTOP.
    pub fn stop(&mut self, name: &str) {
        let member = self.member(name);
        member.process.signal("STOP");
        member.state = State::Stopped;
    }

    /// SIGCONT, if it is stopped.
    pub fn go_on(&mut self, name: &str) {
        let member = self.member(name);
        if member.state == State::Stopped {
            member.process.signal("CONT");
            member.state = State::Running;
        }
    }

    /// SIGTERM.
    pub fn terminate(&mut self, name: &str) {
        let member = self.member(name);
        member.process.signal("TERM");
        member.state = State::Leaving;
    }

    /// Starts a dead process, or one that has left, again, as it was started first.
    pub fn restart(&mut self, name: &str) {
        let arguments = self.member(name).arguments.clone();
        self.launch(name, arguments);
    }

    /// What a process has logged in this life.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        self.members.get(name).map(|member| member.process.log()).unwrap_or_default()
    }

    /// The lines that any process, living or dead, has logged and that contain `text`.
    #[must_use]
    pub fn logged(&self, text: &str) -> Vec<String> {
        lines_with(self.dir.path(), text)
    }

    /// Starts a client with a job.
    ///
    /// # Panics
    /// When the folder is gone.
    pub fn submit(&mut self, shape: Shape, items: u64) -> Running {
        self.jobs += 1;
        let to = self.path(&format!("job-{}", self.jobs));
        std::fs::write(self.path("roots"), (items / 2).to_string()).expect("the folder is there");
        let (items_text, to_text) = (items.to_string(), to.display().to_string());
        let coordinator = self.address.clone();
        let arguments = ["client", "--coordinator", &coordinator, "--shape", shape.name()];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        arguments.extend(["--items", &items_text, "--to", &to_text].map(str::to_owned));
        self.launch(CLIENT, arguments);
        Running { shape, items, since: Instant::now(), to }
    }

    /// Whether the coordinator runs and listens.
    #[must_use]
    pub fn has_coordinator(&self) -> bool {
        self.state(COORDINATOR) == State::Running && self.log(COORDINATOR).contains("listening on")
    }

    /// How many results of a job have come so far; calls of its sink, if it has one.
    #[must_use]
    pub fn progress(&self, job: &Running) -> usize {
        let file = match job.shape {
            Shape::Plain | Shape::Spread | Shape::Flaky => job.to.with_extension("results"),
            Shape::Sink => return self.traced("kept-"),
        };
        std::fs::read_to_string(file).map_or(0, |text| text.lines().count())
    }

    /// The lines of all traces whose names begin so.
    fn traced(&self, prefix: &str) -> usize {
        let files = std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        let files = files.filter(|file| file.file_name().to_string_lossy().starts_with(prefix));
        let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        texts.map(|text| text.lines().count()).sum()
    }

    /// The verdict on a job, once its client has ended or has been killed.
    pub fn verdict(&mut self, job: &Running) -> Option<Verdict> {
        let dir = self.dir.path().to_owned();
        let member = self.member(CLIENT);
        let abandoned = member.state == State::Dead;
        if !abandoned && member.process.ended().is_none() {
            return None;
        }
        member.state = State::Dead;
        let mut verdict = judge(&dir, &job.to, job.shape, job.items, abandoned);
        if !verdict.is_clean() {
            verdict.faults.push(format!("that was {} ({:?})", job.to.display(), job.shape));
        }
        Some(verdict)
    }

    /// The processes that still have something of a job.
    ///
    /// # Panics
    /// When the coordinator does not answer.
    pub async fn busy(&self) -> Vec<String> {
        // It may have been started again just now.
        wait_for("the coordinator", || self.has_coordinator()).await;
        let all = censuses(&self.address).await.into_iter();
        // The coordinator counts its sessions as links, and its jobs as tasks.
        let busy = all.filter(|(name, c)| {
            let links = if name == COORDINATOR { 0 } else { c.links };
            (c.tasks, links, c.children) != (0, 0, 0)
        });
        busy.map(|(name, census)| format!("{name} still has {census:?}")).collect()
    }

    /// The exit code of a process that was told to end, once it has.
    pub fn left(&mut self, name: &str) -> Option<i32> {
        self.member(name).process.ended()
    }

    /// Keeps the folder, and answers where it is.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

/// The names of the workers.
#[must_use]
pub fn workers(each: usize) -> Vec<String> {
    let of = |role: &str| (1..=each).map(|n| format!("{role}-{n}")).collect::<Vec<_>>();
    ROLES.iter().flat_map(|(role, _)| of(role)).collect()
}

/// The lines of all logs in a folder that contain a text.
#[must_use]
pub fn lines_with(dir: &Path, text: &str) -> Vec<String> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|file| file.path());
    let logs = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
    let mut found = Vec::new();
    for log in logs {
        let name = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let lines = log.lines().filter(|line| line.contains(text));
        found.extend(lines.map(|line| format!("{name}: {line}")));
    }
    found
}
