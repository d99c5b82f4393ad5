//! Where does the lake live, and which tables does it hold? One object store, and Delta tables at known paths in it.
//!
//! [`durable`] makes local writes survive a power cut; [`remote`] opens stores elsewhere, [`check`] tries them out and
//! [`verified_put`] finds out what became of a write. [`table`] is one Delta table, [`commit`] how it changes, [`data_file`]
//! and [`encode`] what it is made of, [`archive_tags`] what the archive notes on each of its files, [`rewrite`] how
//! several files become one, [`dropped`] what retention took out of it. [`spool`] brings files to where other libraries can read them, [`footer`] says how a file's
//! bytes are shared among its columns. [`leases`]: what may not be deleted because somebody reads or writes it,
//! [`vacuum`]: what may.
//! What the rows mean is none of its business.

pub mod archive_tags;
mod check;
pub mod commit;
mod data_file;
mod disk;
mod dropped;
pub mod durable;
mod encode;
pub mod error;
mod footer;
pub mod leases;
pub mod owner;
mod remote;
mod rewrite;
mod schema;
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
pub use dropped::{Dropped, DroppedPart};
pub use encode::is_readable;
pub use error::LakeError;
pub use leases::{Leases, VersionLease};
pub use owner::{Claim, Seen};
pub use remote::StorePatience;
pub use schema::SchemaChange;
pub use shared::data_file::DataFile;
pub use spool::{Held, Spool};
pub use table::{History, Table, TableSnapshot};

use durable::DurableStore;
use shared::ids::{Name, StreamName, ViewName};

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
    /// Where it is, if not on this machine.
    cloud: Option<remote::Cloud>,
    /// What a path in the lake is appended to, for whoever reads files without this store.
    base: String,
    spool: Option<Spool>,
    /// In whose epoch this process commits; see [`owner`].
    epoch: Option<i64>,
    tables: Arc<Mutex<HashMap<TablePath, Table>>>,
    leases: Leases,
}

impl Lake {
    /// Opens the lake in a local directory (a path or a `file:` URL), which is created if need be, or at the URL of a
    /// remote store, configured by its usual environment variables. See also [`Lake::check`].
    pub fn open(location: &str) -> Result<Lake, LakeError> {
        Lake::open_patiently(location, StorePatience::default())
    }

    /// The same, with limits for the requests to a remote store.
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

    /// A lake over any store, taken for a remote one: for tests that need no server.
    pub fn over(store: Arc<dyn ObjectStore>) -> Lake {
        let (cloud, base) = (Some(remote::Cloud::S3), "s3://lake".to_owned());
        let (tables, leases) = (Arc::default(), Leases::default());
        Lake { store, durable: None, cloud, base, spool: None, epoch: None, tables, leases }
    }

    /// The same lake, with a place on this machine to bring files to. A remote one needs it before its tables are read by
    /// path; tables that are open already do not get it.
    pub fn with_spool(self, spool: Spool) -> Lake {
        Lake { spool: Some(spool), ..self }
    }

    /// Is it on another machine?
    pub fn is_remote(&self) -> bool {
        self.cloud.is_some()
    }

    /// The store; paths in it are relative to the lake.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// What may not be deleted now.
    pub fn leases(&self) -> &Leases {
        &self.leases
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

/// Is this the URL of a store that is not on this machine?
pub fn is_remote(location: &str) -> bool {
    location.contains("://") && !location.starts_with("file://")
}

/// What may be shown of a URL that is refused: it may hold a key.
fn without_key(location: &str) -> String {
    match Url::parse(location) {
        Ok(url) => format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path()),
        Err(_) => location.split_inclusive("://").next().unwrap_or_default().to_owned() + "...",
    }
}
