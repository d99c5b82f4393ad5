//! Defines the report of one reconciliation: served values against exact ones, with a cause for each difference.
//!
//! It is the contract's `/compare`. The `batch` crate computes it.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::changes::Change;
use crate::ids::{Offset, Partition, ViewName};
use crate::time::Micros;

/// Values served before a run for the recomputed windows, against the new exact ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Comparison {
    pub view: ViewName,
    pub version: i64,
    pub compared_at: Micros,
    #[schema(value_type = BTreeMap<String, Offset>)]
    pub cut: BTreeMap<Partition, Offset>,
    pub rows_compared: u64,
    pub rows_equal: u64,
    pub measures: BTreeMap<String, MeasureDrift>,
    pub causes: Causes,
    /// The change of definition since the compared values were served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<DefinitionChange>,
    /// The worst differing values, at most [`crate::limits::COMPARE_ROWS_MAX`].
    pub rows: Vec<Difference>,
    /// Differing values beyond those listed.
    #[serde(default)]
    pub rows_omitted: u64,
}

impl Comparison {
    /// Returns the comparison without its differing rows, which count as omitted.
    pub fn summary(&self) -> Comparison {
        let rows_omitted = self.rows_omitted + self.rows.len() as u64;
        let Comparison { version, compared_at, rows_compared, rows_equal, causes, .. } = *self;
        Comparison {
            view: self.view.clone(),
            version,
            compared_at,
            cut: self.cut.clone(),
            rows_compared,
            rows_equal,
            measures: self.measures.clone(),
            causes,
            rows: Vec::new(),
            definition: self.definition.clone(),
            rows_omitted,
        }
    }

    /// Returns the reason for an alarm: a difference that no cause explains, or a measure whose drift exceeds `max_drift`, the
    /// share that the view accepts.
    pub fn alarm(&self, max_drift: Option<f64>) -> Option<String> {
        let version = self.version;
        if self.causes.unexplained > 0 {
            let count = self.causes.unexplained;
            return Some(format!("version {version}: {count} differing values that no known cause explains"));
        }
        let max_drift = max_drift?;
        let over = self.measures.iter().filter(|(_, measure)| measure.drift > max_drift);
        let (measure, worst) = over.max_by(|a, b| a.1.drift.total_cmp(&b.1.drift))?;
        let (found, accepted) = (worst.drift * 100.0, max_drift * 100.0);
        Some(format!("version {version}: {measure} had been off by {found:.3} % on average, {accepted} % are accepted"))
    }
}

/// A comparison without its rows, as lists of comparisons and the description of a view show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Reconciliation)]
pub struct ComparisonSummary {
    pub version: i64,
    pub compared_at: Micros,
    pub rows_compared: u64,
    pub rows_equal: u64,
    pub measures: BTreeMap<String, MeasureDrift>,
    pub causes: Causes,
}

impl From<Comparison> for ComparisonSummary {
    fn from(comparison: Comparison) -> ComparisonSummary {
        let Comparison { version, compared_at, rows_compared, rows_equal, measures, causes, .. } = comparison;
        ComparisonSummary { version, compared_at, rows_compared, rows_equal, measures, causes }
    }
}

/// A change of definition by the compared version: results of the old definition are compared with those of the new one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DefinitionChange {
    /// Both statements.
    pub before: String,
    pub after: String,
    pub changes: Vec<Change>,
    /// The dimensions that both definitions share: rows were merged to these before they were compared.
    pub compared_by: Vec<String>,
    /// The reason why no rows could be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_comparable: Option<String>,
}

/// Errors of one measure over all compared rows.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct MeasureDrift {
    /// Values that were equal.
    pub equal: u64,
    /// Largest absolute error. Numeric measures only; 0 for others.
    #[serde(with = "crate::double")]
    pub max_abs_error: f64,
    /// Largest error relative to the exact value.
    #[serde(with = "crate::double")]
    pub max_rel_error: f64,
    /// Mean of those errors.
    #[serde(with = "crate::double")]
    pub mean_rel_error: f64,
    /// Mean error of served values over all compared rows, as a share: the relative error, or 1 for values without one (not
    /// served, without an exact value, or not numbers). Changes by another definition, historical events, retention or erasure count 0.
    #[serde(default, with = "crate::double")]
    pub drift: f64,
    /// Served estimates where nothing else was off (no late events, no duplicates).
    #[serde(default)]
    pub estimates: u64,
    /// Share of those estimates whose interval holds the exact value; `None`: there were none.
    #[serde(default, with = "crate::double::optional", skip_serializing_if = "Option::is_none")]
    pub inside_bounds: Option<f64>,
}

/// Differing values by cause; they add up to all differing values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Causes {
    pub late: u64,
    /// Historical events: the archive received them directly, so speed could not serve them.
    #[serde(default)]
    pub historical: u64,
    pub duplicate: u64,
    pub sketch: u64,
    pub rounding: u64,
    pub definition: u64,
    /// Events for frozen windows, whose other events retention has dropped: they were excluded.
    #[serde(default)]
    pub retention: u64,
    /// Events for which an expression of the view, or the fold of the speed layer, failed in one layer and not in the other.
    #[serde(default)]
    pub failed: u64,
    /// Events of erased entities: they are in no figure any more. Rows with this cause are counted, never listed.
    #[serde(default)]
    pub erased: u64,
    /// Changes of a joined table that came after an event was folded.
    #[serde(default)]
    pub lookup: u64,
    /// A bug: nothing known explains the difference.
    pub unexplained: u64,
}

