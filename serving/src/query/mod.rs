//! Parses the parameters of `/rows` into a [`Query`], checked against the view before anything is read.
//!
//! `from` and `to` bound the `window_start` of the rows, half open. With a coarser grain they move up to the grain's next
//! boundary, so that every row is complete. With `grain=all` they bound the view's own windows. A view with SLIDE has one
//! window, which ends at the instant of `as_of`.
//!
//! [`grain`] parses grains, [`as_of`] instants, [`version_choice`] the batch version of the past that is asked for,
//! [`names`] lists of names, [`predicate`] the `where`, [`cursor`] the start of the next page. [`bound`] binds the query
//! to the state that answers it.

pub mod as_of;
pub mod bound;
pub mod cursor;
mod grain;
mod names;
mod predicate;
#[cfg(test)]
mod tests;
pub mod version_choice;

use shared::limits::{QUERY_ROWS_DEFAULT, QUERY_ROWS_MAX};
use shared::partial::merge::Grain;
use shared::scalar::Scalar;
use shared::time::Micros;
use shared::view::View;
use shared::window::Window;
use xxhash_rust::xxh3::xxh3_64;

use self::as_of::AsOf;
use self::cursor::Cursor;
use crate::window_text::kind;
use shared::sql::suggest::in_parentheses as did_you_mean;

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
    #[error("not supported: {0}")]
    NotSupported(String),
    #[error("where: {message}")]
    Predicate { message: String, line: usize, column: usize },
    #[error("the row filter of the key cannot be applied to this view: {0}")]
    RowFilter(String),
}

/// Which layers contribute to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerChoice {
    #[default]
    Merged,
    Batch,
    Speed,
}

/// The shape of a JSON response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// One object with the rows and their metadata.
    #[default]
    Document,
    /// The bare array of rows.
    Rows,
}

/// The column to order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderBy {
    WindowStart,
    WindowEnd,
    /// Index into the view's dimensions; one of those the query groups by.
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

/// What a client asks of a view; every name and value is valid there.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Ids of the view's windows in `from..to`, in microseconds; `i64::MIN` and `i64::MAX` where the query is open.
    pub from: i64,
    pub to: i64,
    /// The instant at which the window of SLIDE ends; `None` for all other views.
    pub as_of: Option<AsOf>,
    /// Over the view's dimensions: the groups that the principal may read.
    pub permitted: Option<Scalar>,
    /// Over the view's dimensions: the groups to merge.
    pub filter: Option<Scalar>,
    /// Over the view's dimensions, and after them its measures: the rows to return.
    pub row_filter: Option<Scalar>,
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
    pub shape: Shape,
    /// True if the client named a version by its number.
    pub names_version: bool,
    /// Hash of all parameters but `cursor`, `limit` and `shape`: a cursor is valid for one fingerprint.
    pub fingerprint: u64,
}

impl Query {
    /// Parses the parameters of a query on `view`. Only groups that meet `permitted`, the row filter of the principal, are
    /// merged.
    pub fn parse(view: &View, parameters: &[(String, String)], permitted: Option<&str>) -> Result<Query, QueryError> {
        let given = Parameters::new(parameters)?;
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
            None => match view.window {
                Window::Slide { .. } => Grain::All,
                Window::TableSession { .. } => Grain::Sessions,
                _ => Grain::Window,
            },
        };
        let (from, to) = bounds(view.window, grain, &given)?;
        let fingerprint = given.fingerprint(view, permitted);
        let cursor = match given.get("cursor") {
            Some(text) => Some(Cursor::parse(text, fingerprint)?),
            None => None,
        };
        let as_of = as_of::parse(view.window, given.get("as_of"), cursor)?;
        let filter = given.get("where").map(|text| predicate::parse(view, &dimensions, text)).transpose()?;
        let filter = filter.unwrap_or_default();
        let permitted = permitted.map(|text| predicate::row_filter(view, text)).transpose()?;
        Ok(Query {
            from,
            to,
            as_of,
            permitted,
            filter: filter.groups,
            row_filter: filter.rows,
            dimensions,
            grain,
            measures,
            order,
            limit: limit(&given)?,
            cursor,
            layer: layer(&given)?,
            shape: shape(&given)?,
            names_version: given.get("version").is_some(),
            fingerprint,
        })
    }
}

/// The parameters as the client sent them, each known and present at most once.
struct Parameters<'a>(&'a [(String, String)]);

impl<'a> Parameters<'a> {
    fn new(parameters: &'a [(String, String)]) -> Result<Parameters<'a>, QueryError> {
        for (i, (name, _)) in parameters.iter().enumerate() {
            let Some(known) = PARAMETERS.iter().find(|known| *known == name) else {
                let hint = did_you_mean(name, PARAMETERS);
                return Err(QueryError::UnknownParameter { name: name.clone(), hint });
            };
            if parameters[..i].iter().any(|(before, _)| before == name) {
                return Err(invalid(known, "must be given only once"));
            }
        }
        Ok(Parameters(parameters))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn fingerprint(&self, view: &View, permitted: Option<&str>) -> u64 {
        // What one principal may read is never sent to another one from a cache.
        let mut text = format!("{}\n{permitted:?}", view.name);
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

fn bounds(window: Window, grain: Grain, given: &Parameters<'_>) -> Result<(i64, i64), QueryError> {
    let mut bounds = (i64::MIN, i64::MAX);
    for (name, bound) in [("from", &mut bounds.0), ("to", &mut bounds.1)] {
        let Some(text) = given.get(name) else { continue };
        match window {
            Window::All => {
                return Err(invalid(name, "the view has one window over all time; leave it out"));
            }
            Window::Slide { .. } => {
                let problem = format!("the view has one window of {}; choose its end with as_of", kind(window));
                return Err(invalid(name, problem));
            }
            _ => {}
        }
        let time = Micros::parse(text).ok_or_else(|| {
            invalid(name, format!("\"{text}\" is not a time; use 2001-01-31 or 2001-01-31T06:00:00Z"))
        })?;
        *bound = if grain == Grain::All { time.0 } else { grain::next_boundary(window, grain, time.0) };
    }
    if bounds.0 > bounds.1 {
        return Err(invalid("from", "is after to"));
    }
    Ok(bounds)
}

fn limit(given: &Parameters<'_>) -> Result<usize, QueryError> {
    let Some(text) = given.get("limit") else { return Ok(QUERY_ROWS_DEFAULT) };
    match text.parse() {
        Ok(limit) if (1..=QUERY_ROWS_MAX).contains(&limit) => Ok(limit),
        _ => Err(invalid("limit", format!("\"{text}\" is not a number from 1 to {QUERY_ROWS_MAX}"))),
    }
}

fn layer(given: &Parameters<'_>) -> Result<LayerChoice, QueryError> {
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

fn shape(given: &Parameters<'_>) -> Result<Shape, QueryError> {
    match given.get("shape") {
        None => Ok(Shape::Document),
        Some("rows") => Ok(Shape::Rows),
        Some(other) => Err(invalid("shape", format!("\"{other}\" is not rows"))),
    }
}
