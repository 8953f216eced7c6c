//! The coordinator on a port: a door that lets HTTP/2 through, and the gRPC services behind it.

mod rpc;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use stageline_proto::MAX_CONTROL_MESSAGE;
use stageline_proto::door::Door;
use stageline_proto::v1::jobs_server::JobsServer;
use stageline_proto::v1::session_server::SessionServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use self::rpc::Service;
use crate::server::CoordinatorHandle;

/// How often an idle connection is probed, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most that HTTP/2 allows. Never the adaptive window: it starts small, and a connection with a
/// small window is killed by a few small messages that are not read at once.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// How long connections may take to end when the coordinator stops.
const STOP_GRACE: Duration = Duration::from_millis(300);

/// Why the coordinator does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}{}", remedy(.cause))]
    Bind {
        /// The address that was asked for.
        address: String,
        /// What the system said. Part of the message, so not a source that would be printed again.
        cause: io::Error,
    },
    /// The server broke.
    #[error("the coordinator's server on {address} broke: {reason}")]
    Server {
        /// Where it listened.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// The coordinator stopped by itself.
    #[error("the coordinator stopped: {0}")]
    Stopped(String),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it, or give another address with --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine does not have that address: give one of its own with --listen"
        }
        io::ErrorKind::PermissionDenied => "; give a port above 1023 with --listen",
        io::ErrorKind::InvalidInput => "; give HOST:PORT with --listen",
        _ => "",
    }
}

/// A port that is listened on, and not yet served.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `HOST:PORT`; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address is none, or is taken: names it, and says what to do.
    pub async fn bind(address: &str) -> Result<Self, ServeError> {
        let fail = |cause| ServeError::Bind { address: address.to_owned(), cause };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves a running coordinator until `stop` is cancelled; the coordinator is stopped then.
///
/// # Errors
/// When the server or the coordinator breaks; a peer never breaks them.
pub async fn serve(
    listener: Listener,
    coordinator: CoordinatorHandle,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let Listener { listener, address } = listener;
    let closed = CancellationToken::new();
    let _closes_the_door = closed.clone().drop_guard();
    let (through, connections) = mpsc::channel(64);
    let arrivals = TcpListenerStream::new(listener).take_until(closed.clone().cancelled_owned());
    tokio::spawn(Door::of("coordinator").keep(arrivals, through));
    run(address, ReceiverStream::new(connections), coordinator, stop, closed).await
}

/// As [`serve`], over connections that something else accepts, at that address, and has looked at:
/// each speaks HTTP/2.
///
/// # Errors
/// When the server or the coordinator breaks; a peer never breaks them.
pub async fn serve_on<C>(
    address: SocketAddr,
    connections: impl Stream<Item = io::Result<C>>,
    coordinator: CoordinatorHandle,
    stop: CancellationToken,
) -> Result<(), ServeError>
where
    C: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
{
    run(address, connections, coordinator, stop, CancellationToken::new()).await
}

/// Serves until `stop` is cancelled; cancels `closed` when no more connections are wanted.
async fn run<C>(
    address: SocketAddr,
    connections: impl Stream<Item = io::Result<C>>,
    coordinator: CoordinatorHandle,
    stop: CancellationToken,
    closed: CancellationToken,
) -> Result<(), ServeError>
where
    C: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
{
    tracing::debug!(%address, "coordinator serves");
    let service = Service(coordinator.clone());
    let server = Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .tcp_nodelay(true)
        .add_service(
            SessionServer::new(service.clone())
                .max_decoding_message_size(MAX_CONTROL_MESSAGE)
                .max_encoding_message_size(MAX_CONTROL_MESSAGE),
        )
        .add_service(
            JobsServer::new(service)
                .max_decoding_message_size(MAX_CONTROL_MESSAGE)
                .max_encoding_message_size(MAX_CONTROL_MESSAGE),
        )
        .serve_with_incoming_shutdown(connections, closed.clone().cancelled_owned());
    tokio::pin!(server);
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        why = coordinator.stopped() => why.map_or(Ok(()), |why| Err(ServeError::Stopped(why))),
        ended = &mut server => {
            coordinator.shutdown();
            return ended.map_err(|error| ServeError::Server { address, reason: error.to_string() });
        }
    };
    // Sessions end first: what they were told last is on its way before connections close.
    coordinator.shutdown();
    coordinator.stopped().await;
    closed.cancel();
    // A process that does not hang up is hung up on.
    let _in_time = tokio::time::timeout(STOP_GRACE, server).await;
    outcome
}

#[cfg(test)]
mod tests;
