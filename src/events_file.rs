//! Reads a file of events as batches of lines, without parsing the lines; the server does that.
//!
//! NDJSON (plain, gzip, zstd) is cut at line ends, Parquet rows are written as Arrow streams, or as lines if they have nested
//! values. The first bytes of a file show its format.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use indicatif::ProgressBar;
use shared::limits::EVENT_BODY_BYTES_MAX;

use crate::line_batch::{BatchFormat, LineBatch};
use crate::parquet_rows;

/// The format of a file, detected from its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Lines,
    Gzip,
    Zstd,
    Parquet,
}

impl Format {
    fn of(head: &[u8]) -> Format {
        match head {
            [0x1f, 0x8b, ..] => Format::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
            [b'P', b'A', b'R', b'1', ..] => Format::Parquet,
            _ => Format::Lines,
        }
    }
}

/// An opened file, or standard input.
pub struct EventsFile {
    reader: Box<dyn Read + Send>,
    /// For Parquet, which needs random access.
    file: Option<File>,
    format: Format,
    /// Size of the file on disk; unknown for standard input.
    bytes: Option<u64>,
}

impl EventsFile {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path) -> io::Result<EventsFile> {
        let (mut reader, file, bytes): (Box<dyn Read + Send>, _, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None, None)
        } else {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder"));
            }
            let bytes = metadata.is_file().then_some(metadata.len());
            (Box::new(file.try_clone()?), bytes.is_some().then_some(file), bytes)
        };
        let mut head = Vec::new();
        (&mut reader).take(4).read_to_end(&mut head)?;
        let format = Format::of(&head);
        Ok(EventsFile { reader: Box::new(Cursor::new(head).chain(reader)), file, format, bytes })
    }

    /// Returns the size in bytes that a progress bar counts up to; unknown for a pipe.
    pub fn size(&self) -> Option<u64> {
        self.bytes
    }

    /// Returns the file if it is Parquet.
    pub fn parquet(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| self.format == Format::Parquet)
    }

    /// Reads the whole file. Passes batches of about `batch_bytes` to `each`, until it returns false. `bar` shows how many
    /// bytes of the file have been read. Blocks.
    pub fn read(
        self,
        batch_bytes: usize,
        bar: &ProgressBar,
        each: &mut dyn FnMut(LineBatch) -> bool,
    ) -> anyhow::Result<()> {
        match (self.format, self.file) {
            (Format::Parquet, Some(file)) => parquet_rows::read(file, self.bytes.unwrap_or(0), batch_bytes, bar, each),
            (Format::Parquet, None) => anyhow::bail!("cannot read Parquet from a pipe: pass the name of a file"),
            (format, _) => {
                let counted = BufReader::new(bar.wrap_read(self.reader));
                match format {
                    Format::Gzip => cut(flate2::bufread::MultiGzDecoder::new(counted), batch_bytes, each),
                    Format::Zstd => cut(zstd::stream::read::Decoder::with_buffer(counted)?, batch_bytes, each),
                    Format::Lines | Format::Parquet => cut(counted, batch_bytes, each),
                }
            }
        }
    }
}

/// Cuts a text into batches at line ends. Keeps empty lines, so that line numbers match those of the server.
fn cut(mut reader: impl Read, batch_bytes: usize, each: &mut dyn FnMut(LineBatch) -> bool) -> anyhow::Result<()> {
    let (mut number, mut first_line) = (0, 1);
    let mut buffer: Vec<u8> = Vec::with_capacity(batch_bytes);
    let mut wanted = batch_bytes;
    loop {
        let missing = wanted.saturating_sub(buffer.len()) as u64;
        let read =
            (&mut reader).take(missing).read_to_end(&mut buffer).with_context(|| format!("after line {first_line}"))?;
        let is_end = (read as u64) < missing;
        let end = if is_end { Some(buffer.len()) } else { memchr::memrchr(b'\n', &buffer).map(|place| place + 1) };
        let Some(end) = end else {
            // The line is longer than a batch: read on to its end, up to the size limit of a request.
            anyhow::ensure!(
                wanted < EVENT_BODY_BYTES_MAX,
                "line {first_line} is longer than {EVENT_BODY_BYTES_MAX} bytes"
            );
            wanted = (wanted * 2).min(EVENT_BODY_BYTES_MAX);
            continue;
        };
        let rest = buffer[end..].to_vec();
        buffer.truncate(end);
        let unfinished = u64::from(buffer.last().is_some_and(|last| *last != b'\n'));
        let lines = memchr::memchr_iter(b'\n', &buffer).count() as u64 + unfinished;
        if lines > 0
            && !each(LineBatch { number, first_line, lines, format: BatchFormat::Lines, body: Bytes::from(buffer) })
        {
            return Ok(());
        }
        if is_end {
            return Ok(());
        }
        (number, first_line, wanted) = (number + 1, first_line + lines, batch_bytes);
        buffer = Vec::with_capacity(batch_bytes);
        buffer.extend_from_slice(&rest);
    }
}

#[cfg(test)]
mod tests;
