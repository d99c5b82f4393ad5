//! Parses `where`: one BOOLEAN expression of the dialect over the view's dimensions and measures.

use shared::scalar::Scalar;
use shared::sql::{QueryFilter, SqlError, parse_predicate, parse_query_filter};
use shared::types::DataType;
use shared::view::View;

use super::{QueryError, invalid};

/// Parses `where`. Conditions over dimensions filter the groups to merge; those that name a measure filter the rows of the
/// result, so the dimensions they name must be in `grouped`.
pub fn parse(view: &View, grouped: &[usize], text: &str) -> Result<QueryFilter, QueryError> {
    let named = |name: &String, data_type: DataType| (name.clone(), data_type);
    let dimensions: Vec<_> = view.dimensions.iter().map(|d| named(&d.name, d.expression.data_type)).collect();
    let measures: Vec<_> = view.measures.iter().map(|m| named(&m.name, m.expression.data_type)).collect();
    let filter = parse_query_filter(text, &dimensions, &measures)
        .map_err(|error| windows_not_supported(text, &dimensions, &measures).unwrap_or_else(|| refusal(&error)))?;
    let mut missing = None;
    if let Some(rows) = &filter.rows {
        rows.for_each_column(&mut |column| {
            if column < dimensions.len() && !grouped.contains(&column) {
                missing = Some(column);
            }
        });
    }
    match missing {
        None => Ok(filter),
        Some(dimension) => {
            let name = &dimensions[dimension].0;
            let problem = format!(
                "\"{name}\" is compared together with a measure, so it must be in group_by; \
                 put conditions over dimensions alone into an AND of their own"
            );
            Err(invalid("where", problem))
        }
    }
}

/// Parses the row filter of a principal: a condition over the view's dimensions alone.
pub fn row_filter(view: &View, text: &str) -> Result<Scalar, QueryError> {
    let dimensions: Vec<_> = view.dimensions.iter().map(|d| (d.name.clone(), d.expression.data_type)).collect();
    parse_predicate(text, &dimensions).map_err(|error| QueryError::RowFilter(error.message().to_owned()))
}

type Columns = [(String, DataType)];

/// The error for an expression that would be valid if `window_start` and `window_end` were columns.
fn windows_not_supported(text: &str, dimensions: &Columns, measures: &Columns) -> Option<QueryError> {
    let bounds = ["window_start", "window_end"].map(|name| (name.to_owned(), DataType::Timestamp));
    let columns: Vec<_> = dimensions.iter().chain(measures).chain(&bounds).cloned().collect();
    let what = "where over windows; use from and to";
    parse_predicate(text, &columns).is_ok().then(|| QueryError::NotSupported(what.into()))
}

fn refusal(error: &SqlError) -> QueryError {
    let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
    let message = format!("{}{hint}", error.message());
    QueryError::Predicate { message, line: error.line(), column: error.column() }
}
