//! What became of the files? Counts, the first rejections, and all of them in a file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use intake::history::Taken;

use super::decoding::Rejected;
use super::gathering::Gathering;
use crate::human_units::{bytes, counted, grouped};

/// Rejections shown; all are in the rejects file.
const REJECTIONS_SHOWN: usize = 20;

/// Where rejected lines are appended.
pub struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Rejects {
    /// At `path`, which is created with the first of them.
    pub fn new(path: PathBuf) -> Rejects {
        Rejects { path, file: None }
    }

    fn append(&mut self, rejected: &[Rejected]) -> anyhow::Result<()> {
        let context = || format!("rejected lines cannot be written to {}", self.path.display());
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = File::options().append(true).create(true).open(&self.path).with_context(context)?;
                self.file.insert(BufWriter::new(file))
            }
        };
        for reject in rejected {
            serde_json::to_writer(&mut *file, reject)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    }
}

/// What has been committed.
pub struct Report {
    rejects: Rejects,
    pub events: u64,
    pub rejected: u64,
    archive_files: u64,
    archive_bytes: u64,
    first: Vec<Rejected>,
}

impl Report {
    /// Nothing yet.
    pub fn new(rejects: Rejects) -> Report {
        Report { rejects, events: 0, rejected: 0, archive_files: 0, archive_bytes: 0, first: Vec::new() }
    }

    /// Keeps rejected lines.
    pub fn reject(&mut self, rejected: Vec<Rejected>) -> anyhow::Result<()> {
        if rejected.is_empty() {
            return Ok(());
        }
        self.rejects.append(&rejected)?;
        self.rejected += rejected.len() as u64;
        let room = REJECTIONS_SHOWN - self.first.len();
        self.first.extend(rejected.into_iter().take(room));
        Ok(())
    }

    /// Counts a commit.
    pub fn add(&mut self, taken: Taken) {
        self.events += taken.rows;
        self.archive_files += taken.files;
        self.archive_bytes += taken.bytes;
    }

    /// The first rejections, a line each, and where all of them are.
    pub fn rejections(&self) -> String {
        let mut text = String::new();
        for Rejected { file, line, reason, .. } in &self.first {
            writeln!(text, "{file}:{line}: {reason}").expect("a String takes any text");
        }
        if self.rejected > 0 {
            let path = self.rejects.path.display();
            let all = grouped(self.rejected);
            writeln!(text, "all {all} rejected lines are in {path}").expect("a String takes any text");
        }
        text
    }

    /// All counts in one line.
    pub fn summary(&self, gathering: &Gathering, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(0.001);
        let already = match gathering.already_in {
            0 => String::new(),
            more => format!("; {} already taken in", counted(more as usize, "file")),
        };
        format!(
            "took in {} from {}, rejected {}{already} ({} in {} of the archive, {seconds:.1} s, {} rows/s)",
            counted(usize::try_from(self.events).unwrap_or(usize::MAX), "event"),
            counted(usize::try_from(gathering.files).unwrap_or(usize::MAX), "file"),
            grouped(self.rejected),
            bytes(self.archive_bytes),
            counted(usize::try_from(self.archive_files).unwrap_or(usize::MAX), "file"),
            grouped((gathering.rows as f64 / seconds) as u64),
        )
    }
}

/// What stands beside the progress bar.
pub fn pace(rows: u64, rows_per_s: f64) -> String {
    format!("{} rows, {} rows/s", grouped(rows), grouped(rows_per_s as u64))
}
