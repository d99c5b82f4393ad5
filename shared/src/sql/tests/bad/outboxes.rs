//! Checks wrong streams that read outboxes.

use super::check;

#[test]
fn wrong_outboxes_are_explained() {
    let table = [
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = ^'postgres')",
            "a stream that reads PostgreSQL needs `connection`",
            "name a [connections.NAME] of trueup.toml with kind = \"postgres\"",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', outbox = ^'orders')",
            "`outbox` is an option of streams that read an outbox",
            "set source = 'postgres', or remove `outbox`",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', slot = ^'x')",
            "`slot` is an option of streams that read an outbox",
            "set source = 'postgres', or remove `slot`",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP, id STRING METADATA FROM ^'id') WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't')",
            "only an outbox has this part, not a topic",
            "Debezium's outbox event router writes the id as a header: METADATA FROM 'header:id'",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP, id DOUBLE METADATA FROM ^'id') WITH (event_time = 'at', source = 'postgres', connection = 'shop')",
            "the id of a record is STRING, INT or BIGINT, but `id` is DOUBLE",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP, k STRING METADATA FROM ^'key') WITH (event_time = 'at', source = 'postgres', connection = 'shop')",
            "events of this outbox have no key",
            "use id, aggregatetype, aggregateid, type, lsn or timestamp",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP, id STRING METADATA FROM ^'id') WITH (event_time = 'at', source = 'postgres', connection = 'shop', mode = 'messages')",
            "events of this outbox have no id",
            "use lsn or timestamp, or a field of the message",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP, l STRING METADATA FROM ^'lsn') WITH (event_time = 'at', source = 'postgres', connection = 'shop', mode = 'polling')",
            "events of this outbox have no lsn",
            "use id, aggregatetype, aggregateid, type or timestamp",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP METADATA FROM ^'timestamp') WITH (event_time = 'at', source = 'postgres', connection = 'shop', mode = 'polling')",
            "polling does not know when a row was committed",
            "name a column: columns = 'timestamp = created_at'",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', mode = ^'pulling')",
            "unknown mode 'pulling'",
            "did you mean `polling`?",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', mode = 'polling', slot = ^'x')",
            "mode = 'polling' has no `slot`; remove it",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', mode = 'messages', outbox = ^'x')",
            "mode = 'messages' has no `outbox`; remove it",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', columns = ^'txid = x')",
            "`txid` is a column for mode = 'polling'; logical decoding knows it without one",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', columns = ^'event = x')",
            "an outbox has no 'event'",
            "they are id, aggregatetype, aggregateid, type, payload, timestamp, txid",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', columns = ^'id')",
            "'id' names no column",
            "write pairs such as 'id = event_id, payload = body'",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', outbox = ^'a.b.c')",
            "'a.b.c' is not a table: write NAME or SCHEMA.NAME",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', slot = ^'Shop')",
            "'Shop' is not the name of a slot: 1 to 63 of a-z, 0-9 and _",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', partitions = ^2)",
            "an outbox is one partition, in the order of its transactions; remove `partitions`",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', topic = ^'t')",
            "`topic` is an option of streams that read Kafka; remove it",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', table = ^'t')",
            "the table of an outbox is named by `outbox`; to follow the rows of any table, use CREATE TABLE",
            "",
        ),
    ];
    check(&table, str::to_owned);
}

#[test]
fn wrong_tables_that_follow_others_are_explained() {
    let with = |columns: &str, options: &str| {
        let source = "source = 'postgres', connection = 'shop', table = 'public.orders'";
        format!(
            "CREATE TABLE s (id BIGINT PRIMARY KEY, at TIMESTAMP{columns}) WITH (event_time = 'at', {source}{options})"
        )
    };
    let table = [
        (
            "CREATE TABLE s (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', source = ^'postgres', table = 't')".to_owned(),
            "a table that reads PostgreSQL needs `connection`",
            "name a [connections.NAME] of trueup.toml with kind = \"postgres\"",
        ),
        (
            "CREATE TABLE s (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', source = ^'postgres', connection = 'shop')".to_owned(),
            "a table that reads PostgreSQL needs `table`",
            "add table = 'SCHEMA.NAME'",
        ),
        (
            "CREATE TABLE s (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', table = ^'t')".to_owned(),
            "`table` is an option of tables that read PostgreSQL",
            "set source = 'postgres', or remove `table`",
        ),
        (
            with("", ", transactions = ^'hole'"),
            "unknown value 'hole' of `transactions`",
            "did you mean `whole`?",
        ),
        (with("", ", transactions = ^'atomic'"), "unknown value 'atomic' of `transactions`", "use parts or whole"),
        (
            "CREATE TABLE s (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', transactions = ^'whole')".to_owned(),
            "`transactions` is an option of tables that follow PostgreSQL or read topics of Debezium",
            "remove `transactions`",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'postgres', connection = 'shop', transactions = ^'whole')".to_owned(),
            "each row of an outbox is an event of its own; remove `transactions`",
            "",
        ),
        (
            "CREATE TABLE s (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'c', topic = 't', transactions = ^'whole', transaction_topic = 'u')".to_owned(),
            "only tables with format = 'debezium-json' know the transactions of their topic",
            "remove `transactions`",
        ),
        (
            "CREATE TABLE s (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'c', topic = 't', format = 'debezium-json', transactions = ^'whole')".to_owned(),
            "whole transactions of a topic need `transaction_topic`, which says where they end",
            "set provide.transaction.metadata = true in Debezium, and add transaction_topic = 'PREFIX.transaction'",
        ),
        (
            "CREATE TABLE s (id BIGINT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'c', topic = 't', format = 'debezium-json', transaction_topic = ^'u')".to_owned(),
            "`transaction_topic` is needed for whole transactions only",
            "add transactions = 'whole', or remove `transaction_topic`",
        ),
        (with("", ", transaction_topic = ^'u'"), "PostgreSQL says itself where transactions end; remove `transaction_topic`", ""),
        (with("", ", format = ^'json'"), "the changes of a table in PostgreSQL have one format; remove `format`", ""),
        (
            with("", ", partitions = ^2"),
            "a table in PostgreSQL is one partition, in the order of its transactions; remove `partitions`",
            "",
        ),
        (
            with("", ", mode = ^'polling'"),
            "`mode` is how an outbox is read; the changes of a table are always decoded: remove it",
            "",
        ),
        (
            with("", ", slot = ^'A-b'"),
            "'A-b' is not the name of a slot: 1 to 63 of a-z, 0-9 and _",
            "",
        ),
        (
            with(", k STRING METADATA FROM ^'key'", ""),
            "changes of a table in PostgreSQL have no key",
            "use op, source.timestamp or timestamp, or a column of the table",
        ),
        (
            with(", a BIGINT FROM ^'/b/c'", ""),
            "`a` is read from within a value, and a table in PostgreSQL has columns",
            "declare the whole column as STRING",
        ),
        (
            with(", ^a DECIMAL(12,2) FORMAT 'base64'", ""),
            "PostgreSQL has decimals as they are, not in Base64",
            "remove FORMAT 'base64'",
        ),
    ];
    let borrowed: Vec<(&str, &str, &str)> =
        table.iter().map(|(sql, message, help)| (sql.as_str(), *message, *help)).collect();
    check(&borrowed, str::to_owned);
}
