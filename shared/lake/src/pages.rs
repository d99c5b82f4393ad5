//! Checks the pages of Parquet files against what the file can hold, before a library reads them: libraries allocate what the
//! headers of pages and the footer claim, and a claim of 2 GiB takes a few bytes.

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::ChunkReader;
use polars_parquet_format::thrift::protocol::TCompactInputProtocol;
use polars_parquet_format::{DataPageHeaderV2, Encoding, PageHeader};
use shared::limits::PARQUET_PAGE_BYTES_MAX;
use thiserror::Error;

/// Bytes read at once to find a header; most headers are shorter.
const WINDOW_BYTES: u64 = 4 * 1024;
/// Longest header of a page, in bytes; it may hold a smallest and a largest text.
const PAGE_HEADER_BYTES_MAX: u64 = 64 * 1024;
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
/// Encodings of texts whose readers allocate memory for as many values as the page says in its own data.
const TEXT_DELTAS: [(Encoding, &str); 2] =
    [(Encoding::DELTA_LENGTH_BYTE_ARRAY, "DELTA_LENGTH_BYTE_ARRAY"), (Encoding::DELTA_BYTE_ARRAY, "DELTA_BYTE_ARRAY")];

/// Why pages are refused.
#[derive(Debug, Error)]
pub enum PageError {
    /// They are damaged, or of an encoding that is not read.
    #[error(transparent)]
    Wrong(#[from] ParquetError),
    /// They take more memory than allowed once they are decompressed.
    #[error("its pages take more than {max} bytes once they are decompressed")]
    TooLarge { max: usize },
}

impl From<PageError> for ParquetError {
    fn from(error: PageError) -> ParquetError {
        match error {
            PageError::Wrong(error) => error,
            PageError::TooLarge { .. } => general(error.to_string()),
        }
    }
}

/// What the reader of pages can bear.
#[derive(Debug, Clone, Copy)]
pub struct PageBounds {
    /// Bytes of one page once it is decompressed.
    pub page_bytes_max: usize,
    /// Bytes of all pages once they are decompressed.
    pub bytes_max: usize,
    /// Whether texts may be stored as differences to the text before. No program of this product writes them.
    pub are_text_deltas_read: bool,
}

impl PageBounds {
    /// Of a file in a table.
    pub const TABLE: PageBounds =
        PageBounds { page_bytes_max: PARQUET_PAGE_BYTES_MAX, bytes_max: usize::MAX, are_text_deltas_read: false };
    /// Of a file that a user imports.
    pub const IMPORT: PageBounds = PageBounds { are_text_deltas_read: true, ..PageBounds::TABLE };
}

/// Checks the pages of the columns that `is_read` selects. The footer was checked before: see [`super::check_footer`].
///
/// # Errors
/// A page is damaged, too large, or of an encoding that is not read; or the file cannot be read.
pub fn check_pages(
    file: &impl ChunkReader,
    footer: &ParquetMetaData,
    bounds: PageBounds,
    is_read: impl Fn(&ColumnChunkMetaData) -> bool,
) -> Result<(), PageError> {
    let mut bytes = 0;
    for group in footer.row_groups() {
        for chunk in group.columns().iter().filter(|chunk| is_read(chunk)) {
            check_chunk(file, chunk, group.num_rows(), bounds, &mut bytes)?;
        }
    }
    Ok(())
}

/// Checks the pages of a column in a row group of `rows` rows, and adds their decompressed bytes to `bytes`.
fn check_chunk(
    file: &impl ChunkReader,
    chunk: &ColumnChunkMetaData,
    rows: i64,
    bounds: PageBounds,
    bytes: &mut usize,
) -> Result<(), PageError> {
    let is_compressed = chunk.compression() != Compression::UNCOMPRESSED;
    let is_repeated = chunk.column_descr().max_rep_level() > 0;
    let mut headers = Headers::new(file, chunk);
    let mut values = 0;
    while let Some(header) = headers.next()? {
        let decompressed = decompressed_bytes(&header, is_compressed)?;
        *bytes = bytes.saturating_add(decompressed);
        if decompressed > bounds.page_bytes_max {
            return Err(PageError::TooLarge { max: bounds.page_bytes_max });
        }
        if *bytes > bounds.bytes_max {
            return Err(PageError::TooLarge { max: bounds.bytes_max });
        }
        let (count, encoding) = content(&header, decompressed)?;
        check_encoding(encoding, bounds)?;
        values += i64::from(count);
        // A row of a list has any number of values.
        if count < 0 || (values > rows && !is_repeated) {
            return Err(claims_more().into());
        }
    }
    match values == rows || is_repeated {
        true => Ok(()),
        false => Err(damaged("a column has fewer values than its row group has rows").into()),
    }
}

/// Returns the bytes of a page once it is decompressed.
fn decompressed_bytes(header: &PageHeader, is_compressed: bool) -> Result<usize, ParquetError> {
    let decompressed = usize::try_from(header.uncompressed_page_size).map_err(|_| claims_more())?;
    let is_plain =
        !is_compressed || header.data_page_header_v2.as_ref().is_some_and(|v2| v2.is_compressed == Some(false));
    match is_plain && header.compressed_page_size != header.uncompressed_page_size {
        true => Err(claims_more()),
        false => Ok(decompressed),
    }
}

/// Returns how many values of rows a page has, and their encoding.
fn content(header: &PageHeader, decompressed: usize) -> Result<(i32, Encoding), ParquetError> {
    match (&header.data_page_header, &header.data_page_header_v2, &header.dictionary_page_header) {
        (Some(data), None, None) => Ok((data.num_values, data.encoding)),
        (None, Some(data), None) if has_its_levels(data, header.compressed_page_size, decompressed) => {
            Ok((data.num_values, data.encoding))
        }
        // A value of a dictionary has a byte at least.
        (None, None, Some(values)) if usize::try_from(values.num_values).is_ok_and(|n| n <= decompressed) => {
            Ok((0, values.encoding))
        }
        _ => Err(claims_more()),
    }
}

fn check_encoding(encoding: Encoding, bounds: PageBounds) -> Result<(), ParquetError> {
    let text_delta = TEXT_DELTAS.iter().find(|(delta, _)| *delta == encoding);
    if ENCODINGS.contains(&encoding) || (bounds.are_text_deltas_read && text_delta.is_some()) {
        return Ok(());
    }
    let name = text_delta.map_or_else(|| encoding.0.to_string(), |(_, name)| (*name).to_owned());
    Err(general(format!("it has the encoding {name}, which is not supported; write it without it")))
}

/// Returns whether the levels, which are not compressed, lie within the page.
fn has_its_levels(page: &DataPageHeaderV2, compressed: i32, decompressed: usize) -> bool {
    let lengths = [page.repetition_levels_byte_length, page.definition_levels_byte_length];
    let sum = lengths.iter().map(|length| i64::from(*length)).sum::<i64>();
    lengths.iter().all(|length| *length >= 0) && sum <= i64::from(compressed) && sum as usize <= decompressed
}

/// Reads the headers of a column's pages, one by one.
struct Headers<'a, F> {
    file: &'a F,
    /// Where the next header begins, and where the column ends.
    at: u64,
    end: u64,
    /// Bytes of the file from `window_at` on.
    window: Bytes,
    window_at: u64,
}

