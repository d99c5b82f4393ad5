//! `trueup check`: checks definitions and prints the execution plans of both layers. Starts nothing.

use std::io::Write;

use shared::explain::describe;

use crate::arguments::Check;
use crate::definitions;
use crate::exit::{Failure, NO};
use crate::human_units::counted;

pub fn run(arguments: Check) -> Result<(), Failure> {
    let definitions = definitions::parse(&definitions::read(&arguments.files)?)?;
    let mut plans = Vec::with_capacity(definitions.views.len());
    for view in &definitions.views {
        let stream = definitions.streams.iter().find(|stream| stream.name == view.stream);
        let stream = stream.ok_or_else(|| Failure::new(NO, format!("view {} has no stream", view.name)))?;
        plans.push(describe(view, stream));
    }
    std::io::stdout().write_all(plans.join("\n").as_bytes())?;
    let (streams, views) = (definitions.streams.len(), definitions.views.len());
    eprintln!("no errors: {}, {}", counted(streams, "stream"), counted(views, "view"));
    Ok(())
}
