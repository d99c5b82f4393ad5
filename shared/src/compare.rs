//! How far was what we served from what was true? The report of one reconciliation; the contract's `/compare`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::changes::Change;
use crate::ids::{Offset, Partition, ViewName};
use crate::time::Micros;

/// What was being served for the recomputed windows, against the new exact values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub view: ViewName,
    pub version: i64,
    pub compared_at: Micros,
    pub cut: BTreeMap<Partition, Offset>,
    pub rows_compared: u64,
    pub rows_equal: u64,
    pub measures: BTreeMap<String, MeasureDrift>,
    pub causes: Causes,
    /// What is defined otherwise than when the compared values were served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<DefinitionChange>,
    /// The worst differing values, at most [`crate::limits::COMPARE_ROWS_MAX`].
    pub rows: Vec<Difference>,
    /// Differing values beyond those listed.
    #[serde(default)]
    pub rows_omitted: u64,
}

/// The version changed the definition: the comparison is one of the old definition's answers with the new one's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefinitionChange {
    /// Both statements.
    pub before: String,
    pub after: String,
    pub changes: Vec<Change>,
    /// The dimensions that both have and group by alike: rows were added up to these before they were compared.
    pub compared_by: Vec<String>,
    /// Why no rows could be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_comparable: Option<String>,
}

/// How one measure differed over all compared rows.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct MeasureDrift {
    pub equal: u64,
    /// Numeric measures only; 0 for others.
    pub max_abs_error: f64,
    pub max_rel_error: f64,
    pub mean_rel_error: f64,
    /// Served estimates where nothing else was off (no late events, no duplicates).
    #[serde(default)]
    pub estimates: u64,
    /// Share of those estimates whose interval holds the exact value; `None`: there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside_bounds: Option<f64>,
}

/// Differing values by cause; they add up to all differing values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Causes {
    pub late: u64,
    pub duplicate: u64,
    pub sketch: u64,
    pub rounding: u64,
    pub definition: u64,
    /// A bug: nothing known explains the difference.
    pub unexplained: u64,
}

/// Why a served value was not the exact one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    Late,
    Duplicate,
    Sketch,
    Rounding,
    Definition,
    Unexplained,
}

impl Causes {
    /// Counts one differing value.
    pub fn count(&mut self, cause: Cause) {
        match cause {
            Cause::Late => self.late += 1,
            Cause::Duplicate => self.duplicate += 1,
            Cause::Sketch => self.sketch += 1,
            Cause::Rounding => self.rounding += 1,
            Cause::Definition => self.definition += 1,
            Cause::Unexplained => self.unexplained += 1,
        }
    }
}

/// One value that differed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
