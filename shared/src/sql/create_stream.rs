//! Reads `CREATE STREAM`: columns, the event id, the event time and the options of a stream.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use sqlparser::tokenizer::{Span, Token};

use super::cursor::{Cursor, Identifier};
use super::data_type::parse_data_type;
use super::error::SqlError;
use super::event_source::event_source;
use super::options::{SqlOption, parse_options};
use super::outbox::check_parts;
use super::postgres_table::check_columns;
use super::row_table::row_table;
use super::source::Source;
use super::suggest::did_you_mean;
use crate::column_name::{self, InvalidColumnName, same};
use crate::ids::StreamName;
use crate::limits::PARTITIONS_MAX;
use crate::stream::time_format::{InvalidFormat, NAMES as FORMATS};
use crate::stream::{
    Column, EventSource, FieldPath, InvalidPointer, RecordPart, RowTable, Stream, TimeFormat, UnknownFields,
    system_columns,
};
use crate::types::DataType;

const OPTIONS: &[&str] = &[
    "event_time",
    "entity",
    "watermark_delay",
    "allowed_lateness",
    "max_ahead",
    "max_age",
    "idle_timeout",
    "source",
    "connection",
    "topic",
    "format",
    "start",
    "group",
    "mode",
    "outbox",
    "table",
    "columns",
    "prefix",
    "slot",
    "publication",
    "transactions",
    "transaction_topic",
    "unknown_fields",
    "partitions",
    "retention",
];

const MAX_AHEAD: Duration = Duration::from_secs(3600);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Constraints of other systems that a stream does not have.
const CONSTRAINTS: &[&str] = &[
    "default",
    "unique",
    "references",
    "check",
    "generated",
    "comment",
    "collate",
    "constraint",
    "foreign",
    "auto_increment",
];

/// The columns as declared, before the options are known.
#[derive(Default)]
struct Columns {
    columns: Vec<Column>,
    /// Places of the columns' names, or of their FROM.
    spans: Vec<Span>,
    /// Columns of the primary key, in its order.
    primary_key: Vec<usize>,
    /// Places of NOT NULL, by column.
    not_null: BTreeMap<usize, Span>,
}

