//! Where results go: standard output, or a file that is complete or not there; as JSON lines.
//!
//! A sink opens and writes on a thread of its own, behind a channel that is bounded in lines and in
//! bytes, so that a slow reader of our output, or none, slows the pipeline, and never blocks the
//! runtime. What is written is handed to the system at every 64 KiB, and whenever nothing more is
//! waiting: a reader sees results as they come. Until then its bytes count as waiting.
//!
//! A file is written beside its place under another name, and takes its place only in
//! [`Sink::finish`], when all of it is on the disk; on [`Sink::abort`] or drop it is removed. So a
//! file by that name is always whole. What is no regular file (a device, a named pipe) is written in
//! place.

pub mod place;
mod target;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::Serialize;
use stageline_protocol::item::ItemError;
use stageline_protocol::lineage::Lineage;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::file::SinkSpec;
use place::{ERRORS, OUTPUT};
use target::{Prepared, Target};

/// What is written is handed to the system when it has so many bytes.
const FLUSH_BYTES: usize = 64 << 10;
/// How many lines may wait, and how many bytes of memory in all. A larger line waits alone.
const WAITING_LINES: usize = 1024;
const WAITING_BYTES: u32 = 1 << 20;

/// Why a sink failed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Whoever read our output has gone: `head` has seen enough, say.
    #[error("{place} was closed by its reader")]
    Closed {
        /// The file's name, or "standard output".
        place: String,
    },
    /// No room is left.
    #[error(
        "the disk is full: cannot write to {place}. Make room, or write elsewhere with {option}"
    )]
    Full {
        /// The file's name, or "standard output".
        place: String,
        /// The option that names another place.
        option: &'static str,
    },
    /// The folder of the file is not there.
    #[error("cannot create {}: there is no folder {}. Create it first", path.display(), folder.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// A folder where a file is to be.
    #[error("cannot write to {}: it is a folder. Name a file", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// Anything else that the system says.
    #[error("cannot write to {place}: {error}")]
    Io {
        /// The file's name, or "standard output".
        place: String,
        /// What the system says.
        error: io::Error,
    },
    /// The value has no JSON form.
    #[error("a result cannot be written as JSON: {0}")]
    NotJson(String),
}

impl SinkError {
    fn io(place: &str, option: &'static str, error: io::Error) -> Self {
        let place = place.to_owned();
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed { place },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { place, option }
            }
            _ => Self::Io { place, error },
        }
    }
}

/// One line of the file of error items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorLine<'a> {
    /// The item's identity.
    pub lineage: String,
    /// The stage whose function failed.
    pub stage: &'a str,
    /// The sort of failure.
    pub kind: &'static str,
    /// The failure in words.
    pub message: &'a str,
    /// How often the function was tried.
    pub attempts: u32,
    /// The process where it ran.
    pub worker: &'a str,
}

impl<'a> ErrorLine<'a> {
    /// The line of an error item.
    #[must_use]
    pub fn new(lineage: &Lineage, error: &'a ItemError) -> Self {
        Self {
            lineage: lineage.to_string(),
            stage: &error.stage,
            kind: error.kind.name(),
            message: &error.message,
            attempts: error.attempts,
            worker: &error.worker,
        }
    }
}

/// An open sink.
#[derive(Debug)]
pub struct Sink {
    orders: Option<mpsc::Sender<Order>>,
    /// A permit for each byte that may still wait; closed when the thread has ended.
    room: Arc<Semaphore>,
    /// Gone once it has been asked for.
    outcome: Option<oneshot::Receiver<Result<u64, SinkError>>>,
    /// Only of a file, which is always written promptly; anything else may hang on its reader.
    thread: Option<JoinHandle<()>>,
    place: String,
}

enum Order {
    /// Write this line, which has its end.
    Line(Vec<u8>),
    /// That was all: make it stay.
    Finish,
}

impl Sink {
    /// Opens the sink of results that a pipeline file names.
    ///
    /// # Errors
    /// The file's folder is not there or cannot be written to.
    pub fn open(spec: &SinkSpec) -> Result<Self, SinkError> {
        match spec {
            SinkSpec::Stdout => {
                let stdout = Prepared::Open(Target::Plain(Box::new(io::stdout())));
                Self::start(stdout, "standard output", OUTPUT)
            }
            SinkSpec::File(path) => Self::file(path, OUTPUT),
        }
    }

    /// Opens the file of error items.
    ///
    /// # Errors
    /// The file's folder is not there or cannot be written to.
    pub fn errors(path: &Path) -> Result<Self, SinkError> {
        Self::file(path, ERRORS)
    }

    fn file(path: &Path, option: &'static str) -> Result<Self, SinkError> {
        Self::start(Prepared::file(path, option)?, &path.display().to_string(), option)
    }

