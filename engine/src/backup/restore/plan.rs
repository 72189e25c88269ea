//! Which backups a restore reads.

use super::{RestoreOptions, RestorePoint};
use crate::backup::catalog::{Backup, Catalog, Chain};
use crate::backup::error::{ChainError, RestoreError};
use crate::backup::manifest::Manifest;

/// The full backup and the increments that are read, in order.
///
/// What cannot be relied on and is not older than the full backup may have been an increment of it: then the restore is refused,
/// so that it never ends earlier than it was told to. Whoever names the backup to end with has decided that himself.
pub(in crate::backup) fn members<'c>(
    catalog: &'c Catalog,
    options: &RestoreOptions,
) -> Result<Vec<&'c Backup>, RestoreError> {
    let (chain, length) = match &options.upto {
        Some(id) => named(catalog, id)?,
        None => {
            let chain = newest_with(catalog, options.point)?;
            (chain, chain.backups.len())
        }
    };
    let mut members: Vec<&Backup> = chain.backups[..length].iter().collect();
    has_point(members[0], members[length - 1], options.point)?;
    // Those behind the point are not read.
    let needed = members.iter().position(|backup| reaches(&backup.manifest, options.point));
    members.truncate(needed.map_or(length, |last| last + 1));
    Ok(members)
}

fn refused(problem: &crate::backup::catalog::BackupProblem) -> RestoreError {
    ChainError::damaged(&problem.object, &problem.what).into()
}

fn named<'c>(catalog: &'c Catalog, id: &crate::backup::BackupId) -> Result<(&'c Chain, usize), RestoreError> {
    for chain in &catalog.chains {
        if let Some(place) = chain.backups.iter().position(|backup| backup.manifest.id == id.as_str()) {
            return Ok((chain, place + 1));
        }
    }
    match catalog.problems.iter().find(|problem| problem.id == *id) {
        Some(problem) => Err(refused(problem)),
        None => Err(RestoreError::Point(format!("there is no complete backup {id}; list those that there are"))),
    }
}

/// The newest chain whose full backup ends at the point or before.
fn newest_with(catalog: &Catalog, point: RestorePoint) -> Result<&Chain, RestoreError> {
    let Some(oldest) = catalog.chains.first() else {
        return Err(catalog.problems.first().map_or(RestoreError::NoBackup, refused));
    };
    let chain = catalog.chains.iter().rev().find(|chain| begins_by(chain.full(), point)).unwrap_or(oldest);
    let full = chain.full().backup_id();
    match catalog.problems.iter().find(|problem| problem.id >= full) {
        Some(problem) => Err(refused(problem)),
        None => Ok(chain),
    }
}

/// Whether the end of this backup is at the point or before.
fn begins_by(manifest: &Manifest, point: RestorePoint) -> bool {
    match point {
        RestorePoint::End => true,
        RestorePoint::Txn(txn_id) => manifest.end.txn_id <= txn_id.0,
        RestorePoint::Time(micros) => manifest.end.wall_time_micros <= micros,
    }
}

/// Whether nothing behind this backup can belong to the point.
fn reaches(manifest: &Manifest, point: RestorePoint) -> bool {
    match point {
        RestorePoint::End => false,
        RestorePoint::Txn(txn_id) => manifest.end.txn_id >= txn_id.0,
        // Another record of the same moment may follow.
        RestorePoint::Time(micros) => manifest.end.wall_time_micros > micros,
    }
}

fn has_point(full: &Backup, last: &Backup, point: RestorePoint) -> Result<(), RestoreError> {
    let (begin, end) = (&full.manifest.end, &last.manifest.end);
    let id = &full.manifest.id;
    let what = match point {
        RestorePoint::End => return Ok(()),
        RestorePoint::Txn(txn_id) if txn_id.0 < begin.txn_id => {
            format!(
                "the chain of backup {id} begins with txn {}, behind txn {txn_id}; ask for that, or more",
                begin.txn_id
            )
        }
        RestorePoint::Txn(txn_id) if txn_id.0 > end.txn_id => format!(
            "the chain of backup {id} ends with txn {}, before txn {txn_id}; ask for that or less, or for the end",
            end.txn_id
        ),
        RestorePoint::Time(micros) if micros < begin.wall_time_micros => format!(
            "the chain of backup {id} begins with a transaction of {} us since 1970, behind {micros}; ask for that, or more",
            begin.wall_time_micros
        ),
        RestorePoint::Time(micros) if micros > last.manifest.as_of_micros.max(end.wall_time_micros) => format!(
            "the chain of backup {id} is as of {} us since 1970, before {micros}; ask for that or less, or for the end",
            last.manifest.as_of_micros
        ),
        RestorePoint::Txn(_) | RestorePoint::Time(_) => return Ok(()),
    };
    Err(RestoreError::Point(what))
}
