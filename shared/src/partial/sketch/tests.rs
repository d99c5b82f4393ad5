//! Tests the laws of sketches, and that other DataSketches libraries compute the same bytes.

use datasketches::hash::value::{canonical_float, raw_bytes};
use datasketches::hll::{Coupon, HllSketch, HllType, HllUnion};
use proptest::prelude::*;

use super::distinct::{Distinct, Estimate, SMALL_MAX};
use super::percentile::{self, Percentile, Point, Wanted, double};
use super::top_k::{Top, TopK};
use super::{Width, hash, hll};
use crate::view::Precision;
use crate::view::Precision::{Exact, Sketch};

fn distinct(values: impl IntoIterator<Item = i64>, precision: Precision) -> Distinct {
    let mut state = Distinct::default();
    values.into_iter().for_each(|value| state.insert(hash::of_long(value), precision));
    state
}

fn count(state: &Distinct) -> u64 {
    let Estimate { count, range } = state.estimate(Width::Two);
    assert_eq!(range, None, "exact");
    count
}

#[test]
fn values_hash_as_in_the_library() {
    for value in [0, 1, -1, i64::MIN, i64::MAX, 9001] {
        let coupon = hll::coupon(hash::of_long(value));
        assert!(format!("{:?}", Coupon::from_value(value)).contains(&format!("({coupon})")), "{value}");
    }
    for value in [0.0, -0.0, 1.5, f64::NAN, -f64::NAN, f64::INFINITY, f64::MIN_POSITIVE] {
        let coupon = hll::coupon(hash::of_double(value));
        let theirs = Coupon::from_value(canonical_float::from_f64(value));
        assert!(format!("{theirs:?}").contains(&format!("({coupon})")), "{value}");
    }
    for text in ["a", "äöü", "exactly sixteen b", "exactly sixteen", "a text of more than two whole blocks of bytes"]
    {
        let coupon = hll::coupon(hash::of_text(text));
        let theirs = Coupon::from_value(raw_bytes::from_str(text));
        assert!(format!("{theirs:?}").contains(&format!("({coupon})")), "{text}");
    }
    assert_ne!(hash::of_text(""), hash::of_text("\0"));
}

#[test]
fn the_empty_text_and_nuls_are_different_values() {
    let texts = ["", "\0", "\0\0", "a", "a\0"];
    for precision in [Precision::Sketch, Precision::Exact] {
        let mut state = Distinct::default();
        texts.iter().cycle().take(10).for_each(|text| state.insert(hash::of_text(text), precision));
        assert_eq!(count(&state), 5);
    }
    // As stored from the beginning, and as in other libraries.
    assert_eq!(hash::of_text(""), fastmurmur3::murmur3_x64_128(&[0], 9001));
    assert_eq!(hash::of_text("a\0"), fastmurmur3::murmur3_x64_128(b"a\0", 9001));
}

#[test]
fn the_texts_of_a_sketch_count_as_memory() {
    let text = |at: usize| format!("{at:0>10000}");
    let mut state: TopK<String> = TopK::default();
    (0..300).for_each(|at| state.insert(text(at).as_str(), 1, Precision::Sketch));
    let held = 300 * 10_000;
    assert!((held..held * 2).contains(&state.bytes()), "{} bytes", state.bytes());
    let stored = TopK::<String>::from_stored(state.image().as_deref(), None).expect("readable");
    assert!((held..held * 2).contains(&stored.bytes()), "{} bytes once stored", stored.bytes());
    let mut merged: TopK<String> = TopK::default();
    (300..302).for_each(|at| merged.insert(text(at).as_str(), 1, Precision::Sketch));
    merged.merge(&stored, Precision::Sketch, |_| unreachable!("sketches alone"));
    assert!((held..held * 2).contains(&merged.bytes()), "{} bytes merged", merged.bytes());
    // Rare values that the sketch drops count no longer.
    (302..5_000).for_each(|at| state.insert(text(at).as_str(), 1, Precision::Sketch));
    assert!((500_000..6_000_000).contains(&state.bytes()), "{} bytes of few kept", state.bytes());
}

