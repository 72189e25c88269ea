//! What the engine says of backups, as the messages that programs read: a node answers with them, and a command that needs no
//! node prints the same.

use calamus_engine::backup::{
    BackupKind, BackupProgress, BackupReport, Catalog, Manifest, Position as EnginePosition, Stage,
};
use calamus_engine::ids::LogId;
use calamus_proto::v1::{
    self, BackupChain, BackupDone, BackupFinding, BackupInfo, BackupLeftover, ListBackupsResponse,
};

/// A log id as it goes over the wire.
#[must_use]
pub fn log_id(at: Option<LogId>) -> Option<v1::Position> {
    at.map(|at| v1::Position { term: at.term.0, index: at.index.0 })
}

fn position(at: &EnginePosition) -> Option<v1::Position> {
    log_id(at.log_id())
}

/// One backup.
#[must_use]
pub fn backup(manifest: &Manifest) -> BackupInfo {
    let kind = match manifest.kind {
        BackupKind::Full => v1::BackupKind::Full,
        BackupKind::Incremental => v1::BackupKind::Incremental,
        _ => v1::BackupKind::Unspecified,
    };
    BackupInfo {
        id: manifest.id.clone(),
        kind: kind.into(),
        parent: manifest.parent.as_ref().map(|parent| parent.id.clone()).unwrap_or_default(),
        sealed: manifest.sealed,
        database_id: manifest.database_id().to_string(),
        cluster_id: manifest.cluster_id().to_string(),
        timeline: manifest.timeline,
        start: position(&manifest.start),
        end: position(&manifest.end),
        end_txn: manifest.end.txn_id,
        end_wall_micros: manifest.end.wall_time_micros,
        end_digest: format!("{:032x}", manifest.end.digest),
        as_of_micros: manifest.as_of_micros,
        pages: manifest.pages,
        frames: manifest.frames,
        parts: manifest.parts.len() as u64,
        raw_bytes: manifest.raw_bytes,
        stored_bytes: manifest.stored_bytes,
    }
}

/// All that there is in a place.
#[must_use]
pub fn catalog(catalog: &Catalog) -> ListBackupsResponse {
    let chains = catalog
        .chains
        .iter()
        .map(|chain| BackupChain { backups: chain.backups.iter().map(|member| backup(&member.manifest)).collect() });
    let leftovers = catalog.leftovers.iter().map(|leftover| BackupLeftover {
        id: leftover.id.to_string(),
        bytes: leftover.bytes,
        expired: leftover.expired,
    });
    let problems = catalog.problems.iter().map(|problem| BackupFinding {
        id: problem.id.to_string(),
        object: problem.object.clone(),
        what: problem.what.clone(),
    });
    ListBackupsResponse { chains: chains.collect(), leftovers: leftovers.collect(), problems: problems.collect() }
}

/// The newest backup of a place.
#[must_use]
pub fn newest(catalog: &Catalog) -> Option<BackupInfo> {
    catalog.chains.last().map(|chain| backup(&chain.newest().manifest))
}

/// What a run has made.
#[must_use]
pub fn done(report: &BackupReport) -> BackupDone {
    BackupDone {
        backup: report.backup.as_ref().map(backup),
        full_because: report.full_because.as_ref().map(ToString::to_string).unwrap_or_default(),
        resumed: report.resumed,
        begun_anew_because: report.begun_anew_because.clone().unwrap_or_default(),
    }
}

/// The word for what is being done.
#[must_use]
pub fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Pages => "pages",
        Stage::Frames => "frames",
        Stage::Verify => "verify",
        _ => "work",
    }
}

/// How far a run is.
#[must_use]
pub fn progress(at: &BackupProgress) -> v1::BackupProgress {
    v1::BackupProgress {
        stage: stage(at.stage).to_owned(),
        done_bytes: at.done_bytes,
        total_bytes: at.total_bytes,
        elapsed_ms: u64::try_from(at.elapsed.as_millis()).unwrap_or(u64::MAX),
        bytes_per_second: at.bytes_per_second,
        left_seconds: at.left.map(|left| left.as_secs()),
    }
}
