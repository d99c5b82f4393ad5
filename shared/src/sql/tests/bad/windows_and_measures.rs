//! Wrong windows, measures, HAVING and conditions of queries.

use super::check;
use crate::sql::parse_query_filter;
use crate::types::DataType;

#[test]
fn wrong_windows_are_explained() {
    let table = [
        (
            "^TUMBLE(scheduled_at)",
            "TUMBLE takes the event time, a size and perhaps an offset",
            "write TUMBLE(scheduled_at, INTERVAL '1' HOUR)",
        ),
        (
            "^HOP(scheduled_at, INTERVAL '1' HOUR)",
            "HOP takes the event time, a slide, a size and perhaps an offset",
            "write HOP(scheduled_at, INTERVAL '10' MINUTE, INTERVAL '1' HOUR)",
        ),
        (
            "^CUMULATE(scheduled_at)",
            "CUMULATE takes the event time, a step, the longest size and perhaps an offset",
            "write CUMULATE(scheduled_at, INTERVAL '1' HOUR, INTERVAL '1' DAY)",
        ),
        (
            "^SESSION(scheduled_at, INTERVAL '1' HOUR, INTERVAL '1' HOUR)",
            "SESSION takes the event time and a gap",
            "write SESSION(scheduled_at, INTERVAL '30' MINUTE)",
        ),
        (
            "^SLIDE()",
            "SLIDE takes the event time, a size and perhaps a resolution",
            "write SLIDE(scheduled_at, INTERVAL '1' HOUR)",
        ),
        ("^SESION(scheduled_at, INTERVAL '1' HOUR)", "unknown function `sesion`", "did you mean `session`?"),
        (
            "SESSION(^flown_on, INTERVAL '1' HOUR)",
            "SESSION cuts the event time, and `flown_on` is not it",
            "the event time is `scheduled_at`",
        ),
        ("^SLIDE(DISTINCT scheduled_at, INTERVAL '1' HOUR)", "DISTINCT is only possible with an aggregate", ""),
        ("TUMBLE(scheduled_at, ^INTERVAL '-1' MONTH)", "the size of a window is longer than nothing", ""),
        ("HOP(scheduled_at, ^INTERVAL '0' DAY, INTERVAL '1' DAY)", "the slide of a window is longer than nothing", ""),
        (
            "TUMBLE(scheduled_at, ^INTERVAL '1 month 2 days')",
            "months differ in length: they do not mix with shorter units",
            "write INTERVAL '1' MONTH, or days",
        ),
        (
            "TUMBLE(scheduled_at, ^INTERVAL '1' DECADE)",
            "unknown unit of time `DECADE`",
            "units are milliseconds, seconds, minutes, hours, days, weeks, months, quarters and years",
        ),
        (
            "TUMBLE(scheduled_at, INTERVAL '1' HOUR, ^INTERVAL '60' MINUTE)",
            "an offset is shorter than the window",
            "leave out whole windows",
        ),
        (
            "TUMBLE(scheduled_at, INTERVAL '1' WEEK, ^INTERVAL '1' MONTH)",
            "only windows of months move by months",
            "write an INTERVAL in days or hours",
        ),
        (
            "TUMBLE(scheduled_at, INTERVAL '1' YEAR, ^INTERVAL '-1' HOUR)",
            "months move by months, and by 0 to less than 28 days",
            "write INTERVAL '1' MONTH, or INTERVAL '6' HOUR",
        ),
        (
            "TUMBLE(scheduled_at, INTERVAL '1' YEAR, ^INTERVAL '28' DAY)",
            "months move by months, and by 0 to less than 28 days",
            "write INTERVAL '1' MONTH, or INTERVAL '6' HOUR",
        ),
        (
            "TUMBLE(scheduled_at, INTERVAL '1' YEAR, ^INTERVAL '-12' MONTH)",
            "an offset is shorter than the window",
            "leave out whole windows",
        ),
        (
            "HOP(scheduled_at, INTERVAL '1' DAY, ^INTERVAL '1' MONTH)",
            "the slide has a fixed length, the size counts months",
            "write both in months, quarters or years, or both in shorter units",
        ),
        (
            "HOP(scheduled_at, ^INTERVAL '1' SECOND, INTERVAL '10001' SECOND)",
            "an event would fall into 10001 windows, at most 10000 are possible",
            "slide by more, or use SLIDE, which looks back from any instant",
        ),
        (
            "HOP(scheduled_at, ^INTERVAL '100001' MILLISECOND, INTERVAL '100002' MILLISECOND)",
            "a window would be the sum of 100002 panes, at most 100000 are possible",
            "a pane divides both slide and size: choose a slide that divides the size",
        ),
        (
            "CUMULATE(scheduled_at, ^INTERVAL '7' HOUR, INTERVAL '1' DAY)",
            "the step has to divide the longest size",
            "such as INTERVAL '1' HOUR and INTERVAL '1' DAY",
        ),
        (
            "CUMULATE(scheduled_at, ^INTERVAL '2' DAY, INTERVAL '1' DAY)",
            "the step has to divide the longest size",
            "such as INTERVAL '1' HOUR and INTERVAL '1' DAY",
        ),
        (
            "CUMULATE(scheduled_at, ^INTERVAL '1' WEEK, INTERVAL '1' MONTH)",
            "months do not begin where such steps do",
            "step by days, by a length that divides a day, or by months",
        ),
        (
            "CUMULATE(scheduled_at, ^INTERVAL '5' MONTH, INTERVAL '1' YEAR)",
            "the step has to divide the longest size",
            "such as INTERVAL '1' HOUR and INTERVAL '1' DAY",
        ),
        (
            "CUMULATE(scheduled_at, INTERVAL '1' MONTH, ^INTERVAL '60' DAY)",
            "the step counts months, the longest size has a fixed length",
            "write both in months, quarters or years, or both in shorter units",
        ),
        (
            "CUMULATE(scheduled_at, ^INTERVAL '1' SECOND, INTERVAL '1' MONTH)",
            "an event could fall into 2678400 windows, at most 10000 are possible",
            "take longer steps",
        ),
        (
            "SESSION(scheduled_at, ^INTERVAL '1' MONTH)",
            "a MONTH has no fixed length",
            "the longest unit that has one is WEEK",
        ),
        ("SESSION(scheduled_at, ^INTERVAL '0' SECOND)", "the gap of a window is longer than nothing", ""),
        ("SLIDE(scheduled_at, ^'1 hour')", "this has to be an INTERVAL", "write INTERVAL '1' HOUR"),
        (
            "SLIDE(scheduled_at, INTERVAL '1' HOUR, ^INTERVAL '7' MINUTE)",
            "the resolution has to divide the size",
            "leave it out to look back from any microsecond",
        ),
    ];
    check(&table, |window| format!("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights GROUP BY {window}"));
    let elsewhere = [
        (
            "TUMBLE(scheduled_at, ^INTERVAL '1 day 12 hours')",
            "days of Europe/Berlin differ in length: they do not mix with shorter units",
            "write INTERVAL '36' HOUR, or whole days",
        ),
        (
            "HOP(scheduled_at, INTERVAL '6' HOUR, ^INTERVAL '1' DAY)",
            "the slide has a fixed length, the size counts days, which do not all have 24 hours",
            "write INTERVAL '24' HOUR instead of INTERVAL '1' DAY",
        ),
        (
            "CUMULATE(scheduled_at, INTERVAL '1' DAY, ^INTERVAL '48' HOUR)",
            "the step counts days, which do not all have 24 hours, the longest size has a fixed length",
            "write INTERVAL '24' HOUR instead of INTERVAL '1' DAY",
        ),
        (
            "CUMULATE(scheduled_at, ^INTERVAL '2' DAY, INTERVAL '1' MONTH)",
            "months do not begin where such steps do",
            "step by days, by a length that divides a day, or by months",
        ),
        (
            "TUMBLE(scheduled_at, INTERVAL '48' HOUR, ^INTERVAL '1' DAY)",
            "windows of a fixed length do not move by days of Europe/Berlin",
            "write INTERVAL '24' HOUR",
        ),
        (
            "TUMBLE(scheduled_at, INTERVAL '2' DAY, ^INTERVAL '48' HOUR)",
            "an offset is shorter than the window",
            "leave out whole windows",
        ),
    ];
    check(&elsewhere, |window| {
        format!(
            "CREATE VIEW v WITH (time_zone = 'Europe/Berlin') AS SELECT COUNT(*) AS n FROM flights GROUP BY {window}"
        )
    });
}

