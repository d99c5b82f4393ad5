//! More connections than the server may have: those beyond the bound are refused, and a client that was there is served.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use shared::limits;
use tokio::net::TcpStream;
use world::program;

use crate::budget::Budget;
use crate::sockets::{Attackers, get, reply};

const DEFINITIONS: &str = "
    CREATE STREAM clicks (at TIMESTAMP) WITH (event_time = 'at');
    CREATE VIEW per_hour AS SELECT window_start, COUNT(*) AS n FROM clicks GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";
/// Descriptors of the server; half of them are for connections.
const DESCRIPTORS: usize = 1_024;
const FLOOD: usize = 3_000;

struct Server {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server() -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("v.sql"), DEFINITIONS).expect("written");
    let mut child = Command::new("sh")
        .current_dir(folder.path())
        .args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$@\""), "sh"])
        .arg(program::path())
        .args(["serve", "v.sql", "--data", "data", "--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh starts");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines().map_while(Result::ok);
    let url = lines.find_map(|line| line.strip_prefix("  page  ").map(str::to_owned)).expect("the server listens");
    std::thread::spawn(move || lines.for_each(drop));
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    Server { child, address, _folder: folder }
}

#[test]
fn a_flood_of_connections_is_refused_beyond_the_bound_and_those_that_are_open_are_served() {
    let server = server();
    let attackers = Attackers::at(&server.address);
    attackers.block_on(async {
        let mut good = attackers.connect().await;
        let mut flood: Vec<TcpStream> = Vec::new();
        for n in 0..FLOOD {
            flood.push(attackers.connect().await);
            if n % 500 == 0 {
                assert_eq!(asked(&mut good, "/v1/views/per_hour/rows").await, 200);
            }
        }
        // A refused connection has its answer without a request, or is closed.
        let mut refused = 0;
        for stream in flood.iter_mut().skip(DESCRIPTORS / 2) {
            let reply = reply(stream).await;
            assert!(reply.status() == 503 || reply.0.is_empty(), "{reply:?}");
            refused += usize::from(reply.status() == 503);
        }
        // Refusals at the same time are limited, and each lasts as long as its client keeps the connection.
        println!("{refused} of {} refused connections have an answer", FLOOD - DESCRIPTORS / 2);
        assert!(refused > 0);
        assert_eq!(asked(&mut good, "/v1/views/per_hour/rows").await, 200);
        Budget::new()
            .connections(DESCRIPTORS / 2 + limits::REFUSALS_AT_ONCE)
            .holds_for("a flood of connections", crate::budget::peak(server.child.id()));
        drop(flood);
        while attackers.ask(&get("/livez", "connection: close\r\n")).await.status() != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
}

async fn asked(stream: &mut TcpStream, path: &str) -> u16 {
    use tokio::io::AsyncWriteExt;
    stream.write_all(&get(path, "")).await.expect("the connection is open");
    reply(stream).await.status()
}
