//! Compares two definitions of a view, part by part.

use super::{Change, DefinitionPart, options};
use crate::column_name::same;
use crate::explain::ViewText;
use crate::sql::window_text;
use crate::stream::Stream;
use crate::view::{OutputColumn, View};

/// How `after` differs from `before`. Both read `stream`, which has the columns of both.
pub fn view_changes(before: &View, after: &View, stream: &Stream) -> Vec<Change> {
    let (old, new) = (ViewText { view: before, stream }, ViewText { view: after, stream });
    let mut changes = Vec::new();
    let mut differ = |part: DefinitionPart, before: Option<String>, after: Option<String>| {
        if before != after {
            changes.push(Change::new(part, None, before, after));
        }
    };
    differ(DefinitionPart::Join, old.joins_sql(), new.joins_sql());
    differ(DefinitionPart::Filter, old.filter_sql(), new.filter_sql());
    if before.window != after.window {
        let text = |view: &View| Some(window_text(&view.window, &old.event_time(), view.zone));
        differ(DefinitionPart::Window, text(before), text(after));
    }
    differ(DefinitionPart::Having, old.having_sql(), new.having_sql());
    let dimensions = |view: &View, reader: &ViewText<'_>| -> Vec<(String, String)> {
        view.dimensions.iter().map(|d| (d.name.clone(), reader.sql(&d.expression))).collect()
    };
    compare_named(DefinitionPart::Dimension, &dimensions(before, &old), &dimensions(after, &new), &mut changes);
    let measures = |view: &View, reader: &ViewText<'_>| -> Vec<(String, String)> {
        view.measures.iter().map(|m| (m.name.clone(), reader.over_aggregates(&m.expression))).collect()
    };
    compare_named(DefinitionPart::Measure, &measures(before, &old), &measures(after, &new), &mut changes);
    if changes.is_empty() && before.definition_hash() != after.definition_hash() {
        let (before, after) = (order(before), order(after));
        // What neither text nor order shows is in the types that lie under them.
        let texts = if before == after { (None, None) } else { (Some(before), Some(after)) };
        changes.push(Change::new(DefinitionPart::Order, None, texts.0, texts.1));
    }
    changes.extend(options(&before.sql, &after.sql));
    changes
}

/// Returns whether the change alone makes batch recompute the view.
pub fn changes_results(change: &Change) -> bool {
    change.part != DefinitionPart::Option
}

/// Returns whether the measures at these indices mean the same in both definitions, for rows of the same window and group.
pub fn same_measure(before: &View, old: usize, after: &View, new: usize, stream: &Stream) -> bool {
    let text = |view: &View, measure: usize| {
        let reader = ViewText { view, stream };
        (reader.over_aggregates(&view.measures[measure].expression), reader.filter_sql(), reader.joins_sql())
    };
    text(before, old) == text(after, new)
}

/// Compares two lists of names and texts. A name that differs only by case is a renamed column.
fn compare_named(
    part: DefinitionPart,
    before: &[(String, String)],
    after: &[(String, String)],
    changes: &mut Vec<Change>,
) {
    let find = |list: &[(String, String)], name: &str| list.iter().find(|(known, _)| same(known, name)).cloned();
    for (name, text) in after {
        let old = find(before, name);
        match old {
            Some((old_name, old_text)) if old_text == *text => {
                if old_name != *name {
                    let change = Change::new(part, Some(name), Some(old_name), Some(name.clone()));
                    changes.push(change.note("the column gets another spelling"));
                }
            }
            old => changes.push(Change::new(part, Some(name), old.map(|(_, text)| text), Some(text.clone()))),
        }
    }
    for (name, text) in before {
        if find(after, name).is_none() {
            changes.push(Change::new(part, Some(name), Some(text.clone()), None));
        }
    }
}

