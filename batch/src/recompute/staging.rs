//! Holds the files that a run has written. They are durable, but part of the table only once committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use lake::{DataFile, LakeError, Table};
use parking_lot::Mutex;
use shared::partial::bucket::{BUCKET_TAG, Bucket};
use shared::version::Origin;
use shared::view::View;
use shared::window::Window;

use crate::recompute::fold::slices::FinishedDate;
use crate::versions::reader::VersionReader;

/// The files of one run, and where they go.
pub struct Staging {
    table: Table,
    /// Keeps the rows in memory, so that they need not be read again.
    reader: Arc<VersionReader>,
    view: Arc<View>,
    /// The layer that computed the rows.
    origin: Origin,
    files: Mutex<Vec<DataFile>>,
    longest_session_us: AtomicI64,
}

impl Staging {
    /// Returns a staging area without files.
    pub fn new(table: Table, reader: Arc<VersionReader>, view: Arc<View>, origin: Origin) -> Staging {
        Staging { table, reader, view, origin, files: Mutex::default(), longest_session_us: AtomicI64::new(0) }
    }

    /// Returns the table that the files are for.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the files so far, by path.
    pub fn files(&self) -> Vec<DataFile> {
        let mut files = self.files.lock().clone();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }

    /// Returns the longest session of the staged rows, from its first event to its end, in microseconds.
    pub fn longest_session_us(&self) -> i64 {
        self.longest_session_us.load(Ordering::SeqCst)
    }

    /// Writes the rows of a window date; returns the bytes that need not be held any longer.
    pub async fn write(&self, date: FinishedDate) -> Result<usize, LakeError> {
        let bytes = date.bytes();
        if date.rows.num_rows() == 0 {
            return Ok(bytes);
        }
        if let Window::Session { gap } = self.view.window {
            let longest =
                date.part.sessions().map(|(first, last)| last.saturating_sub(first).saturating_add(gap)).max();
            self.longest_session_us.fetch_max(longest.unwrap_or(0), Ordering::SeqCst);
        }
        let mut file = self.table.write_parquet(date.date, &[date.rows]).await?;
        if date.bucket != Bucket::ALL {
            file.tags.insert(BUCKET_TAG.to_owned(), date.bucket.to_string());
        }
        if self.origin == Origin::Speed {
            file.tags.insert(Origin::TAG.to_owned(), self.origin.name().to_owned());
        }
        self.reader.keep(&self.view, &file.path, Arc::new(date.part));
        self.files.lock().push(file);
        Ok(bytes)
    }

    /// Deletes the files: the run failed.
    pub async fn discard(&self) {
        let files = std::mem::take(&mut *self.files.lock());
        let table = &self.table;
        // If they cannot be deleted now, vacuum deletes them.
        if let Err(error) = table.delete_files(&files).await {
            tracing::warn!(table = table.name(), %error, "could not delete the files of a failed run; vacuum will");
        }
    }
}

impl Drop for Staging {
    /// A run that ended in a panic neither commits nor discards: vacuum deletes its files.
    fn drop(&mut self) {
        self.table.give_up(self.files.get_mut());
    }
}
