//! Decides for each view which engine computes its batch runs, from the definition and the settings.

use std::collections::BTreeMap;

use batch::SparkUse;
use shared::engine::EngineChoice;
use shared::ids::{Name, StreamName, ViewName};
use shared::limits::SPARK_AUTO_BYTES;
use shared::sql::Definitions;
use shared::sql::suggest::in_parentheses as did_you_mean;
use shared::view::{View, ViewLayers};
use shared::window::Window;
use spark::Scope;
use spark_connect::ConnectionSettings;

use crate::exit::{Failure, NO, USAGE};
use crate::settings::{BatchResources, Connection, Settings};

/// Returns the views whose runs Spark computes. A view that Spark cannot compute is refused if the definition or the settings want
/// Spark for it; with `auto` it stays with Polars.
pub fn of_views(settings: &Settings, definitions: &Definitions) -> Result<BTreeMap<ViewName, SparkUse>, Failure> {
    let mut engines = BTreeMap::new();
    for (view, choice) in check_views(&settings.batch, definitions)? {
        let connection = connection(view, &settings.batch, &settings.connections)?.clone();
        let from_bytes = match choice {
            EngineChoice::Auto => settings.batch.spark_above.unwrap_or(SPARK_AUTO_BYTES),
            _ => 0,
        };
        engines.insert(view.name.clone(), SparkUse { connection, from_bytes });
    }
    Ok(engines)
}

/// The views of a stream that Spark can compute, and the reasons why it cannot compute the others.
#[derive(Debug)]
pub struct SparkViews {
    pub computed: BTreeMap<ViewName, SparkUse>,
    pub refused: BTreeMap<ViewName, String>,
}

/// Divides the views of `stream`, whatever engine and layers they declare.
pub fn of_stream(settings: &Settings, definitions: &Definitions, stream: &StreamName) -> Result<SparkViews, Failure> {
    let mut views = SparkViews { computed: BTreeMap::new(), refused: BTreeMap::new() };
    for view in definitions.views.iter().filter(|view| view.stream == *stream) {
        match refusal(&View { layers: ViewLayers::Both, ..view.clone() }, definitions) {
            Some(reason) => {
                views.refused.insert(view.name.clone(), reason);
            }
            None => {
                let connection = connection(view, &settings.batch, &settings.connections)?.clone();
                views.computed.insert(view.name.clone(), SparkUse { connection, from_bytes: 0 });
            }
        }
    }
    Ok(views)
}

/// Returns the views that Spark is wanted for, all of which it can compute.
pub fn check_views<'d>(
    settings: &BatchResources,
    definitions: &'d Definitions,
) -> Result<Vec<(&'d View, EngineChoice)>, Failure> {
    let mut wanted = Vec::new();
    for view in definitions.views.iter().filter(|view| view.layers == ViewLayers::Both) {
        let choice = view.engine.or(settings.engine).unwrap_or(EngineChoice::Polars);
        match refusal(view, definitions) {
            _ if choice == EngineChoice::Polars => {}
            None => wanted.push((view, choice)),
            Some(reason) if choice == EngineChoice::Auto => {
                tracing::info!(view = %view.name, reason, "Polars computes all runs of the view");
            }
            Some(reason) => {
                let problem = format!("view {}: {reason}; or set engine = 'polars'", view.name);
                return Err(Failure::new(NO, problem));
            }
        }
    }
    Ok(wanted)
}

/// Returns why Spark cannot compute the runs of a view; `None`: it can.
fn refusal(view: &View, definitions: &Definitions) -> Option<String> {
    let stream = definitions.streams.iter().find(|stream| stream.name == view.stream)?;
    if matches!(view.window, Window::Session { .. }) && (view.retention.is_some() || stream.retention.is_some()) {
        let reason = "Spark cannot leave aside the events of sessions that retention has dropped; remove retention";
        return Some(reason.to_owned());
    }
    spark::states(view, stream, &Scope::default()).err().map(|refusal| refusal.to_string())
}

