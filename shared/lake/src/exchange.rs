//! Folders of a table in which Trueup and another engine leave files for each other; Trueup deletes them. They are not part of the
//! table. What a process leaves behind that ended meanwhile is deleted by vacuum.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::delete::delete;
use super::{LakeError, Table, is_remote};

/// The folder of all exchanges of a table. Readers of tables ignore names that start like this.
pub(super) const EXCHANGES: &str = "_exchange";

/// A folder that only one run uses. Vacuum of this process leaves it alone until it is dropped.
pub struct Exchange {
    table: Table,
    name: String,
}

/// A file of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangedFile {
    /// The path within the exchange.
    pub path: String,
    pub size_bytes: u64,
}

impl Table {
    /// Returns a new exchange.
    pub fn exchange(&self) -> Exchange {
        let exchange = Exchange { table: self.clone(), name: uuid::Uuid::new_v4().to_string() };
        self.inner.leases.stage(self.path(), &exchange.folder());
        exchange
    }
}

impl Exchange {
    /// Returns the URL of a file or folder in the exchange, for engines with a file system of their own.
    pub fn url_of(&self, path: &str) -> String {
        with_scheme(&format!("{}/{}/{path}", self.table.inner.uri, self.folder()))
    }

    /// Writes a file.
    pub async fn write(&self, path: &str, content: impl Into<PutPayload>) -> Result<(), LakeError> {
        self.table.store().put(&self.path(path), content.into()).await?;
        Ok(())
    }

    /// Returns the Parquet files below a folder of the exchange.
    pub async fn parquet_files(&self, folder: &str) -> Result<Vec<ExchangedFile>, LakeError> {
        let prefix = self.path("").to_string();
        let listed: Vec<_> = self.table.store().list(Some(&self.path(folder))).try_collect().await?;
        let files = listed.into_iter().filter_map(|object| {
            let is_hidden = |name: &str| name.starts_with(['.', '_']);
            let name = object.location.filename()?;
            if is_hidden(name) || !name.ends_with(".parquet") {
                return None;
            }
            let path = object.location.as_ref().strip_prefix(prefix.as_str())?.trim_start_matches('/').to_owned();
            Some(ExchangedFile { path, size_bytes: object.size })
        });
        let mut files: Vec<ExchangedFile> = files.collect();
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Opens a Parquet file.
    pub async fn open(
        &self,
        file: &ExchangedFile,
    ) -> Result<ParquetRecordBatchStreamBuilder<ExchangeReader>, LakeError> {
        let reader = ExchangeReader { store: self.table.store(), path: self.path(&file.path), size: file.size_bytes };
        ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|source| LakeError::File {
            table: self.table.name(),
            path: format!("{}/{}", self.folder(), file.path),
            source,
        })
    }

    /// Deletes the exchange with all its files.
    pub async fn delete(&self) -> Result<(), LakeError> {
        let store = self.table.store();
        let listed: Vec<_> = store.list(Some(&self.path(""))).try_collect().await?;
        delete(store.as_ref(), listed.into_iter().map(|object| object.location).collect()).await?;
        if let Some(durable) = &self.table.inner.durable {
            let folder = durable.root().join(self.table.name()).join(self.folder());
            tokio::task::spawn_blocking(move || remove_empty(&folder)).await?;
        }
        Ok(())
    }

    fn folder(&self) -> String {
        format!("{EXCHANGES}/{}", self.name)
    }

    fn path(&self, path: &str) -> Path {
        Path::from(format!("{}/{path}", self.folder()))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.table.inner.leases.settle(self.table.path(), [self.folder().as_str()].into_iter());
    }
}

/// Reads parts of a file of an exchange.
#[derive(Debug)]
pub struct ExchangeReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for ExchangeReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.store.get_range(&self.path, range).map_err(|error| ParquetError::External(Box::new(error))).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let size = self.size;
        let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
        async move { Ok(Arc::new(reader.load_and_finish(self, size).await?)) }.boxed()
    }
}

/// Returns the folder of the exchange that a file belongs to; `None`: to none.
pub(super) fn exchange_of(path: &str) -> Option<&str> {
    let end = path.strip_prefix(EXCHANGES)?.strip_prefix('/')?.find('/')?;
    path.get(..EXCHANGES.len() + 1 + end)
}

/// Removes a folder without files, and its folders. Errors are ignored: an empty folder does no harm.
pub(super) fn remove_empty(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}

/// Returns a location with its scheme, so that no engine looks for it on its default file system.
pub fn with_scheme(location: &str) -> String {
    if is_remote(location) { location.to_owned() } else { format!("file://{location}") }
}
