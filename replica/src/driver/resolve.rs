//! The addresses of a name.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use tokio::sync::oneshot;

/// The addresses of a host, by name or address. A name is looked up on a thread of its own, since the system's resolver waits; that
/// there is no thread to be had is an error, where the blocking threads of the runtime would panic.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (sender, addresses) = oneshot::channel();
    let name = host.to_owned();
    std::thread::Builder::new()
        .name("resolver".into())
        .spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs();
            // Whoever asked may have given up.
            let _ = sender.send(found.map(Iterator::collect));
        })?;
    addresses
        .await
        .unwrap_or_else(|_| Err(io::Error::other("looking the name up has failed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(host: &str) -> io::Result<Vec<SocketAddr>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(resolve(host, 6379))
    }

    #[test]
    fn names_and_addresses() {
        for address in ["127.0.0.1", "::1"] {
            let expected = SocketAddr::new(address.parse().unwrap(), 6379);
            assert_eq!(resolved(address).unwrap(), [expected]);
        }
        let local = resolved("localhost").unwrap();
        assert!(
            !local.is_empty()
                && local
                    .iter()
                    .all(|a| a.ip().is_loopback() && a.port() == 6379)
        );
        assert!(resolved("no such host").is_err());
    }
}
