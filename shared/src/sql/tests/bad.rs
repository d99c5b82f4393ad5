//! Checks wrong texts: the place of the caret, the message and the help.

mod alerts;
mod joins;
mod names;
mod outboxes;
mod sinks;
mod tables;
mod windows_and_measures;

use super::{parse, parse_definitions};
use crate::column_name::reserved_names;
use crate::sql::parse_predicate;
use crate::types::DataType;

/// Checks that each text has one mistake, at the mark `^` in it, with this message and help.
fn check(table: &[(&str, &str, &str)], around: impl Fn(&str) -> String) {
    let mut wrong = Vec::new();
    for (marked, message, help) in table {
        let marked = around(marked);
        let at = marked.find('^').expect("a mark");
        let before = &marked[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let found = match parse(&marked.replacen('^', "", 1)) {
            Ok(_) => "no mistake".to_owned(),
            Err(errors) => errors.iter().map(|e| format!("{e} [{}]", e.hint().unwrap_or_default())).collect(),
        };
        let expected = format!("t.sql:{line}:{column}: {message} [{help}]");
        if found != expected {
            wrong.push(format!("{marked}\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_statements_are_explained() {
    let table = [
        ("^CRATE STREAM s (at TIMESTAMP)", "expected CREATE, found `CRATE`", "did you mean `CREATE`?"),
        ("^SELECT 1", "expected CREATE, found `SELECT`", ""),
        (
            "CREATE ^STREEM s (at TIMESTAMP)",
            "expected STREAM, TABLE, VIEW, ALERT or SINK, found `STREEM`",
            "did you mean `STREAM`?",
        ),
        (
            "CREATE ^OR REPLACE VIEW v AS SELECT 1",
            "CREATE OR REPLACE is not supported",
            "write CREATE STREAM, CREATE TABLE, CREATE VIEW, CREATE ALERT or CREATE SINK",
        ),
        ("CREATE STREAM ^IF NOT EXISTS s (a INT)", "IF NOT EXISTS is not supported", ""),
        ("CREATE STREAM^", "expected the name of the stream, found the end of the statement", ""),
        (
            "CREATE STREAM ^flights (at TIMESTAMP) WITH (event_time = 'at')",
            "there is already a stream called `flights`",
            "",
        ),
        (
            "CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights; CREATE VIEW ^v AS SELECT COUNT(*) AS n FROM flights",
            "there is already a view called `v`",
            "",
        ),
        ("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights WHERE origin = ^'x", "unterminated string literal", ""),
    ];
    check(&table, str::to_owned);
    let long = "x".repeat(70);
    let message =
        format!("\"{long}\" is not a valid name: names are a lower-case letter, then at most 62 of a-z, 0-9 and _");
    check(&[(&format!("CREATE STREAM ^{long} (a INT)"), &message, "")], str::to_owned);
}

#[test]
fn wrong_streams_are_explained() {
    let types = "the types are BOOLEAN, BOOL, INT, INTEGER, BIGINT, DOUBLE, DECIMAL, NUMERIC, STRING, TEXT, VARCHAR, DATE, TIMESTAMP";
    let options = "the options are event_time, entity, watermark_delay, allowed_lateness, max_ahead, max_age, idle_timeout, source, connection, topic, format, start, group, mode, outbox, table, columns, prefix, slot, publication, transactions, transaction_topic, unknown_fields, partitions, retention";
    let table = [
        ("CREATE STREAM s (a ^BIGNIT)", "unknown type `BIGNIT`", "did you mean `BIGINT`?"),
        ("CREATE STREAM s (a ^GEOMETRY)", "unknown type `GEOMETRY`", types),
        ("CREATE STREAM s (a ^FLOAT)", "unknown type `FLOAT`", "the type of floating point numbers is DOUBLE"),
        ("CREATE STREAM s (a ^DECIMAL(39,2))", "DECIMAL has 1 to 38 digits, not 39", ""),
        ("CREATE STREAM s (a ^VARCHAR(20))", "VARCHAR has no length", "write VARCHAR"),
        ("CREATE STREAM s (a INT, ^a INT)", "the column `a` is declared twice", ""),
        (
            "CREATE STREAM s (a INT PRIMARY KEY, b INT ^PRIMARY KEY)",
            "PRIMARY KEY stands behind one column only",
            "the key of a table may have several: PRIMARY KEY (a, b), behind all columns",
        ),
        ("CREATE STREAM s (a INT ^DEFAULT 1)", "DEFAULT is not supported", ""),
        (
            "CREATE STREAM s (a INT ^PRIMAY KEY)",
            "expected `,`, `)`, PRIMARY KEY, FROM, METADATA FROM or FORMAT, found `PRIMAY`",
            "did you mean `PRIMARY`?",
        ),
        (
            "CREATE STREAM ^s (at TIMESTAMP)",
            "a stream needs an event time",
            "add WITH (event_time = '..') with a TIMESTAMP column",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH ^(partitions = 1)",
            "a stream needs the option `event_time`, a TIMESTAMP column",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = ^'time')",
            "the stream has no column `time`",
            "`at` is a TIMESTAMP column",
        ),
        ("CREATE STREAM s (a INT) WITH (event_time = ^'a')", "the event time is a TIMESTAMP, but `a` is INT", ""),
        (
            "CREATE STREAM s (at TIMESTAMP, a INT ^NOT NULL) WITH (event_time = 'at')",
            "NOT NULL is only possible for the event time and the entity, which are never null",
            "every other column may be null: an event that lacks a field is still an event",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (^even_time = 'at')",
            "unknown option `even_time`",
            "did you mean `event_time`?",
        ),
        ("CREATE STREAM s (at TIMESTAMP) WITH (^colour = 'at')", "unknown option `colour`", options),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', ^event_time = 'at')",
            "the option `event_time` is given twice",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', watermark_delay = ^'1 minuet')",
            "unknown unit of time `minuet`",
            "did you mean `minute`?",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', max_ahead = ^'1 month')",
            "a MONTH has no fixed length",
            "the longest unit that has one is WEEK",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', max_ahead = ^'-1 day')",
            "`max_ahead` cannot be negative",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = ^'kafka')",
            "a stream that reads Kafka needs `connection`",
            "name a [connections.NAME] of trueup.toml with kind = \"kafka\"",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = ^'kafka', connection = 'main')",
            "a stream that reads Kafka needs `topic`",
            "add topic = '..'",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = ^'kafak')",
            "unknown source 'kafak'",
            "did you mean `kafka`?",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = ^'debezium')",
            "'debezium' is a record format, not a source",
            "write source = 'kafka' and format = 'debezium-json' or 'debezium-avro'",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', topic = ^'orders')",
            "`topic` is an option of streams that read a topic",
            "add source = 'kafka', or remove `topic`",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP, op STRING METADATA FROM ^'op') WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't')",
            "only row changes have this part, and the topic has another format",
            "set format = 'debezium-json' or 'debezium-avro', or remove the column",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP, h STRING METADATA FROM ^'header:') WITH (event_time = 'at')",
            "unknown part of a record 'header:'",
            "the parts of a record are timestamp, key, partition, offset, headers, op, source.timestamp, id, aggregatetype, aggregateid, type, lsn, header:NAME",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', format = ^'debezium_avro')",
            "unknown format 'debezium_avro'",
            "did you mean `debezium-avro`?",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = ^'a b')",
            "'a b' is not the name of a topic: 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', format = ^'jsn')",
            "unknown format 'jsn'",
            "did you mean `json`?",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', start = ^'newest')",
            "cannot start at 'newest'",
            "write 'earliest', 'latest', a time such as '2026-11-01T00:00:00Z', or offsets such as '0:42,1:7'",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', partitions = ^3)",
            "the partitions of the stream are those of the topic; remove `partitions`",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP, k STRING) WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', entity = ^'k')",
            "`entity` is not supported for streams that read a topic: its partitions need not follow the entity",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP METADATA FROM ^'timestmp') WITH (event_time = 'at')",
            "unknown part of a record 'timestmp'",
            "did you mean `timestamp`?",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP, o INT METADATA FROM ^'offset') WITH (event_time = 'at')",
            "the offset of a record is BIGINT, but `o` is INT",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP METADATA FROM ^'timestamp') WITH (event_time = 'at')",
            "METADATA is of records of a topic, and this stream reads none",
            "add source = 'kafka' with connection and topic, or remove METADATA",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp' ^FORMAT 'unix_s') WITH (event_time = 'at')",
            "FORMAT is for values in events; METADATA needs none",
            "",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', unknown_fields = ^'rejct')",
            "unknown value 'rejct' of `unknown_fields`",
            "did you mean `reject`?",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', partitions = ^0)",
            "`partitions` is a number from 1 to 256",
            "",
        ),
        ("CREATE STREAM s (at TIMESTAMP) WITH (event_time = ^at)", "expected a value in single quotes, found `at`", ""),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at') ^AS SELECT 1",
            "expected the end of the statement, found `AS`",
            "",
        ),
    ];
    check(&table, str::to_owned);
}

