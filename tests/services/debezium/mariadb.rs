//! A table that reads what a real Debezium writes of a real MariaDB, while applications change rows and both programs are killed.
//!
//! MariaDB comes from the package `mariadb-server` of Debian and listens on a free port of loopback, with its data in a temporary
//! folder. Without it the test is skipped; with `CI` set it is required.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::{Connector, jars, python};
use crate::broker::shared as broker;
use crate::database::{PASSWORD, is_root, run};
use crate::followed_kills::{rounds, seed};
use crate::followed_tables::{compare_with, rows_by_key};
use crate::guarded::Guarded;
use crate::topic::Topic;

const PARTITIONS: i32 = 3;
const OTHER_ROWS: u32 = 5_000;
const KEYS: i64 = 40;
/// Longest wait for a start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with the database `shop`.
struct Server {
    folder: PathBuf,
    port: u16,
    running: Option<Guarded>,
}

impl Server {
    fn start() -> Option<Server> {
        if Command::new("mariadbd").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "no MariaDB: install mariadb-server (.ci/run does)");
            eprintln!("SKIPPED: no MariaDB; install the package mariadb-server");
            return None;
        }
        // Outlives this process if a guard removes it.
        let folder = tempfile::Builder::new().prefix("trueup-mariadb-").tempdir().expect("a folder").keep();
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let mut server = Server { folder, port: free.port(), running: None };
        if is_root() {
            run(Command::new("chown").args(["-R", "mysql:"]).arg(&server.folder));
        }
        let mut create = Command::new("mariadb-install-db");
        run(create.args(["--auth-root-authentication-method=normal", "--skip-test-db"]).args(server.arguments()));
        let mut command = Command::new("mariadbd");
        command.arg("--no-defaults").args(server.arguments()).args([
            "--bind-address=127.0.0.1",
            "--log-bin=bin",
            "--binlog-format=ROW",
            "--binlog-row-image=FULL",
            "--server-id=1",
            "--character-set-server=utf8mb4",
            "--default-time-zone=+00:00",
            "--innodb-flush-log-at-trx-commit=0",
        ]);
        command.arg(format!("--port={}", server.port)).arg(format!("--socket={}", server.socket().display()));
        server.running = Some(Guarded::start(&command, &server.folder));
        let begin = Instant::now();
        while !server.client("mysql").args(["-e", "SELECT 1"]).output().is_ok_and(|output| output.status.success()) {
            let output = || std::fs::read_to_string(server.folder.join("out")).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE, "MariaDB did not start:\n{}", output());
            std::thread::sleep(Duration::from_millis(50));
        }
        let create = format!(
            "CREATE DATABASE shop; CREATE USER debezium@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO debezium@'%'"
        );
        run(server.client("mysql").args(["-e", &create]));
        Some(server)
    }

    fn arguments(&self) -> Vec<String> {
        let user = is_root().then(|| "--user=mysql".to_owned());
        // The folder for temporary files of this process may be closed to other users.
        let folders = [
            format!("--datadir={}", self.folder.join("data").display()),
            format!("--tmpdir={}", self.folder.display()),
        ];
        folders.into_iter().chain(user).collect()
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// The client program, connected to a database. Statements that fail do not end it.
    fn client(&self, database: &str) -> Command {
        let mut command = Command::new("mariadb");
        command
            .args(["--no-defaults", "--force", "--raw", "--skip-column-names", "-u", "root", "-S"])
            .arg(self.socket());
        command.arg(database);
        command
    }

    fn execute(&self, statements: &str) {
        run(self.client("shop").args(["-e", statements]));
    }

    /// The rows of a query that makes JSON.
    fn rows(&self, query: &str) -> Vec<Value> {
        let output = self.client("shop").args(["-e", query]).output().expect("the client runs");
        assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.running.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A statement of an application.
fn statement(dice: &mut StdRng) -> String {
    let (id, other) = (dice.random_range(1..=KEYS), dice.random_range(1..=KEYS));
    let amount = dice.random_range(1..10_000);
    match dice.random_range(0..20) {
        0..6 => format!(
            "INSERT IGNORE INTO orders (id, status, amount, note) VALUES ({id}, 'new', {amount} / 100, REPEAT(MD5(RAND()), 200))"
        ),
        6..11 => format!("UPDATE orders SET status = 'paid', amount = {amount} / 100 WHERE id = {id}"),
        11..13 => format!("UPDATE orders SET note = CONCAT('n ', RAND()), placed_at = NOW(6) WHERE id = {id}"),
        13..16 => format!("DELETE FROM orders WHERE id = {id}"),
        16..19 => format!("UPDATE orders SET id = {other} WHERE id = {id}"),
        _ => format!("SAVEPOINT s; UPDATE orders SET status = 'undone' WHERE id <= {id}; ROLLBACK TO s"),
    }
}

/// Starts a client that runs random transactions until its input ends.
fn application(server: &Server, number: u64) -> Child {
    let mut client = server.client("shop").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut input = client.as_mut().expect("the client runs").stdin.take().expect("piped");
    std::thread::spawn(move || {
        let mut dice = StdRng::seed_from_u64(seed() * 100 + number);
        loop {
            let statements: Vec<String> = (0..dice.random_range(1..6)).map(|_| statement(&mut dice)).collect();
            let end = if dice.random_range(0..5) > 0 { "COMMIT" } else { "ROLLBACK" };
            let transaction = format!("BEGIN; {}; {end};\n", statements.join("; "));
            // The client was killed.
            if input.write_all(transaction.as_bytes()).and_then(|()| input.flush()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(dice.random_range(0..10)));
        }
    });
    client.expect("the client runs")
}

#[test]
fn a_table_of_a_real_debezium_has_the_rows_of_a_mariadb() {
    let (Some(broker), Some(python), Some(server)) = (broker(), python(), Server::start()) else { return };
    let mut dice = StdRng::seed_from_u64(seed());
    server.execute(&format!(
        "CREATE TABLE orders (id bigint PRIMARY KEY, status varchar(20), amount decimal(12,2), note mediumtext,
           placed_at datetime(6) NOT NULL DEFAULT NOW(6));
         INSERT INTO orders (id, status, amount, note) SELECT 100000 + seq, 'old', seq, CONCAT('n', seq) FROM seq_1_to_{OTHER_ROWS}"
    ));
    let topic = Arc::new(Topic::create(broker, PARTITIONS));
    let properties = json!({
        "connector.class": "io.debezium.connector.mariadb.MariaDbConnector",
        "database.hostname": "127.0.0.1",
        "database.port": server.port,
        "database.user": "debezium",
        "database.password": PASSWORD,
        "database.server.id": 5,
        "database.ssl.mode": "disable",
        "database.include.list": "shop",
        "table.include.list": "shop.orders",
        "include.schema.changes": false,
        "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
        "schema.history.internal.file.filename": "history",
        "value.converter.schemas.enable": false,
    });
    let connector = Connector::new(python, properties, "shop.orders", Arc::clone(&topic), PARTITIONS).with_jars(jars());
    let mut world = topic.world(&format!(
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, status STRING, amount DECIMAL(12,2) FORMAT 'base64', note STRING,
               placed_at TIMESTAMP FORMAT 'unix_us')
             WITH (event_time = 'placed_at', format = 'debezium-json', {});
         CREATE VIEW by_status AS SELECT status, COUNT(*) AS n, SUM(amount) AS total, MAX(amount) AS highest
           FROM orders GROUP BY status;",
        topic.options()
    ));
    let mut applications: Vec<Child> = (0..3).map(|number| application(&server, number)).collect();
    for round in 0..rounds().div_ceil(4) {
        let running = connector.start();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..3_000)));
        if round % 2 == 0 {
            world.kill();
            world.start();
        }
        running.kill();
    }
    let running = connector.start();
    std::thread::sleep(Duration::from_secs(1));
    for application in &mut applications {
        application.kill().and_then(|()| application.wait()).expect("it ends");
    }
    let stored = || -> BTreeMap<i64, Value> {
        rows_by_key(server.rows(
            "SELECT JSON_OBJECT('id', id, 'status', status, 'amount', CAST(amount AS CHAR), 'note', note,
               'placed_at', DATE_FORMAT(placed_at, '%Y-%m-%dT%H:%i:%s.%fZ')) FROM orders",
        ))
    };
    let figures = || {
        server.rows(
            "SELECT JSON_OBJECT('status', status, 'n', COUNT(*), 'total', CAST(SUM(amount) AS CHAR),
               'highest', CAST(MAX(amount) AS CHAR)) FROM orders GROUP BY status",
        )
    };
    let context = format!("seed {}", seed());
    compare_with(&world, &stored, &figures, &context);
    assert_eq!(world.run("by_status", true)["state"], json!("published"));
    server.execute("DELETE FROM orders WHERE id % 7 = 0; UPDATE orders SET amount = amount + 0.01 WHERE id % 5 = 0");
    compare_with(&world, &stored, &figures, &format!("{context}, after a full run"));
    running.kill();
    let status = world.get("/v1/streams/orders").json();
    assert_eq!(status["rejected"], json!(0), "{status}");
    topic.delete();
}
