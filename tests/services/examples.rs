//! Runs the two example programs from topic to topic, with orders that are out of order and late, over a kill, and compares every
//! record of the output with a fold of the input topic.

use std::cell::Cell;
use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use world::{World, root};

use crate::broker::shared;
use crate::sinks::{sink, written};
use crate::topic::{ReadRecord, Topic, read_records};
use crate::window_fold::{Fold, MINUTE, Order, PARTITIONS, SECOND, Sum, orders, seed, time};

/// Kind, layer and value of the records of each key, in order.
type Records = BTreeMap<String, Vec<(String, String, Value)>>;

fn example(path: &str, input: &Topic, output: &Topic, topic: &str) -> World {
    let sql = std::fs::read_to_string(root().join("examples").join(path)).expect("the example");
    assert!(sql.contains("topic = 'orders'") && sql.contains(topic), "{sql}");
    let sql = sql.replace("topic = 'orders'", &format!("topic = '{}'", input.name)).replace(topic, &output.name);
    input.world(&sql)
}

/// The records of each key, in order.
fn by_key(output: &Topic) -> BTreeMap<String, Vec<ReadRecord>> {
    let mut keys: BTreeMap<String, Vec<ReadRecord>> = BTreeMap::new();
    for record in output.read() {
        keys.entry(record.key.clone()).or_default().push(record);
    }
    keys
}

fn kind(record: &ReadRecord) -> (&str, &str) {
    (&record.headers["_kind"], &record.headers["_layer"])
}

/// An order of each partition: one without orders does not hold back the watermark.
fn firsts(at: i64) -> Vec<Order> {
    let first = |partition| Order { partition, group: format!("first-{partition}"), is_counted: true, cents: 1, at };
    (0..PARTITIONS).map(first).collect()
}

/// Waits until all records of the input are read, and the output has every window that ends before `closes`.
fn settled(world: &World, name: &str, records: usize, closes: i64) {
    read_records(world, "orders", records);
    written(world, name);
    world.wait_for("the watermark", |world| sink(world, name)["watermark"].as_str() >= Some(time(closes).as_str()));
}

#[test]
fn completed_orders_are_counted_per_five_minutes() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, PARTITIONS), Topic::create(broker, PARTITIONS));
    let mut world = example("completed-orders/completed_orders.sql", &input, &output, "completed-orders-per-5-minutes");
    let (mut dice, mut fold) = (StdRng::seed_from_u64(seed()), Fold::new(5 * MINUTE, MINUTE, 0));
    let number = Cell::new(0);
    let mut send = |orders: Vec<Order>| {
        let records = orders.iter().map(|order| {
            fold.add(order);
            number.set(number.get() + 1);
            let status = if order.is_counted { "COMPLETED" } else { "CANCELLED" };
            let value = json!({
                "order_id": format!("o-{}", number.get()), "product": order.group, "status": status, "placed_at": time(order.at),
            });
            input.record(order.partition, value.to_string())
        });
        input.write(records.collect::<Vec<_>>());
    };
    let begin = 3 * 60 * MINUTE;
    send(firsts(begin));
    read_records(&world, "orders", number.get());
    send(orders(&mut dice, begin, 700, false));
    world.kill();
    world.start();
    send(orders(&mut dice, begin + 700 * 2 * SECOND, 700, false));
    let end = 4 * 60 * MINUTE;
    let last = |partition| Order { partition, group: "end".to_owned(), is_counted: false, cents: 0, at: end };
    send((0..PARTITIONS).map(last).collect());
    settled(&world, "completed_orders_out", number.get(), end - 2 * MINUTE);
    let key = |(start, group): &(i64, String)| {
        format!("{{\"window_start\":\"{}\",\"product\":\"{}\"}}", time(*start), group.to_uppercase())
    };
    let value = |(start, group): &(i64, String), orders: i64| {
        json!({
            "window_start": time(*start), "window_end": time(start + 5 * MINUTE), "product": group.to_uppercase(),
            "orders": orders,
        })
    };
    // One record per window and product, whatever the cuts were: late orders are excluded by their own partition.
    let row = |kind: &str, layer: &str, value: Value| (kind.to_owned(), layer.to_owned(), value);
    let mut expected = Records::new();
    for (place, window) in fold.closed().filter(|(_, window)| !window.live.is_empty()) {
        let orders = window.live.len() as i64;
        expected.insert(key(place), vec![row("final", "speed", value(place, orders))]);
    }
    let found = || -> Records {
        let of = |record: &ReadRecord| {
            let (kind, layer) = kind(record);
            row(kind, layer, record.value.clone().expect("a value"))
        };
        by_key(&output).into_iter().map(|(key, records)| (key, records.iter().map(of).collect())).collect()
    };
    assert!(expected.len() > 30, "{}", expected.len());
    assert_eq!(found(), expected, "seed {}", seed());

    // A batch run includes the late orders: each changed figure is corrected once, and no other.
    assert_eq!(world.run("completed_orders", false)["state"], "published");
    written(&world, "completed_orders_out");
    let mut corrections = 0;
    for (place, window) in fold.closed().filter(|(_, window)| window.all.0 != window.live.len() as i64) {
        let kind = if window.live.is_empty() { "final" } else { "correction" };
        expected.entry(key(place)).or_default().push(row(kind, "batch", value(place, window.all.0)));
        corrections += 1;
    }
    assert!(corrections > 5, "{corrections}");
    assert_eq!(found(), expected, "seed {}", seed());
}

