//! Any split of any events over any parts, merged at any grain over any dimensions, equals the naive fold.

use std::collections::BTreeMap;

use arrow::array::{AsArray, BooleanArray, Float64Array, Int64Array, StringViewArray};
use arrow::datatypes::{Float64Type, Int64Type};
use proptest::prelude::*;

use super::*;
use crate::partial::accumulate::{Accumulator, EvaluatedBatch};
use crate::partial::batch_keys::BatchKeys;
use crate::partial::codec;
use crate::partial::finish::finish_measures;
use crate::partial::states::{EventPositions, Offsets};
use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction, Dimension, Measure, OutputColumn};
use crate::window::PaneStart;

#[derive(Debug, Clone)]
struct Row {
    time: i64,
    color: Option<&'static str>,
    number: Option<i64>,
    price: f64,
    wanted: Option<bool>,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        -50i64..50,
        prop::sample::select(vec![None, Some(""), Some("red"), Some("blue")]),
        prop::option::of(prop_oneof![-3i64..3, Just(i64::MAX), Just(i64::MIN)]),
        -2.0..2.0f64,
        any::<Option<bool>>(),
    );
    let row = row.prop_map(|(time, color, number, price, wanted)| Row { time, color, number, price, wanted });
    prop::collection::vec(row, 0..60)
}

fn view() -> Arc<View> {
    view_of(Window::Tumble(Grid::Fixed { size: 10, offset: 0 }))
}

fn view_of(window: Window) -> Arc<View> {
    let aggregate = |function, argument: Option<(usize, DataType)>, filter: bool| Aggregate {
        function,
        argument: argument.map(|(index, data_type)| Scalar::column(index, data_type)),
        filter: filter.then(|| Scalar::column(4, DataType::Boolean)),
        signed: false,
    };
    let aggregates = vec![
        aggregate(AggregateFunction::Count, None, false),
        aggregate(AggregateFunction::Count, Some((2, DataType::BigInt)), true),
        aggregate(AggregateFunction::Sum, Some((2, DataType::BigInt)), false),
        aggregate(AggregateFunction::Avg, Some((3, DataType::Double)), false),
        aggregate(AggregateFunction::Min, Some((2, DataType::BigInt)), false),
        aggregate(AggregateFunction::Max, Some((1, DataType::String)), false),
    ];
    let measure =
        |(i, a): (usize, &Aggregate)| Measure { name: format!("m{i}"), expression: Scalar::column(i, a.data_type()) };
    let dimension =
        |name: &str, i, data_type| Dimension { name: name.to_owned(), expression: Scalar::column(i, data_type) };
    Arc::new(View {
        name: "v".parse().expect("a name"),
        stream: "s".parse().expect("a name"),
        joins: Vec::new(),
        window,
        zone: crate::calendar::Zone::UTC,
        filter: None,
        dimensions: vec![dimension("color", 1, DataType::String), dimension("number", 2, DataType::BigInt)],
        measures: aggregates.iter().enumerate().map(measure).collect(),
        output: [
            OutputColumn::WindowStart,
            OutputColumn::WindowEnd,
            OutputColumn::Dimension(0),
            OutputColumn::Dimension(1),
        ]
        .into_iter()
        .chain((0..6).map(OutputColumn::Measure))
        .collect(),
        aggregates,
        having: None,
        layers: Default::default(),
        schedule: None,
        checkpoint_schedule: None,
        max_drift: None,
        reads: Default::default(),
        versions_kept: crate::limits::VERSIONS_KEPT,
        engine: None,
        connection: None,
        retention: None,
        schedule_zone: crate::calendar::Zone::UTC,
        sql: String::new(),
    })
}

fn part(view: &Arc<View>, rows: &[Row]) -> Part {
    accumulated(view, rows, |empty| empty).part()
}

