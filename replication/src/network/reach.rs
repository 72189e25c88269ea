//! Where another node is reached: the one place that turns a node into an address.
//!
//! It is where the membership says that the node is, unless this node was told another way to it. That is for tests
//! only, which put a relay between two nodes to break, slow or cut off that one way: what the nodes tell each other and
//! the clients stays what each of them advertises. Every connection that this node makes to another by its name goes by
//! here: appends, heartbeats and votes, seedings, forwarded transactions, pages and frames that are fetched, the probes
//! of a failover, and the questions of the server.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Other ways to nodes than where they say that they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach(Arc<BTreeMap<String, String>>);

impl Reach {
    /// Of node names and where this node connects to in place of their advertised addresses, `host:port`.
    #[must_use]
    pub fn new(ways: BTreeMap<String, String>) -> Self {
        Self(Arc::new(ways))
    }

    /// Where this node connects to for the node of this name, which advertises that address.
    #[must_use]
    pub fn address<'a>(&'a self, name: &str, advertised: &'a str) -> &'a str {
        self.0.get(name).map_or(advertised, String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_another_way_is_reached_by_it() {
        let reach = Reach::new(BTreeMap::from([("n2".to_owned(), "relay:1".to_owned())]));
        assert_eq!(reach.address("n2", "n2:7001"), "relay:1");
        assert_eq!(reach.address("n3", "n3:7001"), "n3:7001");
        assert_eq!(Reach::default().address("n2", "n2:7001"), "n2:7001");
    }
}
