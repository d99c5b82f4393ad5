//! Reads Parquet files that may be damaged: the library panics on some of them, which becomes an error here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::errors::ParquetError;

/// Calls the library. A panic becomes [`ParquetError::General`].
pub fn caught<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let reason = text.unwrap_or("no reason given");
        Err(ParquetError::General(format!("the file is damaged: {reason}")))
    })
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
