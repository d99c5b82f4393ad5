//! Checks the pages of local files, and remembers which columns were checked: queries of single entities read few pages of
//! large files, and would otherwise read the headers of all of them each time.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use quick_cache::sync::Cache;
use shared::limits::CHECKED_FILES_MAX;

use super::{PageBounds, check_pages};

/// The files of a table whose pages were checked.
pub(crate) struct CheckedFiles(Cache<FileState, Arc<HashSet<u64>>>);

/// A file as it was when it was checked. A changed file is another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FileState {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl CheckedFiles {
    pub fn new() -> CheckedFiles {
        CheckedFiles(Cache::new(CHECKED_FILES_MAX))
    }

    /// Checks the pages of the columns that `is_read` selects, unless they were checked before. Blocks.
    ///
    /// # Errors
    /// A page is damaged, or the file cannot be read.
    pub fn check(
        &self,
        file: &File,
        footer: &ParquetMetaData,
        is_read: impl Fn(&ColumnChunkMetaData) -> bool,
    ) -> Result<(), ParquetError> {
        let about = file.metadata()?;
        let state = FileState {
            device: about.dev(),
            inode: about.ino(),
            bytes: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
        };
        let known = self.0.get(&state).unwrap_or_default();
        let is_new = |chunk: &ColumnChunkMetaData| is_read(chunk) && !known.contains(&start_of(chunk));
        let new: Vec<u64> = footer
            .row_groups()
            .iter()
            .flat_map(|group| group.columns().iter().filter(|chunk| is_new(chunk)).map(start_of))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        check_pages(file, footer, PageBounds::TABLE, is_new)?;
        self.0.insert(state, Arc::new(known.iter().copied().chain(new).collect()));
        Ok(())
    }
}

/// Returns where a chunk begins, in bytes.
pub(crate) fn start_of(chunk: &ColumnChunkMetaData) -> u64 {
    chunk.byte_range().0
}
