//! Splits a view's SELECT into its clauses, before any name is resolved.

use sqlparser::tokenizer::{Span, Token};

use super::cursor::{Cursor, ExpressionTree, Identifier};
use super::error::SqlError;
use super::joins::{JoinClause, parse_alias, parse_joins};

/// The clauses of one SELECT.
#[derive(Debug)]
pub(super) struct Select<'a> {
    pub(super) items: Vec<SelectItem<'a>>,
    pub(super) stream: Identifier,
    /// The name of the stream in this SELECT, if it is another one.
    pub(super) alias: Option<Identifier>,
    pub(super) joins: Vec<JoinClause>,
    pub(super) filter: Option<ExpressionTree<'a>>,
    pub(super) group_by: Vec<ExpressionTree<'a>>,
    pub(super) having: Option<ExpressionTree<'a>>,
    /// The place of the word SELECT.
    pub(super) span: Span,
}

/// One output column.
#[derive(Debug)]
pub(super) struct SelectItem<'a> {
    pub(super) value: ExpressionTree<'a>,
    pub(super) alias: Option<Identifier>,
}

/// Clauses that are understood but not yet possible.
const LATER: &[&str] = &[
    "order",
    "limit",
    "offset",
    "fetch",
    "union",
    "intersect",
    "except",
    "qualify",
    "window",
    "over",
    "join",
    "inner",
    "left",
    "right",
    "full",
    "cross",
    "natural",
    "distinct",
    "with",
    "lateral",
    "unnest",
];

/// Reads from SELECT to the end of the statement.
pub(super) fn parse_select<'a>(cursor: &mut Cursor<'a>) -> Result<Select<'a>, SqlError> {
    refuse_later(cursor)?;
    let span = cursor.span();
    cursor.expect_word(&["SELECT"])?;
    refuse_later(cursor)?;
    let mut items = vec![parse_item(cursor)?];
    while cursor.mark(&Token::Comma) {
        items.push(parse_item(cursor)?);
    }
    refuse_later(cursor)?;
    if !cursor.word("from") {
        return Err(cursor.expected("`,`, AS or FROM", &["FROM", "AS"]));
    }
    let FromClause { stream, alias, joins } = parse_from(cursor)?;
    let filter = if cursor.word("where") { Some(cursor.expression()?) } else { None };
    refuse_later(cursor)?;
    let mut group_by = Vec::new();
    if cursor.word("group") {
        cursor.expect_word(&["BY"])?;
        group_by.push(cursor.expression()?);
        while cursor.mark(&Token::Comma) {
            group_by.push(cursor.expression()?);
        }
    }
    let having = if cursor.word("having") { Some(cursor.expression()?) } else { None };
    refuse_later(cursor)?;
    let (expected, words): (&str, &[&str]) = match (having.is_some(), group_by.is_empty(), filter.is_some()) {
        _ if cursor.peek().is_none() => {
            return Ok(Select { items, stream, alias, joins, filter, group_by, having, span });
        }
        (true, ..) => ("the end of the statement", &[]),
        (_, false, _) => ("`,`, HAVING or the end of the statement", &["HAVING"]),
        (_, _, false) => ("WHERE, GROUP BY, HAVING or the end of the statement", &["WHERE", "GROUP", "HAVING"]),
        (_, _, true) => ("GROUP BY, HAVING or the end of the statement", &["GROUP", "HAVING"]),
    };
    Err(cursor.expected(expected, words))
}

fn parse_item<'a>(cursor: &mut Cursor<'a>) -> Result<SelectItem<'a>, SqlError> {
    if matches!(cursor.peek().map(|token| &token.token), Some(Token::Mul)) {
        let error = cursor.source.error(cursor.span(), "a view names its columns one by one, not with `*`");
        return Err(error.help("did you mean COUNT(*)?"));
    }
    let value = cursor.expression()?;
    let alias = if cursor.word("as") { Some(cursor.column_name("a name")?) } else { None };
    Ok(SelectItem { value, alias })
}

/// What stands behind FROM.
struct FromClause {
    stream: Identifier,
    alias: Option<Identifier>,
    joins: Vec<JoinClause>,
}

fn parse_from(cursor: &mut Cursor) -> Result<FromClause, SqlError> {
    if matches!(cursor.peek().map(|token| &token.token), Some(Token::LParen)) {
        return Err(cursor.source.error(cursor.span(), "subqueries are not supported yet"));
    }
    let stream = cursor.name("the name of a stream")?;
    let alias = parse_alias(cursor)?;
    let joins = parse_joins(cursor)?;
    refuse_later(cursor)?;
    match cursor.peek().map(|token| &token.token) {
        Some(Token::Comma) => {
            let error = cursor.source.error(cursor.span(), "a view reads one stream");
            Err(error.help("join it with tables: JOIN customers ON orders.customer = customers.id"))
        }
        Some(Token::LParen) => Err(cursor.source.error(cursor.span(), "table functions are not supported")),
        _ => Ok(FromClause { stream, alias, joins }),
    }
}

fn refuse_later(cursor: &Cursor) -> Result<(), SqlError> {
    match LATER.iter().find(|word| cursor.at_word(word)) {
        Some(&("join" | "inner" | "left" | "right" | "full" | "cross" | "natural")) => {
            Err(cursor.source.error(cursor.span(), "a JOIN stands directly behind the stream, before WHERE"))
        }
        Some(word) => {
            let word = if *word == "order" { "ORDER BY".to_owned() } else { word.to_uppercase() };
            Err(cursor.source.error(cursor.span(), format!("{word} is not supported yet")))
        }
        None => Ok(()),
    }
}
