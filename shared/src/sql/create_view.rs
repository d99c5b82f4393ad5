//! Reads `CREATE VIEW`: checks a SELECT against its stream and sorts its columns into window, dimensions and measures.

use std::collections::BTreeMap;

use sqlparser::ast::{Expr, Value, ValueWithSpan};
use sqlparser::tokenizer::Span;

use super::cursor::{Cursor, ExpressionTree, Identifier};
use super::error::SqlError;
use super::joins;
use super::lower::{lower, lower_condition};
use super::retraction::with_rows;
use super::scope::{Clause, Scope, is_window_column};
use super::select::{Select, SelectItem, parse_select};
use super::source::Source;
use super::suggest::did_you_mean;
use super::view_options::{ViewOptions, has_dates, view_options};
use super::window::{WindowCall, parse_window};
use crate::calendar::Zone;
use crate::column_name::{is_reserved, reserved_names, same};
use crate::ids::ViewName;
use crate::lookup::definition::{JoinTable, LookupJoin, joined_column};
use crate::scalar::Scalar;
use crate::stream::Stream;
use crate::types::DataType;
use crate::view::{Aggregate, Dimension, Measure, OutputColumn, View, ViewLayers};
use crate::window::Window;

/// Why a view could not be defined.
pub(super) enum ViewError {
    /// The text is wrong.
    Sql(SqlError),
    /// The view reads a stream whose own definition is wrong; that error is enough.
    StreamFailed,
}

impl From<SqlError> for ViewError {
    fn from(error: SqlError) -> Self {
        ViewError::Sql(error)
    }
}

/// The names that FROM can refer to.
pub(super) struct Catalog<'a> {
    pub(super) streams: &'a [Stream],
    /// Further tables that JOIN can name, if their streams are not known.
    pub(super) tables: &'a [JoinTable],
    pub(super) views: &'a [View],
    /// Names of streams that were declared with a mistake.
    pub(super) failed: &'a [String],
}

/// Reads from behind `CREATE VIEW name` to the end of the statement.
pub(super) fn create_view(cursor: &mut Cursor, name: &Identifier, catalog: &Catalog) -> Result<View, ViewError> {
    let source = cursor.source;
    let options = if cursor.word("with") { view_options(cursor)? } else { ViewOptions::default() };
    let zone = options.zone;
    cursor.expect_word(&["AS"])?;
    let select = parse_select(cursor)?;
    let stream = find_stream(source, &select.stream, catalog)?;
    let columns: Vec<(String, DataType)> = stream.columns.iter().map(|c| (c.name.clone(), c.data_type)).collect();
    let joins = joins::resolve(source, (&select.stream, select.alias.as_ref(), &select.joins), stream, catalog)?;
    if let (Some(first), ViewLayers::Speed) = (select.joins.first(), options.layers) {
        let error = source.error(first.span, "a view of the speed layer alone cannot be joined with tables");
        let help = "a late change of a row would never be corrected; remove layers = 'speed'";
        return Err(error.help(help).into());
    }
    let owner = select.alias.as_ref().map_or(stream.name.as_str(), |alias| alias.name.as_str());
    let reader = ViewReader { source, stream, owner, zone, columns: &columns, joins: &joins };
    let filter = select.filter.as_ref().map(|filter| reader.filter(filter)).transpose()?;
    let filter = joins::matched(&joins, filter);
    let mut groups = reader.groups(&select)?;
    let mut measures = reader.output(&select, &mut groups)?;
    let having = select.having.as_ref().map(|having| reader.having(having, &mut measures)).transpose()?;
    let having = reader.shown(having, &mut measures);
    let window = groups.window.unwrap_or(Window::All);
    let drops = options.retention.is_some() || stream.retention.is_some();
    if let (Some(first), Window::Session { .. }, true) = (select.joins.first(), window, drops) {
        let error = source.error(first.span, "sessions of joined events cannot be dropped by retention");
        return Err(error.help("remove the retention of the view or of its stream, or use another window").into());
    }
    let retention = options.retention.map(|(retention, option)| has_dates(source, retention, &option, window));
    let retention = retention.transpose()?;
    let mut view = View {
        name: name.name.parse::<ViewName>().map_err(|error| source.error(name.span, error.to_string()))?,
        stream: stream.name.clone(),
        joins: Vec::new(),
        window,
        zone,
        filter,
        dimensions: groups.finish(source)?,
        aggregates: measures.aggregates,
        measures: measures.measures,
        output: measures.output,
        having,
        layers: options.layers,
        engine: options.engine,
        connection: options.connection,
        schedule: options.schedule,
        checkpoint_schedule: options.checkpoint_schedule,
        schedule_zone: options.schedule_zone.unwrap_or(zone),
        max_drift: options.max_drift,
        versions_kept: options.versions_kept,
        retention,
        reads: BTreeMap::new(),
        sql: cursor.text().to_owned(),
    };
    let mut read = Vec::new();
    view.for_each_expression(&mut |expression| expression.for_each_column(&mut |index| read.push(index)));
    read.extend(joins.iter().map(|join| join.on));
    let name = |index: usize| match joined_column(index) {
        None => stream.columns[index].name.clone(),
        Some((join, column)) => format!("{join}.{}", joins[join].table.columns[column].0),
    };
    view.reads = read.into_iter().map(|index| (index, name(index))).collect();
    view.joins = joins;
    Ok(view)
}

