//! Reads `CREATE SINK .. FROM`: checks its options against its view. [`mod@super::create_event_sink`] reads the other form.

use std::time::Duration;

use super::create_alert::find_view;
use super::create_view::{Catalog, ViewError};
use super::cursor::{Cursor, Identifier};
use super::error::SqlError;
use super::options::{SqlOption, parse_options};
use super::source::Source;
use super::suggest::did_you_mean;
use crate::alert::KeyColumn;
use crate::column_name::same;
use crate::ids::{Name, SinkName};
use crate::limits::{SINK_EVERY_MS, SINK_EVERY_MS_MIN};
use crate::sink::{Emit, Sink, SinkFormat, SinkTarget, SinkTopic, row_key};
use crate::stream::event_source::is_topic_name;
use crate::view::View;
use crate::window::Window;

const OPTIONS: &[&str] = &["to", "connection", "topic", "format", "emit", "every", "key", "transactional_id"];
/// Options of topics alone.
const OF_TOPICS: [&str; 4] = ["connection", "topic", "format", "transactional_id"];
/// Longest transactional id, in bytes.
const ID_BYTES_MAX: usize = 255;

/// Reads from behind `CREATE SINK name` to the end of the statement.
pub(super) fn create_sink(cursor: &mut Cursor, name: &Identifier, catalog: &Catalog) -> Result<Sink, ViewError> {
    let source = cursor.source;
    cursor.expect_word(&["FROM", "AS"])?;
    cursor.word("view");
    let of = cursor.name("the name of a view")?;
    let view = find_view(source, &of, catalog, "a sink is from a view", "sinks")?;
    if let Some((reason, advice)) = unsupported_window(view.window) {
        let message = format!("`{}` has windows of {reason}", view.name);
        return Err(source.error(of.span, message).help(advice).into());
    }
    if !cursor.word("with") {
        return Err(cursor.expected("WITH", &["WITH"]).into());
    }
    let options = parse_options(cursor, OPTIONS)?;
    if cursor.peek().is_some() {
        return Err(cursor.expected("the end of the statement", &[]).into());
    }
    let option = |name: &str| options.iter().find(|option| option.name == name);
    let target = match option("to") {
        Some(to) => SinkTarget::Webhook(parse_webhook(source, to, &options)?),
        None => {
            let columns = view.dimensions.iter().map(|dimension| dimension.name.as_str());
            let columns = columns.chain(view.measures.iter().map(|measure| measure.name.as_str()));
            let records = Records { columns: columns.collect(), name: view.name.as_str(), are_rows: true };
            SinkTarget::Topic(parse_topic(source, name, &options, &records)?)
        }
    };
    let emit = option("emit").map_or(Ok(Emit::Changes), |option| parse_emit(source, option, view, catalog))?;
    let every = parse_every(source, &options)?;
    let key = option("key").map_or_else(|| Ok(row_key(view)), |option| parse_key(source, option, view))?;
    Ok(Sink {
        name: name.name.parse::<SinkName>().map_err(|error| source.error(name.span, error.to_string()))?,
        view: view.name.clone(),
        target,
        emit,
        every,
        key,
        sql: cursor.text().to_owned(),
    })
}

/// What the records of a sink hold.
pub(super) struct Records<'a> {
    /// The names of their columns.
    pub(super) columns: Vec<&'a str>,
    /// Their name in Avro.
    pub(super) name: &'a str,
    /// Whether they are rows, which later records replace, instead of events.
    pub(super) are_rows: bool,
}

/// Reads the connection of `to = 'webhook:NAME'`.
pub(super) fn parse_webhook(source: &Source, to: &SqlOption, options: &[SqlOption]) -> Result<Name, SqlError> {
    if let Some(other) = options.iter().find(|option| OF_TOPICS.contains(&option.name.as_str())) {
        let message = format!("`{}` is an option of sinks that write to a topic", other.name);
        return Err(other.error(source, message).help("leave out one of `to` and `topic`"));
    }
    let Some(connection) = to.value.strip_prefix(SinkTarget::WEBHOOK) else {
        let error = to.error(source, format!("unknown target '{}'", to.value));
        return Err(error.help("write 'webhook:NAME', or `connection` and `topic` for a topic of Kafka"));
    };
    connection.parse::<Name>().map_err(|error| to.error(source, error.to_string()))
}

/// Reads the options of a sink that writes to a topic.
pub(super) fn parse_topic(
    source: &Source,
    name: &Identifier,
    options: &[SqlOption],
    records: &Records<'_>,
) -> Result<SinkTopic, SqlError> {
    let option = |name: &str| options.iter().find(|option| option.name == name);
    let required = |wanted: &str, help: &str| {
        option(wanted).ok_or_else(|| source.error(name.span, format!("a sink needs `{wanted}`")).help(help))
    };
    let connection = required("connection", "name a [connections.NAME] of trueup.toml with kind = \"kafka\"")?;
    let topic = required("topic", "add topic = '..', or write to = 'webhook:NAME'")?;
    if !is_topic_name(&topic.value) {
        let message =
            format!("'{}' is not the name of a topic: 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`", topic.value);
        return Err(topic.error(source, message));
    }
    let format = option("format").map_or(Ok(SinkFormat::Json), |option| parse_format(source, option, records))?;
    let transactional_id = match option("transactional_id") {
        None => format!("trueup-{}-{}", name.name, topic.value),
        Some(option) if (1..=ID_BYTES_MAX).contains(&option.value.len()) => option.value.clone(),
        Some(option) => {
            return Err(option.error(source, format!("a transactional id has 1 to {ID_BYTES_MAX} bytes")));
        }
    };
    Ok(SinkTopic {
        connection: connection.value.parse::<Name>().map_err(|error| connection.error(source, error.to_string()))?,
        topic: topic.value.clone(),
        format,
        transactional_id,
    })
}

