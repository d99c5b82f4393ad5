//! Checks at the start that the lake can be used. A remote lake is tested with the operations of daily work: create an
//! object, fail to create it again, list, read and delete it.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutPayload};

use super::remote::Cloud;
use super::{Lake, LakeError};

/// Objects of this folder do not belong to any table.
const FOLDER: &str = "_trueup";

impl Lake {
    /// Checks that the lake can be read and written, and that it keeps two writers apart. A local lake has proved it by
    /// opening. The error says which setting to change.
    pub async fn check(&self) -> Result<(), LakeError> {
        let Some(cloud) = self.cloud else { return Ok(()) };
        let (location, reason) = match self.try_out().await {
            Ok(()) => return Ok(()),
            Err(CheckFailure::Store(doing, error)) => (self.base.clone(), operator_message(cloud, doing, &error)),
            Err(CheckFailure::Overwrites) => {
                let reason = "the store does not honour conditional puts (If-None-Match): two servers could overwrite each \
                    other's commits. Use a store, or a version of it, that does";
                (self.base.clone(), reason.to_owned())
            }
        };
        Err(LakeError::Location { location, reason })
    }

    async fn try_out(&self) -> Result<(), CheckFailure> {
        let store = self.store();
        let folder = Path::from(FOLDER);
        let object = folder.clone().join(format!("check-{}", uuid::Uuid::new_v4()));
        let failed = |doing: &'static str| move |error| CheckFailure::Store(doing, error);
        store.list(Some(&folder)).try_next().await.map_err(failed("listed"))?;
        let create = |text: &'static str| store.put_opts(&object, PutPayload::from(text), PutMode::Create.into());
        create("first").await.map_err(failed("written"))?;
        let second = create("second").await;
        let read = async { store.get(&object).await?.bytes().await }.await;
        let deleted = store.delete(&object).await;
        match second {
            Ok(_) => return Err(CheckFailure::Overwrites),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(CheckFailure::Store("written", error)),
        }
        if read.map_err(failed("read"))?.as_ref() != b"first" {
            return Err(CheckFailure::Overwrites);
        }
        match deleted {
            Err(error @ (Error::PermissionDenied { .. } | Error::Unauthenticated { .. })) => {
                Err(CheckFailure::Store("deleted from", error))
            }
            // A lost response to a deletion is not worth a second attempt.
            Err(error) => {
                tracing::warn!(%object, %error, "the test object of the lake could not be deleted");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

enum CheckFailure {
    /// Returns the failed operation on the bucket, and its cause.
    Store(&'static str, Error),
    Overwrites,
}

/// The message for operators first; the store's own error is long, and comes last.
fn operator_message(cloud: Cloud, doing: &str, error: &Error) -> String {
    let (variables, permissions) = (cloud.variables(), cloud.permissions());
    let causes = causes(error);
    // A listing has no path, so it cannot fail with "not found" for the object.
    let no_bucket = ["NoSuchBucket", "ContainerNotFound", "status code: 404"].iter().any(|word| causes.contains(word));
    let what = match error {
        _ if no_bucket => format!("there is no such bucket; create it, or check the URL and {variables}"),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            format!("it may not be {doing} with this key; check {variables}. Needed: {permissions}")
        }
        _ => format!("it cannot be {doing}; check that the store can be reached from here, and {variables}"),
    };
    format!("{what}\n  {causes}")
}

/// Formats the error with its causes, each part once.
fn causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        source = cause.source();
    }
    text
}
