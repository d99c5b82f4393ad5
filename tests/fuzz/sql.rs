//! Parses mutated definitions and predicates: each is accepted or refused with a position, and accepted views can be read
//! back from their own statement.

use shared::sql::{Definitions, SqlError, parse_definitions, parse_predicate, parse_view};
use shared::types::DataType;

use crate::fuzzer::{Target, fuzz, kind_of};

const TOKENS: &[&str] = &[
    " CREATE STREAM ",
    " CREATE VIEW ",
    " AS SELECT ",
    " FROM ",
    " WHERE ",
    " GROUP BY ",
    " HAVING ",
    " WITH (",
    "event_time = 'at'",
    "COUNT(*)",
    "COUNT(DISTINCT ",
    "SUM(",
    "AVG(",
    "TOP_K(",
    "MEDIAN(",
    "PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY ",
    "FIRST_VALUE(",
    "TUMBLE(at, INTERVAL '1' HOUR)",
    "HOP(at, INTERVAL '1' HOUR, INTERVAL '1' DAY)",
    "SESSION(at, ",
    "CUMULATE(at, ",
    "SLIDE(at, ",
    "INTERVAL '",
    "' MONTH",
    " AT TIME ZONE 'Europe/Berlin'",
    " FILTER (WHERE ",
    " CASE WHEN ",
    " THEN ",
    " END",
    " IS NULL",
    " IN (",
    " BETWEEN ",
    " LIKE '",
    "CAST(",
    " AS DECIMAL(38,2))",
    "DATE '2001-01-01'",
    "TIMESTAMP '",
    "--",
    "/*",
    "*/",
    ";",
    "''",
    "\"",
    "(((((((((",
    ")))))))))",
    "NOT NOT NOT ",
    "- - - ",
    "||",
    "é",
    "\u{0}",
    "$$",
    "E'",
    "x'",
    "1e999",
];

/// The SQL of the dialect's documentation, of the flights, and of the tests.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for file in ["docs/dialect.md", "README.md", "docs/lateness.md"] {
        let text = std::fs::read_to_string(world::root().join(file)).expect("a document");
        seeds.extend(text.split("```sql").skip(1).filter_map(|rest| rest.split("```").next()).map(|sql| sql.into()));
    }
    let flights = world::flights_file().with_extension("sql");
    seeds.push(std::fs::read(flights).expect("the definitions of the flights"));
    seeds.retain(|seed: &Vec<u8>| seed.len() <= 4_096);
    assert!(seeds.len() > 5, "the documents have examples");
    seeds
}

#[test]
fn definitions_are_accepted_or_refused_and_can_be_read_back() {
    // Parts of the dialect's examples read these.
    let stream = "CREATE STREAM flights (id STRING PRIMARY KEY, at TIMESTAMP, scheduled_at TIMESTAMP, origin STRING, delay_min BIGINT,
        price DECIMAL(9,2), x DOUBLE, ok BOOLEAN) WITH (event_time = 'at');\n";
    let target = Target { name: "sql", seeds: seeds(), tokens: TOKENS, inputs: 12_000, ..Target::default() };
    fuzz(&target, |input| {
        let text = String::from_utf8_lossy(input).into_owned();
        let alone = parse_definitions(&[("a.sql".to_owned(), text.clone())]);
        check_definitions(&alone, &text);
        let files = [("s.sql".to_owned(), stream.to_owned()), ("a.sql".to_owned(), text.clone())];
        let read = parse_definitions(&files);
        check_definitions(&read, &text);
        match read {
            Ok(definitions) => {
                let functions: Vec<String> =
                    definitions.views.iter().map(|view| format!("{:?}", view.window)).collect();
                format!("{} {}", definitions.streams.len(), kind_of(&functions.join(" ")))
            }
            Err(errors) => kind_of(&errors[0].to_string()),
        }
    });
}

fn check_definitions(read: &Result<Definitions, Vec<SqlError>>, text: &str) {
    let definitions = match read {
        Ok(definitions) => definitions,
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without an error");
            errors.iter().filter(|error| error.file() == "a.sql").for_each(|error| check_error(error, text));
            return;
        }
    };
    for view in &definitions.views {
        let stream = definitions.streams.iter().find(|stream| stream.name == view.stream).expect("its stream");
        // As a version keeps the statement, and a restart reads it.
        let again = parse_view(stream, &view.joined_tables(), &view.sql)
            .unwrap_or_else(|error| panic!("cannot be read back: {error}: {}", view.sql));
        assert_eq!(again.definition_hash(), view.definition_hash(), "{}", view.sql);
    }
}

fn check_error(error: &SqlError, text: &str) {
    let (line, column) = (error.line(), error.column());
    let lines = text.split('\n').count();
    assert!((1..=lines).contains(&line) && column >= 1, "{error}: line {line}, column {column}");
    let width = text.split('\n').nth(line - 1).map_or(0, |line| line.chars().count());
    assert!(column <= width + 1, "{error}: column {column} of line {line} with {width} characters");
    assert!(!error.to_string().is_empty());
}

#[test]
fn predicates_are_accepted_or_refused_with_a_position() {
    let columns = [
        ("origin", DataType::String),
        ("n", DataType::BigInt),
        ("x", DataType::Double),
        ("ok", DataType::Boolean),
        ("at", DataType::Timestamp),
        ("price", DataType::Decimal { precision: 9, scale: 2 }),
    ]
    .map(|(name, data_type)| (name.to_owned(), data_type));
    let seeds = [
        "origin = 'ATL' AND n > 5",
        "x BETWEEN 0.5 AND 1e3 OR NOT ok",
        "origin IN ('a', 'b', '') AND origin LIKE '%x_'",
        "CASE WHEN n > 1 THEN price ELSE 0.5 END >= CAST(n AS DOUBLE) / 3",
        "at >= TIMESTAMP '2001-01-01 00:00:00' AND COALESCE(ok, TRUE)",
        "UPPER(origin) || 'x' <> LOWER(SUBSTR(origin, 1, 2))",
    ];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec()).to_vec();
    fuzz(&Target { name: "predicate", seeds, tokens: TOKENS, inputs: 20_000, ..Target::default() }, |input| {
        let text = String::from_utf8_lossy(input);
        match parse_predicate(&text, &columns) {
            Ok(scalar) => {
                assert_eq!(scalar.data_type, DataType::Boolean);
                let printed = shared::sql::print(&scalar, &|column| columns[column].0.clone());
                kind_of(&printed).chars().take(60).collect()
            }
            Err(error) => {
                check_error(&error, &text);
                kind_of(&error.to_string())
            }
        }
    });
}
