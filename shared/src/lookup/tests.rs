//! Checks lookups against a scan of all changes: in any order of reading, in any batches, and what a change can affect.

use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::take;
use arrow::datatypes::{Int64Type, UInt16Type};
use proptest::prelude::*;

use super::instant::{RowAtInstant, SeenRow};
use super::join::{EventJoin, SharedLookups};
use super::table::{LookupTable, Lookups, TableEvents};
use crate::ids::{Offset, Partition};
use crate::ledger::Ledger;
use crate::seam::{Cut, CutPoint};
use crate::sql::parse_definitions;
use crate::stream::Stream;
use crate::time::Micros;
use crate::view::View;

const SQL: &str = "
    CREATE TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP, n BIGINT) WITH (event_time = 'at', partitions = 2);
    CREATE STREAM s (k BIGINT, at TIMESTAMP) WITH (event_time = 'at');
    CREATE VIEW v AS SELECT SUM(n) AS n FROM s LEFT JOIN t ON k = t.id;";

/// An event of the table: a row with this key, time and number, or the retraction of the row with this key.
#[derive(Debug, Clone, Copy)]
struct Event {
    key: i64,
    time: i64,
    /// When it was accepted.
    accepted: i64,
    n: Option<i64>,
}

/// The events of each partition, in the order of its log: an update is a retraction and an assertion.
type Logs = [Vec<Event>; 2];

fn logs(changes: &[(i64, i64, i64, bool)]) -> Logs {
    let (mut logs, mut present) = (Logs::default(), std::collections::BTreeMap::new());
    for (number, (key, time, accepted, deletes)) in changes.iter().copied().enumerate() {
        let log = &mut logs[key.rem_euclid(2) as usize];
        if let Some(before) = present.remove(&key) {
            log.push(Event { key, time: before, accepted, n: None });
        }
        if !deletes {
            present.insert(key, time);
            log.push(Event { key, time, accepted, n: Some(number as i64) });
        }
    }
    logs
}

/// What an event sees after the first events of each partition, by a scan.
fn scan(logs: &Logs, ends: [usize; 2], key: i64, time: i64) -> Option<i64> {
    let log = &logs[key.rem_euclid(2) as usize][..ends[key.rem_euclid(2) as usize]];
    let mut versions: Vec<(i64, Option<i64>)> = Vec::new();
    let mut last = None;
    for (offset, event) in log.iter().enumerate().filter(|(_, event)| event.key == key) {
        match event.n {
            None => {
                let latest = versions.iter().map(|(time, _)| *time).max().unwrap_or(event.accepted);
                versions.push((latest.max(event.accepted), None));
            }
            Some(n) => {
                if let Some((deleted, None)) = versions.last().copied()
                    && (last.is_some_and(|last| last + 1 == offset) || event.time <= deleted)
                {
                    versions.pop();
                }
                versions.push((event.time, Some(n)));
            }
        }
        last = Some(offset);
    }
    let seen = versions.iter().enumerate().filter(|(_, (of, _))| *of <= time);
    seen.max_by_key(|(order, (of, _))| (*of, *order)).and_then(|(_, (_, n))| *n)
}

struct World {
    view: View,
    table: Arc<Stream>,
}

fn world() -> World {
    world_of(SQL)
}