#[test]
fn wrong_measures_are_explained() {
    let within = "write PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY x)";
    let fraction = "the fraction of PERCENTILE_CONT is a constant from 0 to 1";
    let values = "the number of values of TOP_K is a constant from 1 to 1000";
    let json = "this aggregate gives JSON, which cannot be compared or computed with";
    let alone = "select it as a measure of its own";
    let table = [
        ("^STDEV(seats)", "unknown function `stdev`", "did you mean `stddev`?"),
        ("STDDEV(^origin)", "STDDEV needs a number, this is STRING", ""),
        ("VAR_POP(^cancelled)", "VAR_POP needs a number, this is BOOLEAN", ""),
        ("MEDIAN(^scheduled_at)", "MEDIAN needs a number, this is TIMESTAMP", ""),
        ("^VARIANCE(seats, 1)", "VARIANCE takes 1 argument, not 2", ""),
        (
            "^SUM(DISTINCT seats)",
            "SUM(DISTINCT ..) is not supported",
            "its states could not be merged; COUNT(DISTINCT ..) is possible",
        ),
        (
            "^AVG(DISTINCT seats)",
            "AVG(DISTINCT ..) is not supported",
            "its states could not be merged; COUNT(DISTINCT ..) is possible",
        ),
        ("^MEDIAN(DISTINCT seats)", "MEDIAN(DISTINCT ..) is not supported", "only COUNT, MIN and MAX take DISTINCT"),
        ("^UPPER(DISTINCT origin)", "DISTINCT is only possible with an aggregate", ""),
        ("^COUNT(DISTINCT origin, destination)", "COUNT takes 1 argument, not 2", ""),
        ("^COUNT(DISTINCT *)", "COUNT(DISTINCT *) means nothing", "name one column, such as COUNT(DISTINCT x)"),
        ("^PERCENTILE_CONT(0.5)", "PERCENTILE_CONT needs WITHIN GROUP", within),
        ("^PERCENTILE_CONT(seats, 0.5)", "PERCENTILE_CONT needs WITHIN GROUP", within),
        (
            "^PERCENTILE_CONT(seats, 0.5) WITHIN GROUP (ORDER BY seats)",
            "PERCENTILE_CONT takes 1 argument, not 2",
            within,
        ),
        (
            "^PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY seats, delay_min)",
            "PERCENTILE_CONT orders by one expression",
            within,
        ),
        ("PERCENTILE_CONT(^1.5) WITHIN GROUP (ORDER BY seats)", fraction, ""),
        ("PERCENTILE_CONT(^-0.5) WITHIN GROUP (ORDER BY seats)", fraction, ""),
        ("PERCENTILE_CONT(^95) WITHIN GROUP (ORDER BY seats DESC)", fraction, ""),
        ("PERCENTILE_CONT(^1.00001) WITHIN GROUP (ORDER BY seats DESC)", fraction, ""),
        ("PERCENTILE_CONT(^seats) WITHIN GROUP (ORDER BY seats)", fraction, ""),
        ("PERCENTILE_CONT(^NULL) WITHIN GROUP (ORDER BY seats)", fraction, ""),
        ("PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY ^origin)", "PERCENTILE_CONT needs a number, this is STRING", ""),
        (
            "PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY ^origin)",
            "PERCENTILE_DISC needs a number, DATE or TIMESTAMP, this is STRING",
            "",
        ),
        (
            "PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY ^seats NULLS FIRST)",
            "this order ignores NULLs, so they have no place in it",
            "",
        ),
        ("^SUM(seats) WITHIN GROUP (ORDER BY seats)", "SUM takes no WITHIN GROUP", ""),
        ("^TOP_K(origin)", "TOP_K takes 2 arguments, not 1", ""),
        ("TOP_K(origin, ^0)", values, ""),
        ("TOP_K(origin, ^1001)", values, ""),
        ("TOP_K(origin, ^seats)", values, ""),
        ("^TOP_K(origin, 3) + 1", "`+` needs a number, this is JSON", ""),
        ("^TOP_K(origin, 3) = TOP_K(destination, 3)", json, alone),
        ("COUNT(*) + CASE WHEN ^TOP_K(origin, 3) IS NULL THEN 1 ELSE 0 END", json, alone),
        ("CAST(^TOP_K(origin, 3) AS STRING)", json, alone),
        ("FIRST_VALUE(^LAST_VALUE(seats))", "an aggregate cannot stand inside an aggregate", ""),
        ("^FIRST_VALUE(seats ORDER BY delay_min)", "this form of FIRST_VALUE is not supported", ""),
        ("^MODE(seats)", "MODE is not supported yet", ""),
        ("^HOP(seats)", "HOP can only stand in GROUP BY", ""),
    ];
    check(&table, |measure| format!("CREATE VIEW v AS SELECT {measure} AS m FROM flights"));
}

