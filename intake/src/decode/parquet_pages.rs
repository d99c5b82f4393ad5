//! Checks the pages of a Parquet body against what the body can hold, before the library reads them: it allocates what their
//! headers and the footer claim, and a claim of 2 GiB costs a sender a few bytes.

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use polars_parquet_format::thrift::protocol::TCompactInputProtocol;
use polars_parquet_format::{Encoding, PageHeader};
use shared::limits::TABLE_EVENTS_BYTES_MAX;

use super::DecodeError;

/// Longest header of a page, in bytes; it may hold a smallest and a largest text.
const PAGE_HEADER_BYTES_MAX: usize = 64 * 1024;
/// Compressions whose readers write no more than the header of the page claims.
const COMPRESSIONS: &str = "none, SNAPPY, ZSTD and LZ4_RAW";
/// Encodings whose readers allocate no more than the page has.
const ENCODINGS: [Encoding; 7] = [
    Encoding::PLAIN,
    Encoding::PLAIN_DICTIONARY,
    Encoding::RLE,
    Encoding::BIT_PACKED,
    Encoding::DELTA_BINARY_PACKED,
    Encoding::RLE_DICTIONARY,
    Encoding::BYTE_STREAM_SPLIT,
];

/// Reads the footer of `body` and checks it, and every page.
///
/// # Errors
/// [`DecodeError::Table`] for a body that is damaged, or that uses what is not supported;
/// [`DecodeError::EventsTooLarge`] for pages that take too much memory once they are decompressed.
pub(super) fn checked_footer(body: &Bytes) -> Result<ParquetMetaData, DecodeError> {
    let footer = lake::read_footer(body, body.len() as u64)?;
    let schema = footer.file_metadata().schema_descr();
    if let Some(nested) = schema.columns().iter().find(|column| column.path().parts().len() > 1) {
        return Err(table(format!("the column {} is nested; send nested events as JSON", nested.path().string())));
    }
    let mut bytes = 0;
    for group in footer.row_groups() {
        for chunk in group.columns() {
            check_chunk(body, chunk, group.num_rows(), &mut bytes)?;
        }
    }
    Ok(footer)
}

/// Checks the pages of a column in a row group of `rows` rows, and adds their decompressed bytes to `bytes`.
fn check_chunk(body: &[u8], chunk: &ColumnChunkMetaData, rows: i64, bytes: &mut usize) -> Result<(), DecodeError> {
    let compression = chunk.compression();
    match compression {
        Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_) | Compression::LZ4_RAW => {}
        other => return Err(table(format!("{other} is not supported; write it with one of: {COMPRESSIONS}"))),
    }
    let (start, length) = chunk.byte_range();
    let pages = usize::try_from(start).ok().zip(usize::try_from(length).ok());
    let pages = pages.and_then(|(start, length)| body.get(start..start.checked_add(length)?));
    let Some(mut pages) = pages else { return Err(damaged("a column lies outside the file")) };
    let mut values = 0;
    while !pages.is_empty() {
        let header = page_header(&mut pages)?;
        let wrong = || damaged("the header of a page claims more than the page has");
        let size = usize::try_from(header.compressed_page_size).map_err(|_| wrong())?;
        let decompressed = usize::try_from(header.uncompressed_page_size).map_err(|_| wrong())?;
        if compression == Compression::UNCOMPRESSED && size != decompressed {
            return Err(wrong());
        }
        pages = pages.get(size..).ok_or_else(wrong)?;
        *bytes = bytes.saturating_add(decompressed);
        if *bytes > TABLE_EVENTS_BYTES_MAX {
            return Err(DecodeError::EventsTooLarge { max: TABLE_EVENTS_BYTES_MAX });
        }
        let (count, encoding) =
            match (&header.data_page_header, &header.data_page_header_v2, &header.dictionary_page_header) {
                (Some(data), None, None) => (data.num_values, data.encoding),
                (None, Some(data), None) => (data.num_values, data.encoding),
                // A value of a dictionary has a byte at least.
                (None, None, Some(values)) if usize::try_from(values.num_values).is_ok_and(|n| n <= decompressed) => {
                    (0, values.encoding)
                }
                _ => return Err(wrong()),
            };
        if !ENCODINGS.contains(&encoding) {
            return Err(table(format!("the encoding {} is not supported; write it without it", encoding.0)));
        }
        values += i64::from(count);
        if count < 0 || values > rows {
            return Err(wrong());
        }
    }
    if values == rows { Ok(()) } else { Err(damaged("a column has fewer values than its row group has rows")) }
}

/// Reads the header of a page from the begin of `pages`, which then begin after it.
fn page_header(pages: &mut &[u8]) -> Result<PageHeader, DecodeError> {
    let mut rest = *pages;
    let mut protocol = TCompactInputProtocol::new(&mut rest, PAGE_HEADER_BYTES_MAX);
    let header = PageHeader::read_from_in_protocol(&mut protocol);
    let header = header.map_err(|error| damaged(&format!("the header of a page: {error}")))?;
    *pages = rest;
    Ok(header)
}

fn damaged(reason: &str) -> DecodeError {
    table(format!("it is damaged: {reason}"))
}

fn table(reason: String) -> DecodeError {
    DecodeError::Table { reason }
}

impl From<ParquetError> for DecodeError {
    fn from(error: ParquetError) -> DecodeError {
        table(error.to_string())
    }
}