fn world_of(sql: &str) -> World {
    let parsed = parse_definitions(&[("t.sql".to_owned(), sql.to_owned())]);
    let mut parsed = parsed.unwrap_or_else(|errors| panic!("{}", errors[0]));
    World { view: parsed.views.remove(0), table: Arc::new(parsed.streams.remove(0)) }
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

impl World {
    fn lookups(&self, bytes_max: usize) -> Lookups {
        Lookups::of(&[Arc::clone(&self.table)], [&self.view], bytes_max)
    }

    fn table<'l>(&self, lookups: &'l Lookups) -> &'l LookupTable {
        lookups.get(&self.table.name).expect("the table")
    }

    /// Adds the events of a partition from `first` on, or restores them.
    fn add(&self, table: &LookupTable, partition: u32, first: usize, events: &[Event], restore: bool) {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.key)));
        let numbers: ArrayRef = Arc::new(events.iter().map(|event| event.n).collect::<Int64Array>());
        let retracted: ArrayRef =
            Arc::new(events.iter().map(|event| Some(event.n.is_none())).collect::<BooleanArray>());
        let columns = [ids, times(events.iter().map(|event| event.time)), numbers, retracted];
        let events = TableEvents {
            partition: Partition(partition),
            columns: &columns,
            offsets: &|row| (first + row) as u64,
            accepted_at: &|row| events[row].accepted,
        };
        let added = if restore { table.restore(&events) } else { table.add(&events) };
        added.expect("columns of the table");
    }

    /// What the events with these keys and times see.
    fn seen(&self, lookups: &Lookups, events: &[(i64, i64)]) -> Vec<Option<i64>> {
        let join = EventJoin::new(&self.view, lookups, 2, &|index| index).expect("the table is there").expect("a join");
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(events.iter().map(|(key, _)| *key)));
        let at: Vec<i64> = events.iter().map(|(_, time)| *time).collect();
        let batch = RecordBatch::try_from_iter([("k", keys), ("at", times(at.iter().copied()))]).expect("a batch");
        let joined = join.extend(&batch, &at, &mut SharedLookups::default()).expect("joins");
        let place = self
            .view
            .joined_columns()
            .into_iter()
            .find_map(|(join_number, column)| join.place(super::definition::joined_index(join_number, column)));
        joined.column(place.expect("a joined column")).as_primitive::<Int64Type>().iter().collect()
    }
}

/// Every key with every time that matters.
fn probes(logs: &Logs) -> Vec<(i64, i64)> {
    let mut at: Vec<i64> = logs.iter().flatten().flat_map(|event| [event.time, event.accepted]).collect();
    at.extend(at.clone().iter().map(|time| time - 1));
    at.sort_unstable();
    at.dedup();
    (-1..6).flat_map(|key| at.iter().map(move |time| (key, *time))).collect()
}

fn changes() -> impl Strategy<Value = Vec<(i64, i64, i64, bool)>> {
    // Times of acceptance grow, as those of a log do.
    let change = (0i64..5, 0i64..40, 0i64..4, prop::bool::weighted(0.3));
    prop::collection::vec(change, 1..60).prop_map(|mut changes| {
        let mut accepted = 0;
        for change in &mut changes {
            accepted += change.2;
            change.2 = accepted;
        }
        changes
    })
}

