//! Resolves the names of an expression: columns of a stream or a result, aggregates of a view, measures in HAVING.

use sqlparser::tokenizer::Span;

use super::error::SqlError;
use super::source::Source;
use super::suggest::did_you_mean;
use crate::column_name::same;
use crate::lookup::definition::{LookupJoin, joined_index};
use crate::scalar::Scalar;
use crate::stream::system_columns;
use crate::types::DataType;
use crate::view::{Aggregate, Measure, View};

/// The clause of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clause {
    /// Per event, or per row of a result: no aggregates.
    Rows(&'static str),
    /// An output column of a view: columns for dimensions, aggregates for measures.
    Select,
    /// Inside an aggregate.
    Argument,
    /// A condition on measures: their names and aggregates, no columns.
    Having,
    /// The condition of an alert: columns of a result, and functions of its measures.
    Alert,
}

/// A function of a measure that the condition of an alert can call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MeasureFunction {
    Lower,
    Upper,
    Previous,
}

/// The view of an alert and the place of its measures in the table of a condition ([`crate::alert`]).
#[derive(Debug, Clone, Copy)]
pub(super) struct AlertScope<'a> {
    pub(super) view: &'a View,
    pub(super) first_measure: usize,
}

/// The names that an expression can use, and those it uses.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) clause: Clause,
    /// The aggregates that the expression names, each once.
    pub(super) aggregates: Vec<Aggregate>,
    /// First column named outside of an aggregate.
    pub(super) free_column: Option<(String, Span)>,
    /// First aggregate that gives JSON, which no expression can take.
    pub(super) json: Option<Span>,
    /// Index of the column `_retracted`, if the columns are a table's. No expression can name it.
    pub(super) retracted: Option<usize>,
    /// The measures that HAVING can name.
    measures: &'a [Measure],
    columns: &'a [(String, DataType)],
    owner: Option<&'a str>,
    joins: &'a [LookupJoin],
    alert: Option<AlertScope<'a>>,
}

