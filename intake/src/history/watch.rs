//! How many historical events does each stream have, and from which date on does its archive have events? Looked up now
//! and then, since other processes add and drop them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lake::{ArchiveTags, Lake, TablePath};
use parking_lot::Mutex;
use shared::ids::{Partition, StreamName};
use shared::time::Day;

/// How often the archives are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is known of the streams' archives, as of the last look.
#[derive(Debug, Default)]
pub struct HistoryWatch {
    streams: Mutex<BTreeMap<StreamName, Seen>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Historical events.
    events: u64,
    /// Events of earlier dates have been dropped.
    retained_from: Option<Day>,
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
                    if let Some(seen) = look(&lake, stream).await {
                        watch.streams.lock().insert(stream.clone(), seen);
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
        self.streams.lock().get(stream).map_or(0, |seen| seen.events)
    }

    /// The first event date that the archive of `stream` has left, if it has dropped any.
    pub fn retained_from(&self, stream: &StreamName) -> Option<Day> {
        self.streams.lock().get(stream)?.retained_from
    }
}

async fn look(lake: &Lake, stream: &StreamName) -> Option<Seen> {
    let table = lake.open_table(&TablePath::events(stream)).await.ok()??;
    let txn = table.txn_version(&ArchiveTags::app_id(stream, Partition::HISTORY)).await.ok()?;
    let retained_from = table.snapshot().await.ok()?.dropped.as_ref().map(|dropped| dropped.retained_from);
    Some(Seen { events: txn.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0), retained_from })
}
