//! Tests against other systems. Streams that read topics and sinks that write them, against a real Apache Kafka: end to end,
//! kills, restarts of the broker, aborted transactions, added partitions, rejected records, logins, and the recipes of
//! `docs/kafka.md`. Queries on a real Apache Spark.

mod broker;
mod faults;
mod formats;
mod kills;
mod reading;
mod recipes;
mod sink_kills;
mod sinks;
mod spark;
mod topic;
