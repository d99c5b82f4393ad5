//! Does a person see in a browser what the server knows? The page of the real demo, in headless Chromium.
//!
//! With `TRUEUP_SCREENSHOTS=docs/img` it also takes the pictures of the documentation.

#[allow(dead_code, reason = "each test uses a part of it")]
mod browser;
mod demo;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use browser::{Browser, axe};
use demo::Demo;
use serde_json::Value;

/// Longest wait for anything; each wait asks again and again, so that a slow machine is only slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Flights of the replay that comes to its end: about half a minute of it.
const FLIGHTS: &str = "110000";
const VIEWS: [&str; 3] = ["delays", "departures", "totals"];

/// What the page shows, as a person would read it off: texts of cells, and the bars that are really there.
const READ: &str = r"
const text = (e) => e?.textContent.trim() ?? '';
const cells = (row) => [...row.children].map(text);
const bars = (chart, part) => [...chart.querySelectorAll('.barlayer .trace')]
  .filter((t) => t.__data__[0].trace.name === part)
  .flatMap((t) => [...t.querySelectorAll('path')])
  .filter((p) => { const b = p.getBoundingClientRect(); return b.width > 0.5 && b.height > 0.5; });
return {
  connection: text(document.getElementById('connection')),
  counters: Object.fromEntries([...document.querySelectorAll('.stream .counters div')].map((d) => [text(d.children[0]), text(d.children[1])])),
  mark: window.mark ?? null,
  cards: Object.fromEntries([...document.querySelectorAll('.card')].map((card) => {
    const chart = card.querySelector('.chart');
    const [exact, live] = ['exact', 'live'].map((part) => bars(chart, part));
    return [card.dataset.view, {
      version: Number(card.dataset.version),
      exact: exact.length, live: live.length,
      mostly_live: (chart.data?.[0].y ?? []).filter((n, i) => n < chart.data[1].y[i]).length,
      exact_colour: exact[0] ? getComputedStyle(exact[0]).fill : null,
      live_colour: live[0] ? getComputedStyle(live[0]).fill : null,
      seam: text(card.querySelector('.seam')),
      seam_line: chart.querySelectorAll('.shapelayer path').length,
      seam_label: text(chart.querySelector('.annotation')),
      columns: cells(card.querySelector('thead tr') ?? document.createElement('tr')),
      rows: [...card.querySelectorAll('tbody tr')].map(cells),
      drift: text(card.querySelector('.drift')),
      sum: (chart.data ?? []).flatMap((part) => part[part.orientation === 'h' ? 'x' : 'y']).reduce((a, b) => a + b, 0),
      chart_width: chart.querySelector('svg')?.getBoundingClientRect().width ?? 0, chart_room: chart.clientWidth,
    }];
  })),
};";

/// Rows of a view by the texts of the columns that name them.
fn rows(demo: &Demo, view: &str, keys: &[String]) -> BTreeMap<Vec<String>, Value> {
    let answer = demo.get(&format!("/v1/views/{view}/rows.json?limit=1000000"));
    let rows = answer["rows"].as_array().expect("rows").iter();
    rows.map(|row| (keys.iter().map(|key| key_text(key, row)).collect(), row.clone())).collect()
}

/// The page writes `2001-01-01 06:00` for a window.
fn key_text(key: &str, row: &Value) -> String {
    let name = if key == "window" { "window_start" } else { key };
    let text = row[name].as_str().expect("a name or a time");
    if key == "window" { text.replace('T', " ").replace(":00Z", "") } else { text.to_owned() }
}

fn number(shown: &str) -> u64 {
    shown.replace(',', "").parse().unwrap_or_else(|e| panic!("{shown:?} is no number: {e}"))
}

fn open(browser: &Browser, demo: &Demo) {
    browser.resize(1400, 1000);
    browser.prefer("light");
    // What the browser's own first page asked for is not the page's doing.
    browser.open("about:blank");
    browser.log("performance");
    browser.open(&format!("{}/", demo.url));
}

