//! A network of pipes in memory: what dials an address gets one end of a pipe, what listens there the
//! other.
//!
//! Nothing of it asks the kernel, so a runtime with paused time knows when everybody waits for the clock,
//! and what happens in which order does not depend on the machine.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, stream};
use stageline::Dialler;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// How much a pipe holds in each direction, in bytes.
const ROOM: usize = 256 << 10;

/// The network. Its clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipes {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<DuplexStream>>>>,
}

impl Pipes {
    /// The connections that arrive at an address, from now on.
    pub(crate) fn listen(
        &self,
        address: SocketAddr,
    ) -> impl Stream<Item = io::Result<DuplexStream>> + Send + use<> {
        let (dialled, arriving) = mpsc::unbounded_channel();
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.insert(address.to_string(), dialled);
        stream::unfold(arriving, |mut arriving| async move {
            let pipe = arriving.recv().await?;
            Some((Ok(pipe), arriving))
        })
    }

    /// How processes connect by this network.
    pub(crate) fn dialler(&self) -> Dialler {
        let pipes = self.clone();
        Dialler::new(move |address: String| {
            let dialled = pipes.dial(&address);
            async move { dialled }
        })
    }

    fn dial(&self, address: &str) -> io::Result<DuplexStream> {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, address.to_owned());
        let (near, far) = tokio::io::duplex(ROOM);
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = listeners.get(address).ok_or_else(refused)?;
        listener.send(far).map_err(|_| refused())?;
        Ok(near)
    }
}
