//! Names, fields and formats that are refused.

use super::check;
use crate::column_name::reserved_names;

#[test]
fn wrong_columns_of_streams_are_explained() {
    let other = |name: &str| format!("names match without case; read the field under another name: FROM '/{name}'");
    let under = |declared: &str| format!("read the field under another name: `{declared}`");
    let long = "x".repeat(256);
    let table = [
        ("a INT, ^A INT", "the columns `a` and `A` differ only by case", &*other("A")),
        ("a INT, ^\"A\" INT", "the columns `a` and `A` differ only by case", &other("A")),
        ("Größe INT, ^GRÖßE INT", "the columns `Größe` and `GRÖßE` differ only by case", &other("GRÖßE")),
        ("^_Offset INT", "the name `_Offset` is reserved", &under("Offset STRING FROM '/_Offset'")),
        (
            "^\"window_end\" INT",
            "the name `window_end` is reserved",
            &under("event_window_end STRING FROM '/window_end'"),
        ),
        ("^__id INT", "the name `__id` is reserved", &under("id STRING FROM '/__id'")),
        ("^_state_1_n INT", "the name `_state_1_n` is reserved", &under("state_1_n STRING FROM '/_state_1_n'")),
        (
            "^\"user id\" INT",
            "`user id` cannot name a column: Delta tables do not allow spaces in names",
            &under("user_id STRING FROM '/user id'"),
        ),
        (
            "^\"f(x)\" INT",
            "`f(x)` cannot name a column: Delta tables do not allow `(` in names",
            &under("f_x_ STRING FROM '/f(x)'"),
        ),
        ("^\"\" INT", "the name of a column cannot be empty", ""),
        ("^\"a\0\" INT", "the name of a column cannot contain the control character U+0000", ""),
        ("^\"a\tb\" INT", "the name of a column cannot contain the control character U+0009", ""),
        (&format!("^{long} INT"), "the name of a column has at most 255 bytes, not 256", ""),
    ];
    check(&table, |columns| format!("CREATE STREAM s ({columns}) WITH (event_time = 'at')"));
}

#[test]
fn wrong_fields_and_formats_are_explained() {
    let formats = "the formats are unix_s, unix_ms, unix_us, unix_ns, rfc3339, and patterns such as '%d.%m.%Y %H:%M'";
    let table = [
        ("a INT FROM ^''", "the pointer '' is the whole event, which is not a value of a column", ""),
        ("a INT FROM ^'user.id'", "a JSON Pointer begins with `/`", "write '/user/id'"),
        ("a INT FROM ^'$.user.id'", "a JSON Pointer begins with `/`", "write '/user/id'"),
        ("a INT FROM ^'/a~b'", "in a JSON Pointer `~` stands only in `~0`, which is `~`, and `~1`, which is `/`", ""),
        ("a INT FROM ^user", "expected a JSON Pointer in single quotes, such as '/user/id', found `user`", ""),
        ("a INT FROM '/a' ^FROM '/b'", "FROM is given twice", ""),
        ("a INT, b INT FROM ^'/a'", "`a` and `b` both read the field /a", ""),
        ("a INT FROM '/x/y', b INT FROM ^'/x/y'", "`a` and `b` both read the field /x/y", ""),
        ("x STRING, b INT FROM ^'/x/y'", "`x` reads /x and `b` reads /x/y: one of them is within the other", ""),
        ("b INT FROM '/x/y', ^x STRING", "`b` reads /x/y and `x` reads /x: one of them is within the other", ""),
        ("a INT ^FORMAT 'unix_s'", "FORMAT says how a TIMESTAMP or DECIMAL is written, but `a` is INT", ""),
        (
            "a DECIMAL(9,2) FORMAT ^'unix_s'",
            "unknown format 'unix_s' of a DECIMAL",
            "write 'base64', or leave FORMAT out for numbers and their texts",
        ),
        ("a DECIMAL(9,2) FORMAT 'base64' ^FORMAT 'base64'", "FORMAT is given twice", ""),
        ("a TIMESTAMP FORMAT ^unix_s", "expected a format in single quotes, such as 'unix_s', found `unix_s`", ""),
        ("a TIMESTAMP FORMAT ^'unix_x'", "unknown format 'unix_x'", "did you mean `unix_s`?"),
        ("a TIMESTAMP FORMAT ^'epoch'", "unknown format 'epoch'", formats),
        ("a TIMESTAMP FORMAT 'unix_s' ^FORMAT 'unix_s'", "FORMAT is given twice", ""),
        (
            "a TIMESTAMP FORMAT ^'%H:%M'",
            "the pattern '%H:%M' does not say the date",
            "a pattern has year, month and day, such as '%Y-%m-%d', or %s",
        ),
        (
            "a TIMESTAMP FORMAT ^'%Y-%m-%d %Z'",
            "the pattern '%Y-%m-%d %Z' has %Z, but names of zones are not unique",
            "%z reads an offset such as +0200",
        ),
    ];
    check(&table, |columns| format!("CREATE STREAM s ({columns}) WITH (event_time = 'at')"));
    let table = [("^'0 seconds'", "`max_age` must be longer than nothing: every event is older than its arrival", "")];
    check(&table, |age| format!("CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', max_age = {age})"));
}

#[test]
fn wrong_columns_of_views_are_explained() {
    let give = "give one of them another name";
    let without = format!("names match without case: {give}");
    let reserved = reserved_names();
    let table = [
        ("COUNT(*) AS n, SUM(seats) AS ^N", "the columns `n` and `N` differ only by case", &*without),
        ("COUNT(*) AS Origin, ^origin", "the columns `Origin` and `origin` differ only by case", &without),
        ("COUNT(*) AS ^_layer", "the name `_layer` is reserved", &reserved),
        ("COUNT(*) AS ^\"_BOUNDS\"", "the name `_BOUNDS` is reserved", &reserved),
        ("COUNT(*) AS ^Window_End", "the name `Window_End` is reserved", &reserved),
        (
            "COUNT(*) AS ^\"all events\"",
            "`all events` cannot name a column: Delta tables do not allow spaces in names",
            "choose a name such as `all_events`",
        ),
        (
            "COUNT(DISTINCT seats) AS s, COUNT(*) AS ^S_low",
            "`S_low` is the name of a bound of the estimated measure `s`",
            give,
        ),
    ];
    check(&table, |select| format!("CREATE VIEW v AS SELECT {select} FROM flights GROUP BY origin"));
}
