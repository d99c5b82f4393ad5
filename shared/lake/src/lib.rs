//! Stores events, views and comparisons: one object store, and Delta tables at known paths in it. The lake does not
//! interpret rows.
//!
//! [`durable`] makes local writes survive a power cut. [`remote`] opens object stores, [`check`] tests them, and
//! [`verified_put`] finds the outcome of a write. [`table`] is one Delta table, [`snapshot`] its content, [`commit`]
//! changes it; [`data_file`] and [`encode`] are its files, [`archive_tags`] their tags, [`rewrite`] merges several
//! files, [`dropped`] records what retention removed, and [`lost`] what the store has lost. [`spool`] makes remote files readable by path, [`footer`] checks footers and reads the sizes of columns, [`pages`] checks pages, and [`checked_files`] remembers which.
//! [`readable`] refuses what another program wrote and this one would read wrongly.
//! [`mod@exchange`] holds what another engine leaves for this program to read.
//! [`leases`] keep files in use, and [`vacuum`] deletes the others. [`fail_points`] lists where tests inject faults.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod archive_tags;
mod check;
mod checked_files;
pub mod columns;
pub mod commit;
mod data_file;
mod delete;
mod disk;
mod dropped;
pub mod durable;
pub mod encode;
pub mod error;
mod exchange;
pub mod fail_points;
mod footer;
pub mod leases;
mod log_keys;
mod lost;
pub mod owner;
mod pages;
mod readable;
mod remote;
mod rewrite;
mod schema;
mod snapshot;
pub mod spool;
pub mod table;
pub mod vacuum;
mod verified_put;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use object_store::ObjectStore;
use tokio::sync::Mutex;
use url::Url;

pub use archive_tags::ArchiveTags;
pub use commit::Commit;
pub use dropped::{DroppedEvents, DroppedPart};
pub use error::LakeError;
pub use exchange::{Exchange, ExchangedFile, with_scheme};
pub use fail_points::LakePoint;
pub use footer::{check_footer, check_footer_lists, read_footer};
pub use leases::{Leases, VersionLease};
pub use log_keys::OWNER_TXN;
pub use lost::{LostEvents, LostPart};
pub use owner::{Heartbeat, OwnerClaim};
pub use pages::{PageBounds, PageError, check_pages};
pub use remote::StorePatience;
pub use rewrite::{IsLeftOut, LeftOut};
pub use schema::SchemaChange;
pub use shared::data_file::DataFile;
pub use snapshot::TableSnapshot;
pub use spool::{LocalFiles, Spool};
pub use table::{Table, VersionNotes};

use durable::DurableStore;
use shared::ids::{Name, StreamName, ViewName};

/// The path of a table in the lake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TablePath(String);

impl TablePath {
    /// Returns the path of a stream's archive.
    pub fn events(stream: &StreamName) -> TablePath {
        TablePath(format!("events/{stream}"))
    }

    /// Returns the path of a view's versions.
    pub fn view(view: &ViewName) -> TablePath {
        TablePath(format!("views/{view}"))
    }

    /// Returns the path of a view's comparisons.
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
    /// The remote location, unless the lake is local.
    cloud: Option<remote::Cloud>,
    /// Prefix of all paths, for readers that do not use this store.
    base: String,
    spool: Option<Spool>,
    /// The epoch in which this process commits; see [`owner`].
    epoch: Option<i64>,
    tables: Arc<Mutex<HashMap<TablePath, Table>>>,
    leases: Leases,
}

impl Lake {
    /// Opens the lake in a local directory (a path or a `file:` URL), creating it if needed, or at the URL of a
    /// remote store, configured by its usual environment variables. See also [`Lake::check`].
    pub fn open(location: &str) -> Result<Lake, LakeError> {
        Lake::open_patiently(location, StorePatience::default())
    }

    /// Opens the lake like [`Lake::open`], with limits for the requests to a remote store.
    pub fn open_patiently(location: &str, patience: StorePatience) -> Result<Lake, LakeError> {
        if is_remote(location) {
            let base = location.trim_end_matches('/').to_owned();
            let url = Url::parse(location).map_err(|e| e.to_string());
            let opened = url.and_then(|url| remote::open(&url, patience));
            let refused = |reason| LakeError::Location { location: without_key(location), reason };
            let remote::Remote { cloud, store } = opened.map_err(refused)?;
            return Ok(Lake {
                store,
                durable: None,
                cloud: Some(cloud),
                base,
                spool: None,
                epoch: None,
                tables: Arc::default(),
                leases: Leases::default(),
            });
        }
        let bad = |reason: String| LakeError::Location { location: location.to_owned(), reason };
        let path = match Url::parse(location).ok().filter(|_| location.contains("://")) {
            Some(url) => url.to_file_path().map_err(|()| bad("not a local path".to_owned()))?,
            None => std::path::absolute(location).map_err(|e| bad(e.to_string()))?,
        };
        let store = Arc::new(DurableStore::open(&path).map_err(|e| bad(e.to_string()))?);
        let base = store.root().to_str().ok_or_else(|| bad("the path is not UTF-8".to_owned()))?.to_owned();
        Ok(Lake {
            store: store.clone(),
            durable: Some(store),
            cloud: None,
            base,
            spool: None,
            epoch: None,
            tables: Arc::default(),
            leases: Leases::default(),
        })
    }

    /// Opens a lake over any store, treated as a remote one that retries no request by itself: for tests without a server.
    pub fn over(store: Arc<dyn ObjectStore>) -> Lake {
        let store = Arc::new(verified_put::VerifiedStore::new(store, std::time::Duration::ZERO));
        let (cloud, base) = (Some(remote::Cloud::S3), "s3://lake".to_owned());
        let (tables, leases) = (Arc::default(), Leases::default());
        Lake { store, durable: None, cloud, base, spool: None, epoch: None, tables, leases }
    }

    /// Returns the same lake with a spool. A remote lake needs it before its tables are read by
    /// path; tables that are already open do not get it.
    pub fn with_spool(self, spool: Spool) -> Lake {
        Lake { spool: Some(spool), ..self }
    }

    /// Returns whether the lake is on another machine.
    pub fn is_remote(&self) -> bool {
        self.cloud.is_some()
    }

    /// Returns the store; paths in it are relative to the lake.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// Returns the leases of this process.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Returns the lake's directory, if it is local.
    pub fn local_root(&self) -> Option<&Path> {
        self.durable.as_ref().map(|store| store.root())
    }

    /// Opens the table at `path`, creating it with the columns of `schema` and partitioned by the DATE column
    /// `partition_column` if needed. An existing table keeps its columns: see [`Table::schema_change`] and
    /// [`Commit`].
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

    /// Opens the table at `path`, if it exists.
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

    /// Returns the names of the streams that have an archive, in order.
    pub async fn streams(&self) -> Result<Vec<StreamName>, LakeError> {
        self.names("events").await
    }

    /// Returns the names of the views that have a table, in order.
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

    /// Returns the file system path or URL of `path` in the lake.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }
}

/// Returns whether this is the URL of a store on another machine.
pub fn is_remote(location: &str) -> bool {
    location.contains("://") && !location.starts_with("file://")
}

/// Returns the part of a refused URL that may be shown: the URL may hold a key.
fn without_key(location: &str) -> String {
    match Url::parse(location) {
        Ok(url) => format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path()),
        Err(_) => location.split_inclusive("://").next().unwrap_or_default().to_owned() + "...",
    }
}
