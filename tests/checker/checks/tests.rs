//! Checks the checks: each history here breaks one promise, and must be reported for it.

use super::*;

const TWO: Count = Count { events: 2, sum: 7 };

const VIEWS: [ViewModel; 3] = [
    ViewModel { name: "view", stream: "s", by_batch: true, lateness: false, added: false },
    ViewModel { name: "added", stream: "s", by_batch: true, lateness: false, added: true },
    ViewModel { name: "late", stream: "t", by_batch: false, lateness: true, added: false },
];

fn entry(client: &str, invoked: u64, completed: u64, operation: Operation) -> Entry {
    Entry { client: client.to_owned(), invoked, completed, operation }
}

fn send(at: (u64, u64), batch: u64, outcome: Outcome) -> Entry {
    entry("writer", at.0, at.1, Operation::Send { stream: "s", batch, count: TWO, outcome })
}

fn acknowledged(accepted: u64) -> Outcome {
    Outcome::Acknowledged { accepted, late: 0, offsets: BTreeMap::from([("0".to_owned(), (0, accepted))]) }
}

fn state(counts: &[(u64, Count)]) -> ViewState {
    ViewState {
        counts: counts.iter().copied().collect(),
        complete: true,
        balanced: true,
        watermark: Some(2_000),
        version: Some(3),
        seam: BTreeMap::from([("0".to_owned(), 5)]),
        accepted: counts.iter().map(|(_, count)| count.events).sum(),
        live: 1,
    }
}

fn read(invoked: u64, completed: u64, state: ViewState) -> Entry {
    entry("reader", invoked, completed, Operation::Read { view: "view".to_owned(), state })
}

fn feed(client: &str, at: u64, state: ViewState) -> Entry {
    entry(client, at, at, Operation::Feed { view: "view".to_owned(), state })
}

/// Checks that `history` is reported once or more, and always for `reason`; with "" it must be right.
fn reports(history: &[Entry], reason: &str) {
    let found = check(history, &VIEWS);
    assert_eq!(found.is_empty(), reason.is_empty(), "{found:?}");
    assert!(found.iter().all(|what| what.contains(reason)), "{found:?}");
}

#[test]
fn a_right_history_is_accepted() {
    let during = ViewState { version: Some(2), ..state(&[]) };
    reports(
        &[
            send((0, 10), 1, Outcome::Unknown { status: None }),
            send((20, 40), 1, acknowledged(0)),
            // While it is sent, a batch may be counted or not.
            read(1, 50, during),
            read(5, 60, state(&[(1, TWO)])),
            read(70, 80, state(&[(1, TWO)])),
            send((90, 95), 2, Outcome::Refused { status: 507 }),
            read(96, 99, state(&[(1, TWO)])),
            // The events of one client may be older than what another one has read.
            feed("slow", 100, state(&[])),
        ],
        "",
    );
}

#[test]
fn a_lost_acknowledgement_is_reported() {
    reports(&[send((0, 10), 1, acknowledged(2)), read(11, 12, state(&[]))], "are acknowledged");
    let half = Count { events: 1, sum: 3 };
    reports(&[send((0, 10), 1, acknowledged(2)), read(11, 12, state(&[(1, half)]))], "are acknowledged");
}

#[test]
fn a_count_that_goes_back_is_reported_even_without_an_acknowledgement() {
    let history = [
        send((0, 10), 1, Outcome::Unknown { status: None }),
        read(11, 12, state(&[(1, TWO)])),
        read(13, 14, ViewState { accepted: 2, ..state(&[]) }),
    ];
    reports(&history, "count of batch 1 went back");
}

#[test]
fn a_doubled_event_is_reported() {
    let three = Count { events: 3, sum: 10 };
    reports(&[send((0, 10), 1, acknowledged(2)), read(11, 12, state(&[(1, three)]))], "were submitted");
    // One lost and another one doubled.
    let swapped = Count { events: 2, sum: 8 };
    reports(&[send((0, 10), 1, acknowledged(2)), read(11, 12, state(&[(1, swapped)]))], "were submitted");
}

#[test]
fn a_refused_or_unsent_batch_that_counts_is_reported() {
    reports(&[send((0, 10), 1, Outcome::Refused { status: 507 }), read(11, 12, state(&[(1, TWO)]))], "at most 0");
    reports(&[read(11, 12, state(&[(9, TWO)]))], "never sent");
    // Counted before it was sent.
    reports(&[send((20, 30), 1, acknowledged(2)), read(11, 12, state(&[(1, TWO)]))], "at most 0");
}