proptest! {
    #[test]
    fn an_event_sees_the_version_that_a_scan_finds(changes in changes(), sizes in prop::collection::vec(1usize..9, 1..5)) {
        let (world, logs) = (world(), logs(&changes));
        let ends = [logs[0].len(), logs[1].len()];
        let probes = probes(&logs);
        let expected: Vec<Option<i64>> = probes.iter().map(|(key, time)| scan(&logs, ends, *key, *time)).collect();
        // In the order of the log, in batches of any size.
        let lookups = world.lookups(usize::MAX);
        for (partition, log) in (0..).zip(&logs) {
            let (mut first, mut sizes) = (0, sizes.iter().cycle());
            while first < log.len() {
                let end = (first + sizes.next().copied().unwrap_or(1)).min(log.len());
                world.add(world.table(&lookups), partition, first, &log[first..end], false);
                first = end;
            }
        }
        prop_assert_eq!(world.seen(&lookups, &probes), expected.clone());
        // Read again in any order.
        let restored = world.lookups(usize::MAX);
        let mut parts: Vec<(u32, usize, &[Event])> = Vec::new();
        for (partition, log) in (0..).zip(&logs) {
            let size = sizes[0];
            parts.extend(log.chunks(size).enumerate().map(|(number, part)| (partition, number * size, part)));
        }
        parts.sort_by_key(|(_, first, _)| (first * 7 + 3) % 11);
        parts.iter().for_each(|(partition, first, part)| world.add(world.table(&restored), *partition, *first, part, true));
        prop_assert_eq!(world.table(&restored).settle().expect("settles"), (ends[0] + ends[1]) as u64);
        prop_assert_eq!(world.seen(&restored, &probes), expected);
        prop_assert_eq!(world.table(&restored).status().versions, world.table(&lookups).status().versions);
    }

    #[test]
    fn a_row_at_an_instant_is_the_one_that_an_event_sees(changes in changes(), seed in 0usize..11) {
        let logs = logs(&changes);
        for (key, time) in probes(&logs) {
            let (partition, log) = (key.rem_euclid(2) as u32, &logs[key.rem_euclid(2) as usize]);
            let mut of_key: Vec<(usize, &Event)> = log.iter().enumerate().filter(|(_, event)| event.key == key).collect();
            of_key.sort_by_key(|(offset, _)| (offset * 7 + seed) % 11);
            let mut row = RowAtInstant::new(Micros(time));
            for (offset, event) in of_key {
                let offset = Offset(offset as u64);
                match event.n {
                    Some(n) => row.write(Partition(partition), offset, Micros(event.time), || n),
                    None => row.delete(Partition(partition), offset, Micros(event.accepted)),
                }
            }
            let seen = row.seen();
            let expected = scan(&logs, [logs[0].len(), logs[1].len()], key, time);
            prop_assert_eq!(match seen { SeenRow::Row(n) => Some(n), _ => None }, expected, "{} at {}", key, time);
            let first = log.iter().filter(|event| event.key == key && event.n.is_some()).map(|event| event.time).min();
            match seen {
                SeenRow::Unknown => prop_assert_eq!(first, None),
                SeenRow::NotYet(at) => prop_assert!(first == Some(at.0) && at.0 > time),
                SeenRow::Deleted(at) => prop_assert!(first.is_some_and(|first| first <= at.0) && at.0 <= time),
                SeenRow::Row(_) => {}
            }
        }
    }

    #[test]
    fn only_events_in_the_changed_spans_see_something_else(changes in changes(), at in 0.0..1.0f64, other in 0.0..1.0f64) {
        let (world, logs) = (world(), logs(&changes));
        let ends = [logs[0].len(), logs[1].len()];
        let cut_at = [(ends[0] as f64 * at) as usize, (ends[1] as f64 * other) as usize];
        let lookups = world.lookups(usize::MAX);
        let table = world.table(&lookups);
        table.noting_changes();
        for (partition, log) in (0..).zip(&logs) {
            world.add(table, partition, 0, log, true);
        }
        table.settle().expect("settles");
        let point = |end: usize| CutPoint { offset: Offset(end as u64), accepted: Ledger::EMPTY };
        let cut = Cut((0..).map(Partition).zip(cut_at.map(point)).collect());
        let spans = table.changed_since(&cut);
        prop_assert!(spans.windows(2).all(|pair| pair[0].1 < pair[1].0), "apart: {:?}", spans);
        for (key, time) in probes(&logs) {
            let is_inside = spans.iter().any(|(from, to)| (*from..*to).contains(&time));
            let (before, after) = (scan(&logs, cut_at, key, time), scan(&logs, ends, key, time));
            prop_assert!(is_inside || before == after, "{} at {}: {:?}, then {:?}: {:?}", key, time, before, after, spans);
        }
        prop_assert_eq!(table.changed_since(&Cut((0..).map(Partition).zip(ends.map(point)).collect())), []);
    }
}

proptest! {
    #[test]
    fn spans_say_for_every_event_which_version_it_sees(changes in changes(), rows in 1usize..6) {
        let (world, logs) = (world(), logs(&changes));
        let lookups = Lookups::with_keys(&[Arc::clone(&world.table)], [&world.view], usize::MAX);
        prop_assert!(lookups.have_keys() && !world.lookups(usize::MAX).have_keys());
        let table = world.table(&lookups);
        (0..).zip(&logs).for_each(|(partition, log)| world.add(table, partition, 0, log, false));
        let mut spans: Vec<(i64, i64, i64, Option<i64>)> = Vec::new();
        let mut sizes = Vec::new();
        table.for_each_span::<Box<dyn Error>>(&["n"], rows, &mut |part| {
            let (keys, numbers) = (part.keys.as_primitive::<Int64Type>(), part.columns[0].as_primitive::<Int64Type>());
            sizes.push(keys.len());
            let times = part.first.into_iter().zip(part.last);
            let of_part = keys.values().iter().zip(numbers).zip(times);
            spans.extend(of_part.map(|((key, number), (first, last))| (*key, first, last, number)));
            Ok(())
        }).expect("the column is kept");
        let (full, rest) = sizes.split_at(sizes.len().saturating_sub(1));
        prop_assert!(full.iter().all(|size| *size == rows) && rest.iter().all(|size| (1..=rows).contains(size)), "{:?}", sizes);
        let ends = [logs[0].len(), logs[1].len()];
        for (key, time) in probes(&logs).into_iter().chain((-1..6).flat_map(|key| [(key, i64::MIN), (key, i64::MAX)])) {
            let sees = |span: &&(i64, i64, i64, Option<i64>)| span.0 == key && (span.1..=span.2).contains(&time);
            let seen: Vec<Option<i64>> = spans.iter().filter(sees).map(|span| span.3).collect();
            prop_assert_eq!(seen, Vec::from_iter(scan(&logs, ends, key, time).map(Some)), "{} at {}", key, time);
        }
        let unknown = table.for_each_span::<Box<dyn Error>>(&["at"], rows, &mut |_| Ok(()));
        prop_assert_eq!(unknown.expect_err("it is not kept").to_string(), "table t has no column at");
    }
}

