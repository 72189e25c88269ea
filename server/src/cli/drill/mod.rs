//! `calamus drill`: a cluster is broken under load, and judged.
//!
//! ```text
//! live     what is shown while it runs
//! show     the verdicts as a table
//! ```

mod live;
mod show;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calamus_drill::checker::{self, Bounds};
use calamus_drill::history::file::{self, AnyHistory};
use calamus_drill::report::{About, page};
use calamus_drill::rival::kill_leaders;
use calamus_drill::scenario::{self, RunningCluster, Scenario, Settings};
use calamus_drill::scratch::Plan;
use calamus_drill::timeline::{Gap, Timeline};
use calamus_drill::verdict::Run;
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::common::print;
use super::{Endpoint, Exit, Failure};
use live::Live;

/// Breaks a cluster under load, on purpose, and says whether anything was lost. Without flags: the standard list of scenarios, each
/// on a scratch cluster of three nodes on this machine, which is made and removed again. Exit code 0 if all verdicts are good,
/// 4 if one is not.
#[derive(Debug, Args)]
pub struct DrillArgs {
    /// Run this scenario, not the standard list; may be given more than once.
    #[arg(long = "scenario", value_name = "NAME", value_parser = scenario::find)]
    scenarios: Vec<Scenario>,
    /// How often each scenario does what it does; by default as often as --list says, and 3 times with --endpoints.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// What is drawn by chance comes from this number; by default, another one each time. The timing does not.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many calls a second the load makes, about.
    #[arg(long, default_value_t = 600, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rate: u32,
    /// Make the scratch clusters below this directory; by default below the system's temporary one.
    #[arg(long, value_name = "DIR")]
    within: Option<PathBuf>,
    /// Keep the directories and histories of scenarios whose verdict is not good, and say where.
    #[arg(long)]
    keep: bool,
    /// Write a page of HTML with a timeline of each scenario.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Do the same to three nodes of etcd afterwards, and say how the gaps compare. Only with `--scenario kill-leader`; `etcd` must be
    /// installed.
    #[arg(long, value_name = "RIVAL")]
    vs: Option<Rival>,
    /// Drill a cluster that is in use, in place of scratch ones: its leadership is moved, and processes of --pid-file stand
    /// still for a while, --count times. Needs --i-mean-it.
    #[arg(long, value_delimiter = ',', value_name = "A,B,C", conflicts_with_all = ["scenarios", "within", "keep", "vs"])]
    endpoints: Vec<Endpoint>,
    /// With --endpoints: a file with the process id of a node on this machine, which may be stopped for 2.5 s.
    #[arg(long = "pid-file", value_name = "FILE", requires = "endpoints")]
    pid_files: Vec<PathBuf>,
    /// With --endpoints: yes, that one.
    #[arg(long, requires = "endpoints")]
    i_mean_it: bool,
    /// Run nothing: check a history that --keep has kept, again.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenarios", "endpoints", "report", "vs", "list"])]
    check: Option<PathBuf>,
    /// List the scenarios, and run none.
    #[arg(long)]
    list: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What a drill is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rival {
    /// Three members with etcd's defaults.
    Etcd,
}

/// As many writers as the load of a drill has clients.
const WRITERS: usize = 12;

/// Runs it.
pub fn run(args: &DrillArgs) -> Result<Exit, Failure> {
    if args.list {
        return print(show::list(args.json), Exit::Done);
    }
    if let Some(file) = &args.check {
        return check(file, args.json);
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::new("cannot find this program, which the nodes are to run", error, ""))?;
    if let Some(file) = &args.report {
        // Before minutes are spent.
        std::fs::write(file, "").map_err(|error| cannot_write(file, &error))?;
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    if args.vs.is_some() && args.scenarios.iter().any(|s| s.name != "kill-leader")
        || args.vs.is_some() && args.scenarios.is_empty()
    {
        let why = "only killed leaders are compared";
        return Err(Failure::new("cannot compare", why, "add `--scenario kill-leader`").with_exit(Exit::Usage));
    }
    if !args.endpoints.is_empty() && !args.i_mean_it {
        let why = "its leadership would be moved while others use it, and processes of --pid-file stopped";
        let next = "add --i-mean-it if that is what you want; without --endpoints, drills run on scratch clusters";
        return Err(
            Failure::new("a cluster that is in use is not drilled by accident", why, next).with_exit(Exit::Usage)
        );
    }
    let scenarios = if args.scenarios.is_empty() { scenario::standard() } else { args.scenarios.clone() };
    let began = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now());
    let runs = if args.endpoints.is_empty() {
        super::block_on(or_told_to_end(run_all(args, &scenarios, program, seed)))?.ok_or_else(told_to_end)?
    } else {
        vec![super::block_on(run_running(args, seed))?]
    };
    let rival = match (args.vs, runs.first()) {
        (Some(Rival::Etcd), Some(run)) => {
            Some(super::block_on(or_told_to_end(against_etcd(args, run)))?.ok_or_else(told_to_end)?)
        }
        _ => None,
    };
    if let Some(file) = &args.report {
        let about = About {
            program: format!("calamus {}", env!("CARGO_PKG_VERSION")),
            began: began.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
            command: command(args, seed),
        };
        std::fs::write(file, page(&about, &runs)).map_err(|error| cannot_write(file, &error))?;
    }
    let good = runs.iter().all(|run| run.verdict.is_good());
    let exit = if good { Exit::Done } else { Exit::No };
    let text = if args.json { show::json(&runs, rival) } else { show::table(&runs, rival, args.report.as_deref()) };
    print(text, exit)
}

/// Ends early when told to, in order: dropped, the work lets go on what stands still, kills what it has started, and removes
/// its directories. By default a signal would end this process and leave all of that behind. `None` if it was told to.
async fn or_told_to_end<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<Option<T>, Failure> {
    let on = |kind| signal(kind).map_err(|error| Failure::new("cannot take signals", error, ""));
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    let mut hang_up = on(SignalKind::hangup())?;
    tokio::select! {
        done = work => return done.map(Some),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(None)
}

fn told_to_end() -> Failure {
    let next = "what it had started is gone; nothing is said of the cluster";
    Failure::new("the drill was told to end", "a signal came", next)
}

/// Checks a history that was kept.
fn check(file: &std::path::Path, json: bool) -> Result<Exit, Failure> {
    let cannot =
        |why: String| Failure::new(format!("cannot check {}", file.display()), why, "give a file that --keep has kept");
    let open = std::fs::File::open(file).map_err(|error| cannot(error.to_string()))?;
    let history = file::read(std::io::BufReader::new(open)).map_err(|error| cannot(error.to_string()))?;
    let (operations, good, words) = match &history {
        AnyHistory::Keys(keys) => {
            let verdict = checker::linearizable(keys, &Bounds::default());
            (keys.operations().len(), verdict.is_ok(), verdict.to_string())
        }
        AnyHistory::Transactions(all) => {
            let verdict = checker::transactions(all);
            (all.operations().len(), verdict.is_ok(), verdict.to_string())
        }
    };
    let text = if json {
        format!("{}\n", json!({ "operations": operations, "good": good, "verdict": words }))
    } else {
        format!("{operations} operations: {words}\n")
    };
    print(text, if good { Exit::Done } else { Exit::No })
}

async fn run_running(args: &DrillArgs, seed: u64) -> Result<Run, Failure> {
    let live = Live::new(!args.json, 1);
    live.say("running: leadership is moved, and processes stand still");
    let cluster = RunningCluster {
        endpoints: args.endpoints.iter().map(|endpoint| endpoint.as_str().to_owned()).collect(),
        pid_files: args.pid_files.clone(),
        rounds: args.count.unwrap_or(3),
        seed,
        rate: args.rate,
    };
    // From then on the trees are this drill's.
    let loaded = AtomicBool::new(false);
    let begun = |timeline: &Arc<Timeline>| {
        loaded.store(true, Ordering::Relaxed);
        live.watch(timeline);
    };
    let next = "`calamus cluster status` shows it";
    let work = async {
        scenario::run_running(cluster.clone(), &begun)
            .await
            .map_err(|trouble| Failure::new("the drill of the cluster could not be carried out", trouble, next))
    };
    let Some(run) = or_told_to_end(work).await? else {
        if loaded.load(Ordering::Relaxed) {
            cluster.drop_trees().await.map_err(|trouble| Failure::new("the drill was told to end", trouble, next))?;
        }
        return Err(told_to_end());
    };
    live.end(&run);
    Ok(run)
}

/// The same kills, done to etcd.
async fn against_etcd(args: &DrillArgs, run: &Run) -> Result<Gap, Failure> {
    let rounds = u32::try_from(run.verdict.faults).unwrap_or(u32::MAX);
    let gap = kill_leaders(rounds, WRITERS, args.rate / 2, args.within.as_deref()).await;
    gap.map_err(|trouble| Failure::new("the comparison with etcd could not be carried out", trouble, "leave out --vs"))
}

fn cannot_write(file: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write the report {}", file.display()), error, "give another file with --report")
}

async fn run_all(args: &DrillArgs, scenarios: &[Scenario], program: PathBuf, seed: u64) -> Result<Vec<Run>, Failure> {
    let mut plan = Plan::new(program, &["drill-node"]);
    plan.within.clone_from(&args.within);
    let live = Live::new(!args.json, scenarios.len());
    let mut runs = Vec::new();
    for scenario in scenarios {
        let settings = Settings {
            plan: plan.clone(),
            rounds: args.count.unwrap_or(scenario.rounds),
            seed,
            rate: args.rate,
            keep: args.keep,
        };
        live.begin(scenario, settings.rounds);
        let run = scenario::run(scenario, settings, &|timeline| live.watch(timeline)).await.map_err(|trouble| {
            Failure::new(
                format!("the drill {} could not be carried out", scenario.name),
                trouble,
                "nothing is said of the cluster by that; check the room on the disk and the limits of this user",
            )
        })?;
        live.end(&run);
        runs.push(run);
        // Sockets and files of the last one are gone before the next begins.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(runs)
}

/// The command that runs the same again.
fn command(args: &DrillArgs, seed: u64) -> String {
    let mut text = "calamus drill".to_owned();
    for scenario in &args.scenarios {
        text += &format!(" --scenario {}", scenario.name);
    }
    if let Some(count) = args.count {
        text += &format!(" --count {count}");
    }
    if args.rate != 600 {
        text += &format!(" --rate {}", args.rate);
    }
    if let Some(directory) = &args.within {
        text += &format!(" --within {}", directory.display());
    }
    if let Some(Rival::Etcd) = args.vs {
        text += " --vs etcd";
    }
    if !args.endpoints.is_empty() {
        let endpoints: Vec<&str> = args.endpoints.iter().map(Endpoint::as_str).collect();
        text += &format!(" --endpoints {} --i-mean-it", endpoints.join(","));
    }
    for file in &args.pid_files {
        text += &format!(" --pid-file {}", file.display());
    }
    text + &format!(" --seed {seed}")
}
