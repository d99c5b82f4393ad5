use proptest::prelude::*;
use shared::seam::CutPoint;

use std::collections::BTreeMap;

use super::*;
use crate::plan::window_date;
use shared::calendar::{Calendar, CalendarUnit};
use shared::time::Micros;
use shared::window::{Grid, Step};

const HOUR: i64 = 3600 * 1_000_000;

fn file(path: &str, day: i32, partition: u32, from: u64, to: u64) -> DataFile {
    let partition = Partition(partition);
    let tags = ArchiveTags {
        partition,
        from: Offset(from),
        to: Offset(to),
        rows: to - from,
        erased: 0,
        ledger: Ledger::of_range(partition, Offset(from), Offset(to)),
        latest_watermark: Micros::MIN,
    };
    let partition = DatePartition::Day(Day(day));
    DataFile { path: path.into(), partition, size_bytes: 10, rows: 0, tags: tags.to_tags(), stats_json: None }
}

fn view_file(day: Option<i32>) -> DataFile {
    let partition = day.map_or(DatePartition::Undated, |day| DatePartition::Day(Day(day)));
    DataFile { path: format!("{day:?}"), partition, size_bytes: 1, rows: 1, tags: BTreeMap::new(), stats_json: None }
}

fn cut(offsets: &[u64]) -> Cut {
    let point = |(p, o): (usize, &u64)| {
        let partition = Partition(p as u32);
        let accepted = Ledger::of_range(partition, Offset(0), Offset(*o));
        (partition, CutPoint { offset: Offset(*o), accepted })
    };
    Cut(offsets.iter().enumerate().map(point).collect())
}

fn planned(window: Window, seam: &Cut, cut: &Cut, archive: &[DataFile], everything: bool) -> Result<Plan, PlanError> {
    let present = [view_file(Some(1)), view_file(Some(2)), view_file(Some(9)), view_file(None)];
    plan(&PlanInput {
        window,
        seam,
        cut,
        archive,
        dropped: None,
        lost: None,
        present: &present,
        frozen: &[],
        erased: &BTreeMap::new(),
        looked_up: &[],
        everything,
        ranges: &[],
        horizon: Horizon::NONE,
    })
}

fn days(plan: &Plan) -> (Vec<i32>, Vec<i32>, Vec<&str>) {
    let windows = plan.window_dates.iter().filter_map(|d| d.day()).map(|d| d.0).collect();
    let read = plan.read.iter().filter_map(|d| d.date.day()).map(|d| d.0).collect();
    (windows, read, plan.remove.iter().map(|f| f.path.as_str()).collect())
}

#[test]
fn new_dates_are_recomputed_from_all_their_files_and_others_stay() {
    let hourly = Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 });
    let archive = [
        file("a", 1, 0, 0, 5),
        file("b", 2, 0, 5, 7),
        file("c", 2, 1, 0, 3),
        file("d", 1, 0, 7, 9),
        file("after the cut", 9, 0, 9, 12),
    ];
    let plan = planned(hourly, &cut(&[7, 3]), &cut(&[9, 3]), &archive, false).expect("a plan");
    assert_eq!(days(&plan), (vec![1], vec![1], vec!["Some(1)"]));
    assert_eq!((plan.rows, plan.bytes, plan.new_files.len()), (7, 20, 1));
    assert_eq!(plan.ledger, cut(&[9, 3]).accepted());
    assert_eq!(plan.keep.len(), 3);
}

#[test]
fn windows_across_midnight_widen_the_dates_read() {
    let archive = [file("a", 1, 0, 0, 5), file("b", 2, 0, 5, 7), file("c", 3, 0, 7, 9)];
    let seven = Window::Tumble(Grid::Fixed { size: 7 * HOUR, offset: 0 });
    let plan = planned(seven, &cut(&[7]), &cut(&[9]), &archive, false).expect("a plan");
    assert_eq!(days(&plan), (vec![2, 3], vec![2, 3], vec!["Some(2)"]));
    let three_days = Window::Tumble(Grid::Fixed { size: 72 * HOUR, offset: 24 * HOUR });
    let plan = planned(three_days, &cut(&[7]), &cut(&[9]), &archive, false).expect("a plan");
    assert_eq!(days(&plan), (vec![1], vec![1, 2, 3], vec!["Some(1)"]));
}

#[test]
fn a_full_run_and_a_window_over_all_time_recompute_everything() {
    let archive = [file("a", 1, 0, 0, 5), file("b", 2, 0, 5, 7)];
    let hourly = Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 });
    for (window, everything) in [(hourly, true), (Window::All, false)] {
        let plan = planned(window, &cut(&[5]), &cut(&[7]), &archive, everything).expect("a plan");
        assert!(plan.everything && plan.keep.is_empty());
        assert_eq!((plan.remove.len(), plan.read.len(), plan.rows), (4, 2, 7));
    }
}

