//! The listening socket, taken before anything is written.

use std::io::ErrorKind;
use std::net::{TcpListener, ToSocketAddrs};

use crate::endpoint::Endpoint;
use crate::failure::Failure;

/// A socket that listens, and its addresses as they are kept in `node.meta`.
#[derive(Debug)]
pub struct Listening {
    /// Bound and listening; connections wait until the server takes them.
    pub socket: TcpListener,
    /// HOST:PORT as asked, with the port that was taken where 0 was asked.
    pub listen: String,
    /// Where others reach it.
    pub advertise: String,
}

/// Binds `listen`. Without `advertise`, others are told the same address.
pub fn bind(listen: &Endpoint, advertise: Option<&Endpoint>) -> Result<Listening, Failure> {
    let cannot =
        |why: &dyn std::fmt::Display, next: String| Failure::new(format!("cannot listen on {listen}"), why, next);
    if advertise.is_none() && matches!(listen.host(), "0.0.0.0" | "[::]") {
        return Err(cannot(
            &format!("nobody can reach a node under {}", listen.host()),
            format!("say where the others reach it: --advertise HOST:{}", listen.port()),
        ));
    }
    let addresses: Vec<_> = listen
        .as_str()
        .to_socket_addrs()
        .map_err(|error| cannot(&error, format!("check the host name `{}`", listen.host())))?
        .collect();
    let socket = TcpListener::bind(&addresses[..]).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => cannot(
            &format!("another process has port {}", listen.port()),
            "stop that process, or choose another port with --listen (0 takes a free one)".to_owned(),
        ),
        ErrorKind::AddrNotAvailable => cannot(
            &error,
            "choose an address of this machine with --listen, and --advertise for what others see".to_owned(),
        ),
        ErrorKind::PermissionDenied => cannot(&error, "choose a port of 1024 or above with --listen".to_owned()),
        _ => cannot(&error, "choose another address with --listen".to_owned()),
    })?;
    let port = socket.local_addr().map_err(|error| cannot(&error, String::new()))?.port();
    let listen = format!("{}:{port}", listen.host());
    let advertise = match advertise {
        // Port 0 of an advertised address is the port that was taken.
        Some(other) if other.port() == 0 => format!("{}:{port}", other.host()),
        Some(other) => other.to_string(),
        None => listen.clone(),
    };
    Ok(Listening { socket, listen, advertise })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_becomes_the_port_that_was_taken_and_a_taken_port_is_named() {
        let first = bind(&"127.0.0.1:0".parse().unwrap(), Some(&"localhost:0".parse().unwrap())).unwrap();
        assert!(!first.listen.ends_with(":0"), "{}", first.listen);
        assert_eq!(first.advertise.rsplit_once(':').unwrap().1, first.listen.rsplit_once(':').unwrap().1);
        let error = bind(&first.listen.parse().unwrap(), None).unwrap_err().to_string();
        assert!(error.contains(&first.listen) && error.contains("another process has port"), "{error}");
    }

    #[test]
    fn an_address_that_nobody_can_reach_is_refused() {
        let error = bind(&"0.0.0.0:0".parse().unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("--advertise"), "{error}");
    }
}