#[test]
fn wrong_views_are_explained() {
    let table = [
        (
            "SELECT origin, COUNT(*) AS n FROM ^flight GROUP BY origin",
            "unknown stream `flight`",
            "did you mean `flights`?",
        ),
        ("SELECT COUNT(*) AS n ^FORM flights", "expected `,`, AS or FROM, found `FORM`", "did you mean `FROM`?"),
        (
            "SELECT COUNT(*) ^n FROM flights",
            "expected an operator or the end of the expression, found `n`",
            "a name is given with AS: `AS n`",
        ),
        ("SELECT ^COUNT(*) FROM flights", "a measure needs a name", "add AS and a name"),
        (
            "SELECT origin, ^delay_min, COUNT(*) AS n FROM flights GROUP BY origin",
            "delay_min is neither grouped by nor inside an aggregate",
            "add delay_min to GROUP BY, or aggregate it, such as MAX(delay_min)",
        ),
        (
            "SELECT SUM(seats) + ^delay_min AS n FROM flights",
            "delay_min is neither grouped by nor inside an aggregate",
            "add delay_min to GROUP BY, or aggregate it, such as MAX(delay_min)",
        ),
        (
            "SELECT SUM(seats) + ^delay_min AS n FROM flights GROUP BY delay_min",
            "a measure is made of aggregates and constants, delay_min is a dimension",
            "use an aggregate, such as MAX(delay_min)",
        ),
        (
            "SELECT ^scheduled_at, COUNT(*) AS n FROM flights",
            "scheduled_at is neither grouped by nor inside an aggregate",
            "select window_start, with GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR)",
        ),
        (
            "SELECT ^delay_min + 1 AS d, COUNT(*) AS n FROM flights GROUP BY delay_min",
            "this expression is not grouped by",
            "repeat the whole expression in GROUP BY",
        ),
        (
            "SELECT ^delay_min + 1, COUNT(*) AS n FROM flights GROUP BY 1",
            "a grouped expression needs a name",
            "add AS and a name",
        ),
        (
            "SELECT COUNT(*) AS n FROM flights GROUP BY ^delay_min / 2",
            "a grouped expression needs a name",
            "select it with AS and a name",
        ),
        (
            "^SELECT origin FROM flights GROUP BY origin",
            "a view needs at least one measure",
            "add one, such as COUNT(*) AS events",
        ),
        (
            "SELECT ^1 AS one, COUNT(*) AS n FROM flights",
            "a constant is neither a dimension nor a measure",
            "measures are made of aggregates, such as COUNT(*)",
        ),
        ("SELECT COUNT(*) AS n, SUM(seats) AS ^n FROM flights", "there are two columns called `n`", ""),
        ("SELECT COUNT(*) AS ^window_start FROM flights", "the name `window_start` is reserved", &reserved_names()),
        (
            "SELECT ^window_start, COUNT(*) AS n FROM flights",
            "the view has no window",
            "add GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR)",
        ),
        (
            "SELECT COUNT(*) AS n FROM flights GROUP BY TUMBLE(^delay_min, INTERVAL '1' HOUR)",
            "TUMBLE cuts the event time, and `delay_min` is not it",
            "the event time is `scheduled_at`",
        ),
        (
            "SELECT COUNT(*) AS n FROM flights GROUP BY TUMBLE(^schedule_at, INTERVAL '1' HOUR)",
            "unknown column `schedule_at`",
            "did you mean `scheduled_at`?",
        ),
        (
            "SELECT COUNT(*) AS n FROM flights GROUP BY TUMBLE(scheduled_at, ^INTERVAL '0' HOUR)",
            "the size of a window is longer than nothing",
            "",
        ),
        (
            "SELECT COUNT(*) AS n FROM flights GROUP BY TUMBLE(scheduled_at, ^60)",
            "this has to be an INTERVAL",
            "write INTERVAL '1' HOUR",
        ),
        (
            "SELECT COUNT(*) AS n FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), ^TUMBLE(scheduled_at, INTERVAL '1' DAY)",
            "a view has at most one window",
            "",
        ),
        ("SELECT COUNT(*) AS n FROM flights GROUP BY origin, ^origin", "this is grouped by twice", ""),
        ("SELECT COUNT(*) AS n FROM flights GROUP BY ^3", "SELECT has 1 columns, not 3", ""),
        ("SELECT SUM(seats) ^OVER () AS n FROM flights", "OVER is not supported yet", ""),
        ("SELECT COUNT(*) AS n FROM flights GROUP BY origin ^ORDER BY 1", "ORDER BY is not supported yet", ""),
        ("SELECT COUNT(*) AS n FROM flights ^LIMIT 1", "LIMIT is not supported yet", ""),
        ("SELECT ^DISTINCT COUNT(*) AS n FROM flights", "DISTINCT is not supported yet", ""),
        ("SELECT COUNT(*) AS n FROM ^(SELECT 1)", "subqueries are not supported yet", ""),
        ("SELECT COUNT(*) AS n FROM flights WHERE seats IN (^SELECT 1)", "subqueries are not supported yet", ""),
        ("SELECT COUNT(*) AS n FROM flights ^UNION SELECT 1", "UNION is not supported yet", ""),
        ("^WITH a AS (SELECT 1) SELECT COUNT(*) AS n FROM a", "WITH is not supported yet", ""),
        ("SELECT ^* FROM flights", "a view names its columns one by one, not with `*`", "did you mean COUNT(*)?"),
        (
            "SELECT COUNT(*) AS n FROM flights ^WERE seats > 1",
            "expected WHERE, GROUP BY, HAVING or the end of the statement, found `WERE`",
            "did you mean `WHERE`?",
        ),
        ("SELECT ^COUNT(*) FILTER AS n FROM flights", "a part of this expression is not supported", ""),
        ("SELECT SUM(^origin) AS n FROM flights", "SUM needs a number, this is STRING", ""),
        ("SELECT MAX(^MAX(seats)) AS n FROM flights", "an aggregate cannot stand inside an aggregate", ""),
        (
            "SELECT COUNT(*) AS n FROM flights WHERE ^COUNT(*) > 1",
            "the aggregate COUNT cannot stand in WHERE",
            "a condition on aggregates belongs in HAVING, behind GROUP BY",
        ),
        ("SELECT COUNT(*) FILTER (WHERE ^seats) AS n FROM flights", "FILTER needs a BOOLEAN, this is INT", ""),
        ("SELECT ^SUM(seats, 1) AS n FROM flights", "SUM takes 1 argument, not 2", ""),
        ("SELECT ^SUM(*) AS n FROM flights", "SUM(*) means nothing", "only COUNT takes `*`"),
        ("SELECT ^MIN(seats) IGNORE NULLS AS n FROM flights", "this form of MIN is not supported", ""),
    ];
    check(&table, |text| format!("CREATE VIEW v AS {text}"));
    let options = [
        (
            "CREATE VIEW v WITH (^shedule = '* * * * *') AS SELECT 1",
            "unknown option `shedule`",
            "did you mean `schedule`?",
        ),
        (
            "CREATE VIEW v WITH (schedule = ^'* * *') AS SELECT 1",
            "a schedule has 5 fields (minute hour day month weekday), \"* * *\" has 3",
            "",
        ),
        (
            "CREATE VIEW v WITH (time_zone = ^'Europe/Berln') AS SELECT 1",
            "there is no time zone \"Europe/Berln\"; zones are named like Europe/Vienna, America/New_York or UTC",
            "did you mean `Europe/Berlin`?",
        ),
        (
            "CREATE VIEW v WITH (time_zone = ^'new york') AS SELECT 1",
            "there is no time zone \"new york\"; zones are named like Europe/Vienna, America/New_York or UTC",
            "did you mean `America/New_York`?",
        ),
        (
            "CREATE VIEW v WITH (versions_kept = ^0) AS SELECT 1",
            "`0` is not a number from 1 to 10000",
            "1 keeps only the version that answers",
        ),
        (
            "CREATE VIEW v WITH (layers = ^'batch') AS SELECT 1",
            "`batch` is not `both` or `speed`",
            "both: batch runs make the figures exact; speed: there are no batch runs",
        ),
        (
            "CREATE VIEW v WITH (^version_kept = 3) AS SELECT 1",
            "unknown option `version_kept`",
            "did you mean `versions_kept`?",
        ),
        (
            "CREATE VIEW v WITH (retention = ^'36 hours') AS SELECT 1",
            "retention is a number of whole days, weeks, months or years",
            "write '90 days' or '5 years'",
        ),
        (
            "CREATE VIEW v WITH (retention = ^'5 yeers') AS SELECT 1",
            "unknown unit of time `yeers`",
            "did you mean `year`?",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at'); \
             CREATE VIEW v WITH (retention = ^'5 years') AS SELECT COUNT(*) AS n FROM s",
            "the view has one window over all time, which cannot be dropped in part",
            "leave retention out, or add a window to GROUP BY",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', retention = ^'2 hours')",
            "retention is a number of whole days, weeks, months or years",
            "write '90 days' or '5 years'",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', retention = '2 years'); \
             CREATE VIEW ^v AS SELECT COUNT(*) AS n FROM s",
            "`v` adds up all time, but its stream `s` keeps its events for 2 years only",
            "add a window to GROUP BY, such as TUMBLE(at, INTERVAL '1' DAY): windows stay when their events are gone, and \
             grain=all adds them up; or leave out the retention of the stream",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at'); CREATE VIEW v WITH (retention = ^'7 days') AS \
             SELECT COUNT(*) AS n FROM s GROUP BY SLIDE(at, INTERVAL '7' DAY)",
            "retention must be longer than the trailing window by at least a day",
            "",
        ),
        (
            "CREATE VIEW v WITH (schedule = '@daily', schedule_time_zone = ^'Europe/Berln') AS SELECT 1",
            "there is no time zone \"Europe/Berln\"; zones are named like Europe/Vienna, America/New_York or UTC",
            "did you mean `Europe/Berlin`?",
        ),
        (
            "CREATE VIEW v WITH (schedule_time_zone = ^'Europe/Berlin') AS SELECT 1",
            "`schedule_time_zone` without a schedule",
            "add schedule = '0 2 * * *', or leave it out",
        ),
    ];
    check(&options, str::to_owned);
}

