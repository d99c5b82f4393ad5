//! Tests the dialect with whole texts: definitions of valid ones, messages of wrong ones.

mod bad;
mod documents;
mod good;
mod hostile;

use super::{Definitions, SqlError, parse_definitions};

/// A stream that most tests read.
const FLIGHTS: &str = "CREATE STREAM flights (
  flight_id STRING PRIMARY KEY, scheduled_at TIMESTAMP NOT NULL, flown_on DATE, origin STRING, destination STRING,
  delay_min BIGINT, seats INT, distance DOUBLE, price DECIMAL(10,2), cancelled BOOLEAN
) WITH (event_time = 'scheduled_at');\n";

fn parse(text: &str) -> Result<Definitions, Vec<SqlError>> {
    parse_definitions(&[("flights.sql".to_owned(), FLIGHTS.to_owned()), ("t.sql".to_owned(), text.to_owned())])
}
