//! Random orders and changes of tables, runs, kills and stops: after each step the merged, batch and speed figures equal those of the
//! oracle, whichever changes came late.

use proptest::prelude::*;
use serde_json::json;
use world::World;
use world::joined_views::{
    CustomerChange, DEFINITIONS, Layer, Model, Order, RegionChange, VIEWS, customer_change, order, region_change,
};

/// A short log: it is trimmed as soon as runs and archive allow it, so a start needs the archive.
const SHORT_LOG: &str = "dedup_horizon_events = 50\nlog_segment_bytes = 4096\narchive_wait_ms = 20\n";

#[derive(Debug, Clone)]
enum Step {
    Order(Vec<Order>),
    Customers(Vec<CustomerChange>),
    Regions(Vec<RegionChange>),
    Run { view: usize, full: bool },
    Kill,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(order(), 1..40).prop_map(Step::Order),
        5 => prop::collection::vec(customer_change(), 1..12).prop_map(Step::Customers),
        2 => prop::collection::vec(region_change(), 1..5).prop_map(Step::Regions),
        4 => (0usize..3, prop::bool::weighted(0.25)).prop_map(|(view, full)| Step::Run { view, full }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

fn follow(steps: &[Step]) {
    let mut world = World::stopped(DEFINITIONS);
    world.set_limits(SHORT_LOG);
    world.start();
    let mut model = Model::default();
    for (number, step) in steps.iter().enumerate() {
        let context = format!("step {number}");
        match step {
            Step::Order(orders) => model.order(&world, orders),
            Step::Customers(changes) => model.write_customers(&world, changes),
            Step::Regions(changes) => model.write_regions(&world, changes),
            Step::Run { view, full } => _ = model.run(&world, *view, *full, &context),
            Step::Kill => {
                world.kill();
                world.start();
                model.restarted();
            }
            Step::Stop => {
                assert_eq!(world.stop(), Some(0), "{context}");
                world.start();
                model.restarted();
            }
        }
        for view in 0..VIEWS.len() {
            model.check(&world, view, Layer::Merged, &context);
            model.check(&world, view, Layer::Speed, &context);
        }
    }
    for (view, name) in VIEWS.iter().enumerate() {
        model.run(&world, view, false, "in the end");
        model.run(&world, view, true, "in the end, full");
        model.check(&world, view, Layer::Merged, "in the end");
        // I5: the incremental run before has left nothing to correct.
        let comparison = world.get(&format!("/v1/views/{name}/compare")).json();
        assert_eq!(comparison["rows_equal"], comparison["rows_compared"], "{name}: {comparison}");
        assert_eq!(comparison["causes"]["lookup"], json!(0), "{name}: {comparison}");
    }
}

pub fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn figures_of_joined_views_equal_a_scan_of_all_changes(steps in prop::collection::vec(step(), 4..18)) {
        follow(&steps);
    }
}
