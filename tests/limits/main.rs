//! Compares `docs/limits.md` with `shared/src/limits.rs`, from which it is made, and checks that every limit is driven by a
//! test, which the page names. `TRUEUP_WRITE=1` writes the page again.

mod driven;

use std::fmt::Write as _;
use std::path::Path;

use driven::{DRIVEN, NOT_DRIVEN};

const HEAD: &str = "# Limits

Every limit of Trueup, with its default and the consequence of reaching it. `tests/limits/main.rs` makes this page from `shared/src/limits.rs`.
Where a setting changes a limit, [deployment.md](deployment.md) and `trueup serve --help` name it. The last column names the test that reaches the limit, or says why none does.

Resident memory stays below the sum of the budgets that the load can fill, plus 128 MiB for the process without load and 160 KiB for each connection, plus a quarter for the allocator, which keeps freed memory for some seconds.
`tests/bounds/` measures it with the real server under attack; `tests/bounds/budget.rs` adds up the sums.
";

const COLUMNS: &str = "| limit | default | meaning, and consequence of reaching it | test |";

/// One limit: `pub const NAME: type = value;` with the comment before it.
struct Limit {
    name: String,
    value: String,
    text: String,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of the repository")
}

/// Computes a value as limits write it: a product, each of whose factors is a number or a shift.
fn number(expression: &str) -> u64 {
    let factor = |text: &str| -> u64 {
        let plain = |text: &str| text.trim().replace('_', "").parse::<u64>().expect("a number");
        match text.split_once("<<") {
            Some((number, by)) => plain(number) << plain(by),
            None => plain(text),
        }
    };
    expression.split('*').map(factor).product()
}

/// Writes a value with the unit that the name of the limit ends with.
fn with_unit(name: &str, expression: &str) -> String {
    let value = number(expression);
    let in_steps = |units: &[(&str, u64)]| {
        let (unit, size) =
            units.iter().rev().find(|(_, size)| value >= *size && value.is_multiple_of(*size)).unwrap_or(&units[0]);
        format!("{} {unit}", grouped(value / size))
    };
    let has = |part: &str| name.split('_').any(|word| word == part);
    if name.ends_with("PER_SECOND_MIN") && has("BYTES") {
        return format!("{}/s", in_steps(&[("bytes", 1), ("KiB", 1 << 10), ("MiB", 1 << 20)]));
    }
    match () {
        () if has("MS") => in_steps(&[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000)]),
        () if has("SECONDS") || name.ends_with("_S") => in_steps(&[("s", 1), ("min", 60)]),
        () if has("BYTES") => in_steps(&[("bytes", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]),
        () => grouped(value),
    }
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the sections of the file, `// == Title ==`, with their limits.
fn sections(source: &str) -> Vec<(String, Vec<Limit>)> {
    let mut sections: Vec<(String, Vec<Limit>)> = Vec::new();
    let mut text = String::new();
    for line in source.lines() {
        if let Some(title) = line.strip_prefix("// == ").and_then(|rest| rest.strip_suffix(" ==")) {
            sections.push((title.to_owned(), Vec::new()));
        } else if let Some(comment) = line.strip_prefix("/// ") {
            text.push_str(if text.is_empty() { "" } else { " " });
            text.push_str(comment);
        } else if let Some(constant) = line.strip_prefix("pub const ") {
            let (name, rest) = constant.split_once(": ").expect("a name and a type");
            let (_, value) = rest.split_once(" = ").expect("a type and a value");
            let value = value.strip_suffix(';').expect("one line per limit");
            assert!(!text.is_empty(), "{name} does not say what it limits");
            let limit = Limit { name: name.to_owned(), value: with_unit(name, value), text: std::mem::take(&mut text) };
            let (_, limits) = sections.last_mut().expect("a section before the first limit");
            limits.push(limit);
        }
    }
    sections
}

/// Returns the file of the test that drives the limit, or the reason why none does.
///
/// # Panics
/// If neither is listed, or both are.
fn test_of(limit: &str) -> String {
    let file = DRIVEN.iter().find(|(name, ..)| *name == limit).map(|(_, file, _)| format!("`{file}`"));
    let reason = NOT_DRIVEN.iter().find(|(name, _)| *name == limit).map(|(_, reason)| (*reason).to_owned());
    match (file, reason) {
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => panic!("no test drives {limit}: name one in tests/limits/driven.rs, or the reason"),
        (Some(_), Some(_)) => panic!("{limit} has a test and a reason not to have one"),
    }
}

fn page(source: &str) -> String {
    let mut page = HEAD.to_owned();
    for (title, limits) in sections(source) {
        write!(page, "\n## {title}\n\n{COLUMNS}\n|---|---|---|---|\n").expect("text");
        for Limit { name, value, text } in limits {
            let text = text.replace("[`", "`").replace("`]", "`").replace('|', "\\|");
            let test = test_of(&name);
            writeln!(page, "| `{name}` | {value} | {text} | {test} |").expect("text");
        }
    }
    page
}

#[test]
fn the_page_of_limits_matches_the_code() {
    let expected = page(&read("shared/src/limits.rs"));
    if std::env::var_os("TRUEUP_WRITE").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/limits.md"), &expected)
            .expect("writes the page");
    }
    assert!(
        read("docs/limits.md") == expected,
        "docs/limits.md is out of date: run TRUEUP_WRITE=1 cargo test --release -p trueup --test limits"
    );
}

#[test]
fn every_test_that_drives_a_limit_exists() {
    let source = read("shared/src/limits.rs");
    let is_limit = |name: &str| source.contains(&format!("pub const {name}: "));
    for (limit, file, test) in DRIVEN {
        assert!(is_limit(limit), "{limit} is not a limit");
        assert!(read(file).contains(&format!("fn {test}(")), "{file} has no test {test}, which drives {limit}");
    }
    for (limit, _) in NOT_DRIVEN {
        assert!(is_limit(limit), "{limit} is not a limit");
    }
}

#[test]
fn values_have_the_unit_of_their_name() {
    assert_eq!(with_unit("BODY_BYTES_MAX", "64 * 1024 * 1024"), "64 MiB");
    assert_eq!(with_unit("VACUUM_AGE_MS", "24 * 3_600_000"), "24 h");
    assert_eq!(with_unit("DEDUP_EVENTS", "1 << 22"), "4,194,304");
    assert_eq!(with_unit("BODY_BYTES_PER_SECOND_MIN", "64 * 1024"), "64 KiB/s");
    assert_eq!(with_unit("WAIT_MS", "1_500"), "1,500 ms");
}
