//! Parses which version of the past a query asks for: `version` on every view, and `as_of` on views without SLIDE.
//!
//! On views with SLIDE, `as_of` is the instant at which the window ends and does not choose a version.

use shared::published::PublishedView;
use shared::readers::Moment;
use shared::time::Micros;
use shared::window::Window;

use super::cursor::Cursor;
use super::{LayerChoice, Parameters, QueryError, invalid, layer};

/// Parses the version of the past that the parameters name; `None`: the view as it is now.
///
/// A cursor keeps the version of the first page if that was chosen by time, or if only batch contributes.
pub fn parse(
    published: &PublishedView,
    parameters: &[(String, String)],
    permitted: Option<&str>,
    now: Micros,
) -> Result<Option<Moment>, QueryError> {
    let given = Parameters::new(parameters)?;
    let is_slide = matches!(published.view.window, Window::Slide { .. });
    let as_of = given.get("as_of").filter(|_| !is_slide).map(moment).transpose()?;
    let chosen = match (given.get("version"), as_of) {
        (Some(_), Some(_)) => {
            return Err(invalid("as_of", "version already selects a version; use only one of them"));
        }
        (Some(text), None) => match version_number(text) {
            Some(version) => Some(Moment::Version(version)),
            None => return Err(invalid("version", format!("\"{text}\" is not the number of a batch version"))),
        },
        (None, as_of) => as_of,
    };
    if let Some(Moment::Time(time)) = chosen
        && time > now
    {
        let problem = format!("{time} is in the future; leave out as_of for the current state");
        return Err(invalid("as_of", problem));
    }
    let layer = layer(&given)?;
    if chosen.is_some() && layer == LayerChoice::Speed {
        return Err(invalid("layer", "the speed layer has no past versions; use layer=batch, or leave it out"));
    }
    let cursor = given
        .get("cursor")
        .map(|text| Cursor::parse(text, given.fingerprint(&published.view, permitted)))
        .transpose()?;
    let resumed =
        cursor.filter(|cursor| chosen.is_some() || (layer == LayerChoice::Batch && !cursor.is_current(published)));
    Ok(match resumed.and_then(|cursor| cursor.version) {
        Some(version) => Some(Moment::Version(version)),
        None => chosen,
    })
}

/// Parses `as_of` of a view without SLIDE.
pub fn moment(text: &str) -> Result<Moment, QueryError> {
    if let Some(version) = version_number(text) {
        return Ok(Moment::Version(version));
    }
    Micros::parse(text).map(Moment::Time).ok_or_else(|| {
        let problem = format!("\"{text}\" is neither the number of a batch version nor a time");
        invalid("as_of", problem + "; use 12 or 2001-01-31T06:00:00Z (only views with SLIDE have latest and now)")
    })
}

fn version_number(text: &str) -> Option<i64> {
    Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn published(window: &str) -> PublishedView {
        let sql = format!(
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at'); CREATE VIEW v AS SELECT COUNT(*) AS n FROM s{window};"
        );
        let mut definitions = shared::sql::parse_definitions(&[("s".to_owned(), sql)]).expect("right");
        PublishedView::nothing(Arc::new(definitions.views.remove(0)), Arc::new(definitions.streams.remove(0)))
    }

    fn choice(window: &str, parameters: &[(&str, &str)]) -> Result<Option<Moment>, String> {
        let parameters: Vec<_> = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        parse(&published(window), &parameters, None, Micros(1_000_000)).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_name_versions_and_times_name_instants() {
        let tumble = " GROUP BY TUMBLE(at, INTERVAL '1' HOUR)";
        let slide = " GROUP BY SLIDE(at, INTERVAL '1' HOUR)";
        for window in ["", tumble] {
            assert_eq!(choice(window, &[]), Ok(None));
            assert_eq!(choice(window, &[("as_of", "12")]), Ok(Some(Moment::Version(12))));
            assert_eq!(choice(window, &[("version", "12")]), Ok(Some(Moment::Version(12))));
            assert_eq!(choice(window, &[("as_of", "1970-01-01T00:00:01Z")]), Ok(Some(Moment::Time(Micros(1_000_000)))));
            for (parameters, word) in [
                (vec![("as_of", "1970-01-01T00:00:02Z")], "in the future"),
                (vec![("as_of", "latest")], "SLIDE"),
                (vec![("version", "-1")], "not the number"),
                (vec![("version", "1"), ("as_of", "1")], "only one of them"),
                (vec![("version", "1"), ("layer", "speed")], "no past versions"),
            ] {
                let error = choice(window, &parameters).expect_err("refused");
                assert!(error.contains(word), "{parameters:?}: {error}");
            }
        }
        assert_eq!(choice(slide, &[("as_of", "1970-01-01T00:00:02Z")]), Ok(None));
        let both = [("as_of", "1970-01-01T00:00:02Z"), ("version", "3")];
        assert_eq!(choice(slide, &both), Ok(Some(Moment::Version(3))));
    }

    #[test]
    fn a_cursor_keeps_the_version_of_the_first_page() {
        let now = published("");
        let cursor = |parameters: &[(String, String)]| {
            let fingerprint = Parameters(parameters).fingerprint(&now.view, None);
            Cursor { offset: 5, version: Some(7), as_of: None }.encode(fingerprint)
        };
        for (parameter, expected) in [
            (("layer", "batch"), Some(Moment::Version(7))),
            (("as_of", "1970-01-01T00:00:01Z"), Some(Moment::Version(7))),
            (("layer", "merged"), None),
        ] {
            let mut parameters = vec![(parameter.0.to_owned(), parameter.1.to_owned())];
            parameters.push(("cursor".to_owned(), cursor(&parameters)));
            assert_eq!(parse(&now, &parameters, None, Micros(1_000_000)), Ok(expected), "{parameter:?}");
        }
    }
}
