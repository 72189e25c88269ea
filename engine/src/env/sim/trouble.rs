//! Troubles that a test plans: which call of which file goes wrong, and how.

use std::ffi::OsString;
use std::path::Path;

use super::chance::Chance;

/// How a call goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A read fails with `EIO`.
    FailRead,
    /// A write, a change of length or a punch fails with `EIO`; a write has written some of its units by then.
    FailWrite,
    /// A sync of a file fails with `EIO`, and gives up what it should have written.
    FailSync,
    /// A sync of a directory fails with `EIO`; its names go on being not durable.
    FailSyncDirectory,
    /// A write or a growth fails with `ENOSPC`; a write has written some of its units by then.
    NoSpace,
    /// A write is acknowledged and never happens: a stale block is left.
    LostWrite,
    /// A write is acknowledged and lands so many bytes further on in the same file, as far as the file goes; where it
    /// should have been, a stale block is left.
    MisdirectedWrite(u64),
}

/// The kinds of calls that can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `set_len`, `punch`.
    Change,
    /// `sync_data`.
    Sync,
    /// `sync_dir`.
    SyncDirectory,
}

impl Fault {
    fn is_of(self, call: Call) -> bool {
        match self {
            Self::FailRead => call == Call::Read,
            Self::FailWrite | Self::NoSpace => matches!(call, Call::Write | Call::Change),
            Self::FailSync => call == Call::Sync,
            Self::FailSyncDirectory => call == Call::SyncDirectory,
            Self::LostWrite | Self::MisdirectedWrite(_) => call == Call::Write,
        }
    }
}

/// A fault, and when it happens: by default once, at the next call of its kind, of any file.
#[derive(Clone, Debug)]
pub struct Trouble {
    fault: Fault,
    place: Option<OsString>,
    after: u64,
    times: u64,
    one_in: u64,
}

impl Trouble {
    /// Of the next call that this fault can happen to.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { fault, place: None, after: 0, times: 1, one_in: 1 }
    }

    /// Only of files whose path has this part: `data`, `journal`, `node.meta`, `vote`, ...
    #[must_use]
    pub fn of(self, part: &str) -> Self {
        Self { place: Some(part.into()), ..self }
    }

    /// So many calls go well first.
    #[must_use]
    pub fn after(self, calls: u64) -> Self {
        Self { after: calls, ..self }
    }

    /// So many calls go wrong.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// One call in so many goes wrong, by the dice of the disk's seed.
    ///
    /// # Panics
    /// When it is 0.
    #[must_use]
    pub fn one_in(self, calls: u64) -> Self {
        assert!(calls > 0, "one in 0 calls");
        Self { one_in: calls, ..self }
    }

    fn is_at(&self, path: &Path) -> bool {
        self.place.as_ref().is_none_or(|part| path.iter().any(|found| found == part))
    }

    /// Whether it happens now.
    fn strikes(&mut self, call: Call, path: &Path, chance: &mut Chance) -> Option<Fault> {
        if self.times == 0 || !self.fault.is_of(call) || !self.is_at(path) {
            return None;
        }
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        if self.one_in > 1 && !chance.draw().is_multiple_of(self.one_in) {
            return None;
        }
        self.times -= 1;
        Some(self.fault)
    }
}

/// All that is planned.
pub(super) struct Troubles {
    planned: Vec<Trouble>,
    pub chance: Chance,
    /// Reads and writes are taken in pieces.
    pub short: bool,
    /// Calls that block, with the part of the path that they are of.
    pub stalls: Vec<(u64, Call, OsString)>,
    /// How many calls block now.
    pub stalled: usize,
    pub next_stall: u64,
    /// How many faults have happened.
    pub struck: u64,
}

impl Troubles {
    pub fn new(seed: u64) -> Self {
        Self {
            planned: Vec::new(),
            chance: Chance::new(seed ^ 0x7472_6F75_626C_6573),
            short: false,
            stalls: Vec::new(),
            stalled: 0,
            next_stall: 0,
            struck: 0,
        }
    }

    pub fn plan(&mut self, trouble: Trouble) {
        self.planned.push(trouble);
    }

    pub fn forget(&mut self) {
        self.planned.clear();
    }

    /// What happens to a call, if anything does.
    pub fn strike(&mut self, call: Call, path: &Path) -> Option<Fault> {
        let chance = &mut self.chance;
        let fault = self.planned.iter_mut().find_map(|trouble| trouble.strikes(call, path, chance))?;
        self.planned.retain(|trouble| trouble.times > 0);
        self.struck += 1;
        Some(fault)
    }

    pub fn blocks(&self, call: Call, path: &Path) -> bool {
        self.stalls.iter().any(|(_, stalled, part)| *stalled == call && path.iter().any(|found| found == part))
    }

    /// How many of `length` bytes a call takes.
    pub fn piece(&mut self, length: usize) -> usize {
        if !self.short || length < 2 || self.chance.draw().is_multiple_of(2) {
            return length;
        }
        1 + self.chance.below(length - 1)
    }
}
