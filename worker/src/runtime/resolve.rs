//! From `HOST:PORT` to a TCP connection.
//!
//! A name may stand for several addresses, of which not all need lead to somebody who listens: each is
//! tried in turn, with its share of the time that there is. `localhost` stands for both loopback
//! addresses, whatever the system's table of hosts says: it often knows only one of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

/// Connects to the first address that answers, within about `limit`.
///
/// # Errors
/// When none does: the addresses, each with what happened. An address that was given as such is not
/// repeated.
pub(super) async fn connect(address: &str, limit: Option<Duration>) -> io::Result<TcpStream> {
    let addresses = addresses(address).await?;
    // Whoever waits for the whole limit is to hear of it all before.
    let limit = limit.map(|limit| limit.mul_f32(0.9) / addresses.len().max(1) as u32);
    let mut failures = Vec::new();
    for tried in &addresses {
        let connecting = TcpStream::connect(tried);
        let connected = match limit {
            None => connecting.await,
            Some(limit) => tokio::time::timeout(limit, connecting)
                .await
                .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))),
        };
        match connected {
            Ok(stream) => {
                let _slower_at_worst = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) if tried.to_string() == address => return Err(error),
            Err(error) => failures.push((*tried, error)),
        }
    }
    let kind = failures.first().map_or(io::ErrorKind::NotFound, |(_, error)| error.kind());
    let told: Vec<String> =
        failures.iter().map(|(tried, error)| format!("{tried}: {error}")).collect();
    match told.is_empty() {
        true => Err(io::Error::new(kind, format!("the name {address:?} has no address"))),
        false => Err(io::Error::new(kind, told.join("; "))),
    }
}

/// The addresses that a `HOST:PORT` stands for, each once.
///
/// # Errors
/// The system knows no such name.
pub(crate) async fn addresses(address: &str) -> io::Result<Vec<SocketAddr>> {
    let loopback =
        address.rsplit_once(':').filter(|(host, _)| host.eq_ignore_ascii_case("localhost"));
    let found = tokio::net::lookup_host(address).await;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut add = |address| {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    };
    match (loopback.and_then(|(_, port)| port.parse().ok()), found) {
        (None, found) => found?.for_each(add),
        (Some(port), found) => {
            found.into_iter().flatten().for_each(&mut add);
            add(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
            add(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port));
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_both_loopback_addresses_and_others_are_what_they_are() {
        let names = addresses("LocalHost:7").await.unwrap();
        for expected in ["127.0.0.1:7", "[::1]:7"] {
            let expected: SocketAddr = expected.parse().unwrap();
            assert_eq!(
                names.iter().filter(|address| **address == expected).count(),
                1,
                "{names:?}"
            );
        }
        assert_eq!(addresses("[::1]:7").await.unwrap(), ["[::1]:7".parse().unwrap()]);
        assert_eq!(addresses("127.0.0.2:7").await.unwrap(), ["127.0.0.2:7".parse().unwrap()]);
    }

    #[tokio::test]
    async fn the_second_address_is_tried_when_the_first_does_not_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let limit = Some(Duration::from_secs(5));
        assert!(connect(&format!("localhost:{port}"), limit).await.is_ok());
        drop(listener);
        let error = connect(&format!("localhost:{port}"), limit).await.unwrap_err().to_string();
        for tried in [format!("127.0.0.1:{port}: "), format!("[::1]:{port}: ")] {
            assert!(error.contains(&tried), "{error}");
        }
        let error = connect(&format!("127.0.0.1:{port}"), limit).await.unwrap_err().to_string();
        assert!(!error.contains("127.0.0.1"), "{error}");
    }
}
