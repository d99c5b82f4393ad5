//! Reads and parses definition files, and prints their errors with a caret under the position.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use miette::{GraphicalReportHandler, GraphicalTheme};
use shared::limits::SQL_BYTES_MAX;
use shared::sql::{Definitions, SqlError, parse_definitions};

use crate::exit::{Failure, NO, USAGE};

/// Definition files: path and text of each.
pub type Sources = Vec<(PathBuf, String)>;

/// Reads the files. A file that cannot be read or is too long is wrong usage.
pub fn read(files: &[PathBuf]) -> Result<Sources, Failure> {
    files.iter().map(|path| Ok((path.clone(), read_file(path)?))).collect()
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let unreadable = |cause: &dyn std::fmt::Display| Failure::new(USAGE, format!("{}: {cause}", path.display()));
    let size = std::fs::metadata(path).map_err(|cause| unreadable(&cause))?.len();
    if size > SQL_BYTES_MAX as u64 {
        return Err(unreadable(&format!("longer than {SQL_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(path).map_err(|cause| unreadable(&cause))
}

/// Parses the files. Prints errors with their positions on stderr; the command then fails with exit code 1.
pub fn parse(sources: &Sources) -> Result<Definitions, Failure> {
    let named: Vec<_> = sources.iter().map(|(path, text)| (path.display().to_string(), text.clone())).collect();
    parse_definitions(&named).map_err(|errors| {
        let coloured = std::io::stderr().is_terminal();
        eprint!("{}", report(&errors, coloured));
        let errors = crate::human_units::counted(errors.len(), "error");
        Failure::new(NO, format!("{errors} in the definitions"))
    })
}

fn report(errors: &[SqlError], coloured: bool) -> String {
    let theme = if coloured { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(110);
    let mut text = String::new();
    for error in errors {
        handler.render_report(&mut text, error).expect("a String takes any text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_at_its_position() {
        let text = "CREATE STREAM s (t TIMESTAMP) WITH (event_time = 'u');\n";
        let errors = parse_definitions(&[("s.sql".to_owned(), text.to_owned())]).expect_err("no column u");
        let report = report(&errors, false);
        assert!(report.contains("s.sql:1:"), "{report}");
        assert!(report.contains("event_time = 'u'"), "{report}");
        assert!(!report.contains('\u{1b}'), "colours only on a terminal: {report}");
    }

    #[test]
    fn a_missing_file_is_wrong_usage() {
        let failure = read(&[PathBuf::from("no-such.sql")]).expect_err("missing");
        assert_eq!(failure.code, USAGE);
    }
}
