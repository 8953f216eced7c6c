//! Where the links of other processes arrive.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use stageline_proto::door::Door;
use stageline_proto::v1::link_server::{Link, LinkServer};
use stageline_proto::{MAX_MESSAGE, Wire, v1};
use stageline_protocol::Frame;
use stageline_protocol::frame::{Close, CloseReason, Open, Role};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::dial::{self, CONNECTION_WINDOW, FRAME, KEEPALIVE, KEEPALIVE_TIMEOUT, STREAM_WINDOW};
use super::handle::NodeHandle;
use super::link::OutboundStream;
use super::task::{Event, Incoming};

/// How long a peer that has connected may take to say which link it wants.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an `Open` waits for a task that this process has not been told of yet.
const TASK_TIMEOUT: Duration = Duration::from_secs(2);

/// A port that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}{}", remedy(.cause))]
pub struct ListenError {
    /// The address that was asked for.
    pub address: String,
    /// What the system said. Part of the message, so not a source that would be printed again.
    pub cause: std::io::Error,
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it, or give another address with --listen"
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "; this machine does not have that address: give one of its own with --listen"
        }
        _ => "",
    }
}

/// A port that listens for links.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    door: Door,
}

impl Listener {
    /// Listens on `HOST:PORT`; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address is none, or is taken.
    pub async fn bind(address: &str) -> Result<Self, ListenError> {
        let fail = |cause| ListenError { address: address.to_owned(), cause };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address, door: Door::of("worker") })
    }

    /// The address that it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long whoever connects may be silent. Default: 5 s.
    #[must_use]
    pub const fn silence(mut self, limit: Duration) -> Self {
        self.door = self.door.silence(limit);
        self
    }

    /// The connections as they come through the [door](Door), which is kept in the runtime that polls them.
    pub fn connections(self) -> impl Stream<Item = io::Result<TcpStream>> + Send + 'static {
        let Self { listener, door, .. } = self;
        stream::once(async move {
            let (through, connections) = mpsc::channel(64);
            tokio::spawn(door.keep(TcpListenerStream::new(listener), through));
            ReceiverStream::new(connections)
        })
        .flatten()
    }
}

/// Serves the links of other processes, over connections of any kind, until `stop` is cancelled.
///
/// # Errors
/// When the listener itself breaks; a peer never breaks it.
pub async fn serve_links<C>(
    connections: impl Stream<Item = io::Result<C>>,
    node: NodeHandle,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
{
    let service = LinkServer::new(Links { node })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_frame_size(FRAME)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(service)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await
}

#[derive(Clone, Debug)]
struct Links {
    node: NodeHandle,
}

type FrameStream = Pin<Box<dyn Stream<Item = Result<v1::LinkFrame, Status>> + Send>>;

#[tonic::async_trait]
impl Link for Links {
    type LinkStream = FrameStream;

    async fn link(
        &self,
        request: Request<Streaming<v1::LinkFrame>>,
    ) -> Result<Response<FrameStream>, Status> {
        let mut frames = request.into_inner();
        let open = first_frame(&mut frames).await?;
        let own = match open.role {
            Role::Sender => open.link.to,
            Role::Receiver => open.link.from,
        };
        let Some(task) = self.node.routes().wait(open.link.job, own, TASK_TIMEOUT).await else {
            let message = format!("task {own} of job {} is not here", open.link.job);
            return Ok(refuse(Close { reason: CloseReason::NoSuchTask, message }));
        };
        let (answer, answered) = oneshot::channel();
        let event = Event::Incoming(Box::new(open), Incoming::Grpc(answer));
        let accepted = match (task.send(event), answered.await) {
            (Ok(()), Ok(accepted)) => accepted,
            _ => {
                let message = format!("task {own} is over");
                Err(Close { reason: CloseReason::NoSuchTask, message })
            }
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(close) => return Ok(refuse(close)),
        };
        let outbound = accepted.outbound;
        let (key, conn, task) = (accepted.key, accepted.conn, accepted.task);
        let hang_up = accepted.hang_up;
        tokio::spawn(async move {
            if let Some(reason) = dial::read(frames, key, conn, &task, &hang_up).await {
                tracing::debug!(peer = %key.peer, %conn, %reason, "link down");
            }
            let _gone_already = task.send(Event::Down { key, conn });
        });
        Ok(Response::new(answer_stream(outbound)))
    }
}

async fn first_frame(frames: &mut Streaming<v1::LinkFrame>) -> Result<Open, Status> {
    let first = tokio::time::timeout(OPEN_TIMEOUT, frames.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Open within 5 s"))??;
    match first.map(Frame::decode) {
        Some(Ok(Frame::Open(open))) => Ok(open),
        Some(Ok(_)) => Err(Status::invalid_argument("the first frame of a link is its Open")),
        Some(Err(error)) => Err(Status::invalid_argument(error.to_string())),
        None => Err(Status::invalid_argument("the link ended before its Open")),
    }
}

fn refuse(close: Close) -> Response<FrameStream> {
    let frame = Frame::Close(close).encode();
    Response::new(Box::pin(stream::once(async move { Ok(frame) })))
}

fn answer_stream(outbound: OutboundStream) -> FrameStream {
    Box::pin(outbound.map(Ok))
}

#[cfg(test)]
mod tests {
    use stageline_proto::door::PREFACE;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn silent_connections_are_closed_and_keep_nobody_out() {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let listener = listener.silence(Duration::from_millis(50));
        let address = listener.address();
        let connections = listener.connections();
        tokio::pin!(connections);
        let strangers = async {
            let mut silent = Vec::new();
            for _ in 0..20 {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            for mut stranger in silent {
                assert_eq!(stranger.read(&mut [0]).await.unwrap(), 0, "it is closed");
            }
            let mut peer = TcpStream::connect(address).await.unwrap();
            peer.write_all(PREFACE).await.unwrap();
            peer
        };
        let both = async { tokio::join!(strangers, connections.next()) };
        let (peer, connection) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        let from = connection.unwrap().unwrap().peer_addr().unwrap();
        assert_eq!(from, peer.local_addr().unwrap(), "none of the silent ones");
    }
}
