//! Maps places in a text, which the tokenizer counts in lines and columns, to bytes, slices and errors.

use std::sync::Arc;

use sqlparser::tokenizer::{Location, Span};

use super::error::SqlError;

/// A text with its name.
#[derive(Debug)]
pub(super) struct Source {
    file: Arc<str>,
    text: Arc<str>,
    /// Byte offset at which each line begins.
    lines: Vec<usize>,
    /// Whether unquoted names are read in lower case, as earlier programs did.
    folds_names: bool,
}

impl Source {
    pub(super) fn new(file: &str, text: &str) -> Source {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Source { file: file.into(), text: text.into(), lines, folds_names: false }
    }

    /// A text in which unquoted names are read in lower case.
    pub(super) fn folding(file: &str, text: &str) -> Source {
        Source { folds_names: true, ..Source::new(file, text) }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The spelling of a name as it counts: its own.
    pub(super) fn spelling(&self, name: &str, quoted: bool) -> String {
        if self.folds_names && !quoted { name.to_lowercase() } else { name.to_owned() }
    }

    /// The text from the start of `from` to the end of `to`.
    pub(super) fn slice(&self, from: Span, to: Span) -> &str {
        let (start, end) = (self.offset(from.start), self.offset(to.end));
        self.text.get(start..end.max(start)).unwrap_or_default()
    }

    /// An error at `span`. A span of no length marks one character.
    pub(super) fn error(&self, span: Span, message: impl Into<String>) -> SqlError {
        let start = if span.start.line == 0 { Location::new(1, 1) } else { span.start };
        let offset = self.offset(start);
        let line_end = self.text[offset..].find('\n').map_or(self.text.len(), |at| offset + at);
        // A caret under several lines says less than one under the first.
        let end = self.offset(span.end).clamp(offset, line_end);
        let one = self.text[offset..].chars().next().map_or(0, char::len_utf8);
        let length = (end - offset).max(one);
        let place = (start.line as usize, start.column as usize);
        SqlError::new(message.into(), (self.file.clone(), self.text.clone()), place, (offset, length))
    }

    fn offset(&self, location: Location) -> usize {
        let Some(&start) = (location.line as usize).checked_sub(1).and_then(|line| self.lines.get(line)) else {
            return if location.line == 0 { 0 } else { self.text.len() };
        };
        let rest = &self.text[start..];
        let chars = (location.column as usize).saturating_sub(1);
        start + rest.char_indices().nth(chars).map_or(rest.len(), |(at, _)| at)
    }
}

/// The same sentence beginning with a small letter, as errors do.
pub(super) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::tokens;
    use super::*;

    #[test]
    fn places_count_characters_and_slices_count_bytes() {
        let source = Source::new("a.sql", "'é' x\n  y");
        let tokens = tokens(&source).expect("valid");
        assert_eq!(tokens.len(), 3);
        assert_eq!(source.slice(tokens[1].span, tokens[1].span), "x");
        assert_eq!(source.slice(tokens[0].span, tokens[2].span), "'é' x\n  y");
        assert_eq!(source.error(tokens[2].span, "no").to_string(), "a.sql:2:3: no");
    }

    #[test]
    fn an_unclosed_quote_is_an_error_where_it_opens() {
        let error = tokens(&Source::new("a.sql", "x\n 'abc")).expect_err("unclosed");
        assert_eq!((error.line(), error.column()), (2, 2));
    }
}
