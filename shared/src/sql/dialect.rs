//! Lets `sqlparser` cut a text into tokens and read one expression, within bounds. [`super::lower`] gives the tree its meaning.
//!
//! `sqlparser` backtracks, recurses and, in places, drops words it has read (`COUNT(*) FILTER`). So the caller hands over
//! exactly the tokens of one expression; this module bounds the work and the depth, and checks that the tree has every token.

use std::cell::Cell;

use sqlparser::ast::Expr;
use sqlparser::dialect::Dialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use super::error::SqlError;
use super::source::{Source, lower_first};
use super::suggest::did_you_mean;
use crate::limits::{SQL_BYTES_MAX, SQL_CHAIN_TOKENS_MAX, SQL_DEPTH_MAX, SQL_TOKENS_MAX};

/// Prefix expressions that may be tried per token. A valid text needs one or two; nested errors double the tries.
const TRIES_PER_TOKEN: usize = 64;

/// The part of SQL that `sqlparser` may offer us. Counts its work so that backtracking ends.
#[derive(Debug)]
pub(super) struct TrueupDialect {
    tries_left: Cell<usize>,
}

impl Default for TrueupDialect {
    fn default() -> Self {
        TrueupDialect { tries_left: Cell::new(usize::MAX) }
    }
}

impl Dialect for TrueupDialect {
    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_'
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn parse_prefix(&self, _parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        match self.tries_left.get().checked_sub(1) {
            Some(left) => {
                self.tries_left.set(left);
                None
            }
            // The one error that `sqlparser` does not answer by trying something else.
            None => Some(Err(ParserError::RecursionLimitExceeded)),
        }
    }
}

/// The tokens of `source` without spaces and comments. Errors: the text is too long, or not SQL (an unclosed quote).
pub(super) fn tokens(source: &Source) -> Result<Vec<TokenWithSpan>, SqlError> {
    if source.text().len() > SQL_BYTES_MAX {
        let message = format!("the text is longer than {SQL_BYTES_MAX} bytes");
        return Err(source.error(Span::empty(), message));
    }
    let dialect = TrueupDialect::default();
    let mut tokens = Tokenizer::new(&dialect, source.text()).tokenize_with_location().map_err(|error| {
        let place = Span::new(error.location, error.location);
        let message = error.message.trim().trim_end_matches(" at").to_owned();
        source.error(place, lower_first(&message))
    })?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    match tokens.get(SQL_TOKENS_MAX) {
        Some(token) => Err(source.error(token.span, format!("more than {SQL_TOKENS_MAX} tokens"))),
        None => Ok(tokens),
    }
}

/// Reads `tokens` as one expression. `end` is where the text after them begins, for errors about a missing rest.
pub(super) fn parse_expression(source: &Source, tokens: &[TokenWithSpan], end: Span) -> Result<Expr, SqlError> {
    if tokens.is_empty() {
        return Err(source.error(end, "expected an expression"));
    }
    check_shape(source, tokens)?;
    let dialect = TrueupDialect { tries_left: Cell::new(tokens.len().saturating_mul(TRIES_PER_TOKEN)) };
    let mut parser =
        Parser::new(&dialect).with_recursion_limit(3 * SQL_DEPTH_MAX).with_tokens_with_locations(tokens.to_vec());
    let expression = parser.parse_expr().map_err(|error| parse_error(source, tokens, end, error))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        let message = format!("expected an operator or the end of the expression, found `{}`", next.token);
        return Err(source.error(next.span, message).maybe_help(keyword_help(&next.token)));
    }
    if token_count(&expression.to_string()) != Some(tokens.len()) {
        return Err(source.error(whole(tokens), "a part of this expression is not supported"));
    }
    Ok(expression)
}

/// The probable meaning of a word behind a complete expression.
fn keyword_help(token: &Token) -> Option<String> {
    let Token::Word(word) = token else { return None };
    did_you_mean(&word.value, ["AS", "FROM", "WHERE", "GROUP", "FILTER", "AND", "OR", "IN", "IS", "LIKE", "BETWEEN"])
        .or_else(|| Some(format!("a name is given with AS: `AS {}`", word.value)))
}

/// From the first token to the last.
pub(super) fn whole(tokens: &[TokenWithSpan]) -> Span {
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => Span::new(first.span.start, last.span.end),
        _ => Span::empty(),
    }
}

