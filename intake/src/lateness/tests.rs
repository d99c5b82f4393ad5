//! Checks that late events and those too far ahead are listed as the log counts them, within bounds.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use proptest::prelude::*;
use shared::control::{EventKind, EventPage, ListRange, StreamError};
use shared::handoff::LogBatch;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::stream::Stream;
use shared::time::Micros;

use super::*;
use crate::log::testing::{events, stream};

const MS: i64 = 1_000;

/// Delay 5 ms, lateness 10 ms, at most 1 s ahead.
fn a_stream(partitions: u32) -> Arc<Stream> {
    Arc::new(Stream {
        watermark_delay: Duration::from_millis(5),
        allowed_lateness: Duration::from_millis(10),
        source: Default::default(),
        max_ahead: Duration::from_secs(1),
        max_age: None,
        partitions,
        ..stream()
    })
}

fn settings(listed_events: usize) -> LatenessSettings {
    LatenessSettings { listed_events, ..LatenessSettings::default() }
}

/// Events with these times in milliseconds, each seeing the watermark of those before it, as the log would have them.
fn batch(first: u64, before: Option<i64>, arrived_ms: i64, times_ms: &[i64]) -> LogBatch {
    use arrow::array::TimestampMicrosecondArray;
    let mut watermark = before.map(|ms| ms * MS);
    let mut marks = Vec::new();
    for time in times_ms {
        marks.push(watermark);
        if *time <= arrived_ms + 1_000 {
            watermark = watermark.max(Some((time - 5) * MS));
        }
    }
    let names: Vec<String> = (0..times_ms.len()).map(|i| format!("event {}", first + i as u64)).collect();
    let of: Vec<_> = names.iter().zip(times_ms).map(|(name, ms)| (Some(name.as_str()), ms * MS)).collect();
    let mut columns = events(&of).columns().to_vec();
    columns.push(Arc::new(marks.into_iter().collect::<TimestampMicrosecondArray>().with_timezone("UTC")));
    LogBatch {
        partition: Partition(0),
        first_offset: Offset(first),
        arrived_at: Micros(arrived_ms * MS),
        rows: arrow::array::RecordBatch::try_new(stream().log_schema(), columns).expect("columns of the log"),
        accepted: Ledger::EMPTY,
        watermark: watermark.map_or(Micros::MIN, Micros),
    }
}

fn page(lateness: &StreamLateness, kind: EventKind, limit: usize, cursor: Option<&str>) -> EventPage {
    let range = ListRange { limit, cursor: cursor.map(str::to_owned) };
    lateness.events(kind, &range, 0).expect("a page")
}

fn longs(page: &EventPage, name: &str) -> Vec<i64> {
    let column = page.rows.column_by_name(name).unwrap_or_else(|| panic!("no {name} in {:?}", page.rows.schema()));
    column.as_primitive::<Int64Type>().values().to_vec()
}

#[test]
fn each_listed_event_says_how_late_or_how_far_ahead_it_was() {
    let lateness = StreamLateness::new(a_stream(1), settings(100));
    // 984 is behind 1,000 - 5 by 11, so late by 1; 985 is late to the point; 986 is not.
    lateness.observe(&batch(40, None, 1_000, &[1_000, 984, 986, 985, 2_001, 2_000]));
    let late = page(&lateness, EventKind::Late, 100, None);
    assert_eq!((late.kept, late.next.as_deref()), (2, None));
    assert_eq!(longs(&late, "_offset"), [43, 41], "newest first");
    assert_eq!(longs(&late, "late_by_ms"), [10, 11]);
    assert_eq!(longs(&late, "beyond_allowed_lateness_ms"), [0, 1]);
    let ids = late.rows.column_by_name("id").expect("declared").as_string_view();
    assert_eq!(ids.iter().flatten().collect::<Vec<_>>(), ["event 43", "event 41"]);
    let times = |name: &str| {
        let column = late.rows.column_by_name(name).expect("a system column");
        column.as_primitive::<TimestampMicrosecondType>().values().to_vec()
    };
    assert_eq!((times("_arrived_at"), times("_watermark")), (vec![1_000 * MS; 2], vec![995 * MS; 2]));

    let ahead = page(&lateness, EventKind::Ahead, 100, None);
    assert_eq!((longs(&ahead, "_offset"), longs(&ahead, "ahead_by_ms")), (vec![44], vec![1_001]));
    assert_eq!(longs(&ahead, "beyond_max_ahead_ms"), [1]);
}

#[test]
fn a_column_of_the_stream_keeps_its_name() {
    let mut stream = stream();
    stream.columns[2].name = "late_by_ms".to_owned();
    let lateness = StreamLateness::new(Arc::new(stream), settings(100));
    let empty = page(&lateness, EventKind::Late, 10, None);
    assert_eq!((empty.rows.num_rows(), empty.kept, empty.next.as_deref()), (0, 0, None));
    let names: Vec<_> = empty.rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names[2], "late_by_ms");
    assert!(names.contains(&"_late_by_ms".to_owned()) && names.contains(&"beyond_allowed_lateness_ms".to_owned()));
}

