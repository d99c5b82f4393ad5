//! Takes the values of erased events out of segments that are finished: their frames are written again with blank rows, each at
//! its place and with its length, so that readers of the old file and of the new one find the same positions.

use std::io;

use shared::ids::Offset;

use super::columns::{ColumnReader, ColumnWriter};
use super::cursor::{CursorStep, Frame, FrameCursor};
use super::disk::{LogFile, OpenFile};
use super::error::LogError;
use super::frame::{FramePayload, put_frame};
use super::rewrite::copy_to;
use super::segment::{self, Segment, SegmentHeader};
use super::store::SegmentStore;
use crate::fail_points::IntakePoint;

/// Returns the meta of a frame without what it says about erased entities; `None`: it says nothing.
pub(crate) type MetaScrub<'a> = &'a dyn Fn(&[u8]) -> Option<Vec<u8>>;

/// Takes erased events out of all segments that begin before `before`, but the last. Returns the number of events. Blocking.
pub(crate) fn scrub(store: &SegmentStore, before: Offset, meta: MetaScrub<'_>) -> Result<u64, LogError> {
    let mut events = 0;
    for segment in store.finished(before) {
        match scrub_segment(store, &segment, meta) {
            Ok(found) => events += found,
            // Trimmed meanwhile: nothing of it is left.
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(events)
}

fn scrub_segment(store: &SegmentStore, segment: &Segment, meta: MetaScrub<'_>) -> Result<u64, LogError> {
    let (path, draft) = (&segment.path, segment.path.with_extension("new"));
    let file = store.disk.open(path).map_err(LogError::io(path))?;
    let (header, start) = segment::read_header(segment, store.partition, file.as_ref())?;
    let frames = FrameScrub::new(store, segment, &header)?;
    let mut cursor = FrameCursor::new(OpenFile::clone(&file), header.salt, start, segment.bytes);
    let (mut events, mut copy) = (0, None);
    loop {
        let frame = match cursor.step().map_err(LogError::io(path))? {
            CursorStep::Frame(frame) => frame,
            CursorStep::End => break,
            CursorStep::Broken(reason) => return Err(LogError::corrupt(path, cursor.position(), reason)),
        };
        let Some((bytes, erased)) = frames.scrubbed(&frame, meta)? else { continue };
        if copy.is_none() {
            let created = store.disk.create(&draft).map_err(LogError::io(&draft))?;
            copy_to(file.as_ref(), created.as_ref(), segment.bytes).map_err(LogError::io(&draft))?;
            copy = Some(created);
        }
        let copy = copy.as_ref().expect("it was just made");
        copy.write_at(&bytes, frame.position).map_err(LogError::io(&draft))?;
        events += erased;
    }
    if let Some(copy) = copy {
        install(store, segment, copy.as_ref(), &draft).map_err(LogError::io(path))?;
    }
    Ok(events)
}

fn install(store: &SegmentStore, segment: &Segment, copy: &dyn LogFile, draft: &std::path::Path) -> io::Result<()> {
    copy.sync_all()?;
    IntakePoint::LogScrub.check()?;
    let folder = segment.path.parent().unwrap_or(std::path::Path::new("."));
    // A segment that was trimmed meanwhile must not come back.
    let is_there = store.while_kept(segment, || store.disk.rename(draft, &segment.path)).transpose()?.is_some();
    if !is_there {
        return store.disk.remove(draft);
    }
    store.disk.open_folder(folder)?.sync_all()
}

/// Scrubs the frames of one segment.
struct FrameScrub<'a> {
    store: &'a SegmentStore,
    segment: &'a Segment,
    header: &'a SegmentHeader,
    reader: ColumnReader,
}

impl FrameScrub<'_> {
    fn new<'a>(
        store: &'a SegmentStore,
        segment: &'a Segment,
        header: &'a SegmentHeader,
    ) -> Result<FrameScrub<'a>, LogError> {
        let reader = ColumnReader::new(&segment.path, &header.columns, &store.stream)?;
        Ok(FrameScrub { store, segment, header, reader })
    }

    /// Returns the frame without erased events, and their number; `None`: it has none.
    fn scrubbed(&self, frame: &Frame, meta: MetaScrub<'_>) -> Result<Option<(Vec<u8>, u64)>, LogError> {
        let before = frame.meta();
        let scrubbed_meta = if before.is_empty() { None } else { meta(before) };
        let body = frame.body();
        let rows = match frame.rows() {
            0 => None,
            _ => {
                self.reader.blanked(frame.message(), &body, &self.store.stream, frame.header.arrived_at, &|e, s| {
                    // Rows that are blank already need no second time.
                    self.store
                        .tombstones
                        .rows(e, s)
                        .filter(|erased| super::blank::blank_rows(s).as_ref() != Some(erased))
                })?
            }
        };
        if rows.is_none() && scrubbed_meta.is_none() {
            return Ok(None);
        }
        let erased = rows.as_ref().map_or(0, |(_, erased)| *erased);
        let mut meta = scrubbed_meta.unwrap_or_else(|| before.to_vec());
        // White space at the end of JSON means nothing.
        meta.resize(before.len().max(meta.len()), b' ');
        let mut payload = match rows {
            Some((rows, _)) => ColumnWriter::new(&self.header.columns).encode_wire(&rows)?,
            None => FramePayload { message: frame.message().to_vec(), body: body.to_vec() },
        };
        payload.body.resize(body.len().max(payload.body.len()), 0);
        let mut bytes = Vec::new();
        let put = put_frame(&mut bytes, self.header.salt, &frame.header, &meta, &payload);
        match put {
            Some(()) if bytes.len() == frame.len() => Ok(Some((bytes, erased))),
            _ => {
                let reason = "a frame without its erased events would have another length";
                Err(LogError::corrupt(&self.segment.path, frame.position, reason))
            }
        }
    }
}
