//! Tests streams with an entity through the real binary: sequences, conditional appends, reading back, states of the past.

mod appends;
mod client;
mod erasures;
mod histories;
mod many_appends;
mod page;
mod reading;
mod recipes;
mod shop;
mod states;

/// Orders with a view of their states, over several partitions.
const ORDERS: &str = "
    CREATE STREAM order_events (event_id STRING PRIMARY KEY, order_id STRING, at TIMESTAMP, kind STRING, amount BIGINT)
        WITH (event_time = 'at', entity = 'order_id', partitions = 3);
    CREATE VIEW order_states AS
        SELECT order_id, COUNT(*) AS events, MAX(_sequence) AS last, SUM(amount) AS total, LAST_VALUE(kind) AS kind,
               COUNT(*) FILTER (WHERE kind = 'paid') AS payments
        FROM order_events GROUP BY order_id;
    CREATE VIEW kinds AS SELECT kind, COUNT(*) AS events FROM order_events GROUP BY kind;";

/// A short log: it is trimmed as soon as runs and archive allow it.
const SHORT_LOG: &str = "dedup_horizon_events = 50\nlog_segment_bytes = 4096\narchive_wait_ms = 20\n";
