//! Checks the footer and the pages of a Parquet body before the library reads them.

use bytes::Bytes;
use lake::{PageBounds, PageError, check_pages};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::ColumnDescPtr;
use shared::limits::TABLE_EVENTS_BYTES_MAX;

use super::DecodeError;

/// Compressions whose readers write no more than the header of the page claims.
const COMPRESSIONS: &str = "none, SNAPPY, ZSTD and LZ4_RAW";
const BOUNDS: PageBounds = PageBounds {
    page_bytes_max: TABLE_EVENTS_BYTES_MAX,
    bytes_max: TABLE_EVENTS_BYTES_MAX,
    are_text_deltas_read: false,
};

/// Reads the footer of `body` and checks it, and every page.
///
/// # Errors
/// [`DecodeError::Table`] for a body that is damaged, or that uses what is not supported;
/// [`DecodeError::EventsTooLarge`] for pages that take too much memory once they are decompressed.
pub(super) fn checked_footer(body: &Bytes) -> Result<ParquetMetaData, DecodeError> {
    let footer = lake::read_footer(body, body.len() as u64)?;
    let schema = footer.file_metadata().schema_descr();
    let is_nested = |column: &&ColumnDescPtr| column.path().parts().len() > 1 || column.max_rep_level() > 0;
    if let Some(nested) = schema.columns().iter().find(is_nested) {
        return Err(table(format!("the column {} is nested; send nested events as JSON", nested.path().string())));
    }
    let chunks = footer.row_groups().iter().flat_map(RowGroupMetaData::columns);
    for compression in chunks.map(ColumnChunkMetaData::compression) {
        match compression {
            Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_) | Compression::LZ4_RAW => {}
            other => return Err(table(format!("{other} is not supported; write it with one of: {COMPRESSIONS}"))),
        }
    }
    match check_pages(body, &footer, BOUNDS, |_| true) {
        Ok(()) => Ok(footer),
        Err(PageError::TooLarge { max }) => Err(DecodeError::EventsTooLarge { max }),
        Err(PageError::Wrong(error)) => Err(error.into()),
    }
}

fn table(reason: String) -> DecodeError {
    DecodeError::Table { reason }
}

impl From<ParquetError> for DecodeError {
    fn from(error: ParquetError) -> DecodeError {
        table(error.to_string())
    }
}
