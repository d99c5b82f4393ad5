//! Lets a sink send its rows to a webhook the way it writes them to a topic: a transaction is a number of requests, sent one
//! after the other at the commit. The receiver keeps no marker of the epoch, so it is a file beside the book.
//!
//! Rows arrive in order and at least once: if a request fails, or the process ends, before the last one was accepted, the
//! rows of the epoch are sent again under another number, with what has changed meanwhile.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use alerts::book_file::replace_file;
use alerts::webhook::Webhook;
use async_trait::async_trait;
use bytes::Bytes;
use kafka::{OutgoingRecord, ReadUntil, TopicCluster, TopicError, TopicWriter, WriteError};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::clock::Clock;
use shared::ids::{SinkName, StreamName, ViewName};
use shared::limits::{SINK_REQUEST_BYTES_MAX, SINK_REQUEST_ROWS_MAX};

use crate::event_record::{OFFSET, PARTITION};
use crate::publisher::{EPOCHS_TOPIC, Marker};
use crate::record::{BOUNDS, KIND, LAYER, VERSION};

/// The body of a request.
#[derive(Debug, Serialize)]
struct Body<'a> {
    /// `sink.rows` or `sink.events`.
    r#type: &'static str,
    timestamp: String,
    data: Rows<'a>,
}

#[derive(Debug, Serialize)]
struct Rows<'a> {
    sink: &'a SinkName,
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<&'a ViewName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a StreamName>,
    epoch: u64,
    /// Of a sink of a view.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rows: Vec<Row<'a>>,
    /// Of a sink of a stream.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<Row<'a>>,
}

/// A row or an event as it is sent: what a record of a topic has in its key, value and headers.
#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a RawValue>,
    /// `null`: the view does not have the row any more.
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bounds: Option<&'a RawValue>,
}

/// Where the rows or events of a sink come from.
#[derive(Debug, Clone)]
pub enum WebhookSource {
    View(ViewName),
    Stream(StreamName),
}

/// What the writers of a sink share.
struct Target {
    sink: SinkName,
    source: WebhookSource,
    webhook: Webhook,
    client: reqwest::Client,
    /// The file of the marker.
    marker: PathBuf,
    clock: Arc<dyn Clock>,
}

/// The webhook of one sink, as a cluster.
pub struct WebhookCluster(Arc<Target>);

struct WebhookWriter {
    target: Arc<Target>,
    /// Records of the transaction in progress.
    records: Mutex<Vec<OutgoingRecord>>,
}

impl WebhookCluster {
    /// Returns the webhook of `sink`, whose marker is in the file `marker`.
    ///
    /// # Errors
    /// The system has no source of certificates for HTTPS.
    pub fn new(
        (sink, source): (SinkName, WebhookSource),
        webhook: Webhook,
        marker: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Result<WebhookCluster, reqwest::Error> {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(WebhookCluster(Arc::new(Target { sink, source, webhook, client, marker, clock })))
    }
}

#[async_trait]
impl TopicCluster for WebhookCluster {
    async fn partitions(&self, _: &str) -> Result<u32, TopicError> {
        Ok(1)
    }

    async fn create_compacted(&self, _: &str) -> Result<(), TopicError> {
        Ok(())
    }

    async fn latest(&self, _: &str, _: &[u8], _: ReadUntil) -> Result<Option<Bytes>, TopicError> {
        let target = Arc::clone(&self.0);
        let read = move || match std::fs::read(&target.marker) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(TopicError::Other(format!("{}: {error}", target.marker.display()))),
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| TopicError::Other(error.to_string()))?
    }

    async fn writer(&self, _: &str) -> Result<Box<dyn TopicWriter>, WriteError> {
        Ok(Box::new(WebhookWriter { target: Arc::clone(&self.0), records: Mutex::new(Vec::new()) }))
    }
}

#[async_trait]
impl TopicWriter for WebhookWriter {
    async fn write(&self, records: Vec<OutgoingRecord>) -> Result<(), WriteError> {
        *self.records.lock() = records;
        Ok(())
    }

    async fn commit(&self) -> Result<(), WriteError> {
        let records = std::mem::take(&mut *self.records.lock());
        self.target.deliver(&records).await.map_err(WriteError::NotAccepted)
    }

    async fn close(&self) {}
}

