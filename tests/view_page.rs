//! Tests the page of a view: it shows what the API returns for every setting of its controls.
//!
//! Uses real flights, most of them exact and some live, in headless Chromium.

use std::process::Command;
use std::time::{Duration, Instant};

use polars::prelude::*;
use serde_json::{Value, json};
use world::browser::{Browser, axe};
use world::{World, flights_file};

/// Views of the flights with every kind of window.
const DEFINITIONS: &str = include_str!("../examples/flights/dialect.sql");
const PATIENCE: Duration = Duration::from_secs(60);
/// The number of flights ingested before the batch run, and after it.
const EXACT: usize = 60_000;
const LIVE: usize = 6_000;

/// Reads what the page shows.
const READ: &str = r"
const text = (e) => e?.textContent.trim() ?? '';
const find = (id) => document.getElementById(id);
const visible = (e) => e !== null && e.getClientRects().length > 0;
const pressed = (id) => text(document.querySelector(`#${id} [aria-pressed=true]`));
const chart = find('chart');
const traces = visible(chart) ? chart.data ?? [] : [];
return {
  connection: text(find('connection')), busy: find('view').getAttribute('aria-busy'), updated: Number(find('view').dataset.updated),
  search: location.search, asked: find('view').dataset.shown ?? null,
  columns: [...document.querySelectorAll('#table thead th')].map(text),
  rows: [...document.querySelectorAll('#table tbody tr')].map((row) => [...row.children].map(text)),
  count: text(find('count')), more: visible(find('more')),
  range: pressed('ranges'), chart: pressed('charts'), grain: find('grain')?.value ?? null, measure: find('measure')?.value ?? null,
  groups: [...document.querySelectorAll('#groups input:checked')].map((box) => box.value), where: find('where').value, top: find('top')?.value ?? null,
  errors: Object.fromEntries([...document.querySelectorAll('#controls .error')].filter(visible).map((e) => [e.id, text(e)])),
  invalid: [...document.querySelectorAll('[aria-invalid=true]')].map((e) => e.id),
  empty: visible(find('empty')) ? text(find('empty')) : '',
  name: text(find('chart-name')), note: visible(find('chart-note')) ? text(find('chart-note')) : '', label: chart?.getAttribute('aria-label') ?? null,
  legend: [...document.querySelectorAll('#legend li')].map(text),
  traces: traces.map((t) => ({ name: t.name, kind: t.type, dash: t.line?.dash ?? null, estimated: t.error_y !== undefined, x: [...t.x], y: [...t.y], hover: t.hovertext ?? [] })),
  shapes: traces.length ? (chart.layout.shapes ?? []).map((s) => [s.name, s.x0]) : [],
  code: text(find('code')), csv: find('csv').href, parquet: find('parquet').href,
};";

/// A server with flights in both layers, and a browser.
struct Fixture {
    world: World,
    browser: Browser,
    /// Keeps the Parquet files of both parts.
    _files: tempfile::TempDir,
}

fn ingest(world: &World, folder: &std::path::Path, from: usize, count: usize) {
    let file = flights_file();
    let flights = LazyFrame::scan_parquet(PlRefPath::new(file.to_str().expect("UTF-8")), Default::default());
    let mut part =
        flights.expect("the flights").slice(from as i64, count as IdxSize).collect().expect("a part of them");
    let path = folder.join(format!("{from}.parquet"));
    ParquetWriter::new(std::fs::File::create(&path).expect("a file")).finish(&mut part).expect("Parquet is written");
    world.ingest("flights", &path);
}

impl Fixture {
    fn new() -> Fixture {
        let (world, files) = (World::new(DEFINITIONS), tempfile::tempdir().expect("a temporary folder"));
        ingest(&world, files.path(), 0, EXACT);
        let views = world.get("/v1/views").json();
        for view in views["views"].as_array().expect("views") {
            assert_eq!(world.run(view["name"].as_str().expect("a name"), false)["state"], json!("published"));
        }
        ingest(&world, files.path(), EXACT, LIVE);
        let browser = Browser::start();
        browser.resize(1400, 1000);
        browser.prefer("light");
        Fixture { world, browser, _files: files }
    }

