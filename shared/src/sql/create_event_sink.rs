//! Reads `CREATE SINK .. AS SELECT .. FROM stream [joins] [WHERE ..] WITH (..)`: each event by itself, or with the rows of tables,
//! filtered and mapped.

use sqlparser::ast::Expr;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use super::create_sink::{Records, parse_every, parse_topic, parse_webhook};
use super::create_view::{Catalog, ViewError, find_stream};
use super::cursor::{Cursor, ExpressionTree, Identifier, is_word};
use super::error::SqlError;
use super::joins::{self, parse_alias, parse_joins};
use super::lower::{has_aggregate, lower, lower_condition};
use super::options::{SqlOption, parse_options};
use super::scope::{Clause, Scope, is_window_column};
use super::source::Source;
use super::suggest::did_you_mean;
use crate::column_name::same;
use crate::event_sink::{EventSink, SelectedColumn};
use crate::ids::SinkName;
use crate::lookup::definition::LookupJoin;
use crate::scalar::Scalar;
use crate::sink::SinkTarget;
use crate::stream::{Column, Stream};
use crate::types::DataType;

const OPTIONS: &[&str] = &["to", "connection", "topic", "format", "every", "key", "transactional_id"];
/// What to do instead of anything that needs more than one event.
const USE_A_VIEW: &str = "declare a view with it, and the sink FROM the view";
/// Clauses and words of views.
const OF_VIEWS: [&str; 13] = [
    "group",
    "having",
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
    "distinct",
];
/// Calls that stand in GROUP BY of views.
const WINDOWS: [&str; 5] = ["tumble", "hop", "cumulate", "session", "slide"];

/// An item of SELECT.
struct Item<'a> {
    value: ExpressionTree<'a>,
    alias: Option<Identifier>,
}

/// Reads from AS to the end of the statement.
pub(super) fn create_event_sink(
    cursor: &mut Cursor,
    name: &Identifier,
    catalog: &Catalog,
) -> Result<EventSink, ViewError> {
    let source = cursor.source;
    cursor.expect_word(&["AS"])?;
    cursor.expect_word(&["SELECT"])?;
    refuse(cursor)?;
    let all = cursor.mark(&Token::Mul);
    let items = if all { Vec::new() } else { parse_items(cursor)? };
    refuse(cursor)?;
    cursor.expect_word(&["FROM"])?;
    let (of, alias) = (cursor.name("the name of a stream")?, parse_alias(cursor)?);
    let stream = source_stream(source, &of, catalog)?;
    let clauses = parse_joins(cursor)?;
    refuse(cursor)?;
    if cursor.peek().is_some_and(|token| token.token == Token::Comma) {
        let error = source.error(cursor.span(), "a sink reads one stream");
        return Err(error.help("join it with tables: JOIN customers ON orders.customer = customers.id").into());
    }
    let joins = joins::resolve(source, (&of, alias.as_ref(), &clauses), stream, catalog)?;
    if let (true, Some(clause)) = (all, clauses.first()) {
        let error = source.error(clause.span, "`*` does not say which columns of a join are meant");
        return Err(error.help("name the columns one by one").into());
    }
    let filter = if cursor.word("where") { Some(cursor.expression_before(&[Keyword::WITH])?) } else { None };
    refuse(cursor)?;
    if !cursor.word("with") {
        let (expected, words): (&str, &[&str]) =
            if filter.is_some() { ("WITH", &["WITH"]) } else { ("WHERE or WITH", &["WHERE", "WITH"]) };
        return Err(cursor.expected(expected, words).into());
    }
    let options = parse_options(cursor, OPTIONS)?;
    if cursor.peek().is_some() {
        return Err(cursor.expected("the end of the statement", &[]).into());
    }
    let types: Vec<(String, DataType)> = stream.columns.iter().map(|c| (c.name.clone(), c.data_type)).collect();
    let owner = alias.as_ref().map_or(stream.name.as_str(), |alias| alias.name.as_str());
    let reader = Reader { source, types: &types, owner, joins: &joins };
    let columns = if all { all_columns(stream) } else { reader.columns(&items)? };
    let filter = filter.map(|filter| reader.filter(&filter)).transpose()?;
    let filter = joins::matched(&joins, filter);
    let option = |name: &str| options.iter().find(|option| option.name == name);
    let target = match option("to") {
        Some(to) => SinkTarget::Webhook(parse_webhook(source, to, &options)?),
        None => {
            let names = columns.iter().map(|column| column.name.as_str()).collect();
            let records = Records { columns: names, name: &name.name, are_rows: false };
            SinkTarget::Topic(parse_topic(source, name, &options, &records)?)
        }
    };
    let key = match option("key") {
        Some(key) => parse_key(source, key, &columns)?,
        None => {
            let is_id = |column: &SelectedColumn| {
                column.expression.as_column().is_some_and(|index| Some(index) == stream.primary_key)
            };
            columns.iter().position(is_id).into_iter().collect()
        }
    };
    Ok(EventSink {
        name: name.name.parse::<SinkName>().map_err(|error| source.error(name.span, error.to_string()))?,
        stream: stream.name.clone(),
        target,
        every: parse_every(source, &options)?,
        joins,
        filter,
        columns,
        key,
        sql: cursor.text().to_owned(),
    })
}

/// Refuses what only views have, if it comes next.
fn refuse(cursor: &Cursor) -> Result<(), SqlError> {
    let Some(word) = OF_VIEWS.iter().find(|word| cursor.at_word(word)) else { return Ok(()) };
    let word = match *word {
        "group" => "GROUP BY".to_owned(),
        "order" => "ORDER BY".to_owned(),
        word => word.to_uppercase(),
    };
    let message = format!("{word} is not possible here: a sink of a SELECT writes each event of one stream by itself");
    Err(cursor.source.error(cursor.span(), message).help(USE_A_VIEW))
}

