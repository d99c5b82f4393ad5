//! Tests the overview of the real demo in headless Chromium: the page shows what the API returns.
//!
//! With `TRUEUP_SCREENSHOTS=docs/img` it also takes the screenshots for the documentation.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::browser::{Browser, axe};
use world::demo::Demo;

/// Longest wait for a condition; waits poll, so that a slow machine only takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Number of flights of the replay that ends during the test, after about half a minute.
const FLIGHTS: &str = "110000";
const VIEWS: [&str; 3] = ["delays", "departures", "totals"];

/// Reads what the page shows: the texts of cells, and the bars that are visible.
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
      exact_colour: exact[0] ? getComputedStyle(exact[0]).fill : null,
      live_colour: live[0] ? getComputedStyle(live[0]).fill : null,
      facts: Object.fromEntries([...card.querySelectorAll('.facts div')].map((d) => [text(d.children[0]), text(d.children[1])])),
      share: text(card.querySelector('.share')), meter: card.querySelector('meter').value,
      drift: text(card.querySelector('.drift')),
      lines: (chart.layout?.shapes ?? []).map((s) => s.name), labels: [...chart.querySelectorAll('.annotation')].map(text),
      sum: (chart.data ?? []).flatMap((part) => [...part[part.orientation === 'h' ? 'x' : 'y']]).reduce((a, b) => a + b, 0),
      chart_width: chart.querySelector('svg')?.getBoundingClientRect().width ?? 0, chart_room: chart.clientWidth,
    }];
  })),
};";

fn number(shown: &str) -> u64 {
    shown.replace(',', "").parse().unwrap_or_else(|e| panic!("{shown:?} is not a number: {e}"))
}

fn open(browser: &Browser, demo: &Demo) {
    browser.resize(1400, 1000);
    browser.prefer("light");
    // Discard the requests of the browser's start page.
    browser.open("about:blank");
    browser.log("performance");
    browser.open(&format!("{}/", demo.url));
}

/// Reads the page until a condition holds; returns what it read.
fn wait_for(browser: &Browser, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let seen = browser.run(READ);
        if holds(&seen) {
            return seen;
        }
        assert!(begin.elapsed() < PATIENCE, "timed out waiting for {what}; the page shows {seen:#}");
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
fn live_figures_become_exact_on_the_overview() {
    let browser = Browser::start();
    let demo = Demo::start(&["--speedup", "16000", "--rows", FLIGHTS]);
    open(&browser, &demo);
    browser.run("window.mark = 'not reloaded';");
    let first = wait_for(&browser, "figures in each card", |seen| {
        seen["connection"] == "live"
            && cards(seen).all(|card| card["exact"].as_u64() > Some(0) || card["live"].as_u64() > Some(0))
    });
    updates_without_reloading(&browser, &first);
    shows_both_parts_and_the_seam(&browser);
    follows_the_colour_scheme_of_the_system(&browser);
    remembers_the_chosen_colour_scheme(&browser);
    fits_a_phone(&browser);
    let last = shows_the_final_responses_of_the_api(&browser, &demo);
    assert_eq!(last["mark"], "not reloaded");
    is_accessible(&browser);
    logs_no_errors_and_loads_nothing_external(&browser, &demo);
    links_to_every_page(&browser, &demo);
}

fn updates_without_reloading(browser: &Browser, first: &Value) {
    wait_for(browser, "counters to change", |seen| seen["counters"]["events"] != first["counters"]["events"]);
    for view in VIEWS {
        let before = &first["cards"][view];
        let version = before["version"].as_u64().unwrap_or(0);
        wait_for(browser, &format!("the chart of {view} to change"), |seen| {
            seen["cards"][view]["sum"] != before["sum"]
        });
        wait_for(browser, &format!("a run of {view} and its drift"), |seen| {
            let after = &seen["cards"][view];
            at_least(after, "version", version + 1)
                && after["facts"]["seam"] == format!("version {}", after["version"])
                && after["drift"].as_str().is_some_and(|drift| drift.starts_with("Last drift "))
                && after["drift"] != before["drift"]
        });
    }
}

fn shows_both_parts_and_the_seam(browser: &Browser) {
    for view in VIEWS {
        let seen = wait_for(browser, &format!("both parts of {view}"), |seen| {
            let card = &seen["cards"][view];
            let seam = json!(format!("seam: version {}", card["version"]));
            let has = |key: &str, what: &Value| card[key].as_array().is_some_and(|all| all.contains(what));
            // A chart without a time axis has no marker lines.
            let marked =
                view == "totals" || (has("lines", &seam) && has("labels", &seam) && has("lines", &json!("watermark")));
            at_least(card, "exact", 1) && at_least(card, "live", 1) && marked
        });
        let card = &seen["cards"][view];
        assert_ne!(card["exact_colour"], card["live_colour"], "{view}: both parts have the same colour");
    }
}

fn follows_the_colour_scheme_of_the_system(browser: &Browser) {
    let colours = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color].map((c) =>
                   c.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b, 0));";
    let light = browser.run(colours);
    assert!(
        light[0].as_u64() > Some(600) && light[1].as_u64() < Some(200),
        "the light scheme is not dark on light: {light}"
    );
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