fn accumulated(view: &Arc<View>, rows: &[Row], start: impl Fn(Accumulator) -> Accumulator) -> Accumulator {
    let types = view.dimensions.iter().map(|d| d.expression.data_type).collect();
    let layout = Arc::new(KeyLayout::new(types).expect("a layout"));
    let mut accumulator = start(Accumulator::new(Arc::clone(view), Arc::clone(&layout), Precision::Sketch));
    for batch in rows.chunks(7) {
        let times: Vec<i64> = batch.iter().map(|r| r.time).collect();
        let panes: Vec<PaneStart> = times.iter().map(|time| view.window.pane_of(Micros(*time))).collect();
        let colors: ArrayRef = Arc::new(batch.iter().map(|r| r.color).collect::<StringViewArray>());
        let numbers: ArrayRef = Arc::new(batch.iter().map(|r| r.number).collect::<Int64Array>());
        let prices: ArrayRef = Arc::new(batch.iter().map(|r| Some(r.price)).collect::<Float64Array>());
        let wanted: BooleanArray = batch.iter().map(|r| r.wanted).collect();
        let keys = BatchKeys::new(&layout, &[Arc::clone(&colors), Arc::clone(&numbers)]).expect("encodes");
        let arguments = [None, Some(numbers.clone()), Some(numbers.clone()), Some(prices), Some(numbers), Some(colors)];
        let masks = [None, Some(wanted), None, None, None, None];
        let all: Vec<u32> = (0..batch.len() as u32).collect();
        accumulator.fold(&EvaluatedBatch {
            panes: &panes,
            places: EventPositions { times: &times, offsets: Offsets::Run { partition: 0, first: 0 } },
            keys: &keys,
            arguments: &arguments,
            masks: &masks,
            rows: &all,
        });
    }
    accumulator
}

type Expected = BTreeMap<(i64, Vec<Option<String>>), (i64, i64, Option<i64>, f64, Option<i64>, Option<String>)>;

/// The oracle: one pass over plain rows, group by group.
fn naive(rows: &[Row], from: i64, to: i64, start_of: impl Fn(i64) -> i64, dimensions: &[usize]) -> Expected {
    let mut groups: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let window = row.time.div_euclid(10) * 10;
        if window < from || window >= to {
            continue;
        }
        let key = |d: &usize| if *d == 0 { row.color.map(str::to_owned) } else { row.number.map(|n| n.to_string()) };
        groups.entry((start_of(window), dimensions.iter().map(key).collect::<Vec<_>>())).or_default().push(row);
    }
    let finish = |rows: Vec<&Row>| {
        let numbers: Vec<i64> = rows.iter().filter_map(|r| r.number).collect();
        let sum: i128 = numbers.iter().map(|n| i128::from(*n)).sum();
        let wanted = rows.iter().filter(|r| r.wanted == Some(true) && r.number.is_some()).count() as i64;
        let average = rows.iter().map(|r| r.price).sum::<f64>() / rows.len() as f64;
        let sum = i64::try_from(sum).ok().filter(|_| !numbers.is_empty());
        let greatest = rows.iter().filter_map(|r| r.color).max().map(str::to_owned);
        (rows.len() as i64, wanted, sum, average, numbers.iter().copied().min(), greatest)
    };
    groups.into_iter().map(|(key, rows)| (key, finish(rows))).collect()
}

fn found(view: &View, merged: &Merged) -> Expected {
    let keys = merged.dimension_columns().expect("decodes");
    let measures: Vec<ArrayRef> =
        finish_measures(view, &merged.states).expect("finishes").into_iter().map(|f| f.column).collect();
    let long = |column: &ArrayRef, row| {
        let column = column.as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let text = |column: &ArrayRef, row| {
        column.as_string_view_opt().map_or_else(
            || long(column, row).map(|n| n.to_string()),
            |texts| texts.is_valid(row).then(|| texts.value(row).to_owned()),
        )
    };
    let row = |row: usize| {
        let key = (merged.windows[row].0, keys.iter().map(|k| text(k, row)).collect());
        let value = (
            long(&measures[0], row).expect("a count"),
            long(&measures[1], row).expect("a count"),
            long(&measures[2], row),
            measures[3].as_primitive::<Float64Type>().value(row),
            long(&measures[4], row),
            text(&measures[5], row),
        );
        (key, value)
    };
    (0..merged.len()).map(row).collect()
}

fn assert_close(found: &Expected, expected: &Expected) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (key, e) in expected {
        let f = &found[key];
        assert_eq!((f.0, f.1, f.2, f.4, &f.5), (e.0, e.1, e.2, e.4, &e.5), "{key:?}");
        assert!((f.3 - e.3).abs() <= 1e-9, "{key:?}: {} is not {}", f.3, e.3);
    }
}

