//! A scenario from the start of its cluster to its verdict.
//!
//! 1. A scratch cluster is made, and the load begins.
//! 2. The script runs, round by round. What keeps it from going on (no write is acknowledged, a node does not come back) is a
//!    finding, and the end of the rounds.
//! 3. The load ends, and writes are stopped; all nodes come to one state. Each node is read from its own pages: all hold the same lists, and
//!    these are compared with what the clients were told.
//! 4. The histories are checked, with the lists at the end as a last read.
//! 5. The nodes end in good order, pass the whole check, and their files are compared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::judge::{self, Lists};
use super::watch::Watched;
use super::{Scenario, Stage};
use crate::load::{self, Load, LoadOptions, Noted};
use crate::scratch::{Plan, Scratch};
use crate::timeline::{Gap, Timeline};
use crate::trouble::Trouble;
use crate::verdict::{Judgement, Run, Verdict};

/// The load runs so long before the first fault, and after the last.
const QUIET: Duration = Duration::from_millis(1_000);
/// How many clients of each kind there are.
const CLIENTS: usize = 6;

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How its cluster is made.
    pub plan: Plan,
    /// How often its script runs.
    pub rounds: u32,
    /// What is drawn by chance comes from this.
    pub seed: u64,
    /// Calls a second, about.
    pub rate: u32,
    /// Whether the directories of a bad one are kept.
    pub keep: bool,
}

/// Runs a scenario. `begun` is called with its timeline when the load begins.
///
/// # Errors
/// When it could not be carried out: the cluster does not start, say. That a cluster does not do what it should is no
/// error but the verdict.
pub async fn run(
    scenario: &Scenario,
    settings: Settings,
    begun: &(dyn Fn(&Arc<Timeline>) + Send + Sync),
) -> Result<Run, Trouble> {
    let started = Instant::now();
    let ground = scenario.ground;
    let mut plan = Plan { proxied: ground.proxied, nodes: ground.nodes, ..settings.plan.clone() };
    plan.flags.extend(ground.flags.iter().map(|&flag| flag.to_owned()));
    let cluster = Scratch::start(plan).await?;
    let timeline = Arc::new(Timeline::default());
    begun(&timeline);
    let options = LoadOptions { clients: CLIENTS, rate: settings.rate, seed: settings.seed };
    let load = Load::begin(&cluster.addresses(), &options, Arc::clone(&timeline)).await?;
    let client = cluster.client(load::client_options()).await?;
    let watched = Watched::default();
    let mut stage = Stage {
        cluster,
        timeline: Arc::clone(&timeline),
        rng: SmallRng::seed_from_u64(settings.seed),
        client,
        watched,
        redundancy_us: Vec::new(),
        findings: Vec::new(),
        notes: Vec::new(),
    };
    stage.watch_nodes();
    let watching = stage.watched.run(Arc::clone(&timeline));
    rounds(&mut stage, scenario, settings.rounds).await;
    let (noted, troubles) = load.stop().await;
    stage.findings.extend(troubles.iter().map(ToString::to_string));
    watching.abort();
    let run = verdict(stage, scenario, &settings, noted, started).await;
    Ok(run)
}

async fn rounds(stage: &mut Stage, scenario: &Scenario, rounds: u32) {
    stage.for_a_while(QUIET).await;
    for round in 1..=rounds {
        if let Err(trouble) = (scenario.script)(stage).await {
            stage.finding(format!("round {round}: {trouble}"));
            // So that the rest of the cluster can be judged.
            if let Err(trouble) = stage.cluster.heal().await {
                stage.finding(trouble.to_string());
            }
            return;
        }
        stage.steady().await;
    }
    stage.for_a_while(QUIET).await;
}

async fn verdict(mut stage: Stage, scenario: &Scenario, settings: &Settings, noted: Noted, started: Instant) -> Run {
    let recorded = stage.timeline.recorded();
    let lists = read_all(&mut stage).await;
    let identical = match &lists {
        Ok(_) => match stage.cluster.end().await {
            Ok(_) => Judgement::Good,
            Err(trouble) => Judgement::Bad(trouble.to_string()),
        },
        Err(trouble) => Judgement::Bad(format!("the nodes do not come to one state: {trouble}")),
    };
    let judged = judge::all(noted, lists.ok()).await;
    let verdict = Verdict {
        redundancy: Gap::of(std::mem::take(&mut stage.redundancy_us)),
        identical,
        findings: std::mem::take(&mut stage.findings),
        notes: std::mem::take(&mut stage.notes),
        ..judged.verdict(scenario.name, settings.seed, &recorded, started)
    };
    let mut run = Run { about: scenario.about.to_owned(), verdict, timeline: recorded };
    if !run.verdict.is_good() && settings.keep {
        let home = stage.cluster.keep();
        let words = match judged.keep(&home) {
            Ok(()) => format!("the nodes' directories, logs and the histories are kept in {}", home.display()),
            Err(trouble) => format!("the nodes' directories are kept in {}; {trouble}", home.display()),
        };
        run.verdict.notes.push(words);
    }
    run
}

/// All nodes hold the same lists: these.
async fn read_all(stage: &mut Stage) -> Result<Lists, Trouble> {
    stage.cluster.redundant().await?;
    stage.cluster.settle().await?;
    let mut first: Option<(String, Lists)> = None;
    for node in 0..stage.cluster.nodes().len() {
        if stage.cluster.nodes()[node].is_retired() {
            continue;
        }
        let (name, lists) = (stage.cluster.name(node).to_owned(), judge::lists_of(&stage.cluster, node).await?);
        match &first {
            None => first = Some((name, lists)),
            Some((_, same)) if *same == lists => {}
            Some((other, _)) => return Err(Trouble::new(format!("{other} and {name} hold different lists"))),
        }
    }
    first.map(|(_, lists)| lists).ok_or_else(|| Trouble::new("there is no node"))
}