impl<'a> Scope<'a> {
    /// `owner` is the stream's name, if the columns are a stream's.
    pub(super) fn new(clause: Clause, columns: &'a [(String, DataType)], owner: Option<&'a str>) -> Scope<'a> {
        Scope {
            clause,
            aggregates: Vec::new(),
            free_column: None,
            json: None,
            retracted: None,
            measures: &[],
            columns,
            owner,
            joins: &[],
            alert: None,
        }
    }

    /// Adds the measures that HAVING can name.
    pub(super) fn with_measures(self, measures: &'a [Measure]) -> Scope<'a> {
        Scope { measures, ..self }
    }

    /// Sets the index of the column `_retracted`, if the columns are a table's.
    pub(super) fn over_rows(self, retracted: Option<usize>) -> Scope<'a> {
        Scope { retracted, ..self }
    }

    /// Adds the columns of joined tables.
    pub(super) fn with_joins(self, joins: &'a [LookupJoin]) -> Scope<'a> {
        Scope { joins, ..self }
    }

    /// The scope of the condition of an alert; `columns` are those of a result, without bounds and previous values.
    pub(super) fn of_alert(alert: AlertScope<'a>, columns: &'a [(String, DataType)]) -> Scope<'a> {
        Scope { alert: Some(alert), ..Scope::new(Clause::Alert, columns, None) }
    }

    /// Finds the column that a function of a measure reads; `None`: no measure of the alert's view has this name, or `lower`
    /// and `upper` are those of texts.
    pub(super) fn measure_function(&self, function: MeasureFunction, name: &str) -> Option<Scalar> {
        let AlertScope { view, first_measure } = self.alert?;
        let measure = view.measure(name)?;
        let data_type = view.measures[measure].expression.data_type;
        if data_type == DataType::Json || (data_type == DataType::String && function != MeasureFunction::Previous) {
            return None;
        }
        let block = match function {
            MeasureFunction::Lower => 1,
            MeasureFunction::Upper => 2,
            MeasureFunction::Previous => 3,
        };
        Some(Scalar::column(first_measure + block * view.measures.len() + measure, data_type))
    }

    /// Returns the alert's view.
    pub(super) fn alert_view(&self) -> Option<&'a View> {
        self.alert.map(|alert| alert.view)
    }

    /// Returns whether columns can have this name before the point.
    pub(super) fn has_owner(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.owner == Some(name.as_str()) || self.joins.iter().any(|join| join.alias == name)
    }

    /// The stream and tables whose columns the expression can name, in words.
    pub(super) fn owners(&self) -> Option<String> {
        let names = self.owner.into_iter().chain(self.joins.iter().map(|join| join.alias.as_str()));
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        (!names.is_empty()).then(|| format!("columns are those of {}", names.join(", ")))
    }

    /// Finds the expression of a measure, over the view's aggregates.
    pub(super) fn measure(&self, source: &Source, name: &str, span: Span) -> Result<&'a Scalar, SqlError> {
        match self.measures.iter().find(|measure| same(&measure.name, name)) {
            Some(measure) if measure.expression.data_type == DataType::Json => Err(is_json(source, name, span)),
            Some(measure) => Ok(&measure.expression),
            None => Err(self.no_measure(source, name, span)),
        }
    }

    fn no_measure(&self, source: &Source, name: &str, span: Span) -> SqlError {
        if is_window_column(name) {
            let error = source.error(span, format!("HAVING is about measures, `{name}` is none"));
            return error.help("choose times with `from` and `to` of a query");
        }
        if self.columns.iter().any(|(column, _)| same(column, name)) {
            let error = source.error(span, format!("HAVING is about measures, `{name}` is a column"));
            return error.help(format!("put a condition on it into WHERE, or aggregate it, such as MAX({name})"));
        }
        let error = source.error(span, format!("unknown measure `{name}`"));
        let names = self.measures.iter().map(|measure| measure.name.as_str());
        let listed = || format!("the measures are {}", names.clone().collect::<Vec<_>>().join(", "));
        error.help(did_you_mean(name, names.clone()).unwrap_or_else(listed))
    }

    /// Finds a column. Errors name the nearest one.
    pub(super) fn column(&mut self, source: &Source, name: &str, span: Span) -> Result<Scalar, SqlError> {
        self.column_of(source, None, name, span)
    }

    /// Finds a column of the stream or table that `owner` names; `None`: of any of them.
    pub(super) fn column_of(
        &mut self,
        source: &Source,
        owner: Option<&str>,
        name: &str,
        span: Span,
    ) -> Result<Scalar, SqlError> {
        if self.clause == Clause::Having {
            return Err(self.no_measure(source, name, span));
        }
        let owner = owner.map(str::to_lowercase);
        let is_meant = |known: Option<&str>| owner.is_none() || owner.as_deref() == known;
        let own = self.columns.iter().enumerate().filter(|_| is_meant(self.owner));
        let own = own.filter(|(index, _)| self.is_visible(*index));
        let joined = self.joins.iter().enumerate().filter(|(_, join)| is_meant(Some(&join.alias)));
        let joined = joined.flat_map(|(number, join)| {
            let columns = join.table.columns.iter().enumerate();
            columns.map(move |(index, column)| (joined_index(number, index), column))
        });
        let mut found = own.clone().chain(joined.clone()).filter(|(_, (column, _))| same(column, name));
        let Some((index, (_, data_type))) = found.next() else {
            if let Some(view) = self.alert_view().filter(|_| is_window_column(name)) {
                return Err(source.error(span, format!("the view `{}` has no windows", view.name)));
            }
            if is_window_column(name) {
                let error = source.error(span, format!("`{name}` can only be a column of its own in SELECT"));
                return Err(error.help(match self.owner {
                    Some(_) => "and it needs a window, such as GROUP BY TUMBLE(..)",
                    None => "choose times with `from` and `to`",
                }));
            }
            let error = source.error(span, format!("unknown column `{name}`"));
            let names = own.chain(joined).map(|(_, (column, _))| column.as_str());
            return Err(error.maybe_help(did_you_mean(name, names.clone()).or_else(|| listed(names))));
        };
        if found.next().is_some() {
            let error = source.error(span, format!("several columns are called `{name}`"));
            return Err(error.help("write the name of its stream or table before it, such as `t.id`"));
        }
        let data_type = *data_type;
        if self.clause != Clause::Argument && self.free_column.is_none() {
            self.free_column = Some((name.to_owned(), span));
        }
        match data_type {
            DataType::Json => Err(is_json(source, name, span)),
            data_type => Ok(Scalar::column(index, data_type)),
        }
    }

    /// Whether expressions can name the column: the assertion and the retraction of one row have different offsets.
    fn is_visible(&self, index: usize) -> bool {
        let is_hidden = |name: &str| [system_columns::RETRACTED, system_columns::SOURCE_OFFSET].contains(&name);
        self.retracted.is_none() || !is_hidden(&self.columns[index].0)
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

/// Returns whether this is the name of a window's bound.
pub(super) fn is_window_column(name: &str) -> bool {
    same(name, "window_start") || same(name, "window_end")
}

fn is_json(source: &Source, name: &str, span: Span) -> SqlError {
    source.error(span, format!("`{name}` is JSON, which cannot be compared or computed with"))
}

/// All names, if they are few enough to read.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    match names.len() {
        1..=12 => Some(format!("the columns are {}", names.join(", "))),
        _ => None,
    }
}