/// Reads from behind `CREATE STREAM name` or `CREATE TABLE name` to the end of the statement.
pub(super) fn create_stream(cursor: &mut Cursor, name: &Identifier, is_table: bool) -> Result<Stream, SqlError> {
    let source = cursor.source;
    let kind = if is_table { "table" } else { "stream" };
    let Columns { mut columns, primary_key, not_null, spans } = parse_columns(cursor, is_table)?;
    if cursor.peek().is_none() {
        let message = format!("a {kind} needs an event time");
        return Err(source.error(name.span, message).help("add WITH (event_time = '..') with a TIMESTAMP column"));
    }
    cursor.expect_word(&["WITH"])?;
    let with = cursor.span();
    let options = parse_options(cursor, OPTIONS)?;
    if cursor.peek().is_some() {
        return Err(cursor.expected("the end of the statement", &[]));
    }
    let option = |name: &str| options.iter().find(|option| option.name == name);
    let duration = |name: &str, default: Duration| option(name).map_or(Ok(default), |option| option.duration(source));
    let Some(event_time) = option("event_time") else {
        let error = source.error(with, format!("a {kind} needs the option `event_time`, a TIMESTAMP column"));
        let of_change =
            "for the time of each change, add the column `changed_at TIMESTAMP METADATA FROM 'source.timestamp'`";
        return Err(error.maybe_help(is_table.then(|| of_change.to_owned())));
    };
    let event_time = event_time_column(source, event_time, &columns)?;
    let events = event_source(source, (name, is_table), &options)?;
    let row_key = (columns.as_slice(), primary_key.as_slice());
    let table = is_table.then(|| row_table(source, name, row_key, &spans, &options, &events)).transpose()?;
    // Changes of one row have equal keys, and are not duplicates.
    let primary_key = primary_key.first().copied().filter(|_| !is_table);
    let entity = option("entity").map(|option| entity_column(source, option, &columns, primary_key)).transpose()?;
    if let (Some(_), Some(retention)) = (entity, option("retention")) {
        let message = "a stream with an entity keeps all its events: `retention` would leave gaps in their sequences";
        return Err(retention.error(source, message).help("remove `retention` or `entity`"));
    }
    let may_be_null = |column: &usize| {
        ![Some(event_time), entity].contains(&Some(*column)) && table.is_none_or(|table| !table.key.contains(column))
    };
    if let Some((_, span)) = not_null.iter().find(|(column, _)| may_be_null(column)) {
        let named = if is_table { "key" } else { "entity" };
        let message = format!("NOT NULL is only possible for the event time and the {named}, which are never null");
        let error = source.error(*span, message);
        return Err(error.help("every other column may be null: an event that lacks a field is still an event"));
    }
    let has_changes = table.is_some_and(|table| table.format.has_envelopes());
    let is_of_change = |column: &Column| column.metadata.as_ref().is_some_and(RecordPart::is_of_change);
    let of_record = |column: &Column| column.metadata.is_some() && !(has_changes && is_of_change(column));
    if let (Some(column), EventSource::Http) = (columns.iter().position(of_record), &events) {
        let error =
            source.error(spans[column], format!("METADATA is of records of a topic, and this {kind} reads none"));
        return Err(error.help("add source = 'kafka' with connection and topic, or remove METADATA"));
    }
    if let (Some(column), EventSource::Kafka(topic)) = (columns.iter().position(is_of_change), &events)
        && !topic.format.has_changes()
    {
        let error = source.error(spans[column], "only row changes have this part, and the topic has another format");
        return Err(error.help("set format = 'debezium-json' or 'debezium-avro', or remove the column"));
    }
    match &events {
        EventSource::Http => {}
        EventSource::Kafka(_) => check_record_parts(source, &columns, &spans)?,
        EventSource::Postgres(outbox) => check_parts(source, outbox, &columns, &spans)?,
        EventSource::PostgresTable(_) => check_columns(source, &columns, &spans)?,
    }
    if events != EventSource::Http {
        columns.push(Column::new(system_columns::SOURCE_OFFSET, DataType::BigInt));
    }
    if entity.is_some() {
        columns.push(Column::new(system_columns::SEQUENCE, DataType::BigInt));
    }
    if is_table {
        let deleted = Some(FieldPath::member(RowTable::DELETED));
        columns.push(Column { field: deleted, ..Column::new(system_columns::RETRACTED, DataType::Boolean) });
    }
    Ok(Stream {
        name: StreamName::from_str(&name.name).map_err(|error| source.error(name.span, error.to_string()))?,
        source: events,
        declared: columns.len(),
        columns,
        primary_key,
        entity,
        table,
        event_time,
        watermark_delay: duration("watermark_delay", Duration::ZERO)?,
        allowed_lateness: if is_table { RowTable::LATENESS } else { duration("allowed_lateness", Duration::ZERO)? },
        max_ahead: duration("max_ahead", MAX_AHEAD)?,
        max_age: option("max_age").map(|option| max_age(source, option)).transpose()?,
        idle_timeout: duration("idle_timeout", IDLE_TIMEOUT)?,
        unknown_fields: option("unknown_fields").map_or(Ok(UnknownFields::Ignore), |o| unknown_fields(source, o))?,
        retention: option("retention").map(|option| option.retention(source)).transpose()?,
        partitions: option("partitions").map_or(Ok(1), |option| partitions(source, option))?,
        sql: cursor.text().to_owned(),
    })
}

