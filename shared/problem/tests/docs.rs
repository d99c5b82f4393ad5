//! Compares docs/errors.md with the table of codes.

use std::collections::BTreeSet;
use std::path::Path;

use problem::Code;

#[test]
fn the_documentation_lists_every_code_with_its_status_and_no_other() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let page = std::fs::read_to_string(page).expect("docs/errors.md");
    let documented: BTreeSet<(String, u16)> = page
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            let code = cells.next()?.trim_end_matches('`').to_owned();
            Some((code, cells.next()?.parse().expect("a status")))
        })
        .collect();
    let defined: BTreeSet<(String, u16)> =
        Code::ALL.iter().map(|code| (code.name().to_owned(), code.status().as_u16())).collect();
    let missing: Vec<_> = defined.difference(&documented).collect();
    let extra: Vec<_> = documented.difference(&defined).collect();
    assert!(missing.is_empty() && extra.is_empty(), "docs/errors.md lacks {missing:?} and has {extra:?}");
    // The example follows the code too.
    let example = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    assert!(example.contains(&format!("\"title\": \"{}\"", Code::UnknownView.title())), "{example}");
}
