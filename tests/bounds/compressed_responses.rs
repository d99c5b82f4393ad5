//! Compressed responses that clients do not read: no encoder waits for them.

use std::fmt::Write as _;

use world::World;

use crate::budget::{Budget, MIB, resident};
use crate::setting;
use crate::sockets::{Attackers, get};

const DEFINITIONS: &str = "
    CREATE STREAM sales (at TIMESTAMP, shop STRING) WITH (event_time = 'at');
    CREATE VIEW per_shop AS SELECT window_start, shop, COUNT(*) AS n
        FROM sales GROUP BY TUMBLE(at, INTERVAL '1' HOUR), shop;";
/// Groups of the view: a response of some 500 KiB, which is cached, and of which a fifth is left after compression.
const GROUPS: usize = 3_000;

#[test]
fn an_unread_compressed_response_costs_its_bytes_and_no_encoder() {
    let readers = setting("TRUEUP_BOUNDS_READERS", 1_000) / 2;
    let world = World::new(DEFINITIONS);
    let mut text = String::new();
    for n in 0..GROUPS {
        let name = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        writeln!(text, r#"{{"at":"2026-01-01T00:00:00Z","shop":"{name:016x}{name:032b}"}}"#).expect("text");
    }
    assert_eq!(world.post("/v1/events/sales", text).status, 200);
    let path = "/v1/views/per_shop/rows.json?limit=10000";
    let bytes = world.get(path).text.len();
    let attackers = Attackers::of(&world);
    let before = resident(world.id());
    let mut unread = Vec::with_capacity(readers);
    for n in 0..readers {
        let encoding = ["br", "zstd", "gzip"][n % 3];
        let request = get(path, &format!("accept-encoding: {encoding}\r\n"));
        unread.push(attackers.block_on(attackers.unread(&request)));
    }
    // The last one is answered after all others.
    let last = attackers.block_on(attackers.ask(&get(path, "accept-encoding: br\r\nconnection: close\r\n")));
    assert!(last.status() == 200 && last.0.contains("content-encoding: br"), "{last:?}");
    let after = resident(world.id());
    println!("{readers} unread responses of {bytes} bytes before compression: {} to {} MiB", before / MIB, after / MIB);
    // Compressed, and in the buffers of its connection; an encoder would add some MiB.
    let each = bytes / 2 + 128 * 1024;
    assert!(after < before + readers * each, "{} KiB each", (after - before) / readers / 1024);
    Budget::new()
        .connections(readers)
        .responses(readers)
        .queries(16 * MIB)
        .bodies(MIB)
        .holds("compressed responses", &world);
}
