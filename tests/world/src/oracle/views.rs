//! Defines views as SQL and as plain functions, and folds the log naively.

use std::collections::BTreeMap;

use chrono_tz::Tz;
use serde_json::{Value, json};

use super::events::{Accepted, Event, Log, rfc3339};
use super::measures::{Column, Fold, Row, Truth, exact, fold};
use super::sessions::{Live, sessions};
use super::windows::Window;

/// A condition over an event, as SQL and as a function.
#[derive(Debug, Clone, Copy)]
pub struct Condition {
    pub sql: &'static str,
    pub holds: fn(&Event) -> bool,
}

/// A dimension of a view.
#[derive(Debug, Clone, Copy)]
pub struct Dimension {
    pub name: &'static str,
    /// Without its name.
    pub sql: &'static str,
    pub value: Column,
}

/// The meaning of a measure.
#[derive(Debug, Clone, Copy)]
pub enum Meaning {
    /// `COUNT(*)`.
    Rows,
    Fold(Fold, Column),
    /// Arithmetic over measures.
    Other(fn(&[Row]) -> Truth),
}

#[derive(Debug, Clone, Copy)]
pub struct Measure {
    pub name: &'static str,
    /// Without its name and FILTER.
    pub sql: &'static str,
    pub filter: Option<Condition>,
    pub meaning: Meaning,
}

impl Measure {
    pub fn truth(&self, rows: &[Row]) -> Truth {
        let kept = self.kept(rows);
        match self.meaning {
            Meaning::Rows => exact(json!(kept.len())),
            Meaning::Fold(how, column) => fold(how, column, &kept),
            Meaning::Other(value) => value(&kept),
        }
    }

    /// The rows that FILTER keeps.
    pub fn kept<'a>(&self, rows: &[Row<'a>]) -> Vec<Row<'a>> {
        rows.iter().filter(|r| self.filter.is_none_or(|f| (f.holds)(r.event))).copied().collect()
    }

    fn sql(&self) -> String {
        let filter = self.filter.map_or_else(String::new, |f| format!(" FILTER (WHERE {})", f.sql));
        format!("{}{filter} AS {}", self.sql, self.name)
    }
}

/// A condition over a row's measures.
#[derive(Debug, Clone, Copy)]
pub struct Having {
    pub sql: &'static str,
    pub holds: fn(&[Row]) -> bool,
}

#[derive(Debug, Clone)]
pub struct View {
    pub name: String,
    pub window: Window,
    pub zone: Tz,
    pub filter: Option<Condition>,
    pub dimensions: Vec<Dimension>,
    pub measures: Vec<Measure>,
    pub having: Option<Having>,
}

/// An expected row: its key (the columns named by [`View::key_names`], as JSON) and its rows of the log.
#[derive(Debug, Clone, Default)]
pub struct Group<'a> {
    pub rows: Vec<Row<'a>>,
}

/// Key (as JSON text) to group.
pub type Groups<'a> = BTreeMap<String, Group<'a>>;

impl View {
    pub fn sql(&self) -> String {
        let windowed = self.window != Window::All;
        let mut columns: Vec<String> = Vec::new();
        if windowed {
            columns.extend(["window_start".to_owned(), "window_end".to_owned()]);
        }
        let named = |d: &Dimension| if d.sql == d.name { d.sql.to_owned() } else { format!("{} AS {}", d.sql, d.name) };
        columns.extend(self.dimensions.iter().map(named));
        columns.extend(self.measures.iter().map(Measure::sql));
        let mut group: Vec<String> = windowed.then(|| self.window.sql()).into_iter().collect();
        group.extend(self.dimensions.iter().map(|d| d.name.to_owned()));
        let clause = |word: &str, text: Option<&str>| text.map_or_else(String::new, |text| format!("\n{word} {text}"));
        let group = (!group.is_empty()).then(|| group.join(", "));
        let zone = match self.zone {
            Tz::UTC => String::new(),
            zone => format!(" WITH (time_zone = '{}')", zone.name()),
        };
        format!(
            "CREATE VIEW {}{zone} AS SELECT {}\nFROM events{}{}{};\n",
            self.name,
            columns.join(",\n  "),
            clause("WHERE", self.filter.map(|f| f.sql)),
            clause("GROUP BY", group.as_deref()),
            clause("HAVING", self.having.map(|h| h.sql)),
        )
    }