#[test]
fn beyond_the_limit_superseded_versions_are_forgotten_and_the_newest_stay() {
    let (world, keys) = (world(), 50);
    let changes: Vec<_> = (0..5_000).map(|n| (n % keys * 2, n, n, false)).collect();
    let logs = logs(&changes);
    let lookups = world.lookups(64 * 1024);
    for (number, part) in logs[0].chunks(100).enumerate() {
        world.add(world.table(&lookups), 0, number * 100, part, false);
        let status = world.table(&lookups).status();
        assert!(status.bytes <= 64 * 1024, "{status:?}");
    }
    let status = world.table(&lookups).status();
    assert_eq!(status.versions + status.forgotten, 5_000);
    assert!(status.forgotten > 1_000 && status.versions > 500, "{status:?}");
    let newest: Vec<(i64, i64)> = (0..keys).map(|key| (key * 2, i64::MAX)).collect();
    let expected: Vec<Option<i64>> = (0..keys).map(|key| Some(4_950 + key)).collect();
    assert_eq!(world.seen(&lookups, &newest), expected);
    assert_eq!(world.seen(&lookups, &[(0, 0)]), [None], "the oldest is forgotten");
    // Even the newest, if there is no room for them.
    let small = world.lookups(200);
    world.add(world.table(&small), 0, 0, &logs[0], false);
    assert!(world.table(&small).status().versions < 10);
}

#[test]
fn keys_are_texts_or_numbers_of_any_width_and_null_finds_nothing() {
    let sql = "
        CREATE TABLE names (id STRING PRIMARY KEY, at TIMESTAMP, label STRING) WITH (event_time = 'at');
        CREATE STREAM s (name STRING, at TIMESTAMP) WITH (event_time = 'at');
        CREATE VIEW v AS SELECT n.label, COUNT(*) AS n FROM s LEFT JOIN names AS n ON s.name = n.id GROUP BY n.label;";
    let parsed = parse_definitions(&[("t.sql".to_owned(), sql.to_owned())]);
    let parsed = parsed.unwrap_or_else(|errors| panic!("{}", errors[0]));
    let (table, view) = (Arc::new(parsed.streams[0].clone()), &parsed.views[0]);
    let lookups = Lookups::of(std::slice::from_ref(&table), [view], usize::MAX);
    let texts = |texts: &[Option<&str>]| -> ArrayRef { Arc::new(arrow::array::StringViewArray::from(texts.to_vec())) };
    let long = "a text that does not fit into a view of sixteen bytes";
    for (offset, key, label) in [(0, "", Some(long)), (1, long, Some("b")), (2, "c", None)] {
        let retracted: ArrayRef = Arc::new(BooleanArray::from(vec![false]));
        let columns = [texts(&[Some(key)]), times(std::iter::once(5)), texts(&[label]), retracted];
        let events = TableEvents {
            partition: Partition(0),
            columns: &columns,
            offsets: &|row| offset + row as u64,
            accepted_at: &|_| 0,
        };
        lookups.get(&table.name).expect("the table").add(&events).expect("columns of the table");
    }
    let join = EventJoin::new(view, &lookups, 2, &|index| index).expect("the table is there").expect("a join");
    let at = [5, 5, 5, 5, 5, 4];
    let keys = texts(&[Some(""), Some(long), Some("c"), None, Some("d"), Some("")]);
    let batch = RecordBatch::try_from_iter([("name", keys), ("at", times(at.into_iter()))]).expect("a batch");
    let joined = join.extend(&batch, &at, &mut SharedLookups::default()).expect("joins");
    // The view only groups by them.
    let coded = joined.column(joined.num_columns() - 1).as_dictionary::<UInt16Type>();
    let labels = take(coded.values(), coded.keys(), None).expect("codes");
    let labels: Vec<Option<&str>> = labels.as_string_view().iter().collect();
    assert_eq!(labels, [Some(long), Some("b"), None, None, None, None]);
}

