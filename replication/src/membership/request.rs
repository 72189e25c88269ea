//! Whether a request names a node in a way that can stand in a membership.

use calamus_proto::v1::AddRequest;

use crate::node_error::NodeError;

/// The most bytes of a node's name; the server's flag has the same limit.
const MAX_NAME_BYTES: usize = 64;

/// Checks what a request to add a node says of it.
pub(super) fn check(request: &AddRequest) -> Result<(), NodeError> {
    check_name(&request.name).map_err(NodeError::Invalid)?;
    check_address(&request.address).map_err(NodeError::Invalid)?;
    if request.raft_id == 0 {
        return Err(NodeError::Invalid("a raft id is not 0".to_owned()));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(format!(
            "a node name has 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`, and no dot in front; `{}` is not \
             one",
            name.escape_default()
        ));
    }
    Ok(())
}

fn check_address(address: &str) -> Result<(), String> {
    let wrong =
        |why: &str| Err(format!("`{}` is not HOST:PORT: {why}; an example: 127.0.0.1:7001", address.escape_default()));
    let Some((host, port)) = address.rsplit_once(':') else { return wrong("there is no colon") };
    if host.is_empty() || address.len() > super::codec::MAX_TEXT_BYTES {
        return wrong("the host is empty, or too long");
    }
    if host.contains(|c: char| matches!(c, '/' | '@' | '?' | '#') || c.is_whitespace() || c.is_control()) {
        return wrong("the host holds what a host cannot hold");
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return wrong("an IPv6 address goes in [brackets]");
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => wrong("the port is not a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_addresses_that_others_can_use_pass() {
        for good in ["n1", "db-3.eu_west", "A"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", ".n", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["127.0.0.1:7001", "host.example:1", "[::1]:7001"] {
            assert_eq!(check_address(good), Ok(()));
        }
        for bad in ["", "host", ":1", "host:", "host:x", "host:0", "host:70000", "::1:7", "http://host:1", "a@b:1"] {
            assert!(check_address(bad).is_err(), "{bad:?}");
        }
    }
}
