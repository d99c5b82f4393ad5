//! Runs the commands of `docs/alerts.md` in order, and compares what they print with what the page shows.

use world::{World, recipes, root};

#[test]
fn the_commands_of_the_page_print_what_it_shows() {
    let page = std::fs::read_to_string(root().join("docs/alerts.md")).expect("the page");
    let mut world = World::stopped(&recipes::definitions(&page));
    world.set_limits("\n[connections.ops]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n");
    world.start();
    let compared = recipes::run(&page, "text", &world);
    assert!(compared >= 2, "{compared} outputs of the page were compared");
}
