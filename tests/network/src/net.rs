//! The simulated network as the processes see it: how they connect, and what they accept.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, stream};
use stageline::{Dialler, Ids};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::{Connected, TcpConnectInfo};
use turmoil::net::{TcpListener, TcpStream};

/// Connects by the simulated network; a host may be a name.
pub(crate) fn dialler() -> Dialler {
    Dialler::new(|address: String| async move {
        let no_address = || io::Error::new(io::ErrorKind::InvalidInput, address.clone());
        let (host, port) = address.rsplit_once(':').ok_or_else(no_address)?;
        let port: u16 = port.parse().map_err(|_| no_address())?;
        TcpStream::connect((host, port)).await
    })
}

/// The seed's ids, not the system's: they are in the logs that two runs of it must have in common.
pub(crate) fn ids() -> Ids {
    Ids::drawn_by(|| fastrand::u64(..))
}

/// The connections that arrive on a port of this host.
pub(crate) async fn listen(port: u16) -> io::Result<impl Stream<Item = io::Result<Connection>>> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    Ok(stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await;
        Some((accepted.map(|(stream, peer)| Connection { stream, peer }), listener))
    }))
}

/// The address of that port on this host, as others dial it.
pub(crate) fn address(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(turmoil::lookup(host), port)
}

/// A connection that was accepted.
pub(crate) struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.stream.local_addr().ok(), remote_addr: Some(self.peer) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
