//! Runs the commands, each in a file of its own. Every command ends with `Ok` or with a failure and its exit code.

mod alerts;
mod batch;
mod check;
mod compact;
mod compare;
mod completions;
mod demo;
mod erase;
mod ingest;
mod key;
mod listing;
mod man;
mod plan;
mod query;
mod repair;
mod serve;
mod silence;
mod sinks;
mod streams;
mod verify;
mod versions;
mod views;

use crate::arguments::Command;
use crate::exit::Failure;

/// Runs a command until it has finished.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Serve(arguments) => serve::run(arguments).await,
        Command::Check(arguments) => check::run(arguments),
        Command::Plan(arguments) => plan::run(arguments).await,
        Command::Verify(arguments) => verify::run(arguments).await,
        Command::Ingest(arguments) => ingest::run(arguments).await,
        Command::Query(arguments) => query::run(arguments).await,
        Command::Views(arguments) => views::run(arguments).await,
        Command::Streams(arguments) => streams::run(arguments).await,
        Command::Alerts(arguments) => alerts::run(arguments).await,
        Command::Erase(arguments) => erase::run(arguments).await,
        Command::Erasures(arguments) => erase::list(arguments).await,
        Command::Silence(command) => silence::run(command).await,
        Command::Sinks(arguments) => sinks::run(arguments).await,
        Command::Compare(arguments) => compare::run(arguments).await,
        Command::Batch(arguments) => batch::run(arguments).await,
        Command::Checkpoint(arguments) => batch::checkpoint(arguments).await,
        Command::Repair(arguments) => repair::run(arguments).await,
        Command::Key(command) => key::run(command),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { folder } => man::run(folder.as_deref()),
    }
}
