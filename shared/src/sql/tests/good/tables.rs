//! Checks valid tables, and what becomes of aggregates over them.

use super::parse;
use crate::explain::describe;
use crate::stream::{ChangeFormat, EventSource, KeyColumns, OutboxSlot, RecordPart, RowTable, Stream, Transactions};
use crate::view::ROW_COUNT;
use crate::window::Window;

fn declared(statement: &str) -> Stream {
    let definitions = parse(statement).unwrap_or_else(|errors| panic!("{statement}: {}", errors[0]));
    definitions.streams.into_iter().next_back().expect("a table")
}

fn key(columns: &[usize]) -> KeyColumns {
    KeyColumns::new(columns).expect("a key")
}

#[test]
fn a_key_has_its_columns_in_its_own_order() {
    let text = "CREATE TABLE t (at TIMESTAMP, number INT NOT NULL, PRIMARY KEY (Shop, number), shop STRING NOT NULL) WITH (event_time = 'at');
        CREATE VIEW v AS SELECT COUNT(*) AS n FROM t;";
    let definitions = parse(text).unwrap_or_else(|errors| panic!("{}", errors[0]));
    let table = &definitions.streams[definitions.streams.len() - 1];
    assert_eq!(table.table.map(|table| table.key), Some(key(&[2, 1])));
    assert_eq!(table.row_key().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["shop", "number"]);
    let text = describe(&definitions.views[0], table);
    assert!(text.contains("rows by shop, number; each change"), "{text}");
    let alone = declared("CREATE TABLE t (id INT, at TIMESTAMP, PRIMARY KEY (id)) WITH (event_time = 'at')");
    assert_eq!(alone.table.and_then(|table| table.key.only()), Some(0));
    let stream = declared("CREATE STREAM s (a INT, id INT, at TIMESTAMP, PRIMARY KEY (id)) WITH (event_time = 'at')");
    assert_eq!((stream.primary_key, stream.row_key().count()), (Some(1), 0));
}

#[test]
fn a_table_has_a_key_a_format_and_a_mark_of_retractions() {
    let rows = declared(
        "CREATE TABLE t (at TIMESTAMP NOT NULL, id STRING PRIMARY KEY NOT NULL) WITH (event_time = 'at', partitions = 2)",
    );
    assert_eq!(rows.table, Some(RowTable { key: key(&[1]), format: ChangeFormat::Upsert }));
    assert_eq!((rows.primary_key, rows.entity, rows.partitions, rows.retracted()), (None, None, 2, Some(2)));
    let names =
        |columns: Vec<(usize, &crate::stream::Column)>| columns.iter().map(|(_, c)| c.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(rows.own_columns().collect()), ["at", "id"]);
    assert_eq!(names(rows.json_columns().collect()), ["at", "id", "_retracted"]);
    let changes = declared(
        "CREATE TABLE t (id INT PRIMARY KEY, at TIMESTAMP METADATA FROM 'source.timestamp', n BIGINT) WITH (event_time = 'at',
         source = 'kafka', connection = 'main', topic = 'shop.orders', format = 'debezium-json')",
    );
    assert_eq!(changes.table, Some(RowTable { key: key(&[0]), format: ChangeFormat::Debezium }));
    assert_eq!((changes.source_offset(), changes.retracted()), (Some(3), Some(4)));
    assert_eq!(names(changes.json_columns().collect()), ["id", "n"]);
    // Without its topic, a client sends the same changes.
    let mut detached = changes;
    detached.detach();
    assert_eq!(detached.columns[1].metadata, Some(RecordPart::SourceTimestamp));
}

