//! Reports the outcome of an import: counts, the first rejections, and a file with all rejections.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use intake::history::CommittedChunk;

use super::chunk_builder::ChunkBuilder;
use super::decode::RejectedRecord;
use crate::human_units::{bytes, counted, grouped};

/// Number of rejections printed; all are in the rejects file.
const REJECTIONS_SHOWN: usize = 20;

/// The file to which rejected records are appended.
pub struct RejectsFile {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl RejectsFile {
    /// Uses the file at `path`, which is created, with its folder, for the first record.
    pub fn new(path: PathBuf) -> RejectsFile {
        RejectsFile { path, file: None }
    }

    fn append(&mut self, rejected: &[RejectedRecord]) -> anyhow::Result<()> {
        let context = || format!("cannot write rejected lines to {}", self.path.display());
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(folder) = self.path.parent() {
                    std::fs::create_dir_all(folder).with_context(context)?;
                }
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

/// Counts of what has been committed and rejected.
pub struct ImportReport {
    rejects: RejectsFile,
    pub events: u64,
    pub rejected: u64,
    archive_files: u64,
    archive_bytes: u64,
    first: Vec<RejectedRecord>,
}

impl ImportReport {
    /// Starts with all counts at 0.
    pub fn new(rejects: RejectsFile) -> ImportReport {
        ImportReport { rejects, events: 0, rejected: 0, archive_files: 0, archive_bytes: 0, first: Vec::new() }
    }

    /// Counts rejected records and appends them to the file.
    pub fn reject(&mut self, rejected: Vec<RejectedRecord>) -> anyhow::Result<()> {
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
    pub fn add(&mut self, committed: CommittedChunk) {
        self.events += committed.rows;
        self.archive_files += committed.files;
        self.archive_bytes += committed.bytes;
    }

    /// Returns the first rejections, one per line, and the path of the file with all of them.
    pub fn rejections(&self) -> String {
        let mut text = String::new();
        for RejectedRecord { file, line, reason, .. } in &self.first {
            writeln!(text, "{file}:{line}: {reason}").expect("a String takes any text");
        }
        if self.rejected > 0 {
            let path = self.rejects.path.display();
            let all = grouped(self.rejected);
            writeln!(text, "all {all} rejected lines are in {path}").expect("a String takes any text");
        }
        text
    }

    /// Returns all counts in one line.
    pub fn summary(&self, builder: &ChunkBuilder, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(0.001);
        let already = match builder.already_imported {
            0 => String::new(),
            more => format!("; {} already imported", counted(more as usize, "file")),
        };
        format!(
            "ingested {} from {}, rejected {}{already} ({} in {} of the archive, {seconds:.1} s, {} rows/s)",
            counted(usize::try_from(self.events).unwrap_or(usize::MAX), "event"),
            counted(usize::try_from(builder.files).unwrap_or(usize::MAX), "file"),
            grouped(self.rejected),
            bytes(self.archive_bytes),
            counted(usize::try_from(self.archive_files).unwrap_or(usize::MAX), "file"),
            grouped((builder.rows as f64 / seconds) as u64),
        )
    }
}

/// Returns the text beside the progress bar.
pub fn pace(rows: u64, rows_per_s: f64) -> String {
    format!("{} rows, {} rows/s", grouped(rows), grouped(rows_per_s as u64))
}
