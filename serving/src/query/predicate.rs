//! Which groups does `where` keep? One BOOLEAN expression over the view's dimensions, read by the dialect's own parser.

use shared::scalar::Scalar;
use shared::sql::parse_predicate;
use shared::types::DataType;
use shared::view::View;

use super::QueryError;

/// Reads `where`. Over measures or windows it would be a different question (after merging), which is said so.
pub fn parse(view: &View, text: &str) -> Result<Scalar, QueryError> {
    let mut columns: Vec<(String, DataType)> =
        view.dimensions.iter().map(|d| (d.name.clone(), d.expression.data_type)).collect();
    let error = match parse_predicate(text, &columns) {
        Ok(predicate) => return Ok(predicate),
        Err(error) => error,
    };
    columns.extend(view.measures.iter().map(|m| (m.name.clone(), m.expression.data_type)));
    columns.extend(["window_start", "window_end"].map(|name| (name.to_owned(), DataType::Timestamp)));
    if parse_predicate(text, &columns).is_ok() {
        let what = "where over measures or windows (use it over dimensions, and from and to for windows)";
        return Err(QueryError::NotSupported(what.into()));
    }
    let hint = error.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
    let message = format!("{}{hint}", error.message());
    Err(QueryError::Predicate { message, line: error.line(), column: error.column() })
}
