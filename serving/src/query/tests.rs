use shared::sql::parse_definitions;

use super::*;

fn view() -> View {
    let sql = "CREATE STREAM s (at TIMESTAMP, a STRING, n BIGINT) WITH (event_time = 'at');
               CREATE VIEW v AS SELECT window_start, a, n, COUNT(*) AS c, SUM(n) AS total
               FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), a, n;";
    let definitions = parse_definitions(&[("v.sql".into(), sql.into())]).expect("valid definitions");
    definitions.views.into_iter().next().expect("one view")
}

fn parse(parameters: &[(&str, &str)]) -> Result<Query, QueryError> {
    let owned: Vec<_> = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Query::parse(&view(), &owned)
}

#[test]
fn without_parameters_everything_is_asked_for() {
    let query = parse(&[]).expect("a query");
    assert_eq!((query.from, query.to, query.limit), (i64::MIN, i64::MAX, QUERY_ROWS_DEFAULT));
    assert_eq!((query.dimensions, query.measures, query.order), (vec![0, 1], vec![0, 1], vec![]));
    assert_eq!((query.grain, query.layer, query.shape), (Grain::Window, LayerChoice::Merged, Shape::Document));
    assert_eq!((query.filter, query.shown, query.as_of, query.cursor), (None, None, None, None));
}

#[test]
fn lists_are_read_in_order_and_may_be_empty() {
    let query =
        parse(&[("group_by", "n, a"), ("measures", "total"), ("order_by", "-total,n,-window_start")]).expect("a query");
    assert_eq!((query.dimensions, query.measures), (vec![1, 0], vec![1]));
    let key = |by, descending| OrderKey { by, descending };
    let expected = [key(OrderBy::Measure(1), true), key(OrderBy::Dimension(1), false), key(OrderBy::WindowStart, true)];
    assert_eq!(query.order, expected);
    let query = parse(&[("group_by", ""), ("measures", ""), ("order_by", "")]).expect("a query");
    assert!(query.dimensions.is_empty() && query.measures.is_empty() && query.order.is_empty());
    assert!(parse(&[("group_by", "a,")]).is_err());
}

#[test]
fn the_fingerprint_is_that_of_the_question_not_of_the_page() {
    let print = |parameters: &[(&str, &str)]| parse(parameters).expect("a query").fingerprint;
    let all = print(&[("group_by", "a"), ("layer", "batch")]);
    assert_eq!(all, print(&[("layer", "batch"), ("limit", "3"), ("shape", "rows"), ("group_by", "a")]));
    assert_ne!(all, print(&[("group_by", "a"), ("layer", "speed")]));
    assert_ne!(all, print(&[("group_by", "a")]));
}

#[test]
fn a_grain_over_all_ends_where_the_last_window_before_to_ends() {
    let query =
        parse(&[("grain", "all"), ("from", "2001-01-01T06:30:00Z"), ("to", "2001-01-01T08:30:00Z")]).expect("a query");
    let (start, end) = query.span(view().window);
    assert_eq!(start.map(|t| Micros(t).to_string()).as_deref(), Some("2001-01-01T07:00:00Z"));
    assert_eq!(end.map(|t| Micros(t).to_string()).as_deref(), Some("2001-01-01T09:00:00Z"));
    assert_eq!(parse(&[("grain", "all")]).expect("a query").span(view().window), (None, None));
}
