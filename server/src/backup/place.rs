//! A place for backups as an operator writes it.
//!
//! | URL | place |
//! | --- | --- |
//! | `file:///var/backups/a`, `/var/backups/a`, `backups/a` | a directory of this machine |
//! | `s3://BUCKET`, `s3://BUCKET/PREFIX` | a bucket of an S3-compatible service, see [`super::object`] |
//!
//! Anything else is refused. A place is parsed without being looked at, so that a wrong one is found when a node starts and
//! not when the first backup is due; [`PlaceUrl::open`] makes the store, and only its use finds out whether the place is there.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use calamus_engine::backup::{BackupStore, DirectoryStore};
use calamus_engine::env::{Disk, RealDisk};
use url::Url;

use super::object::{BucketStore, Patience};
use crate::failure::Failure;

/// A place for backups, by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceUrl {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Directory(PathBuf),
    Bucket { bucket: String, prefix: String },
}

impl PlaceUrl {
    /// The store of this place.
    ///
    /// # Errors
    /// When the environment does not say how to reach the service of a bucket.
    pub fn open(&self) -> Result<Arc<dyn BackupStore>, Failure> {
        match &self.kind {
            Kind::Directory(path) => {
                let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
                Ok(Arc::new(DirectoryStore::new(disk, path)))
            }
            Kind::Bucket { bucket, prefix } => Ok(Arc::new(BucketStore::open(bucket, prefix, Patience::default())?)),
        }
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Directory(path) => Some(path),
            Kind::Bucket { .. } => None,
        }
    }
}

impl std::fmt::Display for PlaceUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for PlaceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            Err(format!(
                "`{text}` is no place for backups: {why}; a place is a directory (`/var/backups/a`, \
                 `file:///var/backups/a`) or a bucket (`s3://BUCKET/PREFIX`)"
            ))
        };
        let Some((scheme, _)) = text.split_once("://") else {
            let kind = Kind::Directory(PathBuf::from(text));
            return if text.is_empty() { wrong("it is empty") } else { Ok(Self { text: text.to_owned(), kind }) };
        };
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => return wrong(&error.to_string()),
        };
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return wrong("it has more than a path; credentials are given in the environment");
        }
        let kind = match scheme {
            "file" => match url.to_file_path() {
                Ok(path) => Kind::Directory(path),
                Err(()) => return wrong("its path is not one of this machine"),
            },
            "s3" => match url.host_str() {
                Some(bucket) if url.port().is_none() => {
                    let prefix = url.path().trim_matches('/').to_owned();
                    if prefix.split('/').any(|part| part.is_empty() || part.contains('%')) && !prefix.is_empty() {
                        return wrong("its prefix has an empty part, or a sign that an URL writes with %");
                    }
                    Kind::Bucket { bucket: bucket.to_owned(), prefix }
                }
                _ => return wrong("it names no bucket"),
            },
            _ => return wrong(&format!("the scheme `{scheme}` is not known")),
        };
        Ok(Self { text: text.to_owned(), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_buckets() {
        let directory = |path: &str| Kind::Directory(PathBuf::from(path));
        let bucket = |bucket: &str, prefix: &str| Kind::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        for (text, kind) in [
            ("/var/backups/a", directory("/var/backups/a")),
            ("backups", directory("backups")),
            ("file:///var/backups/a%20b", directory("/var/backups/a b")),
            ("s3://cold", bucket("cold", "")),
            ("s3://cold/", bucket("cold", "")),
            ("s3://cold/calamus/eu-1/", bucket("cold", "calamus/eu-1")),
        ] {
            let parsed: PlaceUrl = text.parse().expect(text);
            assert_eq!((&parsed.kind, parsed.to_string()), (&kind, text.to_owned()));
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_is_understood() {
        for (bad, why) in [
            ("", "empty"),
            ("gs://cold/a", "`gs`"),
            ("https://s3.example/cold", "`https`"),
            ("file://elsewhere/var", "this machine"),
            ("s3:///a", "bucket"),
            ("s3://cold:9000/a", "bucket"),
            ("s3://key:secret@cold/a", "environment"),
            ("s3://cold/a?region=x", "more than a path"),
            ("s3://cold/a//b", "empty part"),
        ] {
            let error = bad.parse::<PlaceUrl>().expect_err(bad);
            assert!(error.contains(why) && error.contains("s3://BUCKET/PREFIX"), "{bad}: {error}");
        }
    }
}