proptest! {
    #[test]
    fn any_split_merges_to_the_naive_fold(
        rows in rows(),
        splits in prop::collection::vec(0usize..60, 0..4),
        grain in prop::sample::select(vec![Grain::Window, Grain::Every(Grid::Fixed { size: 30, offset: 10 }), Grain::All]),
        dimensions in prop::sample::select(vec![vec![], vec![0], vec![1], vec![0, 1], vec![1, 0]]),
        from in -60i64..60,
        length in 0i64..120,
    ) {
        let view = view();
        let mut parts = Vec::new();
        let mut rest = &rows[..];
        for split in splits {
            let (left, right) = rest.split_at(split.min(rest.len()));
            parts.push(part(&view, left));
            rest = right;
        }
        parts.push(part(&view, rest));
        let spec = MergeSpec { view: &view, windows: WindowId(from)..WindowId(from + length), grain, precision: Precision::Sketch, dimensions: &dimensions, horizon: Horizon::NONE, permitted: None, filter: None };
        let sources: Vec<_> = parts.iter().map(|p| (p, Layers::SPEED)).collect();
        let merged = merge(&spec, &sources).expect("merges");
        // A merge can be reused with any further parts.
        let free = QueryBudget::unlimited();
        let (first, rest) = sources.split_at(sources.len() / 2);
        let base = merge_base(&spec, first, &free).expect("merges");
        for _ in 0..2 {
            let onto = merge_onto(&spec, Some(&base), rest, &free).expect("merges");
            assert_close(&found(&view, &onto), &found(&view, &merged));
        }
        let start_of = |window: i64| match grain {
            Grain::Window | Grain::Sessions => window,
            Grain::Every(_) => (window - 10).div_euclid(30) * 30 + 10,
            Grain::All => 0,
        };
        assert_close(&found(&view, &merged), &naive(&rows, from, from + length, start_of, &dimensions));
    }

    #[test]
    fn a_part_survives_its_table(rows in rows()) {
        let view = view();
        let live = part(&view, &rows);
        let spec = MergeSpec::whole(&view, &[0, 1], Precision::Sketch);
        let merged = merge(&spec, &[(&live, Layers::SPEED)]).expect("merges");
        let keys = merged.dimension_columns().expect("decodes");
        let table = codec::encode(&view, &merged.windows, &merged.lasts, keys, &merged.states).expect("encodes");
        let stored = codec::decode(&view, &live.layout, &[table]).expect("decodes");
        let again = merge(&spec, &[(&stored, Layers::BATCH)]).expect("merges");
        assert_close(&found(&view, &again), &found(&view, &merged));
    }

    #[test]
    fn absorbing_equals_merging(rows in rows(), split in 0usize..60) {
        let view = view();
        let (left, right) = rows.split_at(split.min(rows.len()));
        let mut accumulator = Accumulator::new(Arc::clone(&view), part(&view, &[]).layout, Precision::Sketch);
        let (left, right) = (part(&view, left), part(&view, right));
        accumulator.absorb(&left);
        accumulator.absorb(&right);
        let absorbed = accumulator.part();
        let spec = MergeSpec::whole(&view, &[0, 1], Precision::Sketch);
        let one = merge(&spec, &[(&absorbed, Layers::SPEED)]).expect("merges");
        let two = merge(&spec, &[(&left, Layers::SPEED), (&right, Layers::SPEED)]).expect("merges");
        assert_close(&found(&view, &one), &found(&view, &two));
    }
}

/// Windows of all kinds: start, end, color and number of rows, one by one.
fn naive_windows(window: Window, rows: &[Row]) -> BTreeMap<(i64, i64, Option<String>), i64> {
    let mut found = BTreeMap::new();
    let mut add = |start: i64, end: i64, row: &Row| {
        *found.entry((start, end, row.color.map(str::to_owned))).or_insert(0) += 1;
    };
    match window {
        Window::Hop { .. } => {
            // Every 20, 50 long.
            for row in rows {
                (-10..10)
                    .map(|k| k * 20)
                    .filter(|s| row.time >= *s && row.time < s + 50)
                    .for_each(|s| add(s, s + 50, row));
            }
        }
        Window::Cumulate { .. } => {
            // In cells of 30, every 10.
            for row in rows {
                let start = row.time.div_euclid(30) * 30;
                [10, 20, 30].iter().filter(|l| row.time < start + **l).for_each(|l| add(start, start + l, row));
            }
        }
        _ => {
            let colors: std::collections::BTreeSet<_> = rows.iter().map(|row| row.color).collect();
            for color in colors {
                let mut of_color: Vec<&Row> = rows.iter().filter(|row| row.color == color).collect();
                of_color.sort_by_key(|row| row.time);
                let mut sessions: Vec<Vec<&Row>> = Vec::new();
                for row in of_color {
                    match sessions.last_mut() {
                        Some(open) if row.time < open[open.len() - 1].time + 7 => open.push(row),
                        _ => sessions.push(vec![row]),
                    }
                }
                for session in sessions {
                    session.iter().for_each(|row| add(session[0].time, session[session.len() - 1].time + 7, row));
                }
            }
        }
    }
    found
}

