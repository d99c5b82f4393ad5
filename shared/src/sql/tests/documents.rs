//! Checks that the SQL in documents and examples parses.

use crate::sql::parse_definitions;

/// The SQL blocks of a document, in order, as files.
fn blocks(name: &str, text: &str) -> Vec<(String, String)> {
    let parts = text.split("```sql\n").skip(1);
    let block = |(index, part): (usize, &str)| {
        let sql = part.split_once("```").map_or(part, |(sql, _)| sql);
        (format!("{name}, block {}", index + 1), sql.to_owned())
    };
    parts.enumerate().map(block).collect()
}

#[test]
fn every_block_of_the_dialect_parses_and_all_windows_and_measures_appear() {
    let files = blocks("dialect.md", include_str!("../../../../docs/dialect.md"));
    let definitions = parse_definitions(&files).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert!(files.len() > 6 && definitions.streams.len() == 2);
    for (name, text) in &files {
        let views = text.matches("CREATE VIEW").count();
        assert!(views > 0, "{name} shows no view");
    }
    let shown = files.iter().map(|(_, text)| text.to_lowercase()).collect::<String>();
    let documented = include_str!("../../../../docs/dialect.md").to_lowercase();
    for window in crate::sql::window::NAMES {
        assert!(shown.contains(&format!("{window}(")), "no example of {window}");
    }
    for measure in crate::sql::aggregate::NAMES {
        assert!(documented.contains(measure), "{measure} is not documented");
    }
}

#[test]
fn the_blocks_of_the_page_about_alerts_parse() {
    let files = blocks("alerts.md", include_str!("../../../../docs/alerts.md"));
    let definitions = parse_definitions(&files).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(definitions.alerts.len(), 2);
    let example = ("fraud.sql".to_owned(), include_str!("../../../../examples/fraud/fraud.sql").to_owned());
    assert_eq!(parse_definitions(&[example]).expect("valid").alerts.len(), 2);
}

#[test]
fn the_blocks_of_the_page_about_kafka_parse() {
    let files = blocks("kafka.md", include_str!("../../../../docs/kafka.md"));
    let definitions = parse_definitions(&files).unwrap_or_else(|errors| panic!("{errors:?}"));
    let sinks = (definitions.sinks.len(), definitions.event_sinks.len());
    assert_eq!((definitions.streams.len(), sinks), (2, (6, 1)));
    for example in [
        include_str!("../../../../examples/completed-orders/completed_orders.sql"),
        include_str!("../../../../examples/order-aggregates/order_aggregates.sql"),
    ] {
        let definitions = parse_definitions(&[("example.sql".to_owned(), example.to_owned())]);
        assert_eq!(definitions.expect("valid").sinks.len(), 1);
    }
    let example = include_str!("../../../../examples/large-orders/large_orders.sql");
    let definitions = parse_definitions(&[("example.sql".to_owned(), example.to_owned())]);
    assert_eq!(definitions.expect("valid").event_sinks.len(), 1);
}

#[test]
fn the_blocks_of_the_page_about_outboxes_parse() {
    let files = blocks("outbox.md", include_str!("../../../../docs/outbox.md"));
    let definitions = parse_definitions(&files).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(definitions.streams.iter().filter(|stream| stream.outbox().is_some()).count(), 3);
    let example = ("outbox.sql".to_owned(), include_str!("../../../../examples/outbox/outbox.sql").to_owned());
    assert_eq!(parse_definitions(&[example]).expect("valid").sinks.len(), 1);
}

#[test]
fn the_blocks_of_the_readme_parse() {
    let files = blocks("README.md", include_str!("../../../../README.md"));
    let definitions = parse_definitions(&files).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert!(!definitions.views.is_empty());
}

#[test]
fn the_example_of_the_whole_dialect_parses() {
    let text = include_str!("../../../../examples/flights/dialect.sql");
    let definitions = parse_definitions(&[("dialect.sql".to_owned(), text.to_owned())]);
    let definitions = definitions.unwrap_or_else(|errors| panic!("{errors:?}"));
    assert!(definitions.views.len() >= 7);
    for view in &definitions.views {
        assert!(crate::explain::describe(view, &definitions.streams[0]).contains("batch plan"));
    }
}
