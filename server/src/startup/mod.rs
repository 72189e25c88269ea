//! Opening or making a node's directory.
//!
//! Contract: whatever is wrong (directory, flags, addresses, a second process, another cluster) is an error that names
//! it, says why and what to do next; nothing is changed by a start that fails so.
//!
//! Order: look at the directory; then, for a database that is there: refuse a copy (see `home`), open it (which takes its
//! lock), check the flags against it, listen, and if the addresses were moved, ask at the old one whether the node runs
//! there; only then note the addresses and where the directory is. The consensus is not started before all of that. For
//! a new one: listen, ask the cluster that is to be joined, write `first-start` and `home`, make the database.

pub mod first_start;
pub mod home;
pub mod join;
pub mod listen;
mod open_error;
pub mod place;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use calamus_engine::env::Disk;
use calamus_engine::ids::{ClusterId, DatabaseId, RaftId};
use calamus_engine::{Engine, EngineOptions, NodeIdentity};
use tracing::{info, warn};

use crate::config::{JoinAs, NodeConfig};
use crate::failure::Failure;
use crate::{peer, planted};
use first_start::{FirstStart, How};
use listen::Listening;
use place::Place;

/// How long whoever is at the old address of a node that was moved has to answer.
const TWIN_LIMIT: Duration = Duration::from_secs(2);

/// What the small files that a start writes take at most, in bytes: a full disk must not keep a node from starting.
const SMALL_FILES_BYTES: u64 = 64 << 10;

/// A node's storage, open, and its socket, listening.
pub struct Opened {
    /// The disk it is on.
    pub disk: Arc<dyn Disk>,
    /// The storage.
    pub engine: Engine,
    /// The socket.
    pub listening: Listening,
    /// What is still to do before the node is a member, if anything.
    pub first_start: Option<FirstStart>,
}

/// Opens or makes the directory of `config`.
pub async fn open(config: &NodeConfig, disk: Arc<dyn Disk>) -> Result<Opened, Failure> {
    match place::look(&*disk, &config.dir)? {
        Place::Database => open_existing(config, disk).await,
        Place::New => {
            let planned = plan_new(config, None)?;
            make_new(config, disk, planned).await
        }
        Place::Unfinished(found) => {
            info!(dir = %config.dir.display(), "an earlier first start was cut off; going on with it");
            place::clear_unfinished(&*disk, &config.dir).map_err(|error| cannot_make(&config.dir, &error))?;
            let planned = plan_new(config, Some(found))?;
            make_new(config, disk, planned).await
        }
    }
}

fn patience(config: &NodeConfig) -> Duration {
    Duration::from_secs(u64::from(config.join_wait_s))
}

fn options(config: &NodeConfig) -> Result<EngineOptions, Failure> {
    let mut options = EngineOptions::default();
    options.space = config.space()?;
    options.checkpoint_journal_bytes = u64::from(config.checkpoint_mib) << 20;
    options.version_bytes_limit = (config.versions_mib as usize) << 20;
    options.retention_bytes = u64::from(config.retention_mib) << 20;
    options.scrub_bytes_per_second = u64::from(config.scrub_mib_s) << 20;
    options.scrub_pass = Duration::from_secs(config.scrub_pass_s.into());
    options.split_percent = planted::split_percent().unwrap_or(options.split_percent);
    Ok(options)
}

/// What a first start needs, from the flags and, where they are silent, from an earlier attempt.
struct Planned {
    name: String,
    listen: crate::endpoint::Endpoint,
    advertise: Option<crate::endpoint::Endpoint>,
    how: How,
    join_as: Option<JoinAs>,
}

