//! The sources of a pipeline file: lines of files or of standard input, and paths.
//!
//! A source is resolved first ([`Inputs::resolve`]): globs become a sorted list of files without
//! repetitions, and each regular file is tried, so that a job with a missing input never starts. What
//! is no regular file (a named pipe, a device) is opened once and for all when it is read: whoever
//! writes to a pipe would take a first opening for its reader. Then it is started ([`Inputs::start`]): a thread of its own reads, and hands over batches through a
//! bounded channel; when nobody takes them, it waits. Dropping the [`Roots`] ends the thread at its
//! next batch; a thread that waits for standard input ends with the process.
//!
//! Roots come in a defined order: file by file as sorted, line by line. What goes wrong in the middle
//! of the input (a line that is not UTF-8, a file that breaks off) is an error root that names file
//! and line, and the rest goes on.

mod glob;
mod gzip;
mod lines;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio::sync::mpsc;

use super::file::SourceSpec;
pub use lines::MAX_LINE_BYTES;

/// A root: a text, or why there is none.
pub type Root = Result<String, String>;

/// A batch is handed over when it has so many roots, or so many bytes, or when there is nothing
/// more to read at once.
const BATCH_ROOTS: usize = 256;
const BATCH_BYTES: usize = 256 << 10;
/// How many batches may wait.
const WAITING_BATCHES: usize = 4;

/// Why a source cannot start. Each names the thing, the current folder and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A glob that matches no file.
    #[error("no file matches {pattern:?} (the current folder is {}). {}", here(), advice(pattern))]
    NoMatch {
        /// The glob.
        pattern: String,
    },
    /// A file name that is not there.
    #[error("there is no file {} (the current folder is {}). {}", path.display(), here(), advice(&path.to_string_lossy()))]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A folder where a file is needed.
    #[error("{} is a folder; for the files in it write {:?}", path.display(), format!("{}/*", path.display()))]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder that cannot be read.
    #[error("cannot read {}: {error} (the current folder is {})", path.display(), here())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A text that is no glob.
    #[error("{pattern:?} is no valid glob: {why} at character {position}")]
    BadPattern {
        /// The glob.
        pattern: String,
        /// What is wrong.
        why: String,
        /// Where, from 1.
        position: usize,
    },
}

fn here() -> String {
    std::env::current_dir().unwrap_or_default().display().to_string()
}

fn advice(pattern: &str) -> &'static str {
    if pattern.starts_with('~') {
        "`~` is not expanded; write ${HOME}"
    } else if pattern.contains('$') {
        "Variables are written ${NAME}"
    } else {
        "Check the spelling, and from where you start the pipeline"
    }
}

/// What a source will read: every file is there, and each regular one can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// The lines of these files.
    Lines(Vec<PathBuf>),
    /// The lines of standard input.
    Stdin,
    /// These paths.
    Files(Vec<PathBuf>),
}

/// How far a source is, for progress.
#[derive(Debug, Default)]
pub struct Counts {
    files: AtomicU64,
    files_done: AtomicU64,
    roots: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// How many files there are.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// How many of them are through.
    pub fn files_done(&self) -> u64 {
        self.files_done.load(Ordering::Relaxed)
    }

    /// How many roots have been made.
    pub fn roots(&self) -> u64 {
        self.roots.load(Ordering::Relaxed)
    }

    /// How many bytes have been read; of a compressed file, as it is on disk after decompression.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Inputs {
    /// Finds the files, and tries to open those that are regular. Blocks; the list is kept in memory.
    ///
    /// # Errors
    /// A glob that matches nothing or is none, and a file that is not there or cannot be read.
    pub fn resolve(spec: &SourceSpec) -> Result<Self, SourceError> {
        match spec {
            SourceSpec::Stdin => Ok(Self::Stdin),
            SourceSpec::Lines(globs) => {
                let files = glob::files(globs)?;
                for path in &files {
                    let unreadable = |error| SourceError::Unreadable { path: path.clone(), error };
                    if std::fs::metadata(path).map_err(unreadable)?.is_file() {
                        std::fs::File::open(path).map_err(unreadable)?;
                    }
                }
                Ok(Self::Lines(files))
            }
            SourceSpec::Files(globs) => Ok(Self::Files(glob::files(globs)?)),
        }
    }

    /// The files that will be read, or whose paths are the roots.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Self::Lines(paths) | Self::Files(paths) => paths,
            Self::Stdin => &[],
        }
    }

    /// Starts to read.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(self) -> io::Result<Roots> {
        let counts = Arc::new(Counts::default());
        let (batches, receiver) = mpsc::channel(WAITING_BATCHES);
        let out = Out { batches, batch: Vec::new(), bytes: 0, counts: Arc::clone(&counts) };
        std::thread::Builder::new().name("source".to_owned()).spawn(move || {
            // The only error is that nobody listens any more.
            let _ = self.read(out);
        })?;
        Ok(Roots { receiver, batch: Vec::new().into_iter(), counts })
    }

    fn read(self, mut out: Out) -> Result<(), Gone> {
        let counts = Arc::clone(&out.counts);
        match self {
            Self::Stdin => {
                counts.files.store(1, Ordering::Relaxed);
                lines::read("standard input", io::stdin().lock(), &mut out)?;
                counts.files_done.store(1, Ordering::Relaxed);
            }
            Self::Lines(paths) => {
                counts.files.store(paths.len() as u64, Ordering::Relaxed);
                for path in paths {
                    let name = path.display().to_string();
                    match std::fs::File::open(&path) {
                        Ok(file) => lines::read(&name, io::BufReader::new(file), &mut out)?,
                        Err(error) => out.push(Err(format!("{name}: cannot read: {error}")))?,
                    }
                    counts.files_done.fetch_add(1, Ordering::Relaxed);
                }
            }
            Self::Files(paths) => {
                counts.files.store(paths.len() as u64, Ordering::Relaxed);
                for path in paths {
                    out.push(path.into_os_string().into_string().map_err(|path| {
                        format!("the file name {} is not UTF-8 text", path.display())
                    }))?;
                    counts.files_done.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        out.flush()
    }
}

/// Nobody takes the roots any more.
#[derive(Debug)]
struct Gone;

/// The reading thread's end.
struct Out {
    batches: mpsc::Sender<Vec<Root>>,
    batch: Vec<Root>,
    bytes: usize,
    counts: Arc<Counts>,
}

impl Out {
    fn push(&mut self, root: Root) -> Result<(), Gone> {
        let (Ok(text) | Err(text)) = &root;
        self.bytes += text.len();
        self.counts.roots.fetch_add(1, Ordering::Relaxed);
        self.batch.push(root);
        if self.batch.len() >= BATCH_ROOTS || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        self.batches.blocking_send(std::mem::take(&mut self.batch)).map_err(|_| Gone)
    }
}

/// The roots of a started source, in their order. Cancel safe.
#[derive(Debug)]
pub struct Roots {
    receiver: mpsc::Receiver<Vec<Root>>,
    batch: std::vec::IntoIter<Root>,
    counts: Arc<Counts>,
}

impl Roots {
    /// How far the source is; stays valid after the roots are gone.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

impl Stream for Roots {
    type Item = Root;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Root>> {
        loop {
            if let Some(root) = self.batch.next() {
                return Poll::Ready(Some(root));
            }
            match ready!(self.receiver.poll_recv(context)) {
                Some(batch) => self.batch = batch.into_iter(),
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests;
