//! `trueup completions`: how does a shell complete our commands?

use std::io::Write;

use clap::CommandFactory;

use crate::arguments::Arguments;
use crate::exit::Failure;

pub fn run(shell: clap_complete::Shell) -> Result<(), Failure> {
    // Into memory first: clap_complete panics if the reader of stdout has gone.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "trueup", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
