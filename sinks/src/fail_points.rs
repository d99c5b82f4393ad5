//! Lists the points at which tests inject faults into the writing of an epoch: see
//! [`shared::fail_points`](mod@shared::fail_points).

shared::fail_points! {
    /// A point on the path of an epoch to its topic.
    pub enum SinkPoint {
        /// The epoch is durable in the book, and nothing of it is at the brokers.
        Prepared = "sink-prepared",
        /// The brokers have its records, and the transaction is not committed.
        Written = "sink-written",
        /// The transaction is committed, and the book does not know it.
        Committed = "sink-committed",
    }
}
