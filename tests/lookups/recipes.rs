//! Runs the commands of `docs/lookups.md` in order, and compares what they print with what the page shows.

use world::{World, recipes, root};

#[test]
fn the_commands_of_the_page_print_what_it_shows() {
    let page = std::fs::read_to_string(root().join("docs/lookups.md")).expect("the page");
    let world = World::new(&recipes::definitions(&page));
    let compared = recipes::run(&page, "text", &world);
    assert!(compared >= 4, "{compared} outputs of the page were compared");
}
