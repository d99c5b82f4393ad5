//! Tests what needs no Spark: the shape of queries, and the views that are refused.

use shared::sql::parse_definitions;

use crate::{Refusal, Scope, Statement, copies, statement, states};

const STREAM: &str = "CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP, region STRING, amount BIGINT, price DOUBLE, \
                      cost DECIMAL(30,2)) WITH (event_time = 'at');\n";

fn of(view: &str) -> Result<Statement, Refusal> {
    let text = format!("{STREAM}CREATE VIEW v AS {view};\n");
    let definitions = parse_definitions(&[("test.sql".to_owned(), text)]).expect("a definition");
    statement(&definitions.views[0], &definitions.streams[0])
}

fn refused(view: &str) -> String {
    of(view).expect_err("refused").to_string()
}

#[test]
fn every_stage_is_written_once() {
    let query = of(
        "SELECT region, COUNT(*) AS n, MEDIAN(price) AS m, PERCENTILE_DISC(0.9) WITHIN GROUP (ORDER BY price) AS p, \
                    TOP_K(amount, 3) AS t FROM events WHERE amount > 0 GROUP BY TUMBLE(at, INTERVAL '1' HOUR), region \
                    HAVING n > 1",
    )
    .expect("possible")
    .query;
    for stage in
        ["__events AS", "__placed AS", "__groups AS", "__top3 AS", "__rows AS", "AS __l0", "ORDER BY `_partition`"]
    {
        assert_eq!(query.matches(stage).count(), 1, "{stage} in {query}");
    }
    assert!(!query.contains("__l1") && query.ends_with("WHERE (__a0 > 1L)"), "{query}");
}

#[test]
fn views_that_would_differ_are_refused_with_the_part_and_the_reason() {
    for (view, part, reason) in [
        ("SELECT MIN(CAST(price AS STRING)) AS m FROM events", "measure m", "formats a DOUBLE differently"),
        ("SELECT MIN(CAST(region AS TIMESTAMP)) AS m FROM events", "measure m", "accepts other time formats"),
        ("SELECT SUM(cost) AS m FROM events", "measure m", "digits may overflow"),
        ("SELECT MAX(CAST(price AS DECIMAL(20,2))) AS m FROM events", "measure m", "more than 18 digits"),
        ("SELECT COUNT(*) AS n FROM events WHERE EXP(price) > 2", "WHERE", "in the last digit"),
        ("SELECT COUNT(DISTINCT LN(price)) AS m FROM events", "measure m", "in the last digit"),
        (
            "SELECT SUM(CASE WHEN EXP(price) > 2 THEN 1e0 ELSE 0e0 END) AS m FROM events",
            "measure m",
            "in the last digit",
        ),
        ("SELECT LN(price) AS d, COUNT(*) AS n FROM events GROUP BY d", "dimension d", "in the last digit"),
        ("SELECT MIN(REPLACE(region, 'a', region)) AS m FROM events", "view v", "does not limit the length of texts"),
    ] {
        let message = refused(view);
        assert!(message.contains(&format!("cannot compute {part} ")) && message.contains(reason), "{view}: {message}");
    }
    assert!(of("SELECT AVG(LN(price)) AS m FROM events").is_ok(), "an average passes the last digit through");
}

#[test]
fn a_query_that_grows_too_long_is_refused() {
    // Each division writes its divisor three times.
    let mut expression = "amount".to_owned();
    for _ in 0..14 {
        expression = format!("amount / ({expression} + 1)");
    }
    let message = refused(&format!("SELECT SUM({expression}) AS m FROM events"));
    assert!(message.contains("longer than 1000000 characters"), "{message}");
}

#[test]
fn texts_of_a_definition_stay_within_their_quotes() {
    let query = of("SELECT COUNT(*) AS n FROM events WHERE region = '''; DROP TABLE x; --\\'").expect("possible").query;
    assert!(query.contains("'\\u0027; DROP TABLE x; --\\u005C'"), "{query}");
}

fn states_of(view: &str, scope: &Scope) -> Result<String, Refusal> {
    let text = format!("{STREAM}CREATE VIEW v AS {view};\n");
    let definitions = parse_definitions(&[("test.sql".to_owned(), text)]).expect("a definition");
    states(&definitions.views[0], &definitions.streams[0], scope).map(|statement| statement.query)
}

#[test]
fn a_run_asks_for_every_part_of_a_state_once_and_only_for_its_windows() {
    let view = "SELECT region, COUNT(*) AS n, AVG(price) AS a, FIRST_VALUE(amount) AS f, MEDIAN(price) AS m, \
                COUNT(DISTINCT region) AS d, TOP_K(amount, 3) AS t FROM events GROUP BY TUMBLE(at, INTERVAL '1' HOUR), region \
                HAVING n > 1";
    let query = states_of(view, &Scope { dedup: false, starts: Some(vec![(0, 10), (20, 30)]) }).expect("possible");
    let (_, last) = query.rsplit_once("\nSELECT\n").expect("a last stage");
    for part in [
        "_state_0_count",
        "_state_1_sum",
        "_state_1_correction",
        "_state_1_count",
        "_state_2_time",
        "_state_2_offset",
        "_state_2_partition",
        "_state_2_value",
        "_state_3_kll",
        "_state_3_exact",
        "_state_4_hll",
        "_state_4_few",
        "_state_4_exact",
        "_state_5_top",
        "_state_5_total",
    ] {
        assert_eq!(last.matches(part).count(), 1, "{part} in {last}");
    }
    assert!(query.contains("WHERE (__s >= 0L AND __s < 10L) OR (__s >= 20L AND __s < 30L)"), "{query}");
    assert!(!query.contains("__copy"), "no event is a copy: {query}");
    assert!(!last.contains("WHERE"), "HAVING is for rows that are shown: {last}");
    assert!(states_of(view, &Scope { dedup: true, starts: None }).expect("possible").contains("__copy = 1"));
    let none = states_of(view, &Scope { dedup: false, starts: Some(Vec::new()) }).expect("possible");
    assert!(none.contains("FROM __placed WHERE false"), "{none}");
}

