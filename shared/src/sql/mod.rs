//! Reads the dialect: `CREATE STREAM`, `CREATE VIEW`, `CREATE ALERT`, `CREATE SINK` and the `where` of a query.
//!
//! Reading order: [`source`] knows the places of a text, [`dialect`] lets `sqlparser` cut it into tokens and read one
//! expression, [`cursor`] walks over a statement, [`lower`] gives an expression its meaning. [`mod@create_stream`],
//! [`mod@create_view`], [`mod@create_alert`], [`mod@create_sink`] and [`mod@create_event_sink`] read the statements; [`mod@joins`], [`mod@window`] and [`mod@aggregate`] read joins, windows and measures,
//! [`query_filter`] the `where` of a query. A form that these modules do not name is an error with its place: nothing is
//! accepted and then ignored. This module evaluates nothing.

mod aggregate;
mod coerce;
mod create_alert;
mod create_event_sink;
mod create_sink;
mod create_stream;
mod create_view;
mod cursor;
mod data_type;
mod dialect;
mod duration;
mod error;
mod event_source;
mod functions;
mod joins;
mod length;
mod literal;
mod lower;
mod operators;
mod options;
mod outbox;
mod postgres_table;
mod print;
mod query_filter;
mod retraction;
mod row_table;
mod scope;
mod select;
mod source;
pub mod suggest;
#[cfg(test)]
mod tests;
mod view_options;
mod window;
mod window_text;

use std::collections::BTreeMap;

use sqlparser::tokenizer::{Token, TokenWithSpan};

pub use self::error::SqlError;
pub(crate) use self::print::interval;
pub use self::print::{print, print_name};
pub use self::query_filter::{QueryFilter, parse_query_filter};
pub(crate) use self::window_text::{length_text, window_text};

use self::create_alert::create_alert;
use self::create_event_sink::create_event_sink;
use self::create_sink::create_sink;
use self::create_stream::create_stream;
use self::create_view::{Catalog, ViewError, create_view};
use self::cursor::{Cursor, Identifier};
use self::dialect::tokens;
use self::source::Source;
use crate::alert::Alert;
use crate::event_sink::EventSink;
use crate::ids::SinkName;
use crate::lookup::definition::JoinTable;
use crate::scalar::Scalar;
use crate::sink::{Sink, SinkTarget};
use crate::stream::Stream;
use crate::types::DataType;
use crate::view::View;
use crate::window::Window;

/// All declarations, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definitions {
    pub streams: Vec<Stream>,
    pub views: Vec<View>,
    pub alerts: Vec<Alert>,
    pub sinks: Vec<Sink>,
    /// Sinks of streams.
    pub event_sinks: Vec<EventSink>,
}

impl Definitions {
    /// Returns the names and targets of all sinks.
    pub fn sink_targets(&self) -> impl Iterator<Item = (&SinkName, &SinkTarget)> {
        let of_views = self.sinks.iter().map(|sink| (&sink.name, &sink.target));
        of_views.chain(self.event_sinks.iter().map(|sink| (&sink.name, &sink.target)))
    }

    /// Returns a sink of a stream by its name.
    pub fn event_sink(&self, name: &str) -> Option<&EventSink> {
        self.event_sinks.iter().find(|sink| sink.name.as_str() == name)
    }
}

