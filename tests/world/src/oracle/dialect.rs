//! Lists every measure of the dialect over every suitable type, as SQL and as a naive fold.

use serde_json::{Value, json};

use super::measures::{AMOUNT, AT, CODE, COST, Cell, Column, DATE, FLAG, Fold, PRICE, REGION, Row, Truth, exact, fold};
use super::views::{Condition, Having, Meaning, Measure};

/// NaN for negative prices.
const ROOT: Column = |e| e.price.map_or(Cell::Null, |p| Cell::Double(p.sqrt()));
/// Far from zero and close together, which breaks unstable variances.
const FAR: Column = |e| e.code.map_or(Cell::Null, |c| Cell::Double(1e9 + f64::from(c)));

const fn of(name: &'static str, sql: &'static str, how: Fold, column: Column) -> Measure {
    Measure { name, sql, filter: None, meaning: Meaning::Fold(how, column) }
}

const fn when(measure: Measure, filter: Condition) -> Measure {
    Measure { filter: Some(filter), ..measure }
}

const fn other(name: &'static str, sql: &'static str, value: fn(&[Row]) -> Truth) -> Measure {
    Measure { name, sql, filter: None, meaning: Meaning::Other(value) }
}

const fn cont(thousandths: u32) -> Fold {
    Fold::Percentile { thousandths, continuous: true, descending: false }
}

const fn disc(thousandths: u32) -> Fold {
    Fold::Percentile { thousandths, continuous: false, descending: false }
}

const fn descending(thousandths: u32, continuous: bool) -> Fold {
    Fold::Percentile { thousandths, continuous, descending: true }
}

const fn spread(sample: bool, root: bool) -> Fold {
    Fold::Spread { sample, root }
}

const FLAGGED: Condition = Condition { sql: "flag", holds: |e| e.flag == Some(true) };
const POSITIVE: Condition = Condition { sql: "amount > 0", holds: |e| e.amount.is_some_and(|a| a > 0) };
/// Keeps no rows, for measures of empty groups.
const NEVER: Condition = Condition { sql: "code = 99", holds: |_| false };

/// `COUNT(*)`.
pub const N: Measure = Measure { name: "n", sql: "COUNT(*)", filter: None, meaning: Meaning::Rows };

