//! Describes one immutable batch version of a view: its files, its seam and the events that it accounts for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::compare::Comparison;
use crate::data_file::DataFile;
use crate::date_partition::DatePartition;
use crate::failed_events::FailedEvents;
use crate::ids::{StreamName, ViewName};
use crate::ledger::Ledger;
use crate::seam::Cut;
use crate::time::{Day, Micros};
use crate::time_range::TimeRange;

/// A published result of a batch run. Kept in the metadata of the Delta commit that published it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchVersion {
    pub view: ViewName,
    /// The statement that declared the view, and the hash of what it computes.
    pub sql: String,
    pub definition_hash: String,
    /// Version of the view's Delta table.
    pub version: i64,
    pub run: String,
    pub published_at: Micros,
    /// Everything before it is in this version.
    pub seam: Cut,
    /// The events this version really accounts for; equal to the seam's if nothing was lost.
    pub ledger: Ledger,
    /// Whether the run recomputed everything.
    pub full: bool,
    /// The layer that computed what the run wrote. Files that it kept may be of the other one.
    #[serde(default, skip_serializing_if = "Origin::is_batch")]
    pub origin: Origin,
    /// Events that are in no row because speed excluded them as late: the ledger counts them. 0 if batch computed all rows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub late: u64,
    /// Rows of the version in all.
    pub rows: u64,
    /// No session of the version is longer, from its first event to its end; 0 for views without sessions.
    #[serde(default)]
    pub longest_session_us: i64,
    /// The comparison with the values it replaced, without rows; `None`: it was not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Box<Comparison>>,
    /// The file with the whole comparison, written before the version was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison_file: Option<DataFile>,
    /// The work of the run that published it; `None` for versions of an earlier program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<RunWork>,
    /// Files of the version, and their bytes; `None`: published before these were noted.
    #[serde(default)]
    pub file_count: Option<u64>,
    #[serde(default)]
    pub bytes: Option<u64>,
    /// The stream's watermark when the version was made: the finality of its rows follows from it.
    #[serde(default)]
    pub watermark: Option<Micros>,
    /// The stream's latest event time then.
    #[serde(default)]
    pub latest_event: Option<Micros>,
    /// The first window date that retention has kept; `None`: it has dropped none.
    #[serde(default)]
    pub retained_from: Option<Day>,
    /// Windows that start before it are frozen: the stream's retention has dropped events that they are made of, so
    /// they stay as they were. `None`: none are.
    #[serde(default)]
    pub frozen_before: Option<Day>,
    /// Upper bound on the end of sessions that start before `retained_from`: they are in no file, and may still reach
    /// into remaining days. `None` for views without sessions, or when nothing has been dropped.
    #[serde(default)]
    pub dropped_sessions_end: Option<Micros>,
    /// Events that arrived after all their windows had been dropped or frozen: the ledger counts them, no row does.
    #[serde(default)]
    pub past_retention: u64,
    /// Events that are in no row because an expression of the view failed for them: the ledger counts them.
    #[serde(default, skip_serializing_if = "FailedEvents::is_empty")]
    pub failed: FailedEvents,
    /// Events of erased entities that it excludes, by event date: the ledger counts them, no row does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub erased: BTreeMap<String, u64>,
    /// The changes of joined tables that it has seen, by table.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lookups: BTreeMap<StreamName, LookupCut>,
    /// Files by window date. Not part of the metadata: Delta lists them.
    #[serde(skip)]
    pub files: Vec<VersionFile>,
}

/// How much of a table's log a version has seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LookupCut {
    /// The speed layer had these changes before it folded an event behind the seam.
    pub known: Cut,
    /// The rows of the version are joined with these changes.
    pub read: Cut,
}

/// The layer that computed rows of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Exact, with late events.
    #[default]
    Batch,
    /// A checkpoint of the speed layer: estimates keep their bounds, late events are excluded.
    Speed,
}

impl Origin {
    /// The tag of a file in a view's table that holds its origin; a file without it is of batch.
    pub const TAG: &'static str = "origin";

