//! Checks valid joins: the columns that expressions mean, what a definition is, and what is read back.

use super::parse;
use crate::explain::describe;
use crate::lookup::definition::{JoinKind, joined_index};
use crate::sql::parse_view;
use crate::view::View;

const SHOP: &str = "
    CREATE TABLE customers (id BIGINT PRIMARY KEY, country STRING, region INT, updated_at TIMESTAMP) WITH (event_time = 'updated_at');
    CREATE TABLE regions (at TIMESTAMP, id BIGINT PRIMARY KEY, name STRING) WITH (event_time = 'at');
    CREATE STREAM orders (customer INT, amount BIGINT, at TIMESTAMP) WITH (event_time = 'at');";

fn view(select: &str) -> View {
    let text = format!("{SHOP} CREATE VIEW v AS SELECT {select}");
    let mut parsed = parse(&text).unwrap_or_else(|errors| panic!("{select}: {}", errors[0]));
    let view = parsed.views.remove(0);
    // A version keeps the statement alone.
    let again = parse_view(&parsed.streams[3], &view.joined_tables(), &view.sql).expect("it can be read again");
    assert_eq!(again.definition_hash(), view.definition_hash(), "{select}");
    view
}

#[test]
fn joins_name_a_table_a_key_and_columns_of_any_of_them() {
    let joined = view(
        "country, r.name, COUNT(*) AS n, SUM(amount * c.region) AS total
         FROM orders AS o INNER JOIN customers AS c ON c.id = o.customer LEFT OUTER JOIN regions AS r ON region = r.id
         WHERE c.region > 0 GROUP BY country, r.name",
    );
    let found: Vec<_> = joined.joins.iter().map(|join| (join.alias.as_str(), join.kind, join.on)).collect();
    assert_eq!(found, [("c", JoinKind::Inner, 0), ("r", JoinKind::Left, joined_index(0, 2))]);
    let columns: Vec<_> = joined.joined_columns().into_iter().collect();
    assert_eq!(
        columns,
        [(0, 0), (0, 1), (0, 2), (1, 2)],
        "the key, which says whether there is a row, and what is named"
    );
    assert_eq!(joined.dimensions.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["country", "name"]);
    let streams = parse(SHOP).expect("right").streams;
    let text = describe(&joined, &streams[3]);
    for part in [
        "INNER JOIN customers AS c ON customer = c.id; an event without a row is in no figure",
        "LEFT JOIN regions AS r ON c.region = r.id; without a row its columns are NULL",
        "filter           NOT c.id IS NULL AND CAST(c.region AS BIGINT) > 0",
        "scan             events/orders (customer, amount)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_definition_is_its_tables_kinds_and_columns_not_its_names() {
    let hash = |from: &str, country: &str| {
        view(&format!("{country} AS country, COUNT(*) AS n FROM {from} GROUP BY {country}")).definition_hash()
    };
    let first = hash("orders LEFT JOIN customers ON orders.customer = customers.id", "customers.country");
    assert_eq!(first, hash("orders AS o LEFT JOIN customers AS k ON k.id = o.customer", "country"));
    let others = [
        hash("orders JOIN customers ON orders.customer = customers.id", "customers.country"),
        hash("orders LEFT JOIN regions ON orders.customer = regions.id", "regions.name"),
        hash("orders LEFT JOIN customers ON orders.amount = customers.id", "country"),
    ];
    assert!(others.iter().all(|other| *other != first), "{others:?}");
    // Without joins it is as before.
    assert!(view("COUNT(*) AS n FROM orders AS o WHERE o.amount > 1").joins.is_empty());
}
