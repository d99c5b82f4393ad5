//! Tests hostile and random texts: each ends in a definition or an error, and no stack overflows.

use proptest::prelude::*;

use super::parse;
use crate::limits::WINDOWS_PER_EVENT_MAX;
use crate::sql::{parse_predicate, window_text};
use crate::time::Micros;
use crate::types::DataType;

fn predicate(text: &str) -> bool {
    let columns = [
        ("a".to_owned(), DataType::BigInt),
        ("s".to_owned(), DataType::String),
        ("t".to_owned(), DataType::Timestamp),
        ("b".to_owned(), DataType::Boolean),
        ("d".to_owned(), DataType::Decimal { precision: 38, scale: 20 }),
    ];
    parse_predicate(text, &columns).is_ok()
}

#[test]
fn nesting_is_limited_and_breadth_is_not() {
    let wide = vec!["a = 1"; 300].join(" OR ");
    assert!(predicate(&wide));
    assert!(!predicate(&vec!["a = 1"; 3_000].join(" OR ")));
    assert!(predicate(&format!("{}a = 1{}", "(".repeat(50), ")".repeat(50))));
    assert!(!predicate(&format!("{}a = 1{}", "(".repeat(70), ")".repeat(70))));
    assert!(predicate(&format!("a{} = 1", " + 1".repeat(50))));
    assert!(!predicate(&format!("a{} = 1", " + 1".repeat(100))));
    assert!(!predicate(&"a = 1 AND (".repeat(5_000)));
    // Copies of operands multiply with nesting; the size is limited.
    let mut text = "b".to_owned();
    for _ in 0..30 {
        text = format!("({text} BETWEEN FALSE AND TRUE)");
    }
    assert!(!predicate(&text));
    let mut text = "a".to_owned();
    for _ in 0..20 {
        text = format!("CASE {text} WHEN 1 THEN 1 WHEN 2 THEN 2 WHEN 3 THEN 3 ELSE 4 END");
    }
    assert!(!predicate(&format!("{text} = 1")));
}

#[test]
fn long_texts_are_refused_at_once() {
    assert!(parse(&" ".repeat(2_000_000)).is_err());
    assert!(parse(&"x ".repeat(30_000)).is_err());
    assert!(!predicate(&format!("s LIKE '{}'", "%".repeat(5_000))));
}

const UNITS: &[&str] =
    &["MICROSECOND", "MILLISECOND", "SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR"];

/// Mostly lengths that fit each other, some that fit nothing.
fn length() -> impl Strategy<Value = i64> {
    prop_oneof![4 => prop::sample::select(vec![-6_i64, -1, 1, 2, 3, 4, 6, 12, 24, 60]), 1 => any::<i64>(), 1 => 0..40_000_i64]
}

