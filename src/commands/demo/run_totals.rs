//! Adds up the comparisons of all published batch runs of a server, each fetched once.

use std::collections::HashSet;

use shared::compare::Comparison;
use shared::control::{Run, RunState};
use shared::ids::ViewName;

use crate::client::{Client, ClientError};
use crate::commands::listing::Entries;
use crate::human_units::grouped;

/// Sums over all published runs.
#[derive(Debug, Default)]
pub struct RunTotals {
    /// Ids of the runs that are counted.
    counted: HashSet<String>,
    pub published: u64,
    pub rows_compared: u64,
    pub rows_equal: u64,
    pub unexplained: u64,
    /// A sentence about the last comparison.
    pub last: Option<String>,
}

impl RunTotals {
    /// Fetches the runs and comparisons that were published since the last poll.
    pub async fn poll(&mut self, client: &Client, views: &[ViewName]) -> Result<(), ClientError> {
        let Entries::<Run>(runs) = client.get("/v1/runs").await?;
        // The list is newest first; reversed, so that `last` is the newest at the end.
        for run in runs.iter().rev().filter(|run| run.state == RunState::Published && views.contains(&run.view)) {
            let Some(version) = run.version.filter(|_| !self.counted.contains(&run.id)) else { continue };
            match client.get::<Comparison>(&format!("/v1/views/{}/compare?version={version}", run.view)).await {
                Ok(comparison) => self.add(&comparison),
                // The first version of a view may have no comparison.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
            self.published += 1;
            self.counted.insert(run.id.clone());
        }
        Ok(())
    }

    fn add(&mut self, comparison: &Comparison) {
        self.rows_compared += comparison.rows_compared;
        self.rows_equal += comparison.rows_equal;
        self.unexplained += comparison.causes.unexplained;
        let causes: Vec<String> = comparison
            .causes
            .named()
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(cause, count)| format!("{cause} {}", grouped(*count)))
            .collect();
        let why = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) };
        let (equal, compared) = (grouped(comparison.rows_equal), grouped(comparison.rows_compared));
        self.last = Some(format!("{} v{}: {equal} of {compared} rows exact{why}", comparison.view, comparison.version));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use axum::extract::{Path, Query, State};
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::*;

    fn run(version: i64) -> Value {
        json!({"id": format!("r{version}"), "view": "v", "state": "published", "full": false, "trigger": "schedule",
               "cut": {}, "version": version, "queued_at": "2024-01-01T00:00:00Z", "started_at": null, "finished_at": null,
               "progress": {"dates": 0, "dates_done": 0, "rows": 0, "bytes": 0}, "error": null})
    }

    async fn runs(State(head): State<Arc<AtomicI64>>) -> Json<Value> {
        let newest_first: Vec<Value> = (0..=head.load(Ordering::SeqCst)).rev().map(run).collect();
        Json(json!({ "runs": newest_first }))
    }

    async fn compare(Path(view): Path<String>, Query(query): Query<Value>) -> Result<Json<Value>, StatusCode> {
        let version: i64 = query["version"].as_str().and_then(|text| text.parse().ok()).expect("a version");
        if version == 0 {
            return Err(StatusCode::NOT_FOUND);
        }
        Ok(Json(json!({"view": view, "version": version, "compared_at": "2024-01-01T00:00:00Z", "cut": {},
                       "rows_compared": 100, "rows_equal": 90, "measures": {}, "rows": [],
                       "causes": {"late": 10, "duplicate": 0, "sketch": 0, "rounding": 0, "definition": 0, "unexplained": 0}})))
    }

    #[tokio::test]
    async fn every_published_run_is_counted_once() {
        let head = Arc::new(AtomicI64::new(1));
        let router = Router::new()
            .route("/v1/runs", get(runs))
            .route("/v1/views/{view}/compare", get(compare))
            .with_state(Arc::clone(&head));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = Client::new(&format!("http://{}", listener.local_addr().expect("bound"))).expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });

        let views = ["v".parse().expect("a name")];
        let mut totals = RunTotals::default();
        for (versions, compared) in [(1, 100), (1, 100), (4, 400)] {
            head.store(versions, Ordering::SeqCst);
            totals.poll(&client, &views).await.expect("answers");
            assert_eq!(totals.published, versions as u64 + 1);
            assert_eq!((totals.rows_compared, totals.rows_equal), (compared, compared / 10 * 9));
        }
        assert_eq!(totals.last.as_deref(), Some("v v4: 90 of 100 rows exact (late 10)"));
    }
}
