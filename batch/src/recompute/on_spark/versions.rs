//! Writes the versions of the rows of a table as Parquet into the exchange of a run, for Spark to join events with.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use bytes::Bytes;
use lake::Exchange;
use lake::encode::encode;
use shared::lookup::join::LookupError;
use shared::lookup::table::{LookupTable, Lookups, VersionSpans};
use spark::VersionTable;
use tokio::sync::mpsc;

use crate::blocking::blocking;
use crate::failure::RunFailure;

/// Versions of a file.
const FILE_VERSIONS: usize = 256 * 1024;

/// Writes the versions that events may see, and returns the URLs of the files; there is none if no event sees any.
pub async fn write(exchange: &Exchange, lookups: &Lookups, versions: &VersionTable) -> Result<Vec<String>, RunFailure> {
    let table = lookups.get(&versions.table).ok_or_else(|| LookupError::NoTable(versions.table.clone()))?;
    let (table, of) = (Arc::clone(table), versions.clone());
    let (sender, files) = mpsc::channel(1);
    let encoding = blocking(move || encode_all(&table, &of, &sender));
    let (encoded, urls) = tokio::join!(encoding, write_all(exchange, &versions.name, files));
    let urls = urls?;
    encoded?;
    Ok(urls)
}

/// Writes files as they come. If one cannot be written, the encoding thread notices that its files have no reader.
async fn write_all(
    exchange: &Exchange,
    folder: &str,
    mut files: mpsc::Receiver<Bytes>,
) -> Result<Vec<String>, RunFailure> {
    let mut urls = Vec::new();
    while let Some(file) = files.recv().await {
        let path = format!("{folder}/{}.parquet", urls.len());
        exchange.write(&path, file).await?;
        urls.push(exchange.url_of(&path));
    }
    Ok(urls)
}

/// Encodes all versions of a table, a file at a time. Blocking.
fn encode_all(table: &LookupTable, of: &VersionTable, files: &mpsc::Sender<Bytes>) -> Result<(), RunFailure> {
    let columns: Vec<&str> = of.columns.iter().map(|column| column.of.as_str()).collect();
    table.for_each_span(&columns, FILE_VERSIONS, &mut |spans| {
        let rows = rows(of, spans)?;
        let file = encode(rows.schema(), &[rows])?;
        files.blocking_send(file.bytes).map_err(|_| RunFailure::Cancelled)
    })
}

/// Returns versions with the columns of the table that Spark reads.
fn rows(of: &VersionTable, spans: VersionSpans) -> Result<RecordBatch, ArrowError> {
    let VersionSpans { keys, first, last, columns } = spans;
    let mut named: Vec<(&str, ArrayRef)> = vec![
        (spark::KEY, keys),
        (spark::FIRST, Arc::new(Int64Array::from(first))),
        (spark::LAST, Arc::new(Int64Array::from(last))),
    ];
    named.extend(of.columns.iter().map(|column| column.name.as_str()).zip(columns));
    let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema = Schema::new(named.iter().map(field).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), named.into_iter().map(|(_, column)| column).collect())
}
