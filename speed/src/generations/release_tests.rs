//! Tests that the state of trailing windows is released when the watermark says so, and that no figure changes by it.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Int64Type, Schema};
use proptest::prelude::*;
use shared::horizon::Horizon;
use shared::partial::finish::finish_measures;
use shared::partial::merge::{Grain, Layers, MergeSpec, merge};
use shared::sql::parse_definitions;
use shared::time::Micros;
use shared::window::{Window, WindowId};

use super::*;

const SIZE: i64 = 1_000;
const LATENESS: i64 = 300;

fn generations() -> Generations {
    let sql = "CREATE STREAM s (at TIMESTAMP, k STRING, n BIGINT) WITH (event_time = 'at');
         CREATE VIEW v AS SELECT k, COUNT(*) AS c, SUM(n) AS total, MAX(n) AS most FROM s
             GROUP BY SLIDE(at, INTERVAL '1' HOUR), k;";
    let parsed = parse_definitions(&[("s.sql".to_owned(), sql.to_owned())]);
    let parsed = parsed.unwrap_or_else(|errors| panic!("{}", errors[0]));
    let mut view = parsed.views[0].clone();
    view.window = Window::Slide { size: SIZE, pane: 1 };
    let mut stream = parsed.streams[0].clone();
    stream.allowed_lateness = std::time::Duration::from_micros(LATENESS.unsigned_abs());
    let (definition, partition) = ("d".to_owned(), Partition(0));
    Generations::new(Arc::new(view), definition, &stream, partition, Offset(0), Ledger::EMPTY).expect("generations")
}

/// An event, and the watermark just before it.
#[derive(Debug, Clone)]
struct Event {
    at: i64,
    key: &'static str,
    n: i64,
    watermark: i64,
}

impl Event {
    fn is_late(&self) -> bool {
        self.at + SIZE + LATENESS <= self.watermark
    }
}

fn batch(first: usize, events: &[Event], after: i64, arrived_at: i64) -> Arc<LogBatch> {
    let times = |of: fn(&Event) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(of)).with_timezone("UTC"))
    };
    let keys: ArrayRef = Arc::new(StringViewArray::from_iter_values(events.iter().map(|event| event.key)));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.n)));
    let columns = [("at", times(|e| e.at)), ("k", keys), ("n", numbers), ("_watermark", times(|e| e.watermark))];
    let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    Arc::new(LogBatch {
        partition: Partition(0),
        first_offset: Offset(first as u64),
        arrived_at: Micros(arrived_at),
        rows: RecordBatch::try_new(Arc::new(schema), columns).expect("columns of one length"),
        accepted: Ledger::of_range(Partition(0), Offset(0), Offset((first + events.len()) as u64)),
        watermark: Micros(after),
    })
}

/// Count, sum and largest value by key of the trailing window that ends at `instant`.
fn figures(generations: &[Generation], view: &View, instant: i64) -> Vec<(String, i64, i64, i64)> {
    let spec = MergeSpec {
        view,
        windows: WindowId(instant - SIZE)..WindowId(instant),
        grain: Grain::All,
        precision: Precision::Sketch,
        dimensions: &[0],
        horizon: Horizon::NONE,
        permitted: None,
        filter: None,
    };
    let parts: Vec<_> = generations.iter().map(|generation| (&generation.part, Layers::SPEED)).collect();
    let merged = merge(&spec, &parts).expect("merges");
    let keys = merged.dimension_columns().expect("decodes").remove(0);
    let measures = finish_measures(view, &merged.states).expect("finishes");
    let value = |measure: usize, row| measures[measure].column.as_primitive::<Int64Type>().value(row);
    let row = |row| (keys.as_string_view().value(row).to_owned(), value(0, row), value(1, row), value(2, row));
    let mut rows: Vec<_> = (0..merged.len()).map(row).collect();
    rows.sort();
    rows
}

/// The same from the list of events.
fn expected(events: &[Event], instant: i64) -> Vec<(String, i64, i64, i64)> {
    let mut rows = std::collections::BTreeMap::new();
    for event in events.iter().filter(|e| !e.is_late() && (instant - SIZE..instant).contains(&e.at)) {
        let row = rows.entry(event.key).or_insert((0, 0, i64::MIN));
        *row = (row.0 + 1, row.1 + event.n, row.2.max(event.n));
    }
    rows.into_iter().map(|(key, (count, sum, most))| (key.to_owned(), count, sum, most)).collect()
}

