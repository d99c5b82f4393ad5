//! Tests the book of alerts: its state after a restart and a rewrite, its limit of records, and changed declarations.

use super::*;
use serde_json::{Map, json};
use shared::ids::{Offset, Partition};

pub(crate) fn record(id: &str, seq: u64, state: AlertState) -> Entry {
    let record = AlertRecord {
        id: id.to_owned(),
        alert: "often".parse().expect("a name"),
        view: "whole".parse().expect("a name"),
        state,
        key: Map::from_iter([("user".to_owned(), json!(id))]),
        row: Map::new(),
        condition: "n > 1".to_owned(),
        figures: BTreeMap::new(),
        finality: "open".to_owned(),
        raised_at: Micros(0),
        changed_at: Micros(0),
        times: 1,
        position: BTreeMap::from([(Partition(0), Offset(7))]),
        version: None,
        cause: None,
        declared: true,
        seq,
    };
    let place = RowPlace { key: String::new(), window: 0, instant: None };
    let target = Some("webhook:ops".to_owned());
    Entry::Record { record: Box::new(record), definition: "d".to_owned(), place, target }
}

fn states(book: &Book) -> Vec<(String, AlertState, u64)> {
    let all = book.since(0, usize::MAX);
    all.into_iter().map(|record| (record.id, record.state, record.seq)).collect()
}

#[test]
fn a_book_is_the_fold_of_its_entries_also_after_it_was_written_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = Book::open(folder.path()).expect("opens");
    book.write(vec![record("a", 1, AlertState::Raised), record("b", 2, AlertState::Raised)]).expect("writes");
    book.write(vec![record("a", 3, AlertState::Confirmed), Entry::Delivered { seq: 2 }]).expect("writes");
    let letter = |seq| {
        let Entry::Record { record, .. } = record("b", seq, AlertState::Raised) else { unreachable!("a record") };
        let (key, target) = (format!("k{seq}"), "webhook:ops".to_owned());
        Box::new(DeadLetter { key, target, failed_at: Micros(1), attempts: 3, error: "no".to_owned(), record: *record })
    };
    book.write(vec![Entry::Dead { seq: 9, letter: letter(9) }, Entry::Dead { seq: 10, letter: letter(10) }])
        .expect("writes");
    let silence = |id: &str, until| Silence {
        id: id.to_owned(),
        alert: None,
        key: BTreeMap::new(),
        created_at: Micros(0),
        until: Micros(until),
        by: "everyone".to_owned(),
        reason: None,
    };
    book.silence(silence("s1", 10)).expect("writes");
    book.silence(silence("s2", 10)).expect("writes");
    book.silence(silence("s3", 5)).expect("writes");
    book.unsilence("s1").expect("writes");
    let alert = "often".parse().expect("a name");
    book.write(vec![record("c", 4, AlertState::Raised), Entry::Suppressed { seq: 4, alert, count: 1 }])
        .expect("writes");
    let seen = |book: &Book| {
        let due: Vec<(u64, AlertState)> =
            book.notices("webhook:ops", 10).into_iter().map(|(seq, notice)| (seq, notice.record.state)).collect();
        let dead: Vec<String> = book.dead_letters().into_iter().map(|letter| letter.key).collect();
        let silences: Vec<String> = book.silences(Micros(5)).into_iter().map(|silence| silence.id).collect();
        let alert = "often".parse().expect("a name");
        (states(book), due, dead, book.last_seq(), silences, book.suppressed(&alert))
    };
    let expected = (
        vec![
            ("b".to_owned(), AlertState::Raised, 2),
            ("a".to_owned(), AlertState::Confirmed, 3),
            ("c".to_owned(), AlertState::Raised, 4),
        ],
        vec![(1, AlertState::Raised), (3, AlertState::Confirmed)],
        vec!["k10".to_owned(), "k9".to_owned()],
        4,
        vec!["s2".to_owned()],
        1,
    );
    assert_eq!(seen(&book), expected);
    let entries = book.state.read().entries();
    book.file.lock().replace(&entries).expect("writes");
    drop(book);
    assert_eq!(seen(&Book::open(folder.path()).expect("opens")), expected);
}

