//! Checks wrong alerts.

use super::check;

const VIEWS: &str =
    "CREATE VIEW delays AS SELECT window_start, origin, COUNT(*) AS n, SUM(price) AS total, TOP_K(origin, 3) AS top
    FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;
CREATE VIEW sums AS SELECT COUNT(*) AS n FROM flights;
CREATE VIEW recent AS SELECT origin, COUNT(*) AS n FROM flights GROUP BY SLIDE(scheduled_at, INTERVAL '1' HOUR), origin;
";

#[test]
fn wrong_alerts_are_explained() {
    let columns = "the columns are window_start, window_end, origin";
    let targets = "write to = 'webhook:NAME' or 'kafka:NAME/TOPIC', with [connections.NAME] in trueup.toml";
    let table = [
        ("CREATE ALERT a ^WHEN n > 1", "expected ON, found `WHEN`", ""),
        ("CREATE ALERT a ON ^delay WHEN n > 1", "unknown view `delay`", "did you mean `delays`?"),
        ("CREATE ALERT a ON ^nothing WHEN n > 1", "unknown view `nothing`", "a view is declared before its alerts"),
        (
            "CREATE ALERT a ON ^flights WHEN n > 1",
            "`flights` is a stream; an alert is on a view",
            "declare a view over the stream, and the alert on it",
        ),
        ("CREATE ALERT a ON delays ^WITH (once_per = 'origin')", "expected WHEN, found `WITH`", ""),
        ("CREATE ALERT a ON delays WHEN ^n + 1", "WHEN needs a BOOLEAN, this is BIGINT", ""),
        ("CREATE ALERT a ON delays WHEN ^totl > 1", "unknown column `totl`", "did you mean `total`?"),
        (
            "CREATE ALERT a ON delays WHEN ^SUM(price) > 1",
            "the condition of an alert has no aggregates (SUM)",
            "name a measure of the view",
        ),
        ("CREATE ALERT a ON delays WHEN ^top = 'x'", "`top` is JSON, which cannot be compared or computed with", ""),
        (
            "CREATE ALERT a ON delays WHEN ^origin = 'ATL'",
            "the condition of an alert reads no measure",
            "compare a measure of the view, such as total > 10000",
        ),
        ("CREATE ALERT a ON sums WHEN n > 1 AND ^window_start > '2001-01-01'", "the view `sums` has no windows", ""),
        (
            "CREATE ALERT a ON sums WHEN n < ^previous(n)",
            "PREVIOUS needs a view with TUMBLE: `sums` has no previous windows",
            "",
        ),
        (
            "CREATE ALERT a ON delays WHEN n < ^previous(origin)",
            "PREVIOUS takes one measure of the view",
            "the measures are n, total, top",
        ),
        (
            "CREATE ALERT a ON delays WHEN n > 1 WITH (once_per = ^'orgin')",
            "unknown column `orgin` in once_per",
            "did you mean `origin`?",
        ),
        (
            "CREATE ALERT a ON delays WHEN n > 1 WITH (once_per = ^'scheduled_at')",
            "unknown column `scheduled_at` in once_per",
            columns,
        ),
        (
            "CREATE ALERT a ON delays WHEN n > 1 WITH (once_per = ^'origin, total')",
            "once_per names dimensions and columns of the window, `total` is a measure",
            "",
        ),
        ("CREATE ALERT a ON delays WHEN n > 1 WITH (once_per = ^'origin, origin')", "`origin` is given twice", ""),
        (
            "CREATE ALERT a ON recent WHEN n > 1 WITH (once_per = ^'origin, window_start')",
            "the window of SLIDE moves, so `window_start` names no record",
            "leave it out",
        ),
        ("CREATE ALERT a ON sums WHEN n > 1 WITH (to = ^'ops')", "`ops` is not a target", targets),
        (
            "CREATE ALERT a ON sums WHEN n > 1 WITH (to = ^'webhok:ops')",
            "unknown kind of target `webhok`",
            "did you mean `webhook`?",
        ),
        ("CREATE ALERT a ON sums WHEN n > 1 WITH (to = ^'kafka:main')", "`main` does not name a topic", targets),
        (
            "CREATE ALERT a ON sums WHEN n > 1 WITH (to = ^'kafka:main/a b')",
            "'a b' is not the name of a topic: 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`",
            targets,
        ),
        ("CREATE ALERT a ON sums WHEN n > 1 WITH (^two = 'x')", "unknown option `two`", "did you mean `to`?"),
        ("CREATE ALERT a ON sums WHEN n > 1 ^FROM x", "expected WITH or the end of the statement, found `FROM`", ""),
        (
            "CREATE ALERT a ON sums WHEN n > 1; CREATE ALERT ^a ON sums WHEN n > 2",
            "there is already an alert called `a`",
            "",
        ),
        ("CREATE ALERT ^sums ON sums WHEN n > 1", "there is already a view called `sums`", ""),
    ];
    check(&table, |text| format!("{VIEWS}{text}"));
}

#[test]
fn only_the_mistake_of_the_view_of_an_alert_is_reported() {
    check(
        &[(
            "CREATE VIEW v AS SELECT COUNT(*) AS n FROM ^none; CREATE ALERT a ON v WHEN n > 1",
            "unknown stream `none`",
            "a stream is declared before its views",
        )],
        str::to_owned,
    );
}
