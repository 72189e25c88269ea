//! What stands in a node's configuration file (`calamus serve --config FILE`): what has a structure, and so does not fit into
//! flags. Everything else is a flag or a variable, see [`crate::config`].
//!
//! ```toml
//! [backup.targets.cold]
//! url = "s3://cold/calamus/eu-1"
//!
//! [backup.targets.near]
//! url = "file:///var/backups/calamus"
//! ```
//!
//! A target is a place that this node may write backups to, under a name. A client names a target, never a place: so it
//! cannot make a node write anywhere. What is not understood is refused before the node's directory is touched. There is no
//! file by default.

use std::collections::BTreeMap;
use std::path::Path;

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
            ("[backup.targets.\"a b\"]\nurl = \"/a\"", "a b"),
        ] {
            let why = Settings::parse(text).expect_err(text);
            assert!(why.contains(named), "{text}: {why}");
        }
    }
}
