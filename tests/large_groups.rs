//! Tests that bounds hold in groups that are large enough for sketches, in every window, layer and grain, before and
//! after runs and a restart; and that batch is exact.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use world::World;
use world::oracle::events::{Event, HOUR, Log, MINUTE};
use world::oracle::plain::REGION_DIMENSION;
use world::oracle::table::Coverage;
use world::oracle::windows::{Length, Window};
use world::oracle_check::{
    Layer, PATIENT_ALONE, Question, check, check_causes, definitions, micros, must, post, published, view,
};

/// Groups are large enough for sketches: exact values lie in the bounds, and batch is exact.
#[test]
fn bounds_of_large_groups_hold() {
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let begin = micros("2001-09-09T00:00:00Z");
    let names = [
        "n",
        "total",
        "price_var_samp",
        "different_amounts",
        "different_prices",
        "different_times",
        "median_amount",
        "p95_price",
        "q25_amount",
        "q50_at",
        "q90_price_down",
        "p10_cost_down",
        "top_costs",
        "top_positive",
        "top_prices",
        "first_amount",
        "last_price",
    ];
    let views = [
        view("whole", Window::All, &[], &names),
        view("hours", Window::Tumble { size: Length::Fixed(HOUR), offset: 0 }, &[REGION_DIMENSION], &names),
        view(
            "hops",
            Window::Hop { slide: Length::Fixed(30 * MINUTE), size: Length::Fixed(2 * HOUR), offset: 0 },
            &[],
            &names,
        ),
        view(
            "grown",
            Window::Cumulate { step: Length::Fixed(HOUR), max: Length::Fixed(4 * HOUR), offset: 0 },
            &[],
            &names,
        ),
        view("visits", Window::Session { gap: 2 * MINUTE }, &[REGION_DIMENSION], &names),
        view("trailing", Window::Slide { size: HOUR }, &[], &names),
    ];
    let mut world = World::new(&definitions(PATIENT_ALONE, &views));
    let mut log = Log::new(PATIENT_ALONE);
    let mut coverage = Coverage::default();
    let mut next = 0;
    let mut send = |world: &World, log: &mut Log, count: usize, random: &mut StdRng| {
        let event = |i: usize| Event {
            id: Some(format!("e{i}")),
            at: begin + random.random_range(0..4 * HOUR),
            region: Some(["a", "a", "a", "b"].choose(random).copied().expect("one").to_owned()),
            // Some values are frequent, most are rare.
            amount: Some(if random.random_bool(0.3) {
                random.random_range(1..6)
            } else {
                random.random_range(-99_999..99_999)
            }),
            // Binary fractions, which survive JSON bit for bit.
            price: (!i.is_multiple_of(10))
                .then(|| (random.random_range(0.0..1.0f64).powi(4) * 1024e3).round() / 1024.0),
            cost_cents: Some(if random.random_bool(0.5) {
                random.random_range(0..20)
            } else {
                random.random_range(0..9_999_999)
            }),
            ..Event::default()
        };
        let events: Vec<Event> = (next..next + count).map(event).collect();
        next += count;
        post(world, log, &events);
    };
    let mut ask = |world: &World, log: &Log, layers: &[Layer]| {
        for view in &views {
            for layer in layers {
                let before = coverage.values();
                must(check(world, log, view, &Question::of(*layer), &mut coverage));
                let exact = *layer == Layer::Batch && !matches!(view.window, Window::Slide { .. });
                assert!(!exact || coverage.values() == before, "{}: batch is exact in its own windows", view.name);
            }
            if !view.dimensions.is_empty() {
                let fewer = Question { by: Some(vec![]), ..Question::of(layers[0]) };
                must(check(world, log, view, &fewer, &mut coverage));
            }
            let hour_as_day = [("1d", Window::Tumble { size: Length::Days(1), offset: 0 }), ("all", Window::All)];
            for grain in hour_as_day.into_iter().filter(|_| view.name == "hours") {
                let coarser = Question { grain: Some(grain), ..Question::of(layers[0]) };
                must(check(world, log, view, &coarser, &mut coverage));
            }
        }
    };
    send(&world, &mut log, 12_000, &mut random);
    ask(&world, &log, &[Layer::Merged]);
    for view in &views {
        published(&world.run(&view.name, false));
        check_causes(&world, &view.name).unwrap_or_else(|e| panic!("{e}"));
    }
    ask(&world, &log, &[Layer::Batch, Layer::Merged]);
    send(&world, &mut log, 6_000, &mut random);
    ask(&world, &log, &[Layer::Merged, Layer::Speed]);
    world.kill();
    world.start();
    ask(&world, &log, &[Layer::Merged]);
    println!("{} approximate values", coverage.values());
    assert!(coverage.values() > 100, "nothing was approximate");
    coverage.assert_holds("large groups");
}
