//! `trueup check`: checks definitions and prints the execution plans of both layers. Starts nothing.

use std::io::Write;

use shared::explain::describe;
use shared::sql::Definitions;
use shared::stream::Stream;
use shared::view::{View, ViewLayers};
use spark::VersionTable;

use crate::arguments::{Check, PlanEngine};
use crate::connections;
use crate::definitions;
use crate::engines;
use crate::exit::{Failure, NO, USAGE};
use crate::human_units::counted;
use crate::settings::{BatchResources, Settings};

pub fn run(arguments: Check) -> Result<(), Failure> {
    let definitions = definitions::parse(&definitions::read(&arguments.files)?)?;
    if let Some(path) = &arguments.config {
        let settings = Settings::read(path).map_err(|error| Failure::new(USAGE, error))?;
        connections::of_topics(&settings.connections, &definitions)?;
        engines::of_views(&settings, &definitions)?;
    } else {
        engines::check_views(&BatchResources::default(), &definitions)?;
    }
    let mut plans = Vec::with_capacity(definitions.views.len());
    for view in &definitions.views {
        let stream = definitions.streams.iter().find(|stream| stream.name == view.stream);
        let stream = stream.ok_or_else(|| Failure::new(NO, format!("view {} has no stream", view.name)))?;
        plans.push(match arguments.engine {
            PlanEngine::Polars => describe(view, stream),
            PlanEngine::Spark => spark_plan(view, stream)?,
        });
    }
    if arguments.engine == PlanEngine::Spark {
        return print(&plans, &definitions);
    }
    for alert in &definitions.alerts {
        let view = definitions.views.iter().find(|view| view.name == alert.view);
        plans.extend(view.map(|view| alert.describe(view)));
    }
    for sink in &definitions.sinks {
        let view = definitions.views.iter().find(|view| view.name == sink.view);
        plans.extend(view.map(|view| sink.describe(view)));
    }
    for sink in &definitions.event_sinks {
        let stream = definitions.streams.iter().find(|stream| stream.name == sink.stream);
        plans.extend(stream.map(|stream| sink.describe(stream)));
    }
    print(&plans, &definitions)
}

fn print(plans: &[String], definitions: &Definitions) -> Result<(), Failure> {
    std::io::stdout().write_all(plans.join("\n").as_bytes())?;
    let tables = definitions.streams.iter().filter(|stream| stream.table.is_some()).count();
    let streams = definitions.streams.len() - tables;
    let mut parts = Vec::new();
    if streams > 0 || tables == 0 {
        parts.push(counted(streams, "stream"));
    }
    if tables > 0 {
        parts.push(counted(tables, "table"));
    }
    parts.push(counted(definitions.views.len(), "view"));
    if !definitions.alerts.is_empty() {
        parts.push(counted(definitions.alerts.len(), "alert"));
    }
    let sinks = definitions.sink_targets().count();
    if sinks > 0 {
        parts.push(counted(sinks, "sink"));
    }
    eprintln!("no errors: {}", parts.join(", "));
    Ok(())
}

/// Returns the query that computes the view on Spark, with the settings it needs. Views without batch have none.
fn spark_plan(view: &View, stream: &Stream) -> Result<String, Failure> {
    if view.layers == ViewLayers::Speed {
        return Ok(format!("-- view {}: no batch runs (layers = 'speed')\n", view.name));
    }
    let statement = spark::statement(view, stream).map_err(|error| Failure::new(NO, error))?;
    let settings: String = spark::SETTINGS.iter().map(|(name, value)| format!("SET {name}={value};\n")).collect();
    let calendar = match statement.calendar {
        Some(_) => "-- trueup_cells, trueup_windows: the calendar's cells and windows, for the days of the events\n",
        None => "",
    };
    let versions = |table: &VersionTable| {
        let columns =
            table.columns.iter().map(|column| format!(", {} = {:?}", column.name, column.of)).collect::<String>();
        format!(
            "-- {} ({}): the versions of the rows of {}{columns}; an event sees the one of its key with {} <= time <= {}. A run writes \
             them\n",
            table.name,
            table.schema(),
            table.table,
            spark::FIRST,
            spark::LAST
        )
    };
    let versions: String = statement.versions.iter().map(versions).collect();
    Ok(format!(
        "-- view {} on Apache Spark 4\n-- {}: the Parquet files of events/{} at one version\n{versions}{calendar}{settings}{};\n",
        view.name,
        spark::EVENTS,
        stream.name,
        statement.query
    ))
}
