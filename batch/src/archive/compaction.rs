//! Groups the small files of an archive that become one: neighbours of one date and partition that no cut can fall between,
//! since all views of the stream cover them. Works on a list of files and positions; opens nothing.
//!
//! Rows stay in the order in which a run reads them, so no result depends on whether files were compacted.

use std::collections::BTreeMap;

use lake::archive_tags::InvalidTag;
use lake::{ArchiveTags, DataFile};
use shared::date_partition::DatePartition;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::published::PublishedView;

/// The size that files should have, and how many are worth the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionTarget {
    pub rows: u64,
    pub bytes: u64,
    /// Neighbours that are rewritten, at least. A file that is larger than all its neighbours together is left alone: it was
    /// compacted before and would be written again and again. At least 2, which rewrites everything possible.
    pub files_min: usize,
}

/// Files that become one.
#[derive(Debug, Clone, PartialEq)]
pub struct FileGroup {
    pub date: DatePartition,
    /// In order of their offsets.
    pub files: Vec<DataFile>,
    /// The tags of the one file.
    pub tags: ArchiveTags,
}

/// A file with its tags.
type TaggedFile<'a> = (ArchiveTags, &'a DataFile);

/// Returns the offset of a partition before which no future cut can fall: the oldest seam of `views`, the views of the
/// stream. `None`: the stream has no view, so all archived events may be moved.
pub fn oldest_seam(views: &[&PublishedView], partition: Partition) -> Option<Offset> {
    views.iter().map(|view| view.seam.offset(partition)).min()
}

/// Returns the groups of all dates, in order. `before` returns the offset up to which a partition's files may be compacted.
pub fn groups(
    files: &[DataFile],
    target: CompactionTarget,
    before: impl Fn(Partition) -> Option<Offset>,
) -> Result<Vec<FileGroup>, InvalidTag> {
    let mut neighbours: BTreeMap<(DatePartition, Partition), Vec<TaggedFile<'_>>> = BTreeMap::new();
    for file in files {
        let tags = ArchiveTags::from_tags(&file.tags)?;
        neighbours.entry((file.partition, tags.partition)).or_default().push((tags, file));
    }
    let mut groups = Vec::new();
    for ((date, partition), mut files) in neighbours {
        files.sort_by(|a, b| (a.0.from, &a.1.path).cmp(&(b.0.from, &b.1.path)));
        let limit = before(partition);
        let mut open: Vec<TaggedFile<'_>> = Vec::new();
        for (tags, file) in files {
            let movable = limit.is_none_or(|limit| tags.to <= limit) && is_small(&tags, file, target);
            if !movable || !fits(&open, (&tags, file), target) {
                groups.extend(group(date, std::mem::take(&mut open), target));
            }
            if movable {
                open.push((tags, file));
            }
        }
        groups.extend(group(date, open, target));
    }
    Ok(groups)
}

fn bytes_of(file: &DataFile) -> u64 {
    u64::try_from(file.size_bytes).unwrap_or(0)
}

fn is_small(tags: &ArchiveTags, file: &DataFile, target: CompactionTarget) -> bool {
    tags.rows < target.rows.div_ceil(2) && bytes_of(file) < target.bytes.div_ceil(2)
}