fn plan_new(config: &NodeConfig, earlier: Option<FirstStart>) -> Result<Planned, Failure> {
    let missing = |flag: &str| {
        Failure::new(
            format!("{flag} is missing"),
            format!("{} holds no database yet, so this is the first start of a node", config.dir.display()),
            "a first start is `calamus serve --dir DIR --name NAME --listen HOST:PORT`, with --bootstrap for a new \
             cluster or --join HOST:PORT for one that is there; if there should be a database, check --dir",
        )
    };
    let kept = |text: &str| text.parse::<crate::endpoint::Endpoint>().ok();
    let how = match (&config.join, config.bootstrap, &earlier) {
        (Some(host), _, _) => How::Join(host.to_string()),
        (None, true, _) => How::Bootstrap,
        (None, false, Some(earlier)) => earlier.how.clone(),
        (None, false, None) => return Err(missing("--bootstrap or --join")),
    };
    let name = config.name.clone().or_else(|| earlier.as_ref().map(|found| found.name.clone()));
    let listen = config.listen.clone().or_else(|| earlier.as_ref().and_then(|found| kept(&found.listen)));
    let advertise = config.advertise.clone().or_else(|| {
        let found = earlier.as_ref().filter(|_| config.listen.is_none())?;
        kept(&found.advertise)
    });
    Ok(Planned {
        name: name.ok_or_else(|| missing("--name"))?,
        listen: listen.ok_or_else(|| missing("--listen"))?,
        advertise,
        how,
        join_as: config.join_as.or_else(|| earlier.as_ref().and_then(|found| found.join_as)),
    })
}

fn cannot_make(dir: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        format!("cannot make a database in {}", dir.display()),
        error,
        "check the permissions and the free space there, or choose another --dir",
    )
}

async fn make_new(config: &NodeConfig, disk: Arc<dyn Disk>, planned: Planned) -> Result<Opened, Failure> {
    let dir = &config.dir;
    let options = options(config)?;
    let listening = listen::bind(&planned.listen, planned.advertise.as_ref())?;
    // 0 would read as "none" in messages.
    let mut raft_id = rand::random_range(1..=u64::MAX);
    let (cluster_id, database_id) = match &planned.how {
        How::Bootstrap => (rand::random::<u128>(), rand::random::<u128>()),
        How::Join(host) => {
            let joined = join::ask(host, patience(config)).await?;
            join::check_name(&joined, &planned.name, None)?;
            if planted::raft_id_is_kept() {
                let old = joined.members.iter().find(|member| member.name == planned.name);
                raft_id = old.map_or(raft_id, |old| old.raft_id);
            }
            (joined.cluster_id, joined.database_id)
        }
    };
    let first_start = FirstStart {
        name: planned.name,
        listen: listening.listen.clone(),
        advertise: listening.advertise.clone(),
        how: planned.how,
        join_as: planned.join_as,
    };
    let identity = NodeIdentity {
        cluster_id: ClusterId(cluster_id),
        raft_id: RaftId(raft_id),
        name: first_start.name.clone(),
        listen: first_start.listen.clone(),
        advertise: first_start.advertise.clone(),
    };
    disk.create_dir_all(dir).map_err(|error| cannot_make(dir, &error))?;
    first_start.write(&*disk, dir).map_err(|error| cannot_make(dir, &error))?;
    // Before node.meta is there: no database is ever without it.
    home::remember(&*disk, dir)?;
    let engine = Engine::create(disk.clone(), dir, &identity, DatabaseId(database_id), options)
        .map_err(|error| open_error::explain(dir, &error))?;
    info!(name = identity.name, raft_id = format!("{:016x}", identity.raft_id.0), cluster = %identity.cluster_id, "made a new node");
    Ok(Opened { disk, engine, listening, first_start: Some(first_start) })
}

async fn open_existing(config: &NodeConfig, disk: Arc<dyn Disk>) -> Result<Opened, Failure> {
    let dir = &config.dir;
    home::check(&*disk, dir, config.directory_was_moved)?;
    let (engine, _) =
        Engine::open(disk.clone(), dir, options(config)?).map_err(|error| open_error::explain(dir, &error))?;
    engine.keep_free(SMALL_FILES_BYTES);
    let opened = check_and_listen(config, &disk, &engine).await;
    if opened.is_err() {
        engine.close();
    }
    let (listening, first_start) = opened?;
    Ok(Opened { disk, engine, listening, first_start })
}

