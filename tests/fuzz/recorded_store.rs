//! An object store in memory that records which objects are read, written and deleted.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

/// The kinds of access to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Written,
    Deleted,
}

#[derive(Debug, Default)]
pub struct RecordedStore {
    inner: InMemory,
    accesses: Arc<Mutex<Vec<(Access, Path)>>>,
}

impl RecordedStore {
    /// Returns the accesses since the last call.
    pub fn take(&self) -> Vec<(Access, Path)> {
        std::mem::take(&mut self.accesses.lock().expect("no panic"))
    }

    fn note(&self, access: Access, path: &Path) {
        self.accesses.lock().expect("no panic").push((access, path.clone()));
    }
}

impl fmt::Display for RecordedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordedStore")
    }
}

#[async_trait]
impl ObjectStore for RecordedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.note(Access::Written, location);
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.note(Access::Written, location);
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.note(Access::Read, location);
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let accesses = Arc::clone(&self.accesses);
        let noted = locations.inspect(move |location| {
            if let Ok(path) = location {
                accesses.lock().expect("no panic").push((Access::Deleted, path.clone()));
            }
        });
        self.inner.delete_stream(noted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.note(Access::Read, from);
        self.note(Access::Written, to);
        self.inner.copy_opts(from, to, options).await
    }
}