impl<'a, F: ChunkReader> Headers<'a, F> {
    fn new(file: &'a F, chunk: &ColumnChunkMetaData) -> Headers<'a, F> {
        let (start, length) = chunk.byte_range();
        Headers { file, at: start, end: start.saturating_add(length), window: Bytes::new(), window_at: start }
    }

    /// Returns the next header, and moves to the end of its page; `None`: there are no more pages.
    fn next(&mut self) -> Result<Option<PageHeader>, ParquetError> {
        if self.at == self.end {
            return Ok(None);
        }
        let header = match self.parse(WINDOW_BYTES) {
            Ok(header) => header,
            // Rare: its texts are long.
            Err(_) => self.parse(PAGE_HEADER_BYTES_MAX)?,
        };
        let size = u64::try_from(header.compressed_page_size).map_err(|_| claims_more())?;
        match self.at.checked_add(size).filter(|end| *end <= self.end) {
            Some(end) => self.at = end,
            None => return Err(claims_more()),
        }
        Ok(Some(header))
    }

    /// Reads a header of at most so many bytes, and moves to its end.
    fn parse(&mut self, bytes: u64) -> Result<PageHeader, ParquetError> {
        let wanted = bytes.min(self.end - self.at);
        let is_in_window = self.at + wanted <= self.window_at + self.window.len() as u64;
        if self.at < self.window_at || !is_in_window {
            self.window = self.file.get_bytes(self.at, wanted as usize)?;
            self.window_at = self.at;
        }
        let mut rest = &self.window[(self.at - self.window_at) as usize..];
        let before = rest.len();
        let mut protocol = TCompactInputProtocol::new(&mut rest, PAGE_HEADER_BYTES_MAX as usize);
        let header = PageHeader::read_from_in_protocol(&mut protocol);
        let header = header.map_err(|error| damaged(&format!("the header of a page: {error}")))?;
        self.at += (before - rest.len()) as u64;
        Ok(header)
    }
}

fn claims_more() -> ParquetError {
    damaged("the header of a page claims more than the page has")
}

fn damaged(reason: &str) -> ParquetError {
    general(format!("it is damaged: {reason}"))
}

fn general(reason: String) -> ParquetError {
    ParquetError::General(reason)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Encoding, ZstdLevel};
    use parquet::file::properties::{WriterProperties, WriterVersion};

    use super::*;
    use crate::read_footer;