#[test]
fn decimals_have_all_digits_of_their_scale() {
    let text = |unscaled, scale| {
        let mut text = String::new();
        crate::decimal::write_decimal(unscaled, scale, &mut text);
        text
    };
    assert_eq!(text(12345, 2), "123.45");
    assert_eq!(text(-5, 2), "-0.05");
    assert_eq!(text(0, 3), "0.000");
    assert_eq!(text(-7, 0), "-7");
    assert_eq!(text(7, -2), "700");
    assert_eq!(text(10i128.pow(38) - 1, 38), format!("0.{}", "9".repeat(38)));
}

#[test]
fn images_equal_those_of_a_sketch_updated_value_by_value() {
    for values in [1, 2, 7, 8, 9, 24, 25, 48, 49, SMALL_MAX as i64, 65, 100, 384, 385, 1_000, 100_000] {
        let mut theirs = HllSketch::new(hll::LG_REGISTERS, HllType::Hll8).expect("a sketch");
        (0..values).for_each(|value| theirs.update(value));
        for precision in [Sketch, Exact] {
            let image = distinct(0..values, precision).image().expect("something was seen");
            if values <= SMALL_MAX as i64 {
                assert_eq!(HllSketch::deserialize(&image).expect("an image"), theirs, "{values}");
            }
            let registers = hll::registers_of_image(&theirs.serialize()).expect("an image");
            assert_eq!(registers, hll::registers_of_image(&image).expect("an image"), "{values}");
            if theirs.serialize().len() == image.len() && values > 384 {
                // After the header, which depends on the order of updates, everything is equal, the sums within rounding.
                let theirs = theirs.serialize();
                assert_eq!(&image[32..], &theirs[32..]);
                let sum = |image: &[u8]| f64::from_le_bytes(image[16..24].try_into().expect("8 bytes"));
                assert!((sum(&image) - sum(&theirs)).abs() < 1e-9 * sum(&theirs));
            }
        }
    }
}

#[test]
fn the_union_with_a_sketch_of_another_library_is_the_union_of_the_values() {
    for hll_type in [HllType::Hll4, HllType::Hll6, HllType::Hll8] {
        let mut theirs = HllSketch::new(14, hll_type).expect("a sketch");
        (3_000..9_000i64).for_each(|value| theirs.update(value));
        let stored = Distinct::from_stored(Some(&theirs.serialize()), None, None).expect("an image");
        let mut ours = distinct(0..6_000, Sketch);
        ours.merge(&stored, Sketch);
        assert_eq!(ours, distinct(0..9_000, Sketch));
        let mut union = HllUnion::new(hll::LG_REGISTERS).expect("a union");
        union.update(&HllSketch::deserialize(&ours.image().expect("seen")).expect("an image"));
        union.update(&theirs);
        assert_eq!(union.estimate().round() as u64, ours.estimate(Width::Two).count);
    }
    let mut coarse = HllSketch::new(10, HllType::Hll8).expect("a sketch");
    (0..9_000i64).for_each(|value| coarse.update(value));
    assert!(Distinct::from_stored(Some(&coarse.serialize()), None, None).is_err());
    assert!(Distinct::from_stored(Some(&[1, 2, 3]), None, None).is_err());
}

#[test]
fn few_different_values_are_counted_exactly_in_little_memory() {
    assert_eq!(Distinct::default().bytes(), 0);
    assert_eq!(count(&Distinct::default()), 0);
    for n in 0..=SMALL_MAX as i64 {
        assert_eq!(count(&distinct((0..n).chain(0..n), Sketch)), n as u64);
    }
    assert!(distinct(0..5, Sketch).bytes() <= 96);
    assert_eq!(count(&distinct((0..5_000).chain(0..5_000), Exact)), 5_000);
}

#[test]
fn an_exact_count_survives_an_empty_merge_and_narrows_other_merges() {
    let batch = distinct(0..100_000, Exact);
    let (image, hashes) = (batch.image(), batch.hashes());
    assert_eq!(hashes, None);
    let stored = Distinct::from_stored(image.as_deref(), None, Some(100_000)).expect("an image");
    let mut gathered = Distinct::default();
    gathered.merge(&stored, Sketch);
    gathered.merge(&Distinct::default(), Sketch);
    assert_eq!(count(&gathered), 100_000);
    gathered.merge(&distinct(99_990..100_010, Sketch), Sketch);
    let Estimate { count, range: Some((low, high)) } = gathered.estimate(Width::Two) else { panic!("not exact") };
    assert!(low >= 100_000 && high <= 100_020 && (low..=high).contains(&count), "{low} {count} {high}");
}

