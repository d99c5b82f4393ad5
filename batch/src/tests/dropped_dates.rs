//! Checks that windows whose events the stream's retention drops stay as they were, to the last value: for any events, drops,
//! runs, restarts and turns of the clock, no window is computed from a part of its events (I12).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lake::{ArchiveTags, DroppedEvents};
use proptest::collection::vec;
use proptest::prelude::*;
use shared::compare::Comparison;
use shared::control::{DateRange, RunScope};
use shared::horizon::Horizon;
use shared::time::{Day, Micros};
use shared::view::View;
use shared::window::{Window, WindowId};

use super::world::{Event, HOUR, Rows, World, rows, settings, view};
use crate::runs::queue::RunQueue;
use crate::runs::retry::RetrySettings;
use crate::settings::BatchSettings;
use crate::versions::load::load_published;

const AT_ONCE: Option<Duration> = Some(Duration::ZERO);
const DAY: i64 = 24 * HOUR;
const START: i64 = 1_000 * HOUR;

#[derive(Debug, Clone)]
enum Act {
    /// Into a partition, events that are so many quarters of an hour old.
    Append(usize, Vec<(i64, Option<&'static str>, i64)>),
    /// Advances the clock by so many hours.
    Turn(i64),
    Flush,
    /// Runs the views whose bits are set; full or not.
    Run(u8, bool),
    /// Drops what may be dropped, rewrites the rest into few files, and deletes unused files.
    Drop,
    /// The same, while the next run is under way.
    DropDuring(u8),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let origin = || prop_oneof![Just(None), Just(Some("ATL")), Just(Some("JFK"))];
    // Most events are young, some are old, and some come after their date was dropped.
    let age = || prop_oneof![4 => 0i64..40, 3 => 0i64..400, 1 => 300i64..1_200];
    let events = move || vec((age(), origin(), -60i64..200), 1..25);
    prop_oneof![
        5 => (0usize..2, events()).prop_map(|(partition, events)| Act::Append(partition, events)),
        3 => (1i64..60).prop_map(Act::Turn),
        1 => Just(Act::Flush),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(views, full)| Act::Run(views, full)),
        3 => Just(Act::Run(u8::MAX, false)),
        3 => Just(Act::Drop),
        1 => any::<u8>().prop_map(Act::DropDuring),
        1 => Just(Act::Restart),
    ]
}

const MEASURES: &str = "COUNT(*) AS flights, SUM(delay) AS delays, MAX(at) AS latest, COUNT(DISTINCT seats) AS kinds";

/// A view called `name`, by `origin` if it is among the `groups`.
fn declared(name: &str, columns: &str, measures: &str, groups: &str) -> Arc<View> {
    view(&format!("CREATE VIEW {name} AS SELECT {columns} {measures} FROM flights GROUP BY {groups}"))
}

fn views() -> Vec<Arc<View>> {
    let of = |name, groups: &str| declared(name, "window_start, origin,", MEASURES, &format!("{groups}, origin"));
    vec![
        of("hourly", "TUMBLE(at, INTERVAL '1' HOUR)"),
        of("uneven", "TUMBLE(at, INTERVAL '11' HOUR)"),
        of("long", "TUMBLE(at, INTERVAL '3' DAY)"),
        of("hops", "HOP(at, INTERVAL '6' HOUR, INTERVAL '30' HOUR)"),
        of("steps", "CUMULATE(at, INTERVAL '8' HOUR, INTERVAL '2' DAY)"),
        of("trailing", "SLIDE(at, INTERVAL '20' HOUR, INTERVAL '1' HOUR)"),
        of("visits", "SESSION(at, INTERVAL '5' HOUR)"),
        declared(
            "plain",
            "window_start,",
            "COUNT(*) AS flights, SUM(delay) AS delays",
            "TUMBLE(at, INTERVAL '4' HOUR)",
        ),
    ]
}

fn start_of(view: &View, id: i64) -> i64 {
    view.window.bounds(WindowId(id)).0.0
}

/// The rows whose windows start from `from` on, and the others.
fn parted(view: &View, rows: &Rows, from: i64) -> (Rows, Rows) {
    rows.clone().into_iter().partition(|((id, _), _)| start_of(view, *id) >= from)
}

/// The expected windows from `first` on, of the events from then on; `frozen` are the rows before.
fn computed(world: &World, view: &Arc<View>, first: i64, frozen: &Rows) -> Rows {
    let mut ends: BTreeMap<String, i64> = BTreeMap::new();
    if let Window::Session { gap } = view.window {
        for ((_, group), values) in frozen {
            let last = Micros::parse(values[2].as_str().expect("a time")).expect("a time").0;
            let end = ends.entry(group.clone()).or_insert(i64::MIN);
            *end = last.saturating_add(gap).max(*end);
        }
    }
    let group = |event: &Event| serde_json::to_string(&[event.origin]).expect("JSON");
    let keep = |_, event: &Event| event.at >= first && ends.get(&group(event)).is_none_or(|end| event.at >= *end);
    let folded = world.log.folded(view, world.log.head(), keep);
    parted(view, &rows(view, &[&folded]), first).0
}

/// What must be published: rows, of windows that start from a certain time on.
struct Expected {
    rows: Rows,
    shown_from: i64,
}

async fn dropped(world: &World) -> Option<DroppedEvents> {
    world.archive().await.snapshot().await.expect("a snapshot").dropped.clone()
}

async fn compared(world: &World, view: &View, version: i64) -> Option<Comparison> {
    world.executor.comparisons.get(&view.name, version).await.expect("readable")
}

/// Runs `view` and checks what it published.
async fn run(world: &World, view: &Arc<View>, full: bool, expected: &mut BTreeMap<String, Expected>) -> u64 {
    let gone = dropped(world).await.map(|dropped| dropped.retained_from);
    let first = gone.map_or(i64::MIN, |day| day.start().0);
    let number = world.run(view, full).await.unwrap_or_else(|failure| panic!("{}: {failure}", view.name));
    let version = world.published(view).and_then(|p| p.version.clone()).expect("a version");
    assert_eq!(version.frozen_before, gone, "{}", view.name);
    assert_eq!(version.ledger, version.seam.accepted(), "{}", view.name);
    let before = expected.get(view.name.as_str());
    let (shown_from, frozen) = match (before, gone) {
        (Some(before), _) => (before.shown_from, parted(view, &before.rows, first).1),
        // A view that comes later begins with the first window that is whole for certain, for ever.
        (None, Some(gone)) => (Horizon::first_whole_date(view.window, gone).start().0, Rows::new()),
        (None, None) => (i64::MIN, Rows::new()),
    };
    let from_archive = parted(view, &computed(world, view, first, &frozen), shown_from).0;
    let mut all = frozen;
    all.extend(from_archive);
    let found = world.batch_rows(view).await;
    assert_eq!(found, all, "{} at {number}, frozen before {gone:?}", view.name);
    let comparison = compared(world, view, number).await;
    let causes = comparison.as_ref().map(|comparison| comparison.causes).unwrap_or_default();
    assert_eq!(causes.unexplained, 0, "{}: {comparison:#?}", view.name);
    expected.insert(view.name.to_string(), Expected { rows: all, shown_from });
    causes.retention
}

/// Drops, compacts and vacuums; then the archive and what it says is gone are all that was accepted and archived.
async fn drop_and_check(world: &World) {
    let before = dropped(world).await;
    world.compact(AT_ONCE).await;
    let snapshot = world.archive().await.snapshot().await.expect("a snapshot");
    if let Some(before) = before {
        let after = snapshot.dropped.as_ref().expect("it was there");
        assert!(after.retained_from >= before.retained_from, "it never goes back");
        assert!(after.ledger().events >= before.ledger().events);
    }
    let views = world.views.all();
    let seen = |tags: &ArchiveTags| views.iter().all(|view| tags.to <= view.seam.offset(tags.partition));
    for file in &snapshot.files {
        let tags = ArchiveTags::from_tags(&file.tags).expect("tags");
        let is_gone =
            snapshot.dropped.as_ref().is_some_and(|d| file.partition.day().is_some_and(|day| day < d.retained_from));
        assert!(!is_gone || !seen(&tags), "{} should be gone", file.path);
    }
}

async fn check(acts: Vec<Act>, days: u32, query_rows: u64) -> (bool, u64) {
    let settings = BatchSettings { query_rows, reconcile_rows: 20, dedup_horizon_events: u64::MAX, ..settings() };
    let mut world = World::keeping(days, settings.clone());
    let views = views();
    let (mut expected, mut now, mut retention) = (BTreeMap::new(), START, 0);
    for act in acts.into_iter().chain([Act::Run(u8::MAX, false), Act::Drop, Act::Run(u8::MAX, true)]) {
        match act {
            Act::Append(partition, events) => world.append(
                partition,
                events.into_iter().map(|(age, origin, delay)| Event {
                    at: now - age * HOUR / 4 - 13,
                    origin,
                    delay: Some(delay),
                    seats: Some((delay % 5) as i32),
                    ..Event::default()
                }),
            ),
            Act::Turn(hours) => {
                now += hours * HOUR;
                world.clock.advance(Duration::from_secs(3_600) * hours as u32);
            }
            Act::Flush => world.flush().await,
            Act::Drop => drop_and_check(&world).await,
            Act::Run(chosen, full) => {
                for (_, view) in views.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1) {
                    retention += run(&world, view, full, &mut expected).await;
                }
            }
            Act::DropDuring(chosen) => {
                let view = &views[usize::from(chosen) % views.len()];
                let dropper = world.compactor();
                let name = world.log.stream.name.clone();
                let dropping = async move { _ = dropper.compact(&name, 2, AT_ONCE).await.expect("compacts") };
                *world.log.before_pin.lock() = Some(Box::new(|| Box::pin(dropping)));
                retention += run(&world, view, false, &mut expected).await;
                *world.log.before_pin.lock() = None;
            }
            Act::Restart => world = world.restarted(&views, settings.clone()).await,
        }
    }
    let gone = dropped(&world).await;
    // A view that comes later has only whole windows of what is left.
    let late = declared("late_hops", "window_start,", MEASURES, "HOP(at, INTERVAL '6' HOUR, INTERVAL '30' HOUR)");
    let late_visits =
        declared("late_visits", "window_start, origin,", MEASURES, "SESSION(at, INTERVAL '7' HOUR), origin");
    for view in [&late, &late_visits] {
        run(&world, view, false, &mut expected).await;
    }
    (gone.is_some(), retention)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_window_is_ever_computed_from_a_part_of_its_events(
        acts in vec(act(), 4..22), days in 1u32..5, query_rows in 1u64..60,
    ) {
        runtime().block_on(check(acts, days, query_rows));
    }
}

