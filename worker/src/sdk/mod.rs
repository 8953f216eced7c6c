//! The SDK for stage functions: what a worker program is written with.
//!
//! A program names its stages once, as typed constants ([`Stage`], [`Source`], [`Sink`]) that client
//! and worker share, and puts the functions behind those names into a [`Registry`]. A function takes
//! its input, or a [`Context`] and its input; a fallible one answers with [`StageError`].
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use stageline_worker::sdk::{Registry, Stage, StageError};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Url(String);
//! #[derive(Serialize, Deserialize)]
//! struct Page { url: Url, text: String }
//!
//! const FETCH: Stage<Url, Page> = Stage::named("fetch");
//! const WORDS: Stage<Page, usize> = Stage::named("words");
//!
//! async fn fetch(url: Url) -> Result<Page, StageError> {
//!     let text = std::fs::read_to_string(&url.0)?; // every std error turns into a StageError
//!     Ok(Page { url, text })
//! }
//!
//! let registry = Registry::new()
//!     .try_map(FETCH, fetch)
//!     .slots(128)
//!     .map(WORDS, |page: Page| async move { page.text.split_whitespace().count() });
//! # registry.validate().unwrap();
//! ```
//!
//! The life of a call: the runtime asks the registry for an [`Invoker`] once a task, and invokes it
//! once an item; functions without policies it calls a run at a time instead (`burst`). The payload is decoded ([`codec`]), the function runs under the stage's policies (a
//! timeout for each attempt, retries with backoff), and what it makes is encoded. Whatever goes
//! wrong, a panic included, comes back as a [`Fault`], which the runtime makes an error item of: a
//! stage function can neither end its worker nor lose an item.

mod ahead;
mod blocking;
mod burst;
pub mod codec;
mod context;
mod error;
mod function;
mod handler;
mod invoke;
pub mod json;
mod name;
mod operators;
mod outputs;
mod panic;
mod policy;
mod registry;
mod roots;
#[cfg(test)]
mod tests;
mod type_name;

pub use blocking::BLOCKING_STACK;
pub(crate) use blocking::blocking_calls;
pub(crate) use burst::{Burst, Outcome, Outcomes, Rest};
pub use codec::Payload;
pub use context::{Context, TaskContext};
pub use error::{Fault, StageError};
pub use function::{Emit, StageFunction, Wanted};
pub use handler::{ContextAndInput, Handler, InputOnly};
pub use invoke::{Invoker, Reply, Slot};
pub use name::{Sink, SinkName, Source, SourceName, Stage, StageName};
pub(crate) use panic::{caught, discard, said};
pub use registry::{Registry, RegistryError};
pub use roots::Roots;

/// The largest payload that a function may make, in bytes, unless the registry says otherwise.
pub const DEFAULT_MAX_PAYLOAD: usize = 64 * 1024 * 1024;
/// How many items an async function runs at a time in one process, unless registered otherwise.
pub const DEFAULT_SLOTS: u32 = 64;
