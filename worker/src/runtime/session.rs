//! The session with the coordinator: one stream each way, dialled again whenever it breaks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use stageline_proto::v1::session_client::SessionClient;
use stageline_proto::{MAX_CONTROL_MESSAGE, Wire, v1};
use stageline_protocol::control::{Down, Up};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Streaming};

use super::dial::{KEEPALIVE, KEEPALIVE_TIMEOUT};
use super::handle::NodeEvent;
use super::network::Dialler;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// An open session: what goes up, and what comes down. Either side ends it by dropping its end.
#[derive(Debug)]
pub struct SessionChannel {
    /// To the coordinator.
    pub up: mpsc::UnboundedSender<Up>,
    /// From the coordinator; it ends when the session does.
    pub down: mpsc::UnboundedReceiver<Down>,
}

/// Why a session could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no coordinator at {address}: {reason}")]
pub struct SessionError {
    /// Where it was looked for.
    pub address: String,
    /// What happened.
    pub reason: String,
}

/// A session being opened.
pub type SessionFuture = BoxFuture<'static, Result<SessionChannel, SessionError>>;

/// How a process reaches its coordinator.
pub trait SessionOpener: Send + Sync + 'static {
    /// Opens a session; called again whenever the last one has broken.
    fn open(&self) -> SessionFuture;

    /// Where the coordinator is, for people.
    fn address(&self) -> &str {
        "this process"
    }
}

/// Sessions over gRPC.
#[derive(Clone, Debug)]
pub struct GrpcSession {
    address: String,
    dialler: Dialler,
}

impl GrpcSession {
    /// To the coordinator at `HOST:PORT`.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), dialler: Dialler::default() }
    }

    /// Reached that way. Default: TCP.
    #[must_use]
    pub fn over(mut self, dialler: Dialler) -> Self {
        self.dialler = dialler;
        self
    }
}

impl SessionOpener for GrpcSession {
    fn address(&self) -> &str {
        &self.address
    }

    fn open(&self) -> SessionFuture {
        let Self { address, dialler } = self.clone();
        Box::pin(async move {
            let fail = |reason: String| SessionError { address: address.clone(), reason };
            let endpoint = Endpoint::from_shared(format!("http://{address}"))
                .map_err(|e| fail(format!("that is not HOST:PORT ({e})")))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEPALIVE)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                .keep_alive_while_idle(true);
            let channel = dialler.connect(&endpoint).await.map_err(|e| fail(root_cause(&e)))?;
            let (up, outbox) = mpsc::unbounded_channel::<Up>();
            let outbound = UnboundedReceiverStream::new(outbox).map(|up| up.encode());
            let response = SessionClient::new(channel)
                .max_decoding_message_size(MAX_CONTROL_MESSAGE)
                .max_encoding_message_size(MAX_CONTROL_MESSAGE)
                .session(outbound)
                .await
                .map_err(|status| {
                    fail(format!("it answers, but not as one: {}", status.message()))
                })?;
            let (inbox, down) = mpsc::unbounded_channel();
            tokio::spawn(read(response.into_inner(), inbox, address));
            Ok(SessionChannel { up, down })
        })
    }
}

