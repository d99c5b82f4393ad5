//! Lets libraries that read files by path read those of a remote lake. The footer and the needed columns of a file are
//! copied to this machine, each byte to its own offset in a sparse file, which the last holder deletes.
//!
//! Files of a local lake are not copied but read in place.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use tokio::sync::Semaphore;

use super::checked_files::{CheckedFiles, start_of};
use super::footer::{check_footer_lists, checked, read_footer};
use super::table::FileAccess;
use super::{DataFile, LakeError, PageBounds, Table, check_pages};
use shared::limits::{SPOOL_FOOTER_BYTES, SPOOL_GAP_BYTES, SPOOL_PIECE_BYTES, SPOOL_REQUESTS};

/// The folder on this machine for parts of files of a remote lake. Clones share it.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    bytes_max: u64,
    /// Bytes of all files that are held.
    bytes: AtomicU64,
    numbered: AtomicU64,
    files: Mutex<HashMap<String, Weak<SpooledFile>>>,
    requests: Semaphore,
}

impl Spool {
    /// Opens an empty spool in the folder `path`, creating it if needed. The folder belongs to the spool: leftovers of
    /// a dead process are deleted. At most `bytes_max` bytes are held at the same time.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<Spool> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(path)?,
        }
        Ok(Spool(Arc::new(Folder {
            path: path.to_owned(),
            bytes_max,
            bytes: AtomicU64::new(0),
            numbered: AtomicU64::new(0),
            files: Mutex::default(),
            requests: Semaphore::new(SPOOL_REQUESTS),
        })))
    }

    /// Returns the bytes held now.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Returns whether files of that size would fit as well.
    fn has_room(&self, bytes: u64) -> bool {
        self.bytes().saturating_add(bytes) <= self.0.bytes_max
    }

    /// Returns the file called `key`, with whatever parts of it are present.
    fn file(&self, key: String, size: u64) -> Result<Arc<SpooledFile>, LakeError> {
        let mut files = self.0.files.lock();
        if let Some(brought) = files.get(&key).and_then(Weak::upgrade) {
            return Ok(brought);
        }
        let number = self.0.numbered.fetch_add(1, Ordering::Relaxed);
        let path = self.0.path.join(format!("{number}.parquet"));
        let made = File::create_new(&path).and_then(|file| file.set_len(size));
        made.map_err(|source| LakeError::Spool { path: path.display().to_string(), source })?;
        let brought = Arc::new(SpooledFile {
            folder: Arc::clone(&self.0),
            key: key.clone(),
            path,
            size,
            bytes: AtomicU64::new(0),
            footer: OnceLock::new(),
            chunks: tokio::sync::Mutex::default(),
        });
        files.insert(key, Arc::downgrade(&brought));
        Ok(brought)
    }
}

/// A file with some parts on this machine.
#[derive(Debug)]
struct SpooledFile {
    folder: Arc<Folder>,
    key: String,
    path: PathBuf,
    /// Size of the whole file, in bytes.
    size: u64,
    /// Bytes on this machine.
    bytes: AtomicU64,
    footer: OnceLock<Arc<ParquetMetaData>>,
    /// Starts of the column chunks that are present.
    chunks: tokio::sync::Mutex<HashSet<u64>>,
}

impl Drop for SpooledFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a file of the spool is left over until the next start");
        }
        self.folder.bytes.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        let mut files = self.folder.files.lock();
        // Another file of this name may have been created after the last holder dropped this one.
        if files.get(&self.key).is_some_and(|weak| weak.strong_count() == 0) {
            files.remove(&self.key);
        }
    }
}

impl SpooledFile {
    /// Loads the footer and the missing columns.
    async fn bring(
        &self,
        store: &dyn ObjectStore,
        location: &StorePath,
        columns: &[String],
        read: &AtomicU64,
    ) -> Result<(), LakeError> {
        let mut chunks = self.chunks.lock().await;
        let source = RemoteFile { store, location, read, requests: &self.folder.requests };
        if self.footer.get().is_none() {
            let footer = self.bring_footer(&source).await?;
            self.footer.get_or_init(|| Arc::new(footer));
        }
        let footer = self.footer.get().expect("it was just brought");
        let missing: Vec<Range<u64>> =
            chunks_of(footer, columns).filter(|chunk| !chunks.contains(&chunk.start)).collect();
        if self.size > SPOOL_FOOTER_BYTES {
            let pieces = pieces(missing.clone());
            self.reserve(pieces.iter().map(|piece| piece.end - piece.start).sum())?;
            let bring = pieces.into_iter().map(|piece| async {
                let at = piece.start;
                self.write(at, source.get(piece).await?).await
            });
            stream::iter(bring).buffer_unordered(SPOOL_REQUESTS).try_collect::<()>().await?;
        }
        let starts: HashSet<u64> = missing.iter().map(|chunk| chunk.start).collect();
        self.check_pages(Arc::clone(footer), starts.clone()).await?;
        chunks.extend(starts);
        Ok(())
    }

