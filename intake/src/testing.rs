//! Makes streams for the tests of this crate.

use shared::stream::Stream;

/// The stream that `sql` declares.
///
/// # Panics
/// If `sql` is not one valid `CREATE STREAM`.
pub(crate) fn stream(sql: &str) -> Stream {
    let parsed = shared::sql::parse_definitions(&[("test.sql".to_owned(), sql.to_owned())]);
    parsed.unwrap_or_else(|errors| panic!("{}", errors[0])).streams.remove(0)
}
