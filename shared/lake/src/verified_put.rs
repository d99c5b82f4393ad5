//! Determines whether a conditional put succeeded. The response of a remote store may be lost, and a store may return
//! 409 when two attempts met and neither won. This wrapper reads the object: its content decides.
//!
//! Every writer of an object whose name decides something writes unique bytes (a commit of Trueup carries an id of its
//! own). So equal bytes mean that this attempt succeeded, however often it was sent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio::time::Instant;

use shared::limits::{STORE_PART_BYTES, STORE_PARTS_AT_ONCE};

/// Pause before a conditional put that did not happen is retried; it doubles.
const PAUSE: Duration = Duration::from_millis(50);

/// A remote store whose conditional puts have a known outcome, and whose large puts are sent in parts.
#[derive(Debug)]
pub(super) struct VerifiedStore {
    inner: Arc<dyn ObjectStore>,
    /// How long a conditional put without an outcome is retried.
    retry: Duration,
    /// Pause before the first retry; it doubles.
    pause: Duration,
}

/// The object found under a name.
enum ReadBack {
    Ours(PutResult),
    Theirs,
    Nothing,
}

impl VerifiedStore {
    pub fn new(inner: Arc<dyn ObjectStore>, retry: Duration) -> VerifiedStore {
        VerifiedStore { inner, retry, pause: PAUSE }
    }

    async fn create(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let deadline = Instant::now() + self.retry;
        let mut pause = self.pause;
        loop {
            let error = match self.inner.put_opts(location, payload.clone(), options.clone()).await {
                Ok(put) => return Ok(put),
                // Nothing was sent, or nothing was stored.
                Err(error @ (Error::PermissionDenied { .. } | Error::Unauthenticated { .. })) => return Err(error),
                Err(error @ (Error::NotImplemented { .. } | Error::NotSupported { .. })) => return Err(error),
                Err(error) => error,
            };
            match self.look(location, &payload).await {
                Ok(ReadBack::Ours(put)) => {
                    tracing::debug!(%location, %error, "a conditional put had happened after all");
                    return Ok(put);
                }
                Ok(ReadBack::Theirs) => {
                    let path = location.to_string();
                    return Err(Error::AlreadyExists { path, source: Box::new(error) });
                }
                // The object does not exist: the put may be sent again. If the first one arrives late, one of them is
                // refused.
                Ok(ReadBack::Nothing) if Instant::now() < deadline => {}
                Ok(ReadBack::Nothing) => return Err(undecided(error)),
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return Err(undecided(error)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn look(&self, location: &Path, payload: &PutPayload) -> Result<ReadBack> {
        let found = match self.inner.get(location).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(ReadBack::Nothing),
            Err(error) => return Err(error),
        };
        let put = PutResult { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        if found.meta.size != payload.content_length() as u64 {
            return Ok(ReadBack::Theirs);
        }
        let bytes = found.bytes().await?;
        let mut rest: &[u8] = &bytes;
        let same = payload.iter().all(|part| match rest.strip_prefix(part.as_ref()) {
            Some(after) => {
                rest = after;
                true
            }
            None => false,
        });
        Ok(if same { ReadBack::Ours(put) } else { ReadBack::Theirs })
    }

    /// Sends a large object in parts: one request would take too long to be bounded by a time.
    async fn put_in_parts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let options =
            PutMultipartOptions { tags: options.tags, attributes: options.attributes, extensions: options.extensions };
        let mut upload = self.inner.put_multipart_opts(location, options).await?;
        let parts: Vec<_> = parts(payload).into_iter().map(|part| upload.put_part(part)).collect();
        let sent = futures::stream::iter(parts).buffer_unordered(STORE_PARTS_AT_ONCE).try_collect::<()>().await;
        match sent {
            Ok(()) => upload.complete().await,
            Err(error) => {
                // Leftover parts do not form an object; a lifecycle rule of the bucket deletes them.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }
}

/// The outcome is unknown. It must not be treated as a lost race, which is known to have changed nothing.
fn undecided(error: Error) -> Error {
    match error {
        Error::AlreadyExists { path, source } => {
            let source = format!("{path}: the store refused to decide: {source}");
            Error::Generic { store: "VerifiedStore", source: source.into() }
        }
        error => error,
    }
}

/// Splits `payload` into pieces of [`STORE_PART_BYTES`].
fn parts(payload: PutPayload) -> Vec<PutPayload> {
    let mut parts = Vec::new();
    let mut open = BytesMut::new();
    for mut chunk in payload {
        while !chunk.is_empty() {
            if open.is_empty() && chunk.len() >= STORE_PART_BYTES {
                parts.push(PutPayload::from(chunk.split_to(STORE_PART_BYTES)));
                continue;
            }
            let room = STORE_PART_BYTES - open.len();
            open.extend_from_slice(&chunk.split_to(room.min(chunk.len())));
            if open.len() == STORE_PART_BYTES {
                parts.push(PutPayload::from(Bytes::from(std::mem::take(&mut open))));
            }
        }
    }
    if !open.is_empty() {
        parts.push(PutPayload::from(open.freeze()));
    }
    parts
}

impl fmt::Display for VerifiedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for VerifiedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.mode {
            PutMode::Create => self.create(location, payload, options).await,
            PutMode::Overwrite if payload.content_length() > STORE_PART_BYTES => {
                self.put_in_parts(location, payload, options).await
            }
            PutMode::Overwrite | PutMode::Update(_) => self.inner.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
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

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
