//! Describes one mistake in a text: the message, its place in the file, and what to write instead.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// A mistake in a definition or a predicate. Shown without colours as `file:line:column: message`; as a
/// [`miette::Diagnostic`] with a caret under the place.
#[derive(Debug, Clone)]
pub struct SqlError(Box<Mistake>);

#[derive(Debug, Clone)]
struct Mistake {
    message: String,
    help: Option<String>,
    line: usize,
    column: usize,
    offset: usize,
    length: usize,
    file: Arc<str>,
    source: NamedSource<Arc<str>>,
}

impl SqlError {
    /// `line` and `column` count from 1, `column` in characters; `offset` and `length` are bytes of `text`.
    pub(super) fn new(
        message: String,
        (file, text): (Arc<str>, Arc<str>),
        (line, column): (usize, usize),
        (offset, length): (usize, usize),
    ) -> SqlError {
        let source = NamedSource::new(&*file, text).with_language("sql");
        SqlError(Box::new(Mistake { message, help: None, line, column, offset, length, file, source }))
    }

    /// Adds what to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> SqlError {
        self.0.help = Some(help.into());
        self
    }

    /// Adds what to write instead, if there is a suggestion.
    pub(super) fn maybe_help(mut self, help: Option<String>) -> SqlError {
        self.0.help = help.or(self.0.help);
        self
    }

    /// The message, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to write instead, if there is a suggestion.
    pub fn hint(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// Name of the file.
    pub fn file(&self) -> &str {
        &self.0.file
    }

    /// Line, from 1.
    pub fn line(&self) -> usize {
        self.0.line
    }

    /// Column in characters, from 1.
    pub fn column(&self) -> usize {
        self.0.column
    }

    /// Bytes the mistake spans; at least 1 but for the end of the file.
    pub fn length(&self) -> usize {
        self.0.length
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistake { message, line, column, file, .. } = &*self.0;
        write!(f, "{file}:{line}:{column}: {message}")
    }
}

impl std::error::Error for SqlError {}

impl Diagnostic for SqlError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.0.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new(Some("here".to_owned()), self.0.offset, self.0.length);
        Some(Box::new(std::iter::once(label)))
    }
}
