//! Walks over the tokens of a statement: reads words, names and marks, and cuts out the tokens of an expression.

use std::str::FromStr;

use sqlparser::ast::Expr;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::dialect::{is_keyword, parse_expression};
use super::error::SqlError;
use super::source::Source;
use super::suggest::{did_you_mean, one_of};
use crate::column_name::{self, InvalidColumnName};
use crate::ids::Name;

/// Words that end an expression when they stand outside parentheses.
const CLAUSES: &[Keyword] = &[
    Keyword::AS,
    Keyword::FROM,
    Keyword::WHERE,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::ORDER,
    Keyword::LIMIT,
    Keyword::OFFSET,
    Keyword::FETCH,
    Keyword::UNION,
    Keyword::INTERSECT,
    Keyword::EXCEPT,
    Keyword::QUALIFY,
    Keyword::WINDOW,
    Keyword::JOIN,
    Keyword::SELECT,
    Keyword::INTO,
    Keyword::OVER,
];

/// A name with its place.
#[derive(Debug, Clone)]
pub(super) struct Identifier {
    pub(super) name: String,
    pub(super) span: Span,
}

/// An expression as `sqlparser` reads it, with its tokens, so that errors can point at its parts.
#[derive(Debug)]
pub(super) struct ExpressionTree<'a> {
    pub(super) expression: Expr,
    pub(super) tokens: &'a [TokenWithSpan],
}

/// A place in the tokens of one statement.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub(super) source: &'a Source,
    tokens: &'a [TokenWithSpan],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(source: &'a Source, tokens: &'a [TokenWithSpan]) -> Cursor<'a> {
        Cursor { source, tokens, at: 0 }
    }

    /// The next token; `None` at the end of the statement.
    pub(super) fn peek(&self) -> Option<&'a TokenWithSpan> {
        self.tokens.get(self.at)
    }

    /// Where the next token stands; at the end, just behind the last one.
    pub(super) fn span(&self) -> Span {
        match (self.peek(), self.tokens.last()) {
            (Some(token), _) => token.span,
            (None, Some(last)) => Span::new(last.span.end, last.span.end),
            (None, None) => Span::empty(),
        }
    }

    pub(super) fn next(&mut self) -> Option<&'a TokenWithSpan> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    /// The statement's whole text.
    pub(super) fn text(&self) -> &'a str {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => self.source.slice(first.span, last.span),
            _ => "",
        }
    }

    /// `expected .., found ..` at the next token; a word near one of `words` is named as the likely meaning.
    pub(super) fn expected(&self, what: &str, words: &[&str]) -> SqlError {
        match self.peek() {
            None => self.source.error(self.span(), format!("expected {what}, found the end of the statement")),
            Some(token) => {
                let error = self.source.error(token.span, format!("expected {what}, found `{}`", token.token));
                match &token.token {
                    Token::Word(word) => error.maybe_help(did_you_mean(&word.value, words.iter().copied())),
                    _ => error,
                }
            }
        }
    }

    /// Returns whether the next token is this unquoted word.
    pub(super) fn at_word(&self, word: &str) -> bool {
        self.peek().is_some_and(|token| is_word(&token.token, word))
    }

    /// Reads this word if it comes next.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let found = self.at_word(word);
        self.at += usize::from(found);
        found
    }

    /// Reads one of `words`, or explains that one was expected. Gives its index.
    pub(super) fn expect_word(&mut self, words: &[&str]) -> Result<usize, SqlError> {
        match words.iter().position(|word| self.at_word(word)) {
            Some(index) => {
                self.at += 1;
                Ok(index)
            }
            None => Err(self.expected(&one_of(words), words)),
        }
    }

    /// Returns whether this mark comes behind the next token.
    pub(super) fn is_before(&self, mark: &Token) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|token| token.token == *mark)
    }

    /// Reads this mark if it comes next.
    pub(super) fn mark(&mut self, mark: &Token) -> bool {
        let found = self.peek().is_some_and(|token| token.token == *mark);
        self.at += usize::from(found);
        found
    }

    /// Reads this mark, or explains that it was expected.
    pub(super) fn expect_mark(&mut self, mark: &Token) -> Result<(), SqlError> {
        if self.mark(mark) { Ok(()) } else { Err(self.expected(&format!("`{mark}`"), &[])) }
    }

    /// Reads the name of a stream or view, which is always in lower case. `what` it names is for the error.
    pub(super) fn name(&mut self, what: &str) -> Result<Identifier, SqlError> {
        let Some(TokenWithSpan { token: Token::Word(word), span }) = self.peek() else {
            return Err(self.expected(what, &[]));
        };
        self.at += 1;
        let name = word.value.to_lowercase();
        match Name::from_str(&name) {
            Ok(_) => Ok(Identifier { name, span: *span }),
            Err(error) => Err(self.source.error(*span, error.to_string())),
        }
    }

    /// Reads the name of a column in its own spelling, reserved or not. `what` it names is for the error.
    pub(super) fn column_name(&mut self, what: &str) -> Result<Identifier, SqlError> {
        let Some(TokenWithSpan { token: Token::Word(word), span }) = self.peek() else {
            return Err(self.expected(what, &[]));
        };
        self.at += 1;
        let name = self.source.spelling(&word.value, word.quote_style.is_some());
        match column_name::check(&name) {
            Ok(()) | Err(InvalidColumnName::Reserved(_)) => Ok(Identifier { name, span: *span }),
            Err(error) => {
                let refused = matches!(error, InvalidColumnName::Refused { .. });
                let help = refused.then(|| format!("choose a name such as `{}`", column_name::plain(&name)));
                Err(self.source.error(*span, error.to_string()).maybe_help(help))
            }
        }
    }

    /// Reads a text in single quotes. `what` it is is for the error.
    pub(super) fn quoted_text(&mut self, what: &str) -> Result<(String, Span), SqlError> {
        match self.peek() {
            Some(TokenWithSpan { token: Token::SingleQuotedString(text), span }) => {
                self.at += 1;
                Ok((text.clone(), *span))
            }
            _ => Err(self.expected(what, &[])),
        }
    }

    /// Reads the tokens up to the next comma, closing parenthesis or clause of this level as one expression.
    pub(super) fn expression(&mut self) -> Result<ExpressionTree<'a>, SqlError> {
        self.expression_before(&[])
    }

    /// The same; the keywords `more` end the expression, too.
    pub(super) fn expression_before(&mut self, more: &[Keyword]) -> Result<ExpressionTree<'a>, SqlError> {
        let mut depth = 0_usize;
        // `WITHIN GROUP` and `DISTINCT FROM` belong to expressions.
        let mut before: Option<&Token> = None;
        let ends = |token: &'a TokenWithSpan| match (&token.token, before.replace(&token.token)) {
            (Token::LParen, _) => {
                depth += 1;
                false
            }
            (Token::RParen, _) if depth > 0 => {
                depth -= 1;
                false
            }
            (Token::RParen, _) => true,
            (Token::Comma, _) => depth == 0,
            (_, Some(before)) if is_keyword(before, &[Keyword::WITHIN, Keyword::DISTINCT]) => false,
            (token, _) => depth == 0 && (is_keyword(token, CLAUSES) || is_keyword(token, more)),
        };
        let rest = &self.tokens[self.at..];
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        let tokens = &rest[..length];
        self.at += length;
        let expression = parse_expression(self.source, tokens, self.span())?;
        Ok(ExpressionTree { expression, tokens })
    }
}

/// Returns whether the token is this unquoted word, in any case.
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}