proptest! {
    #[test]
    fn overlapping_windows_and_sessions_do_not_depend_on_splits(
        rows in rows(),
        splits in prop::collection::vec(0usize..60, 0..4),
        window in prop::sample::select(vec![
            Window::Hop { panes: Grid::Fixed { size: 10, offset: 0 }, slide: 2, size: 5 },
            Window::Cumulate { step: crate::window::Step::Fixed(10), outer: Grid::Fixed { size: 30, offset: 0 } },
            Window::Session { gap: 7 },
        ]),
        from in -60i64..60,
        length in 0i64..120,
        absorbed in any::<bool>(),
    ) {
        let view = view_of(window);
        let mut parts = Vec::new();
        let mut rest = &rows[..];
        for split in splits {
            let (left, right) = rest.split_at(split.min(rest.len()));
            parts.push(part(&view, left));
            rest = right;
        }
        parts.push(part(&view, rest));
        if absorbed {
            let mut all = Accumulator::new(Arc::clone(&view), Arc::clone(&parts[0].layout), Precision::Sketch);
            parts.iter().for_each(|part| all.absorb(part));
            parts = vec![all.part()];
        }
        let windows = window.ids_starting_in(Micros(from), Micros(from + length));
        let (grain, precision) = (Grain::Window, Precision::Sketch);
        let spec = MergeSpec { view: &view, windows, grain, precision, dimensions: &[0], horizon: Horizon::NONE, permitted: None, filter: None };
        let sources: Vec<_> = parts.iter().map(|p| (p, Layers::SPEED)).collect();
        let merged = merge(&spec, &sources).expect("merges");
        let bounds = codec::window_bounds(&view, &merged.windows, &merged.lasts);
        let colors = merged.dimension_columns().expect("decodes").remove(0);
        let States::Count(counts) = &merged.states[0] else { panic!("COUNT(*) is the first") };
        let mut found = BTreeMap::new();
        for (row, (start, end)) in bounds.into_iter().enumerate() {
            let color = colors.is_valid(row).then(|| colors.as_string_view().value(row).to_owned());
            let before = found.insert((start.0, end.expect("an end").0, color), counts[row]);
            prop_assert_eq!(before, None, "a window twice");
        }
        let mut expected = naive_windows(window, &rows);
        expected.retain(|(start, ..), _| *start >= from && *start < from + length);
        prop_assert_eq!(&found, &expected);
        // And through the table of a view.
        let keys = vec![colors];
        let table = codec::encode(&Arc::new(View { dimensions: view.dimensions[..1].to_vec(), ..(*view).clone() }), &merged.windows, &merged.lasts, keys, &merged.states);
        prop_assert!(table.is_ok());
    }
}

#[test]
fn a_merge_keeps_within_its_budget() {
    let view = view();
    let rows: Vec<Row> =
        (0..500).map(|n| Row { time: n, color: None, number: Some(n), price: 1.0, wanted: None }).collect();
    let part = part(&view, &rows);
    let spec = MergeSpec {
        view: &view,
        windows: WindowId::EVERY,
        grain: Grain::Window,
        precision: Precision::Sketch,
        dimensions: &[0, 1],
        horizon: Horizon::NONE,
        permitted: None,
        filter: None,
    };
    let merged =
        |allowance: &QueryBudget| merge_onto(&spec, None, &[(&part, Layers::SPEED)], allowance).map(|m| m.len());
    let free = QueryBudget::unlimited();
    assert_eq!(merged(&free).expect("merges"), 500);
    let small = QueryBudget { bytes_max: 10_000, ..free.clone() };
    assert!(matches!(merged(&small), Err(MergeError::Exceeded(Exceeded::Bytes { bytes_max: 10_000 }))));
    let late = QueryBudget { until: Some(std::time::Instant::now()), ..free.clone() };
    assert!(matches!(merged(&late), Err(MergeError::Exceeded(Exceeded::Time))));
    free.abandoned.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(merged(&free), Err(MergeError::Exceeded(Exceeded::Abandoned))));
}

