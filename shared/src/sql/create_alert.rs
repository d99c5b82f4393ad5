//! Reads `CREATE ALERT`: checks a condition against the columns of its view.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Span;

use super::create_view::{Catalog, ViewError};
use super::cursor::{Cursor, Identifier};
use super::error::SqlError;
use super::lower::lower_condition;
use super::options::{SqlOption, parse_options};
use super::scope::{AlertScope, Scope};
use super::source::Source;
use super::suggest::did_you_mean;
use crate::alert::{Alert, AlertTarget, InvalidTarget, KeyColumn, key_columns};
use crate::column_name::same;
use crate::ids::AlertName;
use crate::types::DataType;
use crate::view::View;
use crate::window::Window;

const OPTIONS: &[&str] = &["to", "once_per", "notices_per_minute"];
const TARGETS: &str = "write to = 'webhook:NAME' or 'kafka:NAME/TOPIC', with [connections.NAME] in trueup.toml";

/// Reads from behind `CREATE ALERT name` to the end of the statement.
pub(super) fn create_alert(cursor: &mut Cursor, name: &Identifier, catalog: &Catalog) -> Result<Alert, ViewError> {
    let source = cursor.source;
    cursor.expect_word(&["ON"])?;
    let view = cursor.name("the name of a view")?;
    let view = find_view(source, &view, catalog, "an alert is on a view", "alerts")?;
    cursor.expect_word(&["WHEN"])?;
    let condition = cursor.expression_before(&[Keyword::WITH])?;
    let condition_sql = match (condition.tokens.first(), condition.tokens.last()) {
        (Some(first), Some(last)) => source.slice(first.span, last.span).to_owned(),
        _ => String::new(),
    };
    let columns = columns(view);
    let first_measure = columns.len() - view.measures.len();
    let mut scope = Scope::of_alert(AlertScope { view, first_measure }, &columns);
    let lowered = lower_condition(source, &mut scope, &condition, "WHEN")?;
    let mut reads_measure = false;
    lowered.for_each_column(&mut |column| reads_measure |= column >= first_measure);
    if !reads_measure {
        let at = condition.tokens.first().map_or_else(Span::empty, |token| token.span);
        let error = source.error(at, "the condition of an alert reads no measure");
        return Err(error.help("compare a measure of the view, such as total > 10000").into());
    }
    let options = if cursor.word("with") { parse_options(cursor, OPTIONS)? } else { Vec::new() };
    if cursor.peek().is_some() {
        return Err(cursor.expected("WITH or the end of the statement", &["WITH"]).into());
    }
    let (mut target, mut notices_per_minute) = (None, None);
    let mut once_per = default_key(view);
    for option in &options {
        match option.name.as_str() {
            "to" => target = Some(parse_target(source, option)?),
            "notices_per_minute" => notices_per_minute = Some(parse_rate(source, option)?),
            _ => once_per = parse_once_per(source, option, view)?,
        }
    }
    Ok(Alert {
        name: name.name.parse::<AlertName>().map_err(|error| source.error(name.span, error.to_string()))?,
        view: view.name.clone(),
        condition: lowered,
        condition_sql,
        once_per,
        target,
        notices_per_minute,
        sql: cursor.text().to_owned(),
    })
}

/// Finds the view `name`. `rule` and `kind` say in messages what needs one.
pub(super) fn find_view<'a>(
    source: &Source,
    name: &Identifier,
    catalog: &Catalog<'a>,
    rule: &str,
    kind: &str,
) -> Result<&'a View, ViewError> {
    if let Some(view) = catalog.views.iter().find(|view| view.name.as_str() == name.name) {
        return Ok(view);
    }
    if catalog.failed.contains(&name.name) {
        return Err(ViewError::StreamFailed);
    }
    if catalog.streams.iter().any(|stream| stream.name.as_str() == name.name) {
        let error = source.error(name.span, format!("`{}` is a stream; {rule}", name.name));
        return Err(error
            .help(format!("declare a view over the stream, and the {} on it", kind.trim_end_matches('s')))
            .into());
    }
    let names = catalog.views.iter().map(|view| view.name.as_str());
    let help = did_you_mean(&name.name, names).or_else(|| Some(format!("a view is declared before its {kind}")));
    Err(source.error(name.span, format!("unknown view `{}`", name.name)).maybe_help(help).into())
}

/// The columns of a result of the view: its key, then its measures.
fn columns(view: &View) -> Vec<(String, DataType)> {
    let key = key_columns(view).into_iter().map(|column| {
        let data_type = match column {
            KeyColumn::Dimension(index) => view.dimensions[index].expression.data_type,
            KeyColumn::WindowStart | KeyColumn::WindowEnd => DataType::Timestamp,
        };
        (column.name(view).to_owned(), data_type)
    });
    let measures = view.measures.iter().map(|measure| (measure.name.clone(), measure.expression.data_type));
    key.chain(measures).collect()
}

/// The key of a row. The window of SLIDE moves with time, so it is not part of it.
fn default_key(view: &View) -> Vec<KeyColumn> {
    let is_moving = matches!(view.window, Window::Slide { .. });
    let is_key = |column: &KeyColumn| match column {
        KeyColumn::WindowStart => !is_moving,
        KeyColumn::WindowEnd => matches!(view.window, Window::Cumulate { .. }),
        KeyColumn::Dimension(_) => true,
    };
    key_columns(view).into_iter().filter(is_key).collect()
}

fn parse_target(source: &Source, option: &SqlOption) -> Result<AlertTarget, SqlError> {
    option.value.parse().map_err(|error: InvalidTarget| {
        let help = match &error {
            InvalidTarget::Kind(kind) => did_you_mean(kind, ["webhook", "kafka"]),
            _ => None,
        };
        option.error(source, error.to_string()).help(help.unwrap_or_else(|| TARGETS.to_owned()))
    })
}

fn parse_rate(source: &Source, option: &SqlOption) -> Result<u32, SqlError> {
    option.value.parse().ok().filter(|rate| *rate > 0).ok_or_else(|| {
        let error = option.error(source, format!("`{}` is not a number of notices", option.value));
        error.help("write a whole number from 1 on, such as 10")
    })
}

/// Reads names of key columns; they are put into the order of the view's key, so that their order does not matter.
fn parse_once_per(source: &Source, option: &SqlOption, view: &View) -> Result<Vec<KeyColumn>, SqlError> {
    let known = key_columns(view);
    let mut once_per = Vec::new();
    for name in option.value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let Some(column) = known.iter().copied().find(|column| same(column.name(view), name)) else {
            if view.measure(name).is_some() {
                let message = format!("once_per names dimensions and columns of the window, `{name}` is a measure");
                return Err(option.error(source, message));
            }
            let names = known.iter().map(|column| column.name(view));
            let listed = match known.is_empty() {
                true => "the view has one row: leave once_per out".to_owned(),
                false => format!("the columns are {}", names.clone().collect::<Vec<_>>().join(", ")),
            };
            let help = did_you_mean(name, names).unwrap_or(listed);
            return Err(option.error(source, format!("unknown column `{name}` in once_per")).help(help));
        };
        if matches!(view.window, Window::Slide { .. }) && !matches!(column, KeyColumn::Dimension(_)) {
            let error = option.error(source, format!("the window of SLIDE moves, so `{name}` names no record"));
            return Err(error.help("leave it out"));
        }
        if once_per.contains(&column) {
            return Err(option.error(source, format!("`{name}` is given twice")));
        }
        once_per.push(column);
    }
    once_per.sort_unstable();
    Ok(once_per)
}
