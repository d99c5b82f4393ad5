//! What does a reader ask for? The parameters of `/rows`, checked against the view before anything is read.
//!
//! `from` and `to` bound the `window_start` of the answer's rows, half open. With a coarser grain they therefore move up
//! to the grain's next boundary: every row that is shown is whole. With `grain=all` they bound the view's own windows.
//! A view with SLIDE has one window, which ends at the instant that `as_of` says.
//!
//! [`grain`] reads grains, [`as_of`] instants, [`travel`] which state of the past is meant, [`names`] lists of names, [`predicate`] the `where`, [`cursor`] the place
//! to go on from.

pub mod as_of;
pub mod cursor;
mod grain;
mod names;
mod predicate;
#[cfg(test)]
mod tests;
pub mod travel;

use shared::limits::{QUERY_ROWS_DEFAULT, QUERY_ROWS_MAX};
use shared::partial::codec::window_bounds;
use shared::partial::merge::Grain;
use shared::published::Published;
use shared::scalar::Scalar;
use shared::time::Micros;
use shared::view::View;
use shared::window::Window;
use xxhash_rust::xxh3::xxh3_64;

use self::as_of::AsOf;
use self::cursor::Cursor;
use crate::nearest::did_you_mean;
use crate::window_text::kind;

/// Every parameter of `/rows`.
pub const PARAMETERS: [&str; 13] = [
    "from", "to", "where", "group_by", "grain", "measures", "order_by", "limit", "cursor", "layer", "shape", "as_of",
    "version",
];

/// Why a query is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("there is no parameter \"{name}\"{hint}")]
    UnknownParameter { name: String, hint: String },
    #[error("{parameter}: {problem}")]
    Invalid { parameter: &'static str, problem: String },
    #[error("{0} is not supported yet")]
    NotSupported(String),
    #[error("where: {message}")]
    Predicate { message: String, line: usize, column: usize },
}

/// Which layers answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerChoice {
    #[default]
    Merged,
    Batch,
    Speed,
}

/// How JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// One object with the rows and all about them.
    #[default]
    Document,
    /// The bare array of rows.
    Rows,
}

/// What to order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderBy {
    WindowStart,
    WindowEnd,
    /// Index into the view's dimensions; one of the query's.
    Dimension(usize),
    /// Index into the view's measures.
    Measure(usize),
}

/// One step of an order. NULL counts as the smallest value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderKey {
    pub by: OrderBy,
    pub descending: bool,
}

/// A query that the view can answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Ids of the view's windows in `from..to`, in microseconds; of sessions starts, of SLIDE panes.
    pub from: i64,
    pub to: i64,
    /// The instant at which the window of SLIDE ends; `None` for all other views.
    pub as_of: Option<AsOf>,
    /// Over the view's dimensions: the groups to take in.
    pub filter: Option<Scalar>,
    /// Over the view's dimensions, and behind them its measures: the rows to show.
    pub shown: Option<Scalar>,
    /// Indices into the view's dimensions, in the order asked for.
    pub dimensions: Vec<usize>,
    pub grain: Grain,
    /// Indices into the view's measures, in the order asked for.
    pub measures: Vec<usize>,
    /// Empty: by window, then by dimensions.
    pub order: Vec<OrderKey>,
    pub limit: usize,
    pub cursor: Option<Cursor>,
    pub layer: LayerChoice,
    /// The first window that speed answers for; those before it are frozen.
    pub speed_from: i64,
    pub shape: Shape,
    /// Is a version asked for by its number?
    pub version: bool,
    /// Tells queries apart, whatever their cursor and limit.
    pub fingerprint: u64,
}

impl Query {
    /// Reads the parameters of a query on `view`.
    pub fn parse(view: &View, parameters: &[(String, String)]) -> Result<Query, QueryError> {
        let given = Given::new(parameters)?;
        let dimensions = match given.get("group_by") {
            Some(text) => names::dimensions(view, text)?,
            None => (0..view.dimensions.len()).collect(),
        };
        let measures = match given.get("measures") {
            Some(text) => names::measures(view, text)?,
            None => names::shown_measures(view),
        };
        let order = match given.get("order_by") {
            Some(text) => names::order(view, &dimensions, text)?,
            None => Vec::new(),
        };
        let grain = match given.get("grain") {
            Some(text) => grain::parse(view, text)?,
            None if matches!(view.window, Window::Slide { .. }) => Grain::All,
            None => Grain::Window,
        };
        let (from, to) = bounds(view.window, grain, &given)?;
        let fingerprint = given.fingerprint(view);
        let cursor = match given.get("cursor") {
            Some(text) => Some(Cursor::parse(text, fingerprint)?),
            None => None,
        };
        let as_of = as_of::parse(view.window, given.get("as_of"), cursor)?;
        let filter = given.get("where").map(|text| predicate::parse(view, &dimensions, text)).transpose()?;
        let filter = filter.unwrap_or_default();
        Ok(Query {
            from,
            to,
            as_of,
            filter: filter.groups,
            shown: filter.rows,
            dimensions,
            grain,
            measures,
            order,
            limit: limit(&given)?,
            cursor,
            layer: layer(&given)?,
            speed_from: i64::MIN,
            shape: shape(&given)?,
            version: given.get("version").is_some(),
            fingerprint,
        })
    }