/// The cause of a difference between a served and an exact value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    Late,
    Historical,
    Duplicate,
    Sketch,
    Rounding,
    Definition,
    Retention,
    Failed,
    Erased,
    Lookup,
    Unexplained,
}

impl Causes {
    /// Counts one differing value.
    pub fn count(&mut self, cause: Cause) {
        match cause {
            Cause::Late => self.late += 1,
            Cause::Historical => self.historical += 1,
            Cause::Duplicate => self.duplicate += 1,
            Cause::Sketch => self.sketch += 1,
            Cause::Rounding => self.rounding += 1,
            Cause::Definition => self.definition += 1,
            Cause::Retention => self.retention += 1,
            Cause::Failed => self.failed += 1,
            Cause::Erased => self.erased += 1,
            Cause::Lookup => self.lookup += 1,
            Cause::Unexplained => self.unexplained += 1,
        }
    }

    /// Every cause with its name and count, in the order in which reports list them.
    pub fn named(self) -> [(&'static str, u64); 11] {
        // No `..`: a new cause does not compile until it is listed here.
        let Causes {
            late,
            historical,
            duplicate,
            sketch,
            rounding,
            definition,
            retention,
            failed,
            erased,
            lookup,
            unexplained,
        } = self;
        [
            ("late", late),
            ("historical", historical),
            ("duplicate", duplicate),
            ("sketch", sketch),
            ("rounding", rounding),
            ("definition", definition),
            ("retention", retention),
            ("failed", failed),
            ("erased", erased),
            ("lookup", lookup),
            ("unexplained", unexplained),
        ]
    }
}

impl AddAssign for Causes {
    fn add_assign(&mut self, more: Causes) {
        let Causes {
            late,
            historical,
            duplicate,
            sketch,
            rounding,
            definition,
            retention,
            failed,
            erased,
            lookup,
            unexplained,
        } = more;
        self.late += late;
        self.historical += historical;
        self.duplicate += duplicate;
        self.sketch += sketch;
        self.rounding += rounding;
        self.definition += definition;
        self.retention += retention;
        self.failed += failed;
        self.erased += erased;
        self.lookup += lookup;
        self.unexplained += unexplained;
    }
}

/// One value that differed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_start: Option<Micros>,
    #[serde(flatten)]
    pub dimensions: BTreeMap<String, serde_json::Value>,
    pub measure: String,
    /// `null`: nothing was served, or nothing is true.
    pub served: serde_json::Value,
    pub exact: serde_json::Value,
    pub cause: Cause,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(drift: f64, unexplained: u64) -> Comparison {
        let measure = |drift| MeasureDrift { drift, ..MeasureDrift::default() };
        Comparison {
            view: "v".parse().expect("a name"),
            version: 3,
            compared_at: Micros(0),
            cut: BTreeMap::new(),
            rows_compared: 10,
            rows_equal: 9,
            measures: BTreeMap::from([("a".to_owned(), measure(drift)), ("b".to_owned(), measure(0.001))]),
            causes: Causes { unexplained, ..Causes::default() },
            definition: None,
            rows: Vec::new(),
            rows_omitted: 0,
        }
    }

    #[test]
    fn causes_are_named_and_added_without_losing_one() {
        let all = [
            Cause::Late,
            Cause::Historical,
            Cause::Duplicate,
            Cause::Sketch,
            Cause::Rounding,
            Cause::Definition,
            Cause::Retention,
            Cause::Failed,
            Cause::Erased,
            Cause::Lookup,
            Cause::Unexplained,
        ];
        let mut causes = Causes::default();
        for (times, cause) in (1..).zip(all) {
            (0..times).for_each(|_| causes.count(cause));
        }
        causes += causes;
        let names = all.map(|cause| serde_json::to_value(cause).expect("a name"));
        assert_eq!(causes.named().map(|(name, _)| serde_json::Value::from(name)), names);
        assert_eq!(causes.named().map(|(_, count)| count), [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]);
    }

    #[test]
    fn excessive_drift_and_unexplained_differences_raise_alarms() {
        assert_eq!(comparison(0.02, 0).alarm(None), None);
        assert_eq!(comparison(0.02, 0).alarm(Some(0.02)), None);
        let alarm = comparison(0.0215, 0).alarm(Some(0.02)).expect("an alarm");
        assert_eq!(alarm, "version 3: a had been off by 2.150 % on average, 2 % are accepted");
        assert_eq!(comparison(f64::NAN, 0).alarm(Some(0.02)), None);
        let unexplained = comparison(0.0, 2).alarm(None).expect("an alarm");
        assert_eq!(unexplained, "version 3: 2 differing values that no known cause explains");
    }
}