/// Reads the page until something holds; gives what was read then.
fn wait_for(browser: &Browser, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let seen = browser.run(READ);
        if holds(&seen) {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}; the page shows {seen:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn cards(seen: &Value) -> impl Iterator<Item = &Value> {
    VIEWS.iter().map(|view| &seen["cards"][view])
}

fn at_least(card: &Value, key: &str, least: u64) -> bool {
    card[key].as_u64().is_some_and(|n| n >= least)
}

#[test]
fn a_person_watches_live_figures_become_exact() {
    let browser = Browser::start();
    let demo = Demo::start(&["--speedup", "16000", "--rows", FLIGHTS]);
    open(&browser, &demo);
    browser.run("window.mark = 'not loaded again';");
    let first = wait_for(&browser, "figures in each card", |seen| {
        seen["connection"] == "live"
            && cards(seen).all(|card| card["exact"].as_u64() > Some(0) || card["live"].as_u64() > Some(0))
            && cards(seen).all(|card| !card["rows"].as_array().expect("rows").is_empty())
    });
    moves_by_itself(&browser, &first);
    shows_both_parts_and_the_seam(&browser);
    suits_the_dark(&browser);
    fits_a_telephone(&browser);
    let last = shows_in_the_end_what_the_server_answers(&browser, &demo);
    assert_eq!(last["mark"], "not loaded again");
    keeps_nobody_out(&browser);
    has_nothing_to_complain_of(&browser, &demo);
}

fn moves_by_itself(browser: &Browser, first: &Value) {
    wait_for(browser, "counters that move", |seen| seen["counters"]["events"] != first["counters"]["events"]);
    for view in VIEWS {
        let before = &first["cards"][view];
        let version = before["version"].as_u64().unwrap_or(0);
        wait_for(browser, &format!("rows of {view} that move"), |seen| seen["cards"][view]["rows"] != before["rows"]);
        wait_for(browser, &format!("a run of {view} and its drift"), |seen| {
            let after = &seen["cards"][view];
            let drift = after["drift"].as_str().unwrap_or("");
            at_least(after, "version", version + 1)
                && after["seam"].as_str().is_some_and(|s| s.contains(&format!("version {}", after["version"])))
                && after["drift"] != before["drift"]
                && drift.contains("rows were served as they truly are")
        });
    }
}

fn shows_both_parts_and_the_seam(browser: &Browser) {
    for view in VIEWS {
        let seen = wait_for(browser, &format!("both parts of {view}"), |seen| {
            let card = &seen["cards"][view];
            let marked = view == "totals"
                || (at_least(card, "seam_line", 1)
                    && card["seam_label"]
                        .as_str()
                        .is_some_and(|l| l.contains(&format!("version {}", card["version"]))));
            at_least(card, "exact", 1) && at_least(card, "live", 1) && marked
        });
        let card = &seen["cards"][view];
        assert_ne!(card["exact_colour"], card["live_colour"], "{view}: the parts look alike");
    }
}

fn suits_the_dark(browser: &Browser) {
    let colours = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color].map((c) =>
                   c.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b, 0));";
    let light = browser.run(colours);
    assert!(light[0].as_u64() > Some(600) && light[1].as_u64() < Some(200), "not dark on light: {light}");
    let painted = browser.run(READ);
    browser.prefer("dark");
    wait_for(browser, "the page and its charts in dark colours", |seen| {
        let dark = browser.run(colours);
        let page = dark[0].as_u64() < Some(120) && dark[1].as_u64() > Some(600);
        page && VIEWS.iter().all(|view| {
            let [before, after] = [&painted, seen].map(|s| &s["cards"][view]["exact_colour"]);
            after.is_string() && after != before
        })
    });
    browser.prefer("light");
}

fn fits_a_telephone(browser: &Browser) {
    browser.resize(400, 900);
    wait_for(browser, "a page and charts of 400 pixels", |seen| fits(browser, seen, 400));
    browser.resize(1400, 1000);
}

/// Nothing is wider than the page, and the charts have followed its width.
fn fits(browser: &Browser, seen: &Value, width: u64) -> bool {
    let widths = browser.run("return [document.documentElement.scrollWidth, innerWidth];");
    assert_eq!(widths[1], width);
    let charts = cards(seen).all(|card| {
        let [chart, room] = ["chart_width", "chart_room"].map(|key| card[key].as_f64().unwrap_or(0.0));
        chart > 0.0 && (chart - room).abs() < 2.0
    });
    widths[0].as_u64() <= Some(width) && charts
}