    /// The key columns of rows that are grouped by the dimensions `by`.
    pub fn key_names(&self, by: &[usize]) -> Vec<&'static str> {
        let mut names = if self.window == Window::All { Vec::new() } else { vec!["window_start", "window_end"] };
        names.extend(by.iter().map(|i| self.dimensions[*i].name));
        names
    }

    /// Returns whether the event satisfies WHERE.
    pub fn accepts(&self, event: &Event) -> bool {
        self.filter.is_none_or(|f| (f.holds)(event))
    }

    fn key(&self, event: &Event) -> Vec<Value> {
        self.dimensions.iter().map(|d| (d.value)(event).json()).collect()
    }

    /// For each event of the log, whether speed excludes it.
    pub fn late(&self, log: &Log) -> Vec<bool> {
        let lateness = log.stream.allowed_lateness;
        if let Window::Session { gap } = self.window {
            // Rows that WHERE excludes are in no session, and not late for one.
            let mut live: BTreeMap<String, Live> = BTreeMap::new();
            let late = |a: &Accepted| {
                self.accepts(&a.event) && {
                    let key = json!(self.key(&a.event)).to_string();
                    live.entry(key).or_default().judge(a.event.at, a.watermark, gap, lateness)
                }
            };
            return log.accepted.iter().map(late).collect();
        }
        log.accepted.iter().map(|a| self.is_over(a.event.at, a.watermark, lateness)).collect()
    }

    /// Returns whether all windows that contain an instant are over, at a watermark.
    fn is_over(&self, at: i64, watermark: Option<i64>, lateness: i64) -> bool {
        // Every window of an event ends after it, so most events are not late in any window.
        let Some(watermark) = watermark.filter(|w| at + lateness < *w) else { return false };
        let end = match self.window {
            Window::All => None,
            Window::Slide { size } => Some(at + size),
            Window::Session { .. } => unreachable!("sessions are judged one after the other"),
            window => window.containing(self.zone, at).iter().map(|(_, end)| *end).max(),
        };
        end.is_some_and(|end| end + lateness <= watermark)
    }

    /// The log's rows that a layer counts: `batch` those before the seam, `speed` those from it on that are not late.
    pub fn counted<'a>(&self, log: &'a Log, seam: usize, batch: bool, speed: bool) -> Vec<Row<'a>> {
        let late = self.late(log);
        let counts = |i: &usize| {
            let in_layer = if *i < seam { batch } else { speed && !late[*i] };
            in_layer && self.accepts(&log.accepted[*i].event)
        };
        let row = |offset: usize| Row { offset, event: &log.accepted[offset].event };
        (0..log.accepted.len()).filter(counts).map(row).collect()
    }

    /// The rows of a response over `rows`, by the dimensions `by`. A trailing window ends at `as_of`.
    pub fn groups<'a>(&self, rows: &[Row<'a>], by: &[usize], as_of: i64) -> Groups<'a> {
        let mut keys: BTreeMap<String, (Vec<Value>, Vec<Row>)> = BTreeMap::new();
        for row in rows {
            let key: Vec<Value> = by.iter().map(|i| (self.dimensions[*i].value)(row.event).json()).collect();
            keys.entry(json!(key).to_string()).or_insert_with(|| (key, Vec::new())).1.push(*row);
        }
        let mut groups = Groups::new();
        for (key, rows) in keys.into_values() {
            let windows = |at: i64| match self.window {
                Window::Session { .. } | Window::Slide { .. } => unreachable!("taken care of below"),
                window => window.containing(self.zone, at),
            };
            match self.window {
                Window::Session { gap } => {
                    for window in sessions(rows.iter().map(|r| r.event.at).collect(), gap) {
                        let inside = |r: &&Row| window.0 <= r.event.at && r.event.at < window.1;
                        let rows = rows.iter().filter(inside).copied().collect();
                        groups.insert(self.row_key(window, &key), Group { rows });
                    }
                }
                Window::Slide { size } => {
                    let window = (as_of - size, as_of);
                    let rows: Vec<Row> =
                        rows.into_iter().filter(|r| window.0 <= r.event.at && r.event.at < window.1).collect();
                    if !rows.is_empty() {
                        groups.insert(self.row_key(window, &key), Group { rows });
                    }
                }
                _ => {
                    for row in rows {
                        for window in windows(row.event.at) {
                            groups.entry(self.row_key(window, &key)).or_default().rows.push(row);
                        }
                    }
                }
            }
        }
        if let Some(having) = self.having {
            groups.retain(|_, group| (having.holds)(&group.rows));
        }
        groups
    }

    fn row_key(&self, window: (i64, i64), dimensions: &[Value]) -> String {
        let mut key = Vec::new();
        if self.window != Window::All {
            key.extend([json!(rfc3339(window.0)), json!(rfc3339(window.1))]);
        }
        key.extend_from_slice(dimensions);
        Value::Array(key).to_string()
    }
}