/// Returns the connection of a view: its own, or that of the settings, or the only one.
fn connection<'s>(
    view: &View,
    batch: &BatchResources,
    connections: &'s BTreeMap<Name, Connection>,
) -> Result<&'s ConnectionSettings, Failure> {
    let known: Vec<(&Name, &ConnectionSettings)> = connections
        .iter()
        .filter_map(|(name, connection)| match connection {
            Connection::Spark(settings) => Some((name, settings)),
            _ => None,
        })
        .collect();
    let problem = match (view.connection.as_ref().or(batch.connection.as_ref()), known.as_slice()) {
        (None, [(_, only)]) => return Ok(only),
        (None, []) => "the settings have no connection to Spark; add [connections.spark] with kind = \"spark\" and url to the \
                       file of --config"
            .to_owned(),
        (None, _) => {
            "the settings have several connections to Spark; name one with WITH (connection = '..') or as connection in \
             [batch]"
                .to_owned()
        }
        (Some(name), known) => match known.iter().find(|(other, _)| *other == name) {
            Some((_, found)) => return Ok(found),
            None if connections.contains_key(name) => {
                format!("the connection \"{name}\" is not of kind = \"spark\"")
            }
            None => {
                let hint = did_you_mean(name.as_str(), known.iter().map(|(name, _)| name.as_str()));
                format!(
                    "the settings have no connection \"{name}\"{hint}; add [connections.{name}] with kind = \"spark\" and url \
                     to the file of --config"
                )
            }
        },
    };
    Err(Failure::new(USAGE, format!("view {}: {problem}", view.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "CREATE STREAM e (id STRING PRIMARY KEY, at TIMESTAMP, region STRING, price DOUBLE) \
                          WITH (event_time = 'at');\n";

    fn of(options: &str, select: &str, settings: &str) -> Result<Vec<(String, u64)>, String> {
        let view =
            format!("CREATE VIEW v {options} AS SELECT {select} FROM e GROUP BY SESSION(at, INTERVAL '1' HOUR);\n");
        let texts = [("t.sql".to_owned(), format!("{STREAM}{view}"))];
        let definitions = shared::sql::parse_definitions(&texts).unwrap_or_else(|errors| panic!("{errors:?}"));
        let settings: Settings = toml::from_str(settings).expect("settings");
        let engines = of_views(&settings, &definitions).map_err(|failure| failure.message().to_owned())?;
        Ok(engines.into_iter().map(|(view, spark)| (view.to_string(), spark.from_bytes)).collect())
    }

    const ONE: &str = "[connections.a]\nkind = \"spark\"\nurl = \"sc://x\"\n";
    const TWO: &str =
        "[connections.a]\nkind = \"spark\"\nurl = \"sc://x\"\n[connections.b]\nkind = \"spark\"\nurl = \"sc://y\"\n";

    #[test]
    fn views_and_settings_choose_the_engine() {
        let spark = |bytes| Ok(vec![("v".to_owned(), bytes)]);
        assert_eq!(of("", "COUNT(*) AS n", ""), Ok(vec![]));
        assert_eq!(of("WITH (engine = 'spark')", "COUNT(*) AS n", ONE), spark(0));
        assert_eq!(of("WITH (engine = 'auto')", "COUNT(*) AS n", ONE), spark(SPARK_AUTO_BYTES));
        let above = format!("[batch]\nspark_above = \"1 GiB\"\n{ONE}");
        assert_eq!(of("WITH (engine = 'auto')", "COUNT(*) AS n", &above), spark(1 << 30));
        let all = format!("[batch]\nengine = \"spark\"\nconnection = \"b\"\n{TWO}");
        assert_eq!(of("", "COUNT(*) AS n", &all), spark(0));
        assert_eq!(of("WITH (engine = 'polars')", "COUNT(*) AS n", &all), Ok(vec![]));
        assert_eq!(of("WITH (engine = 'auto')", "MIN(CAST(price AS STRING)) AS m", ONE), Ok(vec![]), "Polars can");
    }

    #[test]
    fn wrong_choices_are_refused_with_advice() {
        for (options, select, settings, word) in [
            ("WITH (engine = 'spark')", "COUNT(*) AS n", "", "[connections.spark]"),
            ("WITH (engine = 'spark')", "COUNT(*) AS n", TWO, "name one with"),
            ("WITH (engine = 'spark', connection = 'c')", "COUNT(*) AS n", TWO, "no connection \"c\""),
            (
                "WITH (engine = 'spark', connection = 'w')",
                "COUNT(*) AS n",
                "[connections.w]\nkind = \"webhook\"\nurl = \"http://x\"\n",
                "not of kind = \"spark\"",
            ),
            ("WITH (engine = 'spark')", "MIN(CAST(price AS STRING)) AS m", ONE, "formats a DOUBLE differently"),
            ("WITH (engine = 'spark', retention = '30 days')", "COUNT(*) AS n", ONE, "remove retention"),
        ] {
            let error = of(options, select, settings).expect_err(options);
            assert!(error.contains("view v: ") && error.contains(word), "{options}: {error}");
        }
    }
}
