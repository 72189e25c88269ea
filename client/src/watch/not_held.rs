//! Who does not hold what follows the position: a node that says so is not asked again before another one has been.

use calamus_proto::v1::Member;

use super::{Position, WatchError};

/// What the nodes that refused the position said, since a stream began last.
#[derive(Default)]
pub(super) struct NotHeldBy {
    /// Their addresses.
    pub(super) asked: Vec<String>,
    oldest: Option<Position>,
    members: Vec<Member>,
}

impl NotHeldBy {
    /// Another one: `oldest` is what can be gone on from there, `members` who may hold more.
    pub(super) fn note(&mut self, address: String, oldest: Position, members: Vec<Member>) {
        if !self.asked.contains(&address) {
            self.asked.push(address);
        }
        if self.oldest.as_ref().is_none_or(|before| oldest.txn_id < before.txn_id) {
            self.oldest = Some(oldest);
        }
        self.members = members;
    }

    /// What to tell of it; `None` if nobody has refused.
    pub(super) fn error(&self, position: Position) -> Option<WatchError> {
        let unasked = self.members.iter().filter(|member| !self.asked.contains(&member.address));
        Some(WatchError::NotHeld {
            position,
            oldest: Box::new(self.oldest.clone()?),
            asked: self.asked.clone(),
            unasked: unasked.map(|member| (member.name.clone(), member.address.clone())).collect(),
        })
    }
}
