//! How is a body unpacked, and when is it a bomb? gzip and zstd, never further than the largest body allowed.

use std::io::{self, Read};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use shared::limits::EVENT_BODY_BYTES_MAX;

/// Largest window a zstd frame may ask for, as a power of two: that of the largest body.
const ZSTD_WINDOW_LOG_MAX: u32 = EVENT_BODY_BYTES_MAX.ilog2();
/// JSON events shrink to about a fifth; room for that is made at once.
const USUAL_RATIO: usize = 5;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// Why a body could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("the body is larger than {EVENT_BODY_BYTES_MAX} bytes once unpacked")]
    TooLarge,
    #[error("the body is not valid {encoding}: {source}")]
    Broken { encoding: &'static str, source: io::Error },
}

impl Encoding {
    /// What `Content-Encoding` says, or the text of one that is not known.
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

    /// The bytes that `packed` stands for.
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

/// Reads until the end, or until one byte too many has come.
fn read(reader: impl Read, packed_bytes: usize) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::with_capacity((packed_bytes * USUAL_RATIO).min(EVENT_BODY_BYTES_MAX));
    reader.take(EVENT_BODY_BYTES_MAX as u64 + 1).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}