/// Carries what the coordinator says to its node, until the session ends from either side. Where it was not
/// the connection that broke, why is said: what breaks it may do so again each time. (That the coordinator
/// is lost, the node says.)
async fn read(
    mut messages: Streaming<v1::SessionDown>,
    inbox: mpsc::UnboundedSender<Down>,
    address: String,
) {
    loop {
        let message = match messages.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(status) => {
                let (code, why) = (status.code(), status.message());
                return match code {
                    Code::Unknown | Code::Unavailable | Code::Cancelled => {
                        tracing::debug!(?code, "the connection to {address} broke: {why}");
                    }
                    _ => tracing::warn!(
                        ?code,
                        "the session with the coordinator at {address} broke: {why}; it is dialled again"
                    ),
                };
            }
        };
        match Down::decode(message) {
            Ok(down) => {
                if inbox.send(down).is_err() {
                    return;
                }
            }
            Err(error) => {
                return tracing::warn!(%error, "the coordinator sent what does not decode");
            }
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// What the keeper of a session tells its node.
#[derive(Debug)]
pub(super) enum SessionEvent {
    Opened(mpsc::UnboundedSender<Up>),
    Message(Down),
    Closed,
    Failed(SessionError),
}

/// Keeps a session open for as long as the node lives.
pub(super) async fn keep(opener: Arc<dyn SessionOpener>, node: mpsc::UnboundedSender<NodeEvent>) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let event = match opener.open().await {
            Ok(SessionChannel { up, mut down }) => {
                if node.send(NodeEvent::Session(SessionEvent::Opened(up))).is_err() {
                    return;
                }
                let opened = Instant::now();
                while let Some(message) = down.recv().await {
                    if node.send(NodeEvent::Session(SessionEvent::Message(message))).is_err() {
                        return;
                    }
                }
                // One that lasted was no failure; one that is given up at once is, however it ends.
                if opened.elapsed() > LAST_BACKOFF {
                    backoff = FIRST_BACKOFF;
                }
                SessionEvent::Closed
            }
            Err(error) => SessionEvent::Failed(error),
        };
        if node.send(NodeEvent::Session(event)).is_err() {
            return;
        }
        tokio::time::sleep(backoff.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        backoff = (backoff * 2).min(LAST_BACKOFF);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Mutex;

    use futures_util::stream::{self, Stream};
    use stageline_proto::v1::session_server::{Session, SessionServer};
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status};
    use tracing::field::{Field, Visit};
    use tracing::span;

    use super::*;

    /// A coordinator that says one thing.
    struct Says(Result<Down, Status>);

    type Said = Pin<Box<dyn Stream<Item = Result<v1::SessionDown, Status>> + Send>>;

    #[tonic::async_trait]
    impl Session for Says {
        type SessionStream = Said;

        async fn session(
            &self,
            _: Request<Streaming<v1::SessionUp>>,
        ) -> Result<Response<Said>, Status> {
            let said = self.0.clone().map(|down| down.encode());
            Ok(Response::new(Box::pin(stream::iter([said]))))
        }
    }

    /// Notes warnings, with their fields.
    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<String>>);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            struct Fields<'a>(&'a mut String);
            impl Visit for Fields<'_> {
                fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                    self.0.push_str(&format!("{field}={value:?} "));
                }
            }
            event.record(&mut Fields(&mut self.0.lock().unwrap()));
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    /// What is warned of when a coordinator says that.
    async fn warned(says: Result<Down, Status>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder()
            .add_service(SessionServer::new(Says(says)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let _server = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(server));
        let warnings = Warnings::default();
        let _noted = tracing::subscriber::set_default(warnings.clone());
        let mut session = GrpcSession::new(address.clone()).open().await.unwrap();
        while session.down.recv().await.is_some() {}
        let said = warnings.0.lock().unwrap().clone();
        said.replace(&address, "ADDRESS")
    }

    #[tokio::test]
    async fn what_breaks_a_session_is_told() {
        let large = warned(Ok(Down::Refused("x".repeat(MAX_CONTROL_MESSAGE + 1)))).await;
        for part in ["OutOfRange", "ADDRESS", "too large", "dialled again"] {
            assert!(large.contains(part), "{large:?} lacks {part:?}");
        }
        let refused = warned(Err(Status::resource_exhausted("no more of these"))).await;
        assert!(
            refused.contains("ResourceExhausted") && refused.contains("no more of"),
            "{refused:?}"
        );
        let away = warned(Err(Status::unavailable("back in a minute"))).await;
        assert_eq!(away, "", "that the coordinator is lost is said once, by the node");
    }
}
