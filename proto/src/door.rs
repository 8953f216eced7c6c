//! The door of a port: whoever connects has a short time to begin speaking HTTP/2. What is silent is closed, what
//! speaks something else is told what this port is for; neither reaches the server. And when the system has no
//! room for another connection, the door waits a little instead of asking again at once.
//!
//! The only thing here that does I/O: coordinator and worker both have such a port, and both depend on this crate.

use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// How an HTTP/2 client begins.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long it may take to, unless the door is told otherwise.
const SILENCE: Duration = Duration::from_secs(5);
/// How long to wait when the system has no room for another connection, or for the rest of a
/// preface.
const PAUSE: Duration = Duration::from_millis(50);

/// The door of one port.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    whose: &'static str,
    silence: Duration,
}

impl Door {
    /// The door of such a process: "coordinator", say, which strangers are told.
    #[must_use]
    pub const fn of(whose: &'static str) -> Self {
        Self { whose, silence: SILENCE }
    }

    /// How long whoever connects may be silent. Default: 5 s.
    #[must_use]
    pub const fn silence(mut self, limit: Duration) -> Self {
        self.silence = limit;
        self
    }

    /// Lets those connections through that begin as they should; ends when no more arrive, or nobody takes them
    /// any more. An error of an arrival is warned of. Call it inside a tokio runtime.
    pub async fn keep(
        self,
        arrivals: impl Stream<Item = io::Result<TcpStream>>,
        through: mpsc::Sender<io::Result<TcpStream>>,
    ) {
        tokio::pin!(arrivals);
        let mut full = false;
        loop {
            let arrived = tokio::select! {
                arrived = arrivals.next() => arrived,
                () = through.closed() => return,
            };
            match arrived {
                None => return,
                Some(Ok(stream)) => {
                    full = false;
                    tokio::spawn(self.admit(stream, through.clone()));
                }
                Some(Err(error)) => {
                    // Once, not twenty times a second.
                    if !std::mem::replace(&mut full, true) {
                        tracing::warn!(
                            "a connection to this {} could not be accepted ({error}): it goes on trying; \
                             where files are too many, raise the limit (ulimit -n)",
                            self.whose
                        );
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn admit(self, stream: TcpStream, through: mpsc::Sender<io::Result<TcpStream>>) {
        let peer = stream.peer_addr().ok();
        match tokio::time::timeout(self.silence, begins_well(&stream)).await {
            Ok(Ok(true)) => {
                let _nodelay_is_a_wish = stream.set_nodelay(true);
                let _server_over = through.send(Ok(stream)).await;
            }
            Ok(Ok(false)) => {
                tracing::debug!(?peer, "turned away: not HTTP/2");
                self.turn_away(stream).await;
            }
            Ok(Err(error)) => tracing::debug!(?peer, %error, "connection broke"),
            Err(_) => tracing::debug!(?peer, "turned away: silent"),
        }
    }

    async fn turn_away(self, mut stream: TcpStream) {
        let told = format!(
            "HTTP/1.1 426 Upgrade Required\r\nconnection: close\r\nupgrade: h2c\r\n\
             content-type: text/plain\r\n\r\nThis is the port of a Stageline {}. It speaks gRPC (HTTP/2): \
             use the stageline command line, or an SDK.\n",
            self.whose
        );
        let told = async {
            stream.write_all(told.as_bytes()).await?;
            stream.shutdown().await
        };
        let _they_may_not_listen = tokio::time::timeout(self.silence, told).await;
    }
}

/// Whether the first bytes, which stay where they are, are HTTP/2's.
async fn begins_well(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut start).await?;
        if seen == 0 || start[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        // What was peeked at is still to be read, so an end after it shows only here.
        if stream.ready(Interest::READABLE).await?.is_read_closed() {
            return Ok(false);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_preface_may_come_in_pieces() {
        let (mut near, far) = pair().await;
        near.write_all(&PREFACE[..7]).await.unwrap();
        let judge = tokio::spawn(async move { begins_well(&far).await });
        near.write_all(&PREFACE[7..]).await.unwrap();
        assert!(judge.await.unwrap().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_system_has_no_room_it_waits_and_goes_on() {
        let (mut near, far) = pair().await;
        near.write_all(PREFACE).await.unwrap();
        let full = |_| Err(io::Error::other("too many open files"));
        let arrivals = stream::iter(0..20).map(full).chain(stream::iter([Ok(far)]));
        let (through, mut connections) = mpsc::channel(1);
        let began = tokio::time::Instant::now();
        Door::of("test").keep(arrivals, through).await;
        assert!(began.elapsed() >= PAUSE * 20, "{:?}", began.elapsed());
        assert!(connections.recv().await.unwrap().is_ok(), "no error reaches the server");
    }
}
