//! The coordinator over gRPC.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use stageline_proto::v1::jobs_server::{Jobs, JobsServer};
use stageline_proto::v1::session_server::{Session, SessionServer};
use stageline_proto::{MAX_CONTROL_MESSAGE, Wire, v1};
use stageline_protocol::JobId;
use stageline_protocol::control::Up;
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::server::CoordinatorHandle;

const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const STREAM_WINDOW: u32 = 16 << 20;
const KEEPALIVE: Duration = Duration::from_secs(5);

/// A port that could not be listened on, or served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", remedy(.source))]
    Listen {
        /// The address that was asked for.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server broke.
    #[error("the server broke: {0}")]
    Serve(#[from] tonic::transport::Error),
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

/// A port that listens for processes and for people's questions.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on `HOST:PORT`; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address is none, or is taken.
    pub async fn bind(address: &str) -> Result<Self, ServeError> {
        let fail = |source| ServeError::Listen { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address })
    }

    /// The address that it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves a coordinator until `stop` is cancelled; open sessions are closed then.
///
/// # Errors
/// When the listener itself breaks; a peer never breaks it.
pub async fn serve(
    listener: Listener,
    coordinator: CoordinatorHandle,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let service = Service { coordinator: coordinator.clone() };
    let incoming = TcpListenerStream::new(listener.listener).map(|stream| {
        stream.inspect(|stream| {
            let _slower_at_worst = stream.set_nodelay(true);
        })
    });
    let stopped = async move {
        stop.cancelled().await;
        coordinator.shutdown();
    };
    Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
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
        .serve_with_incoming_shutdown(incoming, stopped)
        .await?;
    Ok(())
}

#[derive(Clone, Debug)]
struct Service {
    coordinator: CoordinatorHandle,
}

type Downs = Pin<Box<dyn Stream<Item = Result<v1::SessionDown, Status>> + Send>>;

#[tonic::async_trait]
impl Session for Service {
    type SessionStream = Downs;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionUp>>,
    ) -> Result<Response<Downs>, Status> {
        let peer = request.remote_addr().map(|address| address.ip());
        let mut messages = request.into_inner();
        let (up, down) = self.coordinator.open_session(peer);
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                match message.map(Up::decode) {
                    Ok(Ok(message)) => {
                        if up.send(message).await.is_err() {
                            return;
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(?peer, %error, "a process sent what does not decode; its session is closed");
                        return;
                    }
                    Err(status) => {
                        tracing::debug!(?peer, status = status.message(), "session broke");
                        return;
                    }
                }
            }
        });
        let downs = ReceiverStream::new(down).map(|down| Ok(down.encode()));
        Ok(Response::new(Box::pin(downs)))
    }
}

#[tonic::async_trait]
impl Jobs for Service {
    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let jobs = self.coordinator.jobs().await.iter().map(Wire::encode).collect();
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let id = JobId(request.into_inner().job);
        let job = self.coordinator.job(id).await.ok_or_else(|| unknown(id))?;
        Ok(Response::new(v1::GetJobResponse { job: Some(job.encode()) }))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let request = request.into_inner();
        let id = JobId(request.job);
        let job = self.coordinator.cancel(id, request.reason).await.ok_or_else(|| unknown(id))?;
        Ok(Response::new(v1::CancelJobResponse { job: Some(job.encode()) }))
    }

    async fn list_processes(
        &self,
        _: Request<v1::ListProcessesRequest>,
    ) -> Result<Response<v1::ListProcessesResponse>, Status> {
        let processes = self.coordinator.processes().await.iter().map(Wire::encode).collect();
        Ok(Response::new(v1::ListProcessesResponse { processes }))
    }
}

fn unknown(id: JobId) -> Status {
    Status::not_found(format!(
        "no job {id}: `stageline jobs` lists those that run, and the last ones that ended"
    ))
}