/// When the replay is over and the last run published, nothing moves any more and every figure can be compared.
fn shows_in_the_end_what_the_server_answers(browser: &Browser, demo: &Demo) -> Value {
    let all: u64 = FLIGHTS.parse().expect("a number");
    let last = wait_for(browser, "the end of the replay, all of it exact", |seen| {
        number(seen["counters"]["events"].as_str().unwrap_or("0")) == all
            && cards(seen).all(|card| at_least(card, "exact", 1) && card["live"] == 0)
    });
    for view in VIEWS {
        let card = &last["cards"][view];
        let text = |cells: &Value| -> Vec<String> {
            let cells = cells.as_array().expect("cells").iter();
            cells.map(|c| c.as_str().expect("text").to_owned()).collect()
        };
        let columns = text(&card["columns"]);
        let at = |name: &str| columns.iter().position(|c| c == name).unwrap_or_else(|| panic!("{name} in {columns:?}"));
        let keys: Vec<String> =
            columns.iter().filter(|c| ["window", "origin", "destination"].contains(&c.as_str())).cloned().collect();
        let answered = rows(demo, view, &keys);
        let shown = card["rows"].as_array().expect("rows");
        assert!(shown.len() >= 5, "{view}: {shown:?}");
        for row in shown.iter().map(text) {
            let key: Vec<String> = keys.iter().map(|key| row[at(key)].clone()).collect();
            let truth = answered.get(&key).unwrap_or_else(|| panic!("{view} has no row {key:?}"));
            assert_eq!(Some(number(&row[at("flights")])), truth["flights"].as_u64(), "{view} {key:?}: flights");
            assert_eq!(truth["_finality"], row[at("finality")].as_str(), "{view} {key:?}: finality");
        }
    }
    // All days of the replay are in sight in the chart of days: its bars add up to all there is.
    let days = demo.get("/v1/views/delays/rows.json?grain=all&group_by=&measures=flights");
    assert_eq!(last["cards"]["delays"]["sum"], days["rows"][0]["flights"], "the bars of all days");
    last
}

fn keeps_nobody_out(browser: &Browser) {
    let Some(axe) = axe::script() else { return };
    axe::lets_everybody_in(browser, &axe, "the overview", |browser| {
        wait_for(browser, "charts that fit", |seen| {
            fits(browser, seen, browser.run("return innerWidth;").as_u64().expect("a width"))
        });
    });
}

fn has_nothing_to_complain_of(browser: &Browser, demo: &Demo) {
    let complaints: Vec<Value> = browser
        .log("browser")
        .into_iter()
        .filter(|e| ["SEVERE", "WARNING"].contains(&e["level"].as_str().unwrap_or("")))
        .collect();
    assert!(complaints.is_empty(), "the console has {complaints:#?}");
    let mut asked = 0;
    for entry in browser.log("performance") {
        let event: Value = serde_json::from_str(entry["message"].as_str().expect("text")).expect("JSON");
        let (method, parameters) = (&event["message"]["method"], &event["message"]["params"]);
        let url = match method.as_str().unwrap_or("") {
            "Network.requestWillBeSent" => &parameters["request"]["url"],
            "Network.webSocketCreated" | "Network.webTransportCreated" => &parameters["url"],
            _ => continue,
        };
        let url = url.as_str().expect("an address");
        let here = url.starts_with(&format!("{}/", demo.url)) || url.starts_with("data:") || url.starts_with("blob:");
        assert!(here, "the page asked for {url}");
        asked += u64::from(url.starts_with(&demo.url));
    }
    assert!(asked > 20, "the log of requests has {asked} of the page's own");
}

#[test]
fn pictures_for_the_documentation() {
    let Some(folder) = std::env::var_os("TRUEUP_SCREENSHOTS") else { return };
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    let browser = Browser::start();
    let demo = Demo::start(&["--speedup", "10000"]);
    browser.hide_scroll_bars();
    open(&browser, &demo);
    for (name, width, scheme) in [("demo", 1400, "light"), ("demo-dark", 1400, "dark"), ("demo-400", 400, "light")] {
        browser.resize(width, 1000);
        browser.prefer(scheme);
        wait_for(&browser, "a clear batch part and a clear live part", |seen| {
            let departures = &seen["cards"]["departures"];
            at_least(departures, "exact", 24)
                && at_least(departures, "mostly_live", 6)
                && cards(seen).all(|card| at_least(card, "version", 4) && at_least(card, "live", 1))
                && fits(&browser, seen, width)
        });
        // The first two views; the third looks alike.
        let height =
            "return Math.round(document.querySelectorAll('.card')[1].getBoundingClientRect().bottom + scrollY) + 16;";
        browser.resize(width, browser.run(height).as_u64().expect("a height"));
        // Resized once more, the charts draw themselves again.
        wait_for(&browser, "charts of the right size", |seen| fits(&browser, seen, width));
        std::fs::write(folder.join(format!("{name}.png")), browser.screenshot()).expect("a picture");
    }
}