/// Views that join by different columns of the stream, or by the same one.
fn joins_of_views(selects: &[&str]) -> (World, Vec<View>) {
    let views = selects.iter().enumerate().map(|(number, select)| format!("CREATE VIEW v{number} AS SELECT {select};"));
    let sql = format!(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP, n BIGINT) WITH (event_time = 'at', partitions = 2);
         CREATE STREAM s (k BIGINT, l BIGINT, at TIMESTAMP) WITH (event_time = 'at');
         {}",
        views.collect::<String>()
    );
    let mut parsed = parse_definitions(&[("t.sql".to_owned(), sql)]).unwrap_or_else(|errors| panic!("{}", errors[0]));
    (World { view: parsed.views[0].clone(), table: Arc::new(parsed.streams.remove(0)) }, parsed.views)
}

/// The last joined column of an event with the keys 0 and 2.
fn last_joined(view: &View, lookups: &Lookups, events: &RecordBatch, known: &mut SharedLookups) -> ArrayRef {
    let join = EventJoin::new(view, lookups, 3, &|index| index).expect("the table is there").expect("a join");
    let joined = join.extend(events, &[9], known).expect("joins");
    ArrayRef::clone(joined.column(joined.num_columns() - 1))
}

fn event_with_keys(k: i64, l: i64) -> RecordBatch {
    let column = |key: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![key])) };
    RecordBatch::try_from_iter([("k", column(k)), ("l", column(l)), ("at", times(std::iter::once(9)))])
        .expect("a batch")
}

fn numbers_of(column: &ArrayRef) -> Vec<Option<i64>> {
    column.as_primitive::<Int64Type>().iter().collect()
}

#[test]
fn views_share_what_they_look_up_by_the_same_column() {
    let (world, views) = joins_of_views(&[
        "SUM(n) AS n FROM s LEFT JOIN t ON k = t.id",
        "MAX(t.n) AS n FROM s JOIN t ON s.k = t.id",
        "SUM(n) AS n FROM s LEFT JOIN t ON l = t.id",
        "SUM(u.n) AS n FROM s LEFT JOIN t ON k = t.id LEFT JOIN t AS u ON t.n = u.id",
    ]);
    let lookups = Lookups::of(&[Arc::clone(&world.table)], &views, usize::MAX);
    let table = world.table(&lookups);
    let write = |first: usize, key: i64, n: i64| {
        world.add(table, 0, first, &[Event { key, time: 1, accepted: 0, n: Some(n) }], false);
    };
    write(0, 0, 2);
    write(1, 2, 70);
    let (events, mut known) = (event_with_keys(0, 2), SharedLookups::default());
    let first = last_joined(&views[0], &lookups, &events, &mut known);
    assert_eq!(numbers_of(&first), [Some(2)]);
    // A change in between: the events were looked up before it.
    write(2, 0, 3);
    write(3, 3, 80);
    assert!(Arc::ptr_eq(&first, &last_joined(&views[1], &lookups, &events, &mut known)));
    assert_eq!(numbers_of(&last_joined(&views[2], &lookups, &events, &mut known)), [Some(70)], "by another column");
    assert_eq!(numbers_of(&last_joined(&views[3], &lookups, &events, &mut known)), [Some(80)], "as of one moment");
    let later = last_joined(&views[0], &lookups, &events, &mut SharedLookups::default());
    assert_eq!(numbers_of(&later), [Some(3)]);
}

#[test]
fn rows_that_got_other_numbers_are_looked_up_again() {
    let (world, views) = joins_of_views(&[
        "COUNT(t.id) AS n FROM s LEFT JOIN t ON k = t.id",
        "SUM(n) AS n FROM s LEFT JOIN t ON k = t.id",
    ]);
    let lookups = Lookups::of(&[Arc::clone(&world.table)], &views, 16 * 1024);
    let table = world.table(&lookups);
    let write = |first: usize, keys: std::ops::Range<i64>| {
        let events: Vec<Event> = keys.map(|key| Event { key, time: key, accepted: 0, n: Some(key * 10) }).collect();
        world.add(table, 0, first, &events, false);
    };
    write(0, 0..200);
    assert_eq!(table.status().forgotten, 0, "{:?}", table.status());
    let (events, mut known) = (event_with_keys(7, 7), SharedLookups::default());
    assert_eq!(numbers_of(&last_joined(&views[0], &lookups, &events, &mut known)), [Some(7)]);
    write(200, 200..1_000);
    assert!(table.status().forgotten > 0);
    assert_eq!(numbers_of(&last_joined(&views[1], &lookups, &events, &mut known)), [None], "it is forgotten");
}

