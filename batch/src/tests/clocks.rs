//! Checks that a clock that is set by years deletes nothing, neither from archives nor from views, and stops no run.

use std::sync::Arc;
use std::time::Duration;

use shared::retention::Retention;
use shared::time::{Day, Micros};
use shared::view::View;

use super::runs::{HOURLY, event};
use super::world::{HOUR, World, settings, view};

const START: i64 = 1_000 * HOUR;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// A view that keeps its rows for `days`.
fn keeping(days: u32) -> Arc<View> {
    let view = view(HOURLY);
    Arc::new(View { retention: Some(Retention { months: 0, days }), ..View::clone(&view) })
}

/// A world whose stream and view keep 30 days, with events of the last 40 days.
async fn world_of_forty_days() -> (World, Arc<View>) {
    let world = World::keeping(30, settings());
    let view = keeping(30);
    let first = (START - 40 * DAY) / HOUR;
    world.append(0, (0..40).map(|day| event(&format!("e{day}"), first + 24 * day, "ATL")));
    world.run(&view, false).await.expect("publishes");
    world.compact(AT_ONCE).await;
    world.run(&view, false).await.expect("publishes");
    (world, view)
}

async fn archived_files(world: &World) -> usize {
    world.archive().await.snapshot().await.expect("a snapshot").files.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_set_by_years_drops_nothing_and_loses_no_later_event() {
    for years in [3, 300, -3, -40] {
        let (world, view) = world_of_forty_days().await;
        let (rows, files) = (world.batch_rows(&view).await, archived_files(&world).await);
        assert!(rows.len() >= 28 && files >= 28, "{} rows, {files} files", rows.len());

        world.clock.set(Micros(START + years * YEAR));
        world.append(0, [event("wrong clock", START / HOUR - 1, "ORD")]);
        world.run(&view, false).await.expect("publishes");
        world.run(&view, true).await.expect("publishes");
        let compacted = world.compact(AT_ONCE).await;
        assert_eq!(compacted.events_dropped, 0, "{years}: {compacted:?}");
        assert_eq!(world.batch_rows(&view).await.len(), rows.len() + 1, "{years}");

        // The clock is right again: events count as before.
        world.clock.set(Micros(START));
        world.clock.advance(Duration::from_secs(3_600));
        world.append(0, [event("right clock", START / HOUR, "ORD")]);
        world.run(&view, false).await.expect("publishes");
        assert_eq!(world.batch_rows(&view).await.len(), rows.len() + 2, "{years}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_on_another_machine_with_a_clock_set_by_years_drops_nothing() {
    for years in [3, 300, -3] {
        let (world, view) = world_of_forty_days().await;
        let (rows, files) = (world.batch_rows(&view).await, archived_files(&world).await);
        // The clock is wrong when the last version is published and when the next process starts, which finds no note.
        world.clock.set(Micros(START + years * YEAR));
        world.append(0, [event("wrong clock", START / HOUR - 1, "ORD")]);
        world.run(&view, false).await.expect("publishes");
        let world = world.restarted(&[Arc::clone(&view)], settings()).await;
        world.run(&view, true).await.expect("publishes");
        let compacted = world.compact(AT_ONCE).await;
        assert_eq!(compacted.events_dropped, 0, "{years}: {compacted:?}");
        assert_eq!(world.batch_rows(&view).await.len(), rows.len() + 1, "{years}");
        assert!(archived_files(&world).await >= files, "{years}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_move_on_confirm_the_clock() {
    let (world, view) = world_of_forty_days().await;
    let before = world.batch_rows(&view).await.len();
    // The machine stood still for 60 days.
    world.clock.set(Micros(START + 60 * DAY));
    world.compact(AT_ONCE).await;
    assert_eq!(world.batch_rows(&view).await.len(), before);
    world.append(0, [event("after", START / HOUR + 60 * 24, "ORD"), event("next", START / HOUR + 60 * 24 + 2, "ORD")]);
    world.run(&view, false).await.expect("publishes");
    let version = world.published(&view).and_then(|p| p.version.clone()).expect("a version");
    assert_eq!(version.retained_from, Some(Day(Micros(START + 30 * DAY).day().0)));
    assert_eq!(world.batch_rows(&view).await.len(), 2);
    assert!(world.compact(AT_ONCE).await.events_dropped > 0);
}
