//! Says which engine computes the runs of a view.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use shared::ids::ViewName;
use spark_connect::ConnectionSettings;

/// The views whose runs Spark computes; those of all others are computed by Polars. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Engines(Arc<RwLock<BTreeMap<ViewName, SparkUse>>>);

/// When and where Spark computes the runs of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparkUse {
    pub connection: ConnectionSettings,
    /// Only runs that read at least this many bytes.
    pub from_bytes: u64,
}

impl Engines {
    /// Returns engines with the views that Spark computes.
    pub fn new(views: BTreeMap<ViewName, SparkUse>) -> Engines {
        Engines(Arc::new(RwLock::new(views)))
    }

    /// Replaces the views that Spark computes. Runs that have a plan already keep their engine.
    pub fn replace(&self, views: BTreeMap<ViewName, SparkUse>) {
        *self.0.write() = views;
    }

    /// Returns the connection to Spark for a run that reads `bytes`; `None`: Polars computes it.
    pub fn spark_for(&self, view: &ViewName, bytes: u64) -> Option<ConnectionSettings> {
        let views = self.0.read();
        views.get(view).filter(|spark| bytes >= spark.from_bytes).map(|spark| spark.connection.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spark_computes_only_runs_of_its_views_that_read_enough() {
        let view = |name: &str| name.parse::<ViewName>().expect("a name");
        let connection = ConnectionSettings { url: "sc://a".to_owned(), token: None };
        let engines = Engines::new(BTreeMap::from([(view("a"), SparkUse { connection, from_bytes: 100 })]));
        assert!(engines.spark_for(&view("a"), 100).is_some());
        assert!(engines.spark_for(&view("a"), 99).is_none());
        assert!(engines.spark_for(&view("b"), 100).is_none());
        let other = engines.clone();
        engines.replace(BTreeMap::new());
        assert!(other.spark_for(&view("a"), 100).is_none(), "the batch layer has a clone");
    }
}