#[test]
fn texts_that_other_expressions_read_come_as_texts() {
    for (measure, dimension, is_coded) in [
        ("COUNT(*)", "n.label", true),
        ("COUNT(n.id)", "n.label", true),
        ("COUNT(n.label)", "n.label", false),
        ("COUNT(*) FILTER (WHERE n.label > 'a')", "n.label", false),
        ("COUNT(*)", "UPPER(n.label)", false),
        ("COUNT(m.id)", "n.label", false),
    ] {
        let sql = format!(
            "CREATE TABLE names (id STRING PRIMARY KEY, at TIMESTAMP, label STRING) WITH (event_time = 'at');
             CREATE STREAM s (name STRING, at TIMESTAMP) WITH (event_time = 'at');
             CREATE VIEW v AS SELECT {dimension} AS label, {measure} AS n FROM s LEFT JOIN names AS n ON s.name = n.id
             LEFT JOIN names AS m ON m.id = {} GROUP BY {dimension};",
            if measure.contains("m.") { "n.label" } else { "s.name" }
        );
        let parsed = parse_definitions(&[("t.sql".to_owned(), sql)]).unwrap_or_else(|errors| panic!("{}", errors[0]));
        let (table, view) = (Arc::new(parsed.streams[0].clone()), &parsed.views[0]);
        let lookups = Lookups::of(std::slice::from_ref(&table), [view], usize::MAX);
        let join = EventJoin::new(view, &lookups, 2, &|index| index).expect("the table is there").expect("a join");
        let name: ArrayRef = Arc::new(arrow::array::StringViewArray::from(vec!["a"]));
        let batch = RecordBatch::try_from_iter([("name", name), ("at", times(std::iter::once(5)))]).expect("a batch");
        let joined = join.extend(&batch, &[5], &mut SharedLookups::default()).expect("joins");
        let coded = joined.columns().iter().filter(|column| column.as_dictionary_opt::<UInt16Type>().is_some());
        assert_eq!(coded.count(), usize::from(is_coded), "{measure}, {dimension}");
    }
}

#[test]
fn a_table_that_is_joined_twice_does_not_change_between_its_lookups() {
    let world = world_of(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP, n BIGINT) WITH (event_time = 'at');
         CREATE STREAM s (k BIGINT, l BIGINT, at TIMESTAMP) WITH (event_time = 'at');
         CREATE VIEW v AS SELECT SUM(a.n) AS a, SUM(b.n) AS b FROM s JOIN t AS a ON k = a.id JOIN t AS b ON l = b.id;",
    );
    let lookups = world.lookups(usize::MAX);
    let (table, changes) = (world.table(&lookups), 3_000);
    let write = |number: i64| {
        let row = |key: i64| Event { key, time: number, accepted: number, n: Some(number) };
        world.add(table, 0, 2 * number as usize, &[row(1), row(2)], false);
    };
    write(0);
    let join = EventJoin::new(&world.view, &lookups, 3, &|index| index).expect("the table is there").expect("joins");
    let events = 500;
    let column = |value: i64| -> ArrayRef { Arc::new(Int64Array::from_value(value, events)) };
    let at = vec![i64::MAX; events];
    let batch = [("k", column(1)), ("l", column(2)), ("at", times(at.iter().copied()))];
    let batch = RecordBatch::try_from_iter(batch).expect("a batch");
    let places: Vec<usize> = world
        .view
        .joined_columns()
        .into_iter()
        .filter(|(number, column)| world.view.joins[*number].table.columns[*column].0 == "n")
        .filter_map(|(number, column)| join.place(super::definition::joined_index(number, column)))
        .collect();
    assert_eq!(places.len(), 2);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..changes).for_each(write));
        loop {
            let is_last = writer.is_finished();
            let joined = join.extend(&batch, &at, &mut SharedLookups::default()).expect("joins");
            let [a, b] = [0, 1].map(|place: usize| joined.column(places[place]).as_primitive::<Int64Type>().values());
            assert_eq!(a, b, "both rows are of one change");
            if is_last {
                assert_eq!(a[0], changes - 1);
                return;
            }
        }
    });
}