#[test]
fn a_table_follows_a_table_of_a_database() {
    let table = declared(
        "CREATE TABLE t (id INT PRIMARY KEY, at TIMESTAMP METADATA FROM 'source.timestamp', op STRING METADATA FROM 'op',
         n BIGINT FROM '/Other Name') WITH (event_time = 'at', source = 'postgres', connection = 'shop', table = 'Shop.orders')",
    );
    let EventSource::PostgresTable(followed) = &table.source else { panic!("{:?}", table.source) };
    let name = ["trueup", table.name.as_str()].join("_");
    let slot = OutboxSlot { slot: name.clone(), publication: name };
    assert_eq!((followed.name.as_str(), &followed.slot), ("Shop.orders", &slot));
    assert_eq!(table.database().map(|name| name.as_str()), Some("shop"));
    assert_eq!(table.table, Some(RowTable { key: key(&[0]), format: ChangeFormat::Postgres }));
    assert_eq!(
        (table.partitions, table.source_offset(), table.retracted(), table.is_sent()),
        (1, Some(4), Some(5), false)
    );
    let read: Vec<&str> = table.read_columns().map(|(_, column)| column.name.as_str()).collect();
    assert_eq!(read, ["id", "n"]);
    assert_eq!(table.transactions(), Transactions::Parts);
    let whole = table.sql.replace("table = ", "transactions = 'whole', table = ");
    assert_eq!(declared(&whole).transactions(), Transactions::Whole);
    // Without its database, a client sends changes as Debezium writes them.
    let mut detached = table;
    detached.detach();
    assert_eq!(detached.table.map(|table| table.format), Some(ChangeFormat::Debezium));
    assert_eq!(detached.columns[2].metadata, Some(RecordPart::Operation));
}

#[test]
fn sessions_over_a_table_count_its_rows_first() {
    let table = "CREATE TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP, n BIGINT) WITH (event_time = 'at');";
    let count = parse(&format!("{table} CREATE VIEW v AS SELECT COUNT(*) AS rows FROM t;"));
    let count = count.unwrap_or_else(|errors| panic!("{}", errors[0])).views.remove(0).aggregates.remove(0);
    for measures in ["MAX(n) AS most", "SUM(n) AS total, COUNT(*) AS rows", "COUNT(n) FILTER (WHERE n > 1) AS some"] {
        let text = format!(
            "{table} CREATE VIEW v AS SELECT {measures} FROM t GROUP BY SESSION(at, INTERVAL '1' HOUR) HAVING MIN(n) > 0;"
        );
        let definitions = parse(&text).unwrap_or_else(|errors| panic!("{}", errors[0]));
        let view = &definitions.views[0];
        assert_eq!(view.window, Window::TableSession { gap: 3_600_000_000 });
        assert_eq!(view.aggregates[ROW_COUNT], count, "{measures}");
        assert_eq!(view.aggregates.iter().filter(|aggregate| **aggregate == count).count(), 1, "{measures}");
        let text = describe(view, &definitions.streams[definitions.streams.len() - 1]);
        for part in ["SESSION(at, INTERVAL '1' HOUR)", "a row that is taken back can split a session"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn aggregates_over_a_table_are_sums_over_assertions_and_retractions() {
    let definitions = parse(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP, n BIGINT) WITH (event_time = 'at');
         CREATE VIEW v AS SELECT COUNT(*) AS rows, SUM(n) AS total FROM t;
         CREATE VIEW w AS SELECT COUNT(*) AS rows FROM t HAVING COUNT(*) > 2;
         CREATE VIEW x AS SELECT LAST_VALUE(n) AS newest FROM t;",
    );
    let definitions = definitions.unwrap_or_else(|errors| panic!("{}", errors[0]));
    let view = |index: usize| (&definitions.views[index], describe(&definitions.views[index], &definitions.streams[1]));
    let (first, text) = view(0);
    // The rows, the values that are not NULL and their sum.
    assert_eq!(first.aggregates.len(), 3, "{text}");
    let sign = "SUM(CASE WHEN _retracted THEN -1 ELSE 1 END)";
    for part in
        [sign, "each change (json) retracts a row, asserts one, or both", "unlimited; no change of a row is late"]
    {
        assert!(text.contains(part), "{text}");
    }
    let (second, text) = view(1);
    assert_eq!(second.aggregates.len(), 1, "{text}");
    assert!(text.contains(&format!("COALESCE({sign}, 0) <> 0 AND COALESCE({sign}, 0) > 2")), "{text}");
    // With the sign beside the value.
    let (third, text) = view(2);
    assert!(third.aggregates.iter().any(|aggregate| aggregate.signed), "{text}");
    assert!(text.contains("each value, BIGINT, and event time with their number of rows: exact"), "{text}");
}