#[test]
fn an_erased_record_is_in_no_list_and_no_file_and_changes_are_numbered_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = Book::open(folder.path()).expect("opens");
    book.write(vec![record("a", 1, AlertState::Raised), record("bob", 2, AlertState::Raised)]).expect("writes");
    book.write(vec![record("bob", 3, AlertState::Confirmed)]).expect("writes");
    assert_eq!(book.erase(&|record| record.key["user"] == "bob").expect("erases"), 1);
    assert!(!std::fs::read_to_string(folder.path().join("alerts.log")).expect("the file").contains("bob"));
    drop(book);
    let book = Book::open(folder.path()).expect("opens");
    assert_eq!(states(&book), [("a".to_owned(), AlertState::Raised, 1)]);
    assert_eq!((book.last_seq(), book.notices("webhook:ops", 9).len()), (3, 1));
}

#[test]
fn beyond_the_limit_the_oldest_judged_record_is_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let bounds = Bounds { records: 2, ..Bounds::default() };
    let book = Book::open_with(folder.path(), bounds).expect("opens");
    let entries = [("a", 1, AlertState::Raised), ("b", 2, AlertState::Confirmed), ("c", 3, AlertState::Raised)];
    book.write(entries.iter().map(|(id, seq, state)| record(id, *seq, *state)).collect()).expect("writes");
    let ids = |book: &Book| states(book).into_iter().map(|(id, ..)| id).collect::<String>();
    assert_eq!(ids(&book), "ac");
    book.write(vec![record("d", 4, AlertState::Raised)]).expect("writes");
    assert_eq!(ids(&book), "cd", "without a judged one the oldest");
    assert_eq!(ids(&Book::open_with(folder.path(), bounds).expect("opens")), "cd");
}

#[test]
fn beyond_the_limit_the_oldest_notice_becomes_a_dead_letter() {
    let folder = tempfile::tempdir().expect("a folder");
    let bounds = Bounds { notices: 2, ..Bounds::default() };
    let book = Book::open_with(folder.path(), bounds).expect("opens");
    book.write(vec![record("a", 1, AlertState::Raised), record("b", 2, AlertState::Raised)]).expect("writes");
    book.write(vec![Entry::Delivered { seq: 2 }, record("c", 3, AlertState::Raised)]).expect("writes");
    assert!(book.dead_letters().is_empty(), "two notices wait");
    book.write(vec![record("d", 4, AlertState::Raised)]).expect("writes");
    let waiting = |book: &Book| book.notices("webhook:ops", 9).into_iter().map(|(seq, _)| seq).collect::<Vec<_>>();
    let dead =
        |book: &Book| book.dead_letters().into_iter().map(|letter| (letter.key, letter.error)).collect::<Vec<_>>();
    let expected = vec![("a-raised-1".to_owned(), "more than 2 notices were waiting".to_owned())];
    assert_eq!((waiting(&book), dead(&book)), (vec![3, 4], expected.clone()));
    let again = Book::open_with(folder.path(), bounds).expect("opens");
    assert_eq!((waiting(&again), dead(&again)), (vec![3, 4], expected));
    assert_eq!(again.since(0, usize::MAX).len(), 4, "the records stay");
}

#[test]
fn a_changed_alert_starts_at_the_active_version_and_a_removed_one_keeps_its_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = Book::open(folder.path()).expect("opens");
    let adopted = |condition: &str, definition: &str, version| Adopted {
        declaration: AlertDeclaration {
            name: "often".parse().expect("a name"),
            view: "whole".parse().expect("a name"),
            condition: condition.to_owned(),
            once_per: Vec::new(),
            to: None,
            notices_per_minute: None,
        },
        definition: definition.to_owned(),
        version,
    };
    let name: AlertName = "often".parse().expect("a name");
    let judged = |book: &Book| book.known(&name).map(|known| known.judged);
    book.adopt(&[adopted("n > 1", "d", Some(3))]).expect("writes");
    book.write(vec![record("a", 1, AlertState::Raised), Entry::Judged { alert: name.clone(), version: 5 }])
        .expect("writes");
    book.adopt(&[adopted("n > 1", "d", Some(9))]).expect("writes");
    assert_eq!(judged(&book), Some(Some(5)), "versions between two starts are judged");
    assert_eq!(book.unjudged(&name, "d").len(), 1);
    assert!(book.since(0, 1)[0].declared);
    book.adopt(&[adopted("n > 2", "e", Some(9))]).expect("writes");
    assert_eq!(judged(&book), Some(Some(9)));
    assert!(!book.since(0, 1)[0].declared);
    book.adopt(&[]).expect("writes");
    assert_eq!((judged(&book), book.since(0, 9).len()), (None, 1));
    let (known, counts) = stored_alerts(folder.path()).expect("reads");
    assert_eq!((known.len(), counts[&name]), (0, 1));
}