/// Reads definition files, given as pairs of name and text, in order: a view may read a stream of an earlier file.
/// Errors: the first mistake of every statement.
pub fn parse_definitions(files: &[(String, String)]) -> Result<Definitions, Vec<SqlError>> {
    let mut definitions = Definitions::default();
    let mut failed = Vec::new();
    let mut errors = Vec::new();
    for (file, text) in files {
        let source = Source::new(file, text);
        let tokens = match tokens(&source) {
            Ok(tokens) => tokens,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        for statement in tokens.split(|token| token.token == Token::SemiColon).filter(|tokens| !tokens.is_empty()) {
            match parse_statement(&mut Cursor::new(&source, statement), &mut definitions, &mut failed) {
                Err(ViewError::Sql(error)) => errors.push(error),
                Ok(()) | Err(ViewError::StreamFailed) => {}
            }
        }
    }
    if errors.is_empty() { Ok(definitions) } else { Err(errors) }
}

/// Reads the statement of one view over `stream`, which may be joined with `tables`, such as a version keeps it.
pub fn parse_view(stream: &Stream, tables: &[JoinTable], sql: &str) -> Result<View, SqlError> {
    view_of(stream, tables, &Source::new("view", sql))
}

/// Reads the statement as earlier programs did, which put unquoted names into lower case.
pub fn parse_folded_view(stream: &Stream, tables: &[JoinTable], sql: &str) -> Result<View, SqlError> {
    view_of(stream, tables, &Source::folding("view", sql))
}

fn view_of(stream: &Stream, tables: &[JoinTable], source: &Source) -> Result<View, SqlError> {
    let tokens = tokens(source)?;
    let mut cursor = Cursor::new(source, &tokens);
    cursor.expect_word(&["CREATE"])?;
    cursor.expect_word(&["VIEW"])?;
    let name = cursor.name("the name of the view")?;
    let catalog = Catalog { streams: std::slice::from_ref(stream), tables, views: &[], failed: &[] };
    match create_view(&mut cursor, &name, &catalog) {
        Ok(view) => Ok(view),
        Err(ViewError::Sql(error)) => Err(error),
        Err(ViewError::StreamFailed) => unreachable!("no stream failed"),
    }
}

/// Reads the statement of an alert for `view`, which may be another definition of the view than the one it was declared for.
pub fn parse_alert(view: &View, sql: &str) -> Result<Alert, SqlError> {
    let source = Source::new("alert", sql);
    let tokens = tokens(&source)?;
    let mut cursor = Cursor::new(&source, &tokens);
    cursor.expect_word(&["CREATE"])?;
    cursor.expect_word(&["ALERT"])?;
    let name = cursor.name("the name of the alert")?;
    let catalog = Catalog { streams: &[], tables: &[], views: std::slice::from_ref(view), failed: &[] };
    match create_alert(&mut cursor, &name, &catalog) {
        Ok(alert) => Ok(alert),
        Err(ViewError::Sql(error)) => Err(error),
        Err(ViewError::StreamFailed) => unreachable!("no view failed"),
    }
}

/// Reads the options of a valid statement, by name. Gives them no meaning.
pub fn options_of(sql: &str) -> BTreeMap<String, String> {
    let source = Source::new("statement", sql);
    let tokens = tokens(&source).unwrap_or_default();
    let is_with = |pair: &[TokenWithSpan]| match pair {
        [TokenWithSpan { token: Token::Word(word), .. }, TokenWithSpan { token: Token::LParen, .. }] => {
            word.value.eq_ignore_ascii_case("with")
        }
        _ => false,
    };
    let Some(at) = tokens.windows(2).position(is_with) else { return BTreeMap::new() };
    let within = tokens[at + 2..].iter().take_while(|token| token.token != Token::RParen);
    let values = within.filter_map(|token| match &token.token {
        Token::Word(word) => Some(word.value.to_lowercase()),
        Token::SingleQuotedString(text) | Token::Number(text, _) => Some(text.clone()),
        _ => None,
    });
    let values: Vec<String> = values.collect();
    values.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// Reads the `where` of a query: one BOOLEAN expression over the columns of a result.
pub fn parse_predicate(text: &str, columns: &[(String, DataType)]) -> Result<Scalar, SqlError> {
    query_filter::predicate(text, columns)
}

fn parse_statement(
    cursor: &mut Cursor,
    definitions: &mut Definitions,
    failed: &mut Vec<String>,
) -> Result<(), ViewError> {
    cursor.expect_word(&["CREATE"])?;
    for word in ["or", "temporary", "temp", "materialized", "external"] {
        if cursor.at_word(word) {
            let message = format!(
                "CREATE {} is not supported",
                if word == "or" { "OR REPLACE".to_owned() } else { word.to_uppercase() }
            );
            return Err(cursor
                .source
                .error(cursor.span(), message)
                .help("write CREATE STREAM, CREATE TABLE, CREATE VIEW, CREATE ALERT or CREATE SINK")
                .into());
        }
    }
    let kind = KINDS[cursor.expect_word(&["STREAM", "TABLE", "VIEW", "ALERT", "SINK"])?];
    if cursor.at_word("if") {
        return Err(cursor.source.error(cursor.span(), "IF NOT EXISTS is not supported").into());
    }
    let name = cursor.name(&format!("the name of the {kind}"))?;
    check_new(cursor, &name, definitions)?;
    let Definitions { streams, views, .. } = &*definitions;
    let catalog = Catalog { streams, tables: &[], views, failed };
    let read = match kind {
        "stream" | "table" => create_stream(cursor, &name, kind == "table")
            .map(|stream| Declared::Stream(Box::new(stream)))
            .map_err(ViewError::from),
        "view" => create_view(cursor, &name, &catalog).map(|view| Declared::View(Box::new(view))),
        "alert" => create_alert(cursor, &name, &catalog).map(|alert| Declared::Alert(Box::new(alert))),
        _ if cursor.at_word("as") => {
            create_event_sink(cursor, &name, &catalog).map(|sink| Declared::EventSink(Box::new(sink)))
        }
        _ => create_sink(cursor, &name, &catalog).map(|sink| Declared::Sink(Box::new(sink))),
    };
    // A name that others refer to: its own error is enough.
    match read.inspect_err(|_| failed.push(name.name.clone()))? {
        Declared::Stream(stream) => definitions.streams.push(*stream),
        Declared::View(view) => {
            check_whole(cursor, &name, &view, &definitions.streams)?;
            definitions.views.push(*view);
        }
        Declared::Alert(alert) => definitions.alerts.push(*alert),
        Declared::Sink(sink) => {
            check_alone(cursor, &name, &sink.target, definitions)?;
            definitions.sinks.push(*sink);
        }
        Declared::EventSink(sink) => {
            check_alone(cursor, &name, &sink.target, definitions)?;
            definitions.event_sinks.push(*sink);
        }
    }
    Ok(())
}

/// The kinds of statements, by the word after CREATE.
const KINDS: [&str; 5] = ["stream", "table", "view", "alert", "sink"];

/// What a statement declares.
enum Declared {
    Stream(Box<Stream>),
    View(Box<View>),
    Alert(Box<Alert>),
    Sink(Box<Sink>),
    EventSink(Box<EventSink>),
}

fn check_new(cursor: &Cursor, name: &Identifier, definitions: &Definitions) -> Result<(), SqlError> {
    let kind = if let Some(stream) = definitions.streams.iter().find(|stream| stream.name.as_str() == name.name) {
        stream.kind()
    } else if definitions.views.iter().any(|view| view.name.as_str() == name.name) {
        "view"
    } else if definitions.alerts.iter().any(|alert| alert.name.as_str() == name.name) {
        "alert"
    } else if definitions.sink_targets().any(|(sink, _)| sink.as_str() == name.name) {
        "sink"
    } else {
        return Ok(());
    };
    let article = if kind == "alert" { "an" } else { "a" };
    Err(cursor.source.error(name.span, format!("there is already {article} {kind} called `{}`", name.name)))
}

/// Two sinks with one transactional id would fence each other.
fn check_alone(
    cursor: &Cursor,
    name: &Identifier,
    target: &SinkTarget,
    definitions: &Definitions,
) -> Result<(), SqlError> {
    let id = |target: &SinkTarget| {
        let topic = target.topic()?;
        Some((topic.connection.clone(), topic.transactional_id.clone()))
    };
    let Some(own) = id(target) else { return Ok(()) };
    let mut targets = definitions.sink_targets();
    let Some((other, _)) = targets.find(|(_, other)| id(other).is_some_and(|id| id == own)) else { return Ok(()) };
    let message = format!("the sink `{other}` has the same transactional id");
    Err(cursor.source.error(name.span, message).help("set another `transactional_id`"))
}

/// A view of one window over all time needs all events of its stream.
fn check_whole(cursor: &Cursor, name: &Identifier, view: &View, streams: &[Stream]) -> Result<(), SqlError> {
    let stream = streams.iter().find(|stream| stream.name == view.stream && view.window == Window::All);
    let Some((stream, retention)) = stream.and_then(|stream| Some((stream, stream.retention?))) else { return Ok(()) };
    let message = format!(
        "`{}` adds up all time, but its stream `{}` keeps its events for {retention} only",
        view.name, stream.name
    );
    let help = format!(
        "add a window to GROUP BY, such as TUMBLE({}, INTERVAL '1' DAY): windows stay when their events are gone, and \
         grain=all adds them up; or leave out the retention of the stream",
        stream.columns[stream.event_time].name
    );
    Err(cursor.source.error(name.span, message).help(help))
}
