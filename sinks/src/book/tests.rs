use super::*;
use crate::sent::ValueHash;

fn name() -> SinkName {
    "s".parse().expect("a name")
}

fn open(folder: &Path) -> SinkBook {
    SinkBook::open(folder, &name(), "keys").expect("opens")
}

fn change(key: u8, value: Option<u8>) -> SentChange {
    SentChange { window: WindowId(0), key: [key].into(), value: value.map(|value| ValueHash::of(&[value])) }
}

fn cut(offset: u64) -> EpochCut {
    EpochCut { position: BTreeMap::from([(Partition(0), Offset(offset))]), ..EpochCut::default() }
}

fn marker(book: &str, epoch: u64) -> EpochMarker<'_> {
    EpochMarker { book, epoch, writer: "p" }
}

fn rows(book: &SinkBook) -> Vec<u8> {
    let mut keys: Vec<u8> = book.sent(|sent| sent.keys().map(|key| key[0]).collect());
    keys.sort_unstable();
    keys
}

#[test]
fn an_epoch_in_doubt_counts_only_with_its_marker() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = open(folder.path());
    assert_eq!(book.prepare("p", cut(1), vec![change(1, Some(1))]).expect("writes"), 1);
    book.commit().expect("commits");
    book.prepare("p", cut(2), vec![change(2, Some(1)), change(1, None)]).expect("writes");
    let id = book.id();
    drop(book);
    // The brokers do not have it.
    let book = open(folder.path());
    assert_eq!(book.settle(Some(marker(&id, 1))).expect("writes"), Ok(()));
    assert_eq!((rows(&book), book.committed()), (vec![1], (1, cut(1))));
    // The number is not used again.
    assert_eq!(book.prepare("p", cut(3), vec![change(3, Some(1))]).expect("writes"), 3);
    drop(book);
    let book = open(folder.path());
    assert_eq!(book.settle(Some(marker(&id, 3))).expect("writes"), Ok(()));
    assert_eq!((rows(&book), book.committed()), (vec![1, 3], (3, cut(3))));
    drop(book);
    assert_eq!(rows(&open(folder.path())), [1], "in doubt again: only the marker decides");
}

#[test]
fn a_marker_of_another_book_is_refused_until_all_rows_are_written_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = open(folder.path());
    book.prepare("p", cut(1), vec![change(1, Some(1))]).expect("writes");
    book.commit().expect("commits");
    let id = book.id();
    assert_eq!(book.settle(Some(marker("other", 9))).expect("reads"), Err(MarkerError::Foreign));
    assert_eq!(book.settle(Some(marker(&id, 9))).expect("reads"), Err(MarkerError::Ahead { found: 9, known: 1 }));
    assert_eq!(book.settle(None).expect("reads"), Err(MarkerError::Lost(1)));
    // A copy of the book in another process wrote an epoch with the same number.
    book.prepare("q", cut(2), vec![change(2, Some(1))]).expect("writes");
    assert_eq!(book.settle(Some(marker(&id, 2))).expect("reads"), Err(MarkerError::Foreign));
    assert_eq!(book.settle(Some(marker(&id, 1))).expect("writes"), Ok(()));
    book.write_again(None).expect("writes");
    drop(book);
    let book = open(folder.path());
    assert!(book.adopts() && book.sent(SentRows::has_stale));
    assert_eq!(book.settle(Some(marker("other", 9))).expect("reads"), Ok(()));
    assert_eq!(book.prepare("p", cut(1), vec![change(1, Some(1))]).expect("writes"), 10);
    book.commit().expect("commits");
    assert!(!book.adopts() && !book.sent(SentRows::has_stale));
}

#[test]
fn rows_of_an_epoch_in_doubt_are_written_again_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = open(folder.path());
    book.prepare("p", cut(1), vec![change(1, Some(1))]).expect("writes");
    book.commit().expect("commits");
    let id = book.id();
    drop(book);
    let book = open(folder.path());
    book.write_again(Some(WindowId(0)..WindowId::MAX)).expect("writes");
    drop(book);
    let book = open(folder.path());
    assert_eq!(book.settle(Some(marker(&id, 1))).expect("reads"), Ok(()));
    assert!(rows(&book) == [1] && book.sent(SentRows::has_stale));
}

