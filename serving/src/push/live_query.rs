//! Parses live queries: a query on a view and a polling interval. Clients with equal live queries share one feed.

use std::sync::Arc;
use std::time::Duration;

use shared::limits::{LIVE_EVERY_DEFAULT_MS, LIVE_EVERY_MAX_MS, LIVE_EVERY_MIN_MS, LIVE_ROWS_MAX};
use shared::view::View;

use crate::query::{PARAMETERS, Query, QueryError};
use shared::sql::suggest::in_parentheses as did_you_mean;

/// Parameters of `/rows` that live queries do not have, and the reason.
const ROWS_ONLY: [(&str, &str); 3] = [
    ("cursor", "live queries have no pages; use a higher limit"),
    ("version", "a version of the past does not change; use /rows"),
    ("shape", "live queries have one shape"),
];

/// A query whose changes are pushed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LiveQuery {
    pub view: String,
    /// Parameters of `/rows`, sorted.
    pub parameters: Vec<(String, String)>,
    /// The row filter of the subscribers.
    pub permitted: Option<Arc<str>>,
    /// The polling interval.
    pub every: Duration,
}

/// The reason why a live query is invalid.
#[derive(Debug, thiserror::Error)]
pub enum LiveQueryError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("{0}")]
    Parameter(String),
    #[error("there is no parameter \"{0}\"{1}")]
    Unknown(String, String),
}

impl LiveQuery {
    /// Parses the parameters of `/live` on `view`, within the row filter `permitted`.
    pub fn parse(
        view: &View,
        parameters: Vec<(String, String)>,
        permitted: Option<Arc<str>>,
    ) -> Result<LiveQuery, LiveQueryError> {
        let mut every = Duration::from_millis(LIVE_EVERY_DEFAULT_MS);
        let mut of_rows = Vec::with_capacity(parameters.len());
        let mut has_every = false;
        for (name, value) in parameters {
            if let Some((_, reason)) = ROWS_ONLY.iter().find(|(other, _)| *other == name) {
                return Err(LiveQueryError::Parameter(format!("{name}: {reason}")));
            }
            if name == "every" {
                if std::mem::replace(&mut has_every, true) {
                    return Err(LiveQueryError::Parameter("every: must be given only once".to_owned()));
                }
                every = span(&value)?;
            } else if PARAMETERS.contains(&name.as_str()) {
                of_rows.push((name, value));
            } else {
                let known =
                    PARAMETERS.iter().copied().filter(|known| ROWS_ONLY.iter().all(|(other, _)| other != known));
                let hint = did_you_mean(&name, known.chain(["every"]));
                return Err(LiveQueryError::Unknown(name, hint));
            }
        }
        let query = Query::parse(view, &of_rows, permitted.as_deref())?;
        if query.limit > LIVE_ROWS_MAX {
            return Err(LiveQueryError::Parameter(format!("limit: a live query has at most {LIVE_ROWS_MAX} rows")));
        }
        let is_slide = matches!(view.window, shared::window::Window::Slide { .. });
        if !is_slide && of_rows.iter().any(|(name, _)| name == "as_of") {
            return Err(LiveQueryError::Parameter("as_of: the past does not change; use /rows".to_owned()));
        }
        of_rows.sort();
        Ok(LiveQuery { view: view.name.to_string(), parameters: of_rows, permitted, every })
    }
}

/// Parses `500ms`, `1s`, `5m`.
fn span(text: &str) -> Result<Duration, LiveQueryError> {
    let wrong = || {
        let (least, most) = (LIVE_EVERY_MIN_MS, LIVE_EVERY_MAX_MS / 60_000);
        LiveQueryError::Parameter(format!(
            "every: expected an interval from {least}ms to {most}m such as 1s, found \"{text}\""
        ))
    };
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 = text[..end].parse().map_err(|_| wrong())?;
    let unit_ms = match &text[end..] {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        _ => return Err(wrong()),
    };
    let ms = count.checked_mul(unit_ms).filter(|ms| (LIVE_EVERY_MIN_MS..=LIVE_EVERY_MAX_MS).contains(ms));
    ms.map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_units_and_within_bounds() {
        for (text, ms) in [("100ms", Some(100)), ("1s", Some(1_000)), ("2m", Some(120_000)), ("60m", Some(3_600_000))] {
            assert_eq!(span(text).ok().map(|span| span.as_millis() as u64), ms, "{text}");
        }
        for text in ["", "1", "s", "99ms", "61m", "1h", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
