//! Nodes that do not reach each other. Clients still reach all of them: so a leader that is cut off is asked, and must not
//! answer what is not true any more.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;

use super::Stage;
use crate::trouble::Trouble;

/// Longer than the longest election timeout of the default settings.
const CUT: Duration = Duration::from_millis(2_500);
/// How often a flapping connection breaks, and between two breaks.
const FLAPS: u32 = 12;
const FLAP: Duration = Duration::from_millis(120);

/// The leader is cut off from all others.
pub(super) async fn leader(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let name = stage.cluster.name(leader).to_owned();
    let since = stage.fault(format!("{name}, the leader, is cut off"));
    stage.cluster.links().isolate(&name).await?;
    stage.holds_and_writes_go_on().await?;
    stage.for_a_while(CUT / 2).await;
    heal(stage, since).await
}

/// A follower is cut off. When it comes back, the leader stays in office.
pub(super) async fn follower(stage: &mut Stage) -> Result<(), Trouble> {
    let office = stage.office().await?;
    let follower = stage.draw_other(office.0);
    let name = stage.cluster.name(follower).to_owned();
    let since = stage.fault(format!("{name}, a follower, is cut off"));
    stage.cluster.links().isolate(&name).await?;
    stage.holds_and_writes_go_on().await?;
    stage.for_a_while(CUT).await;
    heal(stage, since).await?;
    stage.same_office(office, "a follower that was cut off came back").await
}

/// What the leader sends does not arrive; what is sent to it does. It cannot lead so, and must be replaced.
pub(super) async fn one_way(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let name = stage.cluster.name(leader).to_owned();
    let others: Vec<String> = stage.cluster.others(leader).iter().map(|o| stage.cluster.name(*o).to_owned()).collect();
    let since = stage.fault(format!("nothing that {name}, the leader, sends arrives"));
    for other in &others {
        stage.cluster.links().cut_one_way(&name, other).await?;
    }
    stage.holds_and_writes_go_on().await?;
    stage.for_a_while(CUT / 2).await;
    heal(stage, since).await
}

/// What is sent to the leader does not arrive; what it sends does. It commits nothing, and keeps the others from electing
/// until it falls silent.
pub(super) async fn deaf(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let name = stage.cluster.name(leader).to_owned();
    let names: Vec<String> = stage.cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let since = stage.fault(format!("nothing that is sent to {name}, the leader, arrives"));
    Cut::Deaf(name).make(stage, &names).await?;
    stage.holds_and_writes_go_on().await?;
    heal(stage, since).await
}

/// One connection breaks again and again. Nobody is deposed for that.
pub(super) async fn flap(stage: &mut Stage) -> Result<(), Trouble> {
    let office = stage.office().await?;
    let follower = stage.draw_other(office.0);
    let (from, to) = (stage.cluster.name(office.0).to_owned(), stage.cluster.name(follower).to_owned());
    let since =
        stage.fault(format!("connections between {from}, the leader, and {to} break every {} ms", FLAP.as_millis()));
    for _ in 0..FLAPS {
        stage.cluster.links().proxy(&from, &to).reset().await;
        stage.cluster.links().proxy(&to, &from).reset().await;
        stage.for_a_while(FLAP).await;
    }
    stage.repair("they hold again");
    stage.whole(since).await?;
    stage.same_office(office, "one connection flapped").await
}

/// A cut drawn by chance.
pub(super) async fn random(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let mut names: Vec<String> = stage.cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let leader = names[leader].clone();
    names.shuffle(&mut stage.rng);
    let (one, other) = (names[0].clone(), names[1].clone());
    let cut = match stage.rng.random_range(0..6) {
        0 => Cut::Alone(leader),
        1 => Cut::Alone(one),
        2 => Cut::Both(one, other),
        3 => Cut::OneWay(one, other),
        4 => Cut::Deaf(one),
        _ => Cut::All,
    };
    let since = stage.fault(cut.to_string());
    cut.make(stage, &names).await?;
    let length = stage.rng.random_range(CUT / 4..CUT);
    if cut != Cut::All {
        stage.holds_and_writes_go_on().await?;
    }
    stage.for_a_while(length).await;
    heal(stage, since).await
}

/// Who does not reach whom.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cut {
    /// This node and all others, both ways.
    Alone(String),
    /// These two, both ways.
    Both(String, String),
    /// The first does not reach the second.
    OneWay(String, String),
    /// Nobody reaches this node.
    Deaf(String),
    /// No node reaches another.
    All,
}

impl Cut {
    async fn make(&self, stage: &Stage, names: &[String]) -> std::io::Result<()> {
        let links = stage.cluster.links();
        match self {
            Cut::Alone(name) => links.isolate(name).await,
            Cut::Both(one, other) => links.cut(one, other).await,
            Cut::OneWay(from, to) => links.cut_one_way(from, to).await,
            Cut::Deaf(name) => {
                for other in names.iter().filter(|other| *other != name) {
                    links.cut_one_way(other, name).await?;
                }
                Ok(())
            }
            Cut::All => {
                for name in names {
                    links.isolate(name).await?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Alone(name) => write!(f, "{name} is cut off"),
            Cut::Both(one, other) => write!(f, "{one} and {other} do not reach each other"),
            Cut::OneWay(from, to) => write!(f, "nothing from {from} to {to} arrives"),
            Cut::Deaf(name) => write!(f, "nothing to {name} arrives"),
            Cut::All => f.write_str("no node reaches another"),
        }
    }
}

async fn heal(stage: &mut Stage, since: u64) -> Result<(), Trouble> {
    stage.repair("all nodes reach each other again");
    stage.cluster.heal().await?;
    stage.whole(since).await
}
