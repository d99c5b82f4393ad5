//! Where does the lake live, and which tables does it hold? One object store, and Delta tables at known paths in it.
//!
//! [`durable`] makes local writes survive a power cut, [`table`] is one Delta table, [`commit`] how it changes,
//! [`data_file`] and [`encode`] what it is made of, [`footer`] how a file's bytes are
//! shared among its columns, [`archive_tags`] what the archive notes on each of its files.
//! What the rows mean is none of its business.

pub mod archive_tags;
pub mod commit;
pub mod data_file;
mod disk;
pub mod durable;
mod encode;
pub mod error;
mod footer;
mod schema;
pub mod table;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use tokio::sync::Mutex;
use url::Url;

pub use archive_tags::ArchiveTags;
pub use commit::Commit;
pub use data_file::DataFile;
pub use encode::is_readable;
pub use error::LakeError;
pub use schema::SchemaChange;
pub use table::{Table, TableSnapshot};

use crate::ids::{Name, StreamName, ViewName};
use durable::DurableStore;

/// Prefixes of environment variables that configure a remote store, as its own tools name them.
const STORE_VARIABLES: [&str; 4] = ["AWS_", "AZURE_", "GOOGLE_", "GCP_"];

/// The place of a table in the lake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TablePath(String);

impl TablePath {
    /// The archive of a stream.
    pub fn events(stream: &StreamName) -> TablePath {
        TablePath(format!("events/{stream}"))
    }

    /// The batch versions of a view.
    pub fn view(view: &ViewName) -> TablePath {
        TablePath(format!("views/{view}"))
    }

    /// What the reconciliations of a view found.
    pub fn reconciliations(view: &ViewName) -> TablePath {
        TablePath(format!("reconciliations/{view}"))
    }
}

impl fmt::Display for TablePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The object store with all tables. Clones share it and its open tables.
#[derive(Clone)]
pub struct Lake {
    store: Arc<dyn ObjectStore>,
    durable: Option<Arc<DurableStore>>,
    /// What a path in the lake is appended to, for whoever reads files without this store.
    base: String,
    tables: Arc<Mutex<HashMap<TablePath, Table>>>,
}

impl Lake {
    /// Opens the lake in a local directory (a path or a `file:` URL), which is created if need be, or at the URL of a
    /// remote store, configured by its usual environment variables.
    pub fn open(location: &str) -> Result<Lake, LakeError> {
        let bad = |reason: String| LakeError::Location { location: location.to_owned(), reason };
        let url = Url::parse(location).ok().filter(|_| location.contains("://"));
        let (durable, store, base): (_, Arc<dyn ObjectStore>, _) = match url {
            Some(url) if url.scheme() != "file" => {
                let (store, prefix) =
                    object_store::parse_url_opts(&url, store_options()).map_err(|e| bad(e.to_string()))?;
                let base = location.trim_end_matches('/').to_owned();
                (None, Arc::new(PrefixStore::new(store, prefix)), base)
            }
            url => {
                let path = match url {
                    Some(url) => url.to_file_path().map_err(|()| bad("not a local path".to_owned()))?,
                    None => std::path::absolute(location).map_err(|e| bad(e.to_string()))?,
                };
                let store = Arc::new(DurableStore::open(&path).map_err(|e| bad(e.to_string()))?);
                let base = store.root().to_str().ok_or_else(|| bad("the path is not UTF-8".to_owned()))?.to_owned();
                (Some(store.clone()), store, base)
            }
        };
        Ok(Lake { store, durable, base, tables: Arc::default() })
    }

    /// The store; paths in it are relative to the lake.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// The lake's directory, if it is local.
    pub fn local_root(&self) -> Option<&Path> {
        self.durable.as_ref().map(|store| store.root())
    }

    /// The table at `path`, created with the columns of `schema` and partitioned by the DATE column `partition_column`
    /// if it is not there yet. An existing table keeps its columns: see [`Table::schema_change`] and [`Commit::schema`].
    pub async fn table(&self, path: &TablePath, schema: SchemaRef, partition_column: &str) -> Result<Table, LakeError> {
        let mut tables = self.tables.lock().await;
        if let Some(table) = tables.get(path) {
            return table.checked(partition_column);
        }
        let table = match Table::open(self, path).await? {
            Some(table) => table,
            None => Table::create(self, path, &schema, partition_column).await?,
        };
        tables.insert(path.clone(), table.clone());
        table.checked(partition_column)
    }

    /// The table at `path`, if there is one.
    pub async fn open_table(&self, path: &TablePath) -> Result<Option<Table>, LakeError> {
        let mut tables = self.tables.lock().await;
        if let Some(table) = tables.get(path) {
            return Ok(Some(table.clone()));
        }
        let table = Table::open(self, path).await?;
        if let Some(table) = &table {
            tables.insert(path.clone(), table.clone());
        }
        Ok(table)
    }

    /// Names of the streams that have an archive, in order.
    pub async fn streams(&self) -> Result<Vec<StreamName>, LakeError> {
        self.names("events").await
    }

    /// Names of the views that have a table, in order.
    pub async fn views(&self) -> Result<Vec<ViewName>, LakeError> {
        self.names("views").await
    }

    async fn names(&self, folder: &str) -> Result<Vec<Name>, LakeError> {
        let listed = self.store.list_with_delimiter(Some(&object_store::path::Path::from(folder))).await?;
        let mut names: Vec<Name> =
            listed.common_prefixes.iter().filter_map(|path| path.filename()?.parse().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The file system path or URL of `path` in the lake.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }
}

fn store_options() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os()
        .filter_map(text)
        .filter(|(name, _)| STORE_VARIABLES.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect()
}
