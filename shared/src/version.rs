//! What has batch published? One immutable version of a view: its files, its seam and what it accounts for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::compare::Comparison;
use crate::data_file::DataFile;
use crate::ids::ViewName;
use crate::ledger::Ledger;
use crate::seam::Cut;
use crate::time::{Day, Micros};

/// A published result of a batch run. Kept in the metadata of the Delta commit that published it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchVersion {
    pub view: ViewName,
    /// The statement that declared the view, and the hash of what it computes.
    pub sql: String,
    pub definition_hash: String,
    /// Version of the view's Delta table.
    pub version: i64,
    pub run: String,
    pub published_at: Micros,
    /// Everything before it is in this version.
    pub seam: Cut,
    /// The events this version really accounts for; equal to the seam's if nothing was lost.
    pub ledger: Ledger,
    /// Did the run recompute everything?
    pub full: bool,
    /// Rows of the version in all.
    pub rows: u64,
    /// No session of the version is longer, from its first event to its end; 0 for views without sessions.
    #[serde(default)]
    pub longest_session_us: i64,
    /// How far off what it replaced had been, without the rows; `None`: it was not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Box<Comparison>>,
    /// The file with all of it, written before the version was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison_file: Option<DataFile>,
    /// What the run did that published it; not known of versions that an earlier program wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<RunWork>,
    /// Files of the version, and their bytes; `None`: published before these were noted.
    #[serde(default)]
    pub file_count: Option<u64>,
    #[serde(default)]
    pub bytes: Option<u64>,
    /// The stream's watermark and its latest event time when the version was made: by them its rows are judged again.
    #[serde(default)]
    pub watermark: Option<Micros>,
    #[serde(default)]
    pub latest_event: Option<Micros>,
    /// The first window date that retention has left; `None`: it has dropped none.
    #[serde(default)]
    pub retained_from: Option<Day>,
    /// Windows that start before it are frozen: the stream's retention has dropped events that they are made of, so they
    /// stay as they were. `None`: none are.
    #[serde(default)]
    pub frozen_before: Option<Day>,
    /// No later than this the last session ends that begins before `retained_from`: what is in no file any more, and may
    /// still reach into days that are left. `None` for views without sessions, or when nothing has been dropped.
    #[serde(default)]
    pub dropped_sessions_end: Option<Micros>,
    /// Events that came when all their windows had been dropped or were frozen: part of the ledger, and of no row.
    #[serde(default)]
    pub past_retention: u64,
    /// Files by window date; one under `None` for a view over all time. Not part of the metadata: Delta lists them.
    #[serde(skip)]
    pub files: Vec<VersionFile>,
}

/// How much a run did, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunWork {
    pub started_at: Micros,
    /// Events in the files that it read, and the bytes of those files.
    pub events: u64,
    pub bytes: u64,
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFile {
    /// Path relative to the view's table.
    pub path: String,
    pub date: Option<Day>,
    pub rows: u64,
    pub size_bytes: u64,
}

impl BatchVersion {
    /// Events that the run read per second, if it read any.
    pub fn events_per_second(&self) -> Option<f64> {
        let work = self.work?;
        let seconds = (self.published_at.0 - work.started_at.0) as f64 / 1e6;
        (work.events > 0 && seconds > 0.0).then(|| work.events as f64 / seconds)
    }

    /// The start of the first window that retention has left, in microseconds.
    pub fn first_start(&self) -> i64 {
        self.retained_from.map_or(i64::MIN, |day| day.start().0)
    }

    /// The start of the first window that is not frozen, in microseconds.
    pub fn frozen_until(&self) -> i64 {
        self.frozen_before.map_or(i64::MIN, |day| day.start().0)
    }

    /// Files that may hold windows starting in `from..to` (microseconds).
    pub fn files_touching(&self, from: i64, to: i64) -> impl Iterator<Item = &VersionFile> {
        self.files.iter().filter(move |file| match file.date {
            Some(date) => date.start().0 < to && Day(date.0 + 1).start().0 > from,
            None => true,
        })
    }

    /// Files by date.
    pub fn by_date(&self) -> BTreeMap<Option<Day>, Vec<&VersionFile>> {
        let mut dates: BTreeMap<Option<Day>, Vec<&VersionFile>> = BTreeMap::new();
        for file in &self.files {
            dates.entry(file.date).or_default().push(file);
        }
        dates
    }
}
