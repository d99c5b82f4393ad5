//! Tests that every refusal is a problem (RFC 9457): wrong methods on all endpoints, unknown paths, and requests that the
//! HTTP stack itself cannot parse, sent over a raw socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use world::World;

const DEFINITIONS: &str = "
CREATE STREAM flights (at TIMESTAMP, origin STRING, delay BIGINT) WITH (event_time = 'at');
CREATE VIEW departures AS SELECT window_start, origin, COUNT(*) AS flights
FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin;
";
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// Pages, which OpenAPI does not describe.
const PAGES: [&str; 8] =
    ["/", "/view/departures", "/compare/departures", "/batch", "/streams", "/alerts", "/sinks", "/assets/base.css"];

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let found =
            |line: &'_ str| line.split_once(':').filter(|(header, _)| header.eq_ignore_ascii_case(name)).is_some();
        let line = self.head.lines().find(|line| found(line))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }
}

/// Sends bytes as they are on a connection of their own and reads until the server closes it.
fn send(world: &World, request: &[u8]) -> Reply {
    let address = world.url().trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    // The server may refuse and close before it has read everything.
    let _ = socket.write_all(request);
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no response to {:?}", String::from_utf8_lossy(request)));
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

fn ask(world: &World, method: &str, path: &str, headers: &str) -> Reply {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    send(world, request.as_bytes())
}

fn assert_problem(reply: &Reply, status: u16, code: &str, words: &str, what: &str) {
    let problem: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let found = (reply.status, &problem["status"], &problem["code"], &problem["type"]);
    let expected = (status, &json!(status), &json!(code), &json!(format!("urn:trueup:problem:{code}")));
    assert_eq!(found, expected, "{what}: {}\n{}", reply.head, reply.body);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}");
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{what}: {problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{what}: {problem}");
}

#[test]
fn every_endpoint_refuses_other_methods_with_a_problem() {
    let world = World::new(DEFINITIONS);
    let description = world.get("/openapi.json").json();
    let paths = description["paths"].as_object().expect("paths");
    let described = paths.iter().map(|(path, methods)| {
        let methods: Vec<String> = methods.as_object().expect("methods").keys().map(|m| m.to_uppercase()).collect();
        (path.replace("{view}", "departures").replace("{stream}", "flights").replace("{run}", "run"), methods)
    });
    let pages = PAGES.iter().map(|page| ((*page).to_owned(), vec!["GET".to_owned()]));
    let mut refused = 0;
    for (path, methods) in described.chain(pages) {
        for method in METHODS.iter().filter(|method| !methods.iter().any(|known| known == *method)) {
            let reply = ask(&world, method, &path, "");
            if *method == "OPTIONS" && reply.status == 200 {
                // A preflight request, answered before routing.
                continue;
            }
            assert_problem(&reply, 405, "method_not_allowed", &path, &format!("{method} {path}"));
            let allow = reply.header("allow").unwrap_or_default();
            assert!(methods.iter().all(|known| allow.contains(known.as_str())), "{method} {path}: {allow}");
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn unknown_paths_are_problems_for_programs_and_pages_for_browsers() {
    let world = World::new(DEFINITIONS);
    let browser = "accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    for path in ["/nothing", "/v1/nothing", "/v1/views/departures/nothing", "/assets/nothing.js", "/v1/events", "//"] {
        for headers in ["", "accept: application/json\r\n", "accept: */*\r\n", "accept: text/html;q=0, */*\r\n"] {
            assert_problem(&ask(&world, "GET", path, headers), 404, "unknown_path", path, path);
        }
        assert_problem(&ask(&world, "POST", path, ""), 404, "unknown_path", path, path);
        let page = ask(&world, "GET", path, browser);
        assert_eq!((page.status, page.header("content-type")), (404, Some("text/html; charset=utf-8")), "{path}");
        for link in [r#"href="/""#, r#"href="/view/departures""#, r#"href="/docs""#] {
            assert!(page.body.contains(link), "{path} has no {link}: {}", page.body);
        }
    }
    for (path, target) in [
        ("/views/departures", "/view/departures"),
        ("/views/departures?layer=batch&where=a%3E2", "/view/departures?layer=batch&where=a%3E2"),
        ("/views/a%20b", "/view/a%20b"),
        ("/views", "/"),
        ("/stream", "/streams"),
    ] {
        let reply = ask(&world, "GET", path, browser);
        assert_eq!((reply.status, reply.header("location")), (308, Some(target)), "{path}");
    }
}

#[test]
fn requests_that_cannot_be_parsed_are_problems() {
    let world = World::new(DEFINITIONS);
    let rows = "/v1/views/departures/rows";
    let line =
        |target: &str| format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes();
    let with = |headers: &str| {
        format!("GET {rows} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n\r\n").into_bytes()
    };
    let many = (0..200).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    for (request, status, code, words) in [
        (line(&format!("{rows}?where=flights>2")), 400, "bad_request", "encode `>` as %3E in parameter `where`"),
        (
            line(&format!("{rows}?limit=1&where=flights<2")),
            400,
            "bad_request",
            "encode `<` as %3C in parameter `where`",
        ),
        (line(&format!("{rows}?where=flights = 2")), 400, "bad_request", "encode ` ` as %20 in parameter `where`"),
        (line(&format!("{rows}?where=\"a\"=1")), 400, "bad_request", "encode `\"` as %22 in parameter `where`"),
        (line("/v1/views/dep<artures"), 400, "bad_request", "encode `<` as %3C in the path"),
        (line(&format!("{rows}?a=\u{1}")), 400, "bad_request", "parameter `a`"),
        (line(&format!("{rows}?where=%ff")), 400, "invalid_parameter", "where"),
        (line("/v1/views/%ff/rows"), 400, "bad_request", "UTF-8"),
        (line(&format!("/{}", "a".repeat(70_000))), 414, "uri_too_long", "too long"),
        (with(&many), 431, "headers_too_large", "headers"),
        (with(&format!("x: {}", "y".repeat(1 << 20))), 431, "headers_too_large", "headers"),
        (with("no colon"), 400, "bad_request", "headers"),
        (with("b\u{1}d: x"), 400, "bad_request", "headers"),
        (b"hello\r\n\r\n".to_vec(), 400, "bad_request", "request line"),
        (b"GET\r\n\r\n".to_vec(), 400, "bad_request", "request line"),
        (b"GET /livez HTTP/9.9\r\n\r\n".to_vec(), 400, "bad_request", "request line"),
        (b"G@T /livez HTTP/1.1\r\n\r\n".to_vec(), 400, "bad_request", "request line"),
    ] {
        let shown = String::from_utf8_lossy(&request[..request.len().min(120)]).into_owned();
        assert_problem(&send(&world, &request), status, code, words, &shown);
    }
    // The server still serves others.
    assert_eq!(world.get("/livez").status, 200);
}

#[test]
fn bodies_that_are_refused_are_problems() {
    let world = World::new(DEFINITIONS);
    let post = |path: &str, headers: &str, body: &[u8]| {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        send(&world, &request)
    };
    let large = vec![b' '; 3 << 20];
    for path in ["/v1/views/departures/runs", "/v1/views/departures/vacuum", "/v1/streams/flights/compact"] {
        assert_problem(&post(path, "", &large), 413, "too_large", "64 KiB", path);
        assert_problem(&post(path, "", b"{"), 400, "invalid_body", "expected", path);
    }
    let events = "/v1/events/flights";
    assert_problem(&post(events, "content-type: image/png\r\n", b"{}"), 415, "unsupported_type", "image/png", events);
    assert_problem(&post(events, "content-encoding: br\r\n", b"{}"), 415, "unsupported_encoding", "br", events);
    assert_problem(&post(&format!("{events}?strict=maybe"), "", b"{}"), 400, "bad_query", "strict", events);
    let ranged = ask(&world, "GET", "/v1/views/departures/rows.parquet", "range: bytes=999999999-\r\n");
    assert_problem(&ranged, 416, "range_not_satisfiable", "range", "a range beyond the end");
    assert!(ranged.header("content-range").is_some_and(|range| range.starts_with("bytes */")), "{}", ranged.head);
}
