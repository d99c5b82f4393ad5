//! Reads Parquet files that may be damaged: the library panics on some of them, which becomes an error here, and would allocate
//! whatever memory others claim to need, which is checked before.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use lake::{PageBounds, check_pages};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;

/// Calls the library. A panic becomes [`ParquetError::General`].
pub fn caught<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let reason = text.unwrap_or("no reason given");
        Err(ParquetError::General(format!("the file is damaged: {reason}")))
    })
}

/// Opens a file, and checks its footer.
pub fn open(file: File, options: ArrowReaderOptions) -> Result<ParquetRecordBatchReaderBuilder<File>, ParquetError> {
    caught(|| {
        let footer = lake::read_footer(&file, file.metadata()?.len())?;
        let metadata = ArrowReaderMetadata::try_new(footer.into(), options)?;
        Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata))
    })
}

/// Checks the pages of the columns that `is_read` selects by name, in a second handle of the file.
pub fn check_columns(
    file: &File,
    builder: &ParquetRecordBatchReaderBuilder<File>,
    is_read: impl Fn(&str) -> bool,
) -> Result<(), ParquetError> {
    let root = |parts: &[String]| parts.first().is_some_and(|root| is_read(root));
    let check = || check_pages(file, builder.metadata(), PageBounds::IMPORT, |chunk| root(chunk.column_path().parts()));
    caught(|| Ok(check()?))
}

/// Returns the next rows of a file; `None`: there are no more.
pub fn next_rows(reader: &mut ParquetRecordBatchReader) -> Result<Option<RecordBatch>, ParquetError> {
    caught(|| Ok(reader.next().transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        let error = caught::<()>(|| panic!("no page {}", 7)).expect_err("it panics").to_string();
        assert!(error.ends_with("the file is damaged: no page 7"), "{error}");
        assert_eq!(caught(|| Ok(7)).expect("no panic"), 7);
    }
}
