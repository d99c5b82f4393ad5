//! What is in the log after a crash? Checks every byte of every segment, trims a torn tail and refuses corruption.
//!
//! A torn tail is what a write left that was never acknowledged. Only the last segment can have one, because a segment is
//! begun after all before it are durable; and no sound frame behind it may say that its bytes were durable already.

use std::fs::{File, OpenOptions};
use std::path::Path;

use shared::ids::Partition;
use shared::stream::Stream;
use shared::time::Micros;

use super::columns::ColumnReader;
use super::cursor::{Frame, FrameCursor, Step};
use super::error::LogError;
use super::segment::{self, Segment, SegmentHeader};
use super::totals::Totals;

/// A log that was found in order.
pub(crate) struct Recovered {
    /// Oldest first; empty if there was no log yet.
    pub segments: Vec<Segment>,
    /// Header and file of the last segment, open for writing.
    pub last: Option<(SegmentHeader, File)>,
    pub totals: Totals,
    /// When the newest event arrived.
    pub last_arrived_at: Option<Micros>,
}

/// Scans the log in `dir`, shows every frame to `each` and makes what it found durable.
pub(crate) fn recover(
    dir: &Path,
    partition: Partition,
    stream: &Stream,
    each: &mut dyn FnMut(&Frame) -> Result<(), &'static str>,
) -> Result<Recovered, LogError> {
    let mut segments = segment::list(dir)?;
    let mut recovered = Recovered { segments: Vec::new(), last: None, totals: Totals::START, last_arrived_at: None };
    let count = segments.len();
    for (i, segment) in segments.iter_mut().enumerate() {
        let path = segment.path.clone();
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(LogError::io(&path))?;
        let (header, start) = segment::read_header(segment, partition, &mut file)?;
        if i > 0 && header.before.accepted != recovered.totals.accepted {
            let head = recovered.totals.head();
            let reason = format!("does not continue the segment before it, which ends at offset {head}");
            return Err(LogError::Misplaced { path, reason });
        }
        recovered.totals = header.before;
        let frames = file.try_clone().map_err(LogError::io(&path))?;
        let mut cursor = FrameCursor::new(frames, header.salt, start, segment.bytes);
        let mut readable = false;
        loop {
            match cursor.step().map_err(LogError::io(&path))? {
                Step::Frame(frame) => {
                    if frame.header.first_offset() != recovered.totals.head() {
                        let reason = "a frame does not continue the one before it";
                        return Err(LogError::corrupt(&path, frame.position, reason));
                    }
                    recovered.totals = frame.header.after;
                    if frame.rows() > 0 {
                        // Of a segment without events any columns will do.
                        if !readable {
                            ColumnReader::new(&path, &header.columns, stream)?;
                            readable = true;
                        }
                        recovered.last_arrived_at = Some(frame.header.arrived_at);
                    }
                    each(&frame).map_err(|reason| LogError::corrupt(&path, frame.position, reason))?;
                }
                Step::End => break,
                Step::Broken(reason) => {
                    let position = cursor.position();
                    let torn = i + 1 == count && !cursor.durable_beyond(position).map_err(LogError::io(&path))?;
                    if !torn {
                        return Err(LogError::corrupt(&path, position, reason));
                    }
                    let bytes = segment.bytes - position;
                    tracing::warn!(path = %path.display(), position, bytes, reason, "trimmed a torn tail of the log");
                    file.set_len(position).map_err(LogError::io(&path))?;
                    segment.bytes = position;
                    break;
                }
            }
        }
        if i + 1 == count {
            // What a crash left in memory only may be shown to nobody before it is on disk.
            file.sync_all().map_err(LogError::io(&path))?;
            recovered.last = Some((header, file));
        }
    }
    segment::sync_dir(dir).map_err(LogError::io(dir))?;
    recovered.segments = segments;
    Ok(recovered)
}
