//! Runs the commands of `docs/kappa.md` in order, and compares what they print with what the page shows.

use std::process::Command;

use world::{World, root};

/// The blocks of a kind, with the one after each.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find("\n```") {
        let block = &rest[at + 4..];
        let (kind, body) = block.split_once('\n').expect("a block has lines");
        let end = body.find("```").expect("a block ends");
        all.push((kind.trim().to_owned(), body[..end].to_owned()));
        rest = &body[end + 3..];
    }
    all
}

#[test]
fn the_commands_of_the_page_print_what_it_shows() {
    let page = std::fs::read_to_string(root().join("docs/kappa.md")).expect("the page");
    let blocks = blocks(&page);
    let definitions: String = blocks.iter().filter(|(kind, _)| kind == "sql").map(|(_, text)| text.as_str()).collect();
    let world = World::new(&definitions);
    let program = world::program::path();
    let path =
        format!("{}:{}", program.parent().expect("a folder").display(), std::env::var("PATH").unwrap_or_default());
    let mut compared = 0;
    for (number, (kind, script)) in blocks.iter().enumerate() {
        if kind != "sh" {
            continue;
        }
        let script = script.replace("http://127.0.0.1:8080", world.url());
        let output =
            Command::new("bash").args(["-euc", &script]).env("TRUEUP_URL", world.url()).env("PATH", &path).output();
        let output = output.expect("bash runs");
        let printed = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success(), "{script}\n{printed}{}", String::from_utf8_lossy(&output.stderr));
        if let Some((_, expected)) = blocks.get(number + 1).filter(|(kind, _)| kind == "text") {
            let expected: Vec<&str> = expected.split("..").map(str::trim).collect();
            let mut rest = printed.as_str();
            for part in expected.into_iter().filter(|part| !part.is_empty()) {
                let at = rest.find(part).unwrap_or_else(|| panic!("{script}\nprinted {printed}\nwithout {part}"));
                rest = &rest[at + part.len()..];
            }
            compared += 1;
        }
    }
    assert!(compared >= 4, "{compared} outputs of the page were compared");
}
