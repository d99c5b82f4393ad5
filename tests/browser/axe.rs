//! Can everybody use a page, as far as a program can tell? axe-core looks at it, at both widths and in both colours.
//!
//! The script is not the project's: `.ci/run` installs it and names it in `TRUEUP_AXE`.

use serde_json::Value;

use super::Browser;

/// What is looked at: widths and heights in CSS pixels, and what the system prefers.
const SIGHTS: [(u64, u64, &str); 4] =
    [(1400, 1000, "light"), (1400, 1000, "dark"), (400, 900, "light"), (400, 900, "dark")];

/// Runs in the page; gives violations that keep people out, as lines.
const LOOK: &str = r"
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ['violations'] }).then(
  (results) => done(results.violations
    .filter((v) => ['serious', 'critical'].includes(v.impact))
    .flatMap((v) => v.nodes.map((n) => `${v.impact} ${v.id}: ${n.target.join(' ')}: ${n.failureSummary} ${n.html.slice(0, 200)}`))),
  (error) => done([`axe-core failed: ${error}`]));
";

/// The script of axe-core, where the environment names it; CI must.
pub fn script() -> Option<String> {
    let Some(path) = std::env::var_os("TRUEUP_AXE") else {
        assert!(std::env::var_os("CI").is_none(), "TRUEUP_AXE names no script of axe-core");
        eprintln!("SKIPPED: TRUEUP_AXE names no script of axe-core; .ci/run installs one");
        return None;
    };
    Some(std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// Asserts that the page in sight keeps nobody out at any width, in any colours. `settled` waits until it shows what it
/// is to show, after each change.
pub fn lets_everybody_in(browser: &Browser, script: &str, what: &str, settled: impl Fn(&Browser)) {
    for (width, height, scheme) in SIGHTS {
        browser.resize(width, height);
        browser.prefer(scheme);
        settled(browser);
        browser.run(script);
        let found = browser.run_async(LOOK);
        let Value::Array(lines) = &found else { panic!("{what}: axe-core answered {found}") };
        assert!(lines.is_empty(), "{what} at {width} px, {scheme}: {found:#}");
        let widths = browser.run("return [document.documentElement.scrollWidth, innerWidth];");
        assert!(widths[0].as_u64() <= Some(width), "{what} is wider than {width} px: {widths}");
    }
    browser.resize(1400, 1000);
    browser.prefer("light");
}
