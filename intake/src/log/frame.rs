//! Defines the byte layout of a frame: one batch of events. It does not know how rows are encoded.
//!
//! ```text
//! 0  magic      4  crc32c    8  length     12 rows       16 meta length  20 message length  24 body length
//! 28 encoding  32 arrived_at 40 durable bytes of the segment when it was written            48 totals after it
//! 104 meta (JSON) │ message (Arrow IPC) │ body (columns) │ — each begins at a multiple of 16
//! ```
//! All numbers are little-endian. The checksum covers everything after itself, padding too, and starts from the
//! segment's salt: neither an old frame in a reused block nor one that a client hid in a string passes for a frame. The
//! meta may gain fields that older programs skip (the fingerprint of a key's body is one), without a new format version.

use bytes::{Buf, BufMut};
use shared::ids::Offset;
use shared::time::Micros;

use super::totals::Totals;

/// Everything in a segment starts at a multiple of this, so that columns are read in place.
pub(crate) const ALIGNMENT: usize = 16;
/// First four bytes of every frame.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"TUf1";
/// Bytes before the meta.
pub(crate) const FRAME_HEADER_BYTES: usize = 48 + Totals::BYTES;
/// Columns as an Arrow IPC record batch, strings as `Utf8`.
const ENCODING_ARROW_IPC: u32 = 1;
/// First byte covered by the checksum.
const CHECKED_FROM: usize = 8;

/// The numbers at the head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub rows: u32,
    pub arrived_at: Micros,
    /// Bytes of the segment before this position were durable when the frame was written.
    pub durable_bytes: u64,
    pub after: Totals,
}

impl FrameHeader {
    /// Offset of the frame's first row.
    pub fn first_offset(&self) -> Offset {
        Offset(self.after.accepted.events.wrapping_sub(u64::from(self.rows)))
    }
}

/// Rows as bytes: the Arrow IPC message that describes the buffers, and the buffers.
#[derive(Debug, Default)]
pub(crate) struct FramePayload {
    pub message: Vec<u8>,
    pub body: Vec<u8>,
}

/// The ranges of the parts of a frame, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameLayout {
    pub meta: (usize, usize),
    pub message: (usize, usize),
    pub body: (usize, usize),
    pub len: usize,
}

impl FrameLayout {
    fn new(meta: usize, message: usize, body: usize) -> FrameLayout {
        let meta_end = FRAME_HEADER_BYTES + meta;
        let message_start = meta_end.next_multiple_of(ALIGNMENT);
        let message_end = message_start + message;
        let body_start = message_end.next_multiple_of(ALIGNMENT);
        let body_end = body_start + body;
        FrameLayout {
            meta: (FRAME_HEADER_BYTES, meta_end),
            message: (message_start, message_end),
            body: (body_start, body_end),
            len: body_end.next_multiple_of(ALIGNMENT),
        }
    }
}

/// Appends a frame to `out`, whose length is a multiple of [`ALIGNMENT`]. `None` if a part is too long for its length field.
pub(crate) fn put_frame(
    out: &mut Vec<u8>,
    salt: u32,
    header: &FrameHeader,
    meta: &[u8],
    rows: &FramePayload,
) -> Option<()> {
    let layout = FrameLayout::new(meta.len(), rows.message.len(), rows.body.len());
    let len = u32::try_from(layout.len).ok()?;
    let start = out.len();
    out.reserve(layout.len);
    out.put_slice(&FRAME_MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(len);
    out.put_u32_le(header.rows);
    // The parts are shorter than the frame, whose length fits.
    out.put_u32_le(meta.len() as u32);
    out.put_u32_le(rows.message.len() as u32);
    out.put_u32_le(rows.body.len() as u32);
    out.put_u32_le(ENCODING_ARROW_IPC);
    out.put_i64_le(header.arrived_at.0);
    out.put_u64_le(header.durable_bytes);
    header.after.put(out);
    out.put_slice(meta);
    out.resize(start + layout.message.0, 0);
    out.put_slice(&rows.message);
    out.resize(start + layout.body.0, 0);
    out.put_slice(&rows.body);
    out.resize(start + layout.len, 0);
    let crc = crc32c::crc32c_append(salt, &out[start + CHECKED_FROM..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    Some(())
}

/// Length of the frame at the start of `bytes`, if they start with the magic bytes. Checks nothing else.
pub(crate) fn frame_length(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < FRAME_HEADER_BYTES || bytes[..4] != FRAME_MAGIC {
        return None;
    }
    let len = (&bytes[8..12]).get_u32_le() as usize;
    (len >= FRAME_HEADER_BYTES && len.is_multiple_of(ALIGNMENT)).then_some(len)
}

/// Parses `bytes` as exactly one frame; `None` unless the checksum and the lengths agree.
pub(crate) fn parse_frame(bytes: &[u8], salt: u32) -> Option<(FrameHeader, FrameLayout)> {
    parse_frame_with(bytes, |from, to| crc32c::crc32c_append(salt, &bytes[from..to]))
}

/// The same, with a function that gives the checksum of a range of `bytes`, started from the salt.
pub(crate) fn parse_frame_with(
    bytes: &[u8],
    checksum: impl Fn(usize, usize) -> u32,
) -> Option<(FrameHeader, FrameLayout)> {
    if frame_length(bytes)? != bytes.len() {
        return None;
    }
    let mut from = &bytes[4..];
    let crc = from.get_u32_le();
    if checksum(CHECKED_FROM, bytes.len()) != crc {
        return None;
    }
    let _len = from.get_u32_le();
    let rows = from.get_u32_le();
    let (meta, message, body) = (from.get_u32_le(), from.get_u32_le(), from.get_u32_le());
    if from.get_u32_le() != ENCODING_ARROW_IPC {
        return None;
    }
    let arrived_at = Micros(from.get_i64_le());
    let durable_bytes = from.get_u64_le();
    let after = Totals::get(&mut from);
    let layout = FrameLayout::new(meta as usize, message as usize, body as usize);
    (layout.len == bytes.len()).then_some((FrameHeader { rows, arrived_at, durable_bytes, after }, layout))
}
