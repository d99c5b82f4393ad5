//! Measures the time from the acknowledgement of an event to the arrival of the notice of its alert at a webhook, while other
//! events change rows of the same view at a fixed rate.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::events::{STREAM, bids};
use crate::server::{Server, cpu_seconds, quantile};

const PROBES: usize = 300;
const EVENTS_PER_REQUEST: u64 = 5_000;
/// Bidders of the load are below a million.
const FIRST_PROBE: u64 = 5_000_000;
const VIEW: &str = "
    CREATE VIEW per_bidder AS SELECT bidder, COUNT(*) AS bids, SUM(price) AS total FROM bids GROUP BY bidder;";
const ALERT: &str = "
    CREATE ALERT rich ON per_bidder WHEN total > 1000000000 WITH (to = 'webhook:bench');";

pub fn measure() {
    for rate in [0, 50_000, 200_000] {
        round(rate, true);
    }
    // The cost of the evaluation: the same load without an alert.
    round(200_000, false);
}

fn round(rate: u64, has_alert: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let (arrived, arrivals) = channel();
    let port = receiver(arrived);
    let settings = format!("\n[connections.bench]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/\"\n");
    let alert = if has_alert { ALERT } else { "" };
    let server = Server::with_limits(folder.path(), &format!("{STREAM}{VIEW}{alert}"), &settings);
    let url = server.url.clone();
    let (stop, stopped) = channel::<()>();
    let load = std::thread::spawn(move || {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (mut from, begin) = (0, Instant::now());
        while stopped.try_recv().is_err() {
            if rate == 0 {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            let body = bids(from, from + EVENTS_PER_REQUEST, 500_000_000);
            from += EVENTS_PER_REQUEST;
            let request = client.post(format!("{url}/v1/events/bids")).body(body);
            let _ = runtime.block_on(async { request.send().await?.bytes().await });
            let due = Duration::from_secs_f64(from as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
        from as f64 / begin.elapsed().as_secs_f64()
    });
    std::thread::sleep(Duration::from_secs(2));
    let (cpu, begin) = (server.cpu_seconds(), Instant::now());
    let own = cpu_seconds("self");
    let mut acknowledged: HashMap<u64, Instant> = HashMap::new();
    let mut millis = Vec::new();
    for n in 0..PROBES as u64 {
        let bidder = FIRST_PROBE + n;
        let event = json!({"event_id": format!("p{bidder}"), "bidder": bidder, "price": 2_000_000_000_u64, "channel": "x", "ts": "2026-01-01T00:00:00Z"});
        server.post("/v1/events/bids", event.to_string().into_bytes());
        acknowledged.insert(bidder, Instant::now());
        if has_alert {
            let (bidder, at): (u64, Instant) = arrivals.recv_timeout(Duration::from_secs(60)).expect("a notice");
            millis.push(at.saturating_duration_since(acknowledged[&bidder]).as_secs_f64() * 1e3);
        } else {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let (cores, client) = ((server.cpu_seconds() - cpu) / seconds, (cpu_seconds("self") - own) / seconds);
    stop.send(()).expect("the load is running");
    let reached = load.join().expect("the load ends");
    millis.sort_by(f64::total_cmp);
    match millis.is_empty() {
        true => println!(
            "without an alert, {reached:.0} events/s: {cores:.2} cores of the server, {client:.2} of the client"
        ),
        false => println!(
            "{reached:.0} events/s: p50 {:.1} ms, p99 {:.1} ms, largest {:.1} ms from acknowledgement to the webhook ({PROBES} probes); {cores:.2} cores of the server, {client:.2} of the client",
            quantile(&millis, 0.5),
            quantile(&millis, 0.99),
            quantile(&millis, 1.0)
        ),
    }
}

/// Starts a webhook that reports bidder and time of each notice; returns its port.
fn receiver(arrived: Sender<(u64, Instant)>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let arrived = arrived.clone();
            std::thread::spawn(move || serve(&socket, &arrived));
        }
    });
    port
}

fn serve(socket: &TcpStream, arrived: &Sender<(u64, Instant)>) {
    let _ = socket.set_nodelay(true);
    let mut reader = BufReader::new(socket);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().unwrap_or(0)
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let at = Instant::now();
        let notice: Value = serde_json::from_slice(&body).expect("JSON");
        if let Some(bidder) = notice["data"]["key"]["bidder"].as_u64() {
            let _ = arrived.send((bidder, at));
        }
        let mut socket = socket;
        if socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
            return;
        }
    }
}