/// Times after the watermark; mostly close to it, some of them late or far ahead.
fn steps() -> impl Strategy<Value = Vec<(i64, u8, i64)>> {
    prop::collection::vec(
        (prop_oneof![8 => -200i64..300, 1 => -3_000i64..0, 1 => 0i64..2_000], 0u8..3, -9i64..9),
        1..120,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 40 } else { 200 }))]
    /// Whatever is released, cut and retired: every window over present events has exactly its events, and a window that lacks
    /// some is one that a query is refused for.
    #[test]
    fn windows_over_present_events_are_those_of_the_list_of_events(
        steps in steps(),
        size in 1usize..20,
        cuts in prop::collection::vec((0usize..20, any::<bool>()), 0..4),
        clock_behind in prop_oneof![Just(0i64), 0i64..500],
        instants in prop::collection::vec(-4_000i64..4_000, 20),
    ) {
        let mut generations = generations();
        generations.release_rows_min = 4;
        let (mut log, mut watermark, mut seam): (Vec<Event>, i64, usize) = (Vec::new(), 10_000, 0);
        for (number, chunk) in steps.chunks(size).enumerate() {
            let first = log.len();
            for (distance, key, n) in chunk {
                let at = watermark + distance;
                log.push(Event { at, key: ["a", "b", "c"][usize::from(*key)], n: *n, watermark });
                watermark = watermark.max(at - 100);
            }
            // The clock of the server may be behind the event times.
            let arrived_at = watermark - clock_behind;
            generations.fold(&mut FoldInput::new(&[batch(first, &log[first..], watermark, arrived_at)]));
            for (_, published) in cuts.iter().filter(|(at, _)| *at == number) {
                generations.cut();
                if *published {
                    seam = log.len();
                    generations.retire(Offset(seam as u64));
                }
            }
            let pinned = generations.pin(Offset(seam as u64), None).expect("a pin");
            let live = &log[seam..];
            let near = [watermark, arrived_at, arrived_at + 1, watermark - LATENESS.min(clock_behind), watermark + 101];
            for instant in near.into_iter().chain(instants.iter().map(|distance| watermark + distance)) {
                let from = instant - SIZE;
                let is_refused = pinned.iter().filter_map(|g| g.released).any(|released| released.meet(from, instant));
                // Present: not before the last arrival nor the watermark.
                prop_assert!(!is_refused || instant < arrived_at.min(watermark), "{instant} is refused");
                if !is_refused {
                    prop_assert_eq!(figures(&pinned, &generations.view, instant), expected(live, instant), "{}", instant);
                }
            }
            let folded: Ledger = pinned.iter().map(|generation| generation.folded).sum();
            let late: Ledger = pinned.iter().map(|generation| generation.late).sum();
            prop_assert_eq!((folded + late).events, live.len() as u64, "the ledger counts released events");
        }
    }
}

#[test]
fn state_of_a_trailing_window_stays_flat_over_a_long_stream() {
    let mut generations = generations();
    let (mut most, mut first) = ([0, 0], 0);
    // 1,000,000 events over 400 times the length of the window, which has some 3,000 of them.
    let rounds = 400;
    for round in 0..rounds {
        let start = round * 1_000;
        let events: Vec<Event> = (0..2_500)
            .map(|i| Event { at: start + i * 2 / 5, key: ["a", "b", "c"][i as usize % 3], n: i, watermark: start })
            .collect();
        generations.fold(&mut FoldInput::new(&[batch(first, &events, start + 1_000, start + 1_000)]));
        first += events.len();
        let half = usize::from(round >= rounds / 2);
        most[half] = most[half].max(generations.bytes());
        // A failed run's generation does not pile up either.
        if round % 100 == 99 {
            generations.cut();
        }
    }
    println!("1,000,000 events: at most {} bytes in the first half, {} in the second", most[0], most[1]);
    assert!(most[1] <= most[0] + most[0] / 20, "{most:?}");
    assert!(generations.rows() < 40_000, "{} rows", generations.rows());
    let pinned = generations.pin(Offset(0), None).expect("a pin");
    assert_eq!(pinned.iter().map(|generation| generation.folded.events).sum::<u64>(), 1_000_000);
}

#[test]
fn other_windows_release_nothing() {
    let mut generations = generations();
    let mut view = View::clone(&generations.view);
    view.window = Window::All;
    generations.plan.view = Arc::new(view);
    assert_eq!(generations.plan.first_pane_held(Micros(i64::MAX), Micros(i64::MAX)), None);
}