    /// Checks the pages of the columns that begin at `starts`.
    async fn check_pages(&self, footer: Arc<ParquetMetaData>, starts: HashSet<u64>) -> Result<(), LakeError> {
        let path = self.path.clone();
        let check = move || {
            let file =
                File::open(&path).map_err(|source| LakeError::Spool { path: path.display().to_string(), source })?;
            let is_new = |chunk: &ColumnChunkMetaData| starts.contains(&start_of(chunk));
            Ok(check_pages(&file, &footer, PageBounds::TABLE, is_new).map_err(ParquetError::from)?)
        };
        tokio::task::spawn_blocking(check).await?
    }

    /// Loads the end of the file; a small file is loaded as a whole.
    async fn bring_footer(&self, source: &RemoteFile<'_>) -> Result<ParquetMetaData, LakeError> {
        let mut from = self.size.saturating_sub(SPOOL_FOOTER_BYTES);
        loop {
            let end = source.get(from..self.size).await?;
            check_footer_lists(&end)?;
            let mut reader = ParquetMetaDataReader::new();
            match reader.try_parse_sized(&end, self.size) {
                Ok(()) => {
                    self.reserve(end.len() as u64)?;
                    self.write(from, end).await?;
                    return Ok(checked(reader.finish()?, self.size)?);
                }
                Err(ParquetError::NeedMoreData(bytes)) if (bytes as u64) > self.size - from && from > 0 => {
                    from = self.size.saturating_sub(bytes as u64);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn reserve(&self, bytes: u64) -> Result<(), LakeError> {
        let total = self.folder.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total > self.folder.bytes_max {
            self.folder.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(LakeError::SpoolFull { needed: total, limit: self.folder.bytes_max });
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    async fn write(&self, at: u64, bytes: Bytes) -> Result<(), LakeError> {
        // Thousands of files may be held, and each would need a descriptor if it stayed open.
        let path = self.path.clone();
        let write = move || OpenOptions::new().write(true).open(path)?.write_all_at(&bytes, at);
        let written = tokio::task::spawn_blocking(write).await?;
        written.map_err(|source| LakeError::Spool { path: self.path.display().to_string(), source })
    }
}

/// A file in the remote store.
struct RemoteFile<'a> {
    store: &'a dyn ObjectStore,
    location: &'a StorePath,
    read: &'a AtomicU64,
    requests: &'a Semaphore,
}

impl RemoteFile<'_> {
    async fn get(&self, range: Range<u64>) -> Result<Bytes, LakeError> {
        let _turn = self.requests.acquire().await.expect("the semaphore is never closed");
        let expected = range.end - range.start;
        let bytes = self.store.get_range(self.location, range).await?;
        self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if bytes.len() as u64 != expected {
            let source = format!("{}: asked for {expected} bytes, got {}", self.location, bytes.len());
            return Err(object_store::Error::Generic { store: "Spool", source: source.into() }.into());
        }
        Ok(bytes)
    }
}

/// Returns the byte ranges of the named columns' chunks, in order.
fn chunks_of<'a>(footer: &'a ParquetMetaData, columns: &'a [String]) -> impl Iterator<Item = Range<u64>> + 'a {
    footer.row_groups().iter().flat_map(move |group| {
        group.columns().iter().filter(|chunk| is_of(chunk, columns)).map(|chunk| {
            let (start, length) = chunk.byte_range();
            start..start + length
        })
    })
}

/// Returns whether a chunk is one of the named columns.
fn is_of(chunk: &ColumnChunkMetaData, columns: &[String]) -> bool {
    chunk.column_path().parts().first().is_some_and(|root| columns.contains(root))
}

/// Returns the ranges to request: ranges with small gaps become one, large ones several.
fn pieces(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(SPOOL_GAP_BYTES) => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    let cut = |range: Range<u64>| {
        let end = range.end;
        let starts = (range.start..end).step_by(SPOOL_PIECE_BYTES as usize);
        starts.map(move |start| start..end.min(start + SPOOL_PIECE_BYTES))
    };
    joined.into_iter().flat_map(cut).collect()
}

/// Files that can be read by path while this is held.
#[derive(Debug, Default)]
pub struct LocalFiles {
    paths: HashMap<String, String>,
    /// Rows of the files of a local lake, according to their footers.
    rows: HashMap<String, i64>,
    brought: HashMap<String, Arc<SpooledFile>>,
}

impl LocalFiles {
    /// Returns the path under which a held file can be read.
    pub fn path(&self, file: &DataFile) -> Option<&str> {
        self.paths.get(&file.path).map(String::as_str)
    }

    /// Returns the number of rows according to the file's own footer; `None` if it cannot be read.
    pub fn rows(&self, file: &DataFile) -> Option<u64> {
        let rows = match self.brought.get(&file.path) {
            Some(brought) => brought.footer.get()?.file_metadata().num_rows(),
            None => *self.rows.get(&file.path)?,
        };
        u64::try_from(rows).ok()
    }
}

impl Table {
    /// Makes the named columns of `files` readable by path. In a remote lake missing parts are loaded; dropping the
    /// future leaves nothing behind. `read` counts the bytes loaded, or in a local lake those that
    /// reading will take.
    pub async fn hold(
        &self,
        files: &[DataFile],
        columns: &[String],
        read: &AtomicU64,
    ) -> Result<LocalFiles, LakeError> {
        let spool = match self.access() {
            FileAccess::InPlace(checked) => return self.hold_local(files, columns, read, checked),
            FileAccess::Spooled(spool) => spool,
            FileAccess::NoSpool => return Err(LakeError::NoSpool { table: self.name() }),
        };
        let store = self.store();
        // Boxed one by one: the compiler does not see that a closure over references gives futures that are `Send`.
        let mut bring: Vec<BoxFuture<'_, Result<_, LakeError>>> = Vec::with_capacity(files.len());
        for file in files {
            let (store, size) = (Arc::clone(&store), u64::try_from(file.size_bytes).unwrap_or(0));
            bring.push(Box::pin(async move {
                let brought = spool.file(format!("{}/{}", self.name(), file.path), size)?;
                let location = StorePath::from(file.path.as_str());
                match brought.bring(store.as_ref(), &location, columns, read).await {
                    Err(LakeError::Parquet(error)) => return Err(self.file_error(&file.path, error)),
                    outcome => outcome?,
                }
                Ok((file.path.clone(), brought))
            }));
        }
        let brought: HashMap<_, _> = stream::iter(bring).buffer_unordered(SPOOL_REQUESTS).try_collect().await?;
        let path = |brought: &Arc<SpooledFile>| brought.path.display().to_string();
        let paths = brought.iter().map(|(name, brought)| (name.clone(), path(brought))).collect();
        Ok(LocalFiles { paths, brought, ..LocalFiles::default() })
    }

    /// Does the same for a local lake, without waiting; `None`: the lake is remote.
    pub fn held_in_place(
        &self,
        files: &[DataFile],
        columns: &[String],
        read: &AtomicU64,
    ) -> Option<Result<LocalFiles, LakeError>> {
        match self.access() {
            FileAccess::InPlace(checked) => Some(self.hold_local(files, columns, read, checked)),
            FileAccess::Spooled(_) | FileAccess::NoSpool => None,
        }
    }

    /// Returns whether all of `files` would fit into the spool as well. Files of a local lake are not loaded, so there
    /// is nothing to prefetch.
    pub fn has_room_for(&self, files: &[DataFile]) -> bool {
        let bytes = files.iter().map(|file| u64::try_from(file.size_bytes).unwrap_or(0)).sum();
        matches!(self.access(), FileAccess::Spooled(spool) if spool.has_room(bytes))
    }

    fn hold_local(
        &self,
        files: &[DataFile],
        columns: &[String],
        read: &AtomicU64,
        checked: &CheckedFiles,
    ) -> Result<LocalFiles, LakeError> {
        let mut held = LocalFiles::default();
        for file in files {
            let path = self.url_of(file);
            // A file that is not there is reported by its reader.
            if let Ok(opened) = File::open(&path) {
                let footer = checked_footer(&opened, checked, columns);
                let footer = footer.map_err(|error| self.file_error(&file.path, error))?;
                let bytes = chunks_of(&footer, columns).map(|chunk| chunk.end - chunk.start);
                read.fetch_add(bytes.fold(0, u64::saturating_add), Ordering::Relaxed);
                held.rows.insert(file.path.clone(), footer.file_metadata().num_rows());
            }
            held.paths.insert(file.path.clone(), path);
        }
        Ok(held)
    }
}

/// Reads the footer, and checks it and the pages of the named columns.
fn checked_footer(file: &File, checked: &CheckedFiles, columns: &[String]) -> Result<ParquetMetaData, ParquetError> {
    let footer = read_footer(file, file.metadata()?.len())?;
    checked.check(file, &footer, |chunk| is_of(chunk, columns))?;
    Ok(footer)
}

#[cfg(test)]
mod tests;
