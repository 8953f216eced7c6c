//! The gRPC services: sessions, and a look at the jobs.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use stageline_proto::v1::jobs_server::Jobs;
use stageline_proto::v1::list_processes_response::Listed;
use stageline_proto::v1::session_server::Session;
use stageline_proto::{Wire, v1};
use stageline_protocol::JobId;
use stageline_protocol::control::{JobStatus, Up};
use tonic::{Request, Response, Status, Streaming};

use crate::server::{CoordinatorHandle, SessionTx, Stopped};

/// How long a process that has opened a session may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Both services over one coordinator.
#[derive(Clone, Debug)]
pub(super) struct Service(pub(super) CoordinatorHandle);

type DownStream = Pin<Box<dyn Stream<Item = Result<v1::SessionDown, Status>> + Send>>;

#[tonic::async_trait]
impl Session for Service {
    type SessionStream = DownStream;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionUp>>,
    ) -> Result<Response<DownStream>, Status> {
        let peer = request.remote_addr().map(|address| address.ip());
        let (tx, rx) = self.0.open_session(peer);
        tokio::spawn(read(request.into_inner(), tx));
        let down = stream::unfold(rx, |mut rx| async move {
            let message = rx.recv().await?;
            Some((Ok(message.encode()), rx))
        });
        Ok(Response::new(Box::pin(down)))
    }
}

/// Carries what a process says to the coordinator, until the session ends from either side.
async fn read(mut messages: Streaming<v1::SessionUp>, tx: SessionTx) {
    let mut first = true;
    loop {
        let next = async {
            if !first {
                return messages.next().await;
            }
            tokio::time::timeout(HELLO_TIMEOUT, messages.next()).await.unwrap_or_else(|_| {
                tx.refuse(format!("no hello within {HELLO_TIMEOUT:?}"));
                None
            })
        };
        let message = tokio::select! {
            message = next => message,
            () = tx.closed() => return,
        };
        // An unclean end is an end: the process opens a new session if it lives.
        let Some(Ok(message)) = message else { return };
        match Up::decode(message) {
            Ok(up) => {
                if tx.send(up).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tx.refuse(format!("a message of the session does not decode: {error}"));
                return;
            }
        }
        first = false;
    }
}

#[tonic::async_trait]
impl Jobs for Service {
    type ListJobsStream = List<v1::ListJobsResponse>;
    type ListProcessesStream = List<v1::ListProcessesResponse>;

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<List<v1::ListJobsResponse>>, Status> {
        let jobs = self.0.jobs().await.map_err(stopped)?.into_iter();
        Ok(list(jobs.map(|job| v1::ListJobsResponse { job: Some(job.encode()) })))
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let id = JobId(request.into_inner().job);
        let job = known(id, self.0.job(id).await)?;
        Ok(Response::new(v1::GetJobResponse { job: Some(job.encode()) }))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let v1::CancelJobRequest { job, reason } = request.into_inner();
        let id = JobId(job);
        let job = known(id, self.0.cancel(id, reason).await)?;
        Ok(Response::new(v1::CancelJobResponse { job: Some(job.encode()) }))
    }

    async fn list_processes(
        &self,
        _: Request<v1::ListProcessesRequest>,
    ) -> Result<Response<List<v1::ListProcessesResponse>>, Status> {
        let processes = self.0.processes().await.map_err(stopped)?.into_iter();
        let own = Listed::Coordinator(self.0.census().await.map_err(stopped)?.encode());
        let all = [own].into_iter().chain(processes.map(|it| Listed::Process(it.encode())));
        Ok(list(all.map(|listed| v1::ListProcessesResponse { listed: Some(listed) })))
    }
}

/// A list, one message each.
type List<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn list<T: 'static>(messages: impl Iterator<Item = T> + Send + 'static) -> Response<List<T>> {
    Response::new(Box::pin(stream::iter(messages.map(Ok))))
}

fn stopped(_: Stopped) -> Status {
    Status::unavailable("the coordinator is stopping")
}

fn known(id: JobId, job: Result<Option<JobStatus>, Stopped>) -> Result<JobStatus, Status> {
    job.map_err(stopped)?.ok_or_else(|| {
        Status::not_found(format!(
            "job {id} is not known here; `stageline jobs` lists those that are"
        ))
    })
}
