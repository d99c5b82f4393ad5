//! Runs the `trueup` program: parses the command line, runs one command and turns its outcome into the exit code.
//!
//! [`commands`] holds the commands; [`wiring`] joins the layers into a server.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod adopt_definitions;
mod arguments;
mod audit;
mod client;
mod commands;
mod connections;
mod cores;
mod damaged_parquet;
mod data_dir;
mod definition_plan;
mod definitions;
mod engines;
mod events_file;
mod exit;
mod exposure;
mod human_units;
mod line_batch;
mod listen;
mod metric_names;
mod metrics;
mod openapi;
mod ownership;
mod parquet_rows;
mod sample;
mod secret_files;
mod sender;
mod settings;
mod signals;
mod spark_plan;
mod sparkline;
mod table;
mod token_keys;
mod wiring;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, FIRST_STEPS};
use crate::exit::{Failure, USAGE};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // clap exits with 0 for --help and --version and with 2 for wrong usage, which are our exit codes too.
    let Some(command) = Arguments::parse().command else {
        eprint!("{FIRST_STEPS}");
        return ExitCode::from(USAGE);
    };
    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::from).and_then(|runtime| {
            let outcome = runtime.block_on(commands::run(command));
            // A thread that is blocked on standard input must not delay the exit.
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