#[test]
fn a_run_over_all_time_has_one_date_and_needs_no_windows() {
    let scope = Scope { dedup: false, starts: Some(vec![(0, 1)]) };
    let query = states_of("SELECT SUM(amount) AS s FROM events", &scope).expect("possible");
    assert!(query.contains("0L AS __date") && !query.contains("__s "), "{query}");
    let definitions = parse_definitions(&[("test.sql".to_owned(), STREAM.to_owned())]).expect("a definition");
    let copies = copies(&definitions.streams[0]).expect("the stream has ids");
    assert!(copies.contains("__copy > 1") && copies.contains("`id` IS NOT NULL"), "{copies}");
}

#[test]
fn runs_refuse_sums_that_may_overflow_on_the_way() {
    for measure in ["SUM(cost)", "STDDEV(cost)"] {
        let refusal = states_of(&format!("SELECT {measure} AS m FROM events"), &Scope::default()).expect_err("refused");
        assert!(refusal.to_string().contains("digits may overflow"), "{measure}: {refusal}");
    }
}

#[test]
fn variances_of_integers_are_sums_of_halves_and_those_of_doubles_take_two_passes() {
    let view = "SELECT VAR_POP(amount) AS a, STDDEV(price) AS b, VAR_SAMP(price) AS c FROM events \
                GROUP BY TUMBLE(at, INTERVAL '1' HOUR)";
    let query = states_of(view, &Scope::default()).expect("possible");
    for part in ["_state_0_high_low", "AS _state_1_power", "AS _state_2_squares", "__near0 AS", "__spread0 AS"] {
        assert!(query.contains(part), "{part} in {query}");
    }
    assert!(!query.contains("__near1"), "both of the same column share the passes: {query}");
    let plan = of(view).expect("possible").query;
    assert!(!plan.contains("var_pop(") && plan.contains("__near1"), "{plan}");
}

const TABLES: &str = "CREATE TABLE customers (id STRING PRIMARY KEY, tier STRING, region INT, at TIMESTAMP) WITH (event_time = 'at');
    CREATE TABLE regions (id BIGINT PRIMARY KEY, name STRING, at TIMESTAMP) WITH (event_time = 'at');
    CREATE STREAM orders (order_id STRING PRIMARY KEY, customer STRING, friend STRING, at TIMESTAMP) WITH (event_time = 'at');\n";

fn joined(select: &str, from: &str) -> Statement {
    let text = format!("{TABLES}CREATE VIEW v AS SELECT {select} FROM orders AS o {from};\n");
    let definitions = parse_definitions(&[("test.sql".to_owned(), text)]).unwrap_or_else(|errors| panic!("{errors:?}"));
    let scope = Scope { dedup: true, starts: None };
    let stream = definitions.streams.iter().find(|stream| stream.name.as_str() == "orders").expect("the stream");
    states(&definitions.views[0], stream, &scope).expect("possible")
}

#[test]
fn an_event_is_joined_with_the_versions_that_its_time_is_in_once_copies_are_removed() {
    let statement = joined(
        "c.tier, COUNT(*) FILTER (WHERE r.name IS NOT NULL) AS n, COUNT(f.tier) AS f, COUNT(c.id) AS ids",
        "JOIN customers AS c ON o.customer = c.id LEFT JOIN customers AS f ON f.id = o.friend \
         LEFT JOIN regions AS r ON r.id = c.region GROUP BY c.tier",
    );
    let time = "unix_micros(e.`at`) BETWEEN";
    for part in [
        "AS __copy FROM trueup_events) e LEFT JOIN trueup_versions0 l0".to_owned(),
        format!("LEFT JOIN trueup_versions0 l0 ON l0.__key = e.`customer` AND {time} l0.__first AND l0.__last"),
        format!("LEFT JOIN trueup_versions0 l1 ON l1.__key = e.`friend` AND {time} l1.__first AND l1.__last"),
        format!("LEFT JOIN trueup_versions2 l2 ON l2.__key = l0.__c2 AND {time} l2.__first AND l2.__last"),
        "l0.__c1 AS __d0".to_owned(),
        "l1.__c1 AS __x".to_owned(),
        "(NOT (l0.__key IS NULL))".to_owned(),
        "(__copy = 1 OR e.`order_id` IS NULL)".to_owned(),
    ] {
        assert_eq!(statement.query.matches(&part).count(), 1, "{part} in {}", statement.query);
    }
    let tables: Vec<(&str, &str, String)> =
        statement.versions.iter().map(|table| (table.name.as_str(), table.table.as_str(), table.schema())).collect();
    let of_customers = "__key STRING, __first BIGINT, __last BIGINT, __c1 STRING, __c2 INT".to_owned();
    let of_regions = "__key BIGINT, __first BIGINT, __last BIGINT, __c1 STRING".to_owned();
    assert_eq!(
        tables,
        [("trueup_versions0", "customers", of_customers), ("trueup_versions2", "regions", of_regions)],
        "each table once, with the columns that are read"
    );
}
