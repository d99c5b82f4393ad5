//! Does the map tell the truth? Paths that the documents name exist, files say what they are for, and layers do not
//! name each other.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["shared/src", "intake/src", "speed/src", "batch/src", "serving/src", "src", "tests", "bench"]
            .iter()
            .map(|f| root().join(f))
            .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "the sources are where they are looked for");
    files
}

#[test]
fn paths_that_documents_name_exist() {
    for document in
        ["README.md", "docs/architecture.md", "docs/glossary.md", "docs/performance.md", "examples/README.md"]
    {
        let text = std::fs::read_to_string(root().join(document)).unwrap_or_else(|e| panic!("{document}: {e}"));
        for quoted in text.split('`').skip(1).step_by(2) {
            let folders = [
                "shared/",
                "intake/",
                "speed/",
                "batch/",
                "serving/",
                "src/",
                "tests/",
                "bench/",
                "docs/",
                "examples/",
                "infra/",
            ];
            if folders.iter().any(|f| quoted.starts_with(f)) && !quoted.contains([' ', '*', '<', '{']) {
                assert!(root().join(quoted).exists(), "{document} names {quoted}, which does not exist");
            }
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                let base = root().join(document);
                let path = base.parent().expect("a folder").join(target);
                assert!(path.exists(), "{document} links to {link}, which does not exist");
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for file in sources() {
        let text = std::fs::read_to_string(&file).expect("readable");
        let is_inner_test =
            file.file_name().is_some_and(|n| n == "tests.rs") || file.parent().is_some_and(|p| p.ends_with("tests"));
        assert!(text.starts_with("//!") || is_inner_test, "{} does not begin with //!", file.display());
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}

#[test]
fn layers_do_not_name_each_other() {
    for layer in ["intake", "speed", "batch", "serving"] {
        let manifest = std::fs::read_to_string(root().join(layer).join("Cargo.toml")).expect("a manifest");
        for other in ["intake", "speed", "batch", "serving"].iter().filter(|other| **other != layer) {
            assert!(!manifest.contains(&format!("\n{other}.workspace")), "{layer} names {other}");
        }
    }
    let shared = std::fs::read_to_string(root().join("shared/Cargo.toml")).expect("a manifest");
    assert!(!shared.contains("axum"), "shared speaks HTTP");
}

#[test]
fn unsafe_code_is_in_one_file() {
    let allowed: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|file| !file.ends_with("tests/map.rs"))
        .filter(|file| std::fs::read_to_string(file).expect("readable").contains("allow(unsafe_code)"))
        .collect();
    assert_eq!(allowed, [root().join("shared/src/evaluate/frame.rs")]);
}
