//! Makes columns of the events of a test: rows of the log and of the archive, and what a fold makes of them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use shared::evaluate::evaluate;
use shared::partial::accumulate::{Accumulator, EvaluatedBatch, selected_rows};
use shared::partial::batch_keys::BatchKeys;
use shared::partial::block::Part;
use shared::partial::keys::KeyLayout;
use shared::partial::states::{EventPositions, Offsets};
use shared::stream::Stream;
use shared::time::Micros;
use shared::view::{Precision, View};
use shared::window::PaneStart;

use super::world::{Event, HOUR, LoggedEvent};

fn stream_columns(events: &[Event]) -> Vec<ArrayRef> {
    let decimals = |column: Decimal128Array, precision: u8| -> ArrayRef {
        Arc::new(column.with_precision_and_scale(precision, 2).expect("fits"))
    };
    vec![
        Arc::new(events.iter().map(|e| e.id.as_deref()).collect::<StringViewArray>()),
        Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(|e| e.at)).with_timezone("UTC")),
        Arc::new(events.iter().map(|e| e.origin).collect::<StringViewArray>()),
        Arc::new(events.iter().map(|e| e.delay).collect::<Int64Array>()),
        Arc::new(events.iter().map(|e| e.seats).collect::<Int32Array>()),
        Arc::new(events.iter().map(|e| e.fare).collect::<Float64Array>()),
        decimals(events.iter().map(|e| e.price).collect(), 38),
        decimals(events.iter().map(|e| e.tax).collect(), 9),
        Arc::new(events.iter().map(|e| e.ok).collect::<BooleanArray>()),
    ]
}

pub fn archive_rows(stream: &Stream, partition: usize, events: &[(u64, Event)]) -> RecordBatch {
    let plain: Vec<Event> = events.iter().map(|(_, e)| e.clone()).collect();
    let mut columns = stream_columns(&plain);
    let arrived = vec![1_000 * HOUR; events.len()];
    columns.push(Arc::new(Int32Array::from(vec![partition as i32; events.len()])));
    columns.push(Arc::new(Int64Array::from_iter_values(events.iter().map(|(o, _)| *o as i64))));
    columns.push(Arc::new(TimestampMicrosecondArray::from(arrived).with_timezone("UTC")));
    let watermarks: TimestampMicrosecondArray = plain.iter().map(|e| e.watermark).collect();
    columns.push(Arc::new(watermarks.with_timezone("UTC")));
    RecordBatch::try_new(stream.archive_schema(), columns).expect("rows of the archive")
}

/// What the speed layer makes of events, lateness aside.
pub fn fold(stream: &Stream, view: &Arc<View>, logged: Vec<LoggedEvent>) -> Part {
    let partitions: Vec<i64> = logged.iter().map(|logged| logged.partition as i64).collect();
    let offsets: Vec<i64> = logged.iter().map(|logged| logged.offset as i64).collect();
    let events: Vec<Event> = logged.into_iter().map(|logged| logged.event).collect();
    let layout = KeyLayout::new(view.dimensions.iter().map(|d| d.expression.data_type).collect()).expect("a layout");
    let layout = Arc::new(layout);
    let mut accumulator = Accumulator::new(Arc::clone(view), Arc::clone(&layout), Precision::Sketch);
    let batch = RecordBatch::try_new(stream.schema(), stream_columns(&events)).expect("rows of the stream");
    let value = |scalar: &shared::scalar::Scalar| evaluate(&[scalar], &batch).expect("evaluates").remove(0);
    let mask = |scalar: &shared::scalar::Scalar| BooleanArray::from(value(scalar).to_data());
    let dimensions: Vec<ArrayRef> = view.dimensions.iter().map(|d| value(&d.expression)).collect();
    let keys = BatchKeys::new(&layout, &dimensions).expect("encodes");
    let times: Vec<i64> = events.iter().map(|e| e.at).collect();
    let panes: Vec<PaneStart> = times.iter().map(|time| view.window.pane_of(Micros(*time))).collect();
    let filter = view.filter.as_ref().map(mask);
    accumulator.fold(&EvaluatedBatch {
        panes: &panes,
        places: EventPositions {
            times: &times,
            offsets: Offsets::Listed { partitions: &partitions, offsets: &offsets },
        },
        keys: &keys,
        arguments: &view.aggregates.iter().map(|a| a.argument.as_ref().map(value)).collect::<Vec<_>>(),
        masks: &view.aggregates.iter().map(|a| a.filter.as_ref().map(mask)).collect::<Vec<_>>(),
        rows: &selected_rows(events.len(), filter.as_ref()),
    });
    accumulator.part()
}
