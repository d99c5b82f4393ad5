//! Reads `WITH (...)`: names and constants, each with its place. The caller gives them their meaning.

use std::time::Duration;

use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::cursor::Cursor;
use super::duration::{parse_micros, parse_span};
use super::error::SqlError;
use super::source::Source;
use super::suggest::did_you_mean;
use crate::retention::Retention;

/// One `name = value`.
#[derive(Debug)]
pub(super) struct SqlOption {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) value_span: Span,
}

/// Reads `(name = value, ...)`. Only names in `known` pass, each once.
pub(super) fn parse_options(cursor: &mut Cursor, known: &[&str]) -> Result<Vec<SqlOption>, SqlError> {
    cursor.expect_mark(&Token::LParen)?;
    let mut options: Vec<SqlOption> = Vec::new();
    loop {
        let Some(TokenWithSpan { token: Token::Word(word), span }) = cursor.peek() else {
            return Err(cursor.expected("the name of an option", &[]));
        };
        let name = word.value.to_lowercase();
        if !known.contains(&name.as_str()) {
            let help = did_you_mean(&name, known.iter().copied())
                .unwrap_or_else(|| format!("the options are {}", known.join(", ")));
            return Err(cursor.source.error(*span, format!("unknown option `{name}`")).help(help));
        }
        if options.iter().any(|option| option.name == name) {
            return Err(cursor.source.error(*span, format!("the option `{name}` is given twice")));
        }
        cursor.next();
        cursor.expect_mark(&Token::Eq)?;
        let (value, value_span) = match cursor.peek() {
            Some(TokenWithSpan { token: Token::SingleQuotedString(text), span }) => (text.clone(), *span),
            Some(TokenWithSpan { token: Token::Number(text, false), span }) => (text.clone(), *span),
            _ => return Err(cursor.expected("a value in single quotes", &[])),
        };
        cursor.next();
        options.push(SqlOption { name, value, value_span });
        if !cursor.mark(&Token::Comma) {
            break;
        }
    }
    match cursor.mark(&Token::RParen) {
        true => Ok(options),
        false => Err(cursor.expected("`,` or `)`", &[])),
    }
}

impl SqlOption {
    /// An error at the value.
    pub(super) fn error(&self, source: &Source, message: impl Into<String>) -> SqlError {
        source.error(self.value_span, message)
    }

    /// The value as a span of whole days, months and years.
    pub(super) fn retention(&self, source: &Source) -> Result<Retention, SqlError> {
        let span = parse_span(&self.value).map_err(|bad| self.error(source, bad.message).maybe_help(bad.help))?;
        let parts = u32::try_from(span.months).ok().zip(u32::try_from(span.days).ok());
        match parts.filter(|parts| *parts != (0, 0) && span.micros == 0) {
            Some((months, days)) => Ok(Retention { months, days }),
            None => {
                let error = self.error(source, "retention is a number of whole days, weeks, months or years");
                Err(error.help("write '90 days' or '5 years'"))
            }
        }
    }

    /// The value as a span of time that is not negative.
    pub(super) fn duration(&self, source: &Source) -> Result<Duration, SqlError> {
        match parse_micros(&self.value) {
            Ok(micros) => match u64::try_from(micros) {
                Ok(micros) => Ok(Duration::from_micros(micros)),
                Err(_) => Err(self.error(source, format!("`{}` cannot be negative", self.name))),
            },
            Err(bad) => Err(self.error(source, bad.message).maybe_help(bad.help)),
        }
    }
}
