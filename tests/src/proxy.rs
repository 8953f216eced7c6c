//! A stretch of network that a test can cut: a TCP proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Forwards connections to an address. Dropping it cuts them.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    to: watch::Sender<String>,
    open: watch::Sender<bool>,
    carried: Arc<watch::Sender<u64>>,
    _carrier: JoinSet<()>,
}

impl Proxy {
    /// A proxy to `HOST:PORT`, which need not listen yet.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("it listens");
        let (to, target) = watch::channel(address.to_owned());
        let (open, is_open) = watch::channel(true);
        let carried = Arc::new(watch::channel(0).0);
        let mut carrier = JoinSet::new();
        carrier.spawn(carry(listener, target, is_open, carried.clone()));
        Self { address: own, to, open, carried, _carrier: carrier }
    }

    /// Forwards new connections to another address.
    pub fn lead_to(&self, address: &str) {
        self.to.send_replace(address.to_owned());
    }

    /// How many connections have been carried so far.
    #[must_use]
    pub fn carried(&self) -> u64 {
        *self.carried.borrow()
    }

    /// Breaks all connections, and those that are dialled until [`Self::mend`].
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Carries connections again.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn carry(
    listener: TcpListener,
    target: watch::Receiver<String>,
    mut is_open: watch::Receiver<bool>,
    carried: Arc<watch::Sender<u64>>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { return };
                if *is_open.borrow() {
                    let target = target.borrow().clone();
                    carried.send_modify(|count| *count += 1);
                    connections.spawn(forward(near, target));
                }
            }
            changed = is_open.changed() => {
                if changed.is_err() {
                    return;
                }
                if !*is_open.borrow_and_update() {
                    connections.shutdown().await;
                }
            }
        }
    }
}

async fn forward(mut near: TcpStream, target: String) {
    if let Ok(mut far) = TcpStream::connect(target).await {
        let _either_end = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    }
}
