//! Stageline: a pipeline of async stages, in one process or on many machines, with the same program.
//!
//! A pipeline is a [`Stream`]: a source, stages, and a terminal. Stages are named once, as typed
//! constants that the client and the workers share; closures run in the client's process.
//!
//! ```
//! use stageline::{Client, Registry, Stage, Stream};
//!
//! const WORDS: Stage<String, usize> = Stage::named("words");
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), stageline::Error> {
//! let registry = Registry::new()
//!     .map(WORDS, |line: String| async move { line.split_whitespace().count() });
//!
//! let client = Client::embedded(registry); // or Client::connect("host:7400").await?
//! let mut counts = Stream::from_iter(["to be".to_owned(), "or not to be".to_owned()])
//!     .map(WORDS).workers(8)
//!     .map_local(|words: usize| async move { words * 10 })
//!     .collect(&client)
//!     .await?;
//! counts.sort();
//! assert_eq!(counts, [20, 40]);
//! # Ok(())
//! # }
//! ```
//!
//! Whichever worker dies, no item is lost, and each result comes out of the terminal exactly once;
//! stage functions run at least once, with [`Context::idempotency_key`] to tell a repetition.
//! Results come in the order in which they are ready.

#[cfg(feature = "cli")]
pub mod cli;
mod client;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
mod results;
mod source;
#[cfg(feature = "cli")]
pub mod stock;
mod stream;
mod terminal;

#[cfg(feature = "cli")]
pub use cli::main;
pub use client::{Client, ClientBuilder};
pub use error::{Error, JobError};
pub use results::{Job, Results};
pub use source::Sender;
pub use stageline_protocol::control::{Census, JobStatus, Outcome, StageStatus, TaskStats};
pub use stageline_protocol::{ErrorKind, ItemError, JobId, Lineage};
pub use stageline_worker::runtime::{Dialler, Ids};
pub use stageline_worker::sdk::{
    Context, Payload, Registry, Sink, Source, Stage, StageError, StageFunction,
};
pub use stream::Stream;

/// What README.md shows compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
