//! Finds the pages of an archive file that may have an entity, by the smallest and largest value of each: files are sorted by
//! entity within runs of one commit, so few pages are read.

use std::ops::Range;

use parquet::arrow::arrow_reader::RowSelection;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use shared::entity::EntityId;

/// The rows of a file that may be of the entity, whose column is at `column`; `None`: the file does not say.
pub(super) fn candidates(footer: &ParquetMetaData, column: usize, id: &EntityId) -> Option<RowSelection> {
    let (values, pages) = (footer.column_index()?, footer.offset_index()?);
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    for (group, metadata) in footer.row_groups().iter().enumerate() {
        let rows = usize::try_from(metadata.num_rows()).ok()?;
        let index = values.get(group)?.get(column)?;
        let starts: Vec<usize> = pages
            .get(group)?
            .get(column)?
            .page_locations()
            .iter()
            .map(|page| usize::try_from(page.first_row_index).ok())
            .collect::<Option<_>>()?;
        for (page, start) in starts.iter().enumerate() {
            let end = starts.get(page + 1).copied().unwrap_or(rows);
            if may_hold(index, page, id) {
                ranges.push(first + start..first + end);
            }
        }
        first += rows;
    }
    Some(RowSelection::from_consecutive_ranges(ranges.into_iter(), first))
}

/// Whether a page may hold the id. Bounds of long texts are cut, but still bounds.
fn may_hold(index: &ColumnIndexMetaData, page: usize, id: &EntityId) -> bool {
    let number = match id {
        EntityId::Integer(number) => *number,
        EntityId::Text(_) => 0,
    };
    let within = |low: Option<bool>, high: Option<bool>| low.unwrap_or(true) && high.unwrap_or(true);
    match (index, id) {
        (ColumnIndexMetaData::BYTE_ARRAY(pages), EntityId::Text(text)) => {
            let text = text.as_bytes();
            within(pages.min_value(page).map(|low| low <= text), pages.max_value(page).map(|high| text <= high))
        }
        (ColumnIndexMetaData::INT32(pages), EntityId::Integer(_)) => within(
            pages.min_value(page).map(|low| i64::from(*low) <= number),
            pages.max_value(page).map(|high| number <= i64::from(*high)),
        ),
        (ColumnIndexMetaData::INT64(pages), EntityId::Integer(_)) => {
            within(pages.min_value(page).map(|low| *low <= number), pages.max_value(page).map(|high| number <= *high))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
    use parquet::file::metadata::PageIndexPolicy;
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;

    use super::*;

    /// A file with small pages and row groups.
    fn file(texts: &[String], numbers: &[i64]) -> Bytes {
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        let numbers: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
        let rows = RecordBatch::try_from_iter([("text", texts), ("number", numbers)]).expect("columns");
        let properties = WriterProperties::builder()
            .set_data_page_row_count_limit(3)
            .set_write_batch_size(1)
            .set_max_row_group_row_count(Some(10))
            .set_column_index_truncate_length(Some(2))
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).expect("a writer");
        writer.write(&rows).expect("writes");
        writer.into_inner().expect("a file").into()
    }

    proptest! {
        #[test]
        fn every_row_of_an_entity_is_a_candidate_and_sorted_files_have_few(
            mut rows in prop::collection::vec(("[ab]{1,4}|é{1,3}", -5i64..5), 1..60), sorted: bool, text in "[ab]{1,4}|é{1,3}", number in -5i64..5,
        ) {
            if sorted {
                rows.sort();
            }
            let (texts, numbers): (Vec<String>, Vec<i64>) = rows.into_iter().unzip();
            let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
            let opened = ParquetRecordBatchReaderBuilder::try_new_with_options(file(&texts, &numbers), options).expect("opens");
            let footer = opened.metadata();
            let selected = |column: usize, id: &EntityId| -> Vec<bool> {
                let selection = candidates(footer, column, id).expect("an index");
                selection.iter().flat_map(|part| std::iter::repeat_n(!part.skip, part.row_count)).collect()
            };
            let of_text = selected(0, &EntityId::Text(text.clone()));
            let of_number = selected(1, &EntityId::Integer(number));
            prop_assert!(texts.iter().enumerate().all(|(row, t)| *t != text || of_text.get(row) == Some(&true)));
            prop_assert!(numbers.iter().enumerate().all(|(row, n)| *n != number || of_number.get(row) == Some(&true)));
        }
    }
}
