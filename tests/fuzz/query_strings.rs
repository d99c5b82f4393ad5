//! Parses mutated query strings for views of every window, as the endpoint of rows does: decoded by its HTTP library, then
//! accepted or refused by name and value.

use axum::extract::Query as Parameters;
use axum::http::Uri;
use serving::query::Query;
use shared::limits::QUERY_ROWS_MAX;
use shared::sql::parse_definitions;
use shared::view::View;

use crate::fuzzer::{Target, fuzz, kind_of};

const DEFINITIONS: &str = "
    CREATE STREAM flights (at TIMESTAMP, origin STRING, delay BIGINT, price DECIMAL(9,2)) WITH (event_time = 'at');
    CREATE VIEW hourly AS SELECT window_start, origin, COUNT(*) AS n, AVG(delay) AS mean, TOP_K(origin, 3) AS top
        FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin;
    CREATE VIEW hops AS SELECT window_start, SUM(price) AS total FROM flights GROUP BY HOP(at, INTERVAL '1' HOUR, INTERVAL '1' DAY);
    CREATE VIEW growing AS SELECT window_end, COUNT(*) AS n FROM flights GROUP BY CUMULATE(at, INTERVAL '1' HOUR, INTERVAL '1' DAY);
    CREATE VIEW visits AS SELECT window_start, origin, COUNT(*) AS n FROM flights GROUP BY SESSION(at, INTERVAL '30' MINUTE), origin;
    CREATE VIEW trailing AS SELECT origin, COUNT(*) AS n FROM flights GROUP BY SLIDE(at, INTERVAL '7' DAY, INTERVAL '1' HOUR), origin;
    CREATE VIEW months AS SELECT window_start, COUNT(*) AS n FROM flights GROUP BY TUMBLE(at, INTERVAL '1' MONTH);
    CREATE VIEW totals AS SELECT COUNT(*) AS n FROM flights;";

const TOKENS: &[&str] = &[
    "from=",
    "to=",
    "where=",
    "group_by=",
    "grain=",
    "measures=",
    "order_by=",
    "limit=",
    "cursor=",
    "layer=",
    "as_of=",
    "version=",
    "shape=",
    "&",
    "=",
    "origin",
    "delay",
    "n",
    "-n",
    "mean",
    "window_start",
    "latest",
    "now",
    "batch",
    "speed",
    "merged",
    "all",
    "1h",
    "1d",
    "1w",
    "1mo",
    "1y",
    "2001-01-01",
    "2001-01-01T00:00:00Z",
    "2001-01-01T00:00:00%2B02:00",
    "%27ATL%27",
    "%20AND%20",
    "%00",
    "%",
    "%F",
    "%C3%A9",
    "+",
    ",",
    "9999-12-31",
    "0001-01-01",
    "-9223372036854775808",
    "0-0-0-0",
    "array",
    "document",
];

fn views() -> Vec<View> {
    let files = [("test.sql".to_owned(), DEFINITIONS.to_owned())];
    parse_definitions(&files).unwrap_or_else(|errors| panic!("{}", errors[0])).views
}

#[test]
fn query_strings_are_accepted_or_refused() {
    let seeds = [
        "from=2001-01-01&to=2001-01-03&where=origin%20%3D%20%27ATL%27&group_by=origin&order_by=-n,origin&limit=10",
        "grain=1d&measures=n,mean&layer=batch",
        "as_of=2001-01-02T12:00:00Z&group_by=",
        "as_of=latest&limit=1000000&shape=array",
        "version=7&cursor=a-7-0123456789abcdef-",
        "grain=all&where=n+%3E+5+AND+mean+IS+NOT+NULL",
    ];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec()).to_vec();
    let views = views();
    fuzz(&Target { name: "query", seeds, tokens: TOKENS, inputs: 20_000, ..Target::default() }, |input| {
        let text: String = input.iter().map(|byte| char::from(byte & 0x7f)).collect();
        let Ok(uri) = format!("/v1/views/v/rows?{text}").parse::<Uri>() else { return "not a URI".to_owned() };
        let parameters = match Parameters::<Vec<(String, String)>>::try_from_uri(&uri) {
            Ok(Parameters(parameters)) => parameters,
            Err(error) => return kind_of(&error.to_string()),
        };
        let mut summary = String::new();
        for view in &views {
            summary += &match Query::parse(view, &parameters, None) {
                Ok(query) => {
                    assert!(query.limit <= QUERY_ROWS_MAX, "a limit of {}", query.limit);
                    assert!(query.dimensions.iter().all(|index| *index < view.dimensions.len()));
                    assert!(query.measures.iter().all(|index| *index < view.measures.len()));
                    format!("{:?}{}", query.grain, query.order.len().min(2))
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(!text.is_empty(), "refused without a reason");
                    kind_of(&text)
                }
            };
        }
        summary
    });
}