fn aged(hours: i64) -> (i64, Option<&'static str>, i64) {
    (hours * 4, Some("ATL"), 7)
}

#[test]
fn late_events_of_dropped_dates_are_excluded_and_named() {
    let acts = vec![
        Act::Append(0, (0..96).map(aged).collect()),
        Act::Run(u8::MAX, false),
        // Speed has these when the dates they fall on are dropped.
        Act::Append(1, vec![aged(80), aged(81), aged(20)]),
        Act::Turn(12),
        Act::Drop,
        Act::Run(u8::MAX, false),
    ];
    let (gone, retention) = runtime().block_on(check(acts, 2, 1_000));
    assert!(gone && retention > 0, "{gone} {retention}");
}

#[test]
fn events_that_continue_a_frozen_session_start_none_of_their_own() {
    let acts = |after: Vec<Act>| {
        let before = [
            Act::Append(0, vec![(64, None, 0)]),
            Act::Turn(10),
            Act::Flush,
            Act::Drop,
            // The last moment of the first day that is left: whether a session began there is not known.
            Act::Append(0, vec![(8, Some("JFK"), 0)]),
            Act::Run(u8::MAX, false),
        ];
        before.into_iter().chain(after).collect::<Vec<Act>>()
    };
    // After a partial run, a full run, a restart, another drop.
    for again in [vec![], vec![Act::Run(u8::MAX, true)], vec![Act::Restart], vec![Act::Turn(40), Act::Drop]] {
        let next = Act::Append(0, vec![(0, Some("JFK"), 0)]);
        let acts = acts(std::iter::once(next).chain(again).collect());
        let (gone, retention) = runtime().block_on(check(acts, 1, 1));
        assert!(gone && retention > 0, "{gone} {retention}");
    }
}

