//! What does `where` keep? One BOOLEAN expression over the view's dimensions and measures, read by the dialect's own parser.

use shared::sql::{QueryFilter, SqlError, parse_predicate, parse_query_filter};
use shared::types::DataType;
use shared::view::View;

use super::{QueryError, invalid};

/// Reads `where`. Conditions over dimensions choose what is taken in; those that name a measure choose among the rows of
/// the answer, so that the dimensions they name must be `grouped` by.
pub fn parse(view: &View, grouped: &[usize], text: &str) -> Result<QueryFilter, QueryError> {
    let named = |name: &String, data_type: DataType| (name.clone(), data_type);
    let dimensions: Vec<_> = view.dimensions.iter().map(|d| named(&d.name, d.expression.data_type)).collect();
    let measures: Vec<_> = view.measures.iter().map(|m| named(&m.name, m.expression.data_type)).collect();
    let filter = parse_query_filter(text, &dimensions, &measures)
        .map_err(|error| windows_named(text, &dimensions, &measures).unwrap_or_else(|| refusal(&error)))?;
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
                "\"{name}\" stands beside a measure, so it chooses among the rows of the answer, and it is not in group_by; \
                 join conditions over dimensions alone with AND"
            );
            Err(invalid("where", problem))
        }
    }
}

type Columns = [(String, DataType)];

/// The refusal of a text that would do if the bounds of windows were columns.
fn windows_named(text: &str, dimensions: &Columns, measures: &Columns) -> Option<QueryError> {
    let bounds = ["window_start", "window_end"].map(|name| (name.to_owned(), DataType::Timestamp));
    let columns: Vec<_> = dimensions.iter().chain(measures).chain(&bounds).cloned().collect();
    let what = "where over windows (use from and to)";
    parse_predicate(text, &columns).is_ok().then(|| QueryError::NotSupported(what.into()))
}

fn refusal(error: &SqlError) -> QueryError {
    let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
    let message = format!("{}{hint}", error.message());
    QueryError::Predicate { message, line: error.line(), column: error.column() }
}