/// Refuses columns that hold parts which only an outbox has.
fn check_record_parts(source: &Source, columns: &[Column], spans: &[Span]) -> Result<(), SqlError> {
    let of_outbox = |column: &Column| matches!(column.metadata, Some(RecordPart::Outbox(_)));
    match columns.iter().position(of_outbox) {
        None => Ok(()),
        Some(column) => {
            let error = source.error(spans[column], "only an outbox has this part, not a topic");
            Err(error.help("Debezium's outbox event router writes the id as a header: METADATA FROM 'header:id'"))
        }
    }
}

fn parse_columns(cursor: &mut Cursor, is_table: bool) -> Result<Columns, SqlError> {
    let source = cursor.source;
    cursor.expect_mark(&Token::LParen)?;
    let (mut declared, mut key) = (Columns::default(), None);
    loop {
        let span = cursor.span();
        if cursor.word("primary") {
            cursor.expect_word(&["KEY"])?;
            if key.is_some() {
                return Err(source.error(span, "PRIMARY KEY is given twice"));
            }
            key = Some((span, key_names(cursor)?));
            if !cursor.mark(&Token::Comma) {
                break;
            }
            continue;
        }
        let name = column_name(cursor)?;
        check_new(source, &name, &declared.columns)?;
        let data_type = column_type(cursor)?;
        declared.columns.push(Column::new(name.name, data_type));
        declared.spans.push(name.span);
        column_clauses(cursor, &mut declared)?;
        if !cursor.mark(&Token::Comma) {
            break;
        }
    }
    if !cursor.mark(&Token::RParen) {
        let words = ["PRIMARY", "FROM", "METADATA", "FORMAT"];
        return Err(cursor.expected("`,`, `)`, PRIMARY KEY, FROM, METADATA FROM or FORMAT", &words));
    }
    check_fields(source, &declared)?;
    if let Some((span, names)) = key {
        read_key(source, span, &names, &mut declared)?;
    }
    if let Some(second) = declared.primary_key.get(1).filter(|_| !is_table) {
        let message = "the PRIMARY KEY of a stream, which names an event, is one column";
        return Err(source.error(declared.spans[*second], message).help("CREATE TABLE may have several"));
    }
    Ok(declared)
}

/// The names in parentheses behind PRIMARY KEY.
fn key_names(cursor: &mut Cursor) -> Result<Vec<Identifier>, SqlError> {
    cursor.expect_mark(&Token::LParen)?;
    let mut names = vec![cursor.column_name("the name of a column")?];
    while cursor.mark(&Token::Comma) {
        names.push(cursor.column_name("the name of a column")?);
    }
    cursor.expect_mark(&Token::RParen)?;
    Ok(names)
}

/// Finds the columns of `PRIMARY KEY (a, b)`, which may stand before them.
fn read_key(source: &Source, span: Span, names: &[Identifier], declared: &mut Columns) -> Result<(), SqlError> {
    if !declared.primary_key.is_empty() {
        return Err(source.error(span, "PRIMARY KEY is given twice"));
    }
    for name in names {
        let Some(index) = declared.columns.iter().position(|column| same(&column.name, &name.name)) else {
            let error = source.error(name.span, format!("unknown column `{}`", name.name));
            let known = declared.columns.iter().map(|column| column.name.as_str());
            return Err(error.maybe_help(did_you_mean(&name.name, known)));
        };
        if declared.primary_key.contains(&index) {
            return Err(source.error(name.span, format!("`{}` is twice in the PRIMARY KEY", name.name)));
        }
        declared.primary_key.push(index);
    }
    Ok(())
}

fn column_name(cursor: &mut Cursor) -> Result<Identifier, SqlError> {
    let span = cursor.span();
    let field = match cursor.peek().map(|token| &token.token) {
        Some(Token::Word(word)) => word.value.clone(),
        _ => String::new(),
    };
    // A field with such a name can still be read, under another one.
    let other = || {
        let name = column_name::plain(field.trim_start_matches('_'));
        let name = if column_name::is_reserved(&name) { format!("event_{name}") } else { name };
        let column = Column { field: Some(FieldPath::member(field.as_str())), ..Column::new(name, DataType::String) };
        format!("read the field under another name: `{} {column}`", column.name)
    };
    match cursor.column_name("the name of a column") {
        Ok(name) if column_name::is_reserved(&name.name) => {
            Err(cursor.source.error(span, format!("the name `{}` is reserved", name.name)).help(other()))
        }
        Err(error) if matches!(column_name::check(&field), Err(InvalidColumnName::Refused { .. })) => {
            Err(error.help(other()))
        }
        result => result,
    }
}

