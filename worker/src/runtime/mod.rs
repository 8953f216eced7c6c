//! The task runtime: everything between the pure [`Task`](stageline_protocol::task::Task) and the
//! world.
//!
//! A [`Node`] is the runtime of one process, be it a worker or a client. It holds the session with
//! the coordinator, makes tasks as the coordinator's views say, and reports what they do. Each task
//! is one loop that owns its machine and its links; functions run beside it and answer by message.
//!
//! - `session`: the stream to the coordinator, dialled again whenever it breaks.
//! - `node`: views in, tasks started and stopped, reports out. `handle`, `routes`: how others reach it.
//!   `ids`: what names it and its jobs.
//! - `task`: the loop around one machine. `work`: what a task does with an item; `burst`: with a run.
//!   `source`, `terminal`: where roots come from, and where items go.
//! - `cost`: whether a call is for the task's own thread; `threads`: which threads there are.
//! - `gate`: what is in process, beside each other or one suspect alone.
//! - `link`, `dial`, `accept`: the connections under links, over gRPC or in memory. `network`: what is
//!   under gRPC; `resolve`: from a name to a connection.

mod accept;
mod alarm;
mod burst;
mod census;
mod cost;
mod dial;
mod gate;
mod handle;
mod ids;
mod job;
mod link;
mod network;
mod node;
pub(crate) mod resolve;
mod routes;
mod session;
mod source;
mod task;
mod terminal;
mod threads;
mod work;

pub use accept::{ListenError, Listener, serve_links};
pub use handle::NodeHandle;
pub use ids::Ids;
pub use job::{JobUpdate, LocalJob, LocalStage};
pub use network::Dialler;
pub use node::{Node, NodeConfig, Stopped};
pub use session::{GrpcSession, SessionChannel, SessionError, SessionFuture, SessionOpener};
pub use terminal::{Consumer, Deliveries, Delivery, consumer};
pub use threads::Threads;