fn order(view: &View) -> String {
    let name = |column: &OutputColumn| match column {
        OutputColumn::WindowStart => "window_start",
        OutputColumn::WindowEnd => "window_end",
        OutputColumn::Dimension(index) => &view.dimensions[*index].name,
        OutputColumn::Measure(index) => &view.measures[*index].name,
    };
    view.output.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{parse_definitions, parse_view};

    fn changes(before: &str, after: &str) -> (Vec<String>, bool) {
        let text = "CREATE STREAM s (at TIMESTAMP, a BIGINT, b STRING) WITH (event_time = 'at')".to_owned();
        let stream = parse_definitions(&[("s".to_owned(), text)]).expect("right").streams.remove(0);
        let view =
            |sql: &str| parse_view(&stream, &[], &format!("CREATE VIEW v {sql}")).unwrap_or_else(|e| panic!("{e}"));
        let (before, after) = (view(before), view(after));
        let texts = view_changes(&before, &after, &stream).iter().map(ToString::to_string).collect();
        (texts, before.definition_hash() == after.definition_hash())
    }

    #[test]
    fn a_definition_goes_by_names_of_columns_not_by_their_places() {
        let hash = |columns: &str, sql: &str| {
            let text = format!("CREATE STREAM s ({columns}) WITH (event_time = 'at')");
            let stream = parse_definitions(&[("s".to_owned(), text)]).expect("right").streams.remove(0);
            let view =
                parse_view(&stream, &[], &format!("CREATE VIEW v AS SELECT {sql}")).unwrap_or_else(|e| panic!("{e}"));
            (view.definition_hash(), view.positional_hash())
        };
        let sql = "SUM(a) FILTER (WHERE CASE b WHEN 'x' THEN a END > 1) AS n FROM s WHERE b IN ('y') OR a = 3";
        let first = hash("at TIMESTAMP, a BIGINT, b STRING", sql);
        let moved = hash("b STRING, c DATE, at TIMESTAMP, a BIGINT", sql);
        assert_eq!(first.0, moved.0);
        assert_ne!(first.1, moved.1);
        // Names that only trade their places are other columns.
        let sum = |what: &str| hash("at TIMESTAMP, a BIGINT, b BIGINT", &format!("SUM({what}) AS n FROM s")).0;
        assert_ne!(sum("a - b"), sum("b - a"));
        assert_ne!(sum("a"), sum("b"));
    }

    #[test]
    fn each_changed_part_has_a_text() {
        let base = "AS SELECT window_start, b, COUNT(*) AS n, SUM(a) AS total FROM s WHERE a > 0 GROUP BY TUMBLE(at, INTERVAL '1' HOUR), b";
        let table = [
            (base, vec![], true),
            (
                "WITH (schedule = '@hourly')\nAS SELECT window_start, b, COUNT(*) AS n, -- rows\n SUM(a) AS total FROM s WHERE (a > 0) GROUP BY TUMBLE(at, INTERVAL '60' MINUTE), b",
                vec!["option schedule added: '@hourly'"],
                true,
            ),
            (
                "AS SELECT window_start, b, COUNT(*) AS n, MAX(a) AS most FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), b",
                vec!["filter removed", "measure most added: MAX(a)", "measure total removed"],
                false,
            ),
            (
                "AS SELECT window_start, a AS b, COUNT(*) AS n, SUM(a) FILTER (WHERE b = 'x') AS total FROM s WHERE a > 1 GROUP BY TUMBLE(at, INTERVAL '1' DAY), a HAVING n > 1",
                vec![
                    "filter changed: a > 0 → a > 1",
                    "window changed: TUMBLE(at, INTERVAL '1' HOUR) → TUMBLE(at, INTERVAL '1' DAY)",
                    "HAVING added: COUNT(*) > 1",
                    "dimension b changed: b → a",
                    "measure total changed: SUM(a) → SUM(a) FILTER (WHERE b = 'x')",
                ],
                false,
            ),
            (
                "AS SELECT window_start, b, SUM(a) AS total, COUNT(*) AS n FROM s WHERE a > 0 GROUP BY TUMBLE(at, INTERVAL '1' HOUR), b",
                vec![
                    "order of columns changed: window_start, window_end, b, n, total → window_start, window_end, b, total, n",
                ],
                false,
            ),
        ];
        for (after, expected, same) in table {
            let (texts, equal) = changes(base, after);
            assert_eq!((texts.iter().map(String::as_str).collect::<Vec<_>>(), equal), (expected, same), "{after}");
        }
    }
}