#[test]
fn an_event_without_a_usable_date_requires_a_full_run() {
    let mut odd = file("odd", 0, 0, 5, 7);
    odd.partition = DatePartition::Undated;
    let archive = [file("a", 1, 0, 0, 5), odd];
    let hourly = Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 });
    let plan = planned(hourly, &cut(&[5]), &cut(&[7]), &archive, false).expect("a plan");
    assert!(plan.everything && plan.window_dates.contains(&DatePartition::Undated));
    assert_eq!(plan.rows, 7);
}

#[test]
fn inconsistent_files_are_named_in_the_error() {
    let hourly = Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 });
    let error = |archive: &[DataFile], at: u64| {
        planned(hourly, &cut(&[0]), &cut(&[at]), archive, false).expect_err("no plan").to_string()
    };
    let whole = file("a", 1, 0, 0, 5);
    let expected = "archive file a holds offsets 0 to 5 of partition 0, on both sides of the cut at 4";
    assert_eq!(error(std::slice::from_ref(&whole), 4), expected);
    assert_eq!(error(&[], 5), "the archive holds 0 events before the cut, the log accepted 5");
    let twice = [whole.clone(), file("b", 1, 0, 0, 5)];
    assert_eq!(error(&twice, 5), "the archive holds 10 events before the cut, the log accepted 5");
    let others = [file("a", 1, 0, 0, 4), file("b", 1, 0, 0, 1)];
    assert!(error(&others, 5).ends_with("accepted 5, but not the same ones"));
    let mut untagged = whole;
    untagged.tags.remove("rows");
    assert_eq!(error(&[untagged], 5), "a: archive file without a valid tag \"rows\"");
}

proptest! {
    /// Whatever windows an event falls into: their dates are among those its day touches, and each reads its day.
    #[test]
    fn planned_dates_contain_every_window_of_an_event(
        size in 1i64..20 * 24 * HOUR, shift in 0.0f64..1.0, time in -900 * HOUR..900 * HOUR, kind in 0usize..4,
        slide in 1i64..5, panes in 1i64..9,
    ) {
        let grid = Grid::Fixed { size, offset: (size as f64 * shift) as i64 % size };
        let month = Calendar { unit: CalendarUnit::Month, count: 1, shift: 0, offset: 0, zone: "Asia/Tokyo".parse().expect("a zone") };
        let window = match kind {
            0 => Window::Tumble(grid),
            1 => Window::Hop { panes: grid, slide, size: panes },
            2 => Window::Cumulate { step: Step::Fixed((size / panes).max(1)), outer: grid },
            _ => Window::Cumulate { step: Step::Fixed(24 * HOUR), outer: Grid::Calendar(month) },
        };
        let day = Micros(time).day();
        // Not more than some thousand windows.
        prop_assume!(kind != 2 || size / panes.max(1) > 0);
        let dates = window_dates_of(window, DatePartition::of_day(day));
        let pane = window.pane_of(Micros(time));
        let mut all = Vec::new();
        window.for_each_window(pane, |id| all.push(id));
        for id in all {
            let date = window_date(window, id);
            prop_assert!(dates.contains(&date), "{:?} {:?}", date, dates);
            let date = date.day().expect("near 1970 every date is readable");
            prop_assert!(window.event_days_of(date).expect("of the clock").contains(&day.0));
        }
    }
}

#[test]
fn a_requested_range_is_recomputed_as_well_as_new_dates() {
    let hourly = Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 });
    let archive = [file("a", 1, 0, 0, 5), file("b", 4, 0, 5, 7), file("c", 6, 0, 7, 9), file("d", 7, 0, 9, 12)];
    let present = [view_file(Some(1)), view_file(Some(4)), view_file(Some(5)), view_file(Some(6))];
    let ranges = [DateRange { from: Day(4), to: Day(6) }, DateRange { from: Day(20), to: Day(2_000_000) }];
    let (seam, end) = (cut(&[9]), cut(&[12]));
    let none_erased = BTreeMap::new();
    let input = |window, present, ranges| PlanInput {
        window,
        seam: &seam,
        cut: &end,
        archive: &archive,
        dropped: None,
        lost: None,
        present,
        frozen: &[],
        erased: &none_erased,
        looked_up: &[],
        everything: false,
        ranges,
        horizon: Horizon::NONE,
    };
    let plan = super::plan(&input(hourly, &present, &ranges)).expect("a plan");
    // Day 5 has rows that no event makes any more: they go.
    assert_eq!(days(&plan), (vec![4, 5, 7], vec![4, 7], vec!["Some(4)", "Some(5)"]));
    let none = super::plan(&input(hourly, &present, &[])).expect("a plan");
    assert_eq!(days(&none).0, [7]);
    // Windows that reach over the edge of a day need the events of the days after it.
    let three_days = Window::Tumble(Grid::Fixed { size: 72 * HOUR, offset: 24 * HOUR });
    let wide = super::plan(&input(three_days, &present, &[DateRange { from: Day(4), to: Day(5) }])).expect("a plan");
    assert_eq!((days(&wide).0, days(&wide).1), (vec![4, 7], vec![4, 6, 7]));
}