pub(super) fn find_stream<'a>(
    source: &Source,
    name: &Identifier,
    catalog: &Catalog<'a>,
) -> Result<&'a Stream, ViewError> {
    if let Some(stream) = catalog.streams.iter().find(|stream| stream.name.as_str() == name.name) {
        return Ok(stream);
    }
    if catalog.failed.contains(&name.name) {
        return Err(ViewError::StreamFailed);
    }
    if catalog.views.iter().any(|view| view.name.as_str() == name.name) {
        return Err(source.error(name.span, "a view over a view is not supported yet").into());
    }
    let names = catalog.streams.iter().map(|stream| stream.name.as_str());
    let help = did_you_mean(&name.name, names).or_else(|| Some("a stream is declared before its views".to_owned()));
    Err(source.error(name.span, format!("unknown stream `{}`", name.name)).maybe_help(help).into())
}

/// The name of an output column, with its place.
struct OutputName {
    name: String,
    span: Span,
}

/// The groups of a view while its SELECT is being read.
struct Grouping {
    window: Option<Window>,
    dimensions: Vec<GroupColumn>,
}

struct GroupColumn {
    expression: Scalar,
    span: Span,
    /// Known once it is selected, or at once for a plain column.
    name: Option<String>,
    selected: bool,
}

impl Grouping {
    fn finish(self, source: &Source) -> Result<Vec<Dimension>, SqlError> {
        let dimension = |group: GroupColumn| match group.name {
            Some(name) => Ok(Dimension { name, expression: group.expression }),
            None => {
                let error = source.error(group.span, "a grouped expression needs a name");
                Err(error.help("select it with AS and a name"))
            }
        };
        self.dimensions.into_iter().map(dimension).collect()
    }
}

/// The measures of a view while its SELECT is being read.
#[derive(Default)]
struct MeasureColumns {
    aggregates: Vec<Aggregate>,
    measures: Vec<Measure>,
    output: Vec<OutputColumn>,
}

/// Reads the expressions of a view over its stream.
struct ViewReader<'a> {
    source: &'a Source,
    stream: &'a Stream,
    /// The name of the stream in expressions.
    owner: &'a str,
    zone: Zone,
    columns: &'a [(String, DataType)],
    joins: &'a [LookupJoin],
}