#[test]
fn wrong_predicates_of_having_are_explained() {
    let table = [
        ("^n", "HAVING needs a BOOLEAN, this is BIGINT", ""),
        ("^m > 1", "unknown measure `m`", "the measures are n, top"),
        ("^topp > 1", "unknown measure `topp`", "did you mean `top`?"),
        ("^top IS NULL", "`top` is JSON, which cannot be compared or computed with", ""),
        (
            "^TOP_K(seats, 1) IS NULL",
            "this aggregate gives JSON, which cannot be compared or computed with",
            "select it as a measure of its own",
        ),
        (
            "n > 1 AND ^origin = 'ATL'",
            "HAVING is about measures, `origin` is a column",
            "put a condition on it into WHERE, or aggregate it, such as MAX(origin)",
        ),
        (
            "flights.^origin = 'ATL'",
            "HAVING is about measures, `origin` is a column",
            "put a condition on it into WHERE, or aggregate it, such as MAX(origin)",
        ),
        (
            "^window_start > '2001-01-01'",
            "HAVING is about measures, `window_start` is none",
            "choose times with `from` and `to` of a query",
        ),
        ("SUM(^sets) > 1", "unknown column `sets`", "did you mean `seats`?"),
    ];
    check(&table, |having| {
        format!(
            "CREATE VIEW v AS SELECT origin, COUNT(*) AS n, TOP_K(seats, 2) AS top FROM flights
             GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin HAVING {having}"
        )
    });
    let order = [
        ("SELECT COUNT(*) AS n FROM flights HAVING^", "expected an expression", ""),
        (
            "SELECT COUNT(*) AS n FROM flights HAVING n > 1 ^GROUP BY origin",
            "expected the end of the statement, found `GROUP`",
            "",
        ),
        (
            "SELECT COUNT(*) AS n FROM flights GROUP BY origin ^HAVIN n > 1",
            "expected an operator or the end of the expression, found `HAVIN`",
            "a name is given with AS: `AS HAVIN`",
        ),
        ("SELECT COUNT(*) AS n FROM flights HAVING n > 1 ^LIMIT 1", "LIMIT is not supported yet", ""),
    ];
    check(&order, |text| format!("CREATE VIEW v AS {text}"));
}

#[test]
fn wrong_conditions_of_queries_are_explained() {
    let dimensions = [("origin".to_owned(), DataType::String)];
    let measures = [("n".to_owned(), DataType::BigInt), ("top".to_owned(), DataType::Json)];
    for (text, message, help) in [
        ("origin", "where needs a BOOLEAN, this is STRING", ""),
        ("m > 1", "unknown column `m`", "the columns are origin, n, top"),
        ("n > 1 AND top IS NULL", "`top` is JSON, which cannot be compared or computed with", ""),
        (
            "window_start > '2001-01-01'",
            "`window_start` can only be a column of its own in SELECT",
            "choose times with `from` and `to`",
        ),
        (
            "COUNT(*) > 1",
            "the aggregate COUNT cannot stand in the where of a query",
            "aggregates are the measures of SELECT",
        ),
    ] {
        let error = parse_query_filter(text, &dimensions, &measures).expect_err(text);
        assert_eq!((error.message(), error.hint().unwrap_or_default()), (message, help), "{text}");
    }
}