/// All of them.
pub const MEASURES: &[Measure] = &[
    N,
    when(Measure { name: "flagged", ..N }, FLAGGED),
    of("amounts", "COUNT(amount)", Fold::Count, AMOUNT),
    of("total", "SUM(amount)", Fold::Sum, AMOUNT),
    when(of("positive_total", "SUM(amount)", Fold::Sum, AMOUNT), POSITIVE),
    when(of("no_total", "SUM(cost)", Fold::Sum, COST), NEVER),
    of("price_sum", "SUM(price)", Fold::Sum, PRICE),
    of("cost_sum", "SUM(cost)", Fold::Sum, COST),
    of("mean_amount", "AVG(amount)", Fold::Avg, AMOUNT),
    of("mean_price", "AVG(price)", Fold::Avg, PRICE),
    of("mean_cost", "AVG(cost)", Fold::Avg, COST),
    of("least", "MIN(amount)", Fold::Min, AMOUNT),
    of("latest", "MAX(at)", Fold::Max, AT),
    of("first_region", "MIN(region)", Fold::Min, REGION),
    of("last_day", "MAX(day)", Fold::Max, DATE),
    of("amount_var_pop", "VAR_POP(amount)", spread(false, false), AMOUNT),
    of("price_var_samp", "VAR_SAMP(price)", spread(true, false), PRICE),
    of("cost_dev_pop", "STDDEV_POP(cost)", spread(false, true), COST),
    of("price_dev_samp", "STDDEV_SAMP(price)", spread(true, true), PRICE),
    of("far_variance", "VARIANCE(1e9 + code)", spread(true, false), FAR),
    when(of("code_dev", "STDDEV(code)", spread(true, true), CODE), FLAGGED),
    when(of("no_variance", "VAR_POP(price)", spread(false, false), PRICE), NEVER),
    of("regions", "COUNT(DISTINCT region)", Fold::Distinct, REGION),
    of("different_amounts", "COUNT(DISTINCT amount)", Fold::Distinct, AMOUNT),
    of("different_prices", "COUNT(DISTINCT price)", Fold::Distinct, PRICE),
    of("different_roots", "COUNT(DISTINCT SQRT(price))", Fold::Distinct, ROOT),
    of("different_costs", "COUNT(DISTINCT cost)", Fold::Distinct, COST),
    of("different_flags", "COUNT(DISTINCT flag)", Fold::Distinct, FLAG),
    of("different_days", "COUNT(DISTINCT day)", Fold::Distinct, DATE),
    of("different_times", "COUNT(DISTINCT at)", Fold::Distinct, AT),
    when(of("flagged_regions", "COUNT(DISTINCT region)", Fold::Distinct, REGION), FLAGGED),
    when(of("no_regions", "COUNT(DISTINCT region)", Fold::Distinct, REGION), NEVER),
    of("median_amount", "MEDIAN(amount)", cont(500), AMOUNT),
    of("p95_price", "PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY price)", cont(950), PRICE),
    of("p0_root", "PERCENTILE_CONT(0) WITHIN GROUP (ORDER BY SQRT(price))", cont(0), ROOT),
    of("p10_cost_down", "PERCENTILE_CONT(0.1) WITHIN GROUP (ORDER BY cost DESC)", descending(100, true), COST),
    of("q25_amount", "PERCENTILE_DISC(0.25) WITHIN GROUP (ORDER BY amount)", disc(250), AMOUNT),
    of("q55_code", "PERCENTILE_DISC(0.55) WITHIN GROUP (ORDER BY code)", disc(550), CODE),
    of("q100_price", "PERCENTILE_DISC(1) WITHIN GROUP (ORDER BY price)", disc(1000), PRICE),
    of("q90_price_down", "PERCENTILE_DISC(0.9) WITHIN GROUP (ORDER BY price DESC)", descending(900, false), PRICE),
    of("q50_cost", "PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY cost)", disc(500), COST),
    of("q50_at", "PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY at)", disc(500), AT),
    of("q70_day", "PERCENTILE_DISC(0.7) WITHIN GROUP (ORDER BY day)", disc(700), DATE),
    when(of("flagged_median", "MEDIAN(price)", cont(500), PRICE), FLAGGED),
    when(of("no_median", "MEDIAN(price)", cont(500), PRICE), NEVER),
    of("top_regions", "TOP_K(region, 3)", Fold::TopK(3), REGION),
    of("top_code", "TOP_K(code, 1)", Fold::TopK(1), CODE),
    of("top_costs", "TOP_K(cost, 5)", Fold::TopK(5), COST),
    of("top_prices", "TOP_K(price, 2)", Fold::TopK(2), PRICE),
    of("top_days", "TOP_K(day, 2)", Fold::TopK(2), DATE),
    of("top_flags", "TOP_K(flag, 2)", Fold::TopK(2), FLAG),
    when(of("top_positive", "TOP_K(amount, 2)", Fold::TopK(2), AMOUNT), POSITIVE),
    of("first_amount", "FIRST_VALUE(amount)", Fold::First, AMOUNT),
    of("first_text", "FIRST_VALUE(region)", Fold::First, REGION),
    of("first_cost", "FIRST_VALUE(cost)", Fold::First, COST),
    of("last_price", "LAST_VALUE(price)", Fold::Last, PRICE),
    of("last_text", "LAST_VALUE(region)", Fold::Last, REGION),
    of("last_flag", "LAST_VALUE(flag)", Fold::Last, FLAG),
    of("last_at", "LAST_VALUE(at)", Fold::Last, AT),
    when(of("last_positive", "LAST_VALUE(amount)", Fold::Last, AMOUNT), POSITIVE),
    when(of("no_first", "FIRST_VALUE(day)", Fold::First, DATE), NEVER),
    other("mean_cut", "SUM(code) / COUNT(*)", |rows| {
        let codes: Vec<i64> = rows.iter().filter_map(|r| r.event.code).map(i64::from).collect();
        exact(if codes.is_empty() { Value::Null } else { json!(codes.iter().sum::<i64>() / rows.len() as i64) })
    }),
    other("doubled", "COUNT(DISTINCT code) * 2 + COUNT(*)", |rows| {
        let Value::Number(codes) = fold(Fold::Distinct, CODE, rows).value else { unreachable!("a count") };
        exact(json!(codes.as_i64().expect("a count") * 2 + rows.len() as i64))
    }),
    other("price_range", "MAX(price) - MIN(price)", |rows| {
        let prices = || rows.iter().filter_map(|r: &Row| r.event.price);
        let range = prices().reduce(f64::max).zip(prices().reduce(f64::min)).map(|(max, min)| max - min);
        Truth { value: json!(range), slack: 1e-9 }
    }),
];

/// The measures called `names`.
pub fn measures(names: &[&str]) -> Vec<Measure> {
    let named = |name: &&str| *MEASURES.iter().find(|m| m.name == *name).unwrap_or_else(|| panic!("no {name}"));
    names.iter().map(named).collect()
}

/// A view's WHERE.
pub const WHERES: [Condition; 2] = [
    Condition { sql: "code IS NOT NULL", holds: |e| e.code.is_some() },
    Condition { sql: "amount % 3 <> 0 OR amount IS NULL", holds: |e| e.amount.is_none_or(|a| a % 3 != 0) },
];

/// A view's HAVING.
pub const HAVINGS: [Having; 3] = [
    Having { sql: "COUNT(*) > 1", holds: |rows| rows.len() > 1 },
    Having { sql: "COUNT(DISTINCT region) >= 2 OR MIN(amount) < 0", holds: |rows| distinct_or_negative(rows) },
    // NULL is not true.
    Having { sql: "MAX(code) >= 0", holds: |rows| rows.iter().filter_map(|r| r.event.code).max() >= Some(0) },
];

fn distinct_or_negative(rows: &[Row]) -> bool {
    let least = rows.iter().filter_map(|r| r.event.amount).min();
    fold(Fold::Distinct, REGION, rows).value.as_u64() >= Some(2) || least.is_some_and(|a| a < 0)
}