    fn start(target: Prepared, place: &str, option: &'static str) -> Result<Self, SinkError> {
        let (orders, receiver) = mpsc::channel(WAITING_LINES);
        let (result, outcome) = oneshot::channel();
        let name = place.to_owned();
        let is_file = matches!(target, Prepared::Open(Target::File { .. }));
        let room = Arc::new(Semaphore::new(WAITING_BYTES as usize));
        let rooms_end = EndOfRoom(Arc::clone(&room));
        let thread = std::thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || {
                // Nobody asks any more when the sink was dropped.
                let failed = |error| SinkError::io(&name, option, error);
                let _ = result.send(run(target, receiver, &rooms_end.0).map_err(failed));
            })
            .map_err(|error| SinkError::io(place, option, error))?;
        Ok(Self {
            orders: Some(orders),
            room,
            outcome: Some(outcome),
            thread: is_file.then_some(thread),
            place: place.to_owned(),
        })
    }

    /// Writes one value as one line; waits while too much is waiting. When it returns, the line is
    /// taken: it is one of those few that wait, and not yet on the disk.
    ///
    /// Cancel safe: a cancelled call has written nothing.
    ///
    /// # Errors
    /// The sink has failed, now or on an earlier line; or the value has no JSON form.
    pub async fn send(&mut self, value: &impl Serialize) -> Result<(), SinkError> {
        let mut line =
            serde_json::to_vec(value).map_err(|error| SinkError::NotJson(error.to_string()))?;
        line.push(b'\n');
        let taken = match (&self.orders, self.room.acquire_many(share(&line)).await) {
            (Some(orders), Ok(room)) => {
                let taken = orders.send(Order::Line(line)).await.is_ok();
                // The thread gives it back.
                room.forget();
                taken
            }
            _ => false,
        };
        if taken { Ok(()) } else { self.outcome().await.and(Ok(())) }
    }

    /// Ends a sink that has everything: a file is on the disk, in its place, when this returns. The
    /// number of its lines.
    ///
    /// # Errors
    /// The sink has failed; the file is not there then, or is what it was before.
    pub async fn finish(mut self) -> Result<u64, SinkError> {
        if let Some(orders) = self.orders.take() {
            // A sink that has failed takes no orders; its outcome says why.
            let _ = orders.send(Order::Finish).await;
        }
        self.outcome().await
    }

    /// Ends a sink that does not have everything: a file is removed before this returns. What was
    /// written to anything else stays.
    pub async fn abort(mut self) {
        self.orders = None;
        if self.thread.is_some() {
            let _ = self.outcome().await;
        }
    }

    async fn outcome(&mut self) -> Result<u64, SinkError> {
        self.orders = None;
        let outcome = match self.outcome.take() {
            Some(outcome) => outcome.await.ok(),
            None => None,
        };
        outcome.unwrap_or_else(|| {
            let error = io::Error::other("it has failed before");
            Err(SinkError::Io { place: self.place.clone(), error })
        })
    }
}

/// What a line takes of the room: the memory that it has, as long as it is not alone.
fn share(line: &Vec<u8>) -> u32 {
    u32::try_from(line.capacity()).unwrap_or(WAITING_BYTES).min(WAITING_BYTES)
}

/// Nobody waits for room from a thread that has ended, however it did.
struct EndOfRoom(Arc<Semaphore>);

impl Drop for EndOfRoom {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A dropped sink is aborted.
impl Drop for Sink {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It ends as soon as its orders do; a panic in it has no file left either.
            let _ = thread.join();
        }
    }
}

fn run(target: Prepared, mut orders: mpsc::Receiver<Order>, room: &Semaphore) -> io::Result<u64> {
    let buffer = Vec::with_capacity(FLUSH_BYTES);
    let mut writer = Writer { target: target.open()?, buffer, waiting: 0, room };
    let mut lines = 0;
    loop {
        let order = match orders.try_recv() {
            Ok(order) => Some(order),
            Err(_) => {
                // Nothing is waiting: let the reader see what there is.
                writer.flush()?;
                orders.blocking_recv()
            }
        };
        match order {
            Some(Order::Line(line)) => {
                lines += 1;
                writer.write(line)?;
            }
            Some(Order::Finish) => {
                writer.flush()?;
                writer.target.commit()?;
                return Ok(lines);
            }
            None => return Ok(lines),
        }
    }
}

/// Hands lines to the system, many at a time.
struct Writer<'a> {
    target: Target,
    buffer: Vec<u8>,
    /// The room that the lines in the buffer take.
    waiting: usize,
    room: &'a Semaphore,
}

impl Writer<'_> {
    fn write(&mut self, line: Vec<u8>) -> io::Result<()> {
        self.waiting += share(&line) as usize;
        if line.len() >= FLUSH_BYTES {
            // Too large to be copied and kept.
            self.hand_over()?;
            self.target.write_all(&line)?;
            drop(line);
            return self.flush();
        }
        self.buffer.extend_from_slice(&line);
        if self.buffer.len() >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()?;
        if self.waiting > 0 {
            self.target.flush()?;
            self.room.add_permits(std::mem::take(&mut self.waiting));
        }
        Ok(())
    }

    fn hand_over(&mut self) -> io::Result<()> {
        self.target.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
