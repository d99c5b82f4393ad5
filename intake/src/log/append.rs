//! Makes a group of frames durable with one write and one fdatasync. The first error that leaves the state of the disk in
//! doubt ends all writing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use shared::ids::Partition;
use shared::limits::LOG_BUFFER_BYTES_KEPT;
use shared::stream::Stream;
use shared::time::Micros;

use super::columns::ColumnWriter;
use super::disk::{FolderLock, LogDisk, OpenFile};
use super::error::{CommitError, LogError};
use super::frame::{FrameHeader, FramePayload, put_frame};
use super::io::{self, Exhausted};
use super::recover::{FrameVisitor, RecoveredLog, recover};
use super::segment::{self, LogFolder};
use super::settings::LogSettings;
use super::source_position::SourcePosition;
use super::store::SegmentStore;
use super::tombstones::Tombstones;
use super::totals::Totals;

/// The only writer of a partition's log.
pub(crate) struct Appender {
    dir: LogFolder,
    settings: LogSettings,
    store: Arc<SegmentStore>,
    file: OpenFile,
    /// The file of the next segment, opened ahead: a process without free file descriptors can still write its log.
    spare: Option<OpenFile>,
    salt: u32,
    columns: ColumnWriter,
    /// Frames of the current group.
    group: Vec<u8>,
    /// Durable bytes of the last segment.
    durable_bytes: u64,
    /// Totals after the last durable frame.
    durable: Totals,
    /// The position in the topic after the last durable frame.
    source: Option<SourcePosition>,
    /// Whether a frame records that the whole log is durable.
    marked: bool,
    /// Set by the first error that leaves doubt about what is on disk.
    poisoned: Option<String>,
    /// Held while the log is open, so that no second process writes to it.
    _lock: FolderLock,
}

/// An opened log: its writer, and the state found by recovery.
pub(crate) struct OpenedLog {
    pub appender: Appender,
    pub store: Arc<SegmentStore>,
    pub totals: Totals,
    pub source: Option<SourcePosition>,
    pub last_arrived_at: Option<Micros>,
}

/// Opens or creates the log in `dir`, checks every byte, trims a torn tail and calls `each` with every frame.
pub(crate) fn open(
    dir: &Path,
    partition: Partition,
    stream: Arc<Stream>,
    settings: LogSettings,
    each: &mut FrameVisitor<'_>,
) -> Result<OpenedLog, LogError> {
    let dir = LogFolder::open(&settings.disk, dir)?;
    let lock = lock(settings.disk.as_ref(), &dir.path)?;
    let tombstones = Arc::new(Tombstones::open(&dir.disk, &dir.path)?);
    let mut recovered = recover(&dir, partition, &stream, each)?;
    let totals = if recovered.segments.is_empty() { settings.begin } else { recovered.totals };
    let (header, file) = match recovered.last {
        Some((header, file)) if header.columns == stream.declared() => (header, file),
        // A new log, or the declared columns changed: their frames need a segment with these columns.
        Some((header, file)) if recovered.segments.last().is_some_and(|s| s.first == totals.head()) => {
            // Replaced in one step: an empty segment with the old columns has the name that the new one needs.
            drop((header, file));
            recovered.segments.pop();
            start_segment(&dir, partition, totals, &stream, &recovered.source, &mut recovered.segments)?
        }
        _ => start_segment(&dir, partition, totals, &stream, &recovered.source, &mut recovered.segments)?,
    };
    let durable_bytes = recovered.segments.last().map_or(0, |last| last.bytes);
    let store = Arc::new(SegmentStore::new(
        stream.clone(),
        partition,
        (Arc::clone(&dir.disk), tombstones),
        std::mem::take(&mut recovered.segments),
        totals.head(),
        settings.keep_events,
    ));
    let mut appender = Appender {
        dir,
        settings,
        store: store.clone(),
        file,
        spare: None,
        salt: header.salt,
        columns: ColumnWriter::new(stream.declared()),
        group: Vec::new(),
        durable_bytes,
        durable: totals,
        source: recovered.source.clone(),
        marked: false,
        poisoned: None,
        _lock: lock,
    };
    appender.open_spare();
    let RecoveredLog { source, last_arrived_at, .. } = recovered;
    Ok(OpenedLog { appender, store, totals, source, last_arrived_at })
}

