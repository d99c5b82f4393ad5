//! Reads what the archive's statistics guarantee about a column, so that work with a known result is skipped.

use serde_json::Value;

use crate::plan::ArchiveFile;

/// What the statistics guarantee about a column over some files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnFacts {
    /// No value is null.
    pub no_nulls: bool,
    /// No value of an integer column is further from zero than this; `None`: unknown.
    pub magnitude: Option<u64>,
}

/// Returns the facts about each of `columns` over all `files`.
pub fn column_facts(files: &[ArchiveFile], columns: &[&str]) -> Vec<ColumnFacts> {
    let mut facts = vec![ColumnFacts { no_nulls: true, magnitude: Some(0) }; columns.len()];
    for file in files {
        let stats: Value =
            file.file.stats_json.as_deref().and_then(|s| serde_json::from_str(s).ok()).unwrap_or_default();
        for (fact, column) in facts.iter_mut().zip(columns) {
            let bound = |side: &str| stats[side][*column].as_i64().map(i64::unsigned_abs);
            let magnitude = bound("minValues").zip(bound("maxValues")).map(|(low, high)| low.max(high));
            fact.magnitude = fact.magnitude.zip(magnitude).map(|(a, b)| a.max(b));
            fact.no_nulls &= stats["nullCount"][*column].as_u64() == Some(0);
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lake::{ArchiveTags, DataFile};
    use shared::date_partition::DatePartition;
    use shared::ids::{Offset, Partition};
    use shared::ledger::Ledger;
    use shared::time::Micros;

    use super::*;

    fn file(stats: Option<&str>) -> ArchiveFile {
        let tags = ArchiveTags {
            partition: Partition(0),
            from: Offset(0),
            to: Offset(1),
            rows: 1,
            erased: 0,
            ledger: Ledger::EMPTY,
            latest_watermark: Micros::MIN,
        };
        let stats_json = stats.map(str::to_owned);
        let file = DataFile {
            path: String::new(),
            partition: DatePartition::Undated,
            size_bytes: 1,
            rows: 1,
            tags: BTreeMap::new(),
            stats_json,
        };
        ArchiveFile { file, tags }
    }

    #[test]
    fn facts_hold_for_all_files_or_are_unknown() {
        let one = file(Some(r#"{"minValues":{"n":-7},"maxValues":{"n":3},"nullCount":{"n":0}}"#));
        let two = file(Some(r#"{"minValues":{"n":1},"maxValues":{"n":9},"nullCount":{"n":2}}"#));
        assert_eq!(
            column_facts(std::slice::from_ref(&one), &["n"]),
            [ColumnFacts { no_nulls: true, magnitude: Some(7) }]
        );
        assert_eq!(column_facts(&[one.clone(), two], &["n"]), [ColumnFacts { no_nulls: false, magnitude: Some(9) }]);
        let unknown = ColumnFacts { no_nulls: false, magnitude: None };
        assert_eq!(column_facts(&[one.clone(), file(None)], &["n"]), [unknown]);
        assert_eq!(column_facts(&[one], &["other"]), [unknown]);
    }
}
