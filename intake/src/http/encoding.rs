//! Decompresses bodies (gzip and zstd), never beyond the size of the largest body allowed.

use std::io::{self, Read};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use shared::limits::EVENT_BODY_BYTES_MAX;

/// Largest window that a zstd frame may need, as a power of two: the size of the largest body.
const ZSTD_WINDOW_LOG_MAX: u32 = EVENT_BODY_BYTES_MAX.ilog2();
/// Assumed compression ratio of JSON events, for the first allocation.
const USUAL_RATIO: usize = 5;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// Why a body could not be decompressed.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("the decompressed body is larger than {EVENT_BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the body is not valid {encoding}: {source}")]
    Broken { encoding: &'static str, source: io::Error },
}

impl Encoding {
    /// Reads `Content-Encoding`. The error is the value if it is not supported.
    pub(super) fn of(headers: &HeaderMap) -> Result<Encoding, String> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(Encoding::Identity);
        };
        let name = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
        match &*name {
            "" | "identity" => Ok(Encoding::Identity),
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "zstd" => Ok(Encoding::Zstd),
            _ => Err(name),
        }
    }

    /// Decompresses `packed`.
    pub(super) fn unpack(self, packed: &Bytes) -> Result<Bytes, UnpackError> {
        let (encoding, unpacked) = match self {
            Encoding::Identity => return Ok(packed.clone()),
            Encoding::Gzip => ("gzip", read(flate2::bufread::MultiGzDecoder::new(&**packed), packed.len())),
            Encoding::Zstd => ("zstd", zstd_reader(packed).and_then(|reader| read(reader, packed.len()))),
        };
        match unpacked {
            Ok(bytes) if bytes.len() > EVENT_BODY_BYTES_MAX => Err(UnpackError::TooLarge),
            Ok(bytes) => Ok(bytes.into()),
            Err(source) => Err(UnpackError::Broken { encoding, source }),
        }
    }
}

fn zstd_reader(packed: &[u8]) -> io::Result<impl Read> {
    let mut reader = zstd::Decoder::with_buffer(packed)?;
    reader.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(reader)
}

/// Reads to the end, or one byte beyond the limit.
fn read(reader: impl Read, packed_bytes: usize) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::with_capacity((packed_bytes * USUAL_RATIO).min(EVENT_BODY_BYTES_MAX));
    reader.take(EVENT_BODY_BYTES_MAX as u64 + 1).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}