/// Two names that differ by case alone would be one column.
fn check_new(source: &Source, name: &Identifier, columns: &[Column]) -> Result<(), SqlError> {
    let Some(known) = columns.iter().find(|column| same(&column.name, &name.name)) else { return Ok(()) };
    if known.name == name.name {
        return Err(source.error(name.span, format!("the column `{}` is declared twice", name.name)));
    }
    let message = format!("the columns `{}` and `{}` differ only by case", known.name, name.name);
    let help = format!("names match without case; read the field under another name: FROM '/{}'", name.name);
    Err(source.error(name.span, message).help(help))
}

/// Every field of an event is read by one column at most, as a whole or in parts.
fn check_fields(source: &Source, declared: &Columns) -> Result<(), SqlError> {
    let mut known: Vec<(&Column, FieldPath)> = Vec::with_capacity(declared.columns.len());
    for (column, span) in declared.columns.iter().zip(&declared.spans).filter(|(c, _)| c.metadata.is_none()) {
        let field = column.field().into_owned();
        let overlaps =
            |(_, other): &&(&Column, FieldPath)| other.levels().iter().zip(field.levels()).all(|(a, b)| a == b);
        // Of flat fields only equal ones overlap; those have equal names, unless FROM says otherwise.
        if let Some((first, other)) = known.iter().find(overlaps) {
            let (first, name) = (&first.name, &column.name);
            let message = if *other == field {
                format!("`{first}` and `{name}` both read the field {field}")
            } else {
                format!("`{first}` reads {other} and `{name}` reads {field}: one of them is within the other")
            };
            return Err(source.error(*span, message));
        }
        known.push((column, field));
    }
    Ok(())
}

fn column_type(cursor: &mut Cursor) -> Result<DataType, SqlError> {
    let from = cursor.span();
    let Some(Token::Word(word)) = cursor.peek().map(|token| &token.token) else {
        return Err(cursor.expected("the type of the column", &[]));
    };
    cursor.next();
    let mut to = from;
    let mut text = word.value.clone();
    if text.eq_ignore_ascii_case("double") && cursor.at_word("precision") {
        to = cursor.span();
        cursor.next();
    }
    if cursor.mark(&Token::LParen) {
        text.push('(');
        loop {
            let Some(token) = cursor.next() else { return Err(cursor.expected("`)`", &[])) };
            text.push_str(&token.token.to_string());
            to = token.span;
            if token.token == Token::RParen {
                break;
            }
        }
    }
    parse_data_type(&text)
        .map_err(|(message, help)| cursor.source.error(Span::new(from.start, to.end), message).maybe_help(help))
}

/// Reads what may follow the type: PRIMARY KEY, NOT NULL, FROM, METADATA FROM and FORMAT, in any order.
fn column_clauses(cursor: &mut Cursor, declared: &mut Columns) -> Result<(), SqlError> {
    let source = cursor.source;
    let column = declared.columns.len() - 1;
    loop {
        let span = cursor.span();
        if cursor.word("primary") {
            cursor.expect_word(&["KEY"])?;
            if !declared.primary_key.is_empty() {
                let error = source.error(span, "PRIMARY KEY stands behind one column only");
                return Err(error.help("the key of a table may have several: PRIMARY KEY (a, b), behind all columns"));
            }
            declared.primary_key.push(column);
        } else if cursor.word("not") {
            cursor.expect_word(&["NULL"])?;
            declared.not_null.insert(column, span);
        } else if cursor.word("metadata") {
            cursor.expect_word(&["FROM"])?;
            read_metadata(cursor, span, declared)?;
        } else if cursor.word("from") {
            read_from(cursor, span, declared)?;
        } else if cursor.word("format") {
            read_format(cursor, span, &mut declared.columns[column])?;
        } else if let Some(word) = CONSTRAINTS.iter().find(|word| cursor.at_word(word)) {
            return Err(source.error(span, format!("{} is not supported", word.to_uppercase())));
        } else {
            return Ok(());
        }
    }
}