/// Refuses texts that would make the parser recurse too deep, or build trees too deep to be dropped.
fn check_shape(source: &Source, tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let too_deep = |token: &TokenWithSpan| {
        source.error(token.span, format!("the expression is nested more than {SQL_DEPTH_MAX} levels deep"))
    };
    let mut open: Vec<usize> = Vec::new();
    let mut chain = 0_usize;
    let mut chains_around = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                let query = |next: &TokenWithSpan| is_keyword(&next.token, &[Keyword::SELECT, Keyword::WITH]);
                if let Some(next) = tokens.get(at + 1).filter(|next| query(next)) {
                    return Err(source.error(next.span, "subqueries are not supported yet"));
                }
                open.push(chain);
                chains_around += chain;
                chain = 0;
                if open.len() > SQL_DEPTH_MAX {
                    return Err(too_deep(token));
                }
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                chain = open.pop().unwrap_or(0);
                chains_around = chains_around.saturating_sub(chain);
            }
            Token::Comma => chain = 0,
            Token::Word(word) if word.keyword == Keyword::EXISTS && word.quote_style.is_none() => {
                return Err(source.error(token.span, "subqueries are not supported yet"));
            }
            _ => {}
        }
        chain += 1;
        if chain + chains_around > SQL_CHAIN_TOKENS_MAX {
            let message = format!("more than {SQL_CHAIN_TOKENS_MAX} tokens in one chain of operators");
            return Err(source.error(token.span, message));
        }
    }
    Ok(())
}

/// Returns whether this is one of the keywords, unquoted.
pub(super) fn is_keyword(token: &Token, keywords: &[Keyword]) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && keywords.contains(&word.keyword))
}

fn token_count(text: &str) -> Option<usize> {
    let tokens = Tokenizer::new(&TrueupDialect::default(), text).tokenize().ok()?;
    Some(tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_) | Token::EOF)).count())
}

/// Reads the place that `sqlparser` gives only in words: ` at Line: 1, Column: 2` behind the message.
fn parse_error(source: &Source, tokens: &[TokenWithSpan], end: Span, error: ParserError) -> SqlError {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            let message = format!("the expression is too involved: at most {SQL_DEPTH_MAX} levels of nesting");
            return source.error(whole(tokens), message);
        }
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
    };
    let (message, place) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => (message, read_location(place)),
        None => (text.as_str(), None),
    };
    let token = place.and_then(|place| tokens.iter().find(|token| token.span.start == place));
    let message = match message.split_once(", found: ") {
        Some((expected, found)) => {
            let expected = lower_first(expected).replacen("expected: ", "expected ", 1);
            match found.trim() {
                "EOF" => expected,
                found => format!("{expected}, found `{found}`"),
            }
        }
        None => lower_first(message),
    };
    source.error(token.map_or(end, |token| token.span), message)
}

fn read_location(text: &str) -> Option<Location> {
    let (line, column) = text.split_once(", Column: ")?;
    Some(Location::new(line.trim().parse().ok()?, column.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Expr, SqlError> {
        let source = Source::new("t.sql", text);
        let tokens = tokens(&source)?;
        let end = tokens.last().map_or(Span::empty(), |token| Span::new(token.span.end, token.span.end));
        parse_expression(&source, &tokens, end)
    }

    #[test]
    fn a_word_that_the_parser_would_drop_is_an_error() {
        assert!(parse("COUNT(*) FILTER (WHERE a > 1)").is_ok());
        assert!(parse("COUNT(*) FILTER").is_err());
    }

    #[test]
    fn hostile_texts_end_in_errors_and_not_in_overflows() {
        let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
        for text in [
            nested("(", ")", 10_000),
            nested("(", "", 60),
            nested("cast(", "", 60),
            nested("case when ", "", 400),
            nested("case (", "", 60),
            nested("not ", "", 9_000),
            nested("- ", "", 9_000),
            nested("interval ", " day", 9_000),
            nested("f(", "", 60),
            nested("a in (", "", 60),
            nested("x::", "", 9_000),
            format!("1{}", "+1".repeat(9_000)),
            format!("1{}", " between 1 and 1".repeat(4_000)),
            format!("a{}", "[1]".repeat(5_000)),
            format!("a{}", ".a".repeat(5_000)),
        ] {
            let text: String = text;
            assert!(parse(&text).is_err(), "{}", &text[..20]);
        }
    }

    #[test]
    fn long_lists_are_not_chains() {
        assert!(parse(&format!("a in (1{})", ", 1".repeat(5_000))).is_ok());
    }

    #[test]
    fn an_error_points_at_the_token() {
        let error = parse("a + \n  * b").expect_err("no operand");
        assert_eq!((error.line(), error.column(), error.message()), (2, 3, "expected an expression, found `*`"));
        let error = parse("a b").expect_err("two expressions");
        assert_eq!((error.line(), error.column()), (1, 3));
    }
}
