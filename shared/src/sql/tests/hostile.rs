//! Texts that mean harm, or nothing at all: an answer comes, and no stack overflows.

use proptest::prelude::*;

use super::parse;
use crate::sql::parse_predicate;
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
    fn any_words_get_an_answer(words in prop::collection::vec(word(), 0..40)) {
        let text = words.join(" ");
        let _ = parse(&text);
        let _ = parse(&format!("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights WHERE {text}"));
        let _ = predicate(&text);
    }

    #[test]
    fn any_characters_get_an_answer(text in "\\PC{0,60}") {
        let _ = parse(&text);
        let _ = predicate(&text);
    }

    /// The place of an error lies in the text, whatever the text is.
    #[test]
    fn errors_have_a_place(text in "[a-z('\n é]{0,40}") {
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