fn read_from(cursor: &mut Cursor, from: Span, declared: &mut Columns) -> Result<(), SqlError> {
    let column = declared.columns.len() - 1;
    if declared.columns[column].field.is_some() {
        return Err(cursor.source.error(from, "FROM is given twice"));
    }
    if declared.columns[column].metadata.is_some() {
        return Err(cursor.source.error(from, "a column has either METADATA FROM, or FROM and FORMAT, once"));
    }
    let (pointer, span) = cursor.quoted_text("a JSON Pointer in single quotes, such as '/user/id'")?;
    let field = FieldPath::parse(&pointer).map_err(|error| {
        // `user.id` and `$.user.id` are how other systems write it.
        let path = pointer.trim_start_matches(['$', '.']).replace('.', "/");
        let help = (error == InvalidPointer::NoSlash).then(|| format!("write '/{path}'"));
        cursor.source.error(span, error.to_string()).maybe_help(help)
    })?;
    declared.columns[column].field = Some(field);
    declared.spans[column] = span;
    Ok(())
}

fn read_metadata(cursor: &mut Cursor, from: Span, declared: &mut Columns) -> Result<(), SqlError> {
    let index = declared.columns.len() - 1;
    let source = cursor.source;
    let (name, span) = cursor.quoted_text("a part of a record in single quotes, such as 'key'")?;
    let column = &mut declared.columns[index];
    if column.metadata.is_some() || column.field.is_some() || has_format(column) {
        return Err(source.error(from, "a column has either METADATA FROM, or FROM and FORMAT, once"));
    }
    let Some(part) = RecordPart::named(&name) else {
        let help = did_you_mean(&name, RecordPart::NAMES)
            .unwrap_or_else(|| format!("the parts of a record are {}NAME", RecordPart::NAMES.join(", ")));
        return Err(source.error(span, format!("unknown part of a record '{name}'")).help(help));
    };
    if let Some(expected) = part.refuses(column.data_type) {
        let message = format!("the {part} of a record is {expected}, but `{}` is {}", column.name, column.data_type);
        return Err(source.error(span, message));
    }
    column.metadata = Some(part);
    declared.spans[index] = span;
    Ok(())
}

fn has_format(column: &Column) -> bool {
    column.format.is_some() || column.is_base64
}

fn read_format(cursor: &mut Cursor, from: Span, column: &mut Column) -> Result<(), SqlError> {
    let is_decimal = matches!(column.data_type, DataType::Decimal { .. });
    if column.data_type != DataType::Timestamp && !is_decimal {
        let message =
            format!("FORMAT says how a TIMESTAMP or DECIMAL is written, but `{}` is {}", column.name, column.data_type);
        return Err(cursor.source.error(from, message));
    }
    if has_format(column) {
        return Err(cursor.source.error(from, "FORMAT is given twice"));
    }
    if column.metadata.is_some() {
        return Err(cursor.source.error(from, "FORMAT is for values in events; METADATA needs none"));
    }
    if is_decimal {
        let (text, span) = cursor.quoted_text("'base64'")?;
        if text != "base64" {
            let error = cursor.source.error(span, format!("unknown format '{text}' of a DECIMAL"));
            return Err(error.help("write 'base64', or leave FORMAT out for numbers and their texts"));
        }
        column.is_base64 = true;
        return Ok(());
    }
    let (text, span) = cursor.quoted_text("a format in single quotes, such as 'unix_s'")?;
    let format = TimeFormat::parse(&text).map_err(|error| {
        let help = match &error {
            InvalidFormat::Unknown(_) => did_you_mean(&text, FORMATS).unwrap_or_else(|| {
                format!("the formats are {}, and patterns such as '%d.%m.%Y %H:%M'", FORMATS.join(", "))
            }),
            InvalidFormat::Conversion(_) => "patterns are those of strftime, as `date` takes them".to_owned(),
            InvalidFormat::ZoneName(_) => "%z reads an offset such as +0200".to_owned(),
            InvalidFormat::NoDate(_) => "a pattern has year, month and day, such as '%Y-%m-%d', or %s".to_owned(),
        };
        cursor.source.error(span, error.to_string()).help(help)
    })?;
    column.format = Some(format);
    Ok(())
}

