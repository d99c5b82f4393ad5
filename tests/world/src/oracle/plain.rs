//! Defines three views with counts, sums and extremes for the tests of the log, the seam and the runs.

use chrono_tz::Tz;
use serde_json::{Value, json};

use super::events::Event;
use super::measures::{AMOUNT, AT, CODE, COST, Cell, Column, Fold, PRICE, REGION, Row, exact};
use super::views::{Condition, Dimension, Meaning, Measure, View};
use super::windows::{Length, Window};

const fn measure(name: &'static str, sql: &'static str, how: Fold, column: Column) -> Measure {
    Measure { name, sql, filter: None, meaning: Meaning::Fold(how, column) }
}

const N: Measure = Measure { name: "n", sql: "COUNT(*)", filter: None, meaning: Meaning::Rows };
const TOTAL: Measure = measure("total", "SUM(amount)", Fold::Sum, AMOUNT);

/// A product that does not fit 64 bits is NULL and so not summed.
const DOUBLED: Column = |e| e.amount.and_then(|a| a.checked_mul(2)).map_or(Cell::Null, Cell::Int);

fn mean(rows: &[Row]) -> Value {
    let total: i128 = rows.iter().filter_map(|r| r.event.amount).map(i128::from).sum();
    let any = rows.iter().any(|r| r.event.amount.is_some());
    // Integer division truncates; a sum that does not fit is NULL.
    i64::try_from(total).ok().filter(|_| any).map_or(Value::Null, |total| json!(total / rows.len() as i64))
}

fn sign(event: &Event) -> Cell {
    Cell::Text(match event.amount {
        Some(a) if a > 0 => "plus".to_owned(),
        Some(a) if a < 0 => "minus".to_owned(),
        _ => "none".to_owned(),
    })
}

pub const REGION_DIMENSION: Dimension = Dimension { name: "region", sql: "region", value: REGION };
pub const CODE_DIMENSION: Dimension = Dimension { name: "code", sql: "code", value: CODE };

/// The names of the views.
pub const NAMES: [&str; 3] = ["regions", "signs", "totals"];

pub fn views() -> Vec<View> {
    let view = |name: &str, window, filter, dimensions, measures| View {
        name: name.to_owned(),
        window,
        zone: Tz::UTC,
        filter,
        dimensions,
        measures,
        having: None,
    };
    let flagged = Condition { sql: "flag", holds: |e| e.flag == Some(true) };
    let signs = "CASE WHEN amount > 0 THEN 'plus' WHEN amount < 0 THEN 'minus' ELSE 'none' END";
    vec![
        view(
            "regions",
            Window::Tumble { size: Length::Fixed(super::events::MINUTE), offset: 0 },
            None,
            vec![REGION_DIMENSION],
            vec![
                N,
                measure("amounts", "COUNT(amount)", Fold::Count, AMOUNT),
                TOTAL,
                measure("price", "AVG(price)", Fold::Avg, PRICE),
                measure("least", "MIN(amount)", Fold::Min, AMOUNT),
                measure("dearest", "MAX(price)", Fold::Max, PRICE),
                Measure { name: "flagged", filter: Some(flagged), ..N },
                measure("cost", "SUM(cost)", Fold::Sum, COST),
            ],
        ),
        view(
            "signs",
            Window::Tumble { size: Length::Days(1), offset: 0 },
            Some(Condition { sql: "code IS NOT NULL", holds: |e| e.code.is_some() }),
            vec![Dimension { name: "sign", sql: signs, value: sign }, CODE_DIMENSION],
            vec![
                measure("doubled", "SUM(amount * 2)", Fold::Sum, DOUBLED),
                Measure {
                    name: "mean",
                    sql: "SUM(amount) / COUNT(*)",
                    filter: None,
                    meaning: Meaning::Other(|rows| exact(mean(rows))),
                },
                N,
            ],
        ),
        view(
            "totals",
            Window::All,
            Some(Condition {
                sql: "amount % 3 <> 0 OR amount IS NULL",
                holds: |e| e.amount.is_none_or(|a| a % 3 != 0),
            }),
            vec![],
            vec![
                N,
                TOTAL,
                measure("first_region", "MIN(region)", Fold::Min, REGION),
                measure("latest", "MAX(at)", Fold::Max, AT),
            ],
        ),
    ]
}
