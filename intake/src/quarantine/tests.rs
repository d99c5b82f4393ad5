//! Checks that rejected lines are kept completely, within bounds, across restarts and damaged files.

use std::fs;

use proptest::prelude::*;
use shared::control::Quarantined;
use tempfile::TempDir;

use super::*;

const NOW: Micros = Micros(1_000_000);

fn name() -> StreamName {
    "flights".parse().expect("a name")
}

fn open(dir: &TempDir, lines_max: usize, bytes_max: usize) -> Quarantine {
    Quarantine::open(dir.path(), [&name()], QuarantineSettings { lines_max, bytes_max }, &Vitals::default())
        .expect("a thread")
}

fn rejected(texts: &[&str], key: Option<&str>) -> RejectedLines {
    let line = |(line, text): (u64, &&str)| RejectedEvent {
        line,
        reason: format!("reason of {text}"),
        text: (*text).to_owned(),
        bytes: text.len() as u64,
        truncated: false,
    };
    let lines: Vec<_> = (1..).zip(texts).map(line).collect();
    RejectedLines { count: lines.len() as u64, lines, idempotency_key: key.map(str::to_owned), records: Vec::new() }
}

fn all(quarantine: &Quarantine) -> QuarantinePage {
    quarantine.list("flights", &ListRange { limit: usize::MAX, cursor: None }).expect("a page")
}

