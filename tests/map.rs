//! Checks the map of the project: paths, links and invariants that documents name, sizes and heads of files, and
//! that layers do not name each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use world::root;

/// Maximum number of lines of a source file, as in CONTRIBUTING.md.
const LINES_MAX: usize = 600;

/// The folders of product code.
const PRODUCT: [&str; 11] = [
    "auth/src",
    "shared/src",
    "shared/lake/src",
    "shared/problem/src",
    "intake/src",
    "intake/kafka/src",
    "speed/src",
    "batch/src",
    "serving/src",
    "alerts/src",
    "src",
];

/// The files below `folders` with the extension `extension`.
fn files(folders: &[&str], extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).expect("a folder of the project").flatten().map(|e| e.path()));
        } else if path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
    files
}

fn sources() -> Vec<PathBuf> {
    let files = files(&[&PRODUCT[..], &["tests", "bench"][..]].concat(), "rs");
    assert!(files.len() > 50, "the sources have moved");
    files
}

fn documents() -> Vec<PathBuf> {
    let roots = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    let files = files(&[&roots[..], &["docs", "examples", "infra"][..]].concat(), "md");
    assert!(files.len() > 30, "the documents have moved");
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn paths_in_documents_exist() {
    let folders = [
        "auth/",
        "shared/",
        "intake/",
        "speed/",
        "batch/",
        "serving/",
        "alerts/",
        "src/",
        "tests/",
        "bench/",
        "docs/",
        "examples/",
        "infra/",
    ];
    for document in documents() {
        // Names of files in this table are examples of style.
        if document.ends_with("docs/style.md") {
            continue;
        }
        for quoted in read(&document).split('`').skip(1).step_by(2) {
            if folders.iter().any(|folder| quoted.starts_with(folder)) && !quoted.contains([' ', '*', '<', '{']) {
                assert!(root().join(quoted).exists(), "{} names {quoted}, which does not exist", document.display());
            }
        }
    }
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| -> String {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_in_documents_lead_somewhere() {
    for document in documents() {
        let text = read(&document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = document.parent().expect("a folder");
            let path = if target.is_empty() { document.clone() } else { folder.join(target) };
            assert!(path.exists(), "{} links to {link}, which does not exist", document.display());
            let is_there = anchor.is_empty() || anchors(&read(&path)).contains(anchor);
            assert!(is_there, "{} links to {link}, which has no such heading", document.display());
        }
    }
}

#[test]
fn documents_that_code_names_exist() {
    for source in sources() {
        let text = read(&source);
        for (at, _) in text.match_indices("docs/") {
            let rest = &text[at..];
            let end =
                rest.find(|c: char| !c.is_alphanumeric() && !['/', '.', '-', '_'].contains(&c)).unwrap_or(rest.len());
            let name = rest[..end].trim_end_matches('.');
            if name.ends_with(".md") {
                assert!(root().join(name).exists(), "{} names {name}, which does not exist", source.display());
            }
        }
    }
}

#[test]
fn decisions_are_numbered_without_gaps_and_listed() {
    let index = read(&root().join("docs/decisions/README.md"));
    let mut names: Vec<String> = files(&["docs/decisions"], "md")
        .iter()
        .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    for (number, name) in (1..).zip(&names) {
        let text = read(&root().join("docs/decisions").join(name));
        assert!(name.starts_with(&format!("{number:04}-")), "{name} is not decision {number}");
        assert!(index.contains(&format!("[{number}]({name})")), "the index lacks {name}");
        for part in [&format!("# {number}. "), "**Status.** ", "**Context.** ", "**Decision.**", "**Consequences.** "] {
            assert!(text.contains(part), "{name} lacks {part}");
        }
    }
}

#[test]
fn every_file_has_a_head_and_a_bounded_length() {
    for file in sources() {
        let text = read(&file);
        let is_inner_test =
            file.file_name().is_some_and(|n| n == "tests.rs") || file.parent().is_some_and(|p| p.ends_with("tests"));
        assert!(text.starts_with("//!") || is_inner_test, "{} does not begin with //!", file.display());
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", file.display());
    }
    let contributing = read(&root().join("CONTRIBUTING.md"));
    assert!(contributing.contains(&format!("A file has at most {LINES_MAX} lines")), "CONTRIBUTING.md says otherwise");
}

#[test]
fn code_cites_every_invariant() {
    let architecture = read(&root().join("docs/architecture.md"));
    let (_, section) = architecture.split_once("## What always holds").expect("the invariants");
    let invariants: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("- **")?.split_once("**"))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert!(invariants.len() >= 12, "{invariants:?}");
    let mut cited = BTreeSet::new();
    for file in files(&PRODUCT, "rs") {
        for line in read(&file).lines().filter_map(|line| line.split_once("// I")) {
            let number: String = line.1.chars().take_while(char::is_ascii_digit).collect();
            cited.insert(format!("I{number}"));
        }
    }
    let missing: Vec<_> = invariants.difference(&cited).collect();
    assert!(missing.is_empty(), "no line of code guards {missing:?}");
}

#[test]
fn layers_do_not_name_each_other() {
    for layer in ["intake", "speed", "batch", "serving", "alerts"] {
        let manifest = read(&root().join(layer).join("Cargo.toml"));
        for other in ["intake", "speed", "batch", "serving", "alerts"].iter().filter(|other| **other != layer) {
            assert!(!manifest.contains(&format!("\n{other}.workspace")), "{layer} names {other}");
        }
    }
    for layer in ["speed", "serving", "alerts"] {
        let manifest = read(&root().join(layer).join("Cargo.toml"));
        assert!(!manifest.contains("\nlake.workspace"), "{layer} names the lake");
    }
    let shared = read(&root().join("shared/Cargo.toml"));
    assert!(!shared.contains("axum"), "shared speaks HTTP");
    assert!(!shared.contains("deltalake"), "shared touches storage");
}

#[test]
fn unsafe_code_is_in_one_file() {
    let allowed: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|file| !file.ends_with("tests/map.rs"))
        .filter(|file| read(file).contains("allow(unsafe_code)"))
        .collect();
    assert_eq!(allowed, [root().join("shared/src/evaluate/frame.rs")]);
}
