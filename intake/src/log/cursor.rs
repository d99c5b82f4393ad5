//! Reads and checks the frames of one segment file in order. The caller decides what a broken frame means.

use std::io;

use arrow::buffer::{Buffer, MutableBuffer};

use super::disk::OpenFile;
use super::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameLayout, frame_length, parse_frame, parse_frame_with};

/// Bytes read at once: few calls for small frames, and several frames share one aligned buffer.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// A frame in memory, its checksum verified.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Position in the segment, in bytes.
    pub position: u64,
    pub header: FrameHeader,
    layout: FrameLayout,
    bytes: Buffer,
}

impl Frame {
    pub fn rows(&self) -> usize {
        self.header.rows as usize
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.layout.len
    }

    pub fn meta(&self) -> &[u8] {
        &self.bytes[self.layout.meta.0..self.layout.meta.1]
    }

    pub fn message(&self) -> &[u8] {
        &self.bytes[self.layout.message.0..self.layout.message.1]
    }

    /// The buffers of the columns; decoded columns keep them alive.
    pub fn body(&self) -> Buffer {
        let (from, to) = self.layout.body;
        self.bytes.slice_with_length(from, to - from)
    }
}

/// The content at the cursor.
#[derive(Debug)]
pub(crate) enum CursorStep {
    Frame(Frame),
    /// The end of the file, directly after a frame.
    End,
    /// Bytes that do not form a frame: a torn tail or corruption.
    Broken(&'static str),
}

/// Checksums of ranges of a buffer, each in constant time after one pass over the buffer.
struct RangeChecksums {
    /// Checksum of the bytes before each multiple of [`RangeChecksums::STEP`].
    prefixes: Vec<u32>,
}

impl RangeChecksums {
    /// Frames are checked from this multiple on to a multiple of it.
    const STEP: usize = 8;

    fn new(bytes: &[u8]) -> RangeChecksums {
        let mut prefixes = Vec::with_capacity(bytes.len() / Self::STEP + 1);
        let mut checksum = 0;
        prefixes.push(checksum);
        for step in bytes.chunks_exact(Self::STEP) {
            checksum = crc32c::crc32c_append(checksum, step);
            prefixes.push(checksum);
        }
        RangeChecksums { prefixes }
    }

    /// CRC-32C of the bytes `from..to`, multiples of the step, started from `salt`. A checksum is linear, so the bytes
    /// before `from` are taken out of the checksum of all bytes before `to`.
    fn checksum(&self, salt: u32, from: usize, to: usize) -> u32 {
        if from == to {
            return salt;
        }
        let (before, all) = (self.prefixes[from / Self::STEP], self.prefixes[to / Self::STEP]);
        crc32c::crc32c_combine(salt ^ before, all, to - from)
    }
}

/// Walks over a segment's frames.
pub(crate) struct FrameCursor {
    file: OpenFile,
    salt: u32,
    /// Position of the next frame, in bytes.
    position: u64,
    /// End of the range to read, in bytes.
    end: u64,
    chunk: Buffer,
    chunk_start: u64,
}

impl FrameCursor {
    /// Creates a cursor over `file` from `position`, a multiple of 16, to `end`.
    pub fn new(file: OpenFile, salt: u32, position: u64, end: u64) -> Self {
        FrameCursor { file, salt, position, end, chunk: Buffer::default(), chunk_start: position }
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads the next frame and moves past it. Does not move unless the frame is complete and valid.
    pub fn step(&mut self) -> io::Result<CursorStep> {
        let left = self.end - self.position;
        if left == 0 {
            return Ok(CursorStep::End);
        }
        if left < FRAME_HEADER_BYTES as u64 {
            return Ok(CursorStep::Broken("the header of a frame is cut short"));
        }
        self.load(FRAME_HEADER_BYTES)?;
        let Some(len) = frame_length(&self.chunk[self.in_chunk()..]) else {
            return Ok(CursorStep::Broken("no frame starts here"));
        };
        if len as u64 > left {
            return Ok(CursorStep::Broken("a frame is cut short"));
        }
        self.load(len)?;
        let bytes = self.chunk.slice_with_length(self.in_chunk(), len);
        let Some((header, layout)) = parse_frame(&bytes, self.salt) else {
            return Ok(CursorStep::Broken("the checksum of a frame is wrong"));
        };
        let position = self.position;
        self.position += len as u64;
        Ok(CursorStep::Frame(Frame { position, header, layout, bytes }))
    }

    /// Whether a valid frame after the cursor records that bytes after `position` were durable when it was written. Linear
    /// in the bytes left: clients choose the content of the log, and a tail may be full of texts that look like frames.
    pub fn durable_beyond(&self, position: u64) -> io::Result<bool> {
        let mut rest = vec![0; (self.end - self.position) as usize];
        self.file.read_at(&mut rest, self.position)?;
        let checksums = RangeChecksums::new(&rest);
        let is_witness = |at: usize| {
            let bytes = &rest[at..];
            let frame = frame_length(bytes).and_then(|len| bytes.get(..len));
            let checksum = |from: usize, to: usize| checksums.checksum(self.salt, at + from, at + to);
            let header = frame.and_then(|frame| parse_frame_with(frame, checksum)).map(|(header, _)| header);
            header.is_some_and(|header| header.durable_bytes > position)
        };
        Ok((0..rest.len()).step_by(super::frame::ALIGNMENT).any(is_witness))
    }

    fn in_chunk(&self) -> usize {
        (self.position - self.chunk_start) as usize
    }

    /// Loads the `len` bytes at the cursor into the chunk; the file has them.
    fn load(&mut self, len: usize) -> io::Result<()> {
        if self.in_chunk() + len <= self.chunk.len() {
            return Ok(());
        }
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let mut chunk = MutableBuffer::from_len_zeroed(left.min(len.max(CHUNK_BYTES)));
        self.file.read_at(chunk.as_slice_mut(), self.position)?;
        self.chunk = chunk.into();
        self.chunk_start = self.position;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_checksum_of_a_range_is_that_of_its_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..400), salt: u32, a in 0usize..50, b in 0usize..50,
        ) {
            let steps = bytes.len() / RangeChecksums::STEP;
            let (a, b) = (a.min(steps), b.min(steps));
            let (from, to) = (a.min(b) * RangeChecksums::STEP, a.max(b) * RangeChecksums::STEP);
            let expected = crc32c::crc32c_append(salt, &bytes[from..to]);
            prop_assert_eq!(RangeChecksums::new(&bytes).checksum(salt, from, to), expected);
        }
    }
}