#[test]
fn wrong_expressions_are_explained() {
    let table = [
        ("^orgin = 'ATL'", "unknown column `orgin`", "did you mean `origin`?"),
        ("seats > 1 AND\n  ^UPER(origin) = 'A'", "unknown function `uper`", "did you mean `upper`?"),
        ("delay_min = ^'5'", "BIGINT and STRING cannot be compared", "write the number without quotes"),
        ("scheduled_at > ^'soon'", "'soon' is not a TIMESTAMP such as '2001-01-31T06:00:00Z'", ""),
        ("flown_on > DATE ^'soon'", "'soon' is not a DATE such as '2001-01-31'", ""),
        ("cancelled = ^1", "BOOLEAN and BIGINT cannot be compared", "write CAST(.. AS ..) to say what is meant"),
        ("^origin + 1 > 0", "`+` needs a number, this is STRING", ""),
        (
            "^scheduled_at - scheduled_at > 0",
            "`-` needs a number, this is TIMESTAMP",
            "move by an INTERVAL, or compute with EXTRACT(EPOCH FROM ..)",
        ),
        ("^seats", "WHERE needs a BOOLEAN, this is INT", ""),
        ("cancelled AND ^seats", "AND needs a BOOLEAN, this is INT", ""),
        (
            "CASE WHEN cancelled THEN 1 ELSE ^'a' END = 1",
            "BIGINT and STRING cannot be results of one CASE",
            "write the number without quotes",
        ),
        ("CAST(^cancelled AS TIMESTAMP) IS NULL", "BOOLEAN cannot be cast to TIMESTAMP", ""),
        ("^CAST(seats AS BIGNIT) = 1", "unknown type `BIGNIT`", "did you mean `BIGINT`?"),
        ("seats IN (1, ^delay_min)", "IN takes a list of constants", ""),
        ("origin LIKE ^destination", "the pattern of LIKE is a constant text", ""),
        ("origin LIKE 'a' ESCAPE ^'ab'", "ESCAPE is followed by one character in quotes", ""),
        ("^seats LIKE 'a'", "LIKE needs a STRING, this is INT", "write CAST(.. AS STRING)"),
        (
            "^EXTRACT(CENTURY FROM scheduled_at) = 1",
            "EXTRACT(CENTURY FROM ..) is not supported",
            "parts are YEAR, QUARTER, MONTH, WEEK, DAY, DOW, DOY, HOUR, MINUTE, SECOND, EPOCH",
        ),
        (
            "DATE_TRUNC(^'hours', scheduled_at) = '2001-01-01'",
            "the first argument of DATE_TRUNC is a unit in quotes",
            "did you mean `hour`?",
        ),
        (
            "scheduled_at + ^INTERVAL '1' YEAR > '2001-01-01'",
            "a YEAR has no fixed length",
            "the longest unit that has one is WEEK",
        ),
        ("^seats | 1 = 1", "the operator `|` is not supported", ""),
        ("^origin ~ 'a'", "the operator `~` is not supported", ""),
        ("seats > 1 +^", "expected an expression", ""),
        ("seats > ^) 1", "expected an expression", ""),
        ("^price % 2 = 0", "`%` of DECIMAL is not supported yet", "CAST both sides to BIGINT or DOUBLE"),
        (
            "seats > ^99999999999999999999",
            "`99999999999999999999` does not fit BIGINT; write 99999999999999999999.0 for a DOUBLE",
            "",
        ),
        ("^flight.origin = 'A'", "unknown name `flight` before the point", "columns are those of `flights`"),
        (
            "^window_start > '2001-01-01'",
            "`window_start` can only be a column of its own in SELECT",
            "and it needs a window, such as GROUP BY TUMBLE(..)",
        ),
        ("ROUND(distance, ^seats) > 1", "the digits of ROUND are a constant from 0 to 15", ""),
        ("^NULLIF(seats) > 1", "NULLIF takes 2 arguments, not 1", ""),
        ("^seats IS DISTINCT FROM 1", "this form of expression is not supported", ""),
        (
            "origin = ^CURRENT_USER",
            "unknown column `CURRENT_USER`",
            "the columns are flight_id, scheduled_at, flown_on, origin, destination, delay_min, seats, distance, price, cancelled",
        ),
        ("scheduled_at > ^CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP needs parentheses, and is not supported", ""),
    ];
    check(&table, |text| format!("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights WHERE {text}"));
}

