//! Dialling a task in another process, and reading what comes from it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use stageline_proto::v1::link_client::LinkClient;
use stageline_proto::{MAX_MESSAGE, Wire, v1};
use stageline_protocol::task::LinkKey;
use stageline_protocol::{ConnId, Frame};
use tokio::runtime::{self, Handle};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::link::{Inbox, OutboundStream};
use super::network::Dialler;
use super::task::{Event, TaskSender};

/// HTTP/2 windows of the transport. They are not the flow control, credits are: so they are wide,
/// and nothing that was granted ever waits for them.
pub(super) const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
pub(super) const STREAM_WINDOW: u32 = 32 << 20;
/// The largest HTTP/2 frame that this end takes: as large as a batch. Four times the default saves a
/// good part of what a batch costs on the way; much larger ones cost more than they save.
pub(super) const FRAME: u32 = 128 << 10;
/// How often an idle connection is probed, and how long the answer may take.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(5);
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long frames of a stream that this end has given up are let pass. HTTP/2 counts those that come
/// later as errors of the peer, and so many of them end the connection, with all its other links. They
/// come from a peer that was stalled, so the time is beyond what keepalive lets a connection live.
const RESET_MEMORY: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A link whose connections keep failing is worth a warning, each time so many have.
const WARN_EVERY: u64 = 10;
/// How long a connection that was hung up may take to end in good order.
const HANG_UP_GRACE: Duration = Duration::from_secs(2);

/// One transport connection for each address and thread, shared by all links to it while any of them
/// lives.
#[derive(Clone, Debug)]
pub(super) struct Transports {
    dialler: Dialler,
    by_address: Arc<Mutex<ByAddress>>,
}

/// To each address, one from each thread: known by the runtime that it has.
type ByAddress = BTreeMap<String, Vec<(runtime::Id, Channel)>>;

impl Transports {
    pub(super) fn new(dialler: Dialler) -> Self {
        Self { dialler, by_address: Arc::default() }
    }

    fn get(&self, address: &str) -> Result<Channel, String> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = Handle::current().id();
        let mut of_address = by_address.get(address).into_iter().flatten();
        if let Some((_, channel)) = of_address.find(|(of, _)| *of == thread) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| format!("{address:?} is not an address: {e}"))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_frame_size(FRAME)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(false)
            .http2_reset_stream_duration(RESET_MEMORY);
        let channel = self.dialler.connect_lazy(&endpoint);
        by_address.entry(address.to_owned()).or_default().push((thread, channel.clone()));
        Ok(channel)
    }

    /// Forgets the connections to all addresses but these.
    pub(super) fn keep(&self, used: &std::collections::BTreeSet<String>) {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        by_address.retain(|address, _| used.contains(address));
    }
}

/// A connection that is being dialled.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) transports: Transports,
    pub(super) address: String,
    pub(super) key: LinkKey,
    pub(super) conn: ConnId,
    /// What to send; the `Open` is its first frame.
    pub(super) outbound: OutboundStream,
    pub(super) hang_up: CancellationToken,
    pub(super) task: TaskSender,
}

impl Dial {
    /// Dials, and hands what arrives to the task until the connection ends.
    pub(super) async fn run(self) {
        let Self { transports, address, key, conn, outbound, hang_up, task } = self;
        let inbound = async {
            let channel = transports.get(&address)?;
            let mut client = LinkClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE);
            client.link(outbound).await.map_err(|status| status.message().to_owned())
        };
        let end = match hang_up.run_until_cancelled(inbound).await {
            None => return,
            Some(Ok(response)) => read(response.into_inner(), key, conn, &task, &hang_up).await,
            Some(Err(reason)) => Some(format!("could not reach {address}: {reason}")),
        };
        if let Some(reason) = end {
            if conn.number.is_multiple_of(WARN_EVERY) {
                tracing::warn!(peer = %key.peer, attempts = conn.number, "{reason}; trying again");
            }
            tracing::debug!(peer = %key.peer, %conn, %reason, "link down");
        }
        let _gone_already = task.send(Event::Down { key, conn });
    }
}

/// Hands frames to the task until the stream ends, or for a short grace after this end has hung up.
/// Answers why, unless it ended in good order.
pub(super) async fn read<S>(
    stream: S,
    key: LinkKey,
    conn: ConnId,
    task: &TaskSender,
    hang_up: &CancellationToken,
) -> Option<String>
where
    S: Stream<Item = Result<v1::LinkFrame, tonic::Status>> + Send,
{
    let frames = async {
        let inbox = Inbox::new();
        let mut stream = std::pin::pin!(stream);
        while let Some(message) = stream.next().await {
            let frame = match message.map(Frame::decode) {
                Ok(Ok(frame)) => frame,
                Ok(Err(error)) => return Some(format!("a frame does not decode: {error}")),
                Err(status) => return Some(status.message().to_owned()),
            };
            let permit = inbox.room().await;
            if task.send(Event::Frame { key, conn, frame, permit }).is_err() {
                return None;
            }
        }
        None
    };
    let grace = async {
        hang_up.cancelled().await;
        tokio::time::sleep(HANG_UP_GRACE).await;
    };
    tokio::select! {
        end = frames => end,
        () = grace => Some("the peer did not end the connection".to_owned()),
    }
}
