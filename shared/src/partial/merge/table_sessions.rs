//! Joins the merged rows of a table to sessions.
//!
//! Over a table, parts have a row per event time and group, with the number n of the table's rows that have this time. Retractions
//! take rows back from their own event time, so merging is that of every view, and only the sums decide. With the times of a group
//! at which n is not 0, in order, a session is a longest run in which each is less than the gap after the one before:
//!
//! ```text
//! sessions(g) = runs of { t : n(t, g) ≠ 0 }        result(session, g) = ⊕ { s(t, g) : t in the run }
//! ```
//!
//! These are the sessions of a stream with an event per row ([`crate::partial::sessions`]). A time whose rows are all gone connects
//! nothing. In all layers together n is never negative; in speed alone it is what the changes since the version add up to.

use super::{MergeSpec, Table};
use crate::partial::merge::Layers;
use crate::partial::sessions::meet;
use crate::partial::states::NO_GROUP;
use crate::view::ROW_COUNT;

impl Table {
    /// Joins the rows, one for each event time and group, to the sessions that start in the range of `spec`.
    pub(super) fn joined(&self, spec: &MergeSpec<'_>, gap: i64) -> Table {
        let mut sessions = Table::empty(spec);
        let Some(counts) = self.states.get(ROW_COUNT) else { return sessions };
        let mut order: Vec<u32> = (0..self.windows.len() as u32).collect();
        order.sort_unstable_by_key(|row| (self.groups[*row as usize], self.windows[*row as usize]));
        let mut targets = vec![NO_GROUP; self.windows.len()];
        for group in order.chunk_by(|a, b| self.groups[*a as usize] == self.groups[*b as usize]) {
            let time = |row: u32| self.windows[row as usize].0;
            let rows: Vec<u32> = group.iter().copied().filter(|row| !counts.is_zero(*row as usize)).collect();
            for run in rows.chunk_by(|a, b| meet(gap, time(*a), time(*b))) {
                let (first, last) = (run[0], time(run[run.len() - 1]));
                if !spec.windows.contains(&self.windows[first as usize]) {
                    continue;
                }
                let session = sessions.windows.len() as u32;
                sessions.windows.push(self.windows[first as usize]);
                sessions.lasts.push(last);
                sessions.groups.push(self.groups[first as usize]);
                // Rows that are gone have shaped the session too, if they met it: they may have been in it, or joined it to others.
                let from = group.partition_point(|row| !meet(gap, time(*row), time(first)));
                let met = group[from..].iter().take_while(|row| meet(gap, last, time(**row)));
                let layers = met.fold(0, |layers, row| layers | self.layers[*row as usize].0);
                sessions.layers.push(Layers(layers));
                run.iter().for_each(|row| targets[*row as usize] = session);
            }
        }
        for (session, rows) in sessions.states.iter_mut().zip(&self.states) {
            session.grow(sessions.windows.len());
            session.merge(&targets, rows, 0);
        }
        sessions
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Int64Type, Schema};
    use proptest::prelude::*;

    use crate::evaluate::EvaluateError;
    use crate::evaluate::events::{EventExpressions, Needed};
    use crate::horizon::Horizon;
    use crate::partial::accumulate::{Accumulator, EvaluatedBatch};
    use crate::partial::batch_keys::BatchKeys;
    use crate::partial::block::Part;
    use crate::partial::bucket::Bucket;
    use crate::partial::codec;
    use crate::partial::finish::finish_measures;
    use crate::partial::keys::KeyLayout;
    use crate::partial::merge::{Grain, Layers, MergeSpec, merge, merge_within};
    use crate::partial::states::{EventPositions, Offsets};
    use crate::partial::wanted::WantedRows;
    use crate::sql::parse_definitions;
    use crate::stream::{Column, Stream, system_columns};
    use crate::time::Micros;
    use crate::view::{Precision, View};
    use crate::window::{PaneStart, WindowId};