#[test]
fn every_statement_reports_its_first_mistake_only() {
    let errors = parse(
        "CREATE STREAM a (at TIME);
         CREATE VIEW v AS SELECT COUNT(*) AS n FROM a;
         CREATE VIEW w AS SELECT COUNT(*) AS n FROM nowhere;",
    )
    .expect_err("two mistakes");
    let places: Vec<_> = errors.iter().map(|error| error.line()).collect();
    assert_eq!(places, [1, 3]);
}

#[test]
fn errors_name_their_file() {
    let files = [("a.sql".to_owned(), String::new()), ("b.sql".to_owned(), "\n\n CREATE x".to_owned())];
    let errors = parse_definitions(&files).expect_err("wrong");
    assert_eq!(errors[0].to_string(), "b.sql:3:9: expected STREAM, TABLE, VIEW, ALERT or SINK, found `x`");
}

#[test]
fn predicates_are_one_complete_expression() {
    let columns = [("flights".to_owned(), DataType::BigInt), ("origin".to_owned(), DataType::String)];
    for (text, message) in [
        ("", "expected an expression"),
        ("flights > 1; DROP", "expected an operator or the end of the expression, found `;`"),
        ("flights > 1 ORDER BY 1", "expected an operator or the end of the expression, found `ORDER`"),
        ("COUNT(*) > 1", "the aggregate COUNT cannot stand in the where of a query"),
        ("flight > 1", "unknown column `flight`"),
        ("flights", "where needs a BOOLEAN, this is BIGINT"),
    ] {
        assert_eq!(parse_predicate(text, &columns).expect_err(text).message(), message, "{text}");
    }
}

