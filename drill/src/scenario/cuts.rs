//! Nodes that do not reach each other. Clients still reach all of them: so a leader that is cut off is asked, and must not
//! answer what is not true any more.

use std::time::Duration;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

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
    stage.writes_go_on(since).await?;
    stage.for_a_while(CUT / 2).await;
    heal(stage, since).await
}

/// A follower is cut off. When it comes back, the leader stays in office.
pub(super) async fn follower(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let follower = stage.draw_other(leader);
    let name = stage.cluster.name(follower).to_owned();
    let term = stage.term_of(leader).await;
    let since = stage.fault(format!("{name}, a follower, is cut off"));
    stage.cluster.links().isolate(&name).await?;
    stage.writes_go_on(since).await?;
    stage.for_a_while(CUT).await;
    heal(stage, since).await?;
    stage.same_term(leader, term, "a follower that was cut off came back").await;
    Ok(())
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
    stage.writes_go_on(since).await?;
    stage.for_a_while(CUT / 2).await;
    heal(stage, since).await
}

/// One connection breaks again and again. Nobody is deposed for that.
pub(super) async fn flap(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let follower = stage.draw_other(leader);
    let term = stage.term_of(leader).await;
    let (from, to) = (stage.cluster.name(leader).to_owned(), stage.cluster.name(follower).to_owned());
    let since =
        stage.fault(format!("connections between {from}, the leader, and {to} break every {} ms", FLAP.as_millis()));
    for _ in 0..FLAPS {
        stage.cluster.links().proxy(&from, &to).reset().await;
        stage.cluster.links().proxy(&to, &from).reset().await;
        stage.for_a_while(FLAP).await;
    }
    stage.repair("they hold again");
    stage.whole(since).await?;
    stage.same_term(leader, term, "one connection flapped").await;
    Ok(())
}

/// A cut drawn by chance.
pub(super) async fn random(stage: &mut Stage) -> Result<(), Trouble> {
    let leader = stage.cluster.leader().await?;
    let names: Vec<String> = stage.cluster.nodes().iter().map(|node| node.name().to_owned()).collect();
    let mut shuffled = names.clone();
    shuffled.shuffle(&mut stage.rng);
    let links = |stage: &Stage, what: String| stage.fault(what);
    let (since, quorum_left) = match stage.rng.random_range(0..6) {
        0 => {
            let since = links(stage, format!("{}, the leader, is cut off", names[leader]));
            stage.cluster.links().isolate(&names[leader]).await?;
            (since, true)
        }
        1 => {
            let alone = names.choose(&mut stage.rng).expect("there are nodes").clone();
            let since = links(stage, format!("{alone} is cut off"));
            stage.cluster.links().isolate(&alone).await?;
            (since, true)
        }
        2 => {
            let since = links(stage, format!("{} and {} do not reach each other", shuffled[0], shuffled[1]));
            stage.cluster.links().cut(&shuffled[0], &shuffled[1]).await?;
            (since, true)
        }
        3 => {
            let since = links(stage, format!("nothing from {} to {} arrives", shuffled[0], shuffled[1]));
            stage.cluster.links().cut_one_way(&shuffled[0], &shuffled[1]).await?;
            (since, true)
        }
        4 => {
            let since = links(stage, format!("nothing to {} arrives", shuffled[0]));
            for other in &shuffled[1..] {
                stage.cluster.links().cut_one_way(other, &shuffled[0]).await?;
            }
            (since, true)
        }
        _ => {
            let since = links(stage, "no node reaches another".to_owned());
            for name in &names {
                stage.cluster.links().isolate(name).await?;
            }
            (since, false)
        }
    };
    let length = stage.rng.random_range(CUT / 4..CUT);
    if quorum_left {
        stage.writes_go_on(since).await?;
    }
    stage.for_a_while(length).await;
    heal(stage, since).await
}

async fn heal(stage: &mut Stage, since: u64) -> Result<(), Trouble> {
    stage.repair("all nodes reach each other again");
    stage.cluster.heal().await?;
    stage.whole(since).await
}
