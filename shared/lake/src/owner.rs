//! Gives the lake one owner at a time, a log: events are numbered by their log, and those of two logs in one archive
//! could not be distinguished.
//!
//! Owners follow each other in epochs. A claim is a file `_owner/<epoch>.json` that only one process can create. The
//! tables keep a former owner out: every commit of a lake with an epoch completes the transaction
//! [`OWNER_TXN`] of that epoch, and fails with [`LakeError::NotOwner`] if a later one exists; Delta's own conflict
//! check catches one that comes in between.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Commit, Lake, LakeError, OWNER_TXN, Table};
use shared::time::Micros;

const FOLDER: &str = "_owner";
/// Attempts to commit a claim to a table to which a former owner still writes.
const FENCE_ATTEMPTS: usize = 50;

/// A log that claimed the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerClaim {
    /// Grows with every owner. Epoch 1 numbered its events from the first on, later ones from where the archive ended.
    pub epoch: i64,
    /// The id of the log: a UUID kept in its folder.
    pub log: String,
    pub claimed_at: Micros,
}

/// The process that runs, or ran, with the owner's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub host: String,
    pub process: u32,
    pub since: Micros,
    /// Time of its last heartbeat.
    pub seen_at: Micros,
}

impl Lake {
    /// Returns the latest claim, if there is one.
    pub async fn latest_claim(&self) -> Result<Option<OwnerClaim>, LakeError> {
        let store = self.store();
        let files: Vec<_> = store.list(Some(&Path::from(FOLDER))).try_collect().await?;
        let epoch = |path: &Path| path.filename()?.strip_suffix(".json")?.parse::<i64>().ok();
        let Some(epoch) = files.iter().filter_map(|file| epoch(&file.location)).max() else { return Ok(None) };
        self.read_note(&claim_path(epoch)).await
    }

