//! Reads the joins behind FROM: `[INNER | LEFT] JOIN table [AS t] ON s.x = t.key`, and checks that each looks up rows by their key.

use sqlparser::tokenizer::{Span, Token};

use super::create_view::{Catalog, ViewError};
use super::cursor::{Cursor, Identifier};
use super::error::SqlError;
use super::lower::{boolean, not};
use super::source::Source;
use super::suggest::did_you_mean;
use crate::column_name::same;
use crate::limits::JOINS_MAX;
use crate::lookup::definition::{JoinKind, JoinTable, LookupJoin, joined_index};
use crate::scalar::{Node, Scalar};
use crate::stream::Stream;
use crate::types::DataType;

/// A join as it is written.
#[derive(Debug)]
pub(super) struct JoinClause {
    kind: JoinKind,
    table: Identifier,
    alias: Option<Identifier>,
    on: [ColumnPath; 2],
    /// The place of its first word.
    pub(super) span: Span,
}

/// `name` or `owner.name`.
#[derive(Debug)]
struct ColumnPath {
    owner: Option<Identifier>,
    name: Identifier,
}

/// Reads `AS name`, if it comes next.
pub(super) fn parse_alias(cursor: &mut Cursor) -> Result<Option<Identifier>, SqlError> {
    if cursor.word("as") { cursor.name("a name").map(Some) } else { Ok(None) }
}

/// Reads all joins.
pub(super) fn parse_joins(cursor: &mut Cursor) -> Result<Vec<JoinClause>, SqlError> {
    let mut joins = Vec::new();
    loop {
        let span = cursor.span();
        if let Some(word) = ["right", "full", "cross", "natural"].iter().find(|word| cursor.at_word(word)) {
            let error = cursor.source.error(span, format!("{} JOIN is not supported", word.to_uppercase()));
            return Err(error.help("every event is joined with one row of a table: use INNER JOIN or LEFT JOIN"));
        }
        let kind = if cursor.word("left") {
            cursor.word("outer");
            Some(JoinKind::Left)
        } else {
            cursor.word("inner").then_some(JoinKind::Inner)
        };
        match kind {
            Some(_) => _ = cursor.expect_word(&["JOIN"])?,
            None if cursor.word("join") => {}
            None => return Ok(joins),
        }
        if joins.len() == JOINS_MAX {
            return Err(cursor.source.error(span, format!("a statement has at most {JOINS_MAX} joins")));
        }
        if matches!(cursor.peek().map(|token| &token.token), Some(Token::LParen)) {
            return Err(cursor.source.error(cursor.span(), "subqueries are not supported yet"));
        }
        let table = cursor.name("the name of a table")?;
        let alias = parse_alias(cursor)?;
        cursor.expect_word(&["ON"])?;
        let left = parse_path(cursor)?;
        cursor.expect_mark(&Token::Eq)?;
        let on = [left, parse_path(cursor)?];
        if cursor.at_word("and") || cursor.at_word("or") {
            let error = cursor.source.error(cursor.span(), "ON is one comparison with the key of the table");
            return Err(error.help("put other conditions into WHERE"));
        }
        joins.push(JoinClause { kind: kind.unwrap_or(JoinKind::Inner), table, alias, on, span });
    }
}

fn parse_path(cursor: &mut Cursor) -> Result<ColumnPath, SqlError> {
    let is_qualified = cursor.is_before(&Token::Period);
    let owner = if is_qualified { Some(cursor.name("the name of a stream or table")?) } else { None };
    if owner.is_some() {
        cursor.expect_mark(&Token::Period)?;
    }
    Ok(ColumnPath { owner, name: cursor.column_name("the name of a column")? })
}

/// A stream or table whose columns ON can name.
struct Owner<'a> {
    name: &'a str,
    columns: Vec<(&'a str, DataType)>,
}

/// Returns `filter`, and that every inner join has a row: a key is never NULL.
pub(super) fn matched(joins: &[LookupJoin], filter: Option<Scalar>) -> Option<Scalar> {
    let inner = joins.iter().enumerate().filter(|(_, join)| join.kind == JoinKind::Inner);
    let has_row = inner.map(|(number, join)| {
        let key = joined_index(number, join.table.key);
        let key = Scalar::column(key, join.table.columns[join.table.key].1);
        not(boolean(Node::IsNull(Box::new(key))))
    });
    has_row.chain(filter).reduce(|all, one| boolean(Node::And(Box::new(all), Box::new(one))))
}

/// Checks the joins behind the stream `of`, which is called `alias` in its statement.
pub(super) fn resolve(
    source: &Source,
    (of, alias, clauses): (&Identifier, Option<&Identifier>, &[JoinClause]),
    stream: &Stream,
    catalog: &Catalog,
) -> Result<Vec<LookupJoin>, ViewError> {
    if clauses.is_empty() {
        return Ok(Vec::new());
    }
    if stream.table.is_some() {
        let message = format!("`{}` is a table: only events of a stream are joined with rows", stream.name);
        let help = "a change of a row would change the joined rows of the past; join the stream of its changes instead";
        return Err(source.error(of.span, message).help(help).into());
    }
    let stream_name = alias.unwrap_or(of).name.as_str();
    let of_stream: Vec<_> = stream.columns.iter().map(|column| (column.name.as_str(), column.data_type)).collect();
    let mut joins: Vec<LookupJoin> = Vec::with_capacity(clauses.len());
    for clause in clauses {
        let table = find_table(source, &clause.table, catalog)?;
        let alias = clause.alias.as_ref().unwrap_or(&clause.table);
        if stream_name == alias.name || joins.iter().any(|join| join.alias == alias.name) {
            let error = source.error(alias.span, format!("there are two `{}` behind FROM", alias.name));
            return Err(error.help("give one of them another name with AS").into());
        }
        let stream = Owner { name: stream_name, columns: of_stream.clone() };
        let before = joins.iter().map(|join| Owner::of(&join.alias, &join.table));
        let owners: Vec<Owner<'_>> = std::iter::once(stream).chain(before).collect();
        let on = OnReader { source, owners: &owners, table: Owner::of(&alias.name, &table), key: table.key };
        let (owner, column) = on.read(clause)?;
        let on = match owner.checked_sub(1) {
            None => column,
            Some(join) => joined_index(join, column),
        };
        joins.push(LookupJoin { alias: alias.name.clone(), kind: clause.kind, on, table });
    }
    Ok(joins)
}

