//! Defines a segment file: its name, its header and its creation. `frame` defines what follows the header.
//!
//! ```text
//! 0 magic  8 version  12 length  16 crc32c  20 salt  24 partition  28 content length  32 totals before it  88 content (JSON)
//! ```
//! padded to a multiple of 16. In version 1 the content is the list of columns. In version 2, of a stream that reads a topic,
//! it is an object with the columns and the position before the segment's first frame. A segment appears under its name only when its header is durable, so a broken header is
//! always corruption, never a torn write.

use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};
use shared::ids::{Offset, Partition};
use shared::stream::Column;

use super::disk::{LogDisk, LogFile, OpenFile};
use super::error::LogError;
use super::frame::ALIGNMENT;
use super::io;
use super::source_position::SourcePosition;
use super::totals::Totals;

const SEGMENT_MAGIC: [u8; 8] = *b"TRUEUPLG";
/// Raised with every change that an older program would misread. Fields that it skips do not count.
const PLAIN_VERSION: u32 = 1;
/// The version of segments that have a position in a topic: a program that does not know it would read the topic again.
const POSITION_VERSION: u32 = 2;
const FIXED_BYTES: usize = 32 + Totals::BYTES;
/// Far above any declaration; keeps a corrupt length from asking for memory.
const HEADER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// First byte covered by the checksum, directly after it.
const CHECKED_FROM: usize = 20;

/// The header of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Initial value of the checksums of this segment's frames.
    pub salt: u32,
    pub partition: Partition,
    /// Totals before the segment's first frame.
    pub before: Totals,
    /// The columns of the stream when the segment was created.
    pub columns: Vec<Column>,
    /// The position in the topic before the segment's first frame, if the stream reads one and has started to.
    pub source: Option<SourcePosition>,
}

/// The content of a header of [`POSITION_VERSION`].
#[derive(Serialize, Deserialize)]
struct PositionContent {
    columns: Vec<Column>,
    source: SourcePosition,
}

/// One file of the log.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub first: Offset,
    pub path: PathBuf,
    /// Durable bytes of the file.
    pub bytes: u64,
}

/// Lists the segments in `dir`, oldest first. Removes the remains of one that a crash left unfinished.
pub(crate) fn list(dir: &LogFolder) -> Result<Vec<Segment>, LogError> {
    for path in dir.disk.list(&dir.path).map_err(LogError::io(&dir.path))? {
        if path.extension().is_some_and(|e| e == "new") {
            dir.disk.remove(&path).map_err(LogError::io(&path))?;
        }
    }
    find(dir.disk.as_ref(), &dir.path)
}

