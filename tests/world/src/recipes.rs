//! Runs the shell commands of a page of `docs/` in order, and compares what they print with what the page shows.

use std::process::Command;

use crate::World;

/// Returns the blocks of a page: their language, and their text.
pub fn blocks(page: &str) -> Vec<(String, String)> {
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

/// Returns the statements of a page.
pub fn definitions(page: &str) -> String {
    blocks(page).into_iter().filter(|(kind, _)| kind == "sql").map(|(_, text)| text).collect()
}

/// Runs the blocks of shell commands against `world`, and compares their output with the block of kind `output` that follows,
/// in which `..` stands for anything. Returns how many outputs were compared.
///
/// # Panics
/// If a command fails or prints something else.
pub fn run(page: &str, output: &str, world: &World) -> usize {
    let program = crate::program::path();
    let folder = program.parent().expect("a folder").display();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let blocks = blocks(page);
    let mut compared = 0;
    for (number, (_, script)) in blocks.iter().enumerate().filter(|(_, (kind, _))| kind == "sh") {
        let script = script.replace("http://127.0.0.1:8080", world.url());
        let mut bash = Command::new("bash");
        let bash = bash.args(["-euc", &script]).env("TRUEUP_URL", world.url()).env("PATH", &path);
        let done = bash.output().expect("bash runs");
        let printed = String::from_utf8(done.stdout).expect("UTF-8");
        assert!(done.status.success(), "{script}\n{printed}{}", String::from_utf8_lossy(&done.stderr));
        let Some((_, expected)) = blocks.get(number + 1).filter(|(kind, _)| kind == output) else { continue };
        let mut rest = printed.as_str();
        for part in expected.split("..").map(str::trim).filter(|part| !part.is_empty()) {
            let at = rest.find(part).unwrap_or_else(|| panic!("{script}\nprinted {printed}\nwithout {part}"));
            rest = &rest[at + part.len()..];
        }
        compared += 1;
    }
    compared
}