    /// A file of two numbers and two texts, without a dictionary.
    fn stored(properties: impl Fn(&str) -> WriterProperties) -> Vec<u8> {
        let columns: [(&str, ArrayRef); 2] = [
            ("n", Arc::new(Int64Array::from(vec![1, 2]))),
            ("s", Arc::new(StringArray::from_iter_values(["aaa", "aab"]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).expect("rows");
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties("s"))).expect("memory");
        writer.write(&rows).expect("memory");
        writer.into_inner().expect("memory")
    }

    fn plain() -> Vec<u8> {
        stored(|_| WriterProperties::builder().set_dictionary_enabled(false).build())
    }

    fn checked(bytes: Vec<u8>, bounds: PageBounds) -> Result<(), String> {
        let (size, bytes) = (bytes.len() as u64, Bytes::from(bytes));
        let footer = read_footer(&bytes, size).expect("a footer");
        check_pages(&bytes, &footer, bounds, |_| true).map_err(|error| error.to_string())
    }

    #[test]
    fn encodings_whose_readers_trust_the_length_of_a_page_are_imported_only() {
        for encoding in [Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
            let bytes = stored(|column| {
                let plain = WriterProperties::builder().set_dictionary_enabled(false);
                plain.set_column_encoding(column.into(), encoding).build()
            });
            let error = checked(bytes.clone(), PageBounds::TABLE).expect_err("refused");
            assert!(error.contains(&encoding.to_string()), "{error}");
            checked(bytes, PageBounds::IMPORT).expect("a user's own file");
        }
    }

    #[test]
    fn a_page_that_claims_more_than_it_has_is_refused() {
        let whole = plain();
        checked(whole.clone(), PageBounds::TABLE).expect("its own");
        // The first page begins after the mark of the file: its type, then both sizes as zigzag varints, each after its field.
        assert_eq!((whole[4..7].to_vec(), whole[8]), (vec![0x15, 0x00, 0x15], 0x15));
        for place in [7, 9] {
            let mut claim = whole.clone();
            claim[place] += 2;
            let error = checked(claim, PageBounds::TABLE).expect_err("refused");
            assert!(error.contains("damaged"), "{error}");
        }
        let few = PageBounds { page_bytes_max: 7, ..PageBounds::TABLE };
        assert!(checked(whole.clone(), few).expect_err("a page is larger").contains("more than 7 bytes"));
        let few = PageBounds { bytes_max: 20, ..PageBounds::TABLE };
        assert!(checked(whole, few).expect_err("two pages are larger").contains("more than 20 bytes"));
    }

    #[test]
    fn a_page_that_would_take_more_memory_than_a_page_may_is_refused() {
        let zstd = Compression::ZSTD(ZstdLevel::try_new(1).expect("a level"));
        let plain = || WriterProperties::builder().set_dictionary_enabled(false);
        let mut claim = stored(|_| plain().set_compression(zstd).build());
        // The size in place of a smaller one, as a zigzag varint.
        let mut size = 2 * (PARQUET_PAGE_BYTES_MAX as u64 + 1);
        let mut varint = Vec::new();
        while size >= 0x80 {
            varint.push(size as u8 | 0x80);
            size >>= 7;
        }
        varint.push(size as u8);
        // The page ends where it did: what its header gains, its data loses.
        claim[9] -= 2 * (varint.len() as u8 - 1);
        claim.splice(7..8, varint);
        let error = checked(claim, PageBounds::TABLE).expect_err("refused");
        assert!(error.contains(&format!("more than {PARQUET_PAGE_BYTES_MAX} bytes")), "{error}");
    }

    #[test]
    fn a_row_group_that_claims_more_rows_than_its_pages_have_is_refused() {
        let bytes = Bytes::from(plain());
        let footer = read_footer(&bytes, bytes.len() as u64).expect("a footer");
        let group = footer.row_group(0).clone().into_builder().set_num_rows(3).build().expect("a group");
        let footer = footer.into_builder().set_row_groups(vec![group]).build();
        let error = check_pages(&bytes, &footer, PageBounds::TABLE, |_| true).expect_err("refused").to_string();
        assert!(error.contains("fewer values"), "{error}");
    }

    #[test]
    fn columns_that_nothing_reads_are_not_checked() {
        let mut bytes = plain();
        bytes[7] += 2;
        let (size, bytes) = (bytes.len() as u64, Bytes::from(bytes));
        let footer = read_footer(&bytes, size).expect("a footer");
        let check =
            |name: &str| check_pages(&bytes, &footer, PageBounds::TABLE, |chunk| chunk.column_path().string() == name);
        assert!(check("n").is_err() && check("s").is_ok());
    }

    #[test]
    fn pages_of_the_second_version_are_checked_as_well() {
        let bytes = stored(|_| {
            let plain = WriterProperties::builder().set_dictionary_enabled(false);
            plain.set_writer_version(WriterVersion::PARQUET_2_0).set_encoding(Encoding::PLAIN).build()
        });
        checked(bytes, PageBounds::TABLE).expect("its own");
    }
}
