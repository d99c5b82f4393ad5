//! `trueup completions`: prints a completion script for a shell.

use std::io::Write;

use clap::CommandFactory;

use crate::arguments::Arguments;
use crate::exit::Failure;

pub fn run(shell: clap_complete::Shell) -> Result<(), Failure> {
    // Generated in memory first, because clap_complete panics if stdout is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "trueup", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
