//! Decides what the rows of a new version are made of: the exact results of batch, or, for a view of the speed layer alone, the
//! generations that this layer holds up to the cut. Where these lack events, the archive is replayed with the verdicts and
//! states of the speed layer.

use shared::failed_events::FailedEvents;
use shared::horizon::Horizon;
use shared::ledger::Ledger;
use shared::readers::Generation;
use shared::version::Origin;
use shared::view::ViewLayers;
use shared::window::Window;

use crate::failure::RunFailure;
use crate::run::Attempt;
use crate::run::base::Base;
use crate::run::cut::RunCut;
use crate::run::served::{generations, is_complete};

/// What the rows of a new version are made of.
#[derive(Debug)]
pub enum RowSource {
    /// Every event of the recomputed dates, exactly.
    Events,
    /// Every event before the cut, as the speed layer folds them.
    Replay,
    /// The rows of the active version, and what the speed layer made of the events from its seam up to the cut.
    Generations(Vec<Generation>),
}

impl RowSource {
    /// Returns the layer that computes the rows.
    pub fn origin(&self) -> Origin {
        match self {
            RowSource::Events => Origin::Batch,
            RowSource::Replay | RowSource::Generations(_) => Origin::Speed,
        }
    }
}

/// Decides for the attempt, once the speed layer has closed its generations at the cut.
pub async fn choose(
    attempt: &Attempt<'_>,
    cut: &RunCut,
    base: &Base,
    horizon: Horizon,
) -> Result<RowSource, RunFailure> {
    if attempt.job.view.layers == ViewLayers::Both {
        return Ok(RowSource::Events);
    }
    let (active, view) = (attempt.active, &attempt.job.view);
    let must_replay = match () {
        () if attempt.entry.run().full => Some("on request"),
        () if attempt.definition_changed() => Some("its definition changed"),
        () if !base.is_active && active.version.is_some() => Some("the active version is not the newest of its table"),
        () if !base.is_active && !base.files.is_empty() => Some("its table has a version that is not active"),
        () if horizon.restores(Horizon::of(active)) => Some("its retention is longer than before"),
        // The generations may still have them.
        () if attempt.has_newly_erased(cut) => Some("events were erased"),
        // Only the archive shows which events belong to dropped sessions.
        () if matches!(view.window, Window::Session { .. }) && horizon != Horizon::NONE => {
            Some("retention has dropped sessions")
        }
        () => None,
    };
    let reason = match must_replay {
        Some(reason) => reason,
        None => {
            let pinned = attempt.cancel().or_cancelled(generations(attempt, active, &active.seam, &cut.cut)).await??;
            match gap(attempt, cut, &pinned.generations) {
                None => return Ok(RowSource::Generations(pinned.generations)),
                Some(reason) => reason,
            }
        }
    };
    tracing::info!(%view.name, reason, "the checkpoint replays the archive");
    Ok(RowSource::Replay)
}

/// Returns why the generations are not all that happened from the seam up to the cut; `None`: they are.
fn gap(attempt: &Attempt<'_>, cut: &RunCut, generations: &[Generation]) -> Option<&'static str> {
    let active = attempt.active;
    let covered = active.version.as_ref().map_or(Ledger::EMPTY, |version| version.ledger);
    let since: Ledger = generations.iter().map(|g| g.folded + g.late + g.failed).sum();
    match () {
        () if !is_complete(generations, &active.seam, &cut.cut) => {
            Some("the log no longer has all events since the seam")
        }
        () if generations.iter().any(|generation| generation.released.is_some()) => {
            Some("the speed layer has released panes")
        }
        () if generations.iter().any(|generation| generation.failed_events.have_unknown_times()) => {
            Some("a fold of the speed layer failed")
        }
        // I2: a version accounts for exactly the events before its seam. Historical events are in no generation.
        () if covered + since != cut.cut.accepted() => Some("the archive has events that the speed layer did not get"),
        () => None,
    }
}

/// Returns the events that the generations exclude because an expression failed for them.
pub fn failed_events(generations: &[Generation]) -> FailedEvents {
    let mut failed = FailedEvents::default();
    generations.iter().for_each(|generation| failed.extend(&generation.failed_events));
    failed
}