fn start_segment(
    dir: &LogFolder,
    partition: Partition,
    totals: Totals,
    stream: &Stream,
    source: &Option<SourcePosition>,
    segments: &mut Vec<segment::Segment>,
) -> Result<(segment::SegmentHeader, OpenFile), LogError> {
    let file = dir.disk.create(&dir.spare()).map_err(LogError::io(&dir.path))?;
    let columns = stream.declared();
    let (segment, header) = segment::install(dir, file.as_ref(), partition, totals, columns, source.clone())?;
    segments.push(segment);
    Ok((header, file))
}

fn lock(disk: &dyn LogDisk, dir: &Path) -> Result<FolderLock, LogError> {
    let path = dir.join("lock");
    let lock = disk.lock(&path).map_err(LogError::io(&path))?;
    lock.ok_or_else(|| LogError::Locked { path: dir.to_owned() })
}

impl Appender {
    /// Adds a frame to the current group. `rows` have the log schema; `after` are the totals after them.
    pub fn stage(
        &mut self,
        rows: &RecordBatch,
        arrived_at: Micros,
        meta: &[u8],
        after: Totals,
    ) -> Result<(), CommitError> {
        if self.group.is_empty() {
            self.roll_if_full()?;
        }
        let payload = self.columns.encode(rows).map_err(|e| self.poison(e.to_string()))?;
        self.put(&payload, rows.num_rows(), arrived_at, meta, after)
    }

    /// Writes the group and makes it durable (I1). `source` is the position in the topic after it, as its frames hold it.
    /// Returns the duration of the sync; `None` if the group was empty.
    pub fn commit(&mut self, after: Totals, source: Option<&SourcePosition>) -> Result<Option<Duration>, CommitError> {
        if self.group.is_empty() {
            return Ok(None);
        }
        let sync_time = self.write_group(after)?;
        if self.source.as_ref() != source {
            self.source = source.cloned();
        }
        self.marked = false;
        Ok(Some(sync_time))
    }

    /// Writes an empty frame that records that the whole log is durable, so that damage to its end differs from a torn
    /// write. `now` are the totals, which duplicates change without a frame.
    pub fn mark(&mut self, now: Totals) -> Result<(), CommitError> {
        if self.marked && self.durable == now {
            return Ok(());
        }
        self.refuse_if_poisoned()?;
        self.put(&FramePayload::default(), 0, Micros(0), &[], now)?;
        self.write_group(now)?;
        self.marked = true;
        Ok(())
    }

    fn put(
        &mut self,
        payload: &FramePayload,
        rows: usize,
        arrived_at: Micros,
        meta: &[u8],
        after: Totals,
    ) -> Result<(), CommitError> {
        let rows =
            u32::try_from(rows).map_err(|_| self.poison("a frame has too many rows for its header".to_owned()))?;
        let header = FrameHeader { rows, arrived_at, durable_bytes: self.durable_bytes, after };
        put_frame(&mut self.group, self.salt, &header, meta, payload)
            .ok_or_else(|| self.poison("a frame is too long for its length field".to_owned()))
    }

