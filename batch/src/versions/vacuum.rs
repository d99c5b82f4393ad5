//! Deletes old files of a view's table and of the table of its comparisons: after a run, at most so often, and on request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lake::vacuum::{VacuumAge, VacuumCounts, expire_log, vacuum};
use lake::{Lake, LakeError, TablePath};
use parking_lot::Mutex;
use shared::control::VacuumReport;
use shared::ids::ViewName;
use shared::published::Views;
use shared::version::BatchVersion;

use crate::deletion_clock::DeletionClock;
use crate::versions::kept::VersionIndex;

/// Vacuums the tables of views.
pub struct VersionVacuum {
    pub lake: Lake,
    pub views: Arc<Views>,
    pub kept: Arc<VersionIndex>,
    pub clock: Arc<DeletionClock>,
    /// Age at which an unused file is deleted.
    pub age: Duration,
    /// Shortest time between two vacuums of a view after its runs.
    pub every: Duration,
    /// When each view was vacuumed.
    pub last: Mutex<HashMap<ViewName, Instant>>,
}

impl VersionVacuum {
    /// Vacuums the tables of `view` after a run, if that is due.
    pub async fn after_run(&self, view: &ViewName) {
        if self.last.lock().get(view).is_some_and(|last| last.elapsed() < self.every) {
            return;
        }
        match self.clean(view, self.age).await {
            Ok(VacuumReport { files, unfinished, log_entries, .. }) => {
                tracing::debug!(%view, files, unfinished, log_entries, "vacuumed");
            }
            Err(error) => tracing::warn!(%view, %error, "vacuum failed; will retry"),
        }
    }

    /// Deletes files that no kept version of `view` needs and that have been unused for `older_than`.
    pub async fn clean(&self, view: &ViewName, older_than: Duration) -> Result<VacuumReport, LakeError> {
        self.last.lock().insert(view.clone(), shared::clock::monotonic_now());
        let mut cleaned = VacuumReport::nothing(view.clone());
        let Some(table) = self.kept.table(view).await? else { return Ok(cleaned) };
        let active = self.views.get(view.as_str()).and_then(|published| published.version.clone());
        // Another process may have published so many versions that the active one here is no longer among the kept.
        let kept = self.kept.of(view).await?.from();
        // I10: whatever a kept version or the active one needs stays.
        let kept_from = kept.into_iter().chain(active.as_ref().map(|v| v.version)).min();
        let leases = self.lake.leases();
        let newest_event = active.as_ref().and_then(|version| version.watermark);
        let age = VacuumAge { older_than, clock_ahead: self.clock.ahead(newest_event) };
        let vacuumed = vacuum(&table, kept_from, age, leases).await?;
        let reconciliations = self.clean_reconciliations(view, active.as_deref(), age).await?;
        if let Some(from) = kept_from {
            let from = leases.oldest_version(table.path()).map_or(from, |held| held.min(from));
            cleaned.log_entries = expire_log(&table, from).await?;
        }
        cleaned.kept_from = kept_from;
        for vacuumed in [vacuumed, reconciliations] {
            cleaned.files += vacuumed.files;
            cleaned.bytes += vacuumed.bytes;
            cleaned.unfinished += vacuumed.unfinished;
            cleaned.too_young += vacuumed.too_young;
        }
        metrics::counter!("trueup_vacuumed_files_total", "view" => view.to_string()).increment(cleaned.files);
        Ok(cleaned)
    }

    /// Deletes comparisons that left their table, and those staged by runs that ended before their commit.
    async fn clean_reconciliations(
        &self,
        view: &ViewName,
        active: Option<&BatchVersion>,
        age: VacuumAge,
    ) -> Result<VacuumCounts, LakeError> {
        let path = TablePath::reconciliations(view);
        let Some(table) = self.lake.open_table(&path).await? else { return Ok(VacuumCounts::default()) };
        if let Some(file) = active.and_then(|version| version.comparison_file.as_ref())
            && !table.snapshot().await?.holds(&file.path)
        {
            // The file is about to become part of the table.
            return Ok(VacuumCounts::default());
        }
        vacuum(&table, None, age, self.lake.leases()).await
    }
}
