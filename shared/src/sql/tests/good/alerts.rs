//! Checks valid alerts.

use super::parse;
use crate::alert::{Alert, AlertColumn, KeyColumn};
use crate::sql::{parse_alert, print};
use crate::view::View;

const VIEWS: &str = "CREATE VIEW delays AS SELECT window_start, origin, COUNT(*) AS n, COUNT(DISTINCT destination) AS places,
        MAX(destination) AS last FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;
    CREATE VIEW spend AS SELECT origin AS user_id, SUM(price) AS total FROM flights GROUP BY origin;
    CREATE VIEW recent AS SELECT origin, COUNT(*) AS n FROM flights GROUP BY SLIDE(scheduled_at, INTERVAL '1' HOUR), origin;";

fn declared(statement: &str) -> (Alert, View) {
    let definitions =
        parse(&format!("{VIEWS}\n{statement}")).unwrap_or_else(|errors| panic!("{statement}: {}", errors[0]));
    let alert = definitions.alerts[0].clone();
    let view = definitions.views.into_iter().find(|view| view.name == alert.view).expect("its view");
    (alert, view)
}

fn shown((alert, view): &(Alert, View)) -> String {
    let columns = AlertColumn::all(view);
    print(&alert.condition, &|index| columns[index].name(view))
}

#[test]
fn conditions_read_measures_their_bounds_and_the_previous_window() {
    for (condition, expected) in [
        ("total > 10000", "total > 10000.00"),
        ("lower(n) > 10 AND upper(places) < 5", "lower(n) > 10 AND upper(places) < 5"),
        ("n < 0.5 * previous(n)", "CAST(n AS DOUBLE) < 0.5 * CAST(previous(n) AS DOUBLE)"),
        ("LAG(N) > n", "previous(n) > n"),
        // Of a text, LOWER is the function of texts.
        ("LOWER(last) = 'atl'", "LOWER(last) = 'atl'"),
        (
            "n > 3 AND window_start >= '2001-01-01T00:00:00Z' AND origin <> 'ATL'",
            "n > 3 AND window_start >= TIMESTAMP '2001-01-01T00:00:00Z' AND origin <> 'ATL'",
        ),
    ] {
        let view = if condition.starts_with("total") { "spend" } else { "delays" };
        let found = declared(&format!("CREATE ALERT a ON {view} WHEN {condition} WITH (to = 'webhook:ops')"));
        assert_eq!(shown(&found), expected, "{condition}");
        assert_eq!(found.0.condition_sql, condition);
        assert_eq!(found.0.target.as_ref().map(ToString::to_string).as_deref(), Some("webhook:ops"));
    }
}

#[test]
fn a_record_is_named_by_the_row_unless_once_per_says_otherwise() {
    let key = |statement: &str| declared(statement).0.once_per;
    let (start, origin) = (KeyColumn::WindowStart, KeyColumn::Dimension(0));
    assert_eq!(key("CREATE ALERT a ON delays WHEN n > 1"), [start, origin]);
    assert_eq!(key("CREATE ALERT a ON delays WHEN n > 1 WITH (once_per = 'Origin')"), [origin]);
    assert_eq!(key("CREATE ALERT a ON delays WHEN n > 1 WITH (once_per = 'origin, window_start')"), [start, origin]);
    assert_eq!(key("CREATE ALERT a ON delays WHEN n > 1 WITH (once_per = '')"), []);
    assert_eq!(key("CREATE ALERT a ON recent WHEN n > 1"), [origin]);
    assert_eq!(key("CREATE ALERT a ON spend WHEN total > 1"), [origin]);
}

#[test]
fn the_target_and_the_name_do_not_change_what_is_raised() {
    let hash = |statement: &str| {
        let (alert, view) = declared(statement);
        alert.definition_hash(&view)
    };
    let one = hash("CREATE ALERT a ON spend WHEN total > 1");
    assert_eq!(one, hash("CREATE ALERT b ON spend WHEN total > 1 WITH (to = 'webhook:ops', once_per = 'user_id')"));
    assert_ne!(one, hash("CREATE ALERT a ON spend WHEN total > 2"));
    assert_ne!(one, hash("CREATE ALERT a ON spend WHEN total > 1 WITH (once_per = '')"));
}

#[test]
fn a_statement_is_read_again_for_another_definition_of_its_view() {
    let (alert, view) = declared("CREATE ALERT a ON spend WHEN total > 1");
    assert_eq!(parse_alert(&view, &alert.sql).expect("the same statement"), alert);
    let (_, other) = declared("CREATE ALERT a ON recent WHEN n > 1");
    let error = parse_alert(&other, &alert.sql).expect_err("it is on another view");
    assert_eq!(error.message(), "unknown view `spend`");
}
