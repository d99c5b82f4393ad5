//! Rewrites the end of a log that may be in the page cache only, before any of it counts.
//!
//! After a failed sync the kernel marks the pages as clean although the disk does not have them. The next process reads
//! them like durable ones, and a further sync succeeds without writing a byte. So what no frame records as durable is
//! written again: to a copy, which replaces the segment once it is durable, or in place if there is no room for a copy.

use std::io;
use std::path::Path;

use super::disk::{LogFile, OpenFile};
use super::error::LogError;
use super::io::Exhausted;
use super::segment::LogFolder;

/// Bytes copied at once.
const CHUNK_BYTES: u64 = 4 * 1024 * 1024;

/// Writes the bytes of the segment at `path` again; they end at `end`, and those before `durable` are durable. Returns the
/// file, which may be another one.
pub(crate) fn rewrite_tail(
    folder: &LogFolder,
    path: &Path,
    segment: OpenFile,
    durable: u64,
    end: u64,
) -> Result<OpenFile, LogError> {
    let copied = copy(folder, path, segment.as_ref(), end);
    match copied {
        Ok(file) => Ok(file),
        Err(error) if Exhausted::of(&error).is_some() => {
            tracing::warn!(path = %path.display(), %error, "no room to copy the last segment; rewriting its end in place");
            in_place(segment.as_ref(), durable, end).map_err(LogError::io(path))?;
            Ok(segment)
        }
        Err(error) => Err(LogError::io(path)(error)),
    }
}

fn copy(folder: &LogFolder, path: &Path, segment: &dyn LogFile, end: u64) -> io::Result<OpenFile> {
    let unfinished = path.with_extension("new");
    let file = folder.disk.create(&unfinished)?;
    copy_to(segment, file.as_ref(), end)?;
    file.sync_data()?;
    folder.disk.rename(&unfinished, path)?;
    // The copy has the name now: after a lack of room here, writing to the old file would write to one that no name leads to.
    folder.handle.sync_all().map_err(io::Error::other)?;
    Ok(file)
}

fn in_place(segment: &dyn LogFile, durable: u64, end: u64) -> io::Result<()> {
    chunks(segment, durable, end, &mut |position, bytes| segment.write_at(bytes, position))?;
    segment.sync_data()
}

/// Copies the first `end` bytes of a file to another one.
pub(crate) fn copy_to(from: &dyn LogFile, to: &dyn LogFile, end: u64) -> io::Result<()> {
    chunks(from, 0, end, &mut |position, bytes| to.write_at(bytes, position))
}

/// Calls `each` with the bytes `from..to` of a file, in order, with their positions.
fn chunks(
    file: &dyn LogFile,
    from: u64,
    to: u64,
    each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES.min(to - from) as usize];
    let mut position = from;
    while position < to {
        let length = CHUNK_BYTES.min(to - position) as usize;
        file.read_at(&mut buffer[..length], position)?;
        each(position, &buffer[..length])?;
        position += length as u64;
    }
    Ok(())
}