#[test]
fn the_caret_stands_under_the_mistake() {
    let errors = parse("CREATE VIEW v AS\nSELECT COUNT(*) AS n\nFROM flights WHERE orgin = 'é';").expect_err("wrong");
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none()).with_width(80);
    let mut text = String::new();
    handler.render_report(&mut text, &errors[0]).expect("it renders");
    for part in ["unknown column `orgin`", "t.sql:3:20", "did you mean `origin`?"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn wrong_entities_are_explained() {
    let table = [
        ("^'ordr_id'", "the stream has no column `ordr_id`", "did you mean `order_id`?"),
        ("^'at'", "the entity is a STRING, INT or BIGINT, but `at` is TIMESTAMP", ""),
        ("^'ratio'", "the entity is a STRING, INT or BIGINT, but `ratio` is DOUBLE", ""),
        (
            "^'id'",
            "`id` is the PRIMARY KEY: an entity would have one event only",
            "the PRIMARY KEY names the event, the entity what it is about",
        ),
        (
            "'ORDER_ID', retention = ^'1 year'",
            "a stream with an entity keeps all its events: `retention` would leave gaps in their sequences",
            "remove `retention` or `entity`",
        ),
    ];
    check(&table, |entity| {
        format!(
            "CREATE STREAM s (id STRING PRIMARY KEY, order_id STRING NOT NULL, ratio DOUBLE, at TIMESTAMP)\n\
             WITH (event_time = 'at', entity = {entity})"
        )
    });
}