#[test]
fn the_parts_of_an_exact_union_stay_exact_in_batch() {
    let mut left = distinct(0..3_000, Exact);
    left.merge(&distinct(2_000..2_010, Sketch), Exact);
    left.merge(&distinct(2_000..5_000, Exact), Exact);
    assert_eq!(count(&left), 5_000);
    let mut bounded = Distinct::default();
    bounded.merge(&left, Sketch);
    assert!(matches!(bounded, Distinct::Large(_)));
    assert_eq!(count(&bounded), 5_000);
}

proptest! {
    #[test]
    fn distinct_does_not_depend_on_splits_or_order(
        values in prop::collection::vec(-200i64..200, 0..300),
        split in 0usize..300,
        exact in any::<bool>(),
    ) {
        let precision = if exact { Exact } else { Sketch };
        let whole = distinct(values.iter().copied(), precision);
        let (left, right) = values.split_at(split.min(values.len()));
        let (left, right) = (distinct(left.iter().copied(), precision), distinct(right.iter().copied(), precision));
        let mut ab = left.clone();
        ab.merge(&right, precision);
        let mut ba = right;
        ba.merge(&left, precision);
        prop_assert_eq!(&ab, &whole);
        prop_assert_eq!(&ba, &whole);
        let truth = values.iter().collect::<std::collections::BTreeSet<_>>().len() as u64;
        for state in [&whole, &ab, &ba] {
            let Estimate { count, range } = state.estimate(Width::Two);
            let (low, high) = range.unwrap_or((count, count));
            if exact || truth <= SMALL_MAX as u64 {
                prop_assert_eq!((count, range), (truth, None));
            }
            prop_assert!(low <= count && count <= high);
            // The certain bounds hold in every case.
            prop_assert!(high as f64 >= truth as f64 * 0.95 && low as f64 <= truth as f64 * 1.05);
        }
        let stored = Distinct::from_stored(whole.image().as_deref(), whole.hashes().as_deref(), None).expect("an image");
        let mut again = Distinct::default();
        again.merge(&stored, Sketch);
        prop_assert_eq!(again.image(), whole.image());
    }

    #[test]
    fn percentiles_of_few_values_are_exact(
        mut values in prop::collection::vec(prop_oneof![-5i64..5, any::<i64>()], 1..percentile::VALUES_MAX),
        fraction in prop_oneof![Just(0.0), Just(0.5), Just(0.95), Just(1.0), 0.0..1.0f64],
        split in 0usize..130,
    ) {
        let (left, right) = values.split_at(split.min(values.len()));
        let mut state = longs(left, Sketch);
        state.merge(&longs(right, Exact), Sketch, wanted(fraction, false));
        let stored = Percentile::<i64>::from_stored(state.image().as_deref(), None).expect("an image");
        values.sort_unstable();
        let n = values.len();
        // Written as SQL defines it: the first value of which at least the fraction is not greater.
        let discrete = values.iter().enumerate().find(|(i, _)| (i + 1) as f64 >= fraction * n as f64).map(|(_, v)| *v);
        let place = fraction * (n - 1) as f64;
        let (below, above) = (values[place.floor() as usize] as f64, values[place.ceil() as usize] as f64);
        let continuous = below + (above - below) * place.fract();
        for state in [&state, &stored] {
            let found = state.estimate(wanted(fraction, false), Width::Two).expect("something was seen");
            prop_assert_eq!((found.point.value(), found.range), (discrete, None));
            let found = state.estimate(wanted(fraction, true), Width::Two).expect("something was seen");
            prop_assert!((found.point.as_double() - continuous).abs() <= 1e-9 * continuous.abs().max(below.abs()).max(1.0));
        }
    }

    #[test]
    fn the_most_frequent_of_few_values_are_exact_in_any_split(
        values in prop::collection::vec(-30i64..30, 0..300),
        split in 0usize..300,
        k in 1usize..70,
        exact in any::<bool>(),
    ) {
        let precision = if exact { Exact } else { Sketch };
        let (left, right) = values.split_at(split.min(values.len()));
        let mut state = counted(left, precision);
        state.merge(&counted(right, Exact), precision, |_| unreachable!("few values need no exact answer beside them"));
        prop_assert_eq!(state.top(k, i64::cmp), top_of(&values, k));
        let stored = TopK::<i64>::from_stored(state.image().as_deref(), None).expect("an image");
        prop_assert_eq!(stored.top(k, i64::cmp), top_of(&values, k));
    }
}