    /// Claims the lake. Fails with [`LakeError::Conflict`] if another process claimed the same epoch first.
    pub async fn claim(&self, claim: &OwnerClaim) -> Result<(), LakeError> {
        let path = claim_path(claim.epoch);
        match self.store().put_opts(&path, note(claim), PutMode::Create.into()).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => match self.read_note::<OwnerClaim>(&path).await? {
                // The response to this process's own attempt was lost.
                Some(present) if present == *claim => Ok(()),
                _ => {
                    let reason = format!("epoch {} was claimed by another process", claim.epoch);
                    Err(LakeError::Conflict { table: FOLDER.to_owned(), reason })
                }
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Records that the owner of `epoch` is alive.
    pub async fn record_heartbeat(&self, epoch: i64, heartbeat: &Heartbeat) -> Result<(), LakeError> {
        self.store().put(&heartbeat_path(epoch), note(heartbeat)).await?;
        Ok(())
    }

    /// Returns the last heartbeat of the owner of `epoch`.
    pub async fn heartbeat(&self, epoch: i64) -> Result<Option<Heartbeat>, LakeError> {
        self.read_note(&heartbeat_path(epoch)).await
    }

    /// Returns the same lake, whose tables accept only commits of `epoch` or a later one.
    pub fn owned_in(self, epoch: i64) -> Lake {
        Lake { epoch: Some(epoch), tables: Default::default(), ..self }
    }

    async fn read_note<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, LakeError> {
        let bytes = match self.store().get(path).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let unreadable = |error: serde_json::Error| LakeError::Schema {
            table: path.to_string(),
            reason: format!("cannot be read: {error}"),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(unreadable)
    }
}

impl Table {
    /// Ensures that no former owner can commit to the table any more.
    pub async fn keep_former_owners_out(&self) -> Result<(), LakeError> {
        let Some(epoch) = self.inner.epoch else { return Ok(()) };
        for _ in 0..FENCE_ATTEMPTS {
            if self.txn_version(OWNER_TXN).await? == Some(epoch) {
                return Ok(());
            }
            match self.commit(Commit::empty()).await {
                Ok(_) => return Ok(()),
                // A former owner committed at the same time.
                Err(LakeError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let reason = "another process writes to it without a pause".to_owned();
        Err(LakeError::Conflict { table: self.name(), reason })
    }
}

fn note(value: &impl Serialize) -> PutPayload {
    serde_json::to_vec(value).expect("a note is plain data").into()
}

fn claim_path(epoch: i64) -> Path {
    Path::from(format!("{FOLDER}/{epoch:020}.json"))
}

fn heartbeat_path(epoch: i64) -> Path {
    Path::from(format!("{FOLDER}/seen/{epoch:020}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    use shared::date_partition::DatePartition;
    use shared::time::Day;

    use super::super::{DataFile, DroppedEvents, TablePath};
    use super::*;

    fn claim(epoch: i64, log: &str) -> OwnerClaim {
        OwnerClaim { epoch, log: log.to_owned(), claimed_at: Micros(7) }
    }

    async fn table(folder: &std::path::Path, epoch: i64) -> Table {
        let lake = Lake::open(folder.to_str().expect("UTF-8")).expect("opens").owned_in(epoch);
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        lake.table(&TablePath::events(&"s".parse().expect("a name")), schema, "_event_date").await.expect("a table")
    }

    async fn file(table: &Table) -> DataFile {
        let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as _)]).expect("rows");
        table.write_parquet(DatePartition::Undated, &[rows]).await.expect("written")
    }

    #[tokio::test]
    async fn an_epoch_is_claimed_by_one_process_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let lake = Lake::open(folder.path().to_str().expect("UTF-8")).expect("opens");
        assert_eq!(lake.latest_claim().await.expect("readable"), None);
        lake.claim(&claim(1, "a")).await.expect("claimed");
        lake.claim(&claim(1, "a")).await.expect("the same claim");
        assert!(matches!(lake.claim(&claim(1, "b")).await, Err(LakeError::Conflict { .. })));
        lake.claim(&claim(2, "b")).await.expect("claimed");
        assert_eq!(lake.latest_claim().await.expect("readable"), Some(claim(2, "b")));
        let heartbeat = Heartbeat { host: "h".to_owned(), process: 3, since: Micros(1), seen_at: Micros(2) };
        assert_eq!(lake.heartbeat(2).await.expect("readable"), None);
        lake.record_heartbeat(2, &heartbeat).await.expect("noted");
        assert_eq!(lake.heartbeat(2).await.expect("readable"), Some(heartbeat));
        assert_eq!(lake.latest_claim().await.expect("readable"), Some(claim(2, "b")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_former_owner_cannot_commit_even_before_it_notices() {
        let folder = tempfile::tempdir().expect("a folder");
        let old = table(folder.path(), 1).await;
        for _ in 0..2 {
            old.commit(Commit::append(vec![file(&old).await])).await.expect("its own");
        }
        let new = table(folder.path(), 2).await;
        new.keep_former_owners_out().await.expect("fenced");
        new.keep_former_owners_out().await.expect("nothing to do");
        assert_eq!(new.snapshot().await.expect("a snapshot").version, 3);
        // First with the state from before the claim, where the commit itself meets it; then knowing.
        for _ in 0..2 {
            let late = old.commit(Commit::append(vec![file(&old).await])).await;
            assert!(matches!(late, Err(LakeError::NotOwner { epoch: 1, owner: 2, .. })), "{late:?}");
        }
        let based = old.commit(Commit::drop_dates(3, Vec::new(), DroppedEvents::nothing(Day(0)))).await;
        assert!(matches!(based, Err(LakeError::NotOwner { .. })), "{based:?}");
        new.commit(Commit::append(vec![file(&new).await])).await.expect("the owner's");
        assert_eq!(new.snapshot().await.expect("a snapshot").files.len(), 3);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_claim_succeeds_while_the_former_owner_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let old = table(folder.path(), 1).await;
        old.keep_former_owners_out().await.expect("its own");
        let writing = tokio::spawn(async move {
            for n in 0.. {
                match old.commit(Commit::append(vec![file(&old).await])).await {
                    Ok(_) => {}
                    Err(LakeError::NotOwner { .. }) => return n,
                    Err(error) => panic!("{error}"),
                }
            }
            unreachable!("it is stopped")
        });
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let new = table(folder.path(), 2).await;
        new.keep_former_owners_out().await.expect("fenced");
        let fenced = new.snapshot().await.expect("a snapshot").files.len();
        let written: usize = writing.await.expect("ends");
        assert!(written > 0);
        assert_eq!((fenced, new.snapshot().await.expect("a snapshot").files.len()), (written, written));
    }
}
