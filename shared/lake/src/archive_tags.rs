//! Reads and writes the tags that the archive puts on each of its files: the offsets a file covers, and the ledger of
//! its rows.
//!
//! The tags travel in the Delta log, so a run knows which events a file accounts for without opening it.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::readable::FILE_ROWS_MAX;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::time::Micros;

/// The tags of one archive file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveTags {
    /// The partition whose events the file holds.
    pub partition: Partition,
    /// First offset of the commit that added the file. The file holds the events of those offsets with its date.
    pub from: Offset,
    /// The offset after the last of that commit.
    pub to: Offset,
    /// Rows of this file.
    pub rows: u64,
    /// Events of erased entities that were taken out of this file, or never came into it. They are in its ledger.
    pub erased: u64,
    /// Ledger of the rows of this file and of its erased events.
    pub ledger: Ledger,
    /// The partition's watermark after the last event of the commit.
    pub latest_watermark: Micros,
}

/// A tag is missing or invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("archive file without a valid tag \"{0}\"")]
pub struct InvalidTag(&'static str);

impl ArchiveTags {
    /// Returns the application of the table's transactions for one partition; their version is the offset archived so
    /// far.
    pub fn app_id(stream: &shared::ids::StreamName, partition: Partition) -> String {
        format!("{stream}/{partition}")
    }

    /// Returns the application of the table's transactions for one partition of a stream that reads a topic; their version is
    /// the offset in the topic after the last archived record.
    pub fn source_app_id(stream: &shared::ids::StreamName, partition: Partition) -> String {
        format!("{stream}/{partition}/source")
    }

    /// Returns the application of the table's transactions for one file of historical events, named by its content.
    pub fn history_file_app_id(stream: &shared::ids::StreamName, identity: &str) -> String {
        format!("{stream}/history/{identity}")
    }

    /// Converts to Delta tags: numbers in decimal, the ledger as JSON, the watermark in microseconds.
    pub fn to_tags(&self) -> BTreeMap<String, String> {
        let ledger = serde_json::to_string(&self.ledger).expect("a ledger is two plain fields");
        let mut tags = BTreeMap::from([
            ("partition".to_owned(), self.partition.to_string()),
            ("from".to_owned(), self.from.to_string()),
            ("to".to_owned(), self.to.to_string()),
            ("rows".to_owned(), self.rows.to_string()),
            ("ledger".to_owned(), ledger),
            ("latest_watermark".to_owned(), self.latest_watermark.0.to_string()),
        ]);
        if self.erased > 0 {
            tags.insert("erased".to_owned(), self.erased.to_string());
        }
        tags
    }

    /// Reads tags written by [`ArchiveTags::to_tags`].
    ///
    /// # Errors
    /// If another program wrote them: a tag is missing, or says what is not possible.
    pub fn from_tags(tags: &BTreeMap<String, String>) -> Result<ArchiveTags, InvalidTag> {
        fn number<T: FromStr>(tags: &BTreeMap<String, String>, tag: &'static str) -> Result<T, InvalidTag> {
            tags.get(tag).and_then(|text| text.parse().ok()).ok_or(InvalidTag(tag))
        }
        let ledger = tags.get("ledger").and_then(|text| serde_json::from_str(text).ok()).ok_or(InvalidTag("ledger"))?;
        Ok(ArchiveTags {
            partition: Partition(number(tags, "partition")?),
            from: Offset(number(tags, "from")?),
            to: Offset(number(tags, "to")?),
            rows: number(tags, "rows").ok().filter(|rows| *rows <= FILE_ROWS_MAX as u64).ok_or(InvalidTag("rows"))?,
            erased: match tags.contains_key("erased") {
                true => number(tags, "erased")
                    .ok()
                    .filter(|rows| *rows <= FILE_ROWS_MAX as u64)
                    .ok_or(InvalidTag("erased"))?,
                false => 0,
            },
            ledger,
            latest_watermark: Micros(number(tags, "latest_watermark")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_round_trip() {
        let tags = ArchiveTags {
            partition: Partition(7),
            from: Offset(10),
            to: Offset(u64::MAX),
            rows: 2,
            erased: 1,
            ledger: Ledger::of_range(Partition(7), Offset(10), Offset(13)),
            latest_watermark: Micros::MIN,
        };
        assert_eq!(ArchiveTags::from_tags(&tags.to_tags()), Ok(tags));
        for missing in tags.to_tags().keys().filter(|tag| *tag != "erased") {
            let mut some = tags.to_tags();
            some.remove(missing);
            assert!(ArchiveTags::from_tags(&some).is_err(), "{missing}");
        }
        let none = ArchiveTags { erased: 0, ..tags };
        assert!(!none.to_tags().contains_key("erased") && ArchiveTags::from_tags(&none.to_tags()) == Ok(none));
        let mut impossible = tags.to_tags();
        impossible.insert("rows".to_owned(), u64::MAX.to_string());
        assert_eq!(ArchiveTags::from_tags(&impossible), Err(InvalidTag("rows")), "such numbers could not be added up");
    }
}