    fn open(&self, path: &str) -> Value {
        self.browser.open(&format!("{}{path}", self.world.url()));
        self.settled()
    }

    /// Reads the page until a condition holds; returns what it read.
    fn wait(&self, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let seen = self.browser.run(READ);
            if holds(&seen) {
                return seen;
            }
            assert!(begin.elapsed() < PATIENCE, "timed out waiting for {what}; the page shows {seen:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the page shows the state of its URL; returns what it read.
    fn settled(&self) -> Value {
        self.wait("the requested figures", |seen| {
            seen["busy"] == "false" && seen["asked"] == seen["search"] && seen["connection"] == "live"
        })
    }

    /// Runs a script in the page and waits until the page is up to date.
    fn after(&self, script: &str) -> Value {
        self.browser.run(script);
        self.settled()
    }

    fn choose(&self, id: &str, value: &str) -> Value {
        self.after(&format!(
            "const e = document.getElementById('{id}'); e.value = {}; e.dispatchEvent(new Event('change', {{ bubbles: true }}));",
            json!(value)
        ))
    }

    fn press(&self, selector: &str) -> Value {
        self.after(&format!("document.querySelector({}).click();", json!(selector)))
    }

    fn filter(&self, condition: &str) -> Value {
        self.after(&format!(
            "document.getElementById('where').value = {}; document.querySelector('#controls [type=submit]').click();",
            json!(condition)
        ))
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|item| item.as_str().expect("text").to_owned()).collect()
}

/// Formats a time as the page does: `2001-01-01 06:00`.
fn shown_time(text: &Value) -> String {
    // Rows over all time have no window.
    text.as_str().map_or_else(|| "–".to_owned(), |text| text.replace('T', " ").chars().take(16).collect())
}

/// Asserts that the table has the rows of the API's response, in the same order.
fn shows_rows(seen: &Value, response: &Value, context: &str) {
    let columns = strings(&seen["columns"]);
    let rows = response["rows"].as_array().unwrap_or_else(|| panic!("{context}: {response}"));
    let shown = seen["rows"].as_array().expect("rows");
    assert_eq!(shown.len(), rows.len(), "{context}: {}", seen["count"]);
    assert!(!rows.is_empty(), "{context}: nothing to compare");
    for (cells, row) in shown.iter().map(strings).zip(rows) {
        for (name, cell) in columns.iter().zip(&cells) {
            let at = |name: &str| shown_time(&row[name]);
            match name.as_str() {
                "window" => assert_eq!(*cell, at("window_start"), "{context}"),
                "to" => assert_eq!(*cell, at("window_end"), "{context}"),
                "finality" => assert_eq!(json!(cell), row["_finality"], "{context}"),
                name if row[name].is_string() => assert_eq!(json!(cell), row[name], "{context}: {name}"),
                name if row[name].is_i64() && row["_bounds"][name].is_null() => {
                    assert_eq!(cell.replace(',', ""), row[name].to_string(), "{context}: {name}");
                }
                name if row["_bounds"][name].is_array() && !row["_bounds"][name][0].is_array() => {
                    assert!(cell.contains(" to "), "{context}: {name} shows no interval: {cell}");
                }
                _ => {}
            }
        }
    }
}

/// Requests the query of the page from the API, as JSON.
fn response(fixture: &Fixture, seen: &Value) -> Value {
    let csv = seen["csv"].as_str().expect("an address");
    let path =
        csv.strip_prefix(fixture.world.url()).expect("an address of this server").replace("rows.csv", "rows.json");
    let rows = seen["rows"].as_array().expect("rows").len();
    fixture.world.get(&path.replace("limit=1000000", &format!("limit={}", rows.max(1)))).json()
}

fn shows_the_response(fixture: &Fixture, seen: &Value, context: &str) -> Value {
    assert_eq!(seen["errors"], json!({}), "{context}");
    let response = response(fixture, seen);
    shows_rows(seen, &response, context);
    response
}

fn sum(traces: &Value, part: &str) -> f64 {
    let chosen =
        traces.as_array().expect("traces").iter().filter(|t| t["name"].as_str().is_some_and(|n| n.ends_with(part)));
    chosen.flat_map(|t| t["y"].as_array().expect("heights")).map(|y| y.as_f64().unwrap_or(0.0)).sum()
}

fn total(rows: &Value, measure: &str) -> f64 {
    rows["rows"].as_array().expect("rows").iter().map(|row| row[measure].as_f64().expect("a number")).sum()
}

#[test]
fn the_page_of_a_view_shows_what_its_controls_request() {
    let fixture = Fixture::new();
    fixture.browser.run("performance.clearResourceTimings();");
    let first = fixture.open("/view/hourly");
    let response = shows_the_response(&fixture, &first, "initially");
    assert_eq!((&first["range"], &first["chart"], &first["grain"]), (&json!("24 h"), &json!("Bars"), &json!("auto")));
    draws_both_parts(&fixture, &first, &response);
    controls_change_the_query(&fixture);
    errors_appear_next_to_their_controls(&fixture);
    exports_the_query(&fixture);
    keeps_its_state_in_the_url(&fixture);
    works_by_keyboard(&fixture);
    follows_new_events(&fixture);
    let complaints: Vec<Value> = fixture.browser.log("browser").into_iter().filter(is_unexpected).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// Returns whether a log entry is unexpected. The test provokes refusals, and browsers log each of them.
fn is_unexpected(entry: &Value) -> bool {
    let message = entry["message"].as_str().unwrap_or("");
    ["SEVERE", "WARNING"].contains(&entry["level"].as_str().unwrap_or("")) && !message.contains("400 (Bad Request)")
}

fn draws_both_parts(fixture: &Fixture, seen: &Value, response: &Value) {
    // Exact parts are those of batch, and both parts add up to the values of the API.
    let path = seen["csv"]
        .as_str()
        .expect("an address")
        .strip_prefix(fixture.world.url())
        .expect("ours")
        .replace("rows.csv", "rows.json");
    let batch = fixture.world.get(&format!("{path}&layer=batch")).json();
    assert_eq!(sum(&seen["traces"], "exact"), total(&batch, "flights"));
    assert_eq!(sum(&seen["traces"], "exact") + sum(&seen["traces"], "live"), total(response, "flights"));
    assert!(sum(&seen["traces"], "live") > 0.0);
    let shapes = seen["shapes"].as_array().expect("lines");
    let newest =
        batch["rows"].as_array().expect("rows").iter().map(|r| r["window_end"].as_str().expect("a time")).max();
    let line = |name: &str| {
        shapes.iter().find(|s| s[0] == name).unwrap_or_else(|| panic!("no {name} in {shapes:?}"))[1].clone()
    };
    assert_eq!(line("seam: version 1").as_str().map(|at| &at[..16]), newest.map(|at| &at[..16]));
    assert_eq!(line("watermark").as_str().map(|at| &at[..16]), response["watermark"].as_str().map(|at| &at[..16]));
    assert!(seen["legend"].as_array().expect("keys").contains(&json!("watermark")));
    let hover = seen["traces"].to_string();
    for words in ["exact, final", "live, open", " to "] {
        assert!(hover.contains(words), "no tooltip contains {words:?}");
    }
}

fn controls_change_the_query(fixture: &Fixture) {
    let lines = fixture.press("[data-chart=line]");
    assert!(
        lines["traces"].as_array().expect("traces").iter().any(|t| t["name"] == "live" && t["dash"] == "dot"),
        "{lines:#}"
    );
    let estimated = fixture.choose("measure", "destinations");
    shows_the_response(fixture, &estimated, "another measure");
    assert!(
        estimated["traces"].as_array().expect("traces").iter().any(|t| t["name"] == "bounds"),
        "no band of estimates"
    );
    assert!(estimated["traces"].to_string().contains("95 % interval: "));
    let bars = fixture.press("[data-chart=bar]");
    assert!(bars["traces"].as_array().expect("traces").iter().any(|t| t["estimated"] == true), "no interval on bars");
    fixture.choose("measure", "flights");

    let grouped = fixture.press("#groups input[value=origin]");
    let response = shows_the_response(fixture, &grouped, "by origin");
    assert!(response["rows"][0]["origin"].is_string());
    assert_eq!(
        (
            grouped["legend"]
                .as_array()
                .expect("keys")
                .iter()
                .filter(|k| k.as_str().is_some_and(|k| k.len() == 3))
                .count(),
            &grouped["more"]
        ),
        (5, &json!(true))
    );
    // The five largest groups by the totals of the server.
    let from = url_parameter(&grouped, "from");
    let to = url_parameter(&grouped, "to");
    let largest = fixture
        .world
        .get(&format!(
            "/v1/views/hourly/rows.json?grain=all&order_by=-flights&limit=5&measures=flights&from={from}&to={to}"
        ))
        .json();
    let names: Vec<String> = largest["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|r| r["origin"].as_str().expect("a name").to_owned())
        .collect();
    let shown: Vec<String> = strings(&grouped["legend"]).into_iter().take(5).collect();
    assert_eq!(shown.iter().collect::<std::collections::BTreeSet<_>>(), names.iter().collect());
    assert_eq!(sum(&grouped["traces"], "exact") + sum(&grouped["traces"], "live"), total(&largest, "flights"));
    let twelve = fixture.choose("top", "12");
    assert!(strings(&twelve["legend"]).iter().filter(|k| k.len() == 3).count() == 12, "{}", twelve["legend"]);
    let more = fixture.press("#more");
    assert_eq!(more["rows"].as_array().map(Vec::len), Some(100));
    shows_the_response(fixture, &more, "more rows");
    let filtered = fixture.filter("origin = 'ATL' AND flights > 3");
    let response = shows_the_response(fixture, &filtered, "filtered");
    assert!(
        response["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .all(|r| r["origin"] == "ATL" && r["flights"].as_i64() > Some(3))
    );
    fixture.filter("");
    fixture.press("#groups input[value=origin]");

    let days = fixture.choose("grain", "1d");
    let response = shows_the_response(fixture, &days, "a coarser grain");
    let all = fixture.press("[data-range='all']");
    let everything = shows_the_response(fixture, &all, "all time");
    assert!(everything["rows"].as_array().map(Vec::len) > response["rows"].as_array().map(Vec::len));
    // Only batch includes late events, from its next run.
    let in_sight = (EXACT + LIVE) as f64 - everything["ledger"]["late"].as_f64().expect("a count");
    assert_eq!(total(&everything, "flights"), in_sight);
    assert_eq!(sum(&all["traces"], "exact") + sum(&all["traces"], "live"), in_sight);
    fixture.choose("grain", "auto");
    let absolute = fixture.choose("from", "2001-01-02T06:00");
    assert_eq!(absolute["range"], "");
    let absolute_to = fixture.choose("to", "2001-01-02T12:00");
    let response = shows_the_response(fixture, &absolute_to, "from and to");
    assert_eq!(response["rows"].as_array().map(Vec::len), Some(6), "{absolute:#}");
    let table = fixture.press("[data-chart=table]");
    assert_eq!(table["traces"], json!([]));
    shows_the_response(fixture, &table, "the table alone");
    let columns = fixture.press("#measures input[value=p95_delay]");
    assert!(!strings(&columns["columns"]).contains(&"p95_delay".to_owned()));
    shows_the_response(fixture, &columns, "fewer columns");
    let reset = fixture.press("#reset");
    assert_eq!((&reset["range"], &reset["chart"], &reset["search"]), (&json!("24 h"), &json!("Bars"), &json!("")));
}

fn url_parameter(seen: &Value, name: &str) -> String {
    let address = seen["csv"].as_str().expect("an address");
    let (_, query) = address.split_once('?').expect("parameters");
    let found = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    found.unwrap_or_else(|| panic!("{address} has no {name}")).to_owned()
}

fn errors_appear_next_to_their_controls(fixture: &Fixture) {
    let refused = fixture.filter("orign = 'ATL'");
    let problem = fixture.world.get("/v1/views/hourly/rows.json?where=orign%20%3D%20%27ATL%27").json();
    assert_eq!(refused["errors"], json!({"error-where": problem["detail"]}));
    assert_eq!(refused["invalid"], json!(["where"]));
    // The previous rows stay visible, and the refused query is not sent again.
    assert!(!refused["rows"].as_array().expect("rows").is_empty());
    let mended = fixture.filter("origin = 'ATL'");
    assert_eq!((&mended["errors"], &mended["invalid"]), (&json!({}), &json!([])));
    fixture.filter("");
    let grain = fixture.open("/view/hourly?grain=90m");
    assert!(grain["errors"]["error-grain"].as_str().is_some_and(|e| e.starts_with("grain:")), "{}", grain["errors"]);
    assert!(grain["empty"].as_str().is_some_and(|e| e.contains("refused")), "{grain:#}");
    let nothing = fixture.open("/view/hourly?where=flights%3E999999");
    assert_eq!((&nothing["rows"], &nothing["errors"]), (&json!([]), &json!({})));
    assert!(nothing["empty"].as_str().is_some_and(|e| e.starts_with("No rows")), "{nothing:#}");
    let missing = fixture.world.get("/view/hourli");
    assert_eq!(missing.status, 404);
    assert!(missing.text.contains("did you mean"), "{}", missing.text);
    for link in ["/", "/batch", "/streams", "/docs", "/view/hourly"] {
        assert!(missing.text.contains(&format!("<a href=\"{link}\">")), "no link to {link} in {}", missing.text);
    }
}

fn exports_the_query(fixture: &Fixture) {
    let seen = fixture.open("/view/hourly?group_by=origin&where=origin+%3D+%27ATL%27&range=6h");
    let response = shows_the_response(fixture, &seen, "before the export");
    let rows = response["rows"].as_array().expect("rows").len();
    let code = seen["code"].as_str().expect("code");
    let output =
        Command::new("sh").args(["-c", code]).current_dir(fixture.world.data.path()).output().expect("a shell");
    let taken: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{code}: {e}"));
    assert_eq!(taken["rows"].as_array().map(Vec::len), Some(rows), "{code}");
    let csv = fixture.world.get(seen["csv"].as_str().and_then(|u| u.strip_prefix(fixture.world.url())).expect("ours"));
    assert_eq!(csv.text.lines().count(), rows + 1);
    let parquet = fixture
        .world
        .get_bytes(seen["parquet"].as_str().and_then(|u| u.strip_prefix(fixture.world.url())).expect("ours"));
    let frame = ParquetReader::new(std::io::Cursor::new(parquet)).finish().expect("Parquet");
    assert_eq!(frame.height(), rows);
    for (language, words) in [("sql", "read_parquet('http"), ("python", "pl.read_parquet(")] {
        let code = fixture.press(&format!("[data-language={language}]"))["code"].as_str().expect("code").to_owned();
        assert!(code.contains(words) && code.contains("rows.parquet?") && code.contains("%27ATL%27"), "{code}");
    }
}

fn keeps_its_state_in_the_url(fixture: &Fixture) {
    let address =
        "/view/hourly?range=7d&grain=6h&measure=destinations&group_by=origin&where=origin+%3C+%27D%27&top=3&chart=line";
    let seen = fixture.open(address);
    // Without estimates: sketches merge in random order, so that estimates differ between responses.
    let rows = |seen: &Value| -> Value {
        seen["rows"].as_array().expect("rows").iter().map(|row| row.as_array().expect("cells")[..4].to_vec()).collect()
    };
    let state = |seen: &Value| {
        let controls =
            ["range", "grain", "measure", "groups", "where", "top", "chart", "legend"].map(|key| seen[key].clone());
        (controls, rows(seen))
    };
    assert_eq!(
        state(&seen).0[..7],
        [
            json!("7 d"),
            json!("6h"),
            json!("destinations"),
            json!(["origin"]),
            json!("origin < 'D'"),
            json!("3"),
            json!("Lines")
        ]
    );
    shows_the_response(fixture, &seen, "from the URL");
    let changed = fixture.press("[data-range='24h']");
    fixture.choose("measure", "flights");
    fixture.browser.back();
    let back = fixture.wait("the state before", |now| {
        now["measure"] == "destinations" && now["busy"] == "false" && now["asked"] == now["search"]
    });
    assert_eq!(state(&back), state(&changed));
    fixture.browser.back();
    let first = fixture.wait("the first state", |now| {
        now["range"] == "7 d" && now["busy"] == "false" && now["asked"] == now["search"]
    });
    assert_eq!(state(&first), state(&seen));
    // The URL that the page wrote restores the same state.
    let again = fixture.open(&format!("/view/hourly{}", changed["search"].as_str().expect("an address")));
    assert_eq!(state(&again), state(&changed));
}

fn works_by_keyboard(fixture: &Fixture) {
    fixture.open("/view/hourly");
    // Enter applies the filter, Tab moves on, and space presses a button.
    fixture.browser.run("document.getElementById('reset').focus(); document.getElementById('where').focus();");
    for key in "flights > 1".chars() {
        fixture.browser.press(&key.to_string());
    }
    fixture.browser.press("\u{E007}");
    let filtered = fixture.wait("the filter", |seen| {
        seen["search"].as_str().is_some_and(|s| s.contains("where=")) && seen["asked"] == seen["search"]
    });
    assert_eq!(filtered["where"], "flights > 1");
    fixture.browser.press("\u{E004}");
    fixture.browser.press("\u{E004}");
    assert_eq!(fixture.browser.run("return document.activeElement.id;"), "reset");
    fixture.browser.press(" ");
    fixture.wait("the initial page", |seen| seen["search"] == "" && seen["asked"] == "");
}

fn follows_new_events(fixture: &Fixture) {
    let before = fixture.open("/view/hourly?range=all&grain=all");
    let folder = tempfile::tempdir().expect("a temporary folder");
    ingest(&fixture.world, folder.path(), EXACT + LIVE, 500);
    let after = fixture.wait("new events without any action", |seen| seen["rows"] != before["rows"]);
    shows_the_response(fixture, &after, "new events");
    assert_eq!(after["rows"].as_array().map(Vec::len), Some(1));
}

#[test]
fn pages_of_all_window_kinds_show_their_rows_and_are_accessible() {
    let fixture = Fixture::new();
    let axe = axe::script();
    for view in ["daily", "day_so_far", "ever", "hourly", "last_three_hours", "monthly", "six_hours", "spells"] {
        let seen = fixture.open(&format!("/view/{view}"));
        shows_the_response(&fixture, &seen, view);
        assert!(!seen["traces"].as_array().expect("traces").is_empty(), "{view} has no chart: {seen:#}");
        assert_ne!(seen["label"], "Chart");
        if let (Some(axe), true) = (&axe, ["hourly", "ever"].contains(&view)) {
            axe::assert_accessible(&fixture.browser, axe, &format!("the page of {view}"), |_| {
                fixture.settled();
            });
        }
    }
    if let Some(axe) = &axe {
        fixture.open("/view/hourly?where=nonsense");
        axe::assert_accessible(&fixture.browser, axe, "an error", |_| {
            fixture.settled();
        });
        fixture.open("/view/hourly?group_by=origin&chart=line&top=12");
        axe::assert_accessible(&fixture.browser, axe, "lines of groups", |_| {
            fixture.settled();
        });
        fixture.browser.open(&format!("{}/view/hourli", fixture.world.url()));
        axe::assert_accessible(&fixture.browser, axe, "the page of an unknown view", |_| {});
    }
}
