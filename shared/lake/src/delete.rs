//! Deletes files of a table from the store. A file that is gone already counts as deleted.

use futures::StreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::LakeError;

/// Deletes the objects at `paths`, relative to `store`. Stops at the first error.
pub(super) async fn delete(store: &dyn ObjectStore, paths: Vec<Path>) -> Result<(), LakeError> {
    let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
    let mut deletions = store.delete_stream(paths);
    while let Some(deletion) = deletions.next().await {
        match deletion {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
