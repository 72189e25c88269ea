//! An address as an operator writes it.

use std::str::FromStr;

/// HOST:PORT, checked for its form only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(String);

impl Endpoint {
    /// HOST:PORT.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the port; the brackets of an IPv6 address are kept.
    pub fn host(&self) -> &str {
        self.0.rsplit_once(':').expect("checked when parsed").0
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.rsplit_once(':').expect("checked when parsed").1.parse().expect("checked when parsed")
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        let wrong = |why: &str| Err(format!("`{text}` is not HOST:PORT: {why}; an example: 127.0.0.1:7001"));
        let Some((host, port)) = text.rsplit_once(':') else { return wrong("there is no colon") };
        if host.is_empty() {
            return wrong("the host is empty");
        }
        if host.contains(|c: char| c == '/' || c.is_whitespace()) {
            return wrong("the host holds a slash or white space");
        }
        if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
            return wrong("an IPv6 address goes in [brackets]");
        }
        match port.parse::<u16>() {
            Ok(_) => Ok(Endpoint(text.to_owned())),
            Err(_) => wrong("the port is not a number from 0 to 65535"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_for_their_form() {
        for good in ["127.0.0.1:7001", "db1.example:1", "[::1]:7001", "localhost:0"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().as_str(), good);
        }
        for bad in ["", "7001", ":7001", "a:b", "a:70000", "http://a:1", "::1:7001", "a b:1"] {
            assert!(bad.parse::<Endpoint>().unwrap_err().contains("HOST:PORT"), "{bad}");
        }
        let e: Endpoint = "[::1]:7001".parse().unwrap();
        assert_eq!((e.host(), e.port()), ("[::1]", 7001));
    }
}