    fn write_group(&mut self, after: Totals) -> Result<Duration, CommitError> {
        self.refuse_if_poisoned()?;
        let written = self.file.write_at(&self.group, self.durable_bytes);
        let bytes = self.group.len() as u64;
        self.group.clear();
        self.group.shrink_to(LOG_BUFFER_BYTES_KEPT);
        if let Err(error) = written {
            return Err(self.refuse_group("write to", &error));
        }
        let sync_started = shared::clock::monotonic_now();
        // I8: after a failed sync the kernel may have dropped the pages and marked them clean; a second sync would lie.
        if let Err(error) = self.file.sync_data() {
            return Err(self.refuse_group("sync of", &error));
        }
        self.durable_bytes += bytes;
        self.durable = after;
        self.store.advance(self.durable_bytes, after.head());
        Ok(sync_started.elapsed())
    }

    /// Cuts the file back to its durable bytes, durably, after a write or sync that failed for lack of room: the group must
    /// not count after a restart either. After any other error the content of the disk is in doubt.
    fn refuse_group(&mut self, what: &str, error: &std::io::Error) -> CommitError {
        let Some(exhausted) = Exhausted::of(error) else {
            return self.poison(format!("{what} the log failed: {error}"));
        };
        match io::truncate(self.file.as_ref(), self.durable_bytes) {
            Ok(()) => exhausted.into(),
            Err(cut) => self.poison(format!("{what} the log failed ({error}), and it could not be truncated: {cut}")),
        }
    }

    /// Starts the next segment if the last one has reached its size. The old one is durable already.
    fn roll_if_full(&mut self) -> Result<(), CommitError> {
        self.refuse_if_poisoned()?;
        self.open_spare();
        if self.durable_bytes < self.settings.segment_bytes {
            return Ok(());
        }
        self.roll()
    }

    /// Starts the next segment, unless the last one has no events. Nothing may be staged.
    pub fn roll(&mut self) -> Result<(), CommitError> {
        self.refuse_if_poisoned()?;
        // A segment without events has the name that the next one would get.
        if self.store.last_first() == self.durable.head() {
            return Ok(());
        }
        // Without room for the next segment nothing was lost: the full one is unchanged, and the next group tries again.
        let file = match self.spare.take().map_or_else(|| self.dir.disk.create(&self.dir.spare()), Ok) {
            Ok(file) => file,
            Err(error) => return Err(self.refuse_segment("create", &error)),
        };
        let (before, columns) = (self.durable, self.store.stream.declared());
        let source = self.source.clone();
        match segment::install(&self.dir, file.as_ref(), self.store.partition, before, columns, source) {
            Ok((segment, header)) => {
                self.file = file;
                self.salt = header.salt;
                self.durable_bytes = segment.bytes;
                self.marked = false;
                self.store.push_segment(segment);
                self.open_spare();
                Ok(())
            }
            Err(LogError::Io { source, .. }) => {
                self.spare = Some(file);
                Err(self.refuse_segment("write", &source))
            }
            Err(error) => Err(self.poison(error.to_string())),
        }
    }

    fn refuse_segment(&mut self, what: &str, error: &std::io::Error) -> CommitError {
        match Exhausted::of(error) {
            Some(exhausted) => exhausted.into(),
            None => self.poison(format!("cannot {what} a log segment: {error}")),
        }
    }

    /// Opens the file of the next segment. If that fails, later groups try again.
    fn open_spare(&mut self) {
        if self.spare.is_none() {
            match self.dir.disk.create(&self.dir.spare()) {
                Ok(file) => self.spare = Some(file),
                Err(error) => {
                    tracing::warn!(dir = %self.dir.path.display(), %error, "cannot open the next log segment")
                }
            }
        }
    }

    /// Discards the current group.
    pub fn abandon(&mut self) {
        self.group.clear();
    }

    fn refuse_if_poisoned(&self) -> Result<(), CommitError> {
        self.poisoned.as_ref().map_or(Ok(()), |reason| Err(CommitError::Fatal(reason.clone())))
    }

    fn poison(&mut self, reason: String) -> CommitError {
        tracing::error!(dir = %self.dir.path.display(), %reason, "the log failed; no further writes");
        self.poisoned = Some(reason.clone());
        CommitError::Fatal(reason)
    }
}