#[test]
fn orders_are_added_up_per_user_and_minute() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, PARTITIONS), Topic::create(broker, PARTITIONS));
    let mut world = example("order-aggregates/order_aggregates.sql", &input, &output, "order-aggregates");
    let (mut dice, mut fold) = (StdRng::seed_from_u64(seed() + 1), Fold::new(MINUTE, 20 * SECOND, MINUTE));
    let number = Cell::new(0);
    let mut send = |orders: Vec<Order>| {
        let records = orders.iter().map(|order| {
            let order = Order { is_counted: true, ..order.clone() };
            fold.add(&order);
            number.set(number.get() + 1);
            let value = json!({
                "order_id": format!("o-{}", number.get()), "user_id": order.group,
                "amount": format!("{}.{:02}", order.cents / 100, order.cents % 100), "event_time": time(order.at),
            });
            input.record(order.partition, value.to_string())
        });
        input.write(records.collect::<Vec<_>>());
    };
    let begin = 3 * 60 * MINUTE;
    send(firsts(begin));
    read_records(&world, "orders", number.get());
    for (part, some) in orders(&mut dice, begin, 1_500, true).chunks(75).enumerate() {
        send(some.to_vec());
        if part == 4 {
            world.kill();
            world.start();
        }
        // Orders of a part are closed by those of the next, so that late ones find written windows.
        settled(&world, "order_aggregates_out", number.get(), 0);
    }
    let end = 5 * 60 * MINUTE;
    let last = |partition| Order { partition, group: "end".to_owned(), is_counted: true, cents: 1, at: end };
    send((0..PARTITIONS).map(last).collect());
    settled(&world, "order_aggregates_out", number.get(), end - MINUTE);
    let key =
        |(start, user): &(i64, String)| format!("{{\"window_start\":\"{}\",\"user_id\":\"{user}\"}}", time(*start));
    let value = |(start, user): &(i64, String), (orders, cents): Sum| {
        json!({
            "window_start": time(*start), "window_end": time(start + MINUTE), "user_id": user, "orders": orders,
            "amount": format!("{}.{:02}", cents / 100, cents % 100),
        })
    };
    let check = |is_after_run: bool| {
        let mut found = by_key(&output);
        let (mut live_corrections, mut batch_corrections) = (0, 0);
        for (place, window) in fold.closed() {
            let context = format!("seed {}: {place:?} {window:?} {:?}", seed(), found.get(&key(place)));
            let mut records = found.remove(&key(place)).unwrap_or_default();
            let total = value(place, window.all);
            if is_after_run && window.all.0 != window.live.len() as i64 {
                let last = records.pop().expect(&context);
                assert_eq!(last.value.as_ref(), Some(&total), "{context}");
                let expected = if window.live.is_empty() { "final" } else { "correction" };
                assert_eq!(kind(&last), (expected, "batch"), "{context}");
                batch_corrections += 1;
            }
            // Each record is the state after some orders: the first after all that came in time, the last after all.
            let mut reached = 0;
            for (at, record) in records.iter().enumerate() {
                let orders =
                    record.value.as_ref().and_then(|value| value["orders"].as_u64()).expect("a count") as usize;
                let least = if at == 0 { window.in_time.max(1) } else { reached + 1 };
                assert!((least..=window.live.len()).contains(&orders), "{context}");
                assert_eq!(record.value.as_ref(), Some(&value(place, window.live[orders - 1])), "{context}");
                assert_eq!(kind(record), (if at == 0 { "final" } else { "correction" }, "speed"), "{context}");
                reached = orders;
                live_corrections += usize::from(at > 0);
            }
            assert_eq!(reached, window.live.len(), "{context}");
        }
        assert_eq!(found, BTreeMap::new(), "records of open windows");
        (live_corrections, batch_corrections)
    };
    let (live, _) = check(false);
    assert!(live > 3, "{live} live corrections");
    assert_eq!(world.run("order_aggregates", false)["state"], "published");
    written(&world, "order_aggregates_out");
    let (_, batch) = check(true);
    assert!(batch > 3, "{batch} corrections of the run");
}
