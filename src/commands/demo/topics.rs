//! Runs the demo through a Kafka cluster: the flights go to one topic, which the stream reads, and a sink writes the
//! departures to another one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use intake::sources::Connections;
use kafka::{ConnectionSettings, KafkaCluster, OutgoingRecord, TopicCluster, TopicWriter, commit_certainly};
use shared::ids::Name;

/// The connection of the demo in its definitions.
const CONNECTION: &str = "demo";
/// Partitions of the topic of flights.
const PARTITIONS: i32 = 2;
/// The option of the example before which those of the source are inserted.
const FIRST_OPTION: &str = "event_time = 'scheduled_at',";
/// Pause between two attempts of a commit whose outcome is unknown.
const COMMIT_PAUSE: Duration = Duration::from_millis(200);

/// The topics of one demo. Their names are new each time, so that no demo reads the flights of another.
#[derive(Debug, Clone)]
pub struct DemoTopics {
    settings: ConnectionSettings,
    pub flights: String,
    pub departures: String,
}

/// Writes flights to their topic.
pub struct FlightWriter {
    topic: String,
    writer: Box<dyn TopicWriter>,
}

impl DemoTopics {
    /// Creates the topics of a new demo on a cluster; `brokers` are `HOST:PORT`, separated by commas.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub async fn create(brokers: &str) -> anyhow::Result<DemoTopics> {
        let brokers = brokers.split(',').map(|broker| broker.trim().to_owned()).collect();
        let settings = ConnectionSettings { brokers, tls: None, sasl: None, schema_registry: None };
        settings.check().map_err(anyhow::Error::msg).context("--kafka")?;
        let id = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let topics = DemoTopics {
            settings,
            flights: format!("trueup-demo-{id}-flights"),
            departures: format!("trueup-demo-{id}-departures"),
        };
        let cluster = topics.cluster();
        cluster.create_topic(&topics.flights, PARTITIONS).await?;
        cluster.create_compacted(&topics.departures).await?;
        Ok(topics)
    }

    fn cluster(&self) -> KafkaCluster {
        KafkaCluster::new(self.settings.clone(), "trueup-demo")
    }

    /// Returns the definitions of the demo, with a stream that reads the topic of flights, and a sink.
    pub fn definitions(&self, example: &str) -> String {
        let (flights, departures) = (&self.flights, &self.departures);
        let source = format!("source = 'kafka', connection = '{CONNECTION}', topic = '{flights}',\n  {FIRST_OPTION}");
        let stream = example.replacen(FIRST_OPTION, &source, 1);
        format!(
            "{stream}\nCREATE SINK departures_table FROM VIEW departures WITH (connection = '{CONNECTION}', topic = '{departures}');\n"
        )
    }

    /// Returns the connection that the definitions name.
    pub fn connections(&self) -> Connections {
        let name: Name = CONNECTION.parse().expect("a name");
        Connections { clusters: BTreeMap::from([(name, self.settings.clone())]), ..Connections::default() }
    }

    /// Opens a writer of flights.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub async fn writer(&self) -> anyhow::Result<FlightWriter> {
        Ok(FlightWriter { topic: self.flights.clone(), writer: self.cluster().writer(&self.flights).await? })
    }
}

impl FlightWriter {
    /// Writes one record per line in one transaction; the key of a record is that of its line in `keys`.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub async fn write<'a>(&self, lines: &Bytes, keys: impl Iterator<Item = &'a str>) -> anyhow::Result<u64> {
        let mut records = Vec::new();
        for (line, key) in lines.split(|byte| *byte == b'\n').zip(keys) {
            records.push(OutgoingRecord {
                topic: self.topic.clone(),
                key: Some(Bytes::from(key.to_owned())),
                value: Some(lines.slice_ref(line)),
                headers: Vec::new(),
            });
        }
        let count = records.len() as u64;
        self.writer.write(records).await?;
        commit_certainly(self.writer.as_ref(), COMMIT_PAUSE).await?;
        Ok(count)
    }

    /// Closes the connections.
    pub async fn close(self) {
        self.writer.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DEFINITIONS, DEFINITIONS_NAME};
    use super::*;

    #[test]
    fn the_definitions_read_one_topic_and_write_another() {
        let settings =
            ConnectionSettings { brokers: vec!["b:1".to_owned()], tls: None, sasl: None, schema_registry: None };
        let topics = DemoTopics { settings, flights: "in".to_owned(), departures: "out".to_owned() };
        let files = [(DEFINITIONS_NAME.to_owned(), topics.definitions(DEFINITIONS))];
        let definitions = shared::sql::parse_definitions(&files).unwrap_or_else(|errors| panic!("{}", errors[0]));
        assert_eq!(definitions.streams[0].topic().map(|topic| topic.topic.as_str()), Some("in"));
        let target = &definitions.sinks[0].target;
        assert_eq!((target.to_string().as_str(), definitions.views.len()), ("out", 3));
        assert!(topics.connections().clusters.contains_key(target.connection()));
    }
}
