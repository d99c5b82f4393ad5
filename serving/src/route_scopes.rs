//! Lists what each route asks of a request: the one table of scopes. A route that is not listed is for `admin` only.
//!
//! Endpoints with [`Requirement::Authenticated`] show only what the principal may see: lists leave out other views and
//! streams, and a run is checked by its view.

use auth::{Action, Requirement};
use axum::http::Method;

use Requirement::{Admin, Authenticated, Public, Scope, ScopeOfAll, ScopeOfAllRows};

const READ: Requirement = Scope(Action::Read);
const READ_ALL_ROWS: Requirement = ScopeOfAllRows(Action::Read);

/// Method, pattern of the path, requirement. GET includes HEAD.
pub const ROUTES: &[(&str, &str, Requirement)] = &[
    ("GET", "/v1/views", Authenticated),
    ("GET", "/v1/views/{view}", READ),
    ("GET", "/v1/views/{view}/rows", READ),
    ("GET", "/v1/views/{view}/rows.json", READ),
    ("GET", "/v1/views/{view}/rows.ndjson", READ),
    ("GET", "/v1/views/{view}/rows.csv", READ),
    ("GET", "/v1/views/{view}/rows.parquet", READ),
    ("GET", "/v1/views/{view}/rows.arrow", READ),
    ("GET", "/v1/views/{view}/live", READ),
    // Their rows and means are those of all tenants.
    ("GET", "/v1/views/{view}/compare", READ_ALL_ROWS),
    ("GET", "/v1/views/{view}/drift", READ_ALL_ROWS),
    ("GET", "/v1/views/{view}/versions", READ_ALL_ROWS),
    ("POST", "/v1/views/{view}/runs", Scope(Action::Run)),
    ("POST", "/v1/views/{view}/checkpoints", Scope(Action::Run)),
    ("POST", "/v1/views/{view}/vacuum", Admin),
    ("GET", "/v1/runs", Authenticated),
    ("GET", "/v1/runs/{run}", Authenticated),
    ("DELETE", "/v1/runs/{run}", Authenticated),
    // Alerts of views that may be read.
    ("GET", "/v1/alerts", Authenticated),
    ("GET", "/v1/alerts/live", Authenticated),
    ("GET", "/v1/alerts/dead_letters", Authenticated),
    ("GET", "/v1/alerts/silences", Authenticated),
    // Of the alert's view, or of all: checked by the endpoint.
    ("POST", "/v1/alerts/silences", Authenticated),
    ("DELETE", "/v1/alerts/silences/{silence}", Authenticated),
    // Sinks of views that may be read; changes need the scope of a run of the view. Checked by the endpoint.
    ("GET", "/v1/sinks", Authenticated),
    ("GET", "/v1/sinks/{sink}", Authenticated),
    ("POST", "/v1/sinks/{sink}/pause", Authenticated),
    ("POST", "/v1/sinks/{sink}/resume", Authenticated),
    ("POST", "/v1/events/{stream}", Scope(Action::Ingest)),
    // Their views are checked by the endpoint, which applies the row filter.
    ("GET", "/v1/entities/{stream}", Authenticated),
    ("GET", "/v1/entities/{stream}/{id}", Authenticated),
    ("POST", "/v1/entities/{stream}", Scope(Action::Ingest)),
    // It cannot be undone.
    ("DELETE", "/v1/entities/{stream}/{id}", Admin),
    ("GET", "/v1/erasures", Admin),
    // Events as they were sent: the scope is one over the stream.
    ("GET", "/v1/entities/{stream}/{id}/events", READ_ALL_ROWS),
    ("GET", "/v1/entities/{stream}/{id}/live", READ_ALL_ROWS),
    ("POST", "/v1/entities/{stream}/{id}/events", Scope(Action::Ingest)),
    // Rows of all tenants: the scope is one over the table.
    ("GET", "/v1/tables/{stream}/rows", READ_ALL_ROWS),
    ("GET", "/v1/tables/{stream}/rows/{key}", READ_ALL_ROWS),
    ("GET", "/v1/streams", Authenticated),
    ("GET", "/v1/streams/{stream}", Authenticated),
    // Events as they were sent, of all tenants.
    ("GET", "/v1/streams/{stream}/late", Admin),
    ("GET", "/v1/streams/{stream}/ahead", Admin),
    ("GET", "/v1/streams/{stream}/failed", Admin),
    ("GET", "/v1/streams/{stream}/quarantine", Admin),
    ("DELETE", "/v1/streams/{stream}/quarantine", Admin),
    ("POST", "/v1/streams/{stream}/compact", Admin),
    ("GET", "/livez", Public),
    ("GET", "/readyz", Public),
    // They name every view and stream.
    ("GET", "/metrics", ScopeOfAll(Action::Read)),
    ("GET", "/openapi.json", Authenticated),
    ("GET", "/docs", Authenticated),
    ("GET", "/docs/", Authenticated),
    ("GET", "/docs/{*rest}", Authenticated),
    ("GET", "/", Authenticated),
    ("GET", "/view/{view}", READ),
    ("GET", "/compare/{view}", READ_ALL_ROWS),
    ("GET", "/batch", Authenticated),
    ("GET", "/streams", Authenticated),
    // Shows what its script may read.
    ("GET", "/entity/{stream}/{id}", Authenticated),
    ("GET", "/alerts", Authenticated),
    ("GET", "/sinks", Authenticated),
    ("GET", "/login", Public),
    ("POST", "/login", Public),
    ("POST", "/logout", Authenticated),
    ("GET", "/favicon.ico", Public),
];

/// The files of pages hold no data, and the login page needs them.
const FILES: &str = "/assets/";

/// Returns the requirement of a method and the pattern of a path.
pub fn requirement(method: &Method, path: &str) -> Requirement {
    listed(method, path).unwrap_or_else(|| {
        // A method that the path does not have is refused by the router.
        let is_listed = ROUTES.iter().any(|(_, pattern, _)| *pattern == path);
        if is_listed { Authenticated } else { Admin }
    })
}

/// Returns the requirement in the table.
pub fn listed(method: &Method, path: &str) -> Option<Requirement> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    if path.starts_with(FILES) && method == Method::GET {
        return Some(Public);
    }
    ROUTES.iter().find(|(name, pattern, _)| method == name && *pattern == path).map(|(.., found)| *found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn unlisted_routes_are_for_admins_and_none_is_listed_twice() {
        assert_eq!(requirement(&Method::GET, "/v1/new"), Admin);
        assert_eq!(requirement(&Method::POST, "/v1/views/{view}/rows"), Authenticated);
        assert_eq!(requirement(&Method::HEAD, "/v1/views/{view}/rows.parquet"), READ);
        assert_eq!(requirement(&Method::POST, "/assets/base.css"), Admin);
        let distinct: BTreeSet<_> = ROUTES.iter().map(|(method, path, _)| (method, path)).collect();
        assert_eq!(distinct.len(), ROUTES.len());
    }

    #[test]
    fn every_route_that_changes_something_needs_a_scope() {
        for (method, path, requirement) in ROUTES.iter().filter(|(method, ..)| *method != "GET") {
            // The first two are about the session itself; a run or a sink is checked by its view, a silence by that of its alert.
            let of_others = ["/v1/alerts/silences", "/v1/sinks/"];
            let is_exempt = ["/login", "/logout", "/v1/runs/{run}"].contains(path)
                || of_others.iter().any(|prefix| path.starts_with(prefix));
            assert!(is_exempt || !matches!(requirement, Public | Authenticated), "{method} {path}");
        }
    }
}
