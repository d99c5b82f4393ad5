//! Tests the batch, comparison and streams pages: they show what the API returns, and their controls work.
//!
//! Uses real flights, in headless Chromium.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::browser::{Browser, axe};
use world::{World, flights_file};

const PATIENCE: Duration = Duration::from_secs(60);

/// Flights with late events, so that batch versions differ from the served values.
fn definitions() -> String {
    let text = std::fs::read_to_string(flights_file().with_extension("sql")).expect("the example");
    let unscheduled = text.replace(
        "WITH (schedule = '@every 5s')",
        "WITH (schedule = '0 2 * * *', schedule_time_zone = 'Europe/Berlin')",
    );
    let unscheduled = unscheduled.replace("WITH (schedule = '@every 10s')", "WITH (max_drift = 0.5)");
    assert!(!unscheduled.contains("@every '"), "no run starts by itself");
    unscheduled
}

/// A server with all flights, and a browser.
struct Fixture {
    world: World,
    browser: Browser,
}

impl Fixture {
    fn new() -> Fixture {
        let world = World::new(&definitions());
        world.ingest("flights", &flights_file());
        Fixture { world, browser: Browser::start() }
    }

    fn open(&self, path: &str) {
        self.browser.open(&format!("{}{path}", self.world.url()));
    }

    fn run(&self, script: &str) -> Value {
        self.browser.run(script)
    }

