//! What happens when someone types `trueup`? The command line is read, one command runs, and its outcome becomes the
//! exit code. What the commands do is in [`commands`]; how the layers are joined is in [`wiring`].

mod adopt_definitions;
mod arguments;
mod client;
mod commands;
mod cores;
mod data_dir;
mod definition_plan;
mod definitions;
mod events_file;
mod exit;
mod human_units;
mod listen;
mod metric_names;
mod metrics;
mod openapi;
mod ownership;
mod parquet_rows;
mod sample;
mod sending;
mod settings;
mod signals;
mod sparkline;
mod table;
mod wiring;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, FIRST_STEPS};
use crate::exit::{Failure, USAGE};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // clap itself answers --help and --version with 0 and wrong usage with 2, as the contract has it.
    let Some(command) = Arguments::parse().command else {
        eprint!("{FIRST_STEPS}");
        return ExitCode::from(USAGE);
    };
    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::from).and_then(|runtime| {
            let outcome = runtime.block_on(commands::run(command));
            // A thread that still waits for standard input must not hold the end back.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}
