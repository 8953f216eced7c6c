//! A worker process: a registry, a port for links, a session with the coordinator.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use stageline_protocol::control::ProcessKind;
use stageline_protocol::task::Limits;
use stageline_protocol::text::shown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::Connected;

use crate::runtime::resolve::addresses;
use crate::runtime::{
    Dialler, GrpcSession, Ids, ListenError, Listener, Node, NodeConfig, NodeHandle, Stopped,
    Threads, serve_links,
};
use crate::sdk::{Registry, RegistryError};

/// A worker: offers its registry to a coordinator.
///
/// ```no_run
/// # use stageline_worker::{Worker, sdk::Registry};
/// # async fn example(registry: Registry) -> Result<(), Box<dyn std::error::Error>> {
/// let worker = Worker::new(registry, "coordinator:7400").name("worker-1").start().await?;
/// tokio::signal::ctrl_c().await?;
/// worker.leave(std::time::Duration::from_secs(25)).await;
/// worker.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Worker {
    registry: Registry,
    coordinator: String,
    name: Option<String>,
    listen: Option<String>,
    advertise: Option<String>,
    connect_timeout: Option<Duration>,
    limits: Limits,
    dialler: Dialler,
    ids: Ids,
}

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its registry is wrong.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It cannot listen for links.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system gives it no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl Worker {
    /// A worker for the coordinator at `HOST:PORT`.
    #[must_use]
    pub fn new(registry: Registry, coordinator: impl Into<String>) -> Self {
        Self {
            registry,
            coordinator: coordinator.into(),
            name: None,
            listen: None,
            advertise: None,
            connect_timeout: None,
            limits: Limits::default(),
            dialler: Dialler::default(),
            ids: Ids::default(),
        }
    }

    /// Its name, which people see and a restarted worker keeps. Default: host name and process id.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// `HOST:PORT` to listen on for links. Default: a free port of the address from which this
    /// machine reaches the coordinator.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// `HOST:PORT` where others reach this worker, if that is not where it listens.
    #[must_use]
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = Some(address.into());
        self
    }

    /// How long to look for the coordinator at first. Default: for ever.
    #[must_use]
    pub const fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = Some(limit);
        self
    }

    /// Sizes and times of its tasks.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How it reaches the coordinator and other workers. Default: TCP.
    #[must_use]
    pub fn dialler(mut self, dialler: Dialler) -> Self {
        self.dialler = dialler;
        self
    }

    /// Where its ids come from, for simulations. Default: the operating system.
    #[must_use]
    pub fn ids(mut self, ids: Ids) -> Self {
        self.ids = ids;
        self
    }

    /// Listens, and starts. Call it inside a tokio runtime: the functions run there; the links, and the
    /// calls that are done at once, on threads of the worker's own, one for each task up to the number
    /// of cores.
    ///
    /// # Errors
    /// When the registry is wrong, or the port cannot be listened on. A coordinator that is not there
    /// is no error: it is looked for.
    pub async fn start(self) -> Result<RunningWorker, StartError> {
        self.registry.validate()?;
        let listen = match &self.listen {
            Some(address) => address.clone(),
            None => SocketAddr::new(local_address_towards(&self.coordinator).await, 0).to_string(),
        };
        let threads = Threads::own().map_err(StartError::Thread)?;
        let bind = async move { Listener::bind(&listen).await };
        let listener = on(threads.links().clone(), bind)
            .await
            .map_err(|error| StartError::Thread(error.into()))??;
        self.start_with(threads, listener.address(), listener.connections())
    }

    /// Starts with connections that something else accepts, at that address; all of it runs in the
    /// caller's runtime. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When the registry is wrong.
    pub fn start_on<C>(
        self,
        address: SocketAddr,
        connections: impl Stream<Item = io::Result<C>> + Send + 'static,
    ) -> Result<RunningWorker, StartError>
    where
        C: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
    {
        self.start_with(Threads::callers(), address, connections)
    }

    fn start_with<C>(
        self,
        threads: Threads,
        address: SocketAddr,
        connections: impl Stream<Item = io::Result<C>> + Send + 'static,
    ) -> Result<RunningWorker, StartError>
    where
        C: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static,
    {
        self.registry.validate()?;
        let advertised = self.advertise.unwrap_or_else(|| match address.ip().is_unspecified() {
            // The coordinator fills in where the session comes from.
            true => format!(":{}", address.port()),
            false => address.to_string(),
        });
        let name = self.name.unwrap_or_else(default_name);
        let config = NodeConfig {
            kind: ProcessKind::Worker,
            name: name.clone(),
            address: Some(advertised),
            registry: Arc::new(self.registry),
            limits: self.limits,
            dialler: self.dialler.clone(),
            threads: threads.clone(),
            give_up: self.connect_timeout,
            ids: self.ids,
        };
        let session = GrpcSession::new(self.coordinator).over(self.dialler);
        let (node, handle) = Node::new(config, Arc::new(session));
        let stop = CancellationToken::new();
        let links = serve_links(connections, handle.clone(), stop.clone());
        let links = tokio::spawn(on(threads.links().clone(), links));
        let node = tokio::spawn(on(threads.session().clone(), node.run()));
        Ok(RunningWorker { name, address, handle, stop, links, node })
    }
}

/// A worker that runs.
#[derive(Debug)]
pub struct RunningWorker {
    name: String,
    address: SocketAddr,
    handle: NodeHandle,
    stop: CancellationToken,
    links: JoinHandle<Result<Result<(), tonic::transport::Error>, JoinError>>,
    node: JoinHandle<Result<Stopped, JoinError>>,
}

impl RunningWorker {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens for links.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its runtime.
    #[must_use]
    pub const fn node(&self) -> &NodeHandle {
        &self.handle
    }

    /// Waits until it stops by itself: the coordinator refuses it, or it gives up looking for one.
    /// Cancel safe.
    pub async fn stopped(&mut self) -> Stopped {
        (&mut self.node).await.and_then(|stopped| stopped).unwrap_or(Stopped::Told)
    }

    /// Leaves in good order: takes nothing more, gives back what has not started, and finishes the
    /// rest, for as long as `grace` at the most; what is left then runs again elsewhere. The
    /// coordinator is told; one that is away keeps nothing waiting for longer. Call
    /// [`stop`](Self::stop) behind it, or instead of waiting for it: dropping this future does not
    /// make the worker stay.
    pub async fn leave(&self, grace: Duration) {
        self.handle.leave(grace).await;
    }

    /// Stops it: its tasks end, the coordinator is told, and what was not acked runs elsewhere.
    pub async fn stop(self) {
        self.handle.stop().await;
        self.stop.cancel();
        // Links of peers end when their tasks do; the server need not wait for all of them.
        let _over = tokio::time::timeout(Duration::from_millis(300), self.links).await;
    }
}

/// Runs something on a thread of the worker's own, for as long as it is wanted: until the caller's runtime
/// ends, at the most.
async fn on<T: Send + 'static>(
    thread: Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinError> {
    AbortOnDropHandle::new(thread.spawn(future)).await
}

/// The address of this machine from which it would reach the coordinator: nothing is sent for that.
async fn local_address_towards(coordinator: &str) -> IpAddr {
    for address in addresses(coordinator).await.unwrap_or_default() {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let found = async {
            let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
            socket.connect(address).await?;
            socket.local_addr()
        };
        if let Ok(found) = found.await {
            return found.ip();
        }
    }
    Ipv4Addr::LOCALHOST.into()
}

fn default_name() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let host = host.or_else(|| {
        std::fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned())
    });
    format!("{}-{}", shown(host.as_deref().unwrap_or("worker")), std::process::id())
}