#[test]
fn historical_files_are_new_by_their_own_position() {
    let hourly = Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 });
    let history = |path: &str, day: i32, from: u64, to: u64| file(path, day, Partition::HISTORY.0, from, to);
    let archive = [file("a", 1, 0, 0, 5), history("h1", 2, 0, 3), history("h2", 9, 3, 7), history("later", 1, 7, 9)];
    let with = |cut: Cut, offset: u64| {
        let accepted = Ledger::of_range(Partition::HISTORY, Offset(0), Offset(offset));
        cut.with_history(CutPoint { offset: Offset(offset), accepted })
    };
    let plan = planned(hourly, &with(cut(&[5]), 3), &with(cut(&[5]), 7), &archive, false).expect("a plan");
    assert_eq!(days(&plan), (vec![9], vec![9], vec!["Some(9)"]));
    assert_eq!(plan.ledger, with(cut(&[5]), 7).accepted());
    let missing = planned(hourly, &cut(&[5]), &with(cut(&[5]), 8), &archive[..3], false);
    assert!(matches!(missing, Err(PlanError::Ledger { archived: 12, accepted: 13, .. })), "{missing:?}");
}

proptest! {
    #[test]
    fn united_ranges_hold_the_same_days(ranges in prop::collection::vec((-30i32..30, 0i32..8), 0..20)) {
        let ranges: Vec<_> = ranges.into_iter().map(|(first, more)| first..=first + more).collect();
        let united = united(ranges.clone());
        prop_assert!(united.windows(2).all(|pair| pair[0].end() < pair[1].start()));
        for day in -40..50 {
            let is_in = |ranges: &[RangeInclusive<i32>]| ranges.iter().any(|range| range.contains(&day));
            prop_assert_eq!(is_in(&united), is_in(&ranges));
        }
    }
}

#[test]
fn dates_with_newly_erased_events_are_recomputed_and_ledgers_balance() {
    let hourly = Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 });
    let with_erased = |name: &str, day: i32, from: u64, to: u64, erased: u64| {
        let mut file = file(name, day, 0, from, to);
        let tags = ArchiveTags::from_tags(&file.tags).expect("tags");
        file.tags = ArchiveTags { rows: tags.rows - erased, erased, ..tags }.to_tags();
        file
    };
    let archive = [with_erased("a", 1, 0, 5, 2), file("b", 2, 0, 5, 7), with_erased("c", 3, 7, 9, 2)];
    let known = BTreeMap::from([(DatePartition::of_day(Day(3)).to_string(), 2)]);
    let (seam, end) = (cut(&[9]), cut(&[9]));
    let present = [view_file(Some(1)), view_file(Some(3))];
    let input = PlanInput {
        window: hourly,
        seam: &seam,
        cut: &end,
        archive: &archive,
        dropped: None,
        lost: None,
        present: &present,
        frozen: &[],
        erased: &known,
        looked_up: &[],
        everything: false,
        ranges: &[],
        horizon: Horizon::NONE,
    };
    let plan = super::plan(&input).expect("a plan");
    assert_eq!(days(&plan), (vec![1], vec![1], vec!["Some(1)"]));
    assert_eq!((plan.ledger, plan.rows), (end.accepted(), 3));
    assert_eq!(plan.newly_erased, BTreeSet::from([DatePartition::of_day(Day(1))]));
    assert_eq!(plan.erased.values().copied().collect::<Vec<_>>(), [2, 2]);
    let mut wrong = archive.clone();
    wrong[1] = with_erased("b", 2, 5, 7, 1);
    let tags = ArchiveTags::from_tags(&wrong[1].tags).expect("tags");
    wrong[1].tags = ArchiveTags { rows: 2, ..tags }.to_tags();
    assert!(matches!(super::plan(&PlanInput { archive: &wrong, ..input }), Err(PlanError::Tags { .. })));
}
