//! What stands in a node's configuration file (`calamus serve --config FILE`): what has a structure, and so does not fit into
//! flags. Everything else is a flag or a variable, see [`crate::config`].
//!
//! ```toml
//! [backup.targets.cold]
//! url = "s3://cold/calamus/eu-1"
//!
//! full_every = "1week"
//! incremental_every = "1h"
//! limit_mib_s = 50
//!
//! [backup.targets.near]
//! url = "file:///var/backups/calamus"
//! ```
//!
//! A target is a place that this node may write backups to, under a name. A client names a target, never a place: so it
//! cannot make a node write anywhere. What is not understood is refused before the node's directory is touched. There is no
//! file by default.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::backup::place::PlaceUrl;
use crate::config::node_name;
use crate::failure::Failure;

/// A configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What is said of backups.
    #[serde(default)]
    pub backup: BackupSettings,
}

/// What is said of backups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupSettings {
    /// Places that backups may go to, by name.
    #[serde(default)]
    pub targets: BTreeMap<String, TargetSettings>,
}

/// A place that backups may go to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSettings {
    /// Where it is.
    #[serde(deserialize_with = "place")]
    pub url: PlaceUrl,
    /// How often a full backup is made there; not by schedule if it is not said.
    #[serde(default, deserialize_with = "duration")]
    pub full_every: Option<Duration>,
    /// How often what was committed since is added; not by schedule if it is not said.
    #[serde(default, deserialize_with = "duration")]
    pub incremental_every: Option<Duration>,
    /// How much a backup by schedule copies at most, in MiB a second; without a bound if it is not said.
    #[serde(default)]
    pub limit_mib_s: Option<NonZeroU32>,
}

/// When backups are made without being asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScheduleSettings {
    /// The time between two full ones.
    pub full_every: Option<Duration>,
    /// The time between two of any kind.
    pub incremental_every: Option<Duration>,
    /// How many bytes a second are copied at most.
    pub bytes_per_second: Option<u64>,
}

impl TargetSettings {
    /// When backups are made there.
    #[must_use]
    pub fn schedule(&self) -> ScheduleSettings {
        ScheduleSettings {
            full_every: self.full_every,
            incremental_every: self.incremental_every,
            bytes_per_second: self.limit_mib_s.map(|mib| u64::from(mib.get()) << 20),
        }
    }
}

impl ScheduleSettings {
    /// Whether there is anything to do.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.full_every.is_some() || self.incremental_every.is_some()
    }
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match humantime::parse_duration(&text) {
        Ok(every) if every >= Duration::from_secs(1) => Ok(Some(every)),
        Ok(_) => Err(serde::de::Error::custom(format!("`{text}` is less than a second"))),
        Err(error) => {
            Err(serde::de::Error::custom(format!("`{text}` is no time: {error}; as in 1week, 1day, 1h, 30m")))
        }
    }
}

fn place<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<PlaceUrl, D::Error> {
    let place: PlaceUrl = String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)?;
    match place.directory() {
        Some(path) if path.is_relative() => Err(serde::de::Error::custom(format!(
            "`{place}` depends on where the node is started; write the whole path of a directory"
        ))),
        _ => Ok(place),
    }
}

impl Settings {
    /// Reads a file; no file says nothing.
    ///
    /// # Errors
    /// When it cannot be read, or says what is not understood.
    pub fn read(file: Option<&Path>) -> Result<Settings, Failure> {
        let Some(file) = file else { return Ok(Settings::default()) };
        let text = std::fs::read_to_string(file).map_err(|error| {
            Failure::new(
                format!("cannot read the configuration {}", file.display()),
                error,
                "check the path given to --config, and its permissions",
            )
        })?;
        Settings::parse(&text).map_err(|why| {
            Failure::new(
                format!("the configuration {} is not understood", file.display()),
                why,
                "docs/operations/backup.md says what may stand there",
            )
        })
    }

    fn parse(text: &str) -> Result<Settings, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        for name in settings.backup.targets.keys() {
            node_name(name)
                .map_err(|why| format!("the target `{name}`: {}", why.replace("node name", "target's name")))?;
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names_and_places() {
        let text = "[backup.targets.cold]\nurl = \"s3://cold/a\"\n[backup.targets.near]\nurl = \"/var/backups\"\n";
        let targets = Settings::parse(text).unwrap().backup.targets;
        let urls: Vec<_> = targets.iter().map(|(name, target)| (name.as_str(), target.url.to_string())).collect();
        assert_eq!(urls, [("cold", "s3://cold/a".to_owned()), ("near", "/var/backups".to_owned())]);
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        assert!(!targets["cold"].schedule().is_set());
    }

    #[test]
    fn a_schedule_is_said_in_words() {
        let text = "[backup.targets.a]\nurl = \"/a\"\nfull_every = \"1week\"\nincremental_every = \"1h 30m\"\n\
                    limit_mib_s = 3";
        let schedule = Settings::parse(text).unwrap().backup.targets["a"].schedule();
        let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
        let wanted = ScheduleSettings {
            full_every: seconds(7 * 86_400),
            incremental_every: seconds(5400),
            bytes_per_second: Some(3 << 20),
        };
        assert_eq!(schedule, wanted);
    }

    #[test]
    fn what_is_not_understood_is_refused_and_named() {
        for (text, named) in [
            ("backup", "expected"),
            ("[backups]", "backups"),
            ("[backup.targets.a]\nurl = \"s3://b\"\nspeed = 1", "speed"),
            ("[backup.targets.a]", "url"),
            ("[backup.targets.a]\nurl = \"gs://b\"", "gs"),
            ("[backup.targets.a]\nurl = \"backups\"", "whole path"),
            ("[backup.targets.a]\nurl = \"/a\"\nfull_every = \"often\"", "often"),
            ("[backup.targets.a]\nurl = \"/a\"\nfull_every = \"0s\"", "less than a second"),
            ("[backup.targets.a]\nurl = \"/a\"\nlimit_mib_s = 0", "limit_mib_s"),
            ("[backup.targets.\"a b\"]\nurl = \"/a\"", "a b"),
        ] {
            let why = Settings::parse(text).expect_err(text);
            assert!(why.contains(named), "{text}: {why}");
        }
    }
}
