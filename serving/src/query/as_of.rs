//! Parses the instant at which a trailing window ends. Only views with `SLIDE` have one to choose.

use shared::readers::Generation;
use shared::time::Micros;
use shared::window::Window;

use super::bound::BoundQuery;
use super::cursor::Cursor;
use super::{QueryError, invalid, version_choice};
use shared::sql::suggest::in_parentheses as did_you_mean;

/// The end of a trailing window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// The instant of the request.
    Now,
    /// The first instant whose window contains the latest event of the stream.
    Latest,
    /// Microseconds.
    At(i64),
}

/// Parses `as_of` of a view with SLIDE; a cursor keeps the instant of the first page.
pub fn parse(window: Window, text: Option<&str>, cursor: Option<Cursor>) -> Result<Option<AsOf>, QueryError> {
    if !matches!(window, Window::Slide { .. }) {
        // On other views it names a version of the past.
        return text.map(version_choice::moment).transpose().map(|_| None);
    }
    if let Some(as_of) = cursor.and_then(|cursor| cursor.as_of) {
        return Ok(Some(AsOf::At(as_of)));
    }
    Ok(Some(match text {
        None | Some("now") => AsOf::Now,
        Some("latest") => AsOf::Latest,
        Some(text) => match Micros::parse(text) {
            Some(time) => AsOf::At(time.0),
            None => {
                let hint = did_you_mean(text, ["latest", "now"]);
                let problem = format!(
                    "\"{text}\" is not an instant{hint}; use 2001-01-31T06:00:00Z, latest or now (version selects a batch version)"
                );
                return Err(invalid("as_of", problem));
            }
        },
    }))
}

impl AsOf {
    /// Returns the instant in microseconds, rounded down to a multiple of the view's panes.
    pub fn instant(self, pane: i64, now: Micros, latest_event: Option<Micros>) -> i64 {
        let chosen = match self {
            AsOf::At(time) => time,
            AsOf::Now => now.0,
            // The end of the pane that contains the event.
            AsOf::Latest => latest_event.map_or(now.0, |event| event.0.saturating_add(pane)),
        };
        chosen.saturating_sub(chosen.rem_euclid(pane))
    }
}

/// Refuses a window with panes that the speed layer has released, and that no version has yet.
pub fn refuse_released(query: &BoundQuery, generations: &[Generation]) -> Result<(), QueryError> {
    let released = generations.iter().filter_map(|generation| generation.released);
    let met = released.filter(|released| released.meet(query.from, query.to)).map(|released| released.last).max();
    let Some(last) = met else { return Ok(()) };
    let problem = format!(
        "the window reaches events up to {} that the speed layer no longer holds and no batch version has yet; ask for a \
         later instant, for layer=batch, or again after the next run of the view",
        Micros(last.0)
    );
    Err(invalid("as_of", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLIDE: Window = Window::Slide { size: 100, pane: 10 };

    #[test]
    fn instants_are_multiples_of_panes_and_include_the_latest_event() {
        let (now, latest) = (Micros(1234), Some(Micros(987)));
        for (as_of, pane, expected) in [
            (AsOf::At(55), 10, 50),
            (AsOf::At(-55), 10, -60),
            (AsOf::At(55), 1, 55),
            (AsOf::Now, 10, 1230),
            (AsOf::Latest, 10, 990),
            (AsOf::Latest, 1, 988),
        ] {
            assert_eq!(as_of.instant(pane, now, latest), expected, "{as_of:?} {pane}");
        }
        assert_eq!(AsOf::Latest.instant(10, now, Some(Micros(980))), 990);
        assert_eq!(AsOf::Latest.instant(10, now, None), 1230);
    }

    #[test]
    fn a_cursor_keeps_the_instant_of_the_first_page() {
        let cursor = Cursor { offset: 1, version: None, as_of: Some(77) };
        assert_eq!(parse(SLIDE, None, Some(cursor)), Ok(Some(AsOf::At(77))));
        assert_eq!(parse(SLIDE, None, None), Ok(Some(AsOf::Now)));
        assert_eq!(parse(SLIDE, Some("latest"), None), Ok(Some(AsOf::Latest)));
        assert!(parse(SLIDE, Some("latets"), None).is_err_and(|error| error.to_string().contains("\"latest\"")));
        assert_eq!(parse(Window::All, None, None), Ok(None));
        assert!(parse(Window::All, Some("latest"), None).is_err());
    }
}
