//! Checks what runs publish and what their comparisons say.

use std::sync::Arc;

use shared::compare::{Cause, Comparison};
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::partial::query_budget::{Exceeded, QueryBudget};
use shared::readers::{BatchReadError, BatchReader};
use shared::time_range::TimeRange;
use shared::view::View;

use super::world::{Event, HOUR, World, rows, settings, view};
use crate::settings::BatchSettings;
use crate::versions::load::{load_published, versions};

pub const HOURLY: &str =
    "CREATE VIEW departures AS SELECT window_start, origin, COUNT(*) AS flights, SUM(fare) AS fares
    FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin";

pub fn event(id: &str, hour: i64, origin: &'static str) -> Event {
    Event { id: Some(id.into()), at: hour * HOUR + 7, origin: Some(origin), fare: Some(0.1), ..Event::default() }
}

async fn comparison(world: &World, view: &View, version: i64) -> Comparison {
    world.executor.comparisons.get(&view.name, version).await.expect("readable").expect("compared")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_reports_its_coverage_and_releases_speed_and_log() {
    let world = World::new(settings());
    let view = view(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL")]);
    world.append(1, [event("c", 2, "ORD")]);
    assert_eq!(world.run(&view, false).await.expect("publishes"), 1);
    let published = world.published(&view).expect("published");
    let version = published.version.clone().expect("a version");
    let expected =
        Ledger::of_range(Partition(0), Offset(0), Offset(2)) + Ledger::of_range(Partition(1), Offset(0), Offset(1));
    assert_eq!((version.ledger, version.seam.accepted(), version.rows, version.full), (expected, expected, 3, true));
    assert_eq!(world.log.retired(&view.definition_hash()), Some([2, 1]));
    let released = world.log.released();
    assert_eq!(released[&("speed/departures".to_owned(), Partition(0))], Offset(2));
    assert_eq!(released[&("speed/departures".to_owned(), Partition(1))], Offset(1));

    // Nothing new: the version stays, without a commit.
    assert_eq!(world.run(&view, false).await.expect("publishes"), 1);
    assert_eq!(world.table(&view).await.snapshot().await.expect("a snapshot").version, 1);
    // On request everything is computed again, into the same rows.
    let before = world.batch_rows(&view).await;
    assert_eq!(world.run(&view, true).await.expect("publishes"), 2);
    assert_eq!(world.batch_rows(&view).await, before);

    // Another process finds what was published.
    let loaded = load_published(&world.lake(), &world.log.stream, &view).await.expect("loads");
    let published = world.published(&view).expect("published");
    assert_eq!(loaded.active.version, published.version);
    assert!(loaded.shadow.is_none() && !loaded.version_lost);
    let listed = versions(&world.table(&view).await, 10).await.expect("versions");
    assert_eq!(listed.iter().map(|v| v.version).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_are_included_and_named_as_the_cause() {
    let world = World::new(settings());
    let view = view(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 1, "ORD"), event("c", 20, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    let first = comparison(&world, &view, 1).await;
    assert_eq!((first.rows_compared, first.rows_equal, first.causes), (3, 3, Default::default()));

    // Hour 1 has long been closed: speed leaves this one out, batch takes it in.
    world.append(0, [event("d", 1, "ATL"), event("e", 21, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    let second = comparison(&world, &view, 2).await;
    assert_eq!((second.rows_compared, second.rows_equal, second.causes.late), (4, 3, 2));
    assert_eq!(second.causes.unexplained + second.causes.rounding, 0);
    let row = second.rows.iter().find(|row| row.measure == "flights").expect("a difference");
    assert_eq!((row.served.as_i64(), row.exact.as_i64(), row.cause), (Some(1), Some(2), Cause::Late));
    assert_eq!((row.dimensions["origin"].as_str(), row.window_start.map(|w| w.0)), (Some("ATL"), Some(HOUR)));
    assert_eq!(second.cut[&Partition(0)], Offset(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_beyond_the_horizon_are_removed_once_per_date_and_named() {
    let world = World::new(BatchSettings { dedup_horizon_events: 3, ..settings() });
    let view = view(HOURLY);
    let nameless = || Event { id: None, ..event("", 2, "ATL") };
    let two_of_a_date = [event("a", 2, "ATL"), event("b", 2, "ORD"), nameless(), nameless(), event("a", 3, "ATL")];
    world.append(0, two_of_a_date);
    world.append(1, [event("a", 4, "ATL"), event("a", 26, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    let exact = world.batch_rows(&view).await;
    let flights: Vec<(i64, &str, i64)> = exact
        .iter()
        .map(|((window, group), values)| (window / HOUR, group.as_str(), values[0].as_i64().expect("a count")))
        .collect();
    // The first `a` of the date stays (partition 0, hour 2), that of the next date as well; rows without an id all stay.
    assert_eq!(flights, [(2, "[\"ATL\"]", 3), (2, "[\"ORD\"]", 1), (26, "[\"ATL\"]", 1)]);
    let first = comparison(&world, &view, 1).await;
    assert_eq!((first.causes.duplicate, first.causes.unexplained), (4, 0), "{first:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn raised_horizon_brings_no_duplicates_back() {
    let view = view(HOURLY);
    let world = World::new(settings());
    world.append(0, [event("a", 2, "ATL"), event("b", 2, "ORD"), event("a", 3, "ATL")]);
    world.archive().await.commit(lake::Commit::note_dedup_horizon(1)).await.expect("noted by an earlier process");
    for full in [false, true] {
        world.run(&view, full).await.expect("publishes");
        assert_eq!(world.batch_rows(&view).await.len(), 2, "full: {full}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_dates_that_were_not_recomputed_stay_in_memory() {
    let world = World::new(settings());
    let view = view(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    let before = world.parquet_files(&view);
    world.append(0, [event("c", 31, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    assert_eq!(
        world.parquet_files(&view).len(),
        3,
        "one date was written again, the replaced file stays for old versions"
    );
    let version = world.published(&view).and_then(|p| p.version.clone()).expect("a version");
    assert!(!version.full);
    // What runs computed is not read from the store, and neither is what they left alone.
    before.iter().chain(&world.parquet_files(&view)).for_each(|path| _ = std::fs::remove_file(path));
    assert_eq!(world.batch_rows(&view).await.len(), 3);
    // A reader with an empty cache reads files.
    let cold = crate::versions::reader::VersionReader::new(&world.lake(), 1 << 20);
    let published = world.published(&view).expect("published");
    let error = cold
        .parts(&published, &version, TimeRange::ALL, &QueryBudget::unlimited())
        .await
        .expect_err("the files are gone");
    assert!(error.to_string().starts_with("the file _window_date=1970-01-0"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_with_empty_memory_reads_the_same_from_files() {
    let world = World::new(settings());
    let view = view(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 30, "ORD"), event("c", 60, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    let cold = crate::versions::reader::VersionReader::new(&world.lake(), 0);
    let published = world.published(&view).expect("published");
    let version = published.version.as_ref().expect("a version");
    let all = cold.parts(&published, version, TimeRange::ALL, &QueryBudget::unlimited()).await.expect("reads");
    let parts: Vec<_> = all.iter().map(Arc::as_ref).collect();
    assert_eq!(rows(&view, &parts), world.batch_rows(&view).await);
    let range = TimeRange::of_micros(24 * HOUR, 48 * HOUR);
    let second_day = cold.parts(&published, version, range, &QueryBudget::unlimited()).await.expect("reads");
    assert_eq!((all.len(), second_day.len(), cold.bytes()), (3, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_into_a_query_are_not_read() {
    let world = World::new(settings());
    let view = view(HOURLY);
    world.append(0, (0..10).map(|day| event(&format!("e{day}"), 24 * day + 1, "ATL")));
    world.run(&view, false).await.expect("publishes");
    let published = world.published(&view).expect("published");
    let version = published.version.clone().expect("a version");
    let reader = |cache_bytes| crate::versions::reader::VersionReader::new(&world.lake(), cache_bytes);
    let within = |bytes_max: u64| QueryBudget { bytes_max: bytes_max as usize, ..QueryBudget::unlimited() };

    let (cold, warm) = (reader(0), reader(1 << 30));
    let needed = cold.bytes_to_load(&published, &version, TimeRange::ALL);
    assert!(needed >= version.bytes.expect("noted"), "{needed}");
    let one_day = TimeRange::of_micros(24 * HOUR, 48 * HOUR);
    assert!(cold.bytes_to_load(&published, &version, one_day) <= needed / 5);
    let all = warm.parts(&published, &version, TimeRange::ALL, &within(u64::MAX)).await.expect("reads");
    let held: usize = all.iter().map(|part| part.bytes()).sum();

    // Without the files: whatever would read one fails differently.
    world.parquet_files(&view).iter().for_each(|path| std::fs::remove_file(path).expect("deleted"));
    let refused = cold.parts(&published, &version, TimeRange::ALL, &within(needed - 1)).await.expect_err("too large");
    assert!(matches!(refused, BatchReadError::Exceeded(Exceeded::Bytes { .. })), "{refused}");
    let unread = cold.parts(&published, &version, TimeRange::ALL, &within(needed)).await.expect_err("no file");
    assert!(matches!(unread, BatchReadError::Gone(_)), "{unread}");

    // Rows in the cache are counted there.
    assert_eq!(warm.bytes_to_load(&published, &version, TimeRange::ALL), 0);
    assert_eq!(warm.parts(&published, &version, TimeRange::ALL, &within(0)).await.expect("cached").len(), 10);
    let abandoned = QueryBudget::unlimited();
    abandoned.abandoned.store(true, std::sync::atomic::Ordering::Relaxed);
    let ended = warm.parts(&published, &version, TimeRange::ALL, &abandoned).await.expect_err("abandoned");
    assert_eq!(ended, BatchReadError::Exceeded(Exceeded::Abandoned));
    assert!(held > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_stops_where_the_rows_do_not_fit_any_more() {
    let world = World::new(settings());
    // The texts of the groups are not in the estimate.
    let view = view(HOURLY);
    let name: &'static str = Box::leak("long ".repeat(20_000).into_boxed_str());
    world.append(0, (0..10).map(|day| event(&format!("e{day}"), 24 * day + 1, name)));
    world.run(&view, false).await.expect("publishes");
    let published = world.published(&view).expect("published");
    let version = published.version.clone().expect("a version");
    let cold = crate::versions::reader::VersionReader::new(&world.lake(), 0);
    let needed = cold.bytes_to_load(&published, &version, TimeRange::ALL);
    let within = QueryBudget { bytes_max: 500_000, ..QueryBudget::unlimited() };
    assert!(needed < 500_000, "{needed}");
    let refused = cold.parts(&published, &version, TimeRange::ALL, &within).await.expect_err("too large");
    assert!(matches!(refused, BatchReadError::Exceeded(Exceeded::Bytes { .. })), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_other_dimensions_are_compared_within_the_memory_limit() {
    let least = shared::limits::BATCH_MEMORY_BYTES_MIN;
    for (groups, memory_limit_bytes, compared) in
        [(9_000, least, true), (30_000, least, false), (30_000, least * 8, true)]
    {
        let world = World::new(BatchSettings { memory_limit_bytes, ..settings() });
        let event = |n: i32| Event { at: HOUR, origin: Some("ATL"), seats: Some(n), ..Event::default() };
        world.append(0, (0..groups).map(event));
        let by = |groups: &str| {
            let sql = format!(
                "CREATE VIEW v AS SELECT {groups}, COUNT(*) AS n FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), {groups}"
            );
            view(&sql)
        };
        world.run(&by("seats"), false).await.expect("publishes");
        let changed = by("seats, origin");
        let version = world.run(&changed, false).await.expect("publishes");
        let comparison =
            world.executor.comparisons.get(&changed.name, version).await.expect("readable").expect("there");
        let definition = comparison.definition.expect("another one");
        let reason = definition.not_comparable.unwrap_or_default();
        let expected = if compared { (String::new(), groups as u64) } else { (reason.clone(), 0) };
        assert_eq!((reason.clone(), comparison.rows_compared), expected);
        assert_eq!(reason.contains("batch.memory_limit"), !compared, "{reason}");
        assert_eq!(world.batch_rows(&changed).await.len(), groups as usize, "the version is there all the same");
    }
}