#[test]
fn a_cursor_that_was_never_issued_is_refused() {
    let lateness = StreamLateness::new(a_stream(1), settings(100));
    for cursor in ["", "1", "1.2", "1.2.x", "1.2.3.4"] {
        let range = ListRange { limit: 1, cursor: Some(cursor.to_owned()) };
        let refused = lateness.events(EventKind::Late, &range, 0).err();
        assert_eq!(refused, Some(StreamError::BadCursor(cursor.to_owned())));
    }
}

#[test]
fn memory_is_bounded_by_bytes_too_and_nothing_of_the_batch_is_held() {
    let bytes_max = 4_000;
    let settings =
        LatenessSettings { listed_events: 1_000, listed_bytes_max: bytes_max, ..LatenessSettings::default() };
    let lateness = StreamLateness::new(a_stream(1), settings);
    let times: Vec<i64> = std::iter::once(10_000).chain(std::iter::repeat_n(1, 500)).collect();
    for round in 0..20 {
        lateness.observe(&batch(round * 501, None, 10_000 + round as i64, &times));
    }
    let late = page(&lateness, EventKind::Late, 1_000, None);
    assert!(late.kept >= 1 && late.kept < 500, "{}", late.kept);
    assert_eq!(longs(&late, "_offset")[0], 20 * 501 - 1, "the newest is kept");
    assert!(late.rows.get_array_memory_size() < 4 * bytes_max, "{}", late.rows.get_array_memory_size());
}

#[test]
fn suggested_settings_follow_the_distribution() {
    let lateness = StreamLateness::new(a_stream(2), settings(10));
    assert_eq!(lateness.summary(), None);
    // 1,000 events: 980 in order, 15 behind by 30 s, 5 behind by 10 minutes; some in the other partition.
    let mut times = Vec::new();
    for i in 0..980 {
        times.push(1_000_000 + i);
    }
    times.extend(std::iter::repeat_n(1_000_979 - 30_000, 15));
    times.extend(std::iter::repeat_n(1_000_979 - 600_000, 5));
    lateness.observe(&batch(0, None, 1_000_000, &times[..980]));
    lateness.observe(&batch(980, Some(1_000_974), 1_000_000, &times[980..]));
    let one = lateness.summary().expect("events");
    assert_eq!((one.measured, one.quantiles_ms["p50"], one.max_ms), (1_000, 0.0, 600_000.0));
    assert!((one.quantiles_ms["p99"] - 30_000.0).abs() <= 300.0, "{one:?}");
    assert!((one.quantiles_ms["p99.9"] - 600_000.0).abs() <= 6_000.0, "{one:?}");
    assert_eq!((one.behind_watermark_share, one.late_share), (0.02, 0.02));
    assert_eq!((&*one.suggested.watermark_delay, &*one.suggested.allowed_lateness), ("35 seconds", "10 minutes"));
    let mut other = batch(0, None, 2_000_000, &(2_000_000..2_001_000).collect::<Vec<_>>());
    other.partition = Partition(1);
    lateness.observe(&other);
    let both = lateness.summary().expect("events");
    assert_eq!((both.measured, both.late_share, both.max_ms), (2_000, 0.01, 600_000.0));
}

proptest! {
    /// For any events in any batches, the pages together are the newest events by the plain rule.
    #[test]
    fn pages_are_the_newest_events_by_the_rule(
        times in prop::collection::vec(prop_oneof![8 => 0..60i64, 1 => 1_000..3_000i64], 1..120),
        cut in 1..30usize,
        kept_max in 1..40usize,
        limit in 1..9usize,
    ) {
        let lateness = StreamLateness::new(a_stream(1), settings(kept_max));
        let (mut before, mut late, mut ahead) = (None::<i64>, Vec::new(), Vec::new());
        for (i, chunk) in times.chunks(cut).enumerate() {
            let (first, arrived) = ((i * cut) as u64, 50 + i as i64);
            lateness.observe(&batch(first, before, arrived, chunk));
            for (offset, time) in (first as i64..).zip(chunk) {
                if before.is_some_and(|mark| time + 10 <= mark) {
                    late.push(offset);
                }
                match *time > arrived + 1_000 {
                    true => ahead.push(offset),
                    false => before = before.max(Some(time - 5)),
                }
            }
        }
        for (kind, expected) in [(EventKind::Late, &late), (EventKind::Ahead, &ahead)] {
            let newest: Vec<i64> = expected.iter().rev().take(kept_max).copied().collect();
            let (mut found, mut cursor) = (Vec::new(), None::<String>);
            loop {
                let page = page(&lateness, kind, limit, cursor.as_deref());
                prop_assert!(page.rows.num_rows() <= limit);
                prop_assert_eq!(page.kept, newest.len() as u64);
                found.extend(longs(&page, "_offset"));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            prop_assert_eq!(found, newest);
        }
    }
}
