//! Refuses what another program may have written into a table and this one would read wrongly: features of Delta that change
//! the meaning of files, files outside the table's folder, numbers too large to count with, and logs on which the Delta library
//! panics.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use deltalake_core::kernel::{Add, Version};
use deltalake_core::table::state::DeltaTableState;
use futures::FutureExt;

use super::LakeError;
use shared::time::Day;

/// Features that leave the meaning of files as it is. Deletion vectors change it for the files that have one.
const FEATURES: [&str; 4] = ["deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"];
const COLUMN_MAPPING_KEY: &str = "delta.columnMapping.mode";
/// Highest version of a table: every reader of JSON has it exactly, and the versions after it can be counted.
const VERSION_MAX: i64 = 1 << 53;
/// Most bytes and rows of one file, far above what any store or format holds: their sums over all files fit.
const FILE_BYTES_MAX: i64 = 1 << 44;
pub(crate) const FILE_ROWS_MAX: i64 = 1 << 40;

/// Returns the version that `table` was loaded at; -1: it is not loaded.
pub(crate) fn checked_version(table: &str, version: Option<Version>) -> Result<i64, LakeError> {
    let Some(version) = version else { return Ok(-1) };
    match i64::try_from(version) {
        Ok(version) if version <= VERSION_MAX => Ok(version),
        _ => {
            let reason = format!(
                "the log has the version {version}, and the highest possible one is {VERSION_MAX}: another program wrote it; \
                 remove its files from the log"
            );
            Err(LakeError::Schema { table: table.to_owned(), reason })
        }
    }
}

/// Checks that files of `table` mean what they say: their columns have the names of the table's columns, and no other
/// feature says how to read them.
pub(crate) fn check_protocol(table: &str, state: &DeltaTableState) -> Result<(), LakeError> {
    let refused = |what: String| {
        let reason = format!("another program uses {what}, which trueup does not read; rewrite the table without it");
        Err(LakeError::Schema { table: table.to_owned(), reason })
    };
    let features = state.protocol().reader_features().unwrap_or_default();
    let is_known = |feature: &str| FEATURES.contains(&feature) || feature == "columnMapping";
    if let Some(other) = features.iter().map(ToString::to_string).find(|feature| !is_known(feature)) {
        return refused(format!("the table feature \"{other}\""));
    }
    match state.metadata().configuration().get(COLUMN_MAPPING_KEY) {
        Some(mode) if mode != "none" => refused(format!("column mapping (\"{mode}\")")),
        _ => Ok(()),
    }
}

/// Checks an entry of the log that adds a file of `rows` rows.
pub(crate) fn check_file(table: &str, add: &Add, rows: i64, partition_column: &str) -> Result<(), LakeError> {
    let refused = |reason: String| Err(LakeError::Schema { table: table.to_owned(), reason });
    if !is_inside(&add.path) {
        // The path itself may hold control characters.
        return refused(format!("the log names a file that is not in the table's folder: {:?}", add.path));
    }
    if add.deletion_vector.is_some() {
        return refused(format!(
            "another program deleted rows of the file {} with a deletion vector, which trueup does not read; rewrite the \
             file without it",
            add.path
        ));
    }
    if !(0..=FILE_BYTES_MAX).contains(&add.size) || !(0..=FILE_ROWS_MAX).contains(&rows) {
        return refused(format!("the file {} cannot have {} bytes and {rows} rows", add.path, add.size));
    }
    match add.partition_values.get(partition_column) {
        Some(Some(day)) if !day.is_empty() && Day::parse(day).is_none() => {
            refused(format!("the file {} is of the date {day:?}, which is not a date", add.path))
        }
        _ => Ok(()),
    }
}

/// Returns whether a path is relative, leads nowhere but down, and means the same with and without percent decoding.
fn is_inside(path: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '%' | '\\' | ':' | '#' | '?');
    path.chars().all(is_plain) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Awaits `work`, in which the Delta library reads the log of `table`. A panic becomes [`LakeError::Panicked`].
pub(crate) async fn guarded<T>(table: &str, work: impl Future<Output = Result<T, LakeError>>) -> Result<T, LakeError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| Err(panicked(table, panic.as_ref())))
}

/// Does the same for work that does not wait.
pub(crate) fn guarded_now<T>(table: &str, work: impl FnOnce() -> Result<T, LakeError>) -> Result<T, LakeError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(table, panic.as_ref())))
}

fn panicked(table: &str, panic: &(dyn Any + Send)) -> LakeError {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    LakeError::Panicked { table: table.to_owned(), reason: text.unwrap_or("no reason given").to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_below_the_table_are_accepted() {
        for path in ["_event_date=2001-01-01/part-1.parquet", "a/b c/d.parquet", "x", "größe/x"] {
            assert!(is_inside(path), "{path}");
        }
        let outside = ["../x", "a/../../x", "/etc/passwd", "file:///etc/passwd", "s3://b/x", "a//b", "", "a/", "./a"];
        for path in outside.into_iter().chain(["a%2F..%2Fb", "%2e%2e/x", "a\\..\\b", "C:x", "a\0b", "a?b", "a#1"]) {
            assert!(!is_inside(path), "{path}");
        }
    }

    #[test]
    fn versions_that_cannot_be_counted_on_are_refused() {
        assert_eq!(checked_version("t", None).expect("not loaded"), -1);
        assert_eq!(checked_version("t", Some(1 << 53)).expect("the last"), VERSION_MAX);
        for version in [(1 << 53) + 1, i64::MAX as u64, u64::MAX] {
            let error = checked_version("events/s", Some(version)).expect_err("refused").to_string();
            assert!(error.starts_with("events/s: ") && error.contains(&version.to_string()), "{error}");
        }
    }

    #[test]
    fn files_of_impossible_size_are_refused() {
        let check = |size: i64, rows: i64| {
            let add = Add { path: "a".to_owned(), size, ..Add::default() };
            check_file("events/s", &add, rows, "day").map_err(|error| error.to_string())
        };
        assert_eq!(check(0, 0), Ok(()));
        assert_eq!(check(FILE_BYTES_MAX, FILE_ROWS_MAX), Ok(()));
        for (size, rows) in [(-1, 0), (0, -1), (i64::MAX, 0), (0, i64::MAX)] {
            let error = check(size, rows).expect_err("refused");
            assert!(error.contains(&format!("{size} bytes and {rows} rows")), "{error}");
        }
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_that_names_the_table() {
        let error = guarded::<()>("events/s", async { panic!("no such column {}", 7) }).await.expect_err("it panics");
        assert_eq!(error.to_string(), "events/s: the Delta log cannot be read: no such column 7");
        assert!(matches!(guarded_now::<()>("t", || panic!("x")), Err(LakeError::Panicked { .. })));
    }
}