    /// A row of the table: its time, group and value.
    type Row = (i64, usize, i64);
    /// Start, end and group of each session; its number of rows, and their least and last value.
    type Sessions = BTreeMap<(i64, i64, Option<&'static str>), (i64, i64, i64)>;

    const GAP: i64 = 5;
    const GROUPS: [&str; 3] = ["", "a", "b"];

    fn definitions() -> (Stream, Arc<View>) {
        let sql =
            "CREATE TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP, who STRING, points BIGINT) WITH (event_time = 'at');
            CREATE VIEW v AS SELECT who, MIN(points) AS least, LAST_VALUE(points) AS last, COUNT(*) AS n FROM t
                GROUP BY SESSION(at, INTERVAL '5' MICROSECOND), who;";
        let mut definitions = parse_definitions(&[("t.sql".to_owned(), sql.to_owned())]).expect("valid");
        (definitions.streams.remove(0), Arc::new(definitions.views.remove(0)))
    }

    /// Folds assertions (true) and retractions of rows.
    fn folded((stream, view): &(Stream, Arc<View>), events: &[(Row, bool)]) -> Accumulator {
        let types = view.dimensions.iter().map(|d| d.expression.data_type).collect();
        let layout = Arc::new(KeyLayout::new(types).expect("a layout"));
        let mut folded = Accumulator::new(Arc::clone(view), Arc::clone(&layout), Precision::Sketch).tracked();
        let times: Vec<i64> = events.iter().map(|((at, ..), _)| *at).collect();
        let values = |name: &str| -> ArrayRef {
            match name {
                "at" => Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC")),
                "who" => {
                    Arc::new(events.iter().map(|((_, who, _), _)| Some(GROUPS[*who])).collect::<StringViewArray>())
                }
                system_columns::RETRACTED => {
                    Arc::new(BooleanArray::from_iter(events.iter().map(|(_, asserts)| Some(!asserts))))
                }
                _ => Arc::new(events.iter().map(|((_, _, points), _)| Some(*points)).collect::<Int64Array>()),
            }
        };
        let columns: Vec<ArrayRef> = stream.columns.iter().map(|column| values(&column.name)).collect();
        let field = |(column, values): (&Column, &ArrayRef)| Field::new(&column.name, values.data_type().clone(), true);
        let schema = Schema::new(stream.columns.iter().zip(&columns).map(field).collect::<Vec<_>>());
        let rows = RecordBatch::try_new(Arc::new(schema), columns).expect("a batch");
        let fold = EventExpressions::new(view).for_each_piece::<EvaluateError>(&rows, Needed::All, &mut |piece| {
            let times = &times[piece.rows.clone()];
            let panes: Vec<PaneStart> = times.iter().map(|time| view.window.pane_of(Micros(*time))).collect();
            folded.fold(&EvaluatedBatch {
                panes: &panes,
                places: EventPositions { times, offsets: Offsets::Run { partition: 0, first: 0 } },
                keys: &BatchKeys::new(&layout, &piece.dimensions).expect("encodes"),
                arguments: &piece.arguments,
                masks: &piece.masks,
                rows: &piece.selected,
            });
            Ok(())
        });
        fold.expect("evaluates");
        folded
    }

    fn spec<'a>(view: &'a View, dimensions: &'a [usize]) -> MergeSpec<'a> {
        let (windows, grain, precision) = (WindowId::EVERY, Grain::Sessions, Precision::Sketch);
        MergeSpec { view, windows, grain, precision, dimensions, horizon: Horizon::NONE, permitted: None, filter: None }
    }

    fn found(spec: &MergeSpec<'_>, parts: &[&Part]) -> Sessions {
        let parts: Vec<(&Part, Layers)> = parts.iter().map(|part| (*part, Layers::SPEED)).collect();
        let merged = merge(spec, &parts).expect("merges");
        let bounds = codec::window_bounds(spec.view, &merged.windows, &merged.lasts);
        let names = (!spec.dimensions.is_empty()).then(|| merged.dimension_columns().expect("decodes").remove(0));
        let measures = finish_measures(spec.view, &merged.states).expect("finishes");
        let value = |measure: usize, row: usize| measures[measure].column.as_primitive::<Int64Type>().value(row);
        let session = |(row, (start, end)): (usize, (Micros, Option<Micros>))| {
            let name = names.as_ref().map(|names| names.as_string_view().value(row).to_owned());
            let name = name.map(|name| *GROUPS.iter().find(|group| **group == name).expect("a group"));
            ((start.0, end.expect("an end").0, name), (value(2, row), value(0, row), value(1, row)))
        };
        let sessions: Vec<_> = bounds.into_iter().enumerate().map(session).collect();
        let number = sessions.len();
        let sessions: Sessions = sessions.into_iter().collect();
        assert_eq!(sessions.len(), number, "a session twice");
        sessions
    }

    /// The sessions of rows, one by one.
    fn naive(rows: &[Row], by_group: bool) -> Sessions {
        let mut sessions = Sessions::new();
        for (group, name) in GROUPS.iter().enumerate() {
            let mut rows: Vec<Row> = rows.iter().filter(|row| !by_group || row.1 == group).copied().collect();
            rows.sort_by_key(|(at, _, points)| (*at, *points));
            for session in rows.chunk_by(|a, b| b.0 - a.0 < GAP) {
                let last = session[session.len() - 1];
                let key = (session[0].0, last.0 + GAP, by_group.then_some(*name));
                let least = session.iter().map(|row| row.2).min().expect("a row");
                sessions.insert(key, (session.len() as i64, least, last.2));
            }
        }
        sessions
    }

    proptest! {
        #[test]
        fn sessions_are_those_of_the_rows_that_are_left_however_changes_are_split(
            rows in prop::collection::vec((-30i64..30, 0usize..3, -3i64..3), 0..40),
            gone in prop::collection::vec(any::<bool>(), 40),
            cuts in (0usize..80, 0usize..80),
            range in (-40i64..40, 0i64..60),
        ) {
            let definitions = definitions();
            let view = &definitions.1;
            let is_gone = |at: usize| gone[at];
            let mut events: Vec<(Row, bool)> = rows.iter().map(|row| (*row, true)).collect();
            events.extend(rows.iter().enumerate().filter(|(at, _)| is_gone(*at)).map(|(_, row)| (*row, false)));
            let left: Vec<Row> = rows.iter().enumerate().filter(|(at, _)| !is_gone(*at)).map(|(_, row)| *row).collect();
            let (first, second) = (cuts.0.min(cuts.1).min(events.len()), cuts.0.max(cuts.1).min(events.len()));
            let folded: Vec<Accumulator> = [&events[..first], &events[first..second], &events[second..]]
                .map(|some| folded(&definitions, some)).into_iter().collect();
            let live: Vec<Part> = folded.iter().map(Accumulator::part).collect();
            // As the table of the view has them.
            let whole = MergeSpec::whole(view, &[0], Precision::Exact);
            let stored = merge(&whole, &[(&live[0], Layers::SPEED)]).expect("merges");
            let table = codec::encode(view, &stored.windows, &stored.lasts, stored.dimension_columns().expect("decodes"), &stored.states);
            let stored = codec::decode(view, &live[0].layout, &[table.expect("encodes")]).expect("decodes");
            let parts = [&stored, &live[1], &live[2]];
            let expected = naive(&left, true);
            prop_assert_eq!(&found(&spec(view, &[0]), &parts), &expected);
            prop_assert_eq!(found(&spec(view, &[]), &parts), naive(&left, false));
            // Any range is a slice of all sessions.
            let windows = WindowId(range.0)..WindowId(range.0 + range.1);
            let is_inside = |start: i64| windows.contains(&WindowId(start));
            let inside: Sessions = expected.clone().into_iter().filter(|((start, ..), _)| is_inside(*start)).collect();
            prop_assert_eq!(found(&MergeSpec { windows: windows.clone(), ..spec(view, &[0]) }, &parts), inside);
            // Groups of a bucket, and those that an alert wants.
            let buckets: usize = Bucket::ALL.split(4)
                .map(|bucket| merge_within(&spec(view, &[0]), &parts.map(|part| (part, Layers::SPEED)), bucket).expect("merges").len())
                .sum();
            prop_assert_eq!(buckets, expected.len());
            if let Some(key) = live[0].keys.iter().next() {
                let wanted = WantedRows::new(view.window, [(Box::from(key), vec![WindowId::EVERY])]);
                let wanted: Vec<Part> = folded.iter().map(|rows| rows.wanted(&wanted).expect("tracked")).collect();
                let sessions = found(&spec(view, &[0]), &wanted.iter().collect::<Vec<_>>());
                let name = GROUPS[rows[0].1];
                let of_key: Sessions = expected.into_iter().filter(|((.., who), _)| *who == Some(name)).collect();
                prop_assert_eq!(sessions, of_key);
            }
        }
    }
}