    /// Leaves out the windows that retention has dropped: batch has none of them, and late events for them would make a
    /// part look like a whole. Frozen windows stay as batch has them: what speed has for them, no run will take in.
    pub fn retain(&mut self, published: &Published) -> Result<(), QueryError> {
        let frozen_until = published.version.as_ref().map_or(i64::MIN, |version| version.frozen_until());
        (self.speed_from, _) = published.view.window.ids_starting_in(frozen_until, i64::MAX);
        let Some(first) = published.version.as_ref().and_then(|version| version.retained_from) else { return Ok(()) };
        let start = first.start().0;
        let window = published.view.window;
        if let (Window::Slide { .. }, Some(AsOf::At(_))) = (window, self.as_of) {
            if self.from < start {
                let problem =
                    format!("the window begins before {first}, from when on the view has data (its retention)");
                return Err(invalid("as_of", problem));
            }
            return Ok(());
        }
        let grain = if self.grain == Grain::All { Grain::Window } else { self.grain };
        self.from = self.from.max(grain::next_boundary(window, grain, start));
        self.to = self.to.max(self.from);
        Ok(())
    }

    /// Start and end of the answer's windows: `ids` as merging gave them, `lasts` the last events of sessions. `None`: it
    /// has none.
    pub fn window_bounds(&self, view: &View, ids: &[i64], lasts: &[i64]) -> Vec<(Option<i64>, Option<i64>)> {
        match self.grain {
            Grain::Window => {
                let bounds = window_bounds(view, ids, lasts).into_iter();
                bounds.map(|(start, end)| ((view.window != Window::All).then_some(start), end)).collect()
            }
            Grain::Every(grid) => ids.iter().map(|id| (Some(*id), Some(grid.end_of(*id)))).collect(),
            Grain::All => vec![self.span(view.window); ids.len()],
        }
    }

    /// First start and last end of the view's windows in `from..to`; `None` where the query is open.
    pub fn span(&self, window: Window) -> (Option<i64>, Option<i64>) {
        if let (Window::Slide { .. }, Some(AsOf::At(_))) = (window, self.as_of) {
            return (Some(self.from), Some(self.to));
        }
        let next = |bound: i64| grain::next_boundary(window, Grain::Window, bound);
        let start = (self.from != i64::MIN).then(|| next(self.from));
        // The last window begins before `to`, so it ends where the first one not before `to` begins.
        let end = (self.to != i64::MAX).then(|| next(self.to));
        (start, end)
    }
}

/// The parameters as they came, each known and at most once.
struct Given<'a>(&'a [(String, String)]);

impl<'a> Given<'a> {
    fn new(parameters: &'a [(String, String)]) -> Result<Given<'a>, QueryError> {
        for (i, (name, _)) in parameters.iter().enumerate() {
            let Some(known) = PARAMETERS.iter().find(|known| *known == name) else {
                let hint = did_you_mean(name, PARAMETERS);
                return Err(QueryError::UnknownParameter { name: name.clone(), hint });
            };
            if parameters[..i].iter().any(|(before, _)| before == name) {
                return Err(invalid(known, "given twice"));
            }
        }
        Ok(Given(parameters))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn fingerprint(&self, view: &View) -> u64 {
        let mut text = view.name.to_string();
        for name in PARAMETERS.iter().filter(|name| !["cursor", "limit", "shape"].contains(name)) {
            if let Some(value) = self.get(name) {
                text.push_str(&format!("\n{name}={value}"));
            }
        }
        xxh3_64(text.as_bytes())
    }
}

fn invalid(parameter: &'static str, problem: impl Into<String>) -> QueryError {
    QueryError::Invalid { parameter, problem: problem.into() }
}

fn bounds(window: Window, grain: Grain, given: &Given<'_>) -> Result<(i64, i64), QueryError> {
    let mut bounds = (i64::MIN, i64::MAX);
    for (name, bound) in [("from", &mut bounds.0), ("to", &mut bounds.1)] {
        let Some(text) = given.get(name) else { continue };
        match window {
            Window::All => {
                return Err(invalid(name, "the view has one window over all time, so there is nothing to cut"));
            }
            Window::Slide { .. } => {
                let problem = format!("the view has one window of {}; choose where it ends with as_of", kind(window));
                return Err(invalid(name, problem));
            }
            _ => {}
        }
        let time = Micros::parse(text).ok_or_else(|| {
            invalid(name, format!("\"{text}\" is no time; write 2001-01-31, or 2001-01-31T06:00:00Z"))
        })?;
        *bound = if grain == Grain::All { time.0 } else { grain::next_boundary(window, grain, time.0) };
    }
    if bounds.0 > bounds.1 {
        return Err(invalid("from", "it is after to"));
    }
    Ok(bounds)
}

fn limit(given: &Given<'_>) -> Result<usize, QueryError> {
    let Some(text) = given.get("limit") else { return Ok(QUERY_ROWS_DEFAULT) };
    match text.parse() {
        Ok(limit) if (1..=QUERY_ROWS_MAX).contains(&limit) => Ok(limit),
        _ => Err(invalid("limit", format!("\"{text}\" is not a number from 1 to {QUERY_ROWS_MAX}"))),
    }
}

fn layer(given: &Given<'_>) -> Result<LayerChoice, QueryError> {
    match given.get("layer") {
        None | Some("merged") => Ok(LayerChoice::Merged),
        Some("batch") => Ok(LayerChoice::Batch),
        Some("speed") => Ok(LayerChoice::Speed),
        Some(other) => {
            let hint = did_you_mean(other, ["merged", "batch", "speed"]);
            Err(invalid("layer", format!("\"{other}\" is not merged, batch or speed{hint}")))
        }
    }
}

fn shape(given: &Given<'_>) -> Result<Shape, QueryError> {
    match given.get("shape") {
        None => Ok(Shape::Document),
        Some("rows") => Ok(Shape::Rows),
        Some(other) => Err(invalid("shape", format!("\"{other}\" is not rows"))),
    }
}
