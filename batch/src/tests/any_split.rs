//! Checks that no result depends on how events are split into runs, files and partitions.

use proptest::collection::vec;
use proptest::prelude::*;
use shared::view::View;
use std::sync::Arc;
use std::time::Duration;

use super::values::everything;
use super::world::{Event, HOUR, World, assert_same, rows, settings, view};
use crate::settings::BatchSettings;

#[derive(Debug, Clone)]
enum Act {
    Append(usize, Vec<Event>),
    Flush,
    Run,
    /// Small files become few, and the old ones are deleted at once.
    Compact,
}

fn event() -> impl Strategy<Value = Event> {
    let origin = prop_oneof![Just(None), Just(Some("ATL")), Just(Some("JFK")), Just(Some("ORD"))];
    let delay = proptest::option::of(prop_oneof![4 => -60i64..200, 1 => any::<i64>()]);
    let fare = proptest::option::of(prop_oneof![8 => -1e6..1e6, 1 => Just(f64::NAN), 1 => Just(-0.0)]);
    // Half of the ids come twice at least, on whatever date.
    let id = proptest::option::of(0u32..30);
    (id, -60i64..60, origin, delay, fare, any::<Option<bool>>()).prop_map(|(id, quarter, origin, delay, fare, ok)| {
        Event {
            id: id.map(|id| id.to_string()),
            at: quarter * (HOUR / 2) + 13,
            origin,
            delay,
            fare,
            ok,
            ..Event::default()
        }
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0usize..2, vec(event(), 1..25)).prop_map(|(partition, events)| Act::Append(partition, events)),
        1 => Just(Act::Flush),
        2 => Just(Act::Run),
        1 => Just(Act::Compact),
    ]
}

fn views() -> Vec<Arc<View>> {
    [
        everything("hourly", "window_start, origin,", "GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin"),
        everything("uneven", "window_start,", "WHERE ok GROUP BY TUMBLE(at, INTERVAL '11' HOUR)"),
        everything("long", "window_start, ok,", "GROUP BY TUMBLE(at, INTERVAL '2' DAY), ok"),
        everything("ever", "origin,", "WHERE delay < 100 GROUP BY origin"),
    ]
    .iter()
    .map(|sql| view(sql))
    .collect()
}

/// Keeps the first of equal ids within a date.
fn first_of_ids() -> impl FnMut(usize, &Event) -> bool {
    let mut seen = std::collections::HashSet::new();
    move |_, event| event.id.as_ref().is_none_or(|id| seen.insert((event.at.div_euclid(24 * HOUR), id.clone())))
}

async fn check(acts: Vec<Act>, dedup: bool, query_rows: u64, remote: bool) {
    let horizon = if dedup { 0 } else { u64::MAX };
    let settings = BatchSettings { dedup_horizon_events: horizon, query_rows, reconcile_rows: 20, ..settings() };
    let world = if remote { World::remote(settings) } else { World::new(settings) };
    let views = views();
    for act in acts.into_iter().chain([Act::Run]) {
        match act {
            Act::Append(partition, events) => world.append(partition, events),
            Act::Flush => world.flush().await,
            Act::Compact => _ = world.compact(Some(Duration::ZERO)).await,
            Act::Run => {
                for view in &views {
                    let version = world.run(view, false).await.expect("publishes");
                    let mut unique = first_of_ids();
                    let folded = world.log.folded(view, world.log.head(), |p, e| !dedup || unique(p, e));
                    let exact = world.batch_rows(view).await;
                    assert_same(&exact, &rows(view, &[&folded]), 1e6);
                    let kept = world.executor.comparisons.get(&view.name, version).await.expect("readable");
                    if let Some(comparison) = kept {
                        assert_eq!(comparison.causes.unexplained, 0, "{comparison:#?}");
                        assert_eq!(comparison.causes.definition, 0);
                        assert!(dedup || comparison.causes.duplicate == 0);
                    }
                }
            }
        }
    }
    let compacted = world.compact(Some(Duration::ZERO)).await;
    assert_eq!(
        compacted.files_after,
        world.neighbourhoods().await,
        "every view has taken in everything: {compacted:?}"
    );
    for view in &views {
        let incremental = world.batch_rows(view).await;
        world.run(view, true).await.expect("publishes");
        assert_same(&world.batch_rows(view).await, &incremental, 1e6);
    }
    if remote {
        let left = std::fs::read_dir(world.folder.path().join("spool")).expect("a spool").count();
        assert_eq!(left, 0, "files are left in the spool");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn incremental_runs_equal_full_ones(
        acts in vec(act(), 1..9), dedup: bool, query_rows in 1u64..60, remote: bool
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(check(acts, dedup, query_rows, remote));
    }
}