/// Checks the flags against what the directory remembers, and listens.
async fn check_and_listen(
    config: &NodeConfig,
    disk: &Arc<dyn Disk>,
    engine: &Engine,
) -> Result<(Listening, Option<FirstStart>), Failure> {
    let dir = &config.dir;
    let identity = engine.identity();
    if let Some(name) = config.name.as_ref().filter(|name| **name != identity.name) {
        return Err(Failure::new(
            format!("{} is the directory of {}, not of {name}", dir.display(), identity.name),
            "a directory belongs to one node for ever",
            "leave --name out, or give --dir the directory of that node",
        ));
    }
    let mut first_start = FirstStart::read(&**disk, dir).map_err(|error| cannot_make(dir, &error))?;
    if let (Some(host), Some(found)) = (&config.join, &mut first_start) {
        found.how = How::Join(host.to_string());
    }
    let unfinished = first_start.as_ref().and_then(|found| match &found.how {
        How::Join(host) => Some(host.clone()),
        How::Bootstrap => None,
    });
    if let Some(host) = config.join.as_ref().map(ToString::to_string).or(unfinished) {
        // Who goes on with a first start by --dir alone may have been a member for long.
        let must_answer = config.join.is_some() && first_start.is_some();
        check_cluster(config, &identity, &host, must_answer).await?;
    }
    if first_start.is_none() && (config.bootstrap || config.join.is_some()) {
        info!("the node is a member already: --bootstrap and --join have no effect");
    }
    let remembered = |text: &str| {
        text.parse().map_err(|why: String| Failure::new("cannot use the address in node.meta", why, "give --listen"))
    };
    let listen = config.listen.clone().map_or_else(|| remembered(&identity.listen), Ok)?;
    let advertise = match (&config.advertise, &config.listen) {
        (Some(given), _) => Some(given.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(remembered(&identity.advertise)?),
    };
    let listening = listen::bind(&listen, advertise.as_ref())?;
    if listening.advertise != identity.advertise {
        refuse_twin(dir, &identity).await?;
    }
    home::remember(&**disk, dir)?;
    if listening.advertise != identity.advertise || listening.listen != identity.listen {
        engine
            .set_addresses(&listening.listen, &listening.advertise)
            .map_err(|error| Failure::new("cannot note the new addresses", error, "check the disk"))?;
    }
    Ok((listening, first_start))
}

/// Refuses to move a node that runs where it was: then this directory is a copy of its directory.
async fn refuse_twin(dir: &Path, identity: &NodeIdentity) -> Result<(), Failure> {
    let old = &identity.advertise;
    let Ok(answer) = peer::status(old, false, TWIN_LIMIT).await else { return Ok(()) };
    if answer.node.is_none_or(|node| node.raft_id != identity.raft_id.0) {
        return Ok(());
    }
    Err(Failure::new(
        format!("{} is a copy of the directory of a node that runs", dir.display()),
        format!("{} runs at {old}, under the same raft id {:016x}", identity.name, identity.raft_id.0),
        format!(
            "to move {} stop that process first; another node needs a directory, a --name and a --join of its own",
            identity.name
        ),
    ))
}

/// Refuses a directory of one cluster that is to join another. A node that is a member already may start without the
/// others, so their silence is no error.
async fn check_cluster(
    config: &NodeConfig,
    identity: &NodeIdentity,
    host: &str,
    must_answer: bool,
) -> Result<(), Failure> {
    let joined = match join::ask(host, if must_answer { patience(config) } else { Duration::ZERO }).await {
        Ok(joined) => joined,
        Err(failure) if must_answer => return Err(failure),
        Err(failure) => {
            warn!(%failure, "starting without the node that is to be joined");
            return Ok(());
        }
    };
    let dir = &config.dir;
    if joined.cluster_id == identity.cluster_id.0 {
        return Ok(());
    }
    Err(Failure::new(
        format!("{} is a directory of another cluster", dir.display()),
        format!(
            "it belongs to cluster {}, and {host} to cluster {}",
            identity.cluster_id,
            ClusterId(joined.cluster_id)
        ),
        "give --dir a new directory to join that cluster, or leave --join out to start this node in its own",
    ))
}
