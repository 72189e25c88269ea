//! What a watch holds messages against: each says where the stream stood before it, and that must be where this watch stands;
//! txn ids go up.

use calamus_proto::v1::{WatchChange, WatchPosition, WatchProgress, WatchTransaction};

use super::{Position, WatchEvent, WatchedTxn};

/// What a node said that is not what comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broke(pub(super) String);

/// Where a watch stands.
pub(super) struct Stand {
    position: Option<Position>,
    /// What has come of a transaction that is not whole yet.
    parts: Option<WatchTransaction>,
}

impl Stand {
    pub(super) fn at(position: Option<Position>) -> Stand {
        Stand { position, parts: None }
    }

    /// Everything up to there was delivered. `None` until a node has said where the watch starts.
    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// For errors: as [`Self::position`], or the beginning.
    pub(super) fn position_or_start(&self) -> Position {
        self.position.clone().unwrap_or_else(|| Position::after_txn(0))
    }

    /// A stream is over: what it did not end comes anew.
    pub(super) fn cut(&mut self) {
        self.parts = None;
    }

    /// A stream begins: where this watch stands, if it has stood anywhere.
    pub(super) fn begin(&mut self, begun: WatchPosition) -> Result<WatchEvent, Broke> {
        let begun = Position::from(begun);
        if let Some(position) = &self.position
            && position.txn_id != begun.txn_id
        {
            return Err(Broke(format!("it begins behind txn {}", begun.txn_id)));
        }
        self.position = Some(begun.clone());
        Ok(WatchEvent::Began(begun))
    }

    /// Nothing is new up to a transaction.
    pub(super) fn progress(&mut self, progress: WatchProgress) -> Result<WatchEvent, Broke> {
        self.go_on(progress.txn_id, true)?;
        Ok(WatchEvent::Progress(progress.read_point.unwrap_or_default()))
    }

    /// A transaction, or a part of one; `None` until it is whole.
    pub(super) fn transaction(&mut self, part: WatchTransaction) -> Result<Option<WatchEvent>, Broke> {
        let stands_at = self.position.as_ref().map(|position| position.txn_id);
        if stands_at != Some(part.follows) || part.txn_id <= part.follows {
            return Err(Broke(format!("txn {} behind txn {}", part.txn_id, part.follows)));
        }
        let more = part.more;
        let whole = match self.parts.take() {
            None => part,
            Some(mut whole) if whole.txn_id == part.txn_id => {
                // Names are added and never change their places.
                whole.trees = part.trees;
                whole.changes.extend(part.changes);
                whole
            }
            Some(whole) => return Err(Broke(format!("txn {} within txn {}", part.txn_id, whole.txn_id))),
        };
        if more {
            self.parts = Some(whole);
            return Ok(None);
        }
        let WatchTransaction { txn_id, wall_time_micros, trees, changes, .. } = whole;
        let named = |change: WatchChange| Some((trees.get(change.tree as usize)?.clone(), change));
        let Some(changes) = changes.into_iter().map(named).collect() else {
            return Err(Broke("a change of a tree without a name".to_owned()));
        };
        self.go_on(txn_id, false)?;
        Ok(Some(WatchEvent::Txn(WatchedTxn { txn_id, wall_time_micros, changes })))
    }

    /// Everything up to this transaction is known; it may be that nothing is new.
    fn go_on(&mut self, txn_id: u64, may_stay: bool) -> Result<(), Broke> {
        if let Some(part) = &self.parts {
            return Err(Broke(format!("it is at txn {txn_id} within txn {}", part.txn_id)));
        }
        match &mut self.position {
            Some(position) if txn_id > position.txn_id || (may_stay && txn_id == position.txn_id) => {
                position.txn_id = txn_id;
                Ok(())
            }
            _ => Err(Broke(format!("it is at txn {txn_id} now"))),
        }
    }
}
