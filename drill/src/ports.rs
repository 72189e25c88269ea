//! Free ports on loopback that stay free while their node is down.
//!
//! A port that the system hands out (port 0) is from the range from which it also takes the near ends of outgoing
//! connections; while a node is down, one of those could get its port, and the node could not come back. So ports are
//! drawn from below that range, tried, and never given twice by this process.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{LazyLock, Mutex};

use rand::Rng;

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

fn range() -> std::ops::Range<u16> {
    let ephemeral = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = ephemeral.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(32_768_u16);
    // A machine whose range begins low has its free ports above it, but nothing says that they are safe.
    if lowest > 12_000 { 10_000..lowest } else { 40_000..65_000 }
}

/// An address nobody listens on: 127.0.0.1 and a port.
///
/// # Errors
/// When there is none.
pub fn free_address() -> std::io::Result<String> {
    let range = range();
    let mut given = GIVEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for _ in 0..1_000 {
        let port = rand::rng().random_range(range.clone());
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(format!("127.0.0.1:{port}"));
        }
    }
    Err(std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, format!("no free port in {range:?}")))
}
