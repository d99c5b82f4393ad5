//! What do the definition files say? They are read, parsed, and their mistakes shown with a caret under the place.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use miette::{GraphicalReportHandler, GraphicalTheme};
use shared::limits::SQL_BYTES_MAX;
use shared::sql::{Definitions, SqlError, parse_definitions};

use crate::exit::{Failure, NO, USAGE};

/// Definition files: where each came from, and its text.
pub type Sources = Vec<(PathBuf, String)>;

/// Reads the files. A file that cannot be read, or is too long, is wrong usage.
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

/// Parses the files; mistakes are printed on stderr, each with its place, and end the command with 1.
pub fn parse(sources: &Sources) -> Result<Definitions, Failure> {
    let named: Vec<_> = sources.iter().map(|(path, text)| (path.display().to_string(), text.clone())).collect();
    parse_definitions(&named).map_err(|errors| {
        let coloured = std::io::stderr().is_terminal();
        eprint!("{}", report(&errors, coloured));
        let mistakes = crate::human_units::counted(errors.len(), "mistake");
        Failure::new(NO, format!("{mistakes} in the definitions"))
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
    fn a_mistake_is_shown_where_it_is() {
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
