//! Polls the archive of each stream for its number of historical events and its first retained date, since other
//! processes add and drop events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lake::{ArchiveTags, Lake, TablePath};
use parking_lot::Mutex;
use shared::ids::{Partition, StreamName};
use shared::time::Day;
use shared::vital::Vitals;

/// Interval between two polls.
const POLL_EVERY: Duration = Duration::from_secs(5);

/// The figures of the streams' archives, as of the last poll.
#[derive(Debug, Default)]
pub struct HistoryWatch {
    streams: Mutex<BTreeMap<StreamName, ArchiveFigures>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct ArchiveFigures {
    /// Number of historical events.
    events: u64,
    /// First date kept, if retention dropped earlier ones.
    retained_from: Option<Day>,
}

impl HistoryWatch {
    /// Starts polling, until the last reference to the watch is dropped. Call it within a Tokio runtime.
    pub fn start(lake: &Lake, streams: Vec<StreamName>, vitals: &Vitals) -> Arc<HistoryWatch> {
        let watch = Arc::new(HistoryWatch::default());
        let (weak, lake) = (Arc::downgrade(&watch), lake.clone());
        vitals.spawn_task("history watch", async move {
            while let Some(watch) = weak.upgrade() {
                for stream in &streams {
                    // Figures that cannot be read stay unchanged: runs and archivers report errors of the lake.
                    if let Some(figures) = read_figures(&lake, stream).await {
                        watch.streams.lock().insert(stream.clone(), figures);
                    }
                }
                drop(watch);
                tokio::time::sleep(POLL_EVERY).await;
            }
        });
        watch
    }

    /// Number of historical events of `stream`.
    pub fn events(&self, stream: &StreamName) -> u64 {
        self.streams.lock().get(stream).map_or(0, |figures| figures.events)
    }

    /// The first event date that the archive of `stream` keeps, if it dropped earlier ones.
    pub fn retained_from(&self, stream: &StreamName) -> Option<Day> {
        self.streams.lock().get(stream)?.retained_from
    }
}

async fn read_figures(lake: &Lake, stream: &StreamName) -> Option<ArchiveFigures> {
    let table = lake.open_table(&TablePath::events(stream)).await.ok()??;
    let txn = table.txn_version(&ArchiveTags::app_id(stream, Partition::HISTORY)).await.ok()?;
    let retained_from = table.snapshot().await.ok()?.dropped.as_ref().map(|dropped| dropped.retained_from);
    Some(ArchiveFigures { events: txn.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0), retained_from })
}
