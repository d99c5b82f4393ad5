//! Which measures of a view can be drawn, and which of them first? The first that adds up over groups and layers; else the
//! first number.

use shared::view::{AggregateFunction, Measure, OutputColumn, View};

/// Measures that the view shows and that are numbers, in their order.
pub fn numbers(view: &View) -> Vec<&Measure> {
    let shown = view.output.iter().filter_map(|column| match column {
        OutputColumn::Measure(index) => Some(&view.measures[*index]),
        _ => None,
    });
    shown.filter(|measure| measure.expression.data_type.is_numeric()).collect()
}

/// Do the parts of batch and speed add up to the merged value? Where rows are left out (`HAVING`), a part may be missing.
pub fn adds_up(view: &View, measure: &Measure) -> bool {
    let function = measure.expression.as_column().map(|index| view.aggregates[index].function);
    view.having.is_none() && matches!(function, Some(AggregateFunction::Count | AggregateFunction::Sum))
}

/// The measure's name, and whether batch and speed parts of it add up.
pub fn charted_measure(view: &View) -> Option<(String, bool)> {
    let numbers = numbers(view);
    let additive = numbers.iter().find(|measure| adds_up(view, measure));
    let charted = additive.or(numbers.first())?;
    Some((charted.name.clone(), additive.is_some()))
}

#[cfg(test)]
mod tests {
    use shared::sql::parse_definitions;

    use super::*;

    fn charted(measures: &str) -> Option<(String, bool)> {
        let sql = format!(
            "CREATE STREAM s (at TIMESTAMP, a STRING, n BIGINT) WITH (event_time = 'at');
             CREATE VIEW v AS SELECT a, {measures} FROM s GROUP BY a;"
        );
        let definitions = parse_definitions(&[("v.sql".into(), sql)]).expect("valid definitions");
        charted_measure(&definitions.views[0])
    }

    #[test]
    fn what_adds_up_comes_first() {
        assert_eq!(charted("AVG(n) AS mean, COUNT(*) AS events"), Some(("events".into(), true)));
        assert_eq!(charted("MAX(a) AS last, AVG(n) AS mean"), Some(("mean".into(), false)));
        assert_eq!(charted("SUM(n) / COUNT(*) AS ratio"), Some(("ratio".into(), false)));
        assert_eq!(charted("MAX(a) AS last"), None);
    }
}