/// The switch cycles through system, light and dark, and the choice survives a reload.
fn remembers_the_chosen_colour_scheme(browser: &Browser) {
    let state = "const b = document.getElementById('theme');
                 return [b.getAttribute('aria-label'), getComputedStyle(document.documentElement).colorScheme];";
    let press = "document.getElementById('theme').click();";
    assert_eq!(browser.run(state), json!(["Colour scheme: system", "light dark"]));
    browser.run(press);
    assert_eq!(browser.run(state), json!(["Colour scheme: light", "light"]));
    let colour = |seen: &Value| seen["cards"]["departures"]["exact_colour"].clone();
    let light = json!("rgb(31, 79, 209)");
    wait_for(browser, "light charts", |seen| colour(seen) == light);
    browser.run(press);
    assert_eq!(browser.run(state), json!(["Colour scheme: dark", "dark"]));
    wait_for(browser, "charts in the chosen colour scheme", |seen| colour(seen).is_string() && colour(seen) != light);
    let mark = browser.run("return window.mark ?? null;");
    let address = browser.run("return location.href;");
    browser.open(address.as_str().expect("an address"));
    assert_eq!(browser.run(state), json!(["Colour scheme: dark", "dark"]));
    browser.run(press);
    assert_eq!(browser.run(state), json!(["Colour scheme: system", "light dark"]));
    browser.run(&format!("window.mark = {mark};"));
}

/// Every link of the navigation works, and each page marks itself as the current one.
fn links_to_every_page(browser: &Browser, demo: &Demo) {
    let links = browser.run("return [...document.querySelectorAll('nav a, .card h2 a, .drift a, .named a')].map((a) => a.getAttribute('href'));");
    let links: Vec<&str> = links.as_array().expect("links").iter().filter_map(Value::as_str).collect();
    for path in ["/", "/batch", "/streams", "/view/departures", "/compare/totals"] {
        assert!(links.iter().any(|link| link.split('#').next() == Some(path)), "no link to {path} in {links:?}");
        browser.open(&format!("{}{path}", demo.url));
        let here = browser.run("return [document.title, document.querySelectorAll('h1').length, document.querySelector('[aria-current=page]')?.getAttribute('href') ?? null];");
        assert_eq!((&here[1], &here[2]), (&json!(1), &json!(path)), "{here}");
        assert!(here[0].as_str().is_some_and(|title| title.ends_with(" – Trueup")), "{here}");
    }
}

