//! Parses lists of dimensions, measures and orders, and checks each name against the view.

use shared::column_name::same;
use shared::view::{OutputColumn, View};

use super::{OrderBy, OrderKey, QueryError, invalid};
use shared::sql::suggest::in_parentheses as did_you_mean;

/// Parses `group_by`: dimensions, comma separated; an empty list is valid.
pub fn dimensions(view: &View, text: &str) -> Result<Vec<usize>, QueryError> {
    let names = || view.dimensions.iter().map(|d| d.name.as_str());
    list("group_by", text, |name| {
        view.dimension(name).ok_or_else(|| format!("there is no dimension \"{name}\"{}", did_you_mean(name, names())))
    })
}

/// Parses `measures`: measures, comma separated; an empty list is valid.
pub fn measures(view: &View, text: &str) -> Result<Vec<usize>, QueryError> {
    let names = || view.measures.iter().map(|m| m.name.as_str());
    list("measures", text, |name| {
        view.measure(name).ok_or_else(|| format!("there is no measure \"{name}\"{}", did_you_mean(name, names())))
    })
}

/// Returns all measures, in the order of the view's SELECT.
pub fn shown_measures(view: &View) -> Vec<usize> {
    let measure = |column: &OutputColumn| match column {
        OutputColumn::Measure(index) => Some(*index),
        _ => None,
    };
    view.output.iter().filter_map(measure).collect()
}

/// Parses `order_by`: names, comma separated, prefixed with `-` for descending.
pub fn order(view: &View, grouped: &[usize], text: &str) -> Result<Vec<OrderKey>, QueryError> {
    let columns = || {
        let dimensions = grouped.iter().map(|d| view.dimensions[*d].name.as_str());
        dimensions.chain(view.measures.iter().map(|m| m.name.as_str())).chain(["window_start", "window_end"])
    };
    let keys = list("order_by", text, |name| {
        // A name may itself begin with a minus.
        let (name, descending) = match name.strip_prefix('-') {
            Some(bare) if order_column(view, bare).is_some() || order_column(view, name).is_none() => (bare, true),
            _ => (name, false),
        };
        let by = order_column(view, name);
        if let Some(OrderBy::Dimension(dimension)) = by
            && !grouped.contains(&dimension)
        {
            return Err(format!("\"{name}\" is not in group_by"));
        }
        let by = by.ok_or_else(|| format!("there is no column \"{name}\"{}", did_you_mean(name, columns())))?;
        Ok(OrderKey { by, descending })
    })?;
    for (i, key) in keys.iter().enumerate() {
        if keys[..i].iter().any(|before| before.by == key.by) {
            return Err(invalid("order_by", "names a column twice"));
        }
    }
    Ok(keys)
}

/// The column called `name`, in any case.
fn order_column(view: &View, name: &str) -> Option<OrderBy> {
    match (view.dimension(name), view.measure(name)) {
        (Some(dimension), _) => Some(OrderBy::Dimension(dimension)),
        (None, Some(measure)) => Some(OrderBy::Measure(measure)),
        _ if same(name, "window_start") => Some(OrderBy::WindowStart),
        _ if same(name, "window_end") => Some(OrderBy::WindowEnd),
        _ => None,
    }
}

fn list<T: PartialEq>(
    parameter: &'static str,
    text: &str,
    find: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, QueryError> {
    let mut found = Vec::new();
    if text.is_empty() {
        return Ok(found);
    }
    for name in text.split(',').map(str::trim) {
        let item = find(name).map_err(|problem| invalid(parameter, problem))?;
        if found.contains(&item) {
            return Err(invalid(parameter, format!("names \"{name}\" twice")));
        }
        found.push(item);
    }
    Ok(found)
}
