//! Makes a stream and batches of it for the tests of the log and of the partition writer.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use shared::stream::Stream;

/// A stream with an id, an event time and a column of each width.
pub(crate) fn stream() -> Stream {
    Stream {
        watermark_delay: Duration::from_micros(5),
        allowed_lateness: Duration::from_micros(10),
        source: Default::default(),
        max_ahead: Duration::from_micros(1_000),
        max_age: None,
        entity: None,
        table: None,
        idle_timeout: Duration::from_secs(60),
        ..crate::testing::stream(
            "CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP, value BIGINT, text STRING, price DECIMAL(20, 2),
             ok BOOLEAN) WITH (event_time = 'at');",
        )
    }
}

/// A batch of the stream's declared columns from ids and event times; the other columns follow from them.
pub(crate) fn events(events: &[(Option<&str>, i64)]) -> RecordBatch {
    let long =
        |(_, at): &(Option<&str>, i64)| (at % 3 != 0).then(|| format!("a text that is not inlined, number {at}"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter(events.iter().map(|(id, _)| *id))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(|(_, at)| *at)).with_timezone("UTC")),
        Arc::new(Int64Array::from_iter(events.iter().map(|(_, at)| (at % 5 != 0).then_some(at * 7)))),
        Arc::new(StringViewArray::from_iter(events.iter().map(long))),
        Arc::new(
            Decimal128Array::from_iter_values(events.iter().map(|(_, at)| i128::from(*at) << 70 >> 10))
                .with_precision_and_scale(20, 2)
                .expect("a valid decimal type"),
        ),
        Arc::new(BooleanArray::from_iter(events.iter().map(|(_, at)| Some(at % 2 == 0)))),
    ];
    RecordBatch::try_new(stream().schema(), columns).expect("columns of the stream")
}

/// A batch of the log schema: [`events`] and, as watermark, `first` for the first row, one more for each further one.
pub(crate) fn rows(first: i64, of: &[(Option<&str>, i64)]) -> RecordBatch {
    let mut columns = events(of).columns().to_vec();
    let marks = first..first + of.len() as i64;
    columns.push(Arc::new(TimestampMicrosecondArray::from_iter_values(marks).with_timezone("UTC")));
    RecordBatch::try_new(stream().log_schema(), columns).expect("columns of the log")
}
