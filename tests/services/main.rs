//! Streams that read topics, against a real Apache Kafka: end to end, kills, restarts of the broker, aborted transactions,
//! added partitions, rejected records, logins, and the recipes of `docs/kafka.md`.

mod broker;
mod faults;
mod formats;
mod kills;
mod reading;
mod recipes;
mod topic;
