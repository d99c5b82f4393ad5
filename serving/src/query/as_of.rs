//! As of which instant is a trailing window asked for? `SLIDE` alone has instants to choose from.

use shared::time::Micros;
use shared::window::Window;

use super::cursor::Cursor;
use super::{QueryError, invalid, travel};
use crate::nearest::did_you_mean;

/// The end of a trailing window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// When the query is answered.
    Now,
    /// The first instant whose window has the latest event of the stream.
    Latest,
    /// Microseconds.
    At(i64),
}

/// Reads the instant that `as_of` is on views with SLIDE; a cursor goes on as of where the first page was.
pub fn parse(window: Window, text: Option<&str>, cursor: Option<Cursor>) -> Result<Option<AsOf>, QueryError> {
    if !matches!(window, Window::Slide { .. }) {
        // There it says which state of the past is meant.
        return text.map(travel::moment).transpose().map(|_| None);
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
                    "\"{text}\" is no instant{hint}; write 2001-01-31T06:00:00Z, latest or now (a batch version is asked for with version)"
                );
                return Err(invalid("as_of", problem));
            }
        },
    }))
}

impl AsOf {
    /// The instant, in microseconds: a multiple of the view's panes, taken down where the reader chose another.
    pub fn instant(self, pane: i64, now: Micros, latest_event: Option<Micros>) -> i64 {
        let chosen = match self {
            AsOf::At(time) => time,
            AsOf::Now => now.0,
            // The end of the pane that the event is in.
            AsOf::Latest => latest_event.map_or(now.0, |event| event.0.saturating_add(pane)),
        };
        chosen.saturating_sub(chosen.rem_euclid(pane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLIDE: Window = Window::Slide { size: 100, pane: 10 };

    #[test]
    fn instants_are_multiples_of_panes_and_the_latest_event_is_inside() {
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
    fn a_cursor_goes_on_as_of_where_it_began() {
        let cursor = Cursor { offset: 1, version: None, as_of: Some(77) };
        assert_eq!(parse(SLIDE, None, Some(cursor)), Ok(Some(AsOf::At(77))));
        assert_eq!(parse(SLIDE, None, None), Ok(Some(AsOf::Now)));
        assert_eq!(parse(SLIDE, Some("latest"), None), Ok(Some(AsOf::Latest)));
        assert!(parse(SLIDE, Some("latets"), None).is_err_and(|error| error.to_string().contains("\"latest\"")));
        assert_eq!(parse(Window::All, None, None), Ok(None));
        assert!(parse(Window::All, Some("latest"), None).is_err());
    }
}
