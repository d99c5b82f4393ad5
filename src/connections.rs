//! Finds the connections of the settings that definitions name.

use std::collections::BTreeMap;

use intake::sources::Connections;
use shared::ids::Name;
use shared::sql::Definitions;
use shared::sql::suggest::in_parentheses as did_you_mean;

use crate::exit::{Failure, USAGE};
use crate::settings::Connection;

/// Returns the clusters of the settings. A stream that reads a topic of another connection is wrong usage.
pub fn of_topics(connections: &BTreeMap<Name, Connection>, definitions: &Definitions) -> Result<Connections, Failure> {
    let mut clusters = BTreeMap::new();
    for (name, connection) in connections {
        if let Connection::Kafka(settings) = connection {
            clusters.insert(name.clone(), settings.as_ref().clone());
        }
    }
    for stream in &definitions.streams {
        let needing = stream.topic().filter(|topic| topic.format.needs_registry());
        if let Some(topic) =
            needing.filter(|t| clusters.get(&t.connection).is_some_and(|c| c.schema_registry.is_none()))
        {
            let problem = format!(
                "stream {}: format = '{}' needs a schema registry; add schema_registry = {{ url = \"..\" }} to [connections.{}]",
                stream.name, topic.format, topic.connection
            );
            return Err(Failure::new(USAGE, problem));
        }
        let Some(topic) = stream.topic().filter(|topic| !clusters.contains_key(&topic.connection)) else { continue };
        let (stream, name) = (&stream.name, &topic.connection);
        let problem = match connections.contains_key(name) {
            true => format!("stream {stream}: the connection \"{name}\" is not of kind = \"kafka\""),
            false => {
                let hint = did_you_mean(name.as_str(), clusters.keys().map(Name::as_str));
                format!(
                    "stream {stream}: the settings have no connection \"{name}\"{hint}; add [connections.{name}] with kind = \
                     \"kafka\" and brokers to the file of --config"
                )
            }
        };
        return Err(Failure::new(USAGE, problem));
    }
    Ok(Connections(clusters))
}
