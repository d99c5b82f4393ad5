//! Finds the events that the speed layer excludes from sessions as late. The verdict on an event depends on the events of its
//! group before it in its partition, so all files with these are read.

use std::ops::ControlFlow;

use shared::partial::bucket::Bucket;
use shared::partial::keys::{HashedKey, KeyLayout};
use shared::partial::sessions::LiveSessions;
use shared::time::micros_of;

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::recompute::reduce::group_by::{ArchiveQuery, RowSelection};
use crate::watch::Watch;

/// An event of a view with sessions. The order of the fields makes positions sort first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionEvent {
    pub partition: i64,
    pub offset: i64,
    /// In microseconds.
    pub time: i64,
    /// The watermark just before the event.
    watermark: Option<i64>,
    pub key: Box<[u8]>,
}

/// Returns the late events of the groups in `bucket`, in log order. Sessions end `gap` microseconds after their last event;
/// `files` hold the events to judge and those before them. Blocking.
pub fn late_events_of_sessions(
    query: &ArchiveQuery,
    files: &[ArchiveFile],
    gap: i64,
    bucket: Bucket,
    watch: &Watch,
) -> Result<Vec<SessionEvent>, RunFailure> {
    let types = query.view.dimensions.iter().map(|dimension| dimension.expression.data_type).collect();
    let layout = KeyLayout::new(types)?;
    let mut events: Vec<SessionEvent> = Vec::new();
    let _ = query.for_each_batch(files, RowSelection::All, watch, false, &mut |batch| {
        let keys = if batch.dimensions.is_empty() { None } else { Some(layout.encode(&batch.dimensions)?) };
        for row in 0..batch.times.len() {
            let key: &[u8] = keys.as_ref().map_or(&[], |keys| keys.row(row).data());
            if bucket.holds(key) {
                let (partition, offset) = (batch.partitions[row], batch.offsets[row]);
                let (time, watermark) = (batch.times[row], batch.watermarks[row]);
                events.push(SessionEvent { partition, offset, time, watermark, key: Box::from(key) });
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    events.sort_unstable();
    let allowed_lateness = micros_of(query.source.stream.allowed_lateness);
    let mut live = LiveSessions::new(gap, allowed_lateness);
    let mut current = None;
    events.retain(|event| {
        if current.replace(event.partition) != Some(event.partition) {
            live = LiveSessions::new(gap, allowed_lateness);
        }
        live.judge(HashedKey::new(&event.key), event.time, event.watermark)
    });
    Ok(events)
}
