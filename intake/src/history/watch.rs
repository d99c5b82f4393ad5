//! How many historical events does each stream have? Looked up now and then, since other processes add them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shared::ids::{Partition, StreamName};
use shared::lake::{ArchiveTags, Lake, TablePath};

/// How often the archives are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The number of historical events per stream, as of the last look.
#[derive(Debug, Default)]
pub struct HistoryWatch {
    events: Mutex<BTreeMap<StreamName, u64>>,
}

impl HistoryWatch {
    /// Begins to look; stops when nobody holds the watch any more. Call it within a Tokio runtime.
    pub fn start(lake: &Lake, streams: Vec<StreamName>) -> Arc<HistoryWatch> {
        let watch = Arc::new(HistoryWatch::default());
        let (weak, lake) = (Arc::downgrade(&watch), lake.clone());
        tokio::spawn(async move {
            while let Some(watch) = weak.upgrade() {
                for stream in &streams {
                    // What cannot be looked up stays as it was: runs and archivers report what is wrong with the lake.
                    if let Some(events) = events(&lake, stream).await {
                        watch.events.lock().insert(stream.clone(), events);
                    }
                }
                drop(watch);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        watch
    }

    /// Historical events of `stream`.
    pub fn events(&self, stream: &StreamName) -> u64 {
        self.events.lock().get(stream).copied().unwrap_or(0)
    }
}

async fn events(lake: &Lake, stream: &StreamName) -> Option<u64> {
    let table = lake.open_table(&TablePath::events(stream)).await.ok()??;
    let txn = table.txn_version(&ArchiveTags::app_id(stream, Partition::HISTORY)).await.ok()?;
    Some(txn.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0))
}
