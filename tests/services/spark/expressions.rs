//! Random expressions over rows of edge cases have the same values on Spark as in Trueup's own batch layer, read from the archive
//! that a real server has written.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use shared::sql::parse_definitions;
use shared::view::View;
use world::World;
use world::oracle::table::equal;
use world::oracle_check::published;

use super::driver::shared;

/// Expressions of one view: few, since a view that builds many texts is refused.
const EXPRESSIONS: usize = 4;
const STREAM: &str = "CREATE STREAM cells (id STRING PRIMARY KEY, at TIMESTAMP, b BOOLEAN, i INT, n BIGINT, m BIGINT, x DOUBLE, \
    y DOUBLE, c DECIMAL(20,3), e DECIMAL(9,2), s STRING, u STRING, d DATE, t TIMESTAMP) WITH (event_time = 'at', max_ahead = '100 days');\n";

/// Events of the stream.
const ROWS: u32 = 150;

/// The type of a generated expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Boolean,
    BigInt,
    Double,
    Decimal,
    Text,
    Date,
    Time,
}

const TYPES: [Type; 7] = [Type::Boolean, Type::BigInt, Type::Double, Type::Decimal, Type::Text, Type::Date, Type::Time];

/// Number of views; `TRUEUP_CASES` sets it for a longer search.
fn cases() -> usize {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40)
}

fn rows(random: &mut StdRng) -> String {
    let mut row = |number: u32| {
        let mut maybe = |values: &[Value]| match random.random_bool(0.15) {
            true => Value::Null,
            false => values.choose(random).cloned().expect("a value"),
        };
        let integers: Vec<Value> =
            [i64::MIN, i64::MAX, 0, 1, -1, 2, 7, -3, 1 << 53, -(1 << 62)].map(Value::from).into();
        let doubles: Vec<Value> =
            [0.0, -0.0, 0.5, 1.5, 2.5, -2.5, 1e18, -1e300, 1e300, 5e-324, 1.005, -7.25, 9.3e18, 3.0]
                .map(Value::from)
                .into();
        let decimals: Vec<Value> =
            ["0", "99999999999999999.999", "-99999999999999999.999", "2.500", "-2.500", "0.001", "-1.005", "17"]
                .map(Value::from)
                .into();
        let small: Vec<Value> = ["0", "9999999.99", "-0.01", "12.50", "-3"].map(Value::from).into();
        let texts: Vec<Value> = [
            "",
            "a",
            "A",
            "ab",
            "aé%",
            "_",
            "12",
            " 7 ",
            "2001-02-03",
            "NaN",
            "true",
            "a\nb",
            "x.y",
            "ß",
            "-Infinity",
            "1e5",
            "+5",
            "\u{212a}k",
            "ΣΑΣ",
            "😀 \\'x",
            "  x",
            "1d",
            "0x1",
            "99999999999999999999",
            ".5",
            "5.",
            "\u{3000}4\u{a0}",
            "İı",
            "2001-2-3",
        ]
        .map(Value::from)
        .into();
        let days: Vec<Value> = ["0002-01-01", "1969-12-31", "1970-01-01", "2024-02-29", "9998-12-31", "2001-01-01"]
            .map(Value::from)
            .into();
        let times: Vec<Value> = [
            "0002-01-01T00:00:00Z",
            "1969-12-31T23:59:59.999999Z",
            "1970-01-01T00:00:00Z",
            "2024-12-30T05:06:07.5Z",
            "9998-12-31T23:59:59Z",
            "2001-07-01T12:00:00.000001Z",
            "1883-11-18T17:00:00Z",
        ]
        .map(Value::from)
        .into();
        let line = json!({
            "id": format!("r{number}"), "at": "2024-06-01T00:00:00Z", "b": maybe(&[json!(true), json!(false)]),
            "i": maybe(&[json!(i32::MIN), json!(i32::MAX), json!(0), json!(5)]), "n": maybe(&integers), "m": maybe(&integers),
            "x": maybe(&doubles), "y": maybe(&doubles), "c": maybe(&decimals), "e": maybe(&small), "s": maybe(&texts), "u": maybe(&texts),
            "d": maybe(&days), "t": maybe(&times),
        });
        line.to_string() + "\n"
    };
    (0..ROWS).map(&mut row).collect()
}

