//! Can the lake be used? A remote one is asked at the start, by doing in small what will be done all day: create an
//! object, be refused to create it again, list, read and delete it.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutPayload};

use super::remote::Cloud;
use super::{Lake, LakeError};

/// Objects of this folder belong to no table.
const FOLDER: &str = "_trueup";

impl Lake {
    /// Makes sure that the lake can be read and written and keeps two writers apart. A local one has shown it by being
    /// opened. The error says what to set.
    pub async fn check(&self) -> Result<(), LakeError> {
        let Some(cloud) = self.cloud else { return Ok(()) };
        let (location, reason) = match self.try_out().await {
            Ok(()) => return Ok(()),
            Err(Trouble::Store(doing, error)) => (self.base.clone(), told(cloud, doing, &error)),
            Err(Trouble::Overwrites) => {
                let reason = "the store does not honour conditional puts (If-None-Match): two servers could overwrite each \
                    other's commits. Use a store, or a version of it, that does";
                (self.base.clone(), reason.to_owned())
            }
        };
        Err(LakeError::Location { location, reason })
    }

    async fn try_out(&self) -> Result<(), Trouble> {
        let store = self.store();
        let folder = Path::from(FOLDER);
        let object = folder.clone().join(format!("check-{}", uuid::Uuid::new_v4()));
        let failed = |doing: &'static str| move |error| Trouble::Store(doing, error);
        store.list(Some(&folder)).try_next().await.map_err(failed("listed"))?;
        let create = |text: &'static str| store.put_opts(&object, PutPayload::from(text), PutMode::Create.into());
        create("first").await.map_err(failed("written"))?;
        let second = create("second").await;
        let read = async { store.get(&object).await?.bytes().await }.await;
        let deleted = store.delete(&object).await;
        match second {
            Ok(_) => return Err(Trouble::Overwrites),
            Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(Trouble::Store("written", error)),
        }
        if read.map_err(failed("read"))?.as_ref() != b"first" {
            return Err(Trouble::Overwrites);
        }
        match deleted {
            Err(error @ (Error::PermissionDenied { .. } | Error::Unauthenticated { .. })) => {
                Err(Trouble::Store("deleted from", error))
            }
            // The answer to a deletion that got lost is not worth a second one.
            Err(error) => {
                tracing::warn!(%object, %error, "the object that tried out the lake is left over");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

enum Trouble {
    /// What could not be done to the bucket, and why.
    Store(&'static str, Error),
    Overwrites,
}

/// What an operator needs to know: the store's own words are long, and come last.
fn told(cloud: Cloud, doing: &str, error: &Error) -> String {
    let (variables, permissions) = (cloud.variables(), cloud.permissions());
    let causes = causes(error);
    // A listing has no path that could be "not found".
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

/// The error with its causes, but no part twice.
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
