//! Every window and measure of the dialect, HAVING, and conditions of queries.

use super::{HOUR, shown, view};
use crate::calendar::{Calendar, CalendarUnit, Zone};
use crate::scalar::Scalar;
use crate::sql::tests::parse;
use crate::sql::{parse_query_filter, print, window_text};
use crate::time::{MICROS_PER_DAY as DAY, MICROS_PER_SECOND};
use crate::types::DataType;
use crate::view::{AggregateFunction, View};
use crate::window::{Grid, Step, Window};

const MINUTE: i64 = 60 * MICROS_PER_SECOND;
const BERLIN: &str = "Europe/Berlin";

fn windowed(window: &str, zone: &str) -> View {
    view(&format!("CREATE VIEW v WITH (time_zone = '{zone}') AS SELECT COUNT(*) AS n FROM flights GROUP BY {window}"))
}

/// Checks each window in a zone, and that the text a plan shows of it means the same.
fn check(zone: &str, table: &[(&str, Window)]) {
    for (text, expected) in table {
        let view = windowed(text, zone);
        assert_eq!((view.window, view.zone), (*expected, zone.parse().expect("a zone")), "{text}");
        let shown = window_text(&view.window, "scheduled_at", view.zone);
        assert_eq!(windowed(&shown, zone).window, *expected, "{text} reads {shown}");
    }
}

fn fixed(size: i64, offset: i64) -> Grid {
    Grid::Fixed { size, offset }
}

fn days(zone: &str, count: i32, shift: i32, offset: i64) -> Grid {
    let zone = zone.parse().expect("a zone");
    Grid::Calendar(Calendar { unit: CalendarUnit::Day, count, shift, offset, zone })
}

fn months(zone: &str, count: i32, shift: i32, offset: i64) -> Grid {
    let zone = zone.parse().expect("a zone");
    Grid::Calendar(Calendar { unit: CalendarUnit::Month, count, shift, offset, zone })
}

fn steps_of(grid: Grid) -> Step {
    match grid {
        Grid::Fixed { size, .. } => Step::Fixed(size),
        Grid::Calendar(calendar) => Step::Calendar(calendar),
    }
}