fn wanted(fraction: f64, continuous: bool) -> Wanted {
    Wanted { fraction, continuous, descending: false }
}

fn longs(values: &[i64], precision: Precision) -> Percentile<i64> {
    let mut state = Percentile::default();
    values.iter().for_each(|value| state.insert(*value, precision));
    state
}

fn counted(values: &[i64], precision: Precision) -> TopK<i64> {
    let mut state = TopK::default();
    values.iter().for_each(|value| state.insert(value, 1, precision));
    state
}

/// The oracle: counted with a plain map.
fn top_of(values: &[i64], k: usize) -> Option<Top<i64>> {
    let mut counts = std::collections::BTreeMap::new();
    values.iter().for_each(|value| *counts.entry(*value).or_insert(0u64) += 1);
    let mut items: Vec<(i64, u64)> = counts.into_iter().collect();
    items.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    items.truncate(k);
    let ranked = |(value, count)| super::top_k::Ranked { value, count, range: (count, count) };
    let items: Vec<_> = items.into_iter().map(ranked).collect();
    (!items.is_empty()).then_some(Top::Items { items, is_exact: true })
}

#[test]
fn percentiles_of_many_values_are_inside_their_interval_and_exact_in_batch() {
    let values: Vec<i64> = (0..50_000).map(|i| i * 7_919 % 50_000).collect();
    let p95 = wanted(0.95, true);
    let state = longs(&values, Sketch);
    let found = state.estimate(p95, Width::Three).expect("seen");
    let (low, high) = found.range.expect("not exact");
    // The sketch is random: the interval misses once in hundreds of times, and one of twice its width practically never.
    let half = (high - low) / 2;
    assert!(low - half <= 47_499 && 47_500 <= high + half && high - low < 6_000, "{low}..{high}");
    let range =
        |fraction, width| state.estimate(wanted(fraction, true), width).and_then(|f| f.range).expect("not exact");
    let mut wider = 0;
    for fraction in (1..20).map(|twentieth| f64::from(twentieth) / 20.0) {
        let (narrow, wide) = (range(fraction, Width::Two), range(fraction, Width::Three));
        assert!(wide.0 <= narrow.0 && narrow.1 <= wide.1);
        wider += usize::from(wide != narrow);
    }
    assert!(wider > 10, "{wider} of 19");
    for (fraction, end) in [(0.0, 0), (1.0, 49_999)] {
        let found = state.estimate(wanted(fraction, false), Width::Two).expect("seen");
        assert_eq!(found.point, Point::Value(end));
    }
    let exact = longs(&values, Exact).estimate(p95, Width::Two).expect("seen");
    assert_eq!((exact.point.as_double(), exact.range), (0.95 * 49_999.0, None));
}

#[test]
fn an_exact_percentile_survives_only_an_empty_merge() {
    let values: Vec<i64> = (0..1_000).collect();
    let batch = longs(&values, Exact);
    let p50 = wanted(0.5, true);
    let point = batch.estimate(p50, Width::Two).expect("seen").point;
    let stored = Percentile::from_stored(batch.image().as_deref(), Some(point)).expect("an image");
    let mut gathered = Percentile::default();
    gathered.merge(&stored, Sketch, p50);
    gathered.merge(&Percentile::default(), Sketch, p50);
    let found = gathered.estimate(p50, Width::Two).expect("seen");
    assert_eq!((found.point.as_double(), found.range), (499.5, None));
    gathered.merge(&longs(&[5], Sketch), Sketch, p50);
    assert!(gathered.estimate(p50, Width::Two).expect("seen").range.is_some());
    let mut moved = Percentile::default();
    moved.merge(&batch, Sketch, p50);
    assert!(matches!(moved, Percentile::Large(_)));
    assert_eq!(moved.estimate(p50, Width::Two).expect("seen").point.as_double(), 499.5);
}

