//! When are old files of a view's table, and of that of its reconciliations, deleted? After a publish, now and then, and
//! when somebody asks for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lake::vacuum::{Vacuumed, expire_log, vacuum};
use lake::{Lake, LakeError, TablePath};
use parking_lot::Mutex;
use shared::control::Cleaned;
use shared::ids::ViewName;
use shared::published::Views;
use shared::version::BatchVersion;

use crate::versions::kept::Kept;

/// Vacuums the tables of views.
pub struct Cleaner {
    pub lake: Lake,
    pub views: Arc<Views>,
    pub kept: Arc<Kept>,
    /// Files stay for at least as long after they were needed.
    pub age: Duration,
    /// Shortest time between two vacuums of a view that nobody asked for.
    pub every: Duration,
    /// When each view was vacuumed.
    pub last: Mutex<HashMap<ViewName, Instant>>,
}

impl Cleaner {
    /// A version of `view` has been published, or a run of it has failed. Vacuums its table if that is due.
    pub async fn after_run(&self, view: &ViewName) {
        if self.last.lock().get(view).is_some_and(|last| last.elapsed() < self.every) {
            return;
        }
        match self.clean(view, self.age).await {
            Ok(Cleaned { files, unfinished, log_entries, .. }) => {
                tracing::debug!(%view, files, unfinished, log_entries, "vacuumed");
            }
            Err(error) => tracing::warn!(%view, %error, "old files could not be deleted; they will be next time"),
        }
    }

    /// Deletes what no kept version of `view` needs and has not been needed for `older_than`.
    pub async fn clean(&self, view: &ViewName, older_than: Duration) -> Result<Cleaned, LakeError> {
        self.last.lock().insert(view.clone(), Instant::now());
        let mut cleaned = Cleaned::nothing(view.clone());
        let Some(table) = self.kept.table(view).await? else { return Ok(cleaned) };
        let answering = self.views.get(view.as_str()).and_then(|published| published.version.clone());
        // Another process may have published so many that the version which answers here is among the kept no more.
        let kept = self.kept.of(view).await?.from();
        let kept_from = kept.into_iter().chain(answering.as_ref().map(|v| v.version)).min();
        let leases = self.lake.leases();
        let vacuumed = vacuum(&table, kept_from, older_than, leases).await?;
        let reconciliations = self.clean_reconciliations(view, answering.as_deref(), older_than).await?;
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

    /// Deletes reconciliations that left their table, and those staged by runs that died before their commit.
    async fn clean_reconciliations(
        &self,
        view: &ViewName,
        answering: Option<&BatchVersion>,
        older_than: Duration,
    ) -> Result<Vacuumed, LakeError> {
        let path = TablePath::reconciliations(view);
        let Some(table) = self.lake.open_table(&path).await? else { return Ok(Vacuumed::default()) };
        if let Some(file) = answering.and_then(|version| version.comparison_file.as_ref())
            && !table.snapshot().await?.holds(&file.path)
        {
            // It is about to become part of the table.
            return Ok(Vacuumed::default());
        }
        vacuum(&table, None, older_than, self.lake.leases()).await
    }
}