fn find_table(source: &Source, name: &Identifier, catalog: &Catalog) -> Result<JoinTable, ViewError> {
    if let Some(stream) = catalog.streams.iter().find(|stream| stream.name.as_str() == name.name) {
        return JoinTable::of(stream).ok_or_else(|| {
            if stream.table.is_some() {
                let key = stream.row_key().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
                let message = format!("the rows of `{}` have a key of several columns ({key})", name.name);
                let help = "a join looks up rows by one column; add a column to the table that names its rows alone";
                return source.error(name.span, message).help(help).into();
            }
            let error =
                source.error(name.span, format!("`{}` is a stream: two streams cannot be joined yet", name.name));
            error.help("JOIN looks up rows of a table, which CREATE TABLE declares").into()
        });
    }
    if let Some(table) = catalog.tables.iter().find(|table| table.name.as_str() == name.name) {
        return Ok(table.clone());
    }
    if catalog.failed.contains(&name.name) {
        return Err(ViewError::StreamFailed);
    }
    let declared = catalog.streams.iter().filter(|stream| stream.table.is_some());
    let help = did_you_mean(&name.name, declared.map(|table| table.name.as_str()))
        .or_else(|| Some("a table is declared before the statements that join it".to_owned()));
    Err(source.error(name.span, format!("unknown table `{}`", name.name)).maybe_help(help).into())
}

impl<'a> Owner<'a> {
    fn of(name: &'a str, table: &'a JoinTable) -> Owner<'a> {
        let columns = table.columns.iter().map(|(name, data_type)| (name.as_str(), *data_type)).collect();
        Owner { name, columns }
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(known, _)| same(known, name))
    }
}

/// Reads the condition of one join.
struct OnReader<'a> {
    source: &'a Source,
    /// The stream, and the tables joined before.
    owners: &'a [Owner<'a>],
    table: Owner<'a>,
    key: usize,
}

/// What a side of the condition names: the number of its owner and of the column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Event(usize, usize),
    Table(usize),
}

impl OnReader<'_> {
    /// Returns the owner and the column whose value is looked up.
    fn read(&self, clause: &JoinClause) -> Result<(usize, usize), SqlError> {
        let [left, right] = &clause.on;
        let (of_table, path, owner, column) = match (self.side(left)?, self.side(right)?) {
            (Side::Event(owner, column), Side::Table(key)) => ((key, right), left, owner, column),
            (Side::Table(key), Side::Event(owner, column)) => ((key, left), right, owner, column),
            _ => {
                let message = format!("ON compares a column of an event with the key of `{}`", self.table.name);
                return Err(self.source.error(left.name.span, message).help(self.example()));
            }
        };
        let (named, at) = of_table;
        let (key, key_type) = self.table.columns[self.key];
        if named != self.key {
            let message = format!(
                "rows of `{}` are looked up by their key `{key}`, and `{}` is not it",
                self.table.name, at.name.name
            );
            return Err(self.source.error(at.name.span, message).help(self.example()));
        }
        let found = self.owners[owner].columns[column].1;
        if found != key_type && !(found.is_integer() && key_type.is_integer()) {
            let message = format!("`{}` is {found}, and the key `{key}` is {key_type}", path.name.name);
            return Err(self.source.error(path.name.span, message).help("declare both with one type"));
        }
        Ok((owner, column))
    }

    fn side(&self, path: &ColumnPath) -> Result<Side, SqlError> {
        let name = &path.name.name;
        let mut found = Vec::new();
        let is_meant = |owner: &Owner<'_>| path.owner.as_ref().is_none_or(|wanted| wanted.name == owner.name);
        for (number, owner) in self.owners.iter().enumerate().filter(|(_, owner)| is_meant(owner)) {
            found.extend(owner.column(name).map(|column| Side::Event(number, column)));
        }
        if is_meant(&self.table) {
            found.extend(self.table.column(name).map(Side::Table));
        }
        match (found.as_slice(), &path.owner) {
            ([one], _) => Ok(*one),
            ([], Some(owner)) if !self.owners.iter().chain([&self.table]).any(|known| known.name == owner.name) => {
                Err(self.source.error(owner.span, format!("unknown name `{}` before the point", owner.name)))
            }
            ([], _) => Err(self.source.error(path.name.span, format!("unknown column `{name}`"))),
            _ => {
                let message = format!("several columns are called `{name}`");
                Err(self.source.error(path.name.span, message).help("write the name of its stream or table before it"))
            }
        }
    }

    fn example(&self) -> String {
        format!("write ON {}.x = {}.{}", self.owners[0].name, self.table.name, self.table.columns[self.key].0)
    }
}
