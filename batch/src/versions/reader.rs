//! Reads batch versions file by file, as partial aggregates, from memory where possible.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use lake::{Lake, Leases, PageBounds, TablePath, check_footer, check_footer_lists, check_pages};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use shared::handoff::HandoffError;
use shared::partial::block::Part;
use shared::partial::codec::{CodecError, PartDecoder, WINDOW_END, WINDOW_START, state_fields};
use shared::partial::keys::KeyLayout;
use shared::partial::query_budget::QueryBudget;
use shared::published::PublishedView;
use shared::readers::{BatchReadError, BatchReader, FileGone};
use shared::time_range::TimeRange;
use shared::version::{BatchVersion, VersionFile};
use shared::view::View;
use shared::window::Window;

use crate::versions::cache::{FileKey, PartCache};

/// Rows of one block, decoded at once.
const DECODE_ROWS: usize = 64 * 1024;
/// Files that a query loads at the same time.
const LOADS_AT_ONCE: usize = 4;

/// Reads the files of views' tables.
pub struct VersionReader {
    store: Arc<dyn ObjectStore>,
    leases: Leases,
    cache: PartCache,
}

/// A loaded file, and whether it was not in memory before.
type Load = Result<(Arc<Part>, bool), BatchReadError>;

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
    #[error("it should hold {expected} rows and holds {found}")]
    Rows { expected: u64, found: u64 },
    #[error("background task failed: {0}")]
    Background(#[from] tokio::task::JoinError),
}

impl VersionReader {
    /// Returns a reader of `lake` that caches at most `cache_bytes` of decoded rows.
    pub fn new(lake: &Lake, cache_bytes: usize) -> VersionReader {
        VersionReader { store: lake.store(), leases: lake.leases().clone(), cache: PartCache::new(cache_bytes) }
    }

    /// Reads the rows of one file of `view`'s table.
    pub async fn file(&self, view: &Arc<View>, path: &str) -> Result<Arc<Part>, BatchReadError> {
        self.file_of_rows(view, path, None).await
    }

    /// Reads the rows of a file that has `rows` rows according to its version; `None`: unknown.
    async fn file_of_rows(&self, view: &Arc<View>, path: &str, rows: Option<u64>) -> Result<Arc<Part>, BatchReadError> {
        let key = key(view, path);
        let load = || load(Arc::clone(&self.store), Arc::clone(view), path.to_owned(), rows);
        self.cache.get(&key, load).await.map_err(|error| match error {
            ReadError::Store(object_store::Error::NotFound { .. }) => {
                FileGone { view: view.name.clone(), path: path.to_owned() }.into()
            }
            error => HandoffError(format!("view {}, file {path}: {error}", view.name)).into(),
        })
    }

    /// Caches rows that were just computed, so that the first query does not have to read them.
    pub fn keep(&self, view: &View, path: &str, part: Arc<Part>) {
        self.cache.insert(&key(view, path), part);
    }

    /// Returns the memory held for decoded rows, in bytes.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}

impl BatchReader for VersionReader {
    fn bytes_to_load(&self, published: &PublishedView, version: &BatchVersion, range: TimeRange) -> u64 {
        let row_bytes = least_row_bytes(&published.view);
        let files = version.files_touching(range).filter(|file| !self.cache.holds(&key(&published.view, &file.path)));
        // Compressed, a file is hardly ever larger than its rows.
        files.map(|file| file.rows.saturating_mul(row_bytes).max(file.size_bytes)).fold(0, u64::saturating_add)
    }

    fn parts<'a>(
        &'a self,
        published: &'a PublishedView,
        version: &'a BatchVersion,
        range: TimeRange,
        budget: &'a QueryBudget,
    ) -> BoxFuture<'a, Result<Vec<Arc<Part>>, BatchReadError>> {
        let path = TablePath::view(&published.view.name);
        Box::pin(async move {
            budget.check(usize::try_from(self.bytes_to_load(published, version, range)).unwrap_or(usize::MAX))?;
            // I10: held while files are read; rows that have been read are in memory.
            let Some(_lease) = self.leases.version(&path, version.version) else {
                let text = format!("version {} of {} is no longer kept", version.version, version.view);
                return Err(HandoffError(text).into());
            };
            // Cached files are counted in the cache; a loaded one evicts as many bytes from it.
            let load = |file: &'a VersionFile| async move {
                let is_new = !self.cache.holds(&key(&published.view, &file.path));
                // A file without statistics counts as empty.
                let rows = Some(file.rows).filter(|rows| *rows > 0);
                Ok::<_, BatchReadError>((self.file_of_rows(&published.view, &file.path, rows).await?, is_new))
            };
            // Boxed: the compiler does not see that a closure over references gives futures that are `Send`.
            let loads: Vec<BoxFuture<'_, Load>> =
                version.files_touching(range).map(|file| Box::pin(load(file)) as _).collect();
            let mut loading = stream::iter(loads).buffered(LOADS_AT_ONCE);
            let (mut parts, mut loaded) = (Vec::new(), 0);
            while let Some((part, is_new)) = loading.try_next().await? {
                loaded += if is_new { part.bytes() } else { 0 };
                budget.check(loaded)?;
                parts.push(part);
            }
            Ok(parts)
        })
    }
}

fn key(view: &View, path: &str) -> FileKey {
    (view.name.clone(), path.to_owned())
}

/// Returns the bytes that a row of `view` takes at least: its window, its group and its states, without texts and sketches.
fn least_row_bytes(view: &View) -> u64 {
    let window = if matches!(view.window, Window::Session { .. }) { 16 } else { 8 };
    window + 4 + 8 * view.aggregates.len() as u64
}

async fn load(
    store: Arc<dyn ObjectStore>,
    view: Arc<View>,
    path: String,
    rows: Option<u64>,
) -> Result<Part, ReadError> {
    let bytes = store.get(&Path::from(format!("{}/{path}", TablePath::view(&view.name)))).await?.bytes().await?;
    let work = move || {
        let size = bytes.len() as u64;
        check_footer_lists(&bytes)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?;
        check_footer(builder.metadata(), size)?;
        // Before they are read: a query has reserved memory for the rows that its version notes.
        let found = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(u64::MAX);
        if let Some(expected) = rows.filter(|expected| *expected != found) {
            return Err(ReadError::Rows { expected, found });
        }
        let states = state_fields(&view);
        let needed = [WINDOW_START, WINDOW_END]
            .into_iter()
            .chain(view.dimensions.iter().map(|d| d.name.as_str()))
            .chain(states.iter().map(|f| f.name().as_str()));
        // By index: `ProjectionMask::columns` would take a name with a point for a path.
        let needed: HashSet<&str> = needed.collect();
        let fields = builder.parquet_schema().root_schema().get_fields().iter().enumerate();
        let roots = fields.filter(|(_, field)| needed.contains(field.name())).map(|(root, _)| root);
        let is_read = |chunk: &ColumnChunkMetaData| {
            chunk.column_path().parts().first().is_some_and(|root| needed.contains(root.as_str()))
        };
        check_pages(&bytes, builder.metadata(), PageBounds::TABLE, is_read).map_err(ParquetError::from)?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let layout = Arc::new(KeyLayout::new(view.dimensions.iter().map(|d| d.expression.data_type).collect())?);
        let mut decoder = PartDecoder::new(&view, &layout);
        for batch in builder.with_projection(mask).with_batch_size(DECODE_ROWS).build()? {
            decoder.add(&batch?)?;
        }
        Ok(decoder.finish())
    };
    tokio::task::spawn_blocking(work).await?
}
