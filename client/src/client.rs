//! The client: where pipelines are submitted.

use std::sync::Arc;
use std::time::Duration;

use stageline_protocol::control::{Census, ProcessKind};
use stageline_protocol::task::Limits;
use stageline_protocol::text::shown;
#[cfg(feature = "embedded")]
use stageline_worker::runtime::SessionOpener;
use stageline_worker::runtime::{
    Dialler, GrpcSession, Ids, Node, NodeConfig, NodeHandle, Stopped, Threads,
};
use stageline_worker::sdk::Registry;
use tokio::sync::watch;

use crate::error::JobError;

/// How long [`Client::connect`] looks for a coordinator.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a job waits for stages that no worker registers.
const WAIT_STAGES: Duration = Duration::from_secs(60);

/// Where pipelines are submitted: a coordinator, or this process itself. Cheap to clone; its jobs
/// keep it alive.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    wait_stages: Duration,
}

/// What a client and its jobs share.
#[derive(Debug)]
pub(crate) struct Shared {
    node: NodeHandle,
    stopped: watch::Receiver<Option<Stopped>>,
    /// In embedded mode: what else runs here.
    #[cfg(feature = "embedded")]
    embedded: Option<crate::embedded::Embedded>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.node.stop_soon();
    }
}

impl Shared {
    pub(crate) const fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// Waits until this process has no coordinator any more, and answers why.
    pub(crate) async fn stopped(&self) -> Stopped {
        let mut stopped = self.stopped.clone();
        let stopped = stopped.wait_for(Option::is_some).await;
        stopped.ok().and_then(|s| s.clone()).unwrap_or(Stopped::Told)
    }
}

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    name: Option<String>,
    connect_timeout: Option<Duration>,
    wait_stages: Duration,
    limits: Limits,
    dialler: Dialler,
    ids: Ids,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            name: None,
            connect_timeout: Some(CONNECT_TIMEOUT),
            wait_stages: WAIT_STAGES,
            limits: Limits::default(),
            dialler: Dialler::default(),
            ids: Ids::default(),
        }
    }
}

impl Client {
    /// A client of the coordinator at `HOST:PORT`, with default settings.
    ///
    /// # Errors
    /// When no coordinator answers within 10 s, or it refuses this process.
    pub async fn connect(address: impl Into<String>) -> Result<Self, JobError> {
        Self::builder().connect(address).await
    }

    /// Everything in this process: the stages of `registry`, a coordinator, links in memory. Call it
    /// inside a tokio runtime: functions run there, and in one of several threads the stages have
    /// threads of their own beside it.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn embedded(registry: Registry) -> Self {
        Self::builder().embedded(registry)
    }

    /// Settings, before connecting.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// What this process runs for its jobs. Call it inside the runtime.
    #[must_use]
    pub fn census(&self) -> Census {
        self.shared.node.census()
    }

    /// Ends the client: jobs that still run are cancelled, and the coordinator is told. Embedded, it waits until
    /// the stages have ended, too: nothing runs in the caller's runtime any more, which may be dropped.
    pub async fn close(self) {
        self.shared.node.stop().await;
        #[cfg(feature = "embedded")]
        if let Some(embedded) = &self.shared.embedded {
            embedded.end().await;
        }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) const fn wait_stages(&self) -> Duration {
        self.wait_stages
    }
}

impl ClientBuilder {
    /// The client's name, as lists of jobs show it. Default: the program's name and process id.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long to look for a coordinator; none: for ever. Default: 10 s.
    #[must_use]
    pub const fn connect_timeout(mut self, limit: Option<Duration>) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long a job waits for stages that no worker registers. Default: 60 s; embedded: not at all.
    #[must_use]
    pub const fn wait_stages(mut self, limit: Duration) -> Self {
        self.wait_stages = limit;
        self
    }

    /// Sizes and times of its tasks.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How to reach the coordinator and the workers. Default: TCP.
    #[must_use]
    pub fn dialler(mut self, dialler: Dialler) -> Self {
        self.dialler = dialler;
        self
    }

    /// Where its ids, and those of its jobs, come from, for simulations. Default: the operating system.
    #[must_use]
    pub fn ids(mut self, ids: Ids) -> Self {
        self.ids = ids;
        self
    }

    /// Connects to the coordinator at `HOST:PORT`.
    ///
    /// # Errors
    /// When no coordinator answers within the connect timeout, or it refuses this process.
    pub async fn connect(self, address: impl Into<String>) -> Result<Client, JobError> {
        let opener = Arc::new(GrpcSession::new(address).over(self.dialler.clone()));
        let config = self.config();
        let (node, handle) = Node::new(config, opener);
        let client = self.start(
            node,
            handle,
            self.wait_stages,
            #[cfg(feature = "embedded")]
            None,
        );
        tokio::select! {
            welcome = client.shared.node.welcomed() => match welcome {
                Some(_) => Ok(client),
                None => Err(client.shared.stopped().await.into()),
            },
            stopped = client.shared.stopped() => Err(stopped.into()),
        }
    }

    /// Everything in this process. Call it inside a tokio runtime.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn embedded(self, registry: Registry) -> Client {
        let embedded = crate::embedded::Embedded::start(registry, self.limits, self.ids.clone());
        let opener: Arc<dyn SessionOpener> = embedded.client_opener();
        let (node, handle) = Node::beside(embedded.worker(), self.config(), opener);
        self.start(node, handle, Duration::ZERO, Some(embedded))
    }

    fn config(&self) -> NodeConfig {
        NodeConfig {
            kind: ProcessKind::Client,
            name: self.name.clone().unwrap_or_else(default_name),
            address: None,
            registry: Arc::new(Registry::new()),
            limits: self.limits,
            dialler: self.dialler.clone(),
            threads: Threads::callers(),
            give_up: self.connect_timeout,
            ids: self.ids.clone(),
        }
    }

    fn start(
        &self,
        node: Node,
        handle: NodeHandle,
        wait_stages: Duration,
        #[cfg(feature = "embedded")] embedded: Option<crate::embedded::Embedded>,
    ) -> Client {
        let (stops, stopped) = watch::channel(None);
        tokio::spawn(async move {
            let stopped = node.run().await;
            stops.send_replace(Some(stopped));
        });
        let shared = Shared {
            node: handle,
            stopped,
            #[cfg(feature = "embedded")]
            embedded,
        };
        Client { shared: Arc::new(shared), wait_stages }
    }
}

fn default_name() -> String {
    let program = std::env::args().next().unwrap_or_default();
    let program = program.rsplit(['/', '\\']).next().unwrap_or("client").to_owned();
    format!("{}-{}", shown(&program), std::process::id())
}
