//! Which names may an expression use here? Columns of a stream or an answer, and aggregates where a view shows measures.

use sqlparser::tokenizer::Span;

use super::error::SqlError;
use super::source::Source;
use super::suggest::did_you_mean;
use crate::scalar::Scalar;
use crate::types::DataType;
use crate::view::Aggregate;

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Per event, or per row of an answer: no aggregates.
    Rows(&'static str),
    /// An output column of a view: columns for dimensions, aggregates for measures.
    Select,
    /// Inside an aggregate.
    Argument,
}

/// The names in reach, and what was used of them.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) place: Place,
    /// Aggregates that were named, each once.
    pub(super) aggregates: Vec<Aggregate>,
    /// First column named outside of an aggregate.
    pub(super) free_column: Option<(String, Span)>,
    columns: &'a [(String, DataType)],
    owner: Option<&'a str>,
}

impl<'a> Scope<'a> {
    /// `owner` is the stream's name, if the columns are a stream's.
    pub(super) fn new(place: Place, columns: &'a [(String, DataType)], owner: Option<&'a str>) -> Scope<'a> {
        Scope { place, aggregates: Vec::new(), free_column: None, columns, owner }
    }

    pub(super) fn owner(&self) -> Option<&'a str> {
        self.owner
    }

    /// Finds a column. Errors name the nearest one.
    pub(super) fn column(&mut self, source: &Source, name: &str, span: Span) -> Result<Scalar, SqlError> {
        let Some(index) = self.columns.iter().position(|(column, _)| column == name) else {
            if name == "window_start" || name == "window_end" {
                let error = source.error(span, format!("`{name}` can only be a column of its own in SELECT"));
                return Err(error.maybe_help(self.owner.map(|_| "and it needs GROUP BY TUMBLE(..)".to_owned())));
            }
            let error = source.error(span, format!("unknown column `{name}`"));
            let names = self.columns.iter().map(|(column, _)| column.as_str());
            return Err(error.maybe_help(did_you_mean(name, names.clone()).or_else(|| listed(names))));
        };
        if self.place != Place::Argument && self.free_column.is_none() {
            self.free_column = Some((name.to_owned(), span));
        }
        Ok(Scalar::column(index, self.columns[index].1))
    }

    /// The index of an aggregate, added if it is new.
    pub(super) fn aggregate(&mut self, aggregate: Aggregate) -> usize {
        match self.aggregates.iter().position(|known| *known == aggregate) {
            Some(index) => index,
            None => {
                self.aggregates.push(aggregate);
                self.aggregates.len() - 1
            }
        }
    }
}

/// All names, if they are few enough to read.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    match names.len() {
        1..=12 => Some(format!("the columns are {}", names.join(", "))),
        _ => None,
    }
}
