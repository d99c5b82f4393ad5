//! Inspects the log of a stream without opening it: its columns, its partitions, and whether it has events.
//!
//! Changes nothing and takes no lock, so it is safe while a server writes.

use std::path::Path;

use shared::ids::{Offset, Partition};
use shared::stream::Column;

use super::cursor::{CursorStep, FrameCursor};
use super::disk::{LocalDisk, LogDisk};
use super::error::LogError;
use super::segment::{self, Segment};

/// The contents of the log of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogContents {
    /// Every column of the segments with events, in the order in which they appeared.
    pub columns: Vec<Column>,
    /// Partitions up to the last that has an event; 0 if the log never had one.
    pub partitions: u32,
}

/// Inspects the log that a stream has under `dir`, which need not exist. Blocking.
pub fn inspect(dir: &Path) -> Result<LogContents, LogError> {
    let mut contents = LogContents::default();
    if !dir.exists() {
        return Ok(contents);
    }
    for path in LocalDisk.list(dir).map_err(LogError::io(dir))? {
        let Some(number) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()) else {
            continue;
        };
        for segment in segment::find(&LocalDisk, &path)? {
            let Some(columns) = columns_of(&segment, Partition(number))? else { continue };
            contents.partitions = contents.partitions.max(number + 1);
            for column in columns {
                if !contents.columns.iter().any(|known| known.name == column.name) {
                    contents.columns.push(column);
                }
            }
        }
    }
    Ok(contents)
}

/// The columns of a segment; `None` if neither it nor one before it holds an event.
fn columns_of(segment: &Segment, partition: Partition) -> Result<Option<Vec<Column>>, LogError> {
    let path = &segment.path;
    let file = match LocalDisk.open(path) {
        Ok(file) => file,
        // A running server deleted it meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io(path)(error)),
    };
    let (header, start) = segment::read_header(segment, partition, file.as_ref())?;
    if segment.first > Offset(0) {
        return Ok(Some(header.columns));
    }
    let mut cursor = FrameCursor::new(file, header.salt, start, segment.bytes);
    loop {
        match cursor.step().map_err(LogError::io(path))? {
            CursorStep::Frame(frame) if frame.rows() == 0 => {}
            CursorStep::Frame(_) => return Ok(Some(header.columns)),
            // A broken frame is either being written or reported when the log is opened.
            CursorStep::End | CursorStep::Broken(_) => return Ok(None),
        }
    }
}