/// Lists the segments in `dir`, oldest first. Changes nothing.
pub(crate) fn find(disk: &dyn LogDisk, dir: &Path) -> Result<Vec<Segment>, LogError> {
    let mut segments = Vec::new();
    for path in disk.list(dir).map_err(LogError::io(dir))? {
        if path.extension().is_none_or(|e| e != "log") {
            continue;
        }
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let Some(first) = (stem.len() == 20).then(|| stem.parse().ok()).flatten() else {
            return Err(LogError::Misplaced {
                path,
                reason: "the file name is not the name of a log segment".to_owned(),
            });
        };
        let bytes = match disk.length(&path) {
            Ok(bytes) => bytes,
            // Without the lock, a segment may be deleted while it is listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(LogError::io(&path)(error)),
        };
        segments.push(Segment { first: Offset(first), path, bytes });
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Makes a segment of the spare `file`, durable under its name together with its header. Opens no file.
///
/// # Errors
/// After an error that [`super::io::Exhausted`] names, the file is still the spare one, and may hold a part of the header.
pub(crate) fn install(
    dir: &LogFolder,
    file: &dyn LogFile,
    partition: Partition,
    before: Totals,
    columns: &[Column],
    source: Option<SourcePosition>,
) -> Result<(Segment, SegmentHeader), LogError> {
    let salt = std::hash::RandomState::new().build_hasher().finish() as u32;
    let header = SegmentHeader { salt, partition, before, columns: columns.to_vec(), source };
    let bytes = encode(&header);
    let path = dir.path.join(format!("{:020}.log", before.head().0));
    let installed = (|| {
        // An earlier attempt may have left a part of its header.
        file.set_length(0)?;
        file.write_at(&bytes, 0)?;
        file.sync_data()?;
        dir.disk.rename(&dir.spare(), &path)?;
        // The segment has its name: a later error must not look like one that changed nothing.
        dir.handle.sync_all().map_err(std::io::Error::other)
    })();
    installed.map_err(LogError::io(&path))?;
    Ok((Segment { first: before.head(), path, bytes: bytes.len() as u64 }, header))
}

/// The folder of a log, kept open: making a name in it durable must not need one more open file.
pub(crate) struct LogFolder {
    pub disk: Arc<dyn LogDisk>,
    pub path: PathBuf,
    pub handle: OpenFile,
}

impl LogFolder {
    /// Opens the folder at `path`, creating it durably if needed.
    pub fn open(disk: &Arc<dyn LogDisk>, path: &Path) -> Result<LogFolder, LogError> {
        io::create_folder(disk.as_ref(), path).map_err(LogError::io(path))?;
        let handle = disk.open_folder(path).map_err(LogError::io(path))?;
        Ok(LogFolder { disk: Arc::clone(disk), path: path.to_owned(), handle })
    }

    /// Where the file for the next segment is until it has its name. The next start removes it.
    pub fn spare(&self) -> PathBuf {
        self.path.join("spare.new")
    }
}

/// Reads the header of a segment and its length in bytes, and checks both against the file name.
pub(crate) fn read_header(
    segment: &Segment,
    partition: Partition,
    file: &dyn LogFile,
) -> Result<(SegmentHeader, u64), LogError> {
    let path = &segment.path;
    let corrupt = |reason| LogError::corrupt(path, 0, reason);
    let mut bytes = vec![0; FIXED_BYTES];
    if segment.bytes < FIXED_BYTES as u64 {
        return Err(corrupt("the header of the segment is cut short"));
    }
    file.read_at(&mut bytes, 0).map_err(LogError::io(path))?;
    if bytes[..8] != SEGMENT_MAGIC {
        return Err(corrupt("the file is not a log segment"));
    }
    let mut from = &bytes[8..];
    let version = from.get_u32_le();
    if !(PLAIN_VERSION..=POSITION_VERSION).contains(&version) {
        return Err(LogError::UnknownVersion { path: path.clone(), found: version, known: POSITION_VERSION });
    }
    let len = from.get_u32_le() as usize;
    if !(FIXED_BYTES..=HEADER_BYTES_MAX).contains(&len) || len as u64 > segment.bytes {
        return Err(corrupt("the header of the segment has an impossible length"));
    }
    bytes.resize(len, 0);
    file.read_at(&mut bytes[FIXED_BYTES..], FIXED_BYTES as u64).map_err(LogError::io(path))?;
    let header =
        decode(&bytes, version).ok_or_else(|| corrupt("the checksum of the header of the segment is wrong"))?;
    if header.before.head() != segment.first || header.partition != partition {
        let (at, of) = (header.before.head(), header.partition);
        let reason = format!("its header belongs to offset {at} of partition {of}");
        return Err(LogError::Misplaced { path: path.clone(), reason });
    }
    Ok((header, len as u64))
}

fn encode(header: &SegmentHeader) -> Vec<u8> {
    let columns = header.columns.clone();
    let (version, content) = match header.source.clone() {
        None => (PLAIN_VERSION, serde_json::to_vec(&columns)),
        Some(source) => (POSITION_VERSION, serde_json::to_vec(&PositionContent { columns, source })),
    };
    let content = content.expect("names, types and numbers always have a JSON form");
    let len = (FIXED_BYTES + content.len()).next_multiple_of(ALIGNMENT);
    let mut out = Vec::with_capacity(len);
    out.put_slice(&SEGMENT_MAGIC);
    out.put_u32_le(version);
    out.put_u32_le(len as u32);
    out.put_u32_le(0);
    out.put_u32_le(header.salt);
    out.put_u32_le(header.partition.0);
    out.put_u32_le(content.len() as u32);
    header.before.put(&mut out);
    out.put_slice(&content);
    out.resize(len, 0);
    let crc = crc32c::crc32c(&out[CHECKED_FROM..]);
    out[16..20].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8], version: u32) -> Option<SegmentHeader> {
    let mut from = &bytes[16..];
    if from.get_u32_le() != crc32c::crc32c(&bytes[CHECKED_FROM..]) {
        return None;
    }
    let salt = from.get_u32_le();
    let partition = Partition(from.get_u32_le());
    let content_len = from.get_u32_le() as usize;
    let before = Totals::get(&mut from);
    let content = from.get(..content_len)?;
    let (columns, source) = match version {
        PLAIN_VERSION => (serde_json::from_slice(content).ok()?, None),
        _ => {
            let PositionContent { columns, source } = serde_json::from_slice(content).ok()?;
            (columns, Some(source))
        }
    };
    Some(SegmentHeader { salt, partition, before, columns, source })
}
