//! How far a long work on backups is, for a person who waits: a bar on stderr.

use std::io::IsTerminal;
use std::ops::ControlFlow;

use calamus_engine::backup::BackupProgress;
use calamus_proto::v1;
use indicatif::{ProgressBar, ProgressStyle};

use crate::backup::describe;

/// A bar, if somebody is there to see it.
pub struct Bar(ProgressBar);

impl Bar {
    /// Shows nothing where stderr is no terminal, or nobody wants it.
    #[must_use]
    pub fn new(wanted: bool) -> Self {
        if !wanted || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{msg} [{bar:32}] {bytes}/{total_bytes}  {elapsed} gone");
        Self(ProgressBar::new(0).with_style(style.expect("the template is well formed").progress_chars("=> ")))
    }

    /// Shows how far it is. Never ends the work.
    pub fn show(&self, at: BackupProgress) -> ControlFlow<()> {
        self.told(&describe::progress(&at));
        ControlFlow::Continue(())
    }

    /// Shows what a node says of how far it is.
    pub fn told(&self, at: &v1::BackupProgress) {
        self.0.set_length(at.total_bytes);
        self.0.set_position(at.done_bytes);
        let left = at.left_seconds.map_or_else(|| "?".to_owned(), |left| format!("{left}"));
        let rate = super::super::table::bytes(at.bytes_per_second);
        self.0.set_message(format!("{}, {rate}/s, {left} s to go", at.stage));
    }

    /// Shows words in place of numbers.
    pub fn say(&self, words: String) {
        self.0.set_message(words);
    }

    /// Writes a line above the bar, or to stderr where there is none.
    pub fn line(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
