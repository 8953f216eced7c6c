//! The door of the port: whoever connects has a short time to begin speaking HTTP/2. What is silent
//! is closed, what speaks something else is told what this port is for; neither reaches the server.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How an HTTP/2 client begins.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long it may take to.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when the system has no room for another connection, or for the rest of a
/// preface.
const PAUSE: Duration = Duration::from_millis(50);
const NOT_HTTP2: &[u8] = b"HTTP/1.1 426 Upgrade Required\r\nconnection: close\r\n\
    upgrade: h2c\r\ncontent-type: text/plain\r\n\r\n\
    This is the port of a Stageline coordinator. It speaks gRPC (HTTP/2): use the stageline \
    command line, or an SDK.\n";

/// Accepts connections, and lets those through that begin as they should.
pub(super) async fn keep(
    listener: TcpListener,
    through: mpsc::Sender<io::Result<TcpStream>>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let through = through.clone();
                tokio::spawn(async move {
                    match tokio::time::timeout(PREFACE_TIMEOUT, begins_well(&stream)).await {
                        Ok(Ok(true)) => {
                            let _nodelay_is_a_wish = stream.set_nodelay(true);
                            let _server_over = through.send(Ok(stream)).await;
                        }
                        Ok(Ok(false)) => {
                            tracing::debug!(%peer, "turned away: not HTTP/2");
                            turn_away(stream).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "connection broke"),
                        Err(_) => tracing::debug!(%peer, "turned away: silent"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether the first bytes, which stay where they are, are HTTP/2's.
pub(super) async fn begins_well(stream: &TcpStream) -> io::Result<bool> {
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

async fn turn_away(mut stream: TcpStream) {
    let told = async {
        stream.write_all(NOT_HTTP2).await?;
        stream.shutdown().await
    };
    let _they_may_not_listen = tokio::time::timeout(PREFACE_TIMEOUT, told).await;
}