#[test]
fn doubles_have_one_zero_and_no_nan_and_may_be_infinite() {
    assert_eq!(double(f64::NAN), None);
    assert!(double(-0.0).expect("a number").into_inner().is_sign_positive());
    let mut state = Percentile::default();
    for value in [f64::NEG_INFINITY, 1.0, f64::INFINITY, f64::MAX, f64::MIN] {
        state.insert(double(value).expect("a number"), Sketch);
    }
    let at = |fraction| state.estimate(wanted(fraction, true), Width::Two).expect("seen").point.as_double();
    assert_eq!(at(0.0), f64::NEG_INFINITY);
    assert_eq!(at(0.5), 1.0);
    assert_eq!(at(0.375), f64::MIN / 2.0 + 0.5);
    assert_eq!(at(1.0), f64::INFINITY);
}

#[test]
fn counts_of_many_values_are_inside_their_ranges() {
    let values: Vec<i64> = (0..60_000i64).map(|i| if i % 3 == 0 { i % 10 } else { i }).collect();
    let truth = counted(&values, Exact);
    let Some(Top::Items { items: exact, is_exact: true }) = truth.top(usize::MAX, i64::cmp) else { panic!("exact") };
    let mut merged = counted(&values[..10_000], Sketch);
    merged.merge(&counted(&values[10_000..], Sketch), Sketch, |_| "".into());
    let mut mixed = counted(&values[..10_000], Sketch);
    mixed.merge(&counted(&values[10_000..], Exact), Sketch, |_| "".into());
    let stored = TopK::<i64>::from_stored(truth.image().as_deref(), None).expect("an image");
    for state in [counted(&values, Sketch), merged, mixed, stored] {
        let Some(Top::Items { items, is_exact: false }) = state.top(10, i64::cmp) else { panic!("not exact") };
        assert_eq!(items.len(), 10);
        for item in items {
            let count = exact.iter().find(|e| e.value == item.value).map_or(0, |e| e.count);
            assert!(item.range.0 <= count && count <= item.range.1, "{item:?} is {count}");
            assert!(item.value < 10, "one of the frequent ones: {item:?}");
            assert!(item.range.1 - item.range.0 <= 60_000 * 7 / 1_000);
        }
    }
}

#[test]
fn ties_beyond_the_list_leave_a_sketch_that_reports_them() {
    let values: Vec<i64> = (0..1_000).collect();
    let image = counted(&values, Exact).image();
    let stored = TopK::<i64>::from_stored(image.as_deref(), None).expect("an image");
    let Some(Top::Items { items, is_exact: false }) = stored.top(5, i64::cmp) else { panic!("not exact") };
    assert!(items.iter().all(|item| item.range.0 <= 1 && 1 <= item.range.1));
}

#[test]
fn an_exact_list_survives_only_an_empty_merge() {
    let values: Vec<i64> = (0..1_000).chain(0..10).collect();
    let batch = counted(&values, Exact);
    let stored = TopK::<i64>::from_stored(batch.image().as_deref(), Some("[1]")).expect("an image");
    let mut gathered = TopK::default();
    gathered.merge(&stored, Sketch, |_| unreachable!("a sketch has its exact answer"));
    gathered.merge(&TopK::default(), Sketch, |_| unreachable!("nothing has no answer"));
    assert_eq!(gathered.top(10, i64::cmp), Some(Top::Known("[1]".into())));
    gathered.merge(&counted(&[7], Sketch), Sketch, |_| unreachable!("not exact any more"));
    assert!(matches!(gathered.top(10, i64::cmp), Some(Top::Items { is_exact: false, .. })));
}

#[test]
fn a_list_of_few_values_takes_its_counts_into_a_sketch() {
    // 100 times one value on the small side, many values once each on the large one.
    let mut list = counted(&[7; 100], Sketch);
    let large = counted(&(1_000..3_000).collect::<Vec<i64>>(), Sketch);
    list.merge(&large, Sketch, |_| unreachable!("a sketch of values that came live has no answer of its own"));
    let Some(Top::Items { items, .. }) = list.top(1, i64::cmp) else { panic!("a sketch lists items") };
    assert_eq!(items[0].value, 7);
    assert!(items[0].range.0 <= 100 && items[0].range.1 >= 100, "{:?}", items[0].range);
}
