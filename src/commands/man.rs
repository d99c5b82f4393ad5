//! `trueup man`: prints the manual page of the program, or writes one page per command.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::arguments::Arguments;
use crate::exit::Failure;

/// Prints the page of the program, or writes the pages of all commands to `folder`.
pub fn run(folder: Option<&Path>) -> Result<(), Failure> {
    let mut program = Arguments::command();
    program.build();
    let Some(folder) = folder else {
        let mut page = Vec::new();
        Man::new(program).render(&mut page)?;
        return Ok(std::io::stdout().write_all(&page)?);
    };
    std::fs::create_dir_all(folder)?;
    let mut count = 0;
    write_pages(&program, "trueup", folder, &mut count)?;
    eprintln!("wrote {count} pages to {0}; to read one: man {0}/trueup.1", folder.display());
    Ok(())
}

fn write_pages(command: &clap::Command, name: &str, folder: &Path, count: &mut usize) -> std::io::Result<()> {
    let mut page = Vec::new();
    Man::new(command.clone()).title(name).render(&mut page)?;
    std::fs::write(folder.join(format!("{name}.1")), page)?;
    *count += 1;
    for below in command.get_subcommands() {
        write_pages(below, &format!("{name}-{}", below.get_name()), folder, count)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().expect("a folder");
        run(Some(folder.path())).expect("pages");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a page");
        assert!(read("trueup.1").contains("trueup\\-batch(1)"), "{}", read("trueup.1"));
        let page = read("trueup-batch-run.1");
        assert!(page.contains(".SH SYNOPSIS") && page.contains("\\-\\-full"), "{page}");
    }
}
