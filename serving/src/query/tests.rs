use std::sync::Arc;

use shared::published::PublishedView;
use shared::sql::{Definitions, parse_definitions};

use super::*;

fn definitions() -> Definitions {
    let sql = "CREATE STREAM s (at TIMESTAMP, a STRING, n BIGINT) WITH (event_time = 'at');
               CREATE VIEW v AS SELECT window_start, a, n, COUNT(*) AS c, SUM(n) AS total
               FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), a, n;";
    parse_definitions(&[("v.sql".into(), sql.into())]).expect("valid definitions")
}

fn view() -> View {
    definitions().views.remove(0)
}

fn span(parameters: &[(&str, &str)]) -> bound::WindowBounds {
    let mut definitions = definitions();
    let (view, stream) = (definitions.views.remove(0), definitions.streams.remove(0));
    let published = PublishedView::nothing(Arc::new(view), Arc::new(stream));
    let instants = bound::Instants { now: Micros(0), latest_event: None };
    let query = parse(parameters).expect("a query").bind(&published, LayerChoice::Merged, instants).expect("bound");
    query.span(published.view.window)
}

fn parse(parameters: &[(&str, &str)]) -> Result<Query, QueryError> {
    let owned: Vec<_> = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Query::parse(&view(), &owned, None)
}

#[test]
fn without_parameters_a_query_selects_everything() {
    let query = parse(&[]).expect("a query");
    assert_eq!((query.from, query.to, query.limit), (i64::MIN, i64::MAX, QUERY_ROWS_DEFAULT));
    assert_eq!((query.dimensions, query.measures, query.order), (vec![0, 1], vec![0, 1], vec![]));
    assert_eq!((query.grain, query.layer, query.shape), (Grain::Window, LayerChoice::Merged, Shape::Document));
    assert_eq!((query.filter, query.row_filter, query.as_of, query.cursor), (None, None, None, None));
}

#[test]
fn lists_keep_their_order_and_may_be_empty() {
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
fn the_fingerprint_does_not_depend_on_the_page() {
    let print = |parameters: &[(&str, &str)]| parse(parameters).expect("a query").fingerprint;
    let all = print(&[("group_by", "a"), ("layer", "batch")]);
    assert_eq!(all, print(&[("layer", "batch"), ("limit", "3"), ("shape", "rows"), ("group_by", "a")]));
    assert_ne!(all, print(&[("group_by", "a"), ("layer", "speed")]));
    assert_ne!(all, print(&[("group_by", "a")]));
}

#[test]
fn a_row_over_all_time_ends_with_the_last_window_before_to() {
    let (start, end) = span(&[("grain", "all"), ("from", "2001-01-01T06:30:00Z"), ("to", "2001-01-01T08:30:00Z")]);
    assert_eq!(start.map(|t| Micros(t).to_string()).as_deref(), Some("2001-01-01T07:00:00Z"));
    assert_eq!(end.map(|t| Micros(t).to_string()).as_deref(), Some("2001-01-01T09:00:00Z"));
    assert_eq!(span(&[("grain", "all")]), (None, None));
}

#[test]
fn a_row_filter_is_added_to_every_query_and_to_its_fingerprint() {
    let parse = |condition: Option<&str>, permitted: Option<&str>| {
        let owned: Vec<_> = condition.map(|text| ("where".to_owned(), text.to_owned())).into_iter().collect();
        Query::parse(&view(), &owned, permitted)
    };
    let both = parse(Some("n > 1 OR a = 'y'"), Some("a = 'x'")).expect("a query");
    let (own, alone) = (parse(Some("n > 1 OR a = 'y'"), None), parse(Some("a = 'x'"), None));
    assert_eq!(both.filter, own.expect("a query").filter, "both have to hold, each for itself");
    assert_eq!(both.permitted, alone.expect("a query").filter, "an OR of the client does not widen it");
    let prints = [None, Some("a = 'x'"), Some("a = 'y'")].map(|text| parse(None, text).expect("a query").fingerprint);
    assert!(prints[0] != prints[1] && prints[1] != prints[2] && prints[0] != prints[2]);
    // It may not name measures, whose values depend on the query, nor columns that the view does not have.
    for wrong in ["c > 1", "b = 'x'", "a ="] {
        assert!(matches!(parse(None, Some(wrong)), Err(QueryError::RowFilter(_))), "{wrong}");
    }
}
