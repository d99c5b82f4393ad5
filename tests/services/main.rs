//! Tests against other systems. Streams that read topics, sinks and alerts that write them, against a real Apache Kafka: end to
//! end, kills, restarts of the broker, aborted transactions, added partitions, rejected records, logins, the recipes of
//! `docs/kafka.md`, and three of the `examples`. Queries on a real Apache Spark. Streams that read the outboxes of a real PostgreSQL,
//! tables that follow its tables, and tables that read what a real Debezium writes of them.

mod alerts;
mod broker;
mod changes;
mod database;
mod debezium;
mod demo;
mod event_sinks;
mod examples;
mod faults;
mod followed_keys;
mod followed_kills;
mod followed_setup;
mod followed_tables;
mod formats;
mod guarded;
mod kills;
mod outbox;
mod outbox_example;
mod outbox_kills;
mod outbox_recipes;
mod reading;
mod recipes;
mod sink_avro;
mod sink_debezium;
mod sink_finals;
mod sink_kills;
mod sink_page;
mod sink_sessions;
mod sinks;
mod spark;
mod table_avro;
mod tables;
mod throughput;
mod topic;
mod whole_transactions;
mod window_fold;