#[test]
fn numbers_out_of_range_of_a_measure_are_refused() {
    let with = |measure: &str| parse(&format!("CREATE VIEW v AS SELECT {measure} AS m FROM flights")).is_ok();
    for fraction in ["1e308", "-1e308", "0.5e-400", &format!("0.{}", "9".repeat(300)), &"9".repeat(38)] {
        let measure = format!("PERCENTILE_CONT({fraction}) WITHIN GROUP (ORDER BY seats DESC)");
        // A fraction is one, whatever its digits.
        assert_eq!(with(&measure), fraction.starts_with("0."), "{fraction}");
    }
    assert!(!with(&format!("PERCENTILE_CONT(-{}.0) WITHIN GROUP (ORDER BY seats DESC)", "9".repeat(37))));
    assert!(!with("TOP_K(origin, 9223372036854775807)"));
    assert!(!with(&format!("{}seats{}", "MEDIAN(".repeat(60), ")".repeat(60))));
    let doubled = |n: usize| {
        let condition = "m BETWEEN 1 AND 2".to_owned();
        let condition = (0..n).fold(condition, |text, _| format!("({text}) BETWEEN FALSE AND TRUE"));
        parse(&format!("CREATE VIEW v AS SELECT COUNT(*) AS m FROM flights HAVING {condition}")).is_ok()
    };
    // HAVING copies measures; the size of what it grows to is limited.
    assert!(doubled(3) && !doubled(20));
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "CREATE",
        "STREAM",
        "VIEW",
        "AS",
        "SELECT",
        "FROM",
        "flights",
        "WHERE",
        "GROUP",
        "BY",
        "TUMBLE",
        "(",
        ")",
        ",",
        "INTERVAL",
        "'1'",
        "HOUR",
        "'1 month'",
        "MONTH",
        "QUARTER",
        "HOP",
        "CUMULATE",
        "SESSION",
        "SLIDE",
        "HAVING",
        "WITHIN",
        "ORDER",
        "PERCENTILE_CONT",
        "TOP_K",
        "MEDIAN",
        "n",
        "origin",
        "delay_min",
        "scheduled_at",
        "COUNT",
        "*",
        "SUM",
        "FILTER",
        "+",
        "-",
        "/",
        "=",
        "<",
        ">",
        "AND",
        "OR",
        "NOT",
        "IS",
        "NULL",
        "TRUE",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "IN",
        "BETWEEN",
        "LIKE",
        "CAST",
        "::",
        "BIGINT",
        "DECIMAL",
        "0.5",
        "1e9",
        "99999999999999999999",
        "'x",
        "\"",
        "[",
        "]",
        "{",
        "}",
        ";",
        "WITH",
        "event_time",
        "EXTRACT",
        "YEAR",
        "DATE_TRUNC",
        "||",
        "%",
        "DATE",
        "TIMESTAMP",
        "--",
        "/*",
        "é",
        "$1",
        "OVER",
        "DISTINCT",
        ".",
        ":",
        "->",
        "@",
        "SUBSTRING",
        "TRIM",
        "FOR",
        "EXISTS",
        "CREATE STREAM s (a TIMESTAMP)",
        "CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights WHERE",
        "CREATE VIEW v AS SELECT",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_words_parse_or_are_refused(words in prop::collection::vec(word(), 0..40)) {
        let text = words.join(" ");
        let _ = parse(&text);
        let _ = parse(&format!("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights WHERE {text}"));
        let _ = parse(&format!("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights HAVING {text}"));
        let _ = predicate(&text);
    }

    /// Lengths of any size and unit give a window or an error, and the window can be asked.
    #[test]
    fn any_lengths_parse_or_are_refused(
        window in prop::sample::select(vec!["TUMBLE", "HOP", "CUMULATE", "SESSION", "SLIDE"]),
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Pacific/Apia"]),
        lengths in prop::collection::vec((length(), prop::sample::select(UNITS)), 1..4),
        // Calendars end some 200,000 years from now.
        time in -6_000_000_000_000_000_000_i64..6_000_000_000_000_000_000,
    ) {
        let lengths: Vec<String> = lengths.iter().map(|(n, unit)| format!("INTERVAL '{n}' {unit}")).collect();
        let text = format!(
            "CREATE VIEW v WITH (time_zone = '{zone}') AS SELECT COUNT(*) AS n FROM flights
             GROUP BY {window}(scheduled_at, {})",
            lengths.join(", ")
        );
        if let Ok(definitions) = parse(&text) {
            let view = &definitions.views[0];
            prop_assert!(view.window.pane_of(Micros(time)).0 <= time, "{:?}", view.window);
            let mut windows = 0_i64;
            view.window.for_each_window(view.window.pane_of(Micros(time)), |_| windows += 1);
            // A day of 25 hours has more steps than others.
            prop_assert!(windows <= WINDOWS_PER_EVENT_MAX + WINDOWS_PER_EVENT_MAX / 24 + 1, "{windows} {:?}", view.window);
            let shown = window_text(&view.window, "scheduled_at", view.zone);
            let again = parse(&format!(
                "CREATE VIEW v WITH (time_zone = '{zone}') AS SELECT COUNT(*) AS n FROM flights GROUP BY {shown}"
            ));
            match again {
                Ok(again) => prop_assert_eq!(again.views[0].window, view.window, "{}", shown),
                Err(errors) => prop_assert!(false, "{shown}: {errors:?}"),
            }
        }
    }

    #[test]
    fn any_characters_parse_or_are_refused(text in "\\PC{0,60}") {
        let _ = parse(&text);
        let _ = predicate(&text);
    }

    /// The place of an error lies in the text, whatever the text is.
    #[test]
    fn errors_have_a_position(text in "[a-z('\n é]{0,40}") {
        if let Err(errors) = parse(&text) {
            for error in errors {
                prop_assert!(error.line() <= text.matches('\n').count() + 1);
                let mut shown = String::new();
                let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none());
                prop_assert!(handler.render_report(&mut shown, &error).is_ok());
            }
        }
    }
}
