//! Adds up the comparisons of many runs by view and measure, and judges whether the layers agree, alerts included.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use shared::compare::{Causes, Comparison, MeasureDrift};
use shared::ids::{AlertName, ViewName};

use super::alert_agreement::{self, AlertAgreement};
use crate::human_units::grouped;
use crate::sender::Receipt;
use crate::table::{Align, draw};

/// Share of estimates that may lie outside their 95 % intervals.
const MISSES_EXPECTED: f64 = 0.05;
/// Number of standard deviations by which the share may exceed it by chance.
const CHANCE: f64 = 3.0;

/// Counts of the sent events.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct SentEvents {
    pub accepted: u64,
    pub duplicates: u64,
    pub late: u64,
    pub rejected: u64,
}

impl SentEvents {
    /// Adds the receipt of a request.
    pub fn add(&mut self, receipt: &Receipt) {
        self.accepted += receipt.accepted;
        self.duplicates += receipt.duplicates;
        self.late += receipt.late;
        self.rejected += receipt.rejected;
    }
}

/// The agreement of both layers over all views.
#[derive(Debug, Default, Serialize)]
pub struct Agreement {
    pub sent: SentEvents,
    pub cuts: u64,
    views: BTreeMap<ViewName, ViewAgreement>,
    pub alerts: BTreeMap<AlertName, AlertAgreement>,
}

/// The figures that a run is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Those that were served live.
    Live,
    /// Those of the last version, with a full recompute by Polars.
    Full,
    /// Those of that recompute, with a full recompute on Spark.
    Spark,
}

/// The agreement of both layers over one view.
#[derive(Debug, Default, Serialize)]
struct ViewAgreement {
    /// Comparisons of live with exact figures, at every cut.
    live: ComparisonSums,
    /// The comparison of the last version with a full recompute.
    full: ComparisonSums,
    /// The comparison of that recompute with one on Spark.
    #[serde(skip_serializing_if = "Option::is_none")]
    spark: Option<ComparisonSums>,
    /// The reason why Spark has not computed the view.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_on_spark: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct ComparisonSums {
    comparisons: u64,
    rows_compared: u64,
    rows_equal: u64,
    causes: Causes,
    measures: BTreeMap<String, MeasureSum>,
    /// The first difference without a cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct MeasureSum {
    values: u64,
    equal: u64,
    max_rel_error: f64,
    estimates: u64,
    estimates_inside: u64,
}

impl Agreement {
    /// Adds the comparison of a run.
    pub fn add(&mut self, view: &ViewName, comparison: Comparison, compared: Compared) {
        let viewed = self.views.entry(view.clone()).or_default();
        match compared {
            Compared::Live => viewed.live.add(comparison),
            Compared::Full => viewed.full.add(comparison),
            Compared::Spark => viewed.spark.get_or_insert_default().add(comparison),
        }
    }

    /// Notes why Spark has not computed a view.
    pub fn refused(&mut self, view: &ViewName, reason: String) {
        self.views.entry(view.clone()).or_default().not_on_spark = Some(reason);
    }

    /// Returns whether every difference has a cause, estimates are inside their intervals as often as promised, a full
    /// recompute changes nothing, and alerts are as an independent fold expects.
    pub fn holds(&self) -> bool {
        let alerts_hold = self.alerts.values().all(AlertAgreement::holds);
        !self.views.is_empty() && self.views.values().all(ViewAgreement::holds) && alerts_hold
    }

    /// Returns all figures as JSON.
    pub fn json(&self) -> String {
        let mut value = serde_json::to_value(self).expect("plain data has a JSON form");
        value["holds"] = self.holds().into();
        serde_json::to_string_pretty(&value).expect("plain data has a JSON form")
    }

