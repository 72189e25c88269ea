//! Which disk a node is opened on: the real one, or, through the test-only door, one that the environment asks for.
//!
//! The door is open for the nodes of `calamus drill`, which are started by the hidden command `drill-node`, and in builds with the
//! feature `fault-door`. `calamus serve` of other builds does not look at the environment.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `CALAMUS_DISK=losing` | a kill undoes what was written and not synced |
//! | `CALAMUS_DISK_SYNC_DELAY_MS` | every sync takes this much longer, in milliseconds |
//! | `CALAMUS_DISK_SPACE_LIMIT` | files may grow by this many bytes together |
//! | `CALAMUS_DISK_CONTROL` | a file, read four times a second, whose lines change these while the node runs: `sync_delay_ms N`, `space_limit N`, `hang_syncs`, `fail_syncs`; what it does not name is off |

use std::sync::Arc;

use calamus_engine::env::{Disk, RealDisk};

use crate::failure::Failure;

/// Whether the environment may put a node on another disk than the real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// It may not, unless this build is for tests.
    Shut,
    /// It may.
    Open,
}

/// The disk for this process.
///
/// # Errors
/// When what the environment asks for is not understood.
pub fn from_environment(door: Door) -> Result<Arc<dyn Disk>, Failure> {
    if (door == Door::Open || cfg!(feature = "fault-door"))
        && let Some(disk) = faults::from_environment()?
    {
        return Ok(disk);
    }
    Ok(Arc::new(RealDisk::new()))
}

mod faults {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use calamus_engine::env::{Disk, LosingDisk};

    use crate::failure::Failure;

    /// How often the control file is read.
    const LOOK: Duration = Duration::from_millis(250);

    /// What goes wrong on the disk.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Trouble {
        sync_delay: Duration,
        space_limit: Option<u64>,
        hang_syncs: bool,
        fail_syncs: bool,
    }

    impl Trouble {
        fn set(&self, disk: &LosingDisk) {
            disk.set_sync_delay(self.sync_delay);
            disk.set_space_limit(self.space_limit);
            disk.hang_syncs(self.hang_syncs);
            disk.fail_syncs(self.fail_syncs);
        }

        fn parse(text: &str) -> Result<Trouble, String> {
            let mut trouble = Trouble::default();
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
                let (word, number) = line.split_once(' ').unwrap_or((line, ""));
                match word {
                    "sync_delay_ms" => trouble.sync_delay = Duration::from_millis(parse(word, number)?),
                    "space_limit" => trouble.space_limit = Some(parse(word, number)?),
                    "hang_syncs" => trouble.hang_syncs = true,
                    "fail_syncs" => trouble.fail_syncs = true,
                    _ => return Err(format!("there is no `{word}`")),
                }
            }
            Ok(trouble)
        }
    }

    fn parse(name: &str, text: &str) -> Result<u64, String> {
        text.trim().parse().map_err(|_| format!("{name}: `{text}` is not a whole number"))
    }

    fn number(name: &str) -> Result<Option<u64>, Failure> {
        let found = std::env::var(name).ok().map(|text| parse(name, &text)).transpose();
        found.map_err(|why| Failure::new("the fault door is not understood", why, "see server/src/disk.rs"))
    }

    pub(super) fn from_environment() -> Result<Option<Arc<dyn Disk>>, Failure> {
        match std::env::var("CALAMUS_DISK").as_deref() {
            Err(_) => return Ok(None),
            Ok("losing") => {}
            Ok(other) => {
                let why = format!("CALAMUS_DISK=`{other}`; there is only `losing`");
                return Err(Failure::new("the fault door is not understood", why, "see server/src/disk.rs"));
            }
        }
        let disk = LosingDisk::new();
        let trouble = Trouble {
            sync_delay: Duration::from_millis(number("CALAMUS_DISK_SYNC_DELAY_MS")?.unwrap_or(0)),
            space_limit: number("CALAMUS_DISK_SPACE_LIMIT")?,
            ..Trouble::default()
        };
        trouble.set(&disk);
        if let Ok(file) = std::env::var("CALAMUS_DISK_CONTROL") {
            let disk = disk.clone();
            std::thread::spawn(move || follow(&disk, &PathBuf::from(file), trouble));
        }
        Ok(Some(Arc::new(disk)))
    }

    /// Does what the control file says, as it changes, for as long as the process lives. A limit of space is set anew
    /// only when the file changes, because it counts down.
    fn follow(disk: &LosingDisk, file: &PathBuf, start: Trouble) {
        let mut now = start;
        loop {
            std::thread::sleep(LOOK);
            let Ok(text) = std::fs::read_to_string(file) else { continue };
            match Trouble::parse(&text) {
                Ok(wanted) if wanted != now => {
                    tracing::warn!(?wanted, "the fault door changes");
                    wanted.set(disk);
                    now = wanted;
                }
                Ok(_) => {}
                Err(why) => tracing::warn!(file = %file.display(), why, "the control file is not understood"),
            }
        }
    }
}