/// Writes random expressions as SQL of the dialect.
struct Writer<'r> {
    random: &'r mut StdRng,
}

impl Writer<'_> {
    fn one(&mut self, of: &[&str]) -> String {
        (*of.choose(self.random).expect("one")).to_owned()
    }

    fn leaf(&mut self, of: Type) -> String {
        self.one(match of {
            Type::Boolean => &["b", "b", "TRUE", "CAST(NULL AS BOOLEAN)"],
            Type::BigInt => &["n", "m", "n", "i", "3", "0", "-1", "9223372036854775807", "CAST(NULL AS BIGINT)"],
            Type::Double => &["x", "y", "x", "1e0", "0e0", "2.5e0", "-1e300"],
            Type::Decimal => &["c", "e", "c", "CAST('1.005' AS DECIMAL(20,3))"],
            Type::Text => &["s", "u", "s", "'a'", "''", "'x''\\y'", "'ß'"],
            Type::Date => &["d", "d", "DATE '2001-02-03'"],
            Type::Time => &["t", "t", "at", "TIMESTAMP '2001-02-03T04:05:06Z'"],
        })
    }

    fn write(&mut self, of: Type, depth: u32) -> String {
        if depth == 0 || self.random.random_bool(0.1) {
            return self.leaf(of);
        }
        let depth = depth - 1;
        if self.random.random_bool(0.15) {
            let (a, b) = (self.write(of, depth), self.write(of, depth));
            let c = self.write(Type::Boolean, depth);
            return match self.random.random_range(0..5) {
                0 => format!("CASE WHEN {c} THEN {a} ELSE {b} END"),
                1 => format!("COALESCE({a}, {b})"),
                2 => format!("GREATEST({a}, {b})"),
                3 => format!("LEAST({a}, {b})"),
                _ => format!("NULLIF({a}, {b})"),
            };
        }
        match of {
            Type::Boolean => self.condition(depth),
            Type::BigInt => self.whole(depth),
            Type::Double => self.double(depth),
            Type::Decimal => self.decimal(depth),
            Type::Text => self.text(depth),
            Type::Date => match self.random.random_bool(0.5) {
                true => format!("CAST({} AS DATE)", self.write(Type::Time, depth)),
                false => format!("CAST({} AS DATE)", self.write(Type::Text, depth)),
            },
            Type::Time => match self.random.random_range(0..3) {
                0 => format!("CAST({} AS TIMESTAMP)", self.write(Type::Date, depth)),
                1 => format!("({} + INTERVAL '90' MINUTE)", self.write(Type::Time, depth)),
                _ => {
                    let unit = self.one(&["second", "minute", "hour", "day", "week", "month", "quarter", "year"]);
                    format!("DATE_TRUNC('{unit}', {})", self.write(Type::Time, depth))
                }
            },
        }
    }

    fn condition(&mut self, depth: u32) -> String {
        let (a, b) = (self.write(Type::Boolean, depth), self.write(Type::Boolean, depth));
        let text = self.write(Type::Text, depth);
        match self.random.random_range(0..9) {
            0 => format!("({a} AND {b})"),
            1 => format!("({a} OR {b})"),
            2 => format!("(NOT {a})"),
            3 => {
                let of = *TYPES.choose(self.random).expect("one");
                format!("({} IS NULL)", self.write(of, depth))
            }
            4 => {
                let pattern = self.one(&["a%", "%_", "_", "%\\%", "A_%b", "x.y", "%é%", "ıi", "k%"]);
                let like = self.one(&["LIKE", "ILIKE", "NOT LIKE"]);
                format!("({text} {like} '{pattern}')")
            }
            5 => {
                let name = self.one(&["STARTS_WITH", "ENDS_WITH", "CONTAINS"]);
                format!("{name}({text}, {})", self.write(Type::Text, 0))
            }
            6 => format!("({} IN (3, 0, NULL, 9223372036854775807))", self.write(Type::BigInt, depth)),
            7 => format!("({} IN (0e0, 2.5e0, 1e300))", self.write(Type::Double, depth)),
            _ => {
                let of = *TYPES.choose(self.random).expect("one");
                let op = self.one(&["=", "<>", "<", "<=", ">", ">="]);
                format!("({} {op} {})", self.write(of, depth), self.write(of, depth))
            }
        }
    }

    fn whole(&mut self, depth: u32) -> String {
        let (a, b) = (self.write(Type::BigInt, depth), self.write(Type::BigInt, depth));
        match self.random.random_range(0..10) {
            0..=3 => format!("({a} {} {b})", self.one(&["+", "-", "*", "/", "%"])),
            4 => format!("(- {a})"),
            5 => format!("{}({a})", self.one(&["ABS", "SIGN"])),
            6 => format!("LENGTH({})", self.write(Type::Text, depth)),
            7 => {
                let part =
                    self.one(&["YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "DOW", "DOY", "HOUR", "MINUTE", "SECOND"]);
                format!("EXTRACT({part} FROM {})", self.write(Type::Time, depth))
            }
            8 => {
                let of = *[Type::Text, Type::Double, Type::Decimal, Type::Boolean].choose(self.random).expect("one");
                format!("CAST({} AS BIGINT)", self.write(of, depth))
            }
            _ => format!("CAST(CAST({a} AS INT) AS BIGINT)"),
        }
    }

    fn double(&mut self, depth: u32) -> String {
        let (a, b) = (self.write(Type::Double, depth), self.write(Type::Double, depth));
        match self.random.random_range(0..9) {
            0..=3 => format!("({a} {} {b})", self.one(&["+", "-", "*", "/", "%"])),
            4 => format!("(- {a})"),
            5 => format!("{}({a})", self.one(&["ABS", "SIGN", "FLOOR", "CEIL", "SQRT"])),
            6 => format!("ROUND({a}, {})", self.one(&["0", "2", "15"])),
            7 => format!("EXTRACT(EPOCH FROM {})", self.write(Type::Time, depth)),
            _ => {
                let of = *[Type::Text, Type::BigInt, Type::Decimal].choose(self.random).expect("one");
                format!("CAST({} AS DOUBLE)", self.write(of, depth))
            }
        }
    }

    fn decimal(&mut self, depth: u32) -> String {
        match self.random.random_range(0..7) {
            0..=1 => {
                let (a, b) = (self.leaf(Type::Decimal), self.leaf(Type::Decimal));
                format!("({a} {} {b})", self.one(&["+", "-", "*"]))
            }
            2 => format!("(- {})", self.write(Type::Decimal, depth)),
            3 => format!("{}({})", self.one(&["ABS", "FLOOR", "CEIL"]), self.leaf(Type::Decimal)),
            4 => format!("ROUND({}, {})", self.leaf(Type::Decimal), self.one(&["0", "1", "2", "5"])),
            5 => format!("CAST({} AS DECIMAL(15,3))", self.write(Type::Double, depth)),
            _ => {
                let of = *[Type::Text, Type::BigInt, Type::Decimal].choose(self.random).expect("one");
                let to = self.one(&["DECIMAL(20,3)", "DECIMAL(9,2)", "DECIMAL(38,10)", "DECIMAL(5,0)"]);
                format!("CAST({} AS {to})", self.write(of, depth))
            }
        }
    }

    fn text(&mut self, depth: u32) -> String {
        let a = self.write(Type::Text, depth);
        match self.random.random_range(0..8) {
            0 => format!("{}({a})", self.one(&["UPPER", "LOWER", "TRIM", "LTRIM", "RTRIM", "REVERSE"])),
            1 => {
                let (from, length) = (self.write(Type::BigInt, depth), self.write(Type::BigInt, depth));
                format!("SUBSTRING({a}, {from}, {length})")
            }
            2 => format!("SUBSTRING({a}, {}, {})", self.one(&["-1", "0", "1", "2"]), self.one(&["0", "1", "2", "9"])),
            3 => format!("SUBSTRING({a}, {})", self.write(Type::BigInt, depth)),
            4 => format!("{}({a}, {})", self.one(&["LEFT", "RIGHT"]), self.write(Type::BigInt, depth)),
            5 => format!("CONCAT({a}, {})", self.leaf(Type::Text)),
            6 => format!("REPLACE({a}, {}, 'é')", self.leaf(Type::Text)),
            _ => {
                let types = [Type::BigInt, Type::Boolean, Type::Decimal, Type::Date, Type::Time];
                let of = *types.choose(self.random).expect("one");
                format!("CAST({} AS STRING)", self.write(of, depth))
            }
        }
    }
}

/// The views that Spark can compute, as `trueup plan` prints them, by name; others, with the reason.
fn plans(world: &World, written: &[(String, Vec<String>)]) -> (BTreeMap<String, Value>, usize) {
    let parsed =
        parse_definitions(&[("test.sql".to_owned(), std::fs::read_to_string(world.definitions()).expect("a file"))]);
    let parsed = parsed.expect("parsed before");
    let refused = |view: &&View| spark::statement(view, &parsed.streams[0]).is_err();
    let possible: String =
        parsed.views.iter().filter(|view| !refused(view)).map(|view| format!("{};\n", view.sql)).collect();
    let file = world.data.path().join("possible.sql");
    std::fs::write(&file, format!("{STREAM}{possible}")).expect("written");
    let mut command = world.trueup();
    let output = command.arg("plan").arg(&file).arg("--data").arg(world.store()).args(["--engine", "spark"]).output();
    let output = output.expect("trueup runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let views = document["views"].as_array().expect("views").iter();
    let plans: BTreeMap<String, Value> =
        views.map(|plan| (plan["view"].as_str().expect("a name").to_owned(), plan.clone())).collect();
    let refused = written.len() - plans.len();
    (plans, refused)
}

#[test]
fn every_expression_has_the_same_value_on_spark() {
    let Some(mut spark) = shared() else { return };
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut writer = Writer { random: &mut random };
    let mut sql = STREAM.to_owned();
    let mut written = Vec::new();
    for number in 0..cases() {
        let expressions: Vec<String> = (0..EXPRESSIONS)
            .map(|_| {
                let of = *TYPES.choose(writer.random).expect("one");
                writer.write(of, 3)
            })
            .collect();
        let measures: Vec<String> =
            expressions.iter().enumerate().map(|(i, text)| format!("FIRST_VALUE({text}) AS m{i}")).collect();
        let view = format!("CREATE VIEW v{number} AS SELECT id, {} FROM cells GROUP BY id;\n", measures.join(", "));
        // Some are outside of the dialect, such as a DECIMAL with too many digits.
        let alone = format!("{STREAM}{view}");
        match parse_definitions(&[("test.sql".to_owned(), alone)]) {
            Ok(_) => {
                sql += &view;
                written.push((format!("v{number}"), expressions));
            }
            Err(errors) => println!("not in the dialect: {}", errors[0]),
        }
    }
    let world = World::new(&sql);
    let lines = rows(&mut random);
    let answer = world.post("/v1/events/cells", lines);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let names: Vec<&String> = written.iter().map(|(name, _)| name).collect();
    // The archive has every event once a run has waited for it.
    names.iter().for_each(|name| published(&world.run(name, false)));
    let (plans, refused) = plans(&world, &written);
    let mut compared = 0;
    for (name, expressions) in &written {
        let Some(plan) = plans.get(name) else { continue };
        assert_eq!((&plan["events"], &plan["table"]), (&json!(ROWS), &json!("trueup_events")));
        let expected = world.get(&format!("/v1/views/{name}/rows.json?limit=1000&layer=batch")).json();
        let found = spark.execute(plan).unwrap_or_else(|error| panic!("{name}: {error}"));
        let by_id = |rows: &Value, id: &Value| -> Value {
            let rows = rows["rows"].as_array().expect("rows");
            rows.iter().find(|row| row["id"] == *id).cloned().unwrap_or_else(|| panic!("no row {id}"))
        };
        assert_eq!(found["rows"].as_array().map(Vec::len), expected["rows"].as_array().map(Vec::len));
        for row in expected["rows"].as_array().expect("rows") {
            let other = by_id(&found, &row["id"]);
            for (at, expression) in expressions.iter().enumerate() {
                let measure = format!("m{at}");
                compared += 1;
                assert!(
                    equal(&other[&measure], &row[&measure], 0.0),
                    "{expression}: Spark has {}, batch {}; {}\n{}",
                    other[&measure],
                    row[&measure],
                    row["id"],
                    plan["query"].as_str().unwrap_or_default()
                );
            }
        }
    }
    println!("{compared} values equal; {refused} views refused");
    assert!(refused * 2 < written.len(), "most views can be computed");
}