    /// Returns a table with a row per view and measure, followed by the causes, a table of alerts and the verdict. If Spark took
    /// part, it says beside the share of live values that were equal to exact ones those of both recomputes.
    pub fn table(&self, width: Option<u16>) -> String {
        let has_spark = self.views.values().any(|viewed| viewed.spark.is_some() || viewed.not_on_spark.is_some());
        let mut header = vec![("view", Align::Left), ("measure", Align::Left), ("values", Align::Right)];
        match has_spark {
            true => header.extend(["speed", "Polars", "Spark"].map(|name| (name, Align::Right))),
            false => header.push(("equal", Align::Right)),
        }
        header.extend(["largest error", "estimates", "inside bounds"].map(|name| (name, Align::Right)));
        header.push(("", Align::Left));
        let mut rows = Vec::new();
        for (view, viewed) in &self.views {
            for (index, (measure, sum)) in viewed.live.measures.iter().enumerate() {
                let inside =
                    if sum.estimates == 0 { "-".to_owned() } else { share(sum.estimates_inside, sum.estimates) };
                let mut row = vec![
                    if index == 0 { view.to_string() } else { String::new() },
                    measure.clone(),
                    grouped(sum.values),
                    share(sum.equal, sum.values),
                ];
                if has_spark {
                    row.extend([Some(&viewed.full), viewed.spark.as_ref()].map(|sums| recomputed(sums, measure)));
                }
                row.extend([
                    format!("{:.3} %", 100.0 * sum.max_rel_error),
                    grouped(sum.estimates),
                    inside,
                    if sum.keeps_its_promise() { "ok" } else { "TOO MANY OUTSIDE" }.to_owned(),
                ]);
                rows.push(row);
            }
        }
        let mut text = draw(&header, rows, width);
        let SentEvents { accepted, duplicates, late, rejected } = self.sent;
        let put = |text: &mut String, line: std::fmt::Arguments<'_>| {
            writeln!(text, "{line}").expect("a String takes any text");
        };
        put(
            &mut text,
            format_args!(
                "\n{} events accepted, {} duplicates, {} late, {} rejected; cut at {} points",
                grouped(accepted),
                grouped(duplicates),
                grouped(late),
                grouped(rejected),
                self.cuts
            ),
        );
        for (view, viewed) in &self.views {
            let causes = viewed.live.causes.named().map(|(cause, count)| format!("{cause} {count}")).join(", ");
            put(
                &mut text,
                format_args!(
                    "{view}: served live, then exact: {} of {} rows equal; {causes}",
                    grouped(viewed.live.rows_equal),
                    grouped(viewed.live.rows_compared),
                ),
            );
            put(
                &mut text,
                format_args!(
                    "{view}: full recompute: {} of {} rows equal",
                    grouped(viewed.full.rows_equal),
                    grouped(viewed.full.rows_compared)
                ),
            );
            if let Some(spark) = &viewed.spark {
                let rows = (grouped(spark.rows_equal), grouped(spark.rows_compared), spark.causes.rounding);
                put(
                    &mut text,
                    format_args!("{view}: on Spark: {} of {} rows equal; rounding {}", rows.0, rows.1, rows.2),
                );
            }
            if let Some(reason) = &viewed.not_on_spark {
                put(&mut text, format_args!("{view}: not computed on Spark: {reason}"));
            }
            let spark = viewed.spark.iter().flat_map(|spark| &spark.example);
            for example in viewed.live.example.iter().chain(&viewed.full.example).chain(spark) {
                put(&mut text, format_args!("  unexplained: {example}"));
            }
        }
        if !self.alerts.is_empty() {
            put(&mut text, format_args!("\n{}", alert_agreement::table(&self.alerts, width).trim_end()));
        }
        put(&mut text, format_args!("{}", if self.holds() { "the layers agree" } else { "the layers DO NOT agree" }));
        text
    }
}

impl ViewAgreement {
    fn holds(&self) -> bool {
        let live = &self.live;
        let live_agrees = live.causes.unexplained == 0 && live.measures.values().all(MeasureSum::keeps_its_promise);
        live_agrees && self.full.changes_nothing() && self.spark.as_ref().is_none_or(ComparisonSums::changes_nothing)
    }
}

