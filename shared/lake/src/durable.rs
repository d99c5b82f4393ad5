//! Makes files of the local lake durable: a write returns once the file and the directories above it are on disk.
//!
//! `object_store`'s local file system never syncs. This wrapper writes a hidden file beside the destination, syncs it,
//! gives it its name in one step and syncs the directories: after a power cut a name is either absent or leads to the
//! whole file. Deletes are not synced: a file that comes back after a crash is only an unreferenced one.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use super::disk::Disk;
use super::fail_points::LakePoint;

/// A local directory as an object store whose writes have reached the disk when they return.
#[derive(Debug)]
pub struct DurableStore {
    inner: LocalFileSystem,
    disk: Arc<Disk>,
}

impl DurableStore {
    /// Opens the store of everything under `root`, creating it (durably) if needed. `root` must be absolute.
    pub fn open(root: &std::path::Path) -> Result<DurableStore> {
        let disk = Disk::open(root).map_err(|e| failed(root.to_owned(), e))?;
        let inner = LocalFileSystem::new_with_prefix(disk.root())?;
        Ok(DurableStore { inner, disk: Arc::new(disk) })
    }

    /// Returns the directory, with symbolic links resolved.
    pub fn root(&self) -> &std::path::Path {
        self.disk.root()
    }

    /// Makes the name `location` and its file durable.
    async fn settle(&self, location: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        let disk = self.disk.clone();
        blocking(path, move |path| disk.sync_file(path).and_then(|()| disk.sync_name(path))).await
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableStore({})", self.disk.root().display())
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(not_implemented("put_opts with PutMode::Update")),
        };
        if !options.attributes.is_empty() {
            return Err(not_implemented("put_opts with attributes"));
        }
        let path = self.inner.path_to_filesystem(location)?;
        let disk = self.disk.clone();
        let taken = location.to_string();
        let write = tokio::task::spawn_blocking(move || {
            disk.sync_pending().and_then(|()| disk.write(&path, payload.iter(), create)).map_err(|e| (path, e))
        });
        match write.await? {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err((_, source)) if create && source.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: taken, source: source.into() })
            }
            Err((path, source)) => Err(failed(path, source)),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let staged = Path::parse(format!("{location}.{}.part", uuid::Uuid::new_v4()))?;
        let inner = self.inner.put_multipart_opts(&staged, options).await?;
        Ok(Box::new(DurableUpload {
            inner,
            staged: self.inner.path_to_filesystem(&staged)?,
            destination: self.inner.path_to_filesystem(location)?,
            disk: self.disk.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        sync_pending(&self.disk).await?;
        LakePoint::Read.check_store()?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        sync_pending(&self.disk).await?;
        LakePoint::Read.check_store()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let reached = |location| LakePoint::Delete.check_store().and(location);
        self.inner.delete_stream(locations.map(reached).boxed())
    }

    /// Lists in the order of names, as cloud stores do: the reader of a Delta log relies on it.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        sorted(&self.disk, self.inner.list(prefix))
    }

    /// Lists in the order of names, as cloud stores do: the reader of a Delta log relies on it.
    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        sorted(&self.disk, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        sync_pending(&self.disk).await?;
        LakePoint::List.check_store()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.settle(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.settle(to).await?;
        let from = self.inner.path_to_filesystem(from)?;
        let disk = self.disk.clone();
        blocking(from, move |from| disk.sync_name(from)).await
    }
}

/// An upload in parts, under a temporary name until it is complete and synced.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    staged: PathBuf,
    destination: PathBuf,
    disk: Arc<Disk>,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.inner.complete().await?;
        let (staged, disk) = (self.staged.clone(), self.disk.clone());
        blocking(self.destination.clone(), move |destination| {
            disk.sync_file(&staged)?;
            std::fs::rename(&staged, destination)?;
            disk.sync_name(destination)
        })
        .await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

async fn blocking(
    path: PathBuf,
    work: impl FnOnce(&std::path::Path) -> std::io::Result<()> + Send + 'static,
) -> Result<()> {
    tokio::task::spawn_blocking(move || work(&path).map_err(|e| failed(path, e))).await?
}

fn failed(path: PathBuf, source: std::io::Error) -> Error {
    let source = std::io::Error::new(source.kind(), format!("{}: {source}", path.display()));
    Error::Generic { store: "DurableStore", source: Box::new(source) }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "DurableStore".to_owned() }
}

/// Syncs the directories that could not be synced before: files that a power cut may remove are not read.
async fn sync_pending(disk: &Arc<Disk>) -> Result<()> {
    if !disk.has_pending() {
        return Ok(());
    }
    let disk = Arc::clone(disk);
    blocking(disk.root().to_owned(), move |_| disk.sync_pending()).await
}

fn sorted(disk: &Arc<Disk>, list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let disk = Arc::clone(disk);
    stream::once(async move {
        sync_pending(&disk).await?;
        LakePoint::List.check_store()?;
        let mut all: Vec<ObjectMeta> = list.try_collect().await?;
        all.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, Error>(stream::iter(all).map(Ok))
    })
    .try_flatten()
    .boxed()
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;

    use super::*;

    async fn text(store: &DurableStore, name: &str) -> String {
        let bytes = store.get(&Path::from(name)).await.unwrap().bytes().await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn only_finished_puts_are_found_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("new/and/deep");
        let store = DurableStore::open(&root).unwrap();
        store.put(&Path::from("a/b/one"), "1".into()).await.unwrap();
        store.put(&Path::from("a/b/one"), "2".into()).await.unwrap();
        store.copy(&Path::from("a/b/one"), &Path::from("c/copy")).await.unwrap();
        store.rename(&Path::from("c/copy"), &Path::from("d/moved")).await.unwrap();
        let mut upload = store.put_multipart(&Path::from("e/parts")).await.unwrap();
        upload.put_part("left ".into()).await.unwrap();
        upload.put_part("right".into()).await.unwrap();
        upload.complete().await.unwrap();

        let store = DurableStore::open(&root).unwrap();
        let names: Vec<String> = store.list(None).map_ok(|m| m.location.to_string()).try_collect().await.unwrap();
        assert_eq!(names, ["a/b/one", "d/moved", "e/parts"]);
        assert_eq!(text(&store, "a/b/one").await, "2");
        assert_eq!(text(&store, "d/moved").await, "2");
        assert_eq!(text(&store, "e/parts").await, "left right");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn exactly_one_of_many_creators_of_a_name_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(DurableStore::open(folder.path()).unwrap());
        let racers = (0..16).map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                let payload = PutPayload::from(format!("racer {i}"));
                store.put_opts(&Path::from("log/0"), payload, PutMode::Create.into()).await.map(|_| i)
            })
        });
        let results: Vec<_> = futures::future::join_all(racers).await.into_iter().map(|r| r.unwrap()).collect();
        let winners: Vec<i32> = results.iter().filter_map(|r| r.as_ref().ok().copied()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        assert!(results.iter().filter_map(|r| r.as_ref().err()).all(|e| matches!(e, Error::AlreadyExists { .. })));
        assert_eq!(text(&store, "log/0").await, format!("racer {}", winners[0]));
    }

    #[tokio::test]
    async fn a_write_that_cannot_reach_the_disk_is_an_error_and_leaves_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::open(folder.path()).unwrap();
        store.put(&Path::from("file"), "x".into()).await.unwrap();
        assert!(store.put(&Path::from("file/below"), "y".into()).await.is_err());
        let names: Vec<_> = store.list(None).map_ok(|m| m.location.to_string()).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(names, ["file"]);
    }
}
