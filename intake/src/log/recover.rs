//! Recovers a log: checks every byte of every segment, trims a torn tail and refuses corruption.
//!
//! A torn tail is left by a write that was never acknowledged. Only the last segment can have one, because a segment is
//! created after all before it are durable; and no valid frame after it may record that its bytes were durable already.
//! Frames after the last such record may be in the page cache only; `rewrite` makes them durable before they count.

use std::sync::Arc;

use shared::ids::Partition;
use shared::stream::Stream;
use shared::time::Micros;

use super::columns::ColumnReader;
use super::cursor::{CursorStep, Frame, FrameCursor};
use super::disk::OpenFile;
use super::error::LogError;
use super::io;
use super::rewrite::rewrite_tail;
use super::segment::{self, LogFolder, Segment, SegmentHeader};
use super::source_position::SourcePosition;
use super::totals::Totals;

/// A log whose frames were checked.
pub(crate) struct RecoveredLog {
    /// Oldest first; empty if there was no log yet.
    pub segments: Vec<Segment>,
    /// Header and file of the last segment, open for writing.
    pub last: Option<(SegmentHeader, OpenFile)>,
    pub totals: Totals,
    /// The last position in the topic that the stream reads.
    pub source: Option<SourcePosition>,
    /// When the newest event arrived.
    pub last_arrived_at: Option<Micros>,
}

/// Is called with every frame; returns the position in a topic that the frame's meta holds, or why the frame cannot be read.
pub(crate) type FrameVisitor<'a> = dyn FnMut(&Frame) -> Result<Option<SourcePosition>, &'static str> + 'a;

/// Scans the log in `dir`, calls `each` with every frame and makes all frames durable.
pub(crate) fn recover(
    dir: &LogFolder,
    partition: Partition,
    stream: &Stream,
    each: &mut FrameVisitor<'_>,
) -> Result<RecoveredLog, LogError> {
    let mut segments = segment::list(dir)?;
    let mut recovered =
        RecoveredLog { segments: Vec::new(), last: None, totals: Totals::START, source: None, last_arrived_at: None };
    let count = segments.len();
    for (i, segment) in segments.iter_mut().enumerate() {
        let path = segment.path.clone();
        let file = dir.disk.open_writable(&path).map_err(LogError::io(&path))?;
        let (header, start) = segment::read_header(segment, partition, file.as_ref())?;
        if i > 0 && header.before.accepted != recovered.totals.accepted {
            let head = recovered.totals.head();
            let reason = format!("the segment does not continue the one before it, which ends at offset {head}");
            return Err(LogError::Misplaced { path, reason });
        }
        recovered.totals = header.before;
        // Segments before it may have been deleted.
        recovered.source = header.source.clone().or(recovered.source);
        let mut cursor = FrameCursor::new(Arc::clone(&file), header.salt, start, segment.bytes);
        let mut readable = false;
        // Bytes that a frame of this segment records as durable, and the position of the last frame with content.
        let (mut durable, mut last_content) = (start, None);
        loop {
            match cursor.step().map_err(LogError::io(&path))? {
                CursorStep::Frame(frame) => {
                    if frame.header.first_offset() != recovered.totals.head() {
                        let reason = "a frame does not continue the one before it";
                        return Err(LogError::corrupt(&path, frame.position, reason));
                    }
                    recovered.totals = frame.header.after;
                    durable = durable.max(frame.header.durable_bytes);
                    if frame.rows() > 0 || !frame.meta().is_empty() {
                        last_content = Some(frame.position);
                    }
                    if frame.rows() > 0 {
                        // A segment without events may have any columns.
                        if !readable {
                            ColumnReader::new(&path, &header.columns, stream)?;
                            readable = true;
                        }
                        recovered.last_arrived_at = Some(frame.header.arrived_at);
                    }
                    let source = each(&frame).map_err(|reason| LogError::corrupt(&path, frame.position, reason))?;
                    recovered.source = source.or(recovered.source);
                }
                CursorStep::End => break,
                CursorStep::Broken(reason) => {
                    let position = cursor.position();
                    let torn = i + 1 == count && !cursor.durable_beyond(position).map_err(LogError::io(&path))?;
                    if !torn {
                        return Err(LogError::corrupt(&path, position, reason));
                    }
                    let bytes = segment.bytes - position;
                    tracing::warn!(path = %path.display(), position, bytes, reason, "trimmed the torn tail of the log");
                    file.set_length(position).map_err(LogError::io(&path))?;
                    segment.bytes = position;
                    break;
                }
            }
        }
        if i + 1 == count {
            // I1: bytes that a crash or a failed sync left only in the page cache must reach the disk before they count.
            let file = if last_content.is_some_and(|position| position >= durable) {
                rewrite_tail(dir, &path, file, durable, segment.bytes)?
            } else {
                // Only records of durability: without them nothing is lost, and the next group takes their place.
                segment.bytes = segment.bytes.min(durable);
                io::truncate(file.as_ref(), segment.bytes).map_err(LogError::io(&path))?;
                file
            };
            recovered.last = Some((header, file));
        }
    }
    dir.handle.sync_all().map_err(LogError::io(&dir.path))?;
    recovered.segments = segments;
    Ok(recovered)
}