/// Writes a share in percent.
fn share(part: u64, whole: u64) -> String {
    format!("{:.2} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// Writes how many values of a measure were equal after a recompute, and the largest error of the others.
fn recomputed(sums: Option<&ComparisonSums>, measure: &str) -> String {
    match sums.and_then(|sums| sums.measures.get(measure)) {
        None => "-".to_owned(),
        Some(sum) if sum.equal == sum.values => share(sum.equal, sum.values),
        Some(sum) => format!("{}, error {:.0e}", share(sum.equal, sum.values), sum.max_rel_error),
    }
}

impl ComparisonSums {
    /// Returns whether a full recompute agrees with what was there. It may round differently, and cannot restore events that
    /// retention dropped.
    fn changes_nothing(&self) -> bool {
        let mut forbidden =
            self.causes.named().into_iter().filter(|(cause, _)| !["rounding", "retention", "erased"].contains(cause));
        forbidden.all(|(_, count)| count == 0)
    }

    fn add(&mut self, comparison: Comparison) {
        self.comparisons += 1;
        self.rows_compared += comparison.rows_compared;
        self.rows_equal += comparison.rows_equal;
        self.causes += comparison.causes;
        if comparison.causes.unexplained > 0 && self.example.is_none() {
            self.example = comparison.rows.first().and_then(|row| serde_json::to_string(row).ok());
        }
        for (name, drift) in comparison.measures {
            let MeasureDrift { equal, max_rel_error, estimates, inside_bounds, .. } = drift;
            let sum = self.measures.entry(name).or_default();
            sum.values += comparison.rows_compared;
            sum.equal += equal;
            sum.max_rel_error = sum.max_rel_error.max(max_rel_error);
            sum.estimates += estimates;
            sum.estimates_inside += (inside_bounds.unwrap_or(0.0) * estimates as f64).round() as u64;
        }
    }
}

impl MeasureSum {
    fn keeps_its_promise(&self) -> bool {
        let (estimates, outside) = (self.estimates as f64, (self.estimates - self.estimates_inside) as f64);
        let chance = CHANCE * (estimates * MISSES_EXPECTED * (1.0 - MISSES_EXPECTED)).sqrt();
        outside <= estimates * MISSES_EXPECTED + chance
    }
}

#[cfg(test)]
mod tests {
    use shared::time::Micros;

    use super::*;

    fn comparison(unexplained: u64, estimates: u64, inside: f64) -> Comparison {
        let drift = MeasureDrift {
            equal: 90,
            estimates,
            inside_bounds: (estimates > 0).then_some(inside),
            ..MeasureDrift::default()
        };
        Comparison {
            view: "v".parse().expect("a name"),
            version: 1,
            compared_at: Micros(0),
            cut: BTreeMap::new(),
            rows_compared: 100,
            rows_equal: 90,
            measures: BTreeMap::from([("m".to_owned(), drift)]),
            causes: Causes { unexplained, ..Causes::default() },
            rows: Vec::new(),
            definition: None,
            rows_omitted: 0,
        }
    }

    fn verdict(live: Comparison, full: Comparison) -> bool {
        let mut agreement = Agreement::default();
        let view = live.view.clone();
        agreement.add(&view, live, Compared::Live);
        agreement.add(&view, full, Compared::Full);
        agreement.holds()
    }

    #[test]
    fn unexplained_differences_and_bad_estimates_fail() {
        let fine = || comparison(0, 0, 0.0);
        assert!(verdict(fine(), fine()));
        assert!(!verdict(comparison(1, 0, 0.0), fine()));
        assert!(!verdict(fine(), comparison(1, 0, 0.0)));
        assert!(verdict(comparison(0, 1000, 0.95), fine()));
        assert!(verdict(comparison(0, 1000, 0.935), fine()), "chance");
        assert!(!verdict(comparison(0, 1000, 0.92), fine()));
        let mut sketchy = fine();
        sketchy.causes.sketch = 1;
        assert!(!verdict(fine(), sketchy), "a full recompute is exact");
        assert!(!Agreement::default().holds(), "no comparison proves nothing");
        let mut agreement = Agreement::default();
        let view = fine().view;
        agreement.add(&view, fine(), Compared::Live);
        let mut alert = AlertAgreement::default();
        alert.differ("lost");
        agreement.alerts.insert("often".parse().expect("a name"), alert);
        assert!(!agreement.holds() && agreement.table(None).contains("1 DIFFER"), "{}", agreement.table(None));
    }

    #[test]
    fn every_cause_is_counted_and_shown() {
        let mut live = comparison(0, 0, 0.0);
        live.causes = Causes { retention: 7, historical: 3, ..Causes::default() };
        let mut agreement = Agreement::default();
        agreement.add(&live.view.clone(), live.clone(), Compared::Live);
        agreement.add(&live.view.clone(), live, Compared::Live);
        let table = agreement.table(Some(120));
        assert!(table.contains("historical 6") && table.contains("retention 14"), "{table}");
        assert!(!table.contains("Spark"), "{table}");
    }

    #[test]
    fn a_recompute_on_spark_may_round_and_nothing_else() {
        let mut rounded = comparison(0, 0, 0.0);
        rounded.causes.rounding = 10;
        let view = rounded.view.clone();
        let mut agreement = Agreement::default();
        agreement.add(&view, comparison(0, 0, 0.0), Compared::Live);
        agreement.add(&view, comparison(0, 0, 0.0), Compared::Full);
        agreement.add(&view, rounded, Compared::Spark);
        agreement.refused(&"w".parse().expect("a name"), "texts".to_owned());
        let table = agreement.table(Some(160));
        assert!(agreement.holds() && table.contains("v: on Spark: 90 of 100 rows equal; rounding 10"), "{table}");
        assert!(table.contains("w: not computed on Spark: texts"), "{table}");
        let mut late = comparison(0, 0, 0.0);
        late.causes.late = 1;
        agreement.add(&view, late, Compared::Spark);
        assert!(!agreement.holds(), "both recomputes have the same events");
    }
}
