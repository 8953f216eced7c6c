//! How a process reaches others: what lies under its session and its links.
//!
//! In production that is TCP. A program that has another way, such as a tunnel or a simulated network,
//! hands in how to connect; all that is above, HTTP/2 included, stays as it is.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::{Service, service_fn};

use super::resolve;

/// How a process connects to others. TCP by default.
#[derive(Clone, Default)]
pub struct Dialler {
    /// None: TCP.
    connect: Option<Arc<Connect>>,
}

type Connect = dyn Fn(String) -> BoxFuture<'static, io::Result<Connection>> + Send + Sync;
type Connection = Pin<Box<dyn Duplex>>;

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

impl Dialler {
    /// One that connects to `HOST:PORT` by that function. What connects may be dropped before it is
    /// done: each attempt has a limit of some seconds.
    #[must_use]
    pub fn new<F, Fut, C>(connect: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Send + 'static,
    {
        let connect = move |address| -> BoxFuture<'static, io::Result<Connection>> {
            let connecting = connect(address);
            Box::pin(async move { Ok(Box::pin(connecting.await?) as Connection) })
        };
        Self { connect: Some(Arc::new(connect)) }
    }

    /// Connects to where the endpoint leads.
    ///
    /// # Errors
    /// Nobody answers there: its innermost cause names the addresses that were tried.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        match &self.connect {
            None => endpoint.connect_with_connector(tcp(endpoint)).await,
            Some(connect) => endpoint.connect_with_connector(connector(connect.clone())).await,
        }
    }

    /// A channel that connects when it is used, and again whenever the connection is gone.
    pub(super) fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        match &self.connect {
            None => endpoint.connect_with_connector_lazy(tcp(endpoint)),
            Some(connect) => endpoint.connect_with_connector_lazy(connector(connect.clone())),
        }
    }
}

/// TCP as tonic wants it.
fn tcp(
    endpoint: &Endpoint,
) -> impl Service<Uri, Response = TokioIo<TcpStream>, Error = io::Error, Future: Send> + Send + use<>
{
    let limit = endpoint.get_connect_timeout();
    service_fn(move |uri: Uri| {
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        async move { resolve::connect(&address, limit).await.map(TokioIo::new) }
    })
}

/// The function as tonic wants it.
fn connector(
    connect: Arc<Connect>,
) -> impl Service<Uri, Response = TokioIo<Connection>, Error = io::Error, Future: Send> + Send {
    service_fn(move |uri: Uri| {
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        let connecting = connect(address);
        async move { connecting.await.map(TokioIo::new) }
    })
}

impl fmt::Debug for Dialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.connect.is_some() { "Dialler(custom)" } else { "Dialler(TCP)" })
    }
}