/// Returns the name of windows whose rows sinks cannot follow with the reason, and what to use instead.
fn unsupported_window(window: Window) -> Option<(&'static str, &'static str)> {
    match window {
        Window::TableSession { .. } => Some((
            "SESSION: a row that comes or goes moves the start of a session, which would be the key of its record",
            "use TUMBLE, HOP, CUMULATE or no window",
        )),
        Window::Slide { .. } => Some((
            "SLIDE: its rows change as time passes, without an event, and never become final",
            "use TUMBLE, HOP, CUMULATE, SESSION or no window",
        )),
        _ => None,
    }
}

fn parse_format(source: &Source, option: &SqlOption, records: &Records<'_>) -> Result<SinkFormat, SqlError> {
    let value = option.value.as_str();
    let Some(format) = SinkFormat::named(value) else {
        if matches!(value, "protobuf" | "debezium-avro") {
            return Err(option.error(source, format!("sinks of the format '{value}' are not supported yet")));
        }
        let help = did_you_mean(value, SinkFormat::NAMES)
            .unwrap_or_else(|| format!("write '{}'", SinkFormat::NAMES.join("' or '")));
        return Err(option.error(source, format!("unknown format '{value}'")).help(help));
    };
    match format {
        SinkFormat::DebeziumJson if !records.are_rows => {
            let error = option.error(source, "events are not changes of rows, which debezium-json describes");
            return Err(error.help("write 'json' or 'avro', or declare a view, and the sink FROM it"));
        }
        SinkFormat::Json | SinkFormat::DebeziumJson => return Ok(format),
        SinkFormat::Avro => {}
    }
    match records.columns.iter().chain([&records.name]).find(|name| !is_avro_name(name)) {
        None => Ok(format),
        Some(name) => {
            let message = format!("`{name}` is not a name in Avro, which has a-z, A-Z, 0-9 and `_`");
            Err(option.error(source, message).help("give the column another name with AS"))
        }
    }
}

fn is_avro_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

fn parse_emit(source: &Source, option: &SqlOption, view: &View, catalog: &Catalog) -> Result<Emit, SqlError> {
    let value = option.value.as_str();
    let emit = Emit::named(value).ok_or_else(|| {
        let help =
            did_you_mean(value, Emit::NAMES).unwrap_or_else(|| format!("write '{}'", Emit::NAMES.join("' or '")));
        option.error(source, format!("unknown value '{value}' of emit")).help(help)
    })?;
    if emit == Emit::Final && view.window == Window::All {
        let message = format!("`{}` has no windows, so no row of it is ever final", view.name);
        return Err(option.error(source, message).help("write 'changes', or declare a view with TUMBLE"));
    }
    let of_table = catalog.streams.iter().find(|stream| stream.name == view.stream && stream.table.is_some());
    if let Some(table) = of_table.filter(|_| emit == Emit::Final) {
        let message = format!(
            "`{}` reads the table `{}`, which can change at any time, so no row of it is ever final",
            view.name, table.name
        );
        return Err(option.error(source, message).help("write 'changes'"));
    }
    Ok(emit)
}

pub(super) fn parse_every(source: &Source, options: &[SqlOption]) -> Result<Duration, SqlError> {
    let Some(option) = options.iter().find(|option| option.name == "every") else {
        return Ok(Duration::from_millis(SINK_EVERY_MS));
    };
    let every = option.duration(source)?;
    if every < Duration::from_millis(SINK_EVERY_MS_MIN) {
        let error = option.error(source, format!("an epoch takes at least {SINK_EVERY_MS_MIN} milliseconds"));
        return Err(error.help("write '1 second'"));
    }
    Ok(every)
}

/// Reads names of key columns; they are put into the order of the view's key.
fn parse_key(source: &Source, option: &SqlOption, view: &View) -> Result<Vec<KeyColumn>, SqlError> {
    let known = row_key(view);
    let mut key = Vec::new();
    for name in option.value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let Some(column) = known.iter().copied().find(|column| same(column.name(view), name)) else {
            let names = known.iter().map(|column| column.name(view));
            let listed = format!("the columns are {}", names.clone().collect::<Vec<_>>().join(", "));
            let help = did_you_mean(name, names).unwrap_or(listed);
            return Err(option.error(source, format!("`{name}` does not identify rows of `{}`", view.name)).help(help));
        };
        if key.contains(&column) {
            return Err(option.error(source, format!("`{name}` is given twice")));
        }
        key.push(column);
    }
    if let Some(missing) = known.iter().find(|column| !key.contains(column)) {
        let message = format!("the key has every column that identifies a row: `{}` is missing", missing.name(view));
        return Err(option.error(source, message).help("leave the option out, or list all of them"));
    }
    key.sort_unstable();
    Ok(key)
}
