//! Checks that Polars computes what the dialect means: every function, over the values at which engines differ.

use super::world::{Event, HOUR, World, assert_same, rows, settings, view};

const EVERYTHING: &str = "SELECT_LIST
    COUNT(*) AS n, COUNT(delay) AS delays, SUM(delay) AS delay_sum, AVG(delay) AS delay_avg,
    MIN(delay) AS delay_min, MAX(delay) AS delay_max, SUM(delay + 1) AS shifted, SUM(seats) AS seats_sum,
    MAX(seats) AS seats_max, SUM(fare) AS fare_sum, AVG(fare) AS fare_avg, MIN(fare) AS fare_min,
    MAX(fare) AS fare_max, SUM(price) AS price_sum, AVG(price) AS price_avg, MIN(price) AS price_min,
    SUM(tax) AS tax_sum, MAX(tax) AS tax_max, MIN(origin) AS first_origin, MAX(origin) AS last_origin,
    MIN(at) AS earliest, MAX(ok) AS any_ok, MIN(ok) AS all_ok, MIN(CAST(at AS DATE)) AS first_day,
    COUNT(*) FILTER (WHERE delay > 15) AS late, SUM(fare) FILTER (WHERE ok) AS ok_fare,
    MAX(fare) FILTER (WHERE delay < 0) AS early_fare, SUM(delay) / COUNT(*) AS ratio";

/// The statement of a view with every aggregate.
pub fn everything(name: &str, keys: &str, rest: &str) -> String {
    format!(
        "CREATE VIEW {name} AS {} FROM flights {rest}",
        EVERYTHING.replace("SELECT_LIST", &format!("SELECT {keys}"))
    )
}

/// Events with every odd value there is, spread over three days around 1970.
pub fn odd_events() -> Vec<Event> {
    let delays = [None, Some(0), Some(16), Some(-5), Some(i64::MAX), Some(i64::MAX), Some(i64::MIN), Some(1)];
    let fares = [Some(1.5), Some(-0.0), None, Some(f64::NAN), Some(0.0), Some(f64::INFINITY), Some(1e300)];
    let prices = [None, Some(10i128.pow(38) - 1), Some(-7), Some(12_345), Some(10i128.pow(37))];
    let origins = [Some("ATL"), None, Some(""), Some("é"), Some("ORD")];
    let event = |i: usize| Event {
        id: Some(format!("event {i}")),
        at: -30 * HOUR + i as i64 * (HOUR / 7 * 3),
        origin: origins[i % origins.len()],
        delay: delays[i % delays.len()],
        seats: [Some(i32::MAX), None, Some(i32::MIN), Some(4)][i % 4],
        fare: fares[i % fares.len()],
        price: prices[i % prices.len()],
        tax: [Some(999_999_999), None, Some(-1)][i % 3],
        ok: [None, Some(true), Some(false)][i % 3],
        watermark: None,
    };
    (0..160).map(event).collect()
}

async fn agrees(sql: &str) {
    let world = World::new(settings());
    let view = view(sql);
    let events = odd_events();
    for (number, chunk) in events.chunks(40).enumerate() {
        world.append(number % 2, chunk.to_vec());
        world.flush().await;
    }
    world.run(&view, false).await.expect("publishes");
    let exact = world.batch_rows(&view).await;
    let folded = world.log.folded(&view, world.log.head(), |_, _| true);
    assert!(!exact.is_empty());
    assert_same(&exact, &rows(&view, &[&folded]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_by_window_and_group_are_exact() {
    let keys = "window_start, window_end, origin,";
    agrees(&everything("v", keys, "GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_by_windows_across_midnight_and_computed_groups_are_exact() {
    let keys = "window_start, UPPER(origin) AS up, fare * 0 AS zero, delay IS NULL AS missing,";
    let rest = "WHERE seats IS NOT NULL GROUP BY TUMBLE(at, INTERVAL '7' HOUR), UPPER(origin), fare * 0, delay IS NULL";
    agrees(&everything("v", keys, rest)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_over_all_time_are_exact() {
    agrees(&everything("v", "origin,", "GROUP BY origin")).await;
    agrees(&everything("v", "", "WHERE origin <> 'ORD'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_without_events_has_no_rows() {
    for keys in [("", ""), ("window_start,", "GROUP BY TUMBLE(at, INTERVAL '1' HOUR)")] {
        let world = World::new(settings());
        let view = view(&everything("v", keys.0, &format!("WHERE origin = 'nowhere' {}", keys.1)));
        world.append(0, odd_events());
        assert_eq!(world.run(&view, false).await.expect("publishes"), 1);
        assert!(world.batch_rows(&view).await.is_empty());
        assert!(world.parquet_files(&view).is_empty());
    }
}