fn fits(open: &[TaggedFile<'_>], (tags, file): (&ArchiveTags, &DataFile), target: CompactionTarget) -> bool {
    let rows: u64 = open.iter().map(|(tags, _)| tags.rows).sum();
    let bytes: u64 = open.iter().map(|(_, file)| bytes_of(file)).sum();
    rows + tags.rows <= target.rows && bytes + bytes_of(file) <= target.bytes
}

fn group(date: DatePartition, mut files: Vec<TaggedFile<'_>>, target: CompactionTarget) -> Option<FileGroup> {
    while target.files_min > 2 && files.len() > 1 {
        let others: u64 = files[1..].iter().map(|(tags, _)| tags.rows).sum();
        if files[0].0.rows <= others {
            break;
        }
        files.remove(0);
    }
    if files.len() < target.files_min.max(2) {
        return None;
    }
    let ((first, _), (last, _)) = (files.first()?, files.last()?);
    let tags = ArchiveTags {
        partition: first.partition,
        from: first.from,
        to: files.iter().map(|(tags, _)| tags.to).max()?,
        rows: files.iter().map(|(tags, _)| tags.rows).sum(),
        erased: files.iter().map(|(tags, _)| tags.erased).sum(),
        ledger: files.iter().map(|(tags, _)| tags.ledger).sum::<Ledger>(),
        latest_watermark: last.latest_watermark,
    };
    Some(FileGroup { date, tags, files: files.into_iter().map(|(_, file)| file.clone()).collect() })
}

#[cfg(test)]
mod tests {
    use shared::time::{Day, Micros};

    use super::*;

    fn file(day: i32, partition: u32, from: u64, to: u64) -> DataFile {
        let partition = Partition(partition);
        let tags = ArchiveTags {
            partition,
            from: Offset(from),
            to: Offset(to),
            rows: to - from,
            erased: 0,
            ledger: Ledger::of_range(partition, Offset(from), Offset(to)),
            latest_watermark: Micros(to as i64),
        };
        DataFile {
            path: format!("{day}/{partition}/{from}"),
            partition: DatePartition::Day(Day(day)),
            size_bytes: 10 * (to - from) as i64,
            rows: (to - from) as i64,
            tags: tags.to_tags(),
            stats_json: None,
        }
    }

    const TARGET: CompactionTarget = CompactionTarget { rows: 100, bytes: 1_000_000, files_min: 2 };

    fn grouped(files: &[DataFile], target: CompactionTarget, before: Option<u64>) -> Vec<(i32, u32, u64, u64, usize)> {
        let groups = groups(files, target, |_| before.map(Offset)).expect("tags");
        for group in &groups {
            let (from, to) = (group.tags.from, group.tags.to);
            assert_eq!(group.tags.ledger.events, group.tags.rows);
            if group.tags.rows == to.0 - from.0 {
                assert_eq!(group.tags.ledger, Ledger::of_range(group.tags.partition, from, to));
            }
            assert_eq!(group.tags.latest_watermark, Micros(to.0 as i64));
        }
        let summary = |g: &FileGroup| {
            (g.date.day().map_or(0, |d| d.0), g.tags.partition.0, g.tags.from.0, g.tags.to.0, g.files.len())
        };
        groups.iter().map(summary).collect()
    }

    #[test]
    fn neighbours_of_one_date_and_partition_become_one_file_up_to_the_target() {
        let files: Vec<DataFile> = (0..12).rev().map(|i| file(1, 0, i * 20, i * 20 + 20)).collect();
        assert_eq!(grouped(&files, TARGET, None), [(1, 0, 0, 100, 5), (1, 0, 100, 200, 5), (1, 0, 200, 240, 2)]);
        let apart = [file(1, 0, 0, 10), file(2, 0, 10, 20), file(1, 1, 0, 10), file(1, 0, 20, 30)];
        assert_eq!(grouped(&apart, TARGET, None), [(1, 0, 0, 30, 2)]);
    }

    #[test]
    fn only_what_lies_before_the_oldest_seam_is_touched() {
        let files: Vec<DataFile> = (0..6).map(|i| file(1, 0, i * 10, i * 10 + 10)).collect();
        assert_eq!(grouped(&files, TARGET, Some(39)), [(1, 0, 0, 30, 3)]);
        assert_eq!(grouped(&files, TARGET, Some(40)), [(1, 0, 0, 40, 4)]);
        assert_eq!(grouped(&files, TARGET, Some(0)), []);
    }

    #[test]
    fn large_files_stay_and_separate_their_neighbours() {
        let files = [file(1, 0, 0, 10), file(1, 0, 10, 20), file(1, 0, 20, 70), file(1, 0, 70, 80), file(1, 0, 80, 90)];
        assert_eq!(grouped(&files, TARGET, None), [(1, 0, 0, 20, 2), (1, 0, 70, 90, 2)]);
        let small_bytes = CompactionTarget { bytes: 150, ..TARGET };
        assert_eq!(grouped(&files[..2], small_bytes, None), [], "100 bytes are more than half of 150");
    }

    #[test]
    fn scheduled_compaction_rewrites_each_row_few_times() {
        let patient = CompactionTarget { files_min: 3, rows: 1_000, ..TARGET };
        let mut files = vec![file(1, 0, 0, 40), file(1, 0, 40, 50), file(1, 0, 50, 60), file(1, 0, 60, 70)];
        assert_eq!(grouped(&files, patient, None), [(1, 0, 40, 70, 3)], "the first has more than the others together");
        files.push(file(1, 0, 70, 80));
        assert_eq!(grouped(&files, patient, None), [(1, 0, 0, 80, 5)]);
        // One file after another, compacted whenever that is due: rows are rewritten some log2 of their number times.
        let (mut files, mut rewritten) = (Vec::<DataFile>::new(), 0);
        let eight = CompactionTarget { files_min: 8, rows: 1_000_000, bytes: u64::MAX };
        for i in 0..2_000 {
            files.push(file(1, 0, i * 10, i * 10 + 10));
            for group in groups(&files, eight, |_| None).expect("tags") {
                rewritten += group.tags.rows;
                files.retain(|file| !group.files.contains(file));
                files.push(DataFile {
                    tags: group.tags.to_tags(),
                    rows: group.tags.rows as i64,
                    ..group.files[0].clone()
                });
            }
        }
        assert!(files.len() < 20 && rewritten < 8 * 20_000, "{} files, {rewritten} rows rewritten", files.len());
    }
}
