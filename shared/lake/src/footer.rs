//! Reads the size of each column of a file from its footer, with one or two small requests, and checks footers.

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::ChunkReader;
use polars_parquet_format::FileMetaData;
use polars_parquet_format::thrift::protocol::TCompactInputProtocol;

use super::{DataFile, LakeError, Table};

/// Bytes of the first request; the footers of most files are smaller.
const FOOTER_BYTES: u64 = 64 * 1024;

impl Table {
    /// Returns the stored bytes of each column of `file`.
    pub async fn column_bytes(&self, file: &DataFile) -> Result<BTreeMap<String, u64>, LakeError> {
        let (store, path) = (self.store(), Path::from(file.path.as_str()));
        let size = u64::try_from(file.size_bytes).unwrap_or(0);
        let mut wanted = FOOTER_BYTES.min(size);
        let metadata = loop {
            let end = store.get_range(&path, size - wanted..size).await?;
            check_footer_lists(&end).map_err(|error| self.file_error(&file.path, error))?;
            let mut reader = ParquetMetaDataReader::new();
            match reader.try_parse_sized(&end, size) {
                Ok(()) => {
                    let footer = reader.finish().and_then(|footer| checked(footer, size));
                    break footer.map_err(|error| self.file_error(&file.path, error))?;
                }
                // More than was asked for before: a store that has fewer bytes than the log says would never have enough.
                Err(ParquetError::NeedMoreData(more)) if (wanted + 1..=size).contains(&(more as u64)) => {
                    wanted = more as u64
                }
                Err(error) => return Err(self.file_error(&file.path, error)),
            }
        };
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
            let name = column.column_path().parts().first().cloned().unwrap_or_default();
            *bytes.entry(name).or_default() += u64::try_from(column.compressed_size()).unwrap_or(0);
        }
        Ok(bytes)
    }
}

impl Table {
    /// Returns the error for a file of this table that cannot be read.
    pub(crate) fn file_error(&self, path: &str, source: ParquetError) -> LakeError {
        LakeError::File { table: self.name(), path: path.to_owned(), source }
    }
}

/// What ends a file: the length of the footer, and a mark.
const TAIL_BYTES: usize = 8;
const MARK: &[u8] = b"PAR1";
/// Memory that a byte of a footer may become, in bytes: structures are several times larger than in the file.
const FOOTER_GROWTH: usize = 64;

/// Checks that a footer has the row groups and columns that it announces: its reader makes room for them first, so a
/// damaged footer would end the process. `end`: the last bytes of the file; a footer that begins before them is not checked.
///
/// # Errors
/// The footer is damaged.
pub fn check_footer_lists(end: &[u8]) -> Result<(), ParquetError> {
    let Some(rest) = end.len().checked_sub(TAIL_BYTES).filter(|_| end.ends_with(MARK)) else { return Ok(()) };
    let length = end[rest..].first_chunk().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
    let Some(start) = rest.checked_sub(length) else { return Ok(()) };
    let mut protocol = TCompactInputProtocol::new(&end[start..rest], length.saturating_mul(FOOTER_GROWTH));
    FileMetaData::read_from_in_protocol(&mut protocol)
        .map_err(|error| ParquetError::General(format!("the footer is wrong: {error}")))?;
    Ok(())
}

/// Reads the footer of `file`, of `size` bytes, and checks it.
///
/// # Errors
/// The file cannot be read, or its footer is damaged.
pub fn read_footer(file: &impl ChunkReader, size: u64) -> Result<ParquetMetaData, ParquetError> {
    let tail = file.get_bytes(
        size.saturating_sub(TAIL_BYTES as u64),
        TAIL_BYTES.min(usize::try_from(size).unwrap_or(usize::MAX)),
    )?;
    let length = tail.first_chunk().map_or(0, |length| u32::from_le_bytes(*length)) as usize + TAIL_BYTES;
    if let Some(start) = size.checked_sub(length as u64) {
        check_footer_lists(&file.get_bytes(start, length)?)?;
    }
    checked(ParquetMetaDataReader::new().parse_and_finish(file)?, size)
}

/// Checks a footer before it is relied on: another program may have written it, or it is damaged. Columns lie within the
/// file, of `size` bytes, and row groups add up to the rows of the file.
pub fn check_footer(footer: &ParquetMetaData, size: u64) -> Result<(), ParquetError> {
    let wrong = |reason: &str| Err(ParquetError::General(format!("the footer is wrong: {reason}")));
    let mut rows = 0_i64;
    for group in footer.row_groups() {
        match rows.checked_add(group.num_rows()) {
            Some(sum) if group.num_rows() >= 0 => rows = sum,
            _ => return wrong("a row group has an impossible number of rows"),
        }
        if group.columns().iter().any(|chunk| range_in(chunk, size).is_none()) {
            return wrong("a column lies outside the file");
        }
    }
    if rows != footer.file_metadata().num_rows() {
        return wrong("its row groups have another number of rows than the file");
    }
    Ok(())
}

pub(crate) fn checked(footer: ParquetMetaData, size: u64) -> Result<ParquetMetaData, ParquetError> {
    check_footer(&footer, size)?;
    Ok(footer)
}

/// Returns where a column is in a file of `size` bytes; `None`: not within it.
fn range_in(chunk: &ColumnChunkMetaData, size: u64) -> Option<std::ops::Range<u64>> {
    let start = u64::try_from(chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset())).ok()?;
    let end = start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?;
    (end <= size).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};

    use super::*;
    use crate::encode::encode;

    #[test]
    fn a_footer_that_points_outside_its_file_is_refused() {
        let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as _)]).expect("rows");
        let bytes = encode(rows.schema(), &[rows]).expect("encodes").bytes;
        let size = bytes.len() as u64;
        let footer = ParquetMetaDataReader::new().parse_and_finish(&bytes).expect("a footer");
        check_footer(&footer, size).expect("its own");
        let error = check_footer(&footer, 10).expect_err("of a shorter file").to_string();
        assert!(error.contains("a column lies outside the file"), "{error}");
        let no_groups = footer.into_builder().set_row_groups(Vec::new()).build();
        let error = check_footer(&no_groups, size).expect_err("without its rows").to_string();
        assert!(error.contains("another number of rows"), "{error}");
    }

    #[test]
    fn a_footer_that_announces_more_than_it_has_is_refused() {
        let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as _)]).expect("rows");
        let mut bytes = encode(rows.schema(), &[rows]).expect("encodes").bytes.to_vec();
        check_footer_lists(&bytes).expect("its own");
        let tail = bytes.len() - TAIL_BYTES;
        let length = u32::from_le_bytes(*bytes[tail..].first_chunk().expect("a length")) as usize;
        // The list of row groups: one structure. Then 2^31 - 1 of them.
        let lists = bytes[tail - length..].windows(2).position(|bytes| bytes == [0x19, 0x1c]).expect("a list");
        bytes.splice(tail - length + lists + 1..tail - length + lists + 2, [0xfc, 0xff, 0xff, 0xff, 0xff, 0x07]);
        let end = bytes.len() - TAIL_BYTES;
        bytes[end..end + 4].copy_from_slice(&(length as u32 + 5).to_le_bytes());
        let size = bytes.len() as u64;
        let error = read_footer(&bytes::Bytes::from(bytes), size).expect_err("refused").to_string();
        assert!(error.contains("the footer is wrong"), "{error}");
    }
}