fn fits_a_phone(browser: &Browser) {
    browser.resize(400, 900);
    wait_for(browser, "the page and charts at 400 px", |seen| fits(browser, seen, 400));
    browser.resize(1400, 1000);
}

/// Returns whether the page does not scroll sideways and the charts have its width.
fn fits(browser: &Browser, seen: &Value, width: u64) -> bool {
    let widths = browser.run("return [document.documentElement.scrollWidth, innerWidth];");
    assert_eq!(widths[1], width);
    let charts = cards(seen).all(|card| {
        let [chart, room] = ["chart_width", "chart_room"].map(|key| card[key].as_f64().unwrap_or(0.0));
        chart > 0.0 && (chart - room).abs() < 2.0
    });
    widths[0].as_u64() <= Some(width) && charts
}

/// After the replay and the last run nothing changes any more, so every figure can be compared with the API.
fn shows_the_final_responses_of_the_api(browser: &Browser, demo: &Demo) -> Value {
    let all: u64 = FLIGHTS.parse().expect("a number");
    let last = wait_for(browser, "the end of the replay with exact figures only", |seen| {
        number(seen["counters"]["events"].as_str().unwrap_or("0")) == all
            && cards(seen).all(|card| at_least(card, "exact", 1) && card["live"] == 0)
    });
    for view in VIEWS {
        let (card, status) = (&last["cards"][view], demo.get(&format!("/v1/views/{view}")));
        assert_eq!((&card["share"], card["meter"].as_f64()), (&json!("100 %"), Some(1.0)), "{view}");
        assert_eq!(status["ledger"]["batch"].as_u64(), Some(all), "{view}");
        assert_eq!(card["facts"]["ledger"], "balances", "{view}");
        let rows = card["facts"]["exact"].as_str().and_then(|text| text.strip_suffix(" rows")).expect("rows");
        assert_eq!(Some(number(rows)), status["batch"]["rows"].as_u64(), "{view}");
        let [equal, compared] = ["rows_equal", "rows_compared"].map(|key| &status["reconciliation"][key]);
        let drift = card["drift"].as_str().expect("text").replace(',', "");
        assert!(drift.contains(&format!("{equal} of {compared} rows correct")), "{view}: {drift}");
    }
    let totals = demo.get("/v1/views/totals/rows.json?order_by=-flights&limit=8");
    let largest = totals["rows"].as_array().expect("rows").iter().filter_map(|row| row["flights"].as_u64());
    assert_eq!(last["cards"]["totals"]["sum"].as_u64(), Some(largest.sum()), "the bars of the largest airports");
    // The chart of days shows the whole replay, so its bars add up to the total.
    let days = demo.get("/v1/views/delays/rows.json?grain=all&group_by=&measures=flights");
    assert_eq!(last["cards"]["delays"]["sum"], days["rows"][0]["flights"], "the bars of all days");
    last
}

fn is_accessible(browser: &Browser) {
    let Some(axe) = axe::script() else { return };
    axe::assert_accessible(browser, &axe, "the overview", |browser| {
        wait_for(browser, "charts that fit", |seen| {
            fits(browser, seen, browser.run("return innerWidth;").as_u64().expect("a width"))
        });
    });
}

fn logs_no_errors_and_loads_nothing_external(browser: &Browser, demo: &Demo) {
    let complaints: Vec<Value> = browser
        .log("browser")
        .into_iter()
        .filter(|e| ["SEVERE", "WARNING"].contains(&e["level"].as_str().unwrap_or("")))
        .collect();
    assert!(complaints.is_empty(), "the console has {complaints:#?}");
    let mut requests = 0;
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
        assert!(here, "the page requested {url}");
        requests += u64::from(url.starts_with(&demo.url));
    }
    assert!(requests > 20, "the log has only {requests} requests of the page");
}