/// A world whose dates before `START - 2 days` are dropped, with an hourly view that has seen all.
async fn world_with_dropped_dates(view: &Arc<View>) -> (World, Day) {
    let world = World::keeping(2, settings());
    let events = (0..96).map(|hour| Event { at: START - hour * HOUR - 13, origin: Some("ATL"), ..Event::default() });
    world.append(0, events);
    world.run(view, false).await.expect("publishes");
    let done = world.compact(AT_ONCE).await;
    let gone = dropped(&world).await.expect("dates are dropped").retained_from;
    assert_eq!(done.retained_from, Some(gone.to_string()));
    assert_eq!(gone, Micros(START - 2 * DAY).day());
    assert!(done.events_dropped > 0 && done.files_deleted > 0, "{done:?}");
    (world, gone)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_over_dropped_dates_is_refused() {
    let hourly = views().remove(0);
    let (world, gone) = world_with_dropped_dates(&hourly).await;
    let asked = async |from: Day| {
        let (views, retry) = (std::iter::once(hourly.name.clone()), RetrySettings::default());
        let queue = RunQueue::new(Arc::new(world.clock.clone()), views, 10, retry, Default::default());
        let range = Some(DateRange { from, to: Day(from.0 + 30) });
        queue.request(hourly.name.as_str(), RunScope { full: false, range }, "backfill").expect("a run");
        let entry = queue.next(&hourly.name).await.expect("a run");
        world.executor.execute(&world.job(&hourly), &entry).await
    };
    let before = world.batch_rows(&hourly).await;
    let refused = asked(Day(gone.0 - 1)).await.expect_err("they are gone").to_string();
    assert!(refused.contains("are frozen") && refused.contains(&format!("from {gone} on")), "{refused}");
    asked(gone).await.expect("all events are there");
    assert_eq!(world.batch_rows(&hourly).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_definition_starts_with_the_first_kept_date() {
    let hourly = views().remove(0);
    let (world, gone) = world_with_dropped_dates(&hourly).await;
    let before = world.batch_rows(&hourly).await;
    let changed =
        declared("hourly", "window_start, origin,", "COUNT(*) AS flights", "TUMBLE(at, INTERVAL '1' HOUR), origin");
    world.run(&changed, false).await.expect("publishes");
    let version = world.published(&changed).and_then(|p| p.version.clone()).expect("a version");
    assert_eq!((version.retained_from, version.frozen_before), (Some(gone), Some(gone)));
    let after = world.batch_rows(&changed).await;
    let left = before.keys().filter(|(start, _)| *start >= gone.start().0);
    assert_eq!(after.keys().collect::<Vec<_>>(), left.collect::<Vec<_>>());
    let comparison = compared(&world, &changed, version.version).await.expect("compared");
    assert_eq!(comparison.causes.unexplained, 0, "{comparison:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_windows_survive_their_removal_by_another_program() {
    let hourly = views().remove(0);
    let (world, gone) = world_with_dropped_dates(&hourly).await;
    let before = world.batch_rows(&hourly).await;
    let table = world.table(&hourly).await;
    let remove = table.snapshot().await.expect("a snapshot").files.clone();
    table.commit(lake::Commit::remove(remove)).await.expect("commits");
    world.run(&hourly, false).await.expect("publishes");
    assert_eq!(world.batch_rows(&hourly).await, before);
    assert!(before.keys().any(|(start, _)| *start < gone.start().0), "some are frozen");
    let loaded = load_published(&world.lake(), &world.log.stream, &hourly).await.expect("loads");
    assert_eq!(loaded.active.version, world.published(&hourly).expect("published").version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_over_all_time_prevents_retention_and_is_refused_after_it() {
    let hourly = views().remove(0);
    let (world, gone) = world_with_dropped_dates(&hourly).await;
    let ever = declared("ever", "origin,", "COUNT(*) AS flights", "origin");
    let refused = world.run(&ever, false).await.expect_err("it cannot be whole").to_string();
    assert!(refused.contains(&format!("before {gone}")) && refused.contains("add a window"), "{refused}");

    let other = World::keeping(2, settings());
    let events = (0..96).map(|hour| Event { at: START - hour * HOUR, origin: Some("ATL"), ..Event::default() });
    other.append(0, events);
    other.run(&ever, false).await.expect("publishes");
    assert_eq!(other.compact(AT_ONCE).await.events_dropped, 0, "a program that declared it earlier may have left it");
}