#[test]
fn a_watermark_a_version_a_seam_or_a_total_that_goes_back_is_reported() {
    let before = || read(1, 2, ViewState { accepted: 9, ..state(&[]) });
    let later = ViewState { accepted: 9, ..state(&[]) };
    let earlier_watermark = Some(1_999);
    reports(&[before(), read(3, 4, later.clone())], "");
    reports(
        &[before(), read(3, 4, ViewState { watermark: earlier_watermark, ..later.clone() })],
        "watermark went back",
    );
    reports(&[before(), read(3, 4, ViewState { watermark: None, ..later.clone() })], "watermark went back");
    reports(&[before(), read(3, 4, ViewState { version: Some(2), ..later.clone() })], "version went back");
    reports(
        &[before(), read(3, 4, ViewState { seam: BTreeMap::new(), ..later.clone() })],
        "seam of partition 0 went back",
    );
    reports(&[before(), read(3, 4, ViewState { accepted: 8, ..later.clone() })], "accepted went back");
    // Concurrent reads have no order.
    reports(&[before(), read(1, 4, ViewState { version: Some(2), ..later })], "");
}

#[test]
fn the_events_of_a_feed_go_forward() {
    let first = feed("a", 1, ViewState { accepted: 9, ..state(&[]) });
    let back = ViewState { accepted: 8, ..state(&[]) };
    reports(&[first.clone(), feed("a", 2, back.clone())], "accepted went back");
    reports(&[first, feed("b", 2, back)], "");
}

#[test]
fn complete_without_everything_and_incomplete_without_a_reason_are_reported() {
    let incomplete = ViewState { complete: false, balanced: false, ..state(&[]) };
    reports(&[read(1, 2, incomplete.clone())], "without a reason");
    // A view over existing events may be incomplete before its first version.
    let of_added = |state: ViewState| entry("reader", 11, 12, Operation::Read { view: "added".to_owned(), state });
    let new = ViewState { version: None, ..incomplete.clone() };
    let acknowledged = send((0, 10), 1, acknowledged(2));
    reports(&[acknowledged.clone(), of_added(new.clone())], "");
    reports(&[acknowledged.clone(), of_added(incomplete.clone())], "without a reason");
    reports(&[acknowledged, of_added(ViewState { complete: true, balanced: true, ..new.clone() })], "are acknowledged");
    reports(&[of_added(ViewState { complete: true, ..new })], "the ledger says false");
}

#[test]
fn late_events_have_to_be_there_once_the_seam_has_reached_them() {
    let send = |late: u64| {
        let offsets = BTreeMap::from([("0".to_owned(), (3, 5))]);
        let outcome = Outcome::Acknowledged { accepted: 2, late, offsets };
        entry("writer", 0, 10, Operation::Send { stream: "t", batch: 1, count: TWO, outcome })
    };
    let read = |events: u64, seam: u64| {
        let state =
            ViewState { seam: BTreeMap::from([("0".to_owned(), seam)]), ..state(&[(0, Count { events, sum: 0 })]) };
        entry("reader", 11, 12, Operation::Read { view: "late".to_owned(), state })
    };
    reports(&[send(2), read(0, 4)], "");
    reports(&[send(1), read(1, 4)], "");
    reports(&[send(1), read(0, 4)], "expected 1 to 2");
    reports(&[send(2), read(1, 5)], "expected 2 to 2");
    // Without an answer that names offsets, once nothing is live any more.
    let unknown =
        entry("writer", 0, 10, Operation::Send { stream: "t", batch: 1, count: TWO, outcome: acknowledged(0) });
    let mut exact = read(0, 4);
    reports(&[unknown.clone(), exact.clone()], "");
    if let Operation::Read { state, .. } = &mut exact.operation {
        state.live = 0;
    }
    reports(&[unknown, exact], "expected 2 to 2");
}

#[test]
fn differences_without_a_cause_and_partitions_that_go_back_are_reported() {
    let compare = Operation::Compare { view: "view".to_owned(), unexplained: 1 };
    reports(&[entry("runner", 1, 2, compare)], "without a cause");
    let partitions = |at: u64, head: u64, watermark: i64| {
        let partitions = BTreeMap::from([(0, PartitionState { watermark: Some(watermark), head })]);
        entry("observer", at, at, Operation::Partitions { stream: "s", partitions })
    };
    reports(&[partitions(1, 5, 7), partitions(2, 5, 7)], "");
    reports(&[partitions(1, 5, 7), partitions(2, 4, 7)], "went back");
    reports(&[partitions(1, 5, 7), partitions(2, 6, 6)], "went back");
}