fn event_time_column(source: &Source, option: &SqlOption, columns: &[Column]) -> Result<usize, SqlError> {
    let Some(index) = columns.iter().position(|column| same(&column.name, &option.value)) else {
        let timestamps = || columns.iter().filter(|c| c.data_type == DataType::Timestamp).map(|c| c.name.as_str());
        let help = did_you_mean(&option.value, timestamps())
            .or_else(|| timestamps().next().map(|name| format!("`{name}` is a TIMESTAMP column")));
        return Err(option.error(source, format!("the stream has no column `{}`", option.value)).maybe_help(help));
    };
    match columns[index].data_type {
        DataType::Timestamp => Ok(index),
        other => Err(option.error(source, format!("the event time is a TIMESTAMP, but `{}` is {other}", option.value))),
    }
}

/// The column of the option `entity`: of a type whose values can be a part of a path, and not the event id.
fn entity_column(
    source: &Source,
    option: &SqlOption,
    columns: &[Column],
    primary_key: Option<usize>,
) -> Result<usize, SqlError> {
    let is_key = |column: &Column| matches!(column.data_type, DataType::String | DataType::Int | DataType::BigInt);
    let Some(index) = columns.iter().position(|column| same(&column.name, &option.value)) else {
        let keys = columns.iter().filter(|column| is_key(column)).map(|column| column.name.as_str());
        let error = option.error(source, format!("the stream has no column `{}`", option.value));
        return Err(error.maybe_help(did_you_mean(&option.value, keys)));
    };
    if !is_key(&columns[index]) {
        let message =
            format!("the entity is a STRING, INT or BIGINT, but `{}` is {}", option.value, columns[index].data_type);
        return Err(option.error(source, message));
    }
    if primary_key == Some(index) {
        let message = format!("`{}` is the PRIMARY KEY: an entity would have one event only", option.value);
        return Err(option.error(source, message).help("the PRIMARY KEY names the event, the entity what it is about"));
    }
    Ok(index)
}

fn unknown_fields(source: &Source, option: &SqlOption) -> Result<UnknownFields, SqlError> {
    match option.value.as_str() {
        "ignore" => Ok(UnknownFields::Ignore),
        "reject" => Ok(UnknownFields::Reject),
        other => {
            let help = did_you_mean(other, ["ignore", "reject"]).unwrap_or("use 'ignore' or 'reject'".to_owned());
            Err(option.error(source, format!("unknown value '{other}' of `unknown_fields`")).help(help))
        }
    }
}

fn max_age(source: &Source, option: &SqlOption) -> Result<Duration, SqlError> {
    let max_age = option.duration(source)?;
    if max_age.is_zero() {
        return Err(
            option.error(source, "`max_age` must be longer than nothing: every event is older than its arrival")
        );
    }
    Ok(max_age)
}

fn partitions(source: &Source, option: &SqlOption) -> Result<u32, SqlError> {
    match option.value.parse() {
        Ok(count @ 1..=PARTITIONS_MAX) => Ok(count),
        _ => Err(option.error(source, format!("`partitions` is a number from 1 to {PARTITIONS_MAX}"))),
    }
}