fn source_stream<'a>(source: &Source, of: &Identifier, catalog: &Catalog<'a>) -> Result<&'a Stream, ViewError> {
    if catalog.views.iter().any(|view| view.name.as_str() == of.name) {
        let error = source.error(of.span, format!("`{}` is a view, whose rows change", of.name));
        return Err(error.help(format!("write FROM VIEW {} instead of AS SELECT", of.name)).into());
    }
    let stream = find_stream(source, of, catalog)?;
    if stream.table.is_some() {
        let message = format!("`{}` is a table: its rows change, and are not events", of.name);
        let help = "declare a view of its rows, grouped by their key, and the sink FROM the view";
        return Err(source.error(of.span, message).help(help).into());
    }
    Ok(stream)
}

fn parse_items<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<Item<'a>>, SqlError> {
    let mut items = Vec::new();
    loop {
        if cursor.peek().is_some_and(|token| token.token == Token::Mul) {
            let error = cursor.source.error(cursor.span(), "`*` stands alone");
            return Err(error.help("name the columns one by one"));
        }
        let value = cursor.expression()?;
        let alias = if cursor.word("as") { Some(cursor.column_name("a name")?) } else { None };
        items.push(Item { value, alias });
        if !cursor.mark(&Token::Comma) {
            return Ok(items);
        }
    }
}

/// The declared columns of the stream, under their names.
fn all_columns(stream: &Stream) -> Vec<SelectedColumn> {
    let column = |(index, column): (usize, &Column)| SelectedColumn {
        name: column.name.clone(),
        expression: Scalar::column(index, column.data_type),
    };
    stream.own_columns().map(column).collect()
}

/// Reads the expressions over one stream, and the tables that it is joined with.
struct Reader<'a> {
    source: &'a Source,
    types: &'a [(String, DataType)],
    owner: &'a str,
    joins: &'a [LookupJoin],
}

impl Reader<'_> {
    fn filter(&self, filter: &ExpressionTree) -> Result<Scalar, SqlError> {
        self.refuse_groups(filter)?;
        lower_condition(self.source, &mut self.scope("WHERE"), filter, "WHERE")
    }

    fn columns(&self, items: &[Item]) -> Result<Vec<SelectedColumn>, SqlError> {
        let mut columns: Vec<SelectedColumn> = Vec::new();
        for Item { value, alias } in items {
            self.refuse_groups(value)?;
            let expression = lower(self.source, &mut self.scope("SELECT"), value)?;
            let first = value.tokens.first().map_or_else(Span::empty, |token| token.span);
            let (name, span) = match alias {
                Some(alias) => (alias.name.clone(), alias.span),
                None => match self.written_name(value) {
                    Some(name) => (name, first),
                    None => {
                        return Err(self.source.error(first, "an expression needs a name").help("add AS and a name"));
                    }
                },
            };
            if columns.iter().any(|known| same(&known.name, &name)) {
                let error = self.source.error(span, format!("there are two columns called `{name}`"));
                return Err(error.help("names match without case: give one of them another name"));
            }
            columns.push(SelectedColumn { name, expression });
        }
        Ok(columns)
    }

    fn scope(&self, clause: &'static str) -> Scope<'_> {
        Scope::new(Clause::Rows(clause), self.types, Some(self.owner)).with_joins(self.joins)
    }

    /// Refuses aggregates and windows, which need more than one event.
    fn refuse_groups(&self, parsed: &ExpressionTree) -> Result<(), SqlError> {
        let calls = |pair: &[TokenWithSpan]| {
            pair[1].token == Token::LParen && WINDOWS.iter().any(|name| is_word(&pair[0].token, name))
        };
        let window = parsed.tokens.windows(2).find(|pair| calls(pair)).map(|pair| pair[0].span);
        let is_bound =
            |token: &&TokenWithSpan| matches!(&token.token, Token::Word(word) if is_window_column(&word.value));
        if let Some(span) = window.or_else(|| parsed.tokens.iter().find(is_bound).map(|token| token.span)) {
            let error = self.source.error(span, "windows group events; a sink of a SELECT writes each event by itself");
            return Err(error.help(USE_A_VIEW));
        }
        if has_aggregate(parsed.tokens) {
            let first = parsed.tokens.first().map_or_else(Span::empty, |token| token.span);
            let message = "an aggregate is of several events; a sink of a SELECT writes each event by itself";
            return Err(self.source.error(first, message).help(USE_A_VIEW));
        }
        Ok(())
    }

    /// The name of a plain column, spelled as it stands in the statement.
    fn written_name(&self, parsed: &ExpressionTree) -> Option<String> {
        let ident = match &parsed.expression {
            Expr::Identifier(ident) => ident,
            Expr::CompoundIdentifier(parts) => parts.last()?,
            _ => return None,
        };
        Some(self.source.spelling(&ident.value, ident.quote_style.is_some()))
    }
}

/// Reads names of columns; an empty text means that records have no key.
fn parse_key(source: &Source, option: &SqlOption, columns: &[SelectedColumn]) -> Result<Vec<usize>, SqlError> {
    let mut key = Vec::new();
    for name in option.value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let Some(index) = columns.iter().position(|column| same(&column.name, name)) else {
            let names = columns.iter().map(|column| column.name.as_str());
            let listed = format!("the columns are {}", names.clone().collect::<Vec<_>>().join(", "));
            let help = did_you_mean(name, names).unwrap_or(listed);
            return Err(option.error(source, format!("`{name}` is not a column of the SELECT")).help(help));
        };
        if key.contains(&index) {
            return Err(option.error(source, format!("`{name}` is given twice")));
        }
        key.push(index);
    }
    Ok(key)
}