/// The rows of a merged table as text, by window and key.
fn finished(view: &View, merged: &Merged) -> BTreeMap<(i64, Vec<u8>), Vec<String>> {
    let measures = finish_measures(view, &merged.states).expect("finishes");
    let row = |row: usize| {
        let values = measures.iter().map(|measure| crate::json_cell::json_cell(&measure.column, row).to_string());
        let key = merged.keys.get(merged.groups[row]).to_vec();
        ((merged.windows[row].0, key), values.chain(merged.lasts.get(row).map(i64::to_string)).collect())
    };
    (0..merged.len()).map(row).collect()
}

proptest! {
    #[test]
    fn wanted_rows_are_those_of_the_whole_merge(
        pieces in prop::collection::vec(rows(), 3),
        window in prop::sample::select(vec![
            Window::All,
            Window::Tumble(Grid::Fixed { size: 10, offset: 0 }),
            Window::Hop { panes: Grid::Fixed { size: 5, offset: 0 }, slide: 1, size: 3 },
            Window::Cumulate { step: crate::window::Step::Fixed(5), outer: Grid::Fixed { size: 20, offset: 0 } },
            Window::Session { gap: 6 },
        ]),
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
    ) {
        let view = view_of(window);
        let speed: Vec<Accumulator> =
            pieces[..2].iter().map(|rows| accumulated(&view, rows, Accumulator::tracked)).collect();
        let batch = part(&view, &pieces[2]);
        let spec = MergeSpec::whole(&view, &[0, 1], Precision::Sketch);
        let whole: Vec<Part> = speed.iter().map(Accumulator::part).chain([batch.clone()]).collect();
        let parts: Vec<(&Part, Layers)> = whole.iter().map(|part| (part, Layers::SPEED)).collect();
        let expected = finished(&view, &merge(&spec, &parts).expect("merges"));
        prop_assume!(!expected.is_empty());
        let rows: Vec<&(i64, Vec<u8>)> = expected.keys().collect();
        let chosen: std::collections::BTreeSet<&(i64, Vec<u8>)> = chosen.iter().map(|at| *at.get(&rows)).collect();
        let mut windows: BTreeMap<Box<[u8]>, Vec<Range<WindowId>>> = BTreeMap::new();
        for (id, key) in &chosen {
            let of_key = windows.entry(key.as_slice().into()).or_default();
            match window {
                Window::Session { .. } if of_key.is_empty() => of_key.push(WindowId::EVERY),
                Window::Session { .. } => {}
                _ => of_key.push(WindowId(*id)..WindowId(id + 1)),
            }
        }
        let wanted = crate::partial::wanted::WantedRows::new(window, windows);
        let index = crate::partial::wanted::PartIndex::new(&batch);
        let found: Vec<Part> = speed
            .iter()
            .map(|rows| rows.wanted(&wanted).expect("tracked"))
            .chain([Accumulator::wanted_of(&view, &batch, &index, &wanted)])
            .collect();
        let parts: Vec<(&Part, Layers)> = found.iter().map(|part| (part, Layers::SPEED)).collect();
        let hull = MergeSpec { windows: if window == Window::All { WindowId::EVERY } else { wanted.hull() }, ..spec };
        let merged = finished(&view, &merge(&hull, &parts).expect("merges"));
        for row in chosen {
            prop_assert_eq!(merged.get(row), expected.get(row), "{:?} {:?}", window, row);
        }
    }

    #[test]
    fn every_row_that_a_fold_touches_is_reported_once(
        pieces in prop::collection::vec(rows(), 2),
        gap in prop::option::of(3_i64..9),
    ) {
        let view = view_of(gap.map_or(Window::Tumble(Grid::Fixed { size: 10, offset: 0 }), |gap| Window::Session { gap }));
        let mut all = accumulated(&view, &pieces[0], Accumulator::tracked);
        let mut reported = Vec::new();
        all.take_changed(|window, key| reported.push((window.0, key.to_vec())));
        let before = finished(&view, &merge(&MergeSpec::whole(&view, &[0, 1], Precision::Sketch), &[(&all.part(), Layers::SPEED)]).expect("merges"));
        reported.sort();
        prop_assert_eq!(&reported, &before.keys().cloned().collect::<Vec<_>>());
        // Rows that another part brings have not changed by an event.
        all.absorb(&part(&view, &pieces[1]));
        let mut more = 0;
        all.take_changed(|_, _| more += 1);
        prop_assert_eq!(more, 0);
    }
}
