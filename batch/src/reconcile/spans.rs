//! Divides a comparison into spans of window dates that fit in memory.

use std::collections::{BTreeMap, BTreeSet};

use lake::DataFile;
use shared::date_partition::DatePartition;
use shared::partial::bucket::{BUCKET_TAG, Bucket};
use shared::time::Micros;

/// A file's path, and the groups it has rows of.
pub type BucketFile = (String, Bucket);

/// Consecutive window dates that are compared together.
#[derive(Debug, Default)]
pub struct DateSpan {
    /// Windows that start earlier are not in it; `None`: no bound.
    pub from: Option<Micros>,
    /// Windows that start here or later are not in it; `None`: no bound.
    pub to: Option<Micros>,
    pub served: Vec<BucketFile>,
    pub exact: Vec<BucketFile>,
    /// Rows of all files.
    pub rows: u64,
}

/// Divides time so that no span has many more than `rows_at_once` rows. Together the spans cover all from `from` on, so that
/// windows that only speed has are compared as well.
pub fn spans(served: &[DataFile], exact: &[DataFile], from: Option<Micros>, rows_at_once: u64) -> Vec<DateSpan> {
    let dates: BTreeSet<DatePartition> = served.iter().chain(exact).map(|f| f.partition).collect();
    // Windows in files without a date may be anywhere.
    let split = dates.iter().all(|date| date.day().is_some());
    let mut spans = Vec::new();
    let mut open = DateSpan { from, ..DateSpan::default() };
    let (mut served, mut exact) = (by_date(served), by_date(exact));
    for date in dates {
        let (old, old_rows) = served.remove(&date).unwrap_or_default();
        let (new, new_rows) = exact.remove(&date).unwrap_or_default();
        let more = old_rows + new_rows;
        if let Some(day) = date.day().filter(|_| split && open.rows > 0 && open.rows + more > rows_at_once) {
            open.to = Some(day.start());
            let next = DateSpan { from: open.to, ..DateSpan::default() };
            spans.push(std::mem::replace(&mut open, next));
        }
        open.rows += more;
        open.served.extend(old);
        open.exact.extend(new);
    }
    spans.push(open);
    spans
}

/// Returns the files and rows of each date.
fn by_date(files: &[DataFile]) -> BTreeMap<DatePartition, (Vec<BucketFile>, u64)> {
    let mut dates: BTreeMap<DatePartition, (Vec<BucketFile>, u64)> = BTreeMap::new();
    for file in files {
        let (files, rows) = dates.entry(file.partition).or_default();
        files.push((file.path.clone(), Bucket::of_tag(file.tags.get(BUCKET_TAG))));
        *rows += u64::try_from(file.rows).unwrap_or(0);
    }
    dates
}