#[test]
fn a_rewritten_file_has_the_same_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = open(folder.path());
    let many = |value: u8| -> Vec<SentChange> {
        let change = |at: u32| SentChange {
            window: WindowId(i64::from(at)),
            key: at.to_le_bytes().into(),
            value: Some(ValueHash::of(&[value])),
        };
        (0..20_000).map(change).collect()
    };
    let length = || std::fs::metadata(folder.path().join("s.log")).expect("a file").len();
    let mut longest = 0;
    for value in 0..20 {
        book.prepare("p", cut(u64::from(value)), many(value)).expect("writes");
        longest = longest.max(length());
        book.commit().expect("commits");
    }
    book.set_paused(true).expect("writes");
    assert!(longest > REWRITE_BYTES_MIN && length() < longest, "{longest}");
    let (id, expected) = (book.id(), book.committed());
    drop(book);
    let book = open(folder.path());
    assert_eq!(book.settle(Some(marker(&id, 20))).expect("reads"), Ok(()));
    assert_eq!((book.committed(), book.is_paused(), book.id()), (expected, true, id));
    let (key, hash) = (7_u32.to_le_bytes(), ValueHash::of(&[19]));
    assert_eq!(book.sent(|sent| (sent.len(), sent.get(WindowId(7), &key))), (20_000, Some(hash)));
}

#[test]
fn a_compacted_file_has_only_rows_that_the_topic_has_and_what_was_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = open(folder.path());
    let erased = SentChange { key: (*b"entity 42").into(), ..change(0, Some(1)) };
    book.prepare("p", cut(1), vec![erased.clone(), change(1, Some(1))]).expect("writes");
    book.commit().expect("commits");
    book.prepare("p", cut(2), vec![SentChange { value: None, ..erased }]).expect("writes");
    let has_key = || {
        let text = std::fs::read_to_string(folder.path().join("s.log")).expect("a file");
        text.contains(&alerts::condition::to_hex(b"entity 42"))
    };
    assert!(!book.compact().expect("reads") && has_key(), "the epoch may not be in the topic");
    book.commit().expect("commits");
    book.write_again(None).expect("writes");
    assert!(has_key());
    assert!(book.compact().expect("writes") && !has_key());
    let (id, committed) = (book.id(), book.committed());
    drop(book);
    let book = open(folder.path());
    assert_eq!((rows(&book), book.id(), book.committed()), (vec![1], id, committed));
    assert!(book.adopts() && book.sent(SentRows::has_stale));
}

#[test]
fn the_position_of_a_sink_of_a_stream_is_durable_also_without_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = open(folder.path());
    assert_eq!(book.prepare_events("p", cut(3), 0).expect("writes"), Some(1));
    book.commit().expect("commits");
    book.advance_events(cut(7), 0).expect("writes");
    let id = book.id();
    drop(book);
    let book = open(folder.path());
    assert_eq!(book.settle(Some(marker(&id, 1))).expect("reads"), Ok(()));
    assert_eq!(book.committed(), (1, cut(7)));
    assert!(book.compact().expect("writes"));
    drop(book);
    assert_eq!(open(folder.path()).committed(), (1, cut(7)));
}

#[test]
fn events_are_written_again_whether_or_not_the_epoch_in_doubt_is_in_the_topic() {
    let from = Micros(50);
    let again = |until: u64| EpochCut {
        again: Some(EventsAgain { from, until: BTreeMap::from([(Partition(0), Offset(until))]) }),
        ..EpochCut::default()
    };
    for is_in_topic in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let book = open(folder.path());
        book.prepare_events("p", cut(3), 0).expect("writes");
        book.commit().expect("commits");
        book.prepare_events("p", cut(9), 0).expect("writes");
        book.write_events_again(Some(from)).expect("writes");
        let id = book.id();
        drop(book);
        let book = open(folder.path());
        assert_eq!(book.settle(Some(marker(&id, 1 + u64::from(is_in_topic)))).expect("writes"), Ok(()));
        assert_eq!(book.position().0, again(3), "{is_in_topic}");
        // A batch that was found before the next request is not written.
        let (_, restarts) = book.position();
        book.write_events_again(None).expect("writes");
        assert_eq!(book.prepare_events("p", cut(5), restarts).expect("writes"), None);
        book.advance_events(cut(5), restarts).expect("leaves it out");
        assert_eq!((book.position().0, book.adopts()), (EpochCut::default(), true));
    }
}