#[test]
fn windows_in_utc_are_fixed_up_to_weeks() {
    let hop = |panes, slide, size| Window::Hop { panes, slide, size };
    let cumulate = |step, outer| Window::Cumulate { step: Step::Fixed(step), outer };
    check(
        "UTC",
        &[
            ("TUMBLE(scheduled_at, INTERVAL '1 day 12 hours')", Window::Tumble(fixed(36 * HOUR, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '2' WEEK)", Window::Tumble(fixed(14 * DAY, 4 * DAY))),
            ("TUMBLE(scheduled_at, INTERVAL '1 week', INTERVAL '-1' DAY)", Window::Tumble(fixed(7 * DAY, 3 * DAY))),
            ("TUMBLE(scheduled_at, INTERVAL '1 week', INTERVAL '4' DAY)", Window::Tumble(fixed(7 * DAY, DAY))),
            ("TUMBLE(scheduled_at, INTERVAL '7' DAY, INTERVAL '5' DAY)", Window::Tumble(fixed(7 * DAY, 5 * DAY))),
            ("TUMBLE(scheduled_at, INTERVAL '3' MICROSECOND)", Window::Tumble(fixed(3, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '3' MONTH)", Window::Tumble(months("UTC", 3, 0, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '1' QUARTER)", Window::Tumble(months("UTC", 3, 0, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '2 quarters')", Window::Tumble(months("UTC", 6, 0, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '1' YEAR, INTERVAL '3' MONTH)", Window::Tumble(months("UTC", 12, 3, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '1' YEAR, INTERVAL '-1' QUARTER)", Window::Tumble(months("UTC", 12, 9, 0))),
            (
                "TUMBLE(scheduled_at, INTERVAL '1' MONTH, INTERVAL '14 days 6 hours')",
                Window::Tumble(months("UTC", 1, 0, 14 * DAY + 6 * HOUR)),
            ),
            (
                "TUMBLE(scheduled_at, INTERVAL '1' YEAR, INTERVAL '3 months 5 days')",
                Window::Tumble(months("UTC", 12, 3, 5 * DAY)),
            ),
            ("HOP(scheduled_at, INTERVAL '10' MINUTE, INTERVAL '1' HOUR)", hop(fixed(10 * MINUTE, 0), 1, 6)),
            ("HOP(scheduled_at, INTERVAL '1' HOUR, INTERVAL '1' HOUR)", hop(fixed(HOUR, 0), 1, 1)),
            ("HOP(scheduled_at, INTERVAL '40' MINUTE, INTERVAL '1' HOUR)", hop(fixed(20 * MINUTE, 0), 2, 3)),
            ("HOP(scheduled_at, INTERVAL '2' HOUR, INTERVAL '1' HOUR)", hop(fixed(HOUR, 0), 2, 1)),
            ("HOP(scheduled_at, INTERVAL '6' HOUR, INTERVAL '1' DAY)", hop(fixed(6 * HOUR, 0), 1, 4)),
            (
                "HOP(scheduled_at, INTERVAL '40' MINUTE, INTERVAL '1' HOUR, INTERVAL '-10' MINUTE)",
                hop(fixed(20 * MINUTE, 30 * MINUTE), 2, 3),
            ),
            ("HOP(scheduled_at, INTERVAL '1' DAY, INTERVAL '1' WEEK)", hop(fixed(DAY, 0), 1, 7)),
            ("HOP(scheduled_at, INTERVAL '1' WEEK, INTERVAL '10' DAY)", hop(fixed(DAY, 4 * DAY), 7, 10)),
            ("HOP(scheduled_at, INTERVAL '1' MONTH, INTERVAL '1' YEAR)", hop(months("UTC", 1, 0, 0), 1, 12)),
            (
                "HOP(scheduled_at, INTERVAL '1' QUARTER, INTERVAL '1' YEAR, INTERVAL '1' MONTH)",
                hop(months("UTC", 3, 1, 0), 1, 4),
            ),
            ("CUMULATE(scheduled_at, INTERVAL '1' HOUR, INTERVAL '1' DAY)", cumulate(HOUR, fixed(DAY, 0))),
            (
                "CUMULATE(scheduled_at, INTERVAL '1' DAY, INTERVAL '1' WEEK, INTERVAL '2' HOUR)",
                cumulate(DAY, fixed(7 * DAY, 4 * DAY + 2 * HOUR)),
            ),
            ("CUMULATE(scheduled_at, INTERVAL '1' DAY, INTERVAL '1' MONTH)", cumulate(DAY, months("UTC", 1, 0, 0))),
            (
                "CUMULATE(scheduled_at, INTERVAL '6' HOUR, INTERVAL '1' YEAR)",
                cumulate(6 * HOUR, months("UTC", 12, 0, 0)),
            ),
            (
                "CUMULATE(scheduled_at, INTERVAL '1' MONTH, INTERVAL '1' YEAR, INTERVAL '3' MONTH)",
                Window::Cumulate { step: steps_of(months("UTC", 1, 0, 0)), outer: months("UTC", 12, 3, 0) },
            ),
            (
                "CUMULATE(scheduled_at, INTERVAL '1' QUARTER, INTERVAL '1' YEAR, INTERVAL '4' MONTH)",
                Window::Cumulate { step: steps_of(months("UTC", 3, 1, 0)), outer: months("UTC", 12, 4, 0) },
            ),
            ("SESSION(scheduled_at, INTERVAL '30' MINUTE)", Window::Session { gap: 30 * MINUTE }),
            ("SLIDE(scheduled_at, INTERVAL '1' HOUR)", Window::Slide { size: HOUR, pane: 1 }),
            ("SLIDE(scheduled_at, INTERVAL '1' WEEK, INTERVAL '1' DAY)", Window::Slide { size: 7 * DAY, pane: DAY }),
        ],
    );
}

#[test]
fn windows_elsewhere_follow_the_calendar_from_a_day_on() {
    let hop = |panes, slide, size| Window::Hop { panes, slide, size };
    let cumulate = |step, outer| Window::Cumulate { step, outer };
    let day = |count, shift, offset| days(BERLIN, count, shift, offset);
    let month = |count, shift, offset| months(BERLIN, count, shift, offset);
    check(
        BERLIN,
        &[
            ("TUMBLE(scheduled_at, INTERVAL '24' HOUR)", Window::Tumble(fixed(DAY, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '48' HOUR, INTERVAL '24' HOUR)", Window::Tumble(fixed(2 * DAY, DAY))),
            ("TUMBLE(scheduled_at, INTERVAL '168' HOUR, INTERVAL '96' HOUR)", Window::Tumble(fixed(7 * DAY, 4 * DAY))),
            ("TUMBLE(scheduled_at, INTERVAL '1' DAY)", Window::Tumble(day(1, 0, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '1' DAY, INTERVAL '6' HOUR)", Window::Tumble(day(1, 0, 6 * HOUR))),
            ("TUMBLE(scheduled_at, INTERVAL '1' DAY, INTERVAL '-1' HOUR)", Window::Tumble(day(1, 0, 23 * HOUR))),
            ("TUMBLE(scheduled_at, INTERVAL '3' DAY, INTERVAL '30' HOUR)", Window::Tumble(day(3, 1, 6 * HOUR))),
            ("TUMBLE(scheduled_at, INTERVAL '1' WEEK)", Window::Tumble(day(7, 4, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '1' WEEK, INTERVAL '-1' HOUR)", Window::Tumble(day(7, 3, 23 * HOUR))),
            ("TUMBLE(scheduled_at, INTERVAL '2' WEEK, INTERVAL '1' WEEK)", Window::Tumble(day(14, 11, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '7' DAY)", Window::Tumble(day(7, 0, 0))),
            ("TUMBLE(scheduled_at, INTERVAL '1' YEAR, INTERVAL '6' HOUR)", Window::Tumble(month(12, 0, 6 * HOUR))),
            ("HOP(scheduled_at, INTERVAL '1' DAY, INTERVAL '1' WEEK)", hop(day(1, 0, 0), 1, 7)),
            ("HOP(scheduled_at, INTERVAL '1' WEEK, INTERVAL '10' DAY)", hop(day(1, 4, 0), 7, 10)),
            ("HOP(scheduled_at, INTERVAL '2' WEEK, INTERVAL '4' WEEK, INTERVAL '1' DAY)", hop(day(14, 5, 0), 1, 2)),
            ("HOP(scheduled_at, INTERVAL '2' MONTH, INTERVAL '1' YEAR, INTERVAL '1' MONTH)", hop(month(2, 1, 0), 1, 6)),
            ("CUMULATE(scheduled_at, INTERVAL '1' HOUR, INTERVAL '1' DAY)", cumulate(Step::Fixed(HOUR), day(1, 0, 0))),
            (
                "CUMULATE(scheduled_at, INTERVAL '1' DAY, INTERVAL '1' WEEK, INTERVAL '6' HOUR)",
                cumulate(steps_of(day(1, 0, 6 * HOUR)), day(7, 4, 6 * HOUR)),
            ),
            (
                "CUMULATE(scheduled_at, INTERVAL '1' WEEK, INTERVAL '2' WEEK)",
                cumulate(steps_of(day(7, 4, 0)), day(14, 4, 0)),
            ),
            (
                "CUMULATE(scheduled_at, INTERVAL '1' DAY, INTERVAL '1' MONTH, INTERVAL '30' HOUR)",
                cumulate(steps_of(day(1, 0, 6 * HOUR)), month(1, 0, 30 * HOUR)),
            ),
            (
                "CUMULATE(scheduled_at, INTERVAL '1' MONTH, INTERVAL '1' YEAR)",
                cumulate(steps_of(month(1, 0, 0)), month(12, 0, 0)),
            ),
            ("SESSION(scheduled_at, INTERVAL '1' DAY)", Window::Session { gap: DAY }),
            ("SLIDE(scheduled_at, INTERVAL '7' DAY, INTERVAL '1' DAY)", Window::Slide { size: 7 * DAY, pane: DAY }),
        ],
    );
}

#[test]
fn steps_begin_where_their_outer_cells_begin() {
    for text in [
        "CUMULATE(scheduled_at, INTERVAL '1' DAY, INTERVAL '1' WEEK, INTERVAL '6' HOUR)",
        "CUMULATE(scheduled_at, INTERVAL '1' DAY, INTERVAL '1' MONTH, INTERVAL '30' HOUR)",
        "CUMULATE(scheduled_at, INTERVAL '2' MONTH, INTERVAL '1' YEAR, INTERVAL '5 months 3 days')",
        "CUMULATE(scheduled_at, INTERVAL '3' DAY, INTERVAL '6' DAY, INTERVAL '5' DAY)",
        "CUMULATE(scheduled_at, INTERVAL '1' WEEK, INTERVAL '3' WEEK, INTERVAL '15' DAY)",
    ] {
        let window = windowed(text, BERLIN).window;
        let Window::Cumulate { step: Step::Calendar(step), outer } = window else { panic!("{window:?}") };
        for index in -100..100 {
            let start = outer.start_of_index(index);
            assert_eq!(Grid::Calendar(step).start_of(start), start, "{text}");
        }
    }
}

#[test]
fn a_view_of_any_window_shows_its_bounds() {
    for window in ["SLIDE(scheduled_at, INTERVAL '1' HOUR)", "SESSION(scheduled_at, INTERVAL '1' HOUR)"] {
        let view = view(&format!(
            "CREATE VIEW v AS SELECT origin, window_end, window_start, COUNT(*) AS n FROM flights GROUP BY {window}, origin"
        ));
        use crate::view::OutputColumn::{Dimension, Measure, WindowEnd, WindowStart};
        assert_eq!(view.output, [Dimension(0), WindowEnd, WindowStart, Measure(0)], "{window}");
    }
    let zone = |text: &str| view(text).zone;
    assert_eq!(zone("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights"), Zone::UTC);
    let named = zone("CREATE VIEW v WITH (time_zone = 'europe/berlin') AS SELECT COUNT(*) AS n FROM flights");
    assert_eq!(named.name(), BERLIN);
    let clock = |options: &str| {
        view(&format!("CREATE VIEW v WITH (schedule = '@daily'{options}) AS SELECT COUNT(*) AS n FROM flights"))
            .schedule_zone
    };
    assert_eq!(clock("").name(), "UTC");
    assert_eq!(clock(", time_zone = 'Europe/Berlin'").name(), BERLIN);
    assert_eq!(clock(", time_zone = 'Asia/Tokyo', schedule_time_zone = 'europe/berlin'").name(), BERLIN);
}

#[test]
fn every_measure_is_parsed() {
    use AggregateFunction::{CountDistinct, First, Last, Max, Min, Percentile, Spread, TopK};
    use DataType::{BigInt, Boolean, Date, Double, Int, Json, String, Timestamp};
    let spread = |sample, root| Spread { sample, root };
    let percentile = |fraction, continuous| Percentile { fraction, continuous, descending: false };
    let price = DataType::Decimal { precision: 10, scale: 2 };
    for (text, function, argument, data_type) in [
        ("VAR_POP(seats)", spread(false, false), "seats", Double),
        ("VAR_SAMP(price)", spread(true, false), "price", Double),
        ("VARIANCE(distance)", spread(true, false), "distance", Double),
        ("STDDEV_POP(delay_min)", spread(false, true), "delay_min", Double),
        ("STDDEV_SAMP(seats)", spread(true, true), "seats", Double),
        ("stddev(seats + delay_min)", spread(true, true), "CAST(seats AS BIGINT) + delay_min", Double),
        ("STDDEV(NULL)", spread(true, true), "NULL", Double),
        ("COUNT(DISTINCT origin)", CountDistinct, "origin", BigInt),
        ("COUNT(DISTINCT cancelled)", CountDistinct, "cancelled", BigInt),
        ("COUNT(DISTINCT price)", CountDistinct, "price", BigInt),
        ("COUNT(DISTINCT (flown_on))", CountDistinct, "flown_on", BigInt),
        ("APPROX_COUNT_DISTINCT(origin)", CountDistinct, "origin", BigInt),
        ("MIN(DISTINCT origin)", Min, "origin", String),
        ("MAX(DISTINCT cancelled)", Max, "cancelled", Boolean),
        ("PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY seats)", percentile(0.95, true), "seats", Double),
        ("PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY seats DESC)", percentile(0.05, true), "seats", Double),
        ("PERCENTILE_CONT(1) WITHIN GROUP (ORDER BY seats DESC)", percentile(0.0, true), "seats", Double),
        ("PERCENTILE_CONT(25e-2) WITHIN GROUP (ORDER BY price DESC)", percentile(0.75, true), "price", Double),
        ("PERCENTILE_CONT(0) WITHIN GROUP (ORDER BY distance ASC)", percentile(0.0, true), "distance", Double),
        ("PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY seats)", percentile(0.5, false), "seats", Int),
        ("PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY flown_on)", percentile(0.5, false), "flown_on", Date),
        (
            "PERCENTILE_DISC(1.0) WITHIN GROUP (ORDER BY scheduled_at)",
            percentile(1.0, false),
            "scheduled_at",
            Timestamp,
        ),
        ("PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY price)", percentile(0.5, false), "price", Double),
        ("MEDIAN(delay_min)", percentile(0.5, true), "delay_min", Double),
        ("TOP_K(origin, 5)", TopK { k: 5 }, "origin", Json),
        ("TOP_K(UPPER(origin), 1000)", TopK { k: 1000 }, "UPPER(origin)", Json),
        ("(TOP_K(price, 1))", TopK { k: 1 }, "price", Json),
        ("FIRST_VALUE(origin)", First, "origin", String),
        ("FIRST_VALUE(price)", First, "price", price),
        ("LAST_VALUE(cancelled)", Last, "cancelled", Boolean),
    ] {
        for (filter, filtered) in [("", false), (" FILTER (WHERE seats > 1)", true)] {
            if filtered && text.starts_with('(') {
                continue;
            }
            let view = view(&format!("CREATE VIEW v AS SELECT {text}{filter} AS m FROM flights"));
            let [aggregate] = view.aggregates.as_slice() else { panic!("{text}: {:?}", view.aggregates) };
            assert_eq!((aggregate.function, aggregate.filter.is_some()), (function, filtered), "{text}{filter}");
            assert_eq!(aggregate.argument.as_ref().map(|a| shown(&view, a)).as_deref(), Some(argument), "{text}");
            assert_eq!(
                (aggregate.data_type(), view.measures[0].expression.data_type),
                (data_type, data_type),
                "{text}"
            );
        }
    }
}

fn over_aggregates(scalar: &Scalar) -> String {
    print(scalar, &|index| format!("#{index}"))
}

#[test]
fn arithmetic_over_measures_is_parsed() {
    for (text, expected) in [
        ("STDDEV(seats) / NULLIF(AVG(seats), 0)", "#0 / NULLIF(#1, 0.0)"),
        ("COUNT(DISTINCT origin) > 10", "#0 > 10"),
        ("CASE WHEN COUNT(*) > 1 THEN MEDIAN(seats) END", "CASE WHEN #0 > 1 THEN #1 END"),
        ("COALESCE(LAST_VALUE(origin), 'none')", "COALESCE(#0, 'none')"),
        ("LAST_VALUE(seats) - FIRST_VALUE(seats)", "CAST(#0 AS BIGINT) - CAST(#1 AS BIGINT)"),
        ("MAX(scheduled_at) - INTERVAL '1' HOUR", "#0 - INTERVAL '1' HOUR"),
    ] {
        let view = view(&format!("CREATE VIEW v AS SELECT {text} AS m FROM flights"));
        assert_eq!(over_aggregates(&view.measures[0].expression), expected, "{text}");
    }
}

#[test]
fn having_reads_measures_and_adds_its_aggregates() {
    let select = "SELECT origin, COUNT(*) AS n, SUM(seats) / COUNT(*) AS seats FROM flights GROUP BY origin HAVING";
    for (having, expected, aggregates) in [
        ("n > 10", "#0 > 10", 2),
        ("COUNT(*) > 10", "#0 > 10", 2),
        // A measure goes before a column of the same name, but not inside an aggregate.
        ("seats > 10 AND MAX(seats) < 5", "#1 / #0 > 10 AND CAST(#2 AS BIGINT) < 5", 3),
        ("COUNT(DISTINCT destination) > 1 OR n IS NULL", "#2 > 1 OR #0 IS NULL", 3),
        ("MEDIAN(delay_min) BETWEEN 1 AND 2", "#2 >= 1.0 AND #2 <= 2.0", 3),
        ("COUNT(*) FILTER (WHERE cancelled) = 0", "#2 = 0", 3),
    ] {
        let view = view(&format!("CREATE VIEW v AS {select} {having}"));
        let shown = view.having.as_ref().map(over_aggregates);
        assert_eq!((shown.as_deref(), view.aggregates.len()), (Some(expected), aggregates), "{having}");
        assert_eq!(view.measures.len(), 2);
    }
    let with = |text: &str| view(&format!("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights {text}"));
    assert!(with("").having.is_none());
    assert!(with("HAVING n > 1").having.is_some());
    assert!(with("WHERE cancelled HAVING n > 1").having.is_some());
    assert_ne!(with("HAVING n > 1").definition_hash(), with("HAVING n > 2").definition_hash());
}

#[test]
fn conditions_of_queries_are_split_into_dimensions_and_measures() {
    let dimensions = [("origin".to_owned(), DataType::String), ("kind".to_owned(), DataType::BigInt)];
    let measures = [("n".to_owned(), DataType::BigInt), ("mean".to_owned(), DataType::Double)];
    let names = ["origin", "kind", "n", "mean"];
    for (text, groups, rows) in [
        ("origin = 'ATL'", Some("origin = 'ATL'"), None),
        ("n > 10", None, Some("n > 10")),
        ("origin = 'ATL' AND n > 10", Some("origin = 'ATL'"), Some("n > 10")),
        ("n > 1 AND kind BETWEEN 1 AND 2 AND mean < 5", Some("kind >= 1 AND kind <= 2"), Some("n > 1 AND mean < 5.0")),
        ("(origin = 'ATL' AND (n > 10 AND kind = 1))", Some("origin = 'ATL' AND kind = 1"), Some("n > 10")),
        ("origin = 'ATL' OR n > 10", None, Some("origin = 'ATL' OR n > 10")),
        ("NOT (origin = 'ATL' AND n > 10)", None, Some("NOT (origin = 'ATL' AND n > 10)")),
        ("n > kind AND TRUE", Some("TRUE"), Some("n > kind")),
    ] {
        let filter = parse_query_filter(text, &dimensions, &measures).expect(text);
        let shown = |part: Option<Scalar>| part.map(|part| print(&part, &|index| names[index].to_owned()));
        assert_eq!(shown(filter.groups).as_deref(), groups, "{text}");
        assert_eq!(shown(filter.rows).as_deref(), rows, "{text}");
    }
}

/// What `trueup check` says beyond the plain case.
#[test]
fn plans_of_the_whole_dialect_are_readable() {
    let plan = |options: &str, measures: &str, group_by: &str| {
        let text = format!("CREATE VIEW v {options} AS SELECT {measures} FROM flights {group_by}");
        let definitions = parse(&text).expect("valid");
        crate::explain::describe(&definitions.views[0], &definitions.streams[0])
    };
    let all = "COUNT(DISTINCT origin) AS origins, MEDIAN(seats) / 2 AS half, TOP_K(origin, 3) AS top,
               STDDEV(seats) AS spread, LAST_VALUE(origin) FILTER (WHERE seats > 1) AS last, COUNT(*) AS n";
    let berlin = "WITH (time_zone = 'Europe/Berlin')";
    for (options, measures, group_by, lines) in [
        (
            "",
            all,
            "HAVING n > 5 AND MAX(seats) > 1",
            &[
                "having           COUNT(*) > 5 AND CAST(MAX(seats) AS BIGINT) > 1; other rows are hidden",
                "read             scheduled_at, origin, seats",
                "window           one over all time",
                "state            COUNT(DISTINCT origin): the values while they are few, then an HLL sketch (lgK 12): approximate",
                "state            STDDEV_SAMP(seats): count, mean and squared deviations, DOUBLE",
                "aggregate        COUNT(DISTINCT origin): exact, and for merging the values while they are few, then an HLL sketch (lgK 12)",
                "aggregate        PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY seats): exact, and for merging the values while they are few, then a KLL sketch (k 200)",
                "aggregate        TOP_K(origin, 3): exact, and for merging the values while they are few, then a sketch of frequent items",
                "aggregate        LAST_VALUE(origin) FILTER (WHERE CAST(seats AS BIGINT) > 1): exact",
                "note             of many values approximate in speed, with a 95 % interval: origins, half, top",
            ][..],
        ),
        (
            "",
            "COUNT(*) AS n",
            "GROUP BY HOP(scheduled_at, INTERVAL '40' MINUTE, INTERVAL '1' HOUR)",
            &[
                "window           HOP(scheduled_at, INTERVAL '40' MINUTE, INTERVAL '1' HOUR)",
                "panes            INTERVAL '20' MINUTE each; a window is the sum of 3",
                "an event         falls into 1 or 2 windows",
            ],
        ),
        (
            "",
            "COUNT(*) AS n",
            "GROUP BY HOP(scheduled_at, INTERVAL '2' HOUR, INTERVAL '1' HOUR)",
            &[
                "an event         falls into 1 window or none",
                "note             the slide is longer than the size: events between two windows are in none",
            ],
        ),
        (
            berlin,
            "COUNT(*) AS n",
            "GROUP BY CUMULATE(scheduled_at, INTERVAL '1' HOUR, INTERVAL '1' DAY)",
            &[
                "zone             Europe/Berlin: its days have 23 to 25 hours where clocks change",
                "an event         falls into 1 to 24 windows",
            ],
        ),
        (
            berlin,
            "COUNT(*) AS n",
            "GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR)",
            &["zone             Europe/Berlin for coarser grains; this window has fixed lengths, counted in UTC"],
        ),
        (
            "",
            "COUNT(*) AS n",
            "GROUP BY SESSION(scheduled_at, INTERVAL '1' HOUR)",
            &[
                "an event         joins the sessions of its key that are less than INTERVAL '1' HOUR away into one, or begins one",
            ],
        ),
        (
            "",
            "COUNT(*) AS n",
            "GROUP BY SLIDE(scheduled_at, INTERVAL '1' HOUR, INTERVAL '1' MINUTE)",
            &["panes            INTERVAL '1' MINUTE each; as of any multiple of it"],
        ),
    ] {
        let text = plan(options, measures, group_by);
        for line in lines {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
    assert!(!plan("", "COUNT(*) AS n", "").contains("note"));
}
