//! The processes of a run: started, told what to do by lines of JSON, asked what they saw and cost.
//!
//! A process listens to its standard input. When that ends, because the benchmark has ended however
//! it did, so does the process.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::node::{Node, spawn};
use super::plan::Role;
use super::sdk::{self, Hand};
use super::tally::{self, Tally};
use crate::cluster::this_program;

/// The command of a program that is to be a process of a run.
pub const COMMAND: &str = "part";

/// What a process of a run is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Part {
    /// A node of a baseline.
    Node(Node),
    /// A worker of Stageline.
    Hand(Hand),
}

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Order {
    /// A baseline's source: send so many items. Stageline's: have so many for the next job.
    Source(u64),
    /// Answer what was seen, and forget it.
    Tally,
}

/// A process, as the benchmark holds it; killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where it listens, if it does.
    pub address: Option<String>,
}

impl Process {
    /// Starts a process, and waits until it is ready.
    ///
    /// # Errors
    /// When it cannot be started, or ends at once.
    pub fn start(part: &Part) -> Result<Self> {
        let mut child = Command::new(this_program())
            .args([COMMAND, &serde_json::to_string(part)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a process of the run cannot be started")?;
        let orders = child.stdin.take().context("its input is piped")?;
        let answers = BufReader::new(child.stdout.take().context("its output is piped")?);
        let mut process = Self { child, orders, answers, address: None };
        process.address = process.answer()?;
        Ok(process)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells a source to send so many items, or to have them for the next job; waits until it is done.
    ///
    /// # Errors
    /// When it has ended.
    pub fn source(&mut self, items: u64) -> Result<()> {
        self.tell(Order::Source(items))?;
        self.answer()
    }

    /// What it saw since it was last asked.
    ///
    /// # Errors
    /// When it has ended.
    pub fn tally(&mut self) -> Result<Tally> {
        self.tell(Order::Tally)?;
        self.answer()
    }

    fn tell(&mut self, order: Order) -> Result<()> {
        let line = serde_json::to_string(&order)?;
        writeln!(self.orders, "{line}").context("a process of the run has ended")
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).context("a process of the run has ended; it may have said why")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Is a process of a run, until its standard input ends.
///
/// # Errors
/// When something of it fails.
pub fn be(part: Part) -> Result<()> {
    let runtime = match &part {
        // The faster one for all baselines: their work is one chain of steps.
        Part::Node(_) => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        // As the command line has it.
        Part::Hand(_) => tokio::runtime::Runtime::new()?,
    };
    runtime.block_on(async {
        match part {
            Part::Node(node) => be_node(node).await,
            Part::Hand(hand) => {
                let _worker = hand.start().await?;
                answer(&None::<String>)?;
                let mut orders = orders();
                while let Some(order) = orders.recv().await {
                    match order {
                        Order::Source(items) => answer(&sdk::have(items))?,
                        Order::Tally => answer(&tally::take())?,
                    }
                }
                Ok(())
            }
        }
    })
}

async fn be_node(node: Node) -> Result<()> {
    let mut address = None;
    if node.role != Role::Source {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        address = Some(listener.local_addr()?.to_string());
        spawn(node.clone().serve(listener));
    }
    answer(&address)?;
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Source(items) => answer(&node.source(items).await?)?,
            Order::Tally => answer(&tally::take())?,
        }
    }
    Ok(())
}

/// The orders from the standard input: read by a thread, since that blocks.
fn orders() -> mpsc::UnboundedReceiver<Order> {
    let (to, orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let order = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            let Some(order) = order else { return };
            if to.send(order).is_err() {
                return;
            }
        }
    });
    orders
}

fn answer<T: Serialize>(answer: &T) -> Result<()> {
    let line = serde_json::to_string(answer)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The processor time that the threads of a process have used, user and system; those that have ended are
/// missing. Not what `stat` says, in ticks of 10 ms: a short job is a few of them in each process. None once it is
/// gone, and where Linux does not keep it.
#[must_use]
pub fn cpu(id: u32) -> Option<Duration> {
    let of = |thread: &Path| {
        let stat = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    };
    let threads = PathBuf::from(format!("/proc/{id}/task"));
    // The others may end any time.
    of(&threads.join(id.to_string()))?;
    let nanos = threads.read_dir().ok()?.filter_map(|thread| of(&thread.ok()?.path()));
    Some(Duration::from_nanos(nanos.sum()))
}

/// The most memory that a process has had resident, in bytes. None once it is gone.
#[must_use]
pub fn peak_resident(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
