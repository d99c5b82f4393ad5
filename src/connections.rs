//! Finds the connections of the settings that definitions name.

use std::collections::BTreeMap;

use alerts::webhook::Webhook;
use intake::sources::Connections;
use kafka::ConnectionSettings;
use shared::alert::AlertTarget;
use shared::ids::Name;
use shared::sink::{SinkFormat, SinkTarget};
use shared::sql::Definitions;
use shared::sql::suggest::in_parentheses as did_you_mean;

use crate::exit::{Failure, USAGE};
use crate::settings::Connection;

/// Returns the clusters and databases of the settings. A stream, a sink or an alert that names another connection is wrong
/// usage.
pub fn of_topics(connections: &BTreeMap<Name, Connection>, definitions: &Definitions) -> Result<Connections, Failure> {
    let (mut clusters, mut databases) = (BTreeMap::new(), BTreeMap::new());
    for (name, connection) in connections {
        match connection {
            Connection::Kafka(settings) => {
                clusters.insert(name.clone(), settings.as_ref().clone());
            }
            Connection::Postgres(settings) => {
                databases.insert(name.clone(), settings.clone());
            }
            Connection::Webhook { .. } | Connection::Spark(_) => {}
        }
    }
    for stream in &definitions.streams {
        let needing = stream.topic().filter(|topic| topic.format.needs_registry());
        if let Some(topic) =
            needing.filter(|t| clusters.get(&t.connection).is_some_and(|c| c.schema_registry.is_none()))
        {
            let of = format!("stream {}", stream.name);
            return Err(no_registry(&of, &topic.format.to_string(), &topic.connection));
        }
        if let Some(topic) = stream.topic().filter(|topic| !clusters.contains_key(&topic.connection)) {
            return Err(missing(&format!("stream {}", stream.name), &topic.connection, connections, &KAFKA));
        }
        if let Some(database) = stream.database().filter(|database| !databases.contains_key(*database)) {
            return Err(missing(&format!("{} {}", stream.kind(), stream.name), database, connections, &POSTGRES));
        }
    }
    check_writers(connections, &clusters, definitions)?;
    Ok(Connections { clusters, databases })
}

/// A sink or an alert that writes to a topic through another connection than one of Kafka is wrong usage.
fn check_writers(
    connections: &BTreeMap<Name, Connection>,
    clusters: &BTreeMap<Name, ConnectionSettings>,
    definitions: &Definitions,
) -> Result<(), Failure> {
    let topics =
        || definitions.sink_targets().filter_map(|(name, target)| Some((format!("sink {name}"), target.topic()?)));
    let sinks = topics().map(|(of, topic)| (of, &topic.connection));
    let alerts = definitions.alerts.iter().filter_map(|alert| match &alert.target {
        Some(AlertTarget::Topic { connection, .. }) => Some((format!("alert {}", alert.name), connection)),
        _ => None,
    });
    if let Some((of, connection)) = sinks.chain(alerts).find(|(_, connection)| !clusters.contains_key(*connection)) {
        return Err(missing(&of, connection, connections, &KAFKA));
    }
    let has_registry = |name: &Name| clusters.get(name).is_some_and(|cluster| cluster.schema_registry.is_some());
    let of_avro = topics().filter(|(_, topic)| topic.format == SinkFormat::Avro);
    match of_avro.into_iter().find(|(_, topic)| !has_registry(&topic.connection)) {
        None => Ok(()),
        Some((of, topic)) => Err(no_registry(&of, topic.format.name(), &topic.connection)),
    }
}

/// Returns the webhooks of the settings by target. An alert or a sink that names another one is wrong usage.
pub fn webhooks(
    connections: &BTreeMap<Name, Connection>,
    definitions: &Definitions,
) -> Result<BTreeMap<String, Webhook>, Failure> {
    let mut webhooks = BTreeMap::new();
    for (name, connection) in connections {
        let webhook = connection.webhook().map_err(|error| Failure::new(USAGE, error))?;
        let Some(webhook) = webhook else { continue };
        webhooks.insert(AlertTarget::Webhook(name.clone()).to_string(), webhook);
    }
    let sinks = definitions.sink_targets().filter_map(|(sink, target)| match target {
        SinkTarget::Webhook(name) => Some((format!("sink {sink}"), name)),
        SinkTarget::Topic(_) => None,
    });
    let alerts = definitions.alerts.iter().filter_map(|alert| match &alert.target {
        Some(AlertTarget::Webhook(name)) => Some((format!("alert {}", alert.name), name)),
        _ => None,
    });
    let is_known = |name: &Name| webhooks.contains_key(&AlertTarget::Webhook(name.clone()).to_string());
    match alerts.chain(sinks).find(|(_, name)| !is_known(name)) {
        None => Ok(webhooks),
        Some((of, name)) => Err(missing(&of, name, connections, &WEBHOOK)),
    }
}

/// Describes a connection without the schema registry that a format needs.
fn no_registry(of: &str, format: &str, connection: &Name) -> Failure {
    let problem = format!(
        "{of}: format = '{format}' needs a schema registry; add schema_registry = {{ url = \"..\" }} to [connections.{connection}]"
    );
    Failure::new(USAGE, problem)
}

/// A kind of connections: its name, what its entry has, and whether a connection is one.
struct Kind(&'static str, &'static str, fn(&Connection) -> bool);

const KAFKA: Kind = Kind("kafka", "brokers", |connection| matches!(connection, Connection::Kafka(_)));
const WEBHOOK: Kind = Kind("webhook", "url", |connection| matches!(connection, Connection::Webhook { .. }));
const POSTGRES: Kind = Kind("postgres", "url", |connection| matches!(connection, Connection::Postgres(_)));

/// Describes a connection that is missing, or of another kind.
fn missing(of: &str, name: &Name, connections: &BTreeMap<Name, Connection>, Kind(kind, has, is_one): &Kind) -> Failure {
    let problem = match connections.contains_key(name) {
        true => format!("{of}: the connection \"{name}\" is not of kind = \"{kind}\""),
        false => {
            let known = connections.iter().filter(|(_, connection)| is_one(connection)).map(|(name, _)| name.as_str());
            let hint = did_you_mean(name.as_str(), known);
            format!(
                "{of}: the settings have no connection \"{name}\"{hint}; add [connections.{name}] with kind = \"{kind}\" and \
                 {has} to the file of --config"
            )
        }
    };
    Failure::new(USAGE, problem)
}