fn texts(page: &QuarantinePage) -> Vec<&str> {
    page.lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn a_line_is_kept_completely_also_after_a_restart() {
    let dir = TempDir::new().expect("a folder");
    let quarantine = open(&dir, 10, 100_000);
    let long =
        RejectedEvent { line: 9, reason: "r".into(), text: "\u{fffd}\n\"".into(), bytes: 5_000, truncated: true };
    let lines = RejectedLines { lines: vec![long], count: 1, idempotency_key: Some("key".into()), records: Vec::new() };
    quarantine.add(&name(), lines, NOW);
    quarantine.add(&name(), rejected(&["x"], None), Micros(2_000_000));
    let first = Quarantined {
        number: 1,
        arrived_at: NOW,
        line: 9,
        reason: "r".into(),
        text: "\u{fffd}\n\"".into(),
        bytes: 5_000,
        truncated: true,
        idempotency_key: Some("key".into()),
        record: None,
    };
    let before = all(&quarantine);
    assert_eq!((before.lines[0].number, &before.lines[1]), (2, &first), "newest first");
    quarantine.close();
    drop(quarantine);
    assert_eq!(all(&open(&dir, 10, 100_000)), before);
}

#[test]
fn a_retry_under_a_key_is_kept_once_and_other_requests_each_time() {
    let dir = TempDir::new().expect("a folder");
    let quarantine = open(&dir, 10, 100_000);
    for key in [Some("a"), Some("a"), Some("b"), None, None] {
        quarantine.add(&name(), rejected(&["x", "y"], key), NOW);
    }
    assert_eq!(quarantine.counts(&name()), QuarantineCounts { total: 8, kept: 8, dropped: 0 });
    quarantine.add(&name(), RejectedLines::default(), NOW);
    assert_eq!(quarantine.counts(&name()).total, 8);
}

#[test]
fn lines_beyond_those_kept_of_a_request_are_counted() {
    let dir = TempDir::new().expect("a folder");
    let quarantine = open(&dir, 10, 100_000);
    quarantine.add(&name(), RejectedLines { count: 50, ..rejected(&["x", "y"], None) }, NOW);
    quarantine.add(&name(), rejected(&["z"], None), NOW);
    assert_eq!(quarantine.counts(&name()), QuarantineCounts { total: 51, kept: 3, dropped: 48 });
    assert_eq!(all(&quarantine).lines.iter().map(|line| line.number).collect::<Vec<_>>(), [51, 2, 1]);
}

#[test]
fn pages_continue_where_the_previous_one_ended() {
    let dir = TempDir::new().expect("a folder");
    let quarantine = open(&dir, 10, 100_000);
    quarantine.add(&name(), rejected(&["a", "b", "c", "d", "e"], None), NOW);
    let page = |cursor: Option<String>| quarantine.list("flights", &ListRange { limit: 2, cursor }).expect("a page");
    let first = page(None);
    let second = page(first.next.clone());
    let third = page(second.next.clone());
    assert_eq!((texts(&first), texts(&second), texts(&third)), (vec!["e", "d"], vec!["c", "b"], vec!["a"]));
    assert_eq!(third.next, None);
    let bad = ListRange { limit: 1, cursor: Some("x".into()) };
    assert_eq!(quarantine.list("flights", &bad).err(), Some(StreamError::BadCursor("x".into())));
    assert_eq!(quarantine.list("x", &bad).err(), Some(StreamError::UnknownStream("x".into())));
}

#[test]
fn emptying_lasts_across_a_restart_and_restarts_the_count() {
    let dir = TempDir::new().expect("a folder");
    let quarantine = open(&dir, 10, 100_000);
    quarantine.add(&name(), rejected(&["a", "b"], None), NOW);
    assert_eq!(quarantine.empty("flights"), Ok(2));
    assert_eq!(quarantine.empty("flights"), Ok(0));
    assert_eq!(quarantine.empty("x"), Err(StreamError::UnknownStream("x".into())));
    quarantine.close();
    drop(quarantine);
    let quarantine = open(&dir, 10, 100_000);
    assert_eq!(all(&quarantine).counts, QuarantineCounts::default());
    quarantine.add(&name(), rejected(&["c"], None), NOW);
    assert_eq!(all(&quarantine).lines[0].number, 1);
}

#[test]
fn a_torn_line_loses_only_itself() {
    let dir = TempDir::new().expect("a folder");
    let quarantine = open(&dir, 10, 100_000);
    quarantine.add(&name(), rejected(&["a", "b"], None), NOW);
    quarantine.close();
    drop(quarantine);
    let path = dir.path().join("quarantine/flights/newer.ndjson");
    let bytes = fs::read(&path).expect("written");
    fs::write(&path, &bytes[..bytes.len() - 5]).expect("cut short");
    let quarantine = open(&dir, 10, 100_000);
    assert_eq!(texts(&all(&quarantine)), ["a"]);
    quarantine.add(&name(), rejected(&["c"], None), NOW);
    quarantine.close();
    drop(quarantine);
    assert_eq!(texts(&all(&open(&dir, 10, 100_000))), ["c", "a"]);
}

#[test]
fn records_of_a_topic_are_on_disk_before_they_count_and_are_kept_once() {
    let dir = TempDir::new().expect("a folder");
    let of_partition = |partition, offsets: &[i64]| {
        let texts: Vec<String> = offsets.iter().map(|offset| format!("{partition}/{offset}")).collect();
        let address = |offset: &i64| RecordAddress { topic: "t".to_owned(), partition, offset: *offset };
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        RejectedLines { records: offsets.iter().map(address).collect(), ..rejected(&texts, None) }
    };
    let killed = open(&dir, 10, 100_000);
    killed.add_durably(&name(), of_partition(0, &[3, 5]), NOW).expect("written");
    killed.add_durably(&name(), of_partition(1, &[4]), NOW).expect("written");
    let quarantine = open(&dir, 10, 100_000);
    assert_eq!(texts(&all(&quarantine)), ["1/4", "0/5", "0/3"]);
    // The position had not moved: the records are read again, in other batches.
    quarantine.add_durably(&name(), of_partition(0, &[3]), NOW).expect("written");
    quarantine.add_durably(&name(), of_partition(0, &[5, 6]), NOW).expect("written");
    quarantine.add_durably(&name(), of_partition(1, &[4, 7]), NOW).expect("written");
    let page = all(&open(&dir, 10, 100_000));
    assert_eq!(texts(&page), ["1/7", "0/6", "1/4", "0/5", "0/3"]);
    assert_eq!((page.counts.total, page.lines[0].number), (5, 5));
    fs::remove_dir_all(dir.path().join("quarantine/flights")).expect("removed");
    fs::write(dir.path().join("quarantine/flights"), "a file in the way").expect("a file");
    let blocked = open(&dir, 10, 100_000);
    assert!(blocked.add_durably(&name(), of_partition(0, &[9]), NOW).is_err(), "the position must not move");
}

#[test]
fn a_folder_that_cannot_be_written_keeps_lines_in_memory() {
    let dir = TempDir::new().expect("a folder");
    fs::create_dir_all(dir.path().join("quarantine")).expect("a folder");
    fs::write(dir.path().join("quarantine/flights"), "a file in the way").expect("a file");
    let quarantine = open(&dir, 10, 100_000);
    quarantine.add(&name(), rejected(&["a"], None), NOW);
    quarantine.close();
    assert_eq!(texts(&all(&quarantine)), ["a"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Memory and disk stay within their bounds, and what a restart finds is the newest part of what there was.
    #[test]
    fn bounds_hold_and_a_restart_finds_the_newest(
        lengths in prop::collection::vec(0..400usize, 1..80),
        lines_max in 1..30usize,
        bytes_max in 500..6_000usize,
    ) {
        let dir = TempDir::new().expect("a folder");
        let quarantine = open(&dir, lines_max, bytes_max);
        let written: Vec<String> = lengths.iter().enumerate().map(|(i, n)| format!("{i} {}", "x".repeat(*n))).collect();
        for (i, text) in written.iter().enumerate() {
            quarantine.add(&name(), rejected(&[text], None), NOW);
            if i % 7 == 0 {
                quarantine.stream_quarantine("flights").expect("the stream").write();
            }
        }
        let before = all(&quarantine);
        let newest: Vec<&str> = written.iter().rev().map(String::as_str).take(before.lines.len()).collect();
        prop_assert_eq!(texts(&before), newest);
        prop_assert!(!before.lines.is_empty() && before.lines.len() <= lines_max);
        prop_assert_eq!(before.counts.total, written.len() as u64);
        let bytes: usize = before.lines.iter().map(|line| line.text.len()).sum();
        prop_assert!(bytes <= bytes_max || before.lines.len() == 1);
        quarantine.close();
        drop(quarantine);
        let on_disk: u64 = fs::read_dir(dir.path().join("quarantine/flights"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").metadata().expect("a file").len())
            .sum();
        // One line is always kept; here it has at most 1,100 bytes on disk.
        prop_assert!(on_disk <= 2 * bytes_max.max(1_100) as u64, "{on_disk} bytes for {bytes_max}");
        let after = all(&open(&dir, lines_max, bytes_max));
        let both = after.lines.len().min(before.lines.len());
        prop_assert_eq!(&after.lines[..both], &before.lines[..both]);
        prop_assert_eq!(after.lines.first(), before.lines.first());
        prop_assert_eq!(after.counts.total, before.counts.total);
    }
}