impl<'a> ViewReader<'a> {
    fn scope(&self, clause: Clause) -> Scope<'a> {
        let scope = Scope::new(clause, self.columns, Some(self.owner)).over_rows(self.stream.retracted());
        scope.with_joins(self.joins)
    }

    /// The name of the column at an index of expressions.
    fn name_of(&self, index: usize) -> &'a str {
        match joined_column(index) {
            None => &self.columns[index].0,
            Some((join, column)) => &self.joins[join].table.columns[column].0,
        }
    }

    /// The condition under which rows are shown: over a table, a group without rows of the table has none.
    fn shown(&self, having: Option<Scalar>, done: &mut MeasureColumns) -> Option<Scalar> {
        let Some(retracted) = self.stream.retracted() else { return having };
        let mut scope = self.scope(Clause::Having);
        scope.aggregates = std::mem::take(&mut done.aggregates);
        let count = scope.net_count(retracted, None);
        done.aggregates = scope.aggregates;
        Some(with_rows(having, count))
    }

    /// No measures yet; of sessions over a table the count of rows, by which they are joined, so that it is
    /// [`ROW_COUNT`](crate::view::ROW_COUNT).
    fn counted_rows(&self, window: Option<Window>) -> MeasureColumns {
        let (Some(Window::TableSession { .. }), Some(retracted)) = (window, self.stream.retracted()) else {
            return MeasureColumns::default();
        };
        let mut scope = self.scope(Clause::Select);
        _ = scope.net_count(retracted, None);
        MeasureColumns { aggregates: scope.aggregates, ..MeasureColumns::default() }
    }

    fn filter(&self, filter: &ExpressionTree) -> Result<Scalar, SqlError> {
        lower_condition(self.source, &mut self.scope(Clause::Rows("WHERE")), filter, "WHERE")
    }

    /// HAVING; its aggregates join those of the measures.
    fn having(&self, having: &ExpressionTree, done: &mut MeasureColumns) -> Result<Scalar, SqlError> {
        let mut scope = self.scope(Clause::Having).with_measures(&done.measures);
        scope.aggregates = std::mem::take(&mut done.aggregates);
        let condition = lower_condition(self.source, &mut scope, having, "HAVING")?;
        if let Some(span) = scope.json {
            return Err(self.json_stands_alone(span));
        }
        done.aggregates = scope.aggregates;
        Ok(condition)
    }

    fn json_stands_alone(&self, span: Span) -> SqlError {
        let error = self.source.error(span, "this aggregate gives JSON, which cannot be compared or computed with");
        error.help("select it as a measure of its own")
    }

    fn groups(&self, select: &Select) -> Result<Grouping, SqlError> {
        let mut groups = Grouping { window: None, dimensions: Vec::new() };
        for parsed in &select.group_by {
            let first = parsed.tokens.first().map_or_else(Span::empty, |token| token.span);
            if let Some(window) = parse_window(self.source, (self.stream, self.owner), self.zone, parsed)? {
                let WindowCall { window, span } = window;
                let window = match window {
                    Window::Session { gap } if self.stream.table.is_some() => Window::TableSession { gap },
                    window => window,
                };
                if groups.window.replace(window).is_some() {
                    return Err(self.source.error(span, "a view has at most one window"));
                }
                continue;
            }
            let key = self.group_key(parsed, select)?;
            let name = key.alias.map(|alias| alias.name.clone());
            let expression = lower(self.source, &mut self.scope(Clause::Rows("GROUP BY")), key.value)?;
            if expression.as_column().is_none() && !reads_columns(&expression) {
                return Err(self.source.error(first, "a constant cannot be grouped by"));
            }
            if groups.dimensions.iter().any(|group| group.expression == expression) {
                return Err(self.source.error(first, "this is grouped by twice"));
            }
            let name = name.or_else(|| self.written_name(key.value));
            groups.dimensions.push(GroupColumn { expression, span: first, name, selected: false });
        }
        Ok(groups)
    }

    /// The name of a plain column, spelled as it stands here: the text of a view alone decides how its columns are spelled.
    fn written_name(&self, parsed: &ExpressionTree) -> Option<String> {
        let ident = match &parsed.expression {
            Expr::Identifier(ident) => ident,
            Expr::CompoundIdentifier(parts) => parts.last()?,
            _ => return None,
        };
        Some(self.source.spelling(&ident.value, ident.quote_style.is_some()))
    }

    /// The expression that a member of GROUP BY refers to: itself, or the column that it names by ordinal or alias.
    fn group_key<'p>(&self, parsed: &'p ExpressionTree<'p>, select: &'p Select<'p>) -> Result<GroupKey<'p>, SqlError> {
        match &parsed.expression {
            Expr::Value(ValueWithSpan { value: Value::Number(text, false), span }) => {
                let item = text.parse::<usize>().ok().and_then(|n| select.items.get(n.checked_sub(1)?));
                match item {
                    Some(item) => Ok(GroupKey { value: &item.value, alias: item.alias.as_ref() }),
                    None => {
                        let columns = select.items.len();
                        Err(self.source.error(*span, format!("SELECT has {columns} columns, not {text}")))
                    }
                }
            }
            Expr::Identifier(ident) => {
                let name = ident.value.as_str();
                let is_alias = |item: &&SelectItem| item.alias.as_ref().is_some_and(|alias| same(&alias.name, name));
                match select.items.iter().find(is_alias) {
                    // A column of the stream goes before an alias of the same name, as in other systems.
                    Some(item) if !self.has_column(name) => {
                        Ok(GroupKey { value: &item.value, alias: item.alias.as_ref() })
                    }
                    _ => Ok(GroupKey { value: parsed, alias: None }),
                }
            }
            _ => Ok(GroupKey { value: parsed, alias: None }),
        }
    }

    fn output(&self, select: &Select, groups: &mut Grouping) -> Result<MeasureColumns, SqlError> {
        let mut done = self.counted_rows(groups.window);
        let mut names: Vec<OutputName> = Vec::new();
        for item in &select.items {
            let column = match window_column(item) {
                Some(column) => self.window_column(item, column, groups, &done)?,
                None => self.item(item, groups, &mut done)?,
            };
            let name = match column {
                OutputColumn::WindowStart => "window_start",
                OutputColumn::WindowEnd => "window_end",
                OutputColumn::Dimension(index) => groups.dimensions[index].name.as_deref().unwrap_or_default(),
                OutputColumn::Measure(index) => &done.measures[index].name,
            };
            let span = item.alias.as_ref().map_or_else(|| first_span(item), |alias| alias.span);
            names.push(self.new_name(name, span, &names)?);
            done.output.push(column);
        }
        if done.measures.is_empty() {
            let error = self.source.error(select.span, "a view needs at least one measure");
            return Err(error.help("add one, such as COUNT(*) AS events"));
        }
        self.complete(groups, &mut done.output, &mut names)?;
        self.check_bounds(&done, &names)?;
        Ok(done)
    }

    /// No two columns of a view have one name, or names that differ by case alone.
    fn new_name(&self, name: &str, span: Span, names: &[OutputName]) -> Result<OutputName, SqlError> {
        match names.iter().find(|known| same(&known.name, name)) {
            None => Ok(OutputName { name: name.to_owned(), span }),
            Some(known) if known.name == name => {
                Err(self.source.error(span, format!("there are two columns called `{name}`")))
            }
            Some(known) => {
                let message = format!("the columns `{}` and `{name}` differ only by case", known.name);
                Err(self.source.error(span, message).help("names match without case: give one of them another name"))
            }
        }
    }

    /// CSV, Parquet and Arrow show the bounds of an estimated measure as columns behind it.
    fn check_bounds(&self, measures: &MeasureColumns, names: &[OutputName]) -> Result<(), SqlError> {
        let estimated = |measure: &&Measure| {
            let mut estimated = false;
            measure.expression.for_each_column(&mut |at| estimated |= measures.aggregates[at].is_estimated());
            estimated
        };
        for measure in measures.measures.iter().filter(estimated) {
            for bound in ["low", "high"].map(|end| format!("{}_{end}", measure.name)) {
                if let Some(clash) = names.iter().find(|known| same(&known.name, &bound)) {
                    let message =
                        format!("`{}` is the name of a bound of the estimated measure `{}`", clash.name, measure.name);
                    return Err(self.source.error(clash.span, message).help("give one of them another name"));
                }
            }
        }
        Ok(())
    }

    fn window_column(
        &self,
        item: &SelectItem,
        column: OutputColumn,
        groups: &Grouping,
        done: &MeasureColumns,
    ) -> Result<OutputColumn, SqlError> {
        if groups.window.is_none() {
            let error = self.source.error(first_span(item), "the view has no window");
            return Err(error.help(format!("add GROUP BY TUMBLE({}, INTERVAL '1' HOUR)", self.event_time())));
        }
        if let Some(alias) = &item.alias
            && !is_window_column(&alias.name)
        {
            return Err(self.source.error(alias.span, "the columns of the window keep their names"));
        }
        match done.output.contains(&column) {
            true => Err(self.source.error(first_span(item), "this is selected twice")),
            false => Ok(column),
        }
    }

    /// A dimension or a measure.
    fn item(
        &self,
        item: &SelectItem,
        groups: &mut Grouping,
        done: &mut MeasureColumns,
    ) -> Result<OutputColumn, SqlError> {
        let mut scope = self.scope(Clause::Select);
        scope.aggregates = std::mem::take(&mut done.aggregates);
        let known = scope.aggregates.len();
        let uses_aggregate = super::lower::has_aggregate(item.value.tokens);
        let expression = lower(self.source, &mut scope, &item.value)?;
        done.aggregates = std::mem::take(&mut scope.aggregates);
        debug_assert!(uses_aggregate || known == done.aggregates.len());
        if let (Some(span), None) = (scope.json, expression.as_column()) {
            return Err(self.json_stands_alone(span));
        }
        if let Some(alias) = item.alias.as_ref().filter(|alias| is_reserved(&alias.name)) {
            let error = self.source.error(alias.span, format!("the name `{}` is reserved", alias.name));
            return Err(error.help(reserved_names()));
        }
        if !uses_aggregate {
            return self.dimension(item, expression, scope.free_column, groups);
        }
        if let Some((column, span)) = scope.free_column {
            return Err(self.mixed(&column, span, groups));
        }
        let Some(alias) = &item.alias else {
            let error = self.source.error(first_span(item), "a measure needs a name");
            return Err(error.help("add AS and a name"));
        };
        done.measures.push(Measure { name: alias.name.clone(), expression });
        Ok(OutputColumn::Measure(done.measures.len() - 1))
    }

    fn dimension(
        &self,
        item: &SelectItem,
        expression: Scalar,
        column: Option<(String, Span)>,
        groups: &mut Grouping,
    ) -> Result<OutputColumn, SqlError> {
        let Some(index) = groups.dimensions.iter().position(|group| group.expression == expression) else {
            return Err(match column {
                Some((column, span)) if expression.as_column().is_some() => self.not_grouped(&column, span),
                Some((column, span)) if !groups.dimensions.iter().any(|g| self.is_column(g, &column)) => {
                    self.not_grouped(&column, span)
                }
                Some(_) => {
                    let error = self.source.error(first_span(item), "this expression is not grouped by");
                    error.help("repeat the whole expression in GROUP BY")
                }
                None => {
                    let error = self.source.error(first_span(item), "a constant is neither a dimension nor a measure");
                    error.help("measures are made of aggregates, such as COUNT(*)")
                }
            });
        };
        let group = &mut groups.dimensions[index];
        if group.selected {
            return Err(self.source.error(first_span(item), "this is selected twice"));
        }
        group.selected = true;
        match &item.alias {
            Some(alias) => group.name = Some(alias.name.clone()),
            None => group.name = self.written_name(&item.value).or(group.name.take()),
        }
        if group.name.is_none() {
            let error = self.source.error(first_span(item), "a grouped expression needs a name");
            return Err(error.help("add AS and a name"));
        }
        Ok(OutputColumn::Dimension(index))
    }

    fn has_column(&self, name: &str) -> bool {
        let of_table = |join: &LookupJoin| join.table.columns.iter().any(|(column, _)| same(column, name));
        self.stream.column(name).is_some() || self.joins.iter().any(of_table)
    }

    fn is_column(&self, group: &GroupColumn, name: &str) -> bool {
        group.expression.as_column().is_some_and(|index| same(self.name_of(index), name))
    }

    fn not_grouped(&self, column: &str, span: Span) -> SqlError {
        let message = format!("{column} is neither grouped by nor inside an aggregate");
        let help = match same(self.event_time(), column) {
            true => format!("select window_start, with GROUP BY TUMBLE({column}, INTERVAL '1' HOUR)"),
            false => format!("add {column} to GROUP BY, or aggregate it, such as MAX({column})"),
        };
        self.source.error(span, message).help(help)
    }

    fn mixed(&self, column: &str, span: Span, groups: &Grouping) -> SqlError {
        if groups.dimensions.iter().any(|group| self.is_column(group, column)) {
            let message = format!("a measure is made of aggregates and constants, {column} is a dimension");
            return self.source.error(span, message).help(format!("use an aggregate, such as MAX({column})"));
        }
        self.not_grouped(column, span)
    }

    /// Adds the columns that are grouped by but not selected.
    fn complete(
        &self,
        groups: &Grouping,
        output: &mut Vec<OutputColumn>,
        names: &mut Vec<OutputName>,
    ) -> Result<(), SqlError> {
        if groups.window.is_some() {
            if !output.contains(&OutputColumn::WindowStart) {
                output.insert(0, OutputColumn::WindowStart);
            }
            if !output.contains(&OutputColumn::WindowEnd) {
                let start = output.iter().position(|column| *column == OutputColumn::WindowStart).unwrap_or(0);
                output.insert(start + 1, OutputColumn::WindowEnd);
            }
        }
        let is_key = |column: &OutputColumn| !matches!(column, OutputColumn::Measure(_));
        let is_dimension = |column: &OutputColumn| matches!(column, OutputColumn::Dimension(_));
        let behind = output.iter().rposition(is_dimension).or_else(|| output.iter().rposition(is_key));
        let places = behind.map_or(0, |at| at + 1)..;
        let unselected = groups.dimensions.iter().enumerate().filter(|(_, group)| !group.selected);
        for (at, (index, group)) in places.zip(unselected) {
            if let Some(name) = &group.name {
                names.push(self.new_name(name, group.span, names)?);
            }
            output.insert(at, OutputColumn::Dimension(index));
        }
        Ok(())
    }

    fn event_time(&self) -> &str {
        &self.stream.columns[self.stream.event_time].name
    }
}

/// A member of GROUP BY.
struct GroupKey<'p> {
    value: &'p ExpressionTree<'p>,
    alias: Option<&'p Identifier>,
}

fn window_column(item: &SelectItem) -> Option<OutputColumn> {
    let Expr::Identifier(ident) = &item.value.expression else { return None };
    match ident.value.as_str() {
        name if same(name, "window_start") => Some(OutputColumn::WindowStart),
        name if same(name, "window_end") => Some(OutputColumn::WindowEnd),
        _ => None,
    }
}

fn first_span(item: &SelectItem) -> Span {
    item.value.tokens.first().map_or_else(Span::empty, |token| token.span)
}

fn reads_columns(expression: &Scalar) -> bool {
    let mut reads = false;
    expression.for_each_column(&mut |_| reads = true);
    reads
}