    /// Waits until `script` returns a truthy value, and returns it.
    fn wait(&self, what: &str, script: &str) -> Value {
        let begin = Instant::now();
        loop {
            let found = self.run(script);
            if !matches!(found, Value::Null | Value::Bool(false)) && found != json!(0) && found != json!("") {
                return found;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "timed out waiting for {what}; connection: {}",
                self.run("return document.getElementById('connection').textContent;")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn press(&self, selector: &str) {
        self.run(&format!("document.querySelector({}).click();", json!(selector)));
    }

    /// Takes screenshots for the documentation if `TRUEUP_SCREENSHOTS` is set.
    fn picture(&self, name: &str, ready: &str) {
        let Some(folder) = std::env::var_os("TRUEUP_SCREENSHOTS") else { return };
        self.browser.hide_scroll_bars();
        for (width, height, scheme, suffix) in [
            (1400, 1000, "light", ""),
            (1400, 1000, "dark", "-dark"),
            (400, 900, "light", "-400"),
            (400, 900, "dark", "-400-dark"),
        ] {
            self.browser.resize(width, height);
            self.browser.prefer(scheme);
            self.wait("the page in its new size", ready);
            std::thread::sleep(Duration::from_millis(1500));
            std::fs::write(
                std::path::Path::new(&folder).join(format!("{name}{suffix}.png")),
                self.browser.screenshot(),
            )
            .expect("the picture can be written");
        }
        self.browser.resize(1400, 1000);
        self.browser.prefer("light");
    }
}

const LANE: &str = "const lane = document.getElementById('lane-departures');";
const BATCH_READY: &str = "return Number(document.getElementById('lanes').dataset.updated);";
const COMPARE_READY: &str = "return Number(document.getElementById('compare').dataset.updated);";
const STREAMS_READY: &str = "return Number(document.getElementById('stream-flights').dataset.updated);";

#[test]
fn runs_are_started_watched_and_listed() {
    let fixture = Fixture::new();
    fixture.open("/batch");
    fixture.wait("the first round", BATCH_READY);
    let next = fixture.run(&format!("{LANE} return lane.querySelector('dd').textContent;"));
    assert!(next.as_str().is_some_and(|text| text.contains("at 02:00 Europe/Berlin")), "{next}");
    fixture.press("#lane-departures [data-do=run]");
    fixture.wait("a version", &format!("{LANE} return [...lane.querySelectorAll('dd')][3].textContent === '1';"));
    // A full run needs a second click.
    fixture.press("#lane-departures [data-do=full]");
    let asked = fixture.run(&format!("{LANE} return lane.querySelector('[data-do=full]').textContent;"));
    assert!(asked.as_str().is_some_and(|text| text.starts_with("Click again")), "{asked}");
    assert_eq!(fixture.world.get("/v1/runs?view=departures").json()["runs"].as_array().map(Vec::len), Some(1));
    fixture.press("#lane-departures [data-do=full]");
    fixture
        .wait("a second version", &format!("{LANE} return [...lane.querySelectorAll('dd')][3].textContent === '2';"));
    for view in ["delays", "totals"] {
        assert_eq!(fixture.world.run(view, false)["state"], json!("published"));
    }
    fixture.wait("all runs", "return document.querySelectorAll('#runs tbody tr').length === 4;");
    assert_eq!(fixture.run("return document.getElementById('count').textContent;"), json!("Showing 4 runs"));
    // The list shows what the API returns.
    let runs = fixture.world.get("/v1/runs").json()["runs"].clone();
    let shown = fixture.run("return [...document.querySelectorAll('#runs tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent));");
    for (run, row) in runs.as_array().expect("runs").iter().zip(shown.as_array().expect("rows")) {
        assert_eq!((&row[1], &row[2], &row[3]), (&run["view"], &run["state"], &run["trigger"]));
        assert_eq!((&row[4], &row[5]), (&run["engine"], &json!(run["version"].to_string())));
        let rows = row[8].as_str().expect("a text").replace(',', "");
        assert_eq!(rows, run["progress"]["rows"].to_string());
    }
    let points = fixture.run("return document.getElementById('chart').data.map((trace) => trace.x.length);");
    assert_eq!(points, json!([1, 2, 1]), "one point per run, by view");
    // Filters, and the versions of a view.
    fixture.run("const select = document.getElementById('of-view'); select.value = 'delays'; select.dispatchEvent(new Event('change'));");
    fixture.wait("the filter", "return document.querySelectorAll('#runs tbody tr').length === 1;");
    assert_eq!(fixture.run("return document.getElementById('count').textContent;"), json!("Showing 1 run"));
    fixture.run("const select = document.getElementById('versions-of'); select.value = 'departures'; select.dispatchEvent(new Event('change'));");
    let versions = fixture.wait("versions", "const rows = [...document.querySelectorAll('#versions tbody tr')]; return rows.length === 2 && rows.map((row) => row.children[0].textContent);");
    assert_eq!(versions, json!(["2", "1"]));
    if let Some(script) = axe::script() {
        axe::assert_accessible(&fixture.browser, &script, "/batch", |_| _ = fixture.wait("the page", BATCH_READY));
    }
    fixture.picture("batch", BATCH_READY);
}

#[test]
fn a_waiting_retry_is_shown_and_cancelled() {
    let fixture = Fixture::new();
    assert_eq!(fixture.world.run("totals", false)["state"], json!("published"));
    let dates = fixture.world.store().join("lake/events/flights/_event_date=2001-01-05");
    let aside = fixture.world.data.path().join("aside");
    std::fs::rename(&dates, &aside).expect("it can be moved");
    let id = fixture.world.post("/v1/views/totals/runs", r#"{"full": true}"#).json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let failed = fixture.world.finished(&id);
    assert_eq!(failed["state"], json!("failed"), "{failed}");
    fixture.open("/batch");
    let reason = fixture.wait(
        "the reason",
        "const p = document.querySelector('#lane-totals .reason'); return !p.hidden && p.textContent;",
    );
    assert!(reason.as_str().is_some_and(|text| text.contains("The last run failed")), "{reason}");
    let next = fixture.run("return document.querySelector('#lane-totals dd').textContent;");
    assert!(next.as_str().is_some_and(|text| text.starts_with("retry in")), "{next}");
    fixture.press("#lane-totals [data-do=cancel]");
    fixture.wait("no retry", "return document.querySelector('#lane-totals [data-do=cancel]').hidden;");
    assert_eq!(fixture.world.get("/v1/views/totals").json()["retry_at"], json!(null));
    std::fs::rename(&aside, &dates).expect("it can be moved back");
}

#[test]
fn comparisons_are_shown_version_by_version() {
    let fixture = Fixture::new();
    fixture.open("/compare/departures");
    fixture.wait(
        "the hint that nothing was compared",
        "const p = document.getElementById('nothing'); return !p.hidden && p.textContent.includes('Not compared yet');",
    );
    assert_eq!(fixture.world.run("departures", false)["state"], json!("published"));
    // One more event after the first version, and a run: a second comparison.
    let event = json!({"flight_id": "one more", "scheduled_at": "2001-01-15T20:00:00Z", "origin": "ATL", "destination": "ORD", "delay_min": 3, "distance_mi": 600});
    assert_eq!(fixture.world.post("/v1/events/flights", event.to_string()).status, 200);
    assert_eq!(fixture.world.run("departures", false)["state"], json!("published"));
    let first = fixture.world.get("/v1/views/departures/compare?version=1").json();
    assert!(first["causes"]["late"].as_u64() > Some(0), "{}", first["causes"]);

    fixture.open("/compare/departures");
    fixture.wait("version 2", "return document.getElementById('version-shown').textContent === '2';");
    fixture.press("#older");
    fixture.wait("version 1", "return document.getElementById('version-shown').textContent === '1' && document.getElementById('facts').textContent.includes('drift');");
    assert_eq!(fixture.run("return location.search;"), json!("?version=1"));
    let facts = fixture.run("return Object.fromEntries([...document.querySelectorAll('#facts > div')].map((fact) => [fact.children[0].textContent, fact.children[1].textContent]));");
    let grouped =
        |number: &Value| facts[number.as_str().unwrap_or_default()].as_str().unwrap_or_default().replace(',', "");
    assert_eq!(grouped(&json!("rows compared")), first["rows_compared"].to_string());
    let differing: u64 = first["causes"].as_object().expect("causes").values().filter_map(Value::as_u64).sum();
    assert_eq!(grouped(&json!("values that differed")), differing.to_string());
    // Rows of the chosen measure, largest error first.
    fixture.run("const select = document.getElementById('measure'); select.value = 'flights'; select.dispatchEvent(new Event('change'));");
    let rows = fixture.wait("its rows", "const rows = [...document.querySelectorAll('#rows tbody tr')]; return location.search.includes('measure=flights') && document.getElementById('served-about').textContent.startsWith('flights') && rows.length && rows.map((row) => [...row.children].map((cell) => cell.textContent));");
    let of_measure: Vec<&Value> =
        first["rows"].as_array().expect("rows").iter().filter(|row| row["measure"] == "flights").collect();
    assert_eq!(rows.as_array().map(Vec::len), Some(of_measure.len().min(100)));
    let off = |row: &Value| (row["served"].as_f64().unwrap_or(0.0) - row["exact"].as_f64().unwrap_or(0.0)).abs();
    let worst = of_measure.iter().map(|row| off(row)).fold(0.0, f64::max);
    let shown: f64 = rows[0][4]
        .as_str()
        .and_then(|text| text.replace([',', '−'], "").replace('-', "").parse().ok())
        .expect("a number");
    assert_eq!(shown, worst);
    let bars = fixture.run("return document.getElementById('causes').data.map((trace) => [trace.name, trace.y.reduce((a, b) => a + b, 0)]);");
    let second = fixture.world.get("/v1/views/departures/compare?version=2").json();
    let late = first["causes"]["late"].as_u64().unwrap_or(0) + second["causes"]["late"].as_u64().unwrap_or(0);
    assert!(bars.as_array().expect("bars").contains(&json!(["late", late])), "{bars}");
    // The URL holds the state: it restores the page, and the back button works.
    fixture.browser.open(&format!("{}/compare/departures?version=1&measure=destinations", fixture.world.url()));
    fixture.wait("the same again", "return document.getElementById('version-shown').textContent === '1' && document.getElementById('measure').value === 'destinations';");
    fixture.press("#latest");
    fixture.wait("the latest", "return document.getElementById('version-shown').textContent === '2';");
    fixture.run("history.back();");
    fixture.wait("back", "return document.getElementById('version-shown').textContent === '1';");
    fixture.open("/compare/departures?version=99");
    fixture.wait(
        "an error message",
        "const p = document.getElementById('error'); return !p.hidden && p.textContent.includes('99');",
    );
    fixture.open("/compare/departures?version=1");
    fixture.wait("the page", COMPARE_READY);
    if let Some(script) = axe::script() {
        axe::assert_accessible(&fixture.browser, &script, "/compare", |_| _ = fixture.wait("the page", COMPARE_READY));
    }
    fixture.picture("compare", COMPARE_READY);
}

#[test]
fn streams_show_disorder_and_rejected_lines() {
    let fixture = Fixture::new();
    let lines = "{\"flight_id\": 7}\nnonsense <b>\n";
    assert_eq!(fixture.world.post("/v1/events/flights", lines).status, 200);
    fixture.open("/streams");
    fixture.wait("the first round", STREAMS_READY);
    let stream = fixture.world.get("/v1/streams/flights").json();
    let bars = fixture.run("return document.querySelector('.lateness').data[0].x.length;");
    assert_eq!(bars, json!(stream["lateness"]["quantiles_ms"].as_object().map_or(0, serde_json::Map::len) + 1));
    let suggested = fixture.run("return [...document.querySelectorAll('.settings tbody tr')].slice(0, 2).map((row) => row.children[2].textContent);");
    assert_eq!(
        suggested,
        json!([
            stream["lateness"]["suggested"]["watermark_delay"],
            stream["lateness"]["suggested"]["allowed_lateness"]
        ])
    );
    let late = fixture.world.get("/v1/streams/flights/late?limit=20").json();
    let shown = fixture.run("return document.querySelectorAll('.entries tbody tr').length;");
    assert_eq!(json!(late["events"].as_array().map(Vec::len)), shown);
    fixture.press("[data-kind=quarantine]");
    let texts = fixture.wait("rejected lines", "const rows = [...document.querySelectorAll('.entries tbody tr')]; return rows.length === 2 && rows.map((row) => row.lastChild.textContent);");
    assert!(texts.as_array().expect("texts").contains(&json!("nonsense <b>")), "{texts}");
    if let Some(script) = axe::script() {
        axe::assert_accessible(&fixture.browser, &script, "/streams", |_| _ = fixture.wait("the page", STREAMS_READY));
    }
    fixture.picture("streams", STREAMS_READY);
    fixture.press(".empty-out");
    assert_eq!(
        fixture.world.get("/v1/streams/flights/quarantine").json()["kept"],
        json!(2),
        "one click must not clear the list"
    );
    fixture.press(".empty-out");
    fixture.wait("an empty list", "return document.querySelector('.listed').textContent === 'No rejected lines.';");
    assert_eq!(fixture.world.get("/v1/streams/flights/quarantine").json()["kept"], json!(0));
    let command = fixture.run("return document.querySelector('.send code').textContent;");
    assert!(
        command.as_str().is_some_and(|text| text.contains("/v1/events/flights") && text.contains("scheduled_at")),
        "{command}"
    );
}
