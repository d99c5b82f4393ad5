//! Pins what was served until now for the windows that a run recomputes: files of the active version, and speed's
//! generations from its seam up to the cut.

use std::sync::Arc;
use std::time::Duration;

use shared::published::PublishedView;
use shared::readers::{Generation, SpeedPin};
use shared::seam::Cut;
use shared::time::Micros;

use crate::failure::RunFailure;
use crate::plan::Plan;
use crate::reconcile::served_rows::ServedRows;
use crate::run::Attempt;
use crate::run::base::Base;
use crate::run::cut::RunCut;
use crate::run::source::RowSource;

/// Pause between two checks whether speed has reached the cut.
const SPEED_PAUSE: Duration = Duration::from_millis(10);

/// The state of the speed layer at the cut, and the rows that were served.
#[derive(Debug)]
pub struct Served {
    pub watermark: Option<Micros>,
    pub latest_event: Option<Micros>,
    /// `None`: they are the rows of the new version, or the log no longer had all events that are in no version, or the files of the active version are not known,
    /// so there is nothing to compare with.
    pub rows: Option<ServedRows>,
}

/// Pins what was served, once speed has closed its generations at the cut.
pub async fn pin(
    attempt: &Attempt<'_>,
    cut: &RunCut,
    base: &Base,
    plan: &Plan,
    source: &RowSource,
) -> Result<Served, RunFailure> {
    let (active, cut) = (attempt.active, &cut.cut);
    let pinned = attempt.cancel().or_cancelled(generations(attempt, active, &active.seam, cut)).await??;
    let SpeedPin { generations, watermark, latest_event } = pinned;
    if attempt.definition_changed() {
        // The new definition must be cut at the same positions before it may become active.
        let nothing = PublishedView::nothing(Arc::clone(&attempt.job.view), Arc::clone(&attempt.job.stream));
        let shadow = PublishedView { seam: cut.clone(), ..nothing };
        attempt.cancel().or_cancelled(self::generations(attempt, &shadow, cut, cut)).await??;
    }
    let rows = match &base.active_files {
        // The served rows are published as they are.
        _ if matches!(source, RowSource::Generations(_)) => None,
        Some(files) if is_complete(&generations, &active.seam, cut) => {
            Some(ServedRows::new(active, files, plan, &generations))
        }
        None => None,
        Some(_) => {
            tracing::info!(view = %attempt.job.view.name, "not reconciled: the log no longer has all events since the seam");
            None
        }
    };
    Ok(Served { watermark, latest_event, rows })
}

/// Returns the generations up to the cut, once speed has closed them there.
pub async fn generations(
    attempt: &Attempt<'_>,
    published: &PublishedView,
    seam: &Cut,
    cut: &Cut,
) -> Result<SpeedPin, RunFailure> {
    let deadline = tokio::time::Instant::now() + attempt.executor.settings.speed_wait;
    loop {
        let pin = attempt.executor.layers.speed.pin(published, seam).await?;
        let is_cut =
            |partition| pin.generations.iter().any(|g| g.partition == partition && g.from == cut.offset(partition));
        if cut.of_log().all(|(partition, _)| is_cut(partition)) {
            let generations = pin.generations.into_iter().filter(|g| g.to <= cut.offset(g.partition)).collect();
            return Ok(SpeedPin { generations, ..pin });
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(RunFailure::SpeedBehind);
        }
        tokio::time::sleep(SPEED_PAUSE).await;
    }
}

/// Returns whether the generations cover everything from `seam` to `cut`.
pub fn is_complete(generations: &[Generation], seam: &Cut, cut: &Cut) -> bool {
    for (partition, point) in cut.of_log() {
        let mut reached = seam.offset(partition);
        for generation in generations.iter().filter(|g| g.partition == partition) {
            if generation.from != reached {
                return false;
            }
            reached = generation.to;
        }
        if reached != point.offset {
            return false;
        }
    }
    true
}
