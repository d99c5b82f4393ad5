//! Writes variances and deviations. Spark's own functions lose digits of values that lie far from zero, so the query takes
//! squares of other numbers:
//!
//! | values | in runs | in plans |
//! |---|---|---|
//! | integers, DECIMAL | exactly: [`halves`] | deviations from a DECIMAL near the mean: [`Spreads`] |
//! | DOUBLE | deviations from a DOUBLE near the mean | the same |
//!
//! With deviations d = x - c from any c, n values have the squared deviations D = Σd² - (Σd)² / n. Near the mean Σd is almost 0,
//! so no digits cancel. DOUBLEs whose squares might not fit are scaled by a power of two first; equal ones have c = x.

use shared::partial::states::exact_variance::{HALF, SCALED};
use shared::scalar::Literal;
use shared::types::DataType;

use crate::aggregates::DIGITS_OF_TERMS;
use crate::quote;
use crate::refusal::Unsupported;
use crate::statement::join_on;

/// DOUBLEs beyond are scaled.
const LARGE: &str = "1e140D";
const TINY: &str = "1e-130D";

/// Writes the sums of both halves h and l of integers or unscaled DECIMALs h · [`HALF`] + l, and of their products, as DECIMALs
/// that cannot overflow; with the names of the parts of the state.
pub fn halves(of: DataType, input: &str, clause: &str) -> Result<[(&'static str, String); 5], Unsupported> {
    let (high, low) = match of {
        DataType::Decimal { precision, .. } if precision > DIGITS_OF_TERMS => return Err(Unsupported::WideDecimalSum),
        DataType::Decimal { scale, .. } => {
            let of = DataType::Decimal { precision: DIGITS_OF_TERMS, scale };
            let value = format!("CAST({input} AS {of})");
            let (half, one) = (quote::literal(&Literal::Decimal(HALF), of), quote::literal(&Literal::Decimal(1), of));
            (format!("({value} div {half})"), format!("(({value} % {half}) div {one})"))
        }
        _ => {
            let value = format!("CAST({input} AS BIGINT)");
            (format!("({value} div {HALF}L)"), format!("({value} % {HALF}L)"))
        }
    };
    let sum = |term: String| format!("coalesce(sum({term}){clause}, 0)");
    let alone = |half: &str| sum(format!("CAST({half} AS DECIMAL({DIGITS_OF_TERMS},0))"));
    let product = |a: &str, b: &str| sum(format!("CAST({a} AS DECIMAL(14,0)) * CAST({b} AS DECIMAL(14,0))"));
    Ok([
        ("high", alone(&high)),
        ("low", alone(&low)),
        ("high_high", product(&high, &high)),
        ("high_low", product(&high, &low)),
        ("low_low", product(&low, &low)),
    ])
}

/// The stages of deviations, one for each column and condition.
#[derive(Debug, Default)]
pub struct Spreads {
    known: Vec<(String, Option<String>)>,
    /// Names and queries, in the order in which they are declared.
    pub stages: Vec<(String, String)>,
    /// The names of those that are joined with the groups.
    pub joined: Vec<String>,
}

impl Spreads {
    /// Returns the name of the stage of the column `input` of the rows of `source`, for each group with values: `__n`, the
    /// number of values; `__center`; `__sum` and `__squares` of the deviations from it; `__power`, by which power of two all three
    /// are too small.
    pub fn of(
        &mut self,
        of: DataType,
        input: &str,
        filter: Option<&str>,
        groups: &[String],
        source: &str,
    ) -> Result<String, Unsupported> {
        let known = (input.to_owned(), filter.map(str::to_owned));
        if let Some(at) = self.known.iter().position(|other| *other == known) {
            return Ok(self.joined[at].clone());
        }
        let (near, name) = (format!("__near{}", self.known.len()), format!("__spread{}", self.known.len()));
        let is_wanted = filter.map_or_else(String::new, |filter| format!(" AND {filter}"));
        let values = format!("SELECT * FROM {source} WHERE {input} IS NOT NULL{is_wanted}");
        let (centers, deviation) = match of {
            DataType::Double => (center_of_doubles(input, groups, &values), of_double(input)),
            DataType::Decimal { precision, .. } if precision > DIGITS_OF_TERMS => {
                return Err(Unsupported::WideDecimalSum);
            }
            DataType::Decimal { scale, .. } => center_of_decimals(input, scale, groups, &values),
            _ => center_of_decimals(input, 0, groups, &values),
        };
        let kept: Vec<String> = groups.iter().map(|column| format!("v.{column}")).collect();
        let by = list(groups, "__center, __power");
        let deviations = format!(
            "SELECT {} FROM ({values}) v JOIN {near} c ON {}",
            list(&kept, &format!("c.__center, c.__power, {deviation} AS __d")),
            join_on(groups, "v", "c")
        );
        let stage = format!(
            "SELECT {by}, count(*) AS __n, sum(__d) AS __sum, sum(__d * __d) AS __squares FROM ({deviations}) GROUP BY {by}"
        );
        self.stages.extend([(near, centers), (name.clone(), stage)]);
        self.known.push(known);
        self.joined.push(name.clone());
        Ok(name)
    }
}

/// Writes the stage of a center of each group: the exact value if all are equal, otherwise about the mean.
fn center_of_doubles(input: &str, groups: &[String], values: &str) -> String {
    let largest = format!("max(abs({input}))");
    let power = format!(
        "CASE WHEN {largest} > {LARGE} AND {largest} < CAST('Infinity' AS DOUBLE) THEN {SCALED} \
         WHEN {largest} < {TINY} THEN -{SCALED} ELSE 0 END"
    );
    let columns = format!(
        "{power} AS __power, min({input}) AS __least, max({input}) AS __most, avg({input}) AS __mean, \
         avg({input} * {}) AS __down",
        quote::double(2f64.powi(-SCALED))
    );
    let scale = scale();
    let center = format!(
        "CASE WHEN __least = __most THEN __least * {scale} WHEN __power > 0 THEN __down ELSE __mean * {scale} END AS __center"
    );
    format!("SELECT {} FROM ({})", list(groups, &format!("__power, {center}")), grouped(groups, &columns, values))
}

fn of_double(input: &str) -> String {
    format!("v.{input} * {} - c.__center", scale())
}

/// Writes the factor that makes values fit.
fn scale() -> String {
    let (down, up) = (quote::double(2f64.powi(-SCALED)), quote::double(2f64.powi(SCALED)));
    format!("CASE __power WHEN {SCALED} THEN {down} WHEN -{SCALED} THEN {up} ELSE 1D END")
}

/// Writes the stage of a center of each group, about the mean, and the deviation from it, which is exact before it becomes a DOUBLE.
fn center_of_decimals(input: &str, scale: i8, groups: &[String], values: &str) -> (String, String) {
    let value = |input: &str| format!("CAST({input} AS DECIMAL({DIGITS_OF_TERMS},{scale}))");
    let mean = format!("CAST(sum({}) AS DOUBLE) / count(*)", value(input));
    let columns = format!("0 AS __power, CAST({mean} AS DECIMAL(38,{scale})) AS __center");
    let deviation = format!("CAST({} - c.__center AS DOUBLE)", value(&format!("v.{input}")));
    (grouped(groups, &columns, values), deviation)
}

fn list(groups: &[String], more: &str) -> String {
    groups.iter().map(String::as_str).chain([more]).collect::<Vec<_>>().join(", ")
}

fn grouped(groups: &[String], columns: &str, values: &str) -> String {
    let by = if groups.is_empty() { String::new() } else { format!(" GROUP BY {}", groups.join(", ")) };
    format!("SELECT {} FROM ({values}){by}", list(groups, columns))
}

/// Writes the variance or deviation from the columns of the stage `name`.
pub fn value(name: &str, sample: bool, root: bool) -> String {
    let count = format!("{name}.__n");
    let squares = format!("greatest({name}.__squares - {name}.__sum * {name}.__sum / {count}, 0D)");
    let variance = format!("({squares} / ({count} - {}L))", i64::from(sample));
    let back = format!(
        "CASE {name}.__power WHEN {SCALED} THEN {} WHEN -{SCALED} THEN {} ELSE 1D END",
        quote::double(2f64.powi(SCALED)),
        quote::double(2f64.powi(-SCALED))
    );
    let value = if root { format!("sqrt({variance}) * ({back})") } else { format!("{variance} * ({back}) * ({back})") };
    format!("(CASE WHEN {count} > {} THEN {value} END)", i64::from(sample))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_one_stage_for_each_condition() {
        let mut spreads = Spreads::default();
        let mut of = |input: &str, filter| {
            spreads.of(DataType::Double, input, filter, &["__d0".to_owned()], "__placed").expect("possible")
        };
        assert_eq!((of("__x0", None), of("__x0", None)), ("__spread0".to_owned(), "__spread0".to_owned()));
        assert_eq!((of("__x0", Some("__x2")), of("__x1", None)), ("__spread1".to_owned(), "__spread2".to_owned()));
        let names: Vec<&str> = spreads.stages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["__near0", "__spread0", "__near1", "__spread1", "__near2", "__spread2"]);
        assert!(spreads.stages[3].1.contains("WHERE __x0 IS NOT NULL AND __x2"), "{}", spreads.stages[3].1);
    }

    #[test]
    fn decimals_with_too_many_digits_are_refused() {
        let wide = DataType::Decimal { precision: 29, scale: 2 };
        assert_eq!(halves(wide, "__x0", ""), Err(Unsupported::WideDecimalSum));
        let of = Spreads::default().of(wide, "__x0", None, &[], "__placed");
        assert_eq!(of, Err(Unsupported::WideDecimalSum));
    }
}
