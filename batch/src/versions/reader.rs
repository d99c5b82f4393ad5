//! Reads batch versions file by file, as partial aggregates, from memory where possible.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::{BoxFuture, try_join_all};
use lake::{Lake, Leases, TablePath};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shared::handoff::HandoffError;
use shared::partial::block::Part;
use shared::partial::codec::{CodecError, WINDOW_END, WINDOW_START, decode, state_fields};
use shared::partial::keys::KeyLayout;
use shared::published::PublishedView;
use shared::readers::BatchReader;
use shared::version::BatchVersion;
use shared::view::View;

use crate::versions::cache::{FileKey, PartCache};

/// Rows of one block, decoded at once.
const DECODE_ROWS: usize = 64 * 1024;

/// Reads the files of views' tables.
pub struct VersionReader {
    store: Arc<dyn ObjectStore>,
    leases: Leases,
    cache: PartCache,
}

/// Why a file of a view could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("background task failed: {0}")]
    Background(#[from] tokio::task::JoinError),
}

impl VersionReader {
    /// Returns a reader of `lake` that caches at most `cache_bytes` of decoded rows.
    pub fn new(lake: &Lake, cache_bytes: usize) -> VersionReader {
        VersionReader { store: lake.store(), leases: lake.leases().clone(), cache: PartCache::new(cache_bytes) }
    }

    /// Reads the rows of one file of `view`'s table.
    pub async fn file(&self, view: &Arc<View>, path: &str) -> Result<Arc<Part>, HandoffError> {
        let key: FileKey = (view.name.clone(), path.to_owned());
        let load = || load(Arc::clone(&self.store), Arc::clone(view), path.to_owned());
        self.cache.get(&key, load).await.map_err(|e| HandoffError(format!("view {}, file {path}: {e}", view.name)))
    }

    /// Caches rows that were just computed, so that the first query does not have to read them.
    pub fn keep(&self, view: &View, path: &str, part: Arc<Part>) {
        self.cache.insert(&(view.name.clone(), path.to_owned()), part);
    }

    /// Returns the memory held for decoded rows, in bytes.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}

impl BatchReader for VersionReader {
    fn parts<'a>(
        &'a self,
        published: &'a PublishedView,
        version: &'a BatchVersion,
        from: i64,
        to: i64,
    ) -> BoxFuture<'a, Result<Vec<Arc<Part>>, HandoffError>> {
        let path = TablePath::view(&published.view.name);
        Box::pin(async move {
            // I10: held while files are read; rows that have been read are in memory.
            let Some(_lease) = self.leases.version(&path, version.version) else {
                let text = format!("version {} of {} is no longer kept", version.version, version.view);
                return Err(HandoffError(text));
            };
            let files = version.files_touching(from, to);
            try_join_all(files.map(|file| self.file(&published.view, &file.path))).await
        })
    }
}

async fn load(store: Arc<dyn ObjectStore>, view: Arc<View>, path: String) -> Result<Part, ReadError> {
    let bytes = store.get(&Path::from(format!("{}/{path}", TablePath::view(&view.name)))).await?.bytes().await?;
    let work = move || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
        let states = state_fields(&view);
        let needed = [WINDOW_START, WINDOW_END]
            .into_iter()
            .chain(view.dimensions.iter().map(|d| d.name.as_str()))
            .chain(states.iter().map(|f| f.name().as_str()));
        // By index: `ProjectionMask::columns` would take a name with a point for a path.
        let needed: HashSet<&str> = needed.collect();
        let fields = builder.parquet_schema().root_schema().get_fields().iter().enumerate();
        let roots = fields.filter(|(_, field)| needed.contains(field.name())).map(|(root, _)| root);
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let batches = builder.with_projection(mask).with_batch_size(DECODE_ROWS).build()?;
        let batches = batches.collect::<Result<Vec<RecordBatch>, _>>()?;
        let layout = KeyLayout::new(view.dimensions.iter().map(|d| d.expression.data_type).collect())?;
        Ok(decode(&view, &Arc::new(layout), &batches)?)
    };
    tokio::task::spawn_blocking(work).await?
}
