//! Who leads when, as the nodes say: asked ten times a second, beside everything else.

use std::sync::Arc;
use std::time::Duration;

use calamus_proto::v1::cluster_client::ClusterClient;
use calamus_proto::v1::{Role, StatusRequest};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use crate::scratch::Node;
use crate::timeline::{Seen, Timeline};

/// Between two questions.
const EVERY: Duration = Duration::from_millis(100);
/// Who does not answer within this is silent.
const ANSWER: Duration = Duration::from_millis(250);

/// Whom to ask: names and connections.
#[derive(Clone, Default)]
pub(super) struct Watched(Arc<Mutex<Vec<(String, Channel)>>>);

impl Watched {
    /// From now on, these.
    pub(super) fn set(&self, nodes: &[Node]) {
        let places = nodes.iter().filter(|node| !node.is_retired());
        self.set_places(places.map(|node| (node.name().to_owned(), node.address().to_owned())));
    }

    /// From now on, those at these addresses.
    pub(super) fn set_places(&self, places: impl IntoIterator<Item = (String, String)>) {
        let channel = |(name, address): (String, String)| {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
            Some((name, endpoint.connect_timeout(ANSWER).tcp_nodelay(true).connect_lazy()))
        };
        *self.0.lock() = places.into_iter().filter_map(channel).collect();
    }

    /// Asks until the handle is aborted.
    pub(super) fn run(&self, timeline: Arc<Timeline>) -> JoinHandle<()> {
        let watched = self.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let places = watched.0.lock().clone();
                let asked = places.into_iter().map(|(name, channel)| async { (name, ask(channel).await) });
                for (name, seen) in futures::future::join_all(asked).await {
                    timeline.saw(&name, seen);
                }
            }
        })
    }
}

async fn ask(channel: Channel) -> Seen {
    let mut client = ClusterClient::new(channel);
    let answer = tokio::time::timeout(ANSWER, client.status(StatusRequest { all_nodes: false })).await;
    let status = answer.ok().and_then(Result::ok).and_then(|answer| answer.into_inner().node);
    Seen::of(status.and_then(|status| Role::try_from(status.role).ok()))
}