impl Target {
    /// Sends the rows, and notes the marker behind them.
    async fn deliver(self: &Arc<Self>, records: &[OutgoingRecord]) -> Result<(), String> {
        let (markers, rows): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.topic == EPOCHS_TOPIC);
        let value = markers.first().and_then(|marker| marker.value.clone()).unwrap_or_default();
        let marker: Marker = serde_json::from_slice(&value).map_err(|error| format!("the marker: {error}"))?;
        for (part, rows) in requests(&rows).enumerate() {
            let now = self.clock.now();
            let rows = rows.iter().map(|record| Row::of(record)).collect::<Result<_, _>>();
            let rows = rows.map_err(|error: serde_json::Error| error.to_string())?;
            let (sink, epoch) = (&self.sink, marker.epoch);
            let (r#type, data) = match &self.source {
                WebhookSource::View(view) => {
                    ("sink.rows", Rows { sink, view: Some(view), stream: None, epoch, rows, events: Vec::new() })
                }
                WebhookSource::Stream(stream) => {
                    let (events, rows) = (rows, Vec::new());
                    ("sink.events", Rows { sink, view: None, stream: Some(stream), epoch, rows, events })
                }
            };
            let body = Body { r#type, timestamp: now.to_string(), data };
            let body = serde_json::to_vec(&body).map_err(|error| error.to_string())?;
            // Epochs begin again with another book.
            let id = format!("{}-{}-{part}", marker.book, marker.epoch);
            self.webhook.post(&self.client, &id, body, now).await?;
        }
        let target = Arc::clone(self);
        let noted = tokio::task::spawn_blocking(move || replace_file(&target.marker, &value)).await;
        noted.map_err(|error| error.to_string())?.map_err(|error| format!("{}: {error}", self.marker.display()))
    }
}

impl<'a> Row<'a> {
    fn of(record: &'a OutgoingRecord) -> Result<Row<'a>, serde_json::Error> {
        let header =
            |wanted: &str| record.headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| &value[..]);
        let text = |wanted: &str| header(wanted).and_then(|value| std::str::from_utf8(value).ok());
        let json = |wanted: &str| header(wanted).map(serde_json::from_slice).transpose();
        Ok(Row {
            kind: text(KIND),
            partition: json(PARTITION)?,
            offset: json(OFFSET)?,
            key: record.key.as_deref().map(serde_json::from_slice).transpose()?,
            value: record.value.as_deref().map(serde_json::from_slice).transpose()?,
            layer: text(LAYER),
            version: json(VERSION)?,
            bounds: json(BOUNDS)?,
        })
    }
}

/// Divides records among requests.
fn requests<'a, 'b>(records: &'b [&'a OutgoingRecord]) -> impl Iterator<Item = &'b [&'a OutgoingRecord]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take(SINK_REQUEST_ROWS_MAX).take_while(|record| {
            bytes += record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
            bytes <= SINK_REQUEST_BYTES_MAX
        });
        let (request, left) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = left;
        (!request.is_empty()).then_some(request)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: usize) -> OutgoingRecord {
        let value = Some(Bytes::from(format!("\"{}\"", "x".repeat(bytes))));
        let headers = vec![(KIND, Bytes::from_static(b"upsert")), (VERSION, Bytes::from_static(b"7"))];
        OutgoingRecord { topic: "webhook:ops".to_owned(), key: Some(Bytes::from_static(b"{}")), value, headers }
    }

    #[test]
    fn requests_have_no_more_rows_and_bytes_than_the_limits_but_at_least_one_row() {
        let sizes = |records: &[OutgoingRecord]| -> Vec<usize> {
            let records: Vec<&OutgoingRecord> = records.iter().collect();
            requests(&records).map(<[_]>::len).collect()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        let many: Vec<_> = (0..2 * SINK_REQUEST_ROWS_MAX + 1).map(|_| record(1)).collect();
        assert_eq!(sizes(&many), [SINK_REQUEST_ROWS_MAX, SINK_REQUEST_ROWS_MAX, 1]);
        let (long, half) = (record(SINK_REQUEST_BYTES_MAX), record(SINK_REQUEST_BYTES_MAX / 2 - 10));
        assert_eq!(sizes(&[long, half.clone(), half.clone(), half]), [1, 2, 1]);
    }

    #[test]
    fn a_row_has_what_a_record_has() {
        let row = |record: &OutgoingRecord| serde_json::to_string(&Row::of(record).expect("JSON")).expect("plain data");
        assert_eq!(row(&record(1)), r#"{"kind":"upsert","key":{},"value":"x","version":7}"#);
        let headers = vec![(PARTITION, Bytes::from_static(b"1")), (OFFSET, Bytes::from_static(b"42"))];
        let event = OutgoingRecord { key: None, headers, ..record(1) };
        assert_eq!(row(&event), r#"{"partition":1,"offset":42,"value":"x"}"#);
        let deleted = OutgoingRecord { value: None, headers: vec![(KIND, Bytes::from_static(b"delete"))], ..record(0) };
        assert_eq!(row(&deleted), r#"{"kind":"delete","key":{},"value":null}"#);
    }
}