    /// Returns the name in responses and tags.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Batch => "batch",
            Origin::Speed => "speed",
        }
    }

    /// Returns the origin of a file with these tags.
    pub fn of_tags(tags: &BTreeMap<String, String>) -> Origin {
        let is_speed = tags.get(Origin::TAG).is_some_and(|origin| origin == Origin::Speed.name());
        if is_speed { Origin::Speed } else { Origin::Batch }
    }

    fn is_batch(&self) -> bool {
        *self == Origin::Batch
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The work of a run and its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunWork {
    pub started_at: Micros,
    /// Events in the files that it read, and the bytes of those files.
    pub events: u64,
    pub bytes: u64,
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionFile {
    /// Path relative to the view's table.
    pub path: String,
    pub date: DatePartition,
    pub rows: u64,
    pub size_bytes: u64,
    pub origin: Origin,
}

impl BatchVersion {
    /// Returns the note of the commit that publishes this version; [`BatchVersion::from_note`] reads it back exactly.
    pub fn to_note(&self) -> Map<String, Value> {
        let mut note = serde_json::to_value(self).expect("a version is plain data with text keys");
        crate::double::make_exact(&mut note);
        match note {
            Value::Object(note) => note,
            other => unreachable!("a struct is an object, not {other}"),
        }
    }

    /// Reads the note of a commit. The comparison summary only reports on earlier results: if it cannot be read, the
    /// version is returned without it, with the reason.
    pub fn from_note(note: Map<String, Value>) -> Result<(BatchVersion, Option<serde_json::Error>), serde_json::Error> {
        let unreadable = match serde_json::from_value(Value::Object(note.clone())) {
            Ok(version) => return Ok((version, None)),
            Err(error) => error,
        };
        let mut figures = note;
        figures.remove("comparison");
        match serde_json::from_value(Value::Object(figures)) {
            Ok(version) => Ok((version, Some(unreadable))),
            Err(_) => Err(unreadable),
        }
    }

    /// Returns whether no event has been erased since this version that `newer` excludes.
    pub fn excludes_all_erased(&self, newer: &BatchVersion) -> bool {
        newer.erased.iter().all(|(date, events)| self.erased.get(date).is_some_and(|known| known >= events))
    }

    /// Returns the events that the run read per second, if it read any.
    pub fn events_per_second(&self) -> Option<f64> {
        let work = self.work?;
        let seconds = self.published_at.0.saturating_sub(work.started_at.0) as f64 / 1e6;
        (work.events > 0 && seconds > 0.0).then(|| work.events as f64 / seconds)
    }

    /// Returns whether rows that can be recomputed are of the speed layer. Frozen ones stay as they are.
    pub fn has_rows_of_speed(&self) -> bool {
        let is_frozen = |file: &VersionFile| {
            file.date.day().is_some_and(|day| self.frozen_before.is_some_and(|frozen| day < frozen))
        };
        self.files.iter().any(|file| file.origin == Origin::Speed && !is_frozen(file))
    }

    /// Returns the files that may hold windows starting in `range`.
    pub fn files_touching(&self, range: TimeRange) -> impl Iterator<Item = &VersionFile> {
        self.files.iter().filter(move |file| file.date.day().is_none_or(|day| range.meets_day(day)))
    }

    /// Returns the files by date.
    pub fn by_date(&self) -> BTreeMap<DatePartition, Vec<&VersionFile>> {
        let mut dates: BTreeMap<DatePartition, Vec<&VersionFile>> = BTreeMap::new();
        for file in &self.files {
            dates.entry(file.date).or_default().push(file);
        }
        dates
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compare::{Causes, MeasureDrift};
    use crate::ids::{Offset, Partition};
    use crate::seam::CutPoint;

    fn double() -> impl Strategy<Value = f64> {
        let ends = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 5e-324, -0.0, 1.0];
        prop_oneof![prop::sample::select(ends.to_vec()), any::<u64>().prop_map(f64::from_bits)]
    }

    fn time() -> impl Strategy<Value = Micros> {
        prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(253_402_300_800_000_000), any::<i64>()].prop_map(Micros)
    }

    fn drift() -> impl Strategy<Value = MeasureDrift> {
        let doubles = (double(), double(), double(), double(), prop::option::of(double()));
        (doubles, any::<u64>(), any::<u64>()).prop_map(|((a, b, c, d, inside), equal, estimates)| MeasureDrift {
            equal,
            max_abs_error: a,
            max_rel_error: b,
            mean_rel_error: c,
            drift: d,
            estimates,
            inside_bounds: inside,
        })
    }

    prop_compose! {
        fn version()(
            drift in drift(),
            published_at in time(),
            watermark in prop::option::of(time()),
            number in any::<i64>(),
            count in any::<u64>(),
            positions in any::<u128>(),
            day in any::<i32>(),
        ) -> BatchVersion {
            let ledger = Ledger { events: count, positions };
            let point = CutPoint { offset: Offset(count), accepted: ledger };
            BatchVersion {
                view: "v".parse().expect("a name"),
                sql: "SELECT \"\u{0}\"".to_owned(),
                definition_hash: String::new(),
                version: number,
                run: String::new(),
                published_at,
                seam: Cut(BTreeMap::from([(Partition(u32::MAX), point)])),
                ledger,
                full: true,
                rows: count,
                longest_session_us: number,
                comparison: Some(Box::new(Comparison {
                    view: "v".parse().expect("a name"),
                    version: number,
                    compared_at: published_at,
                    cut: BTreeMap::from([(Partition(0), Offset(count))]),
                    rows_compared: count,
                    rows_equal: count,
                    measures: BTreeMap::from([("m".to_owned(), drift)]),
                    causes: Causes { late: count, ..Causes::default() },
                    definition: None,
                    rows: Vec::new(),
                    rows_omitted: count,
                })),
                comparison_file: None,
                work: Some(RunWork { started_at: published_at, events: count, bytes: count }),
                file_count: Some(count),
                bytes: None,
                watermark,
                latest_event: watermark,
                retained_from: Some(Day(day)),
                frozen_before: None,
                dropped_sessions_end: watermark,
                past_retention: count,
                origin: if count % 2 == 0 { Origin::Speed } else { Origin::Batch },
                late: count,
                failed: FailedEvents::default(),
                erased: BTreeMap::from([("2001-01-01".to_owned(), count)]),
                lookups: BTreeMap::from([(
                    "t".parse().expect("a name"),
                    LookupCut { known: Cut::start(1), read: Cut(BTreeMap::from([(Partition(1), point)])) },
                )]),
                files: Vec::new(),
            }
        }
    }

    fn note(version: &BatchVersion) -> Map<String, Value> {
        // As the lake keeps it: as text.
        let text = serde_json::to_string(&version.to_note()).expect("plain data");
        serde_json::from_str(&text).expect("an object")
    }

    proptest! {
        #[test]
        fn every_note_round_trips(version in version()) {
            let (read, problem) = BatchVersion::from_note(note(&version)).expect("readable");
            prop_assert!(problem.is_none(), "{problem:?}");
            let drift = |version: &BatchVersion| version.comparison.as_ref().expect("there").measures["m"];
            let (a, b) = (drift(&read), drift(&version));
            let pairs = [
                (a.max_abs_error, b.max_abs_error),
                (a.max_rel_error, b.max_rel_error),
                (a.mean_rel_error, b.mean_rel_error),
                (a.drift, b.drift),
                (a.inside_bounds.unwrap_or(0.0), b.inside_bounds.unwrap_or(0.0)),
            ];
            for (a, b) in pairs {
                prop_assert!(a.is_nan() && b.is_nan() || a.to_bits() == b.to_bits(), "{a:e} is not {b:e}");
            }
            // All else is the same.
            let mut read = read;
            if let Some(comparison) = &mut read.comparison {
                comparison.measures.insert("m".to_owned(), b);
            }
            prop_assert_eq!(format!("{read:?}"), format!("{version:?}"));
        }

        #[test]
        fn the_comparison_is_not_needed_to_read_the_rest(version in version()) {
            let mut note = note(&version);
            note["comparison"]["measures"]["m"]["drift"] = Value::from("a lot");
            let (read, problem) = BatchVersion::from_note(note.clone()).expect("readable");
            prop_assert!(problem.is_some() && read.comparison.is_none());
            prop_assert_eq!(read.seam, version.seam);
            note.remove("seam");
            prop_assert!(BatchVersion::from_note(note).is_err());
        }
    }
}
