//! Checks wrong tables, and views over tables.

use super::check;

const ORDERS: &str =
    "CREATE TABLE orders (id BIGINT PRIMARY KEY, status STRING, amount DECIMAL(12,2), price DOUBLE, at TIMESTAMP)
    WITH (event_time = 'at');
";

#[test]
fn wrong_tables_are_explained() {
    let table = [
        (
            "^orders (id BIGINT, at TIMESTAMP) WITH (event_time = 'at')",
            "a table needs a PRIMARY KEY, which names its rows",
            "write `id BIGINT PRIMARY KEY`, or declare a stream",
        ),
        (
            "^orders (id BIGINT PRIMARY KEY)",
            "a table needs an event time",
            "add WITH (event_time = '..') with a TIMESTAMP column",
        ),
        (
            "orders (id BIGINT PRIMARY KEY) WITH ^(format = 'json')",
            "a table needs the option `event_time`, a TIMESTAMP column",
            "for the time of each change, add the column `changed_at TIMESTAMP METADATA FROM 'source.timestamp'`",
        ),
        (
            "orders (^id DOUBLE PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at')",
            "the key of a table is a STRING, INT or BIGINT, but `id` is DOUBLE",
            "",
        ),
        (
            "orders (id STRING, ^price DOUBLE, at TIMESTAMP, PRIMARY KEY (id, price)) WITH (event_time = 'at')",
            "the key of a table is a STRING, INT or BIGINT, but `price` is DOUBLE",
            "",
        ),
        (
            "^orders (a INT, b INT, c INT, d INT, e INT, f INT, g INT, h INT, i INT, at TIMESTAMP, PRIMARY KEY (a, b, c, d, e, f, g, h, i)) WITH (event_time = 'at')",
            "the key of a table has at most 8 columns, not 9",
            "",
        ),
        (
            "orders (id STRING PRIMARY KEY, at TIMESTAMP, ^PRIMARY KEY (id)) WITH (event_time = 'at')",
            "PRIMARY KEY is given twice",
            "",
        ),
        (
            "orders (id STRING, PRIMARY KEY (id), at TIMESTAMP, ^PRIMARY KEY (id)) WITH (event_time = 'at')",
            "PRIMARY KEY is given twice",
            "",
        ),
        (
            "orders (shop STRING, PRIMARY KEY (^shops), at TIMESTAMP) WITH (event_time = 'at')",
            "unknown column `shops`",
            "did you mean `shop`?",
        ),
        (
            "orders (shop STRING, at TIMESTAMP, PRIMARY KEY (shop, ^Shop)) WITH (event_time = 'at')",
            "`Shop` is twice in the PRIMARY KEY",
            "",
        ),
        (
            "orders (id STRING PRIMARY KEY METADATA FROM ^'key', at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'c', topic = 't')",
            "the key of a table is a column of its rows, not a part of a record",
            "",
        ),
        (
            "orders (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', retention = ^'30 days')",
            "a table keeps all its changes: without the old ones its rows would be unknown; remove `retention`",
            "",
        ),
        (
            "orders (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', allowed_lateness = ^'1 day')",
            "a change of a table is never late: it retracts and asserts rows of any time; remove `allowed_lateness`",
            "",
        ),
        (
            "orders (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', entity = ^'id')",
            "the rows of a table are named by its PRIMARY KEY; remove `entity`",
            "",
        ),
        (
            "orders (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', max_age = ^'1 day')",
            "a row can change at any age; remove `max_age`",
            "",
        ),
        (
            "orders (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', format = ^'jsom')",
            "unknown format 'jsom' of a table",
            "did you mean `json`?",
        ),
        (
            "orders (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'c', topic = 't', format = ^'protobuf')",
            "tables are not read from topics in the format 'protobuf' yet",
            "use 'json', 'avro', 'debezium-json' or 'debezium-avro'",
        ),
        (
            "orders (id BIGINT PRIMARY KEY, at TIMESTAMP METADATA FROM ^'source.timestamp') WITH (event_time = 'at')",
            "METADATA is of records of a topic, and this table reads none",
            "add source = 'kafka' with connection and topic, or remove METADATA",
        ),
        (
            "orders (id BIGINT PRIMARY KEY, at TIMESTAMP, n INT ^NOT NULL) WITH (event_time = 'at')",
            "NOT NULL is only possible for the event time and the key, which are never null",
            "every other column may be null: an event that lacks a field is still an event",
        ),
    ];
    check(&table, |text| format!("CREATE TABLE {text}"));
    check(
        &[
            (
                "CREATE STREAM ^orders (at TIMESTAMP) WITH (event_time = 'at')",
                "there is already a table called `orders`",
                "",
            ),
            (
                "CREATE STREAM s (a INT, ^b INT, at TIMESTAMP, PRIMARY KEY (a, b)) WITH (event_time = 'at')",
                "the PRIMARY KEY of a stream, which names an event, is one column",
                "CREATE TABLE may have several",
            ),
        ],
        |text| format!("{ORDERS}{text}"),
    );
}

#[test]
fn what_cannot_be_retracted_is_refused() {
    let mut table: Vec<(String, String, &str)> = vec![(
        "CREATE VIEW v WITH (retention = ^'30 days') AS SELECT COUNT(*) AS n FROM orders GROUP BY SESSION(at, INTERVAL '1' HOUR)"
            .to_owned(),
        "sessions over a table cannot be dropped by retention".to_owned(),
        "remove retention, or use another window: rows of all dates are joined to sessions",
    )];
    let of_view = "CREATE VIEW visits AS SELECT COUNT(*) AS n FROM orders GROUP BY SESSION(at, INTERVAL '1' HOUR); ";
    table.push((
        format!("{of_view}CREATE SINK s FROM ^visits WITH (connection = 'main', topic = 't')"),
        "`visits` has windows of SESSION: a row that comes or goes moves the start of a session, which would be the key of its record"
            .to_owned(),
        "use TUMBLE, HOP, CUMULATE or no window",
    ));
    let columns = "the columns are id, status, amount, price, at";
    for text in [
        "SELECT COUNT(*) AS n FROM orders WHERE ^_retracted",
        "SELECT SUM(CASE WHEN ^_retracted THEN 1 END) AS n FROM orders",
    ] {
        table.push((format!("CREATE VIEW v AS {text}"), "unknown column `_retracted`".to_owned(), columns));
    }
    let of_view = "CREATE VIEW days AS SELECT COUNT(*) AS n FROM orders GROUP BY TUMBLE(at, INTERVAL '1' DAY); ";
    table.push((
        format!("{of_view}CREATE SINK s FROM days WITH (connection = 'main', topic = 't', emit = ^'final')"),
        "`days` reads the table `orders`, which can change at any time, so no row of it is ever final".to_owned(),
        "write 'changes'",
    ));
    let table: Vec<_> = table.iter().map(|(text, message, help)| (text.as_str(), message.as_str(), *help)).collect();
    check(&table, |text| format!("{ORDERS}{text}"));
}