#[test]
fn pages_load_nothing_external_and_report_load_times() {
    let browser = Browser::start();
    let demo = Demo::start(&["--speedup", "2000"]);
    let loaded = "const [page] = performance.getEntriesByType('navigation');
        const all = performance.getEntriesByType('resource');
        const fetches = all.filter((one) => one.initiatorType === 'fetch' && one.responseEnd > 0);
        return page.loadEventEnd > 0 && fetches.length > 0 && {
            load: page.loadEventEnd, figures: Math.min(...fetches.map((one) => one.responseEnd)),
            elsewhere: all.filter((one) => !one.name.startsWith(location.origin)).length };";
    for path in ["/", "/view/departures", "/compare/departures", "/batch", "/streams"] {
        let mut times = Vec::new();
        for _ in 0..5 {
            browser.open(&format!("{}{path}", demo.url));
            let begin = Instant::now();
            let seen = loop {
                let seen = browser.run(loaded);
                if seen != json!(false) {
                    break seen;
                }
                assert!(begin.elapsed() < PATIENCE, "{path} sends no request");
                std::thread::sleep(Duration::from_millis(20));
            };
            assert_eq!(seen["elsewhere"], 0, "{path}");
            times.push((seen["load"].as_f64().expect("a time"), seen["figures"].as_f64().expect("a time")));
        }
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        println!(
            "{path}: loaded after {:.0} ms, first figures after {:.0} ms (median of five)",
            times[2].0, times[2].1
        );
    }
}

#[test]
fn pictures_for_the_documentation() {
    let Some(folder) = std::env::var_os("TRUEUP_SCREENSHOTS") else { return };
    let folder = world::root().join(folder);
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    let browser = Browser::start();
    let demo = Demo::start(&["--speedup", "8000"]);
    browser.hide_scroll_bars();
    open(&browser, &demo);
    for (name, width, scheme) in [
        ("overview", 1400, "light"),
        ("overview-dark", 1400, "dark"),
        ("overview-400", 400, "light"),
        ("overview-400-dark", 400, "dark"),
    ] {
        browser.resize(width, 1000);
        browser.prefer(scheme);
        wait_for(&browser, "a clear batch part and a clear live part", |seen| {
            let departures = &seen["cards"]["departures"];
            at_least(departures, "exact", 24)
                && at_least(departures, "live", 4)
                && cards(seen).all(|card| at_least(card, "version", 4) && at_least(card, "live", 1))
                && fits(&browser, seen, width)
        });
        let height = browser.run("return document.documentElement.scrollHeight;").as_u64().expect("a height");
        browser.resize(width, height.min(if width == 400 { 1500 } else { height }));
        // The charts redraw after the resize.
        wait_for(&browser, "charts of the right size", |seen| fits(&browser, seen, width));
        std::fs::write(folder.join(format!("{name}.png")), browser.screenshot()).expect("a picture");
    }
    let path = "/view/departures?range=7d&group_by=origin&chart=line&grain=3h";
    for (name, path, width, scheme) in [
        ("view", "/view/departures", 1400, "light"),
        ("view-lines-dark", path, 1400, "dark"),
        ("view-400", "/view/departures?measure=destinations&chart=line", 400, "light"),
        ("view-400-dark", "/view/totals", 400, "dark"),
    ] {
        browser.resize(width, if width == 400 { 1500 } else { 1080 });
        browser.prefer(scheme);
        browser.open(&format!("{}{path}", demo.url));
        let begin = Instant::now();
        // Up to date, and with a live part large enough to see.
        let ready = "const v = document.getElementById('view'); const c = document.getElementById('chart');
                     return Number(v.dataset.updated) > 2 && c.data?.some((t) => t.name.endsWith('live') && [...t.y].filter((y) => y).length > 3);";
        while browser.run(ready) != json!(true) {
            assert!(begin.elapsed() < PATIENCE, "{path} shows no live part");
            std::thread::sleep(Duration::from_millis(100));
        }
        std::fs::write(folder.join(format!("{name}.png")), browser.screenshot()).expect("a picture");
    }
}
