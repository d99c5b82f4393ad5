//! Chooses the measures of a view to chart: numbers, and first of all one that adds up over groups and layers.

use shared::view::{AggregateFunction, Measure, OutputColumn, View};

/// Returns the numeric measures of the view, in their order.
pub fn numbers(view: &View) -> Vec<&Measure> {
    let shown = view.output.iter().filter_map(|column| match column {
        OutputColumn::Measure(index) => Some(&view.measures[*index]),
        _ => None,
    });
    shown.filter(|measure| measure.expression.data_type.is_numeric()).collect()
}

/// Returns true if the parts of batch and speed add up to the merged value. With `HAVING`, a part may be missing.
pub fn adds_up(view: &View, measure: &Measure) -> bool {
    let function = measure.expression.as_column().map(|index| view.aggregates[index].function);
    view.having.is_none() && matches!(function, Some(AggregateFunction::Count | AggregateFunction::Sum))
}

/// Returns the name of the measure to chart first, and whether its parts of batch and speed add up.
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
    fn additive_measures_come_first() {
        assert_eq!(charted("AVG(n) AS mean, COUNT(*) AS events"), Some(("events".into(), true)));
        assert_eq!(charted("MAX(a) AS last, AVG(n) AS mean"), Some(("mean".into(), false)));
        assert_eq!(charted("SUM(n) / COUNT(*) AS ratio"), Some(("ratio".into(), false)));
        assert_eq!(charted("MAX(a) AS last"), None);
    }
}
