//! Checks pages for accessibility violations with axe-core, at both widths and in both colour schemes.
//!
//! The script is a third-party one: `.ci/run` installs it and sets `TRUEUP_AXE` to its path.

use serde_json::Value;

use super::Browser;

/// The viewports to check: width and height in CSS pixels, and the preferred colour scheme.
const VIEWPORTS: [(u64, u64, &str); 4] =
    [(1400, 1000, "light"), (1400, 1000, "dark"), (400, 900, "light"), (400, 900, "dark")];

/// Runs in the page; returns serious and critical violations as lines.
const CHECK: &str = r"
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ['violations'] }).then(
  (results) => done(results.violations
    .filter((v) => ['serious', 'critical'].includes(v.impact))
    .flatMap((v) => v.nodes.map((n) => `${v.impact} ${v.id}: ${n.target.join(' ')}: ${n.failureSummary} ${n.html.slice(0, 200)}`))),
  (error) => done([`axe-core failed: ${error}`]));
";

/// Returns the script of axe-core if `TRUEUP_AXE` is set. Panics without it in CI.
pub fn script() -> Option<String> {
    let Some(path) = std::env::var_os("TRUEUP_AXE") else {
        assert!(std::env::var_os("CI").is_none(), "TRUEUP_AXE is not set to the script of axe-core");
        eprintln!("SKIPPED: TRUEUP_AXE is not set to the script of axe-core; .ci/run installs it");
        return None;
    };
    Some(std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// Asserts that the open page has no serious violation in any viewport and never scrolls sideways. `settled` waits, after
/// each change of viewport, until the page is up to date.
pub fn assert_accessible(browser: &Browser, script: &str, what: &str, settled: impl Fn(&Browser)) {
    for (width, height, scheme) in VIEWPORTS {
        browser.resize(width, height);
        browser.prefer(scheme);
        settled(browser);
        browser.run(script);
        let found = browser.run_async(CHECK);
        let Value::Array(lines) = &found else { panic!("{what}: axe-core returned {found}") };
        assert!(lines.is_empty(), "{what} at {width} px, {scheme}: {found:#}");
        let widths = browser.run("return [document.documentElement.scrollWidth, innerWidth];");
        assert!(widths[0].as_u64() <= Some(width), "{what} is wider than {width} px: {widths}");
    }
    browser.resize(1400, 1000);
    browser.prefer("light");
}
