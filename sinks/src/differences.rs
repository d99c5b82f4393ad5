//! Compares rows of a view with those that the topic has, and returns the records that make both equal.

use std::collections::HashSet;
use std::sync::Arc;

use alerts::affected::AffectedRows;
use alerts::fetch::{Fetch, RowReader};
use kafka::OutgoingRecord;
use shared::changed_rows::ChangedRow;
use shared::horizon::Horizon;
use shared::limits::SINK_ROWS_MAX;
use shared::sink::{Emit, Sink, SinkFormat};
use shared::time::Micros;
use shared::window::{Window, WindowId};

use crate::avro::AvroRows;
use crate::book::{EpochCut, SinkBook};
use crate::record::{RecordWriter, RowValues};
use crate::sent::{SentChange, ValueHash};
use crate::sessions::{OpenRow, OpenSessions, sent_rows};
use crate::view_changes::ChangesError;

/// What an epoch writes.
#[derive(Debug, Default)]
pub struct EpochBatch {
    /// Their keys and values are JSON.
    pub records: Vec<OutgoingRecord>,
    /// The keys and values of the records, of a sink that writes Avro.
    pub avro: Option<AvroRows>,
    /// What the topic has after it.
    pub changes: Vec<SentChange>,
    pub cut: EpochCut,
    /// Whether the rows have further differences, which had no room; of a sink of a stream, whether it has further events.
    pub is_partial: bool,
    /// With `emit = 'final'`: sessions that the watermark has not passed yet.
    pub open: Vec<OpenRow>,
    /// Of a sink of a stream: how often events were asked for again when the batch was found ([`SinkBook::position`]).
    pub restarts: Option<u64>,
}

/// What bounds the rows of an epoch.
#[derive(Debug, Clone, Copy)]
pub struct EpochBounds {
    /// Most bytes of records, but for one longer record.
    pub bytes_max: usize,
    /// Of final rows: windows that end at this time or before are closed; `None`: no window is.
    pub closed_until: Option<Micros>,
    /// The time of the epoch.
    pub now: Micros,
}

/// A row whose value the topic does not have.
struct Difference {
    place: ChangedRow,
    row: usize,
    value: bytes::Bytes,
    hash: ValueHash,
    /// What the topic has.
    sent: Option<ValueHash>,
}

/// Returns the records that make the topic equal to the view in the affected rows, within `bounds`. Blocking.
///
/// # Errors
/// The rows cannot be merged, or the topic would have more rows than a sink remembers.
pub fn differences(
    sink: &Sink,
    reader: &RowReader,
    book: &SinkBook,
    fetch: Fetch,
    affected: &AffectedRows,
    bounds: EpochBounds,
) -> Result<EpochBatch, ChangesError> {
    let published = Arc::clone(&fetch.published);
    let view = &*published.view;
    let first_shown = Horizon::of(&published).first_shown();
    let is_dropped = |window: WindowId| first_shown.is_some_and(|first: Micros| view.window.bounds(window).0 < first);
    let rows = fetch.merge(reader)?;
    let values = RowValues::new(view, &rows)?;
    let merged = &rows.merged;
    // I9: the end of a session is known only now.
    let open_end = |row: usize| match view.window {
        Window::Session { gap } if sink.emit == Emit::Final => {
            let end = Micros(merged.lasts[row].saturating_add(gap));
            bounds.closed_until.is_none_or(|until| end > until).then_some(end)
        }
        _ => None,
    };
    let is_affected = |window: WindowId, key: &[u8]| {
        affected.has(window, key) && rows.known.as_ref().is_none_or(|known| known.contains(window))
    };
    let (mut found, mut present, mut bytes, mut is_partial) = (Vec::new(), HashSet::new(), 0, false);
    let mut open = OpenSessions::default();
    for row in 0..merged.len() {
        let (window, key) = (merged.windows[row], merged.keys.get(merged.groups[row]));
        if is_dropped(window) || !is_affected(window, key) {
            continue;
        }
        if let Some(end) = open_end(row) {
            open.add(window, end, key);
            continue;
        }
        if !values.is_shown(row) {
            continue;
        }
        let place: ChangedRow = (window, key.into());
        present.insert(place.clone());
        let value = values.value(row);
        let hash = ValueHash::of(&value);
        let sent = book.sent(|sent| sent.get(window, key));
        if sent == Some(hash) {
            continue;
        }
        is_partial |= !found.is_empty() && bytes + value.len() > bounds.bytes_max;
        if !is_partial {
            bytes += value.len() + key.len();
            found.push(Difference { place, row, value, hash, sent });
        }
    }
    let is_sent = |(window, key): &ChangedRow| book.sent(|sent| sent.get(*window, key)).is_some();
    let sent = match &rows.known {
        Some(known) => sent_rows(affected, known, book),
        None => affected.named().filter(|place| is_sent(place)).cloned().collect(),
    };
    let gone = sent.into_iter().filter(|place| !present.contains(place) && !open.has(place.0, &place.1));
    // Rows that were final are not taken back because the view keeps them no longer.
    let (forgotten, deleted): (Vec<ChangedRow>, Vec<ChangedRow>) =
        gone.partition(|(window, _)| sink.emit == Emit::Final && is_dropped(*window));
    if book.sent(|sent| sent.len()) + found.len() > SINK_ROWS_MAX {
        return Err(ChangesError::TooManyRows);
    }
    let version = published.version.as_ref().map(|version| version.version);
    let writer = RecordWriter::new(sink, view, version, bounds.now)?;
    let mut batch = EpochBatch { is_partial, open: open.into_rows(), ..EpochBatch::default() };
    batch.cut.position.clone_from(&rows.position);
    let upserted: Vec<ChangedRow> = found.iter().map(|difference| difference.place.clone()).collect();
    if sink.target.format() == SinkFormat::Avro {
        let places: Vec<ChangedRow> = upserted.iter().chain(&deleted).cloned().collect();
        let rows: Vec<usize> = found.iter().map(|difference| difference.row).collect();
        batch.avro = Some(AvroRows { keys: Some(writer.key_columns(&places)?), values: values.columns(&rows)? });
    }
    for (key, difference) in writer.keys(&upserted)?.into_iter().zip(found) {
        let Difference { place: (window, encoded), row, value, hash, sent } = difference;
        batch.records.push(writer.upserted(sent, key, value, &values, row));
        batch.changes.push(SentChange { window, key: encoded, value: Some(hash) });
    }
    batch.records.extend(writer.keys(&deleted)?.into_iter().flat_map(|key| writer.deleted(key)));
    let gone = deleted.into_iter().chain(forgotten);
    batch.changes.extend(gone.map(|(window, key)| SentChange { window, key, value: None }));
    Ok(batch)
}
