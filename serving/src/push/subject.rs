//! What does a feed tell of? A query on a view, and how often it is looked at: two readers who ask for the same share it.

use std::time::Duration;

use shared::limits::{LIVE_EVERY_DEFAULT_MS, LIVE_EVERY_MAX_MS, LIVE_EVERY_MIN_MS, LIVE_ROWS_MAX};
use shared::view::View;

use crate::nearest::did_you_mean;
use crate::query::{PARAMETERS, Query, QueryError};

/// Parameters of rows that make no sense here, and why.
const OTHERS: [(&str, &str); 3] = [
    ("cursor", "a live answer has no pages; ask for a higher limit"),
    ("version", "a version of the past does not change; ask /rows for it"),
    ("shape", "a live answer has one shape"),
];

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    pub view: String,
    /// Those of `/rows`, in an order of their own.
    pub parameters: Vec<(String, String)>,
    pub every: Duration,
}

/// Why nothing can be told of.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("{0}")]
    Parameter(String),
    #[error("there is no parameter \"{0}\"{1}")]
    Unknown(String, String),
}

impl Subject {
    /// Reads the parameters of `/live` on `view`.
    pub fn parse(view: &View, parameters: Vec<(String, String)>) -> Result<Subject, SubjectError> {
        let mut every = Duration::from_millis(LIVE_EVERY_DEFAULT_MS);
        let mut given = Vec::with_capacity(parameters.len());
        let mut seen_every = false;
        for (name, value) in parameters {
            if let Some((_, reason)) = OTHERS.iter().find(|(other, _)| *other == name) {
                return Err(SubjectError::Parameter(format!("{name}: {reason}")));
            }
            if name == "every" {
                if std::mem::replace(&mut seen_every, true) {
                    return Err(SubjectError::Parameter("every: given twice".to_owned()));
                }
                every = span(&value)?;
            } else if PARAMETERS.contains(&name.as_str()) {
                given.push((name, value));
            } else {
                let known = PARAMETERS.iter().copied().filter(|known| OTHERS.iter().all(|(other, _)| other != known));
                let hint = did_you_mean(&name, known.chain(["every"]));
                return Err(SubjectError::Unknown(name, hint));
            }
        }
        let query = Query::parse(view, &given)?;
        if query.limit > LIVE_ROWS_MAX {
            return Err(SubjectError::Parameter(format!("limit: a live answer has at most {LIVE_ROWS_MAX} rows")));
        }
        let is_slide = matches!(view.window, shared::window::Window::Slide { .. });
        if !is_slide && given.iter().any(|(name, _)| name == "as_of") {
            return Err(SubjectError::Parameter("as_of: the past does not change; ask /rows for it".to_owned()));
        }
        given.sort();
        Ok(Subject { view: view.name.to_string(), parameters: given, every })
    }
}

/// Reads `500ms`, `1s`, `5m`.
fn span(text: &str) -> Result<Duration, SubjectError> {
    let wrong = || {
        let (least, most) = (LIVE_EVERY_MIN_MS, LIVE_EVERY_MAX_MS / 60_000);
        SubjectError::Parameter(format!(
            "every: expected a time from {least}ms to {most}m such as 1s, found \"{text}\""
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
