//! Tests that vacuum keeps a file that another process commits while vacuum reads the log.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use super::*;
use crate::vacuum::{VacuumAge, vacuum};

/// A store in which another process commits a file as soon as vacuum lists the log, once.
#[derive(Debug)]
struct Interrupted {
    inner: Arc<InMemory>,
    is_armed: Arc<AtomicBool>,
    pending: Arc<Mutex<Option<(Table, DataFile)>>>,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupted")
    }
}

#[async_trait]
impl ObjectStore for Interrupted {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let is_log = prefix.is_some_and(|prefix| prefix.as_ref().ends_with("_delta_log"));
        let commits = is_log && self.is_armed.swap(false, Ordering::SeqCst);
        let pending = commits.then(|| self.pending.lock().take()).flatten();
        let (inner, prefix) = (Arc::clone(&self.inner), prefix.cloned());
        let listed = async move {
            if let Some((other, file)) = pending {
                other.commit(Commit::append(vec![file])).await.expect("another process may commit");
            }
            inner.list(prefix.as_ref())
        };
        stream::once(listed).flatten().boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_committed_while_vacuum_reads_the_log_stays() {
    let inner = Arc::new(InMemory::new());
    let (is_armed, pending) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
    let store = Interrupted { inner: inner.clone(), is_armed: is_armed.clone(), pending: pending.clone() };
    let server = Lake::over(Arc::new(store)).table(&path(), schema(), DATE).await.expect("a table");
    let ingest = Lake::over(inner.clone()).table(&path(), schema(), DATE).await.expect("a table");
    server.commit(adding(&[file(&server, DAY_ONE, &[1]).await])).await.expect("committed");
    let staged = file(&ingest, DAY_TWO, &[2]).await;
    *pending.lock() = Some((ingest.clone(), staged.clone()));
    // Every file is older than a moment.
    tokio::time::sleep(Duration::from_millis(5)).await;

    is_armed.store(true, Ordering::SeqCst);
    let age = VacuumAge { older_than: Duration::ZERO, clock_ahead: Duration::ZERO };
    vacuum(&server, None, age, &Leases::default()).await.expect("vacuumed");
    assert!(pending.lock().is_none(), "the other process has committed meanwhile");
    assert!(server.snapshot().await.expect("a snapshot").holds(&staged.path));
    inner.head(&Path::from(format!("{}/{}", path(), staged.path))).await.expect("the file is still there");
}
