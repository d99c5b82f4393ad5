//! Generates random histories: where they start, views with every window and every measure, and events near the present.

use chrono_tz::Tz;
use proptest::prelude::*;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::dialect::{HAVINGS, MEASURES, WHERES};
use super::events::{Event, HOUR, MINUTE, SECOND};
use super::plain::{CODE_DIMENSION, REGION_DIMENSION};
use super::views::{Measure, View};
use super::windows::{Length, Window};

/// Zones and instants at which histories start: around clock changes, around 1970, and at no special instant.
pub const PLACES: [(Tz, &str); 9] = [
    (Tz::UTC, "2001-09-09T01:46:40Z"),
    (Tz::UTC, "1969-12-31T23:59:30Z"),
    (Tz::Europe__Berlin, "2001-03-25T00:59:30Z"),
    (Tz::Europe__Berlin, "2001-10-28T00:59:30Z"),
    (Tz::America__New_York, "1999-12-31T04:59:00Z"),
    (Tz::America__St_Johns, "2008-11-02T02:29:30Z"),
    (Tz::America__Sao_Paulo, "2018-11-04T02:59:30Z"),
    (Tz::Pacific__Apia, "2011-12-30T09:59:30Z"),
    (Tz::Asia__Kathmandu, "1985-12-31T18:29:30Z"),
];

/// One window of every family, fixed and of the calendar.
pub fn windows(random: &mut StdRng) -> Vec<Window> {
    use Length::{Days, Fixed, Months, Quarters, Weeks, Years};
    let seconds = |n: i64| Fixed(n * SECOND);
    let offset = [0, 0, 5 * SECOND, 30 * SECOND].choose(random).copied().expect("one");
    let shift = [0, 0, 6 * HOUR, 2 * HOUR + 30 * MINUTE].choose(random).copied().expect("one");
    let mut one = |of: &[Window]| of.choose(random).copied().expect("one");
    let tumble = |size, offset| Window::Tumble { size, offset };
    let hop = |slide, size, offset| Window::Hop { slide, size, offset };
    let cumulate = |step, max, offset| Window::Cumulate { step, max, offset };
    vec![
        Window::All,
        one(&[tumble(seconds(60), offset), tumble(Fixed(1500 * 1000), 0), tumble(Fixed(5 * HOUR), 90 * MINUTE)]),
        one(&[
            tumble(Days(1), shift),
            tumble(Days(3), 0),
            tumble(Weeks(1), shift),
            tumble(Weeks(2), 0),
            tumble(Months(1), shift),
            tumble(Months(5), 0),
            tumble(Quarters(1), 0),
            tumble(Years(1), shift),
        ]),
        one(&[
            hop(seconds(20), seconds(60), offset),
            hop(seconds(45), seconds(60), offset),
            hop(seconds(60), seconds(60), 0),
            hop(seconds(10), seconds(600), 0),
            // With holes between the windows.
            hop(seconds(60), seconds(45), 0),
            hop(Fixed(HOUR), Fixed(24 * HOUR), 0),
        ]),
        one(&[
            hop(Days(1), Days(7), shift),
            hop(Days(2), Days(3), 0),
            hop(Weeks(1), Weeks(2), shift),
            hop(Months(1), Quarters(1), 0),
            hop(Quarters(1), Years(1), 0),
        ]),
        one(&[
            cumulate(seconds(20), seconds(120), offset),
            cumulate(seconds(60), Fixed(HOUR), 0),
            cumulate(seconds(30), seconds(30), 0),
        ]),
        one(&[
            cumulate(Days(1), Weeks(1), shift),
            cumulate(Fixed(HOUR), Days(1), shift),
            cumulate(Fixed(6 * HOUR), Weeks(1), 0),
            cumulate(Days(1), Days(5), 0),
            cumulate(Months(1), Years(1), 0),
            cumulate(Months(1), Quarters(1), shift),
        ]),
        one(&[Window::Session { gap: 10 * SECOND }, Window::Session { gap: 1 }, Window::Session { gap: 400_000 }]),
        one(&[Window::Session { gap: 60 * SECOND }, Window::Session { gap: 26 * HOUR }]),
        one(&[Window::Slide { size: 60 * SECOND }, Window::Slide { size: HOUR }, Window::Slide { size: 1500 * 1000 }]),
    ]
}

/// The views of a history: all windows, and all measures between them.
pub fn views(zone: Tz, random: &mut StdRng) -> Vec<View> {
    let windows = windows(random);
    let mut hands: Vec<Vec<Measure>> = vec![vec![MEASURES[0]]; windows.len()];
    // Every measure is in three views.
    let mut deck: Vec<Measure> = MEASURES[1..].to_vec();
    for round in 0..3 {
        deck.shuffle(random);
        for (i, measure) in deck.iter().enumerate() {
            let hand = &mut hands[(i + round) % windows.len()];
            if hand.iter().all(|m| m.name != measure.name) {
                hand.push(*measure);
            }
        }
    }
    let view = |(i, (window, measures)): (usize, (Window, Vec<Measure>))| View {
        name: format!("v{i}"),
        window,
        zone,
        filter: random.random_bool(0.3).then(|| *WHERES.choose(random).expect("one")),
        dimensions: match random.random_range(0..4) {
            0 => vec![],
            1 => vec![CODE_DIMENSION],
            2 => vec![REGION_DIMENSION],
            _ => vec![REGION_DIMENSION, CODE_DIMENSION],
        },
        measures,
        having: random.random_bool(0.2).then(|| *HAVINGS.choose(random).expect("one")),
    };
    windows.into_iter().zip(hands).enumerate().map(view).collect()
}

/// An event and its distance, in microseconds, from the present time of the history.
#[derive(Debug, Clone)]
pub struct Near(pub Event, pub i64);

pub fn event() -> impl Strategy<Value = Near> {
    let amount = prop_oneof![8 => -20i64..20, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let distance = prop_oneof![
        12 => (-30i64..60).prop_map(|s| s * SECOND),
        4 => (-40_000i64..40_000).prop_map(|ms| ms * 1000),
        4 => (-300i64..120).prop_map(|s| s * SECOND),
        2 => (-200_000i64..0).prop_map(|s| s * SECOND),
        1 => prop_oneof![(0i64..100_000).prop_map(|s| s * SECOND), Just(-1_000_000_100 * SECOND), Just(1)],
    ];
    let price = prop_oneof![6 => -1e6..1e6f64, 2 => (-3i32..3).prop_map(f64::from), 1 => Just(-0.0), 1 => Just(1e100)];
    (
        prop::option::weighted(0.9, 0u32..500),
        distance,
        prop::option::weighted(0.8, prop::sample::select(vec!["north", "south", "", "größer"])),
        prop::option::weighted(0.8, amount),
        prop::option::weighted(0.8, price),
        prop::option::weighted(0.8, prop_oneof![3 => -100_000i64..100_000, 1 => -2i64..2]),
        prop::option::weighted(0.9, -2i32..2),
        any::<Option<bool>>(),
        prop::option::weighted(0.8, -3i32..12_000),
    )
        .prop_map(|(id, distance, region, amount, price, cost_cents, code, flag, day)| {
            let id = id.map(|id| format!("e{id}"));
            let region = region.map(str::to_owned);
            Near(Event { id, at: 0, region, amount, price, cost_cents, code, flag, day }, distance)
        })
}
