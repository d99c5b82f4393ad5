//! `trueup check`: checks definitions and prints the execution plans of both layers. Starts nothing.

use std::io::Write;

use shared::explain::describe;

use crate::arguments::Check;
use crate::connections;
use crate::definitions;
use crate::exit::{Failure, NO, USAGE};
use crate::human_units::counted;
use crate::settings::Settings;

pub fn run(arguments: Check) -> Result<(), Failure> {
    let definitions = definitions::parse(&definitions::read(&arguments.files)?)?;
    if let Some(path) = &arguments.config {
        let settings = Settings::read(path).map_err(|error| Failure::new(USAGE, error))?;
        connections::of_topics(&settings.connections, &definitions)?;
    }
    let mut plans = Vec::with_capacity(definitions.views.len());
    for view in &definitions.views {
        let stream = definitions.streams.iter().find(|stream| stream.name == view.stream);
        let stream = stream.ok_or_else(|| Failure::new(NO, format!("view {} has no stream", view.name)))?;
        plans.push(describe(view, stream));
    }
    for alert in &definitions.alerts {
        let view = definitions.views.iter().find(|view| view.name == alert.view);
        plans.extend(view.map(|view| alert.describe(view)));
    }
    std::io::stdout().write_all(plans.join("\n").as_bytes())?;
    let (streams, views) = (definitions.streams.len(), definitions.views.len());
    let mut parts = vec![counted(streams, "stream"), counted(views, "view")];
    if !definitions.alerts.is_empty() {
        parts.push(counted(definitions.alerts.len(), "alert"));
    }
    eprintln!("no errors: {}", parts.join(", "));
    Ok(())
}
