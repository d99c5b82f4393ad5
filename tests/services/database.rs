//! Starts a real PostgreSQL on a free port of loopback, with its data in a temporary folder.
//!
//! Its programs come from the package `postgresql` of Debian. They refuse to run as root, so root runs them as the user
//! `postgres`. Without them the tests are skipped; with `CI` set they are required.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use crate::guarded::Guarded;

/// Longest wait for a start.
const PATIENCE: Duration = Duration::from_secs(60);
pub const PASSWORD: &str = "secret-of-the-test";
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A server.
pub struct Server {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    wal_level: &'static str,
    running: Option<Guarded>,
}

/// The server that tests share, unless they stop it. `None`, with a message, if there is none on this machine.
pub fn shared() -> Option<&'static Server> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    SHARED.get_or_init(|| Server::start("logical")).as_ref()
}

impl Server {
    /// Starts a server and waits until it answers.
    pub fn start(wal_level: &'static str) -> Option<Server> {
        let programs = programs()?;
        // Outlives this process if a guard removes it.
        let folder = tempfile::Builder::new().prefix("trueup-postgres-").tempdir().expect("a folder").keep();
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        std::fs::write(folder.join("password"), PASSWORD).expect("a file");
        if is_root() {
            let owned = Command::new("chown").args(["-R", "postgres:"]).arg(&folder).status().expect("chown runs");
            assert!(owned.success(), "the folder has an owner");
        }
        let mut server = Server { programs, folder, port: free.port(), wal_level, running: None };
        let mut create = server.command("initdb");
        create.args(["-U", "postgres", "--auth=scram-sha-256", "--pwfile"]).arg(server.folder.join("password"));
        run(create.args(["--no-sync", "-E", "UTF8", "--locale=C", "-D"]).arg(server.data()));
        server.launch();
        Some(server)
    }

    /// A new database.
    pub fn empty_database(&self) -> Database {
        let name = format!("shop_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        Database { name: "postgres".to_owned(), port: self.port }.connect().run(&format!("CREATE DATABASE {name}"));
        Database { name, port: self.port }
    }

    /// A new database with an outbox table as in `docs/outbox.md`.
    pub fn database(&self) -> Database {
        let database = self.empty_database();
        database.connect().run(
            "CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT NULL,
               aggregateid text NOT NULL, type text NOT NULL, payload jsonb,
               txid xid8 NOT NULL DEFAULT pg_current_xact_id());
             CREATE INDEX outbox_in_order ON outbox (txid, id);",
        );
        database
    }

    /// Stops the server as a crash does: without a checkpoint, and with open connections.
    pub fn crash(&mut self) {
        std::fs::write(self.folder.join("keep"), "").expect("a file");
        run(self.command("pg_ctl").args(["stop", "-w", "-m", "immediate", "-D"]).arg(self.data()));
        drop(self.running.take());
    }

    /// Starts a server that was stopped.
    pub fn launch(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("keep"));
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string(), "-k"]).arg(&self.folder);
        let settings = [
            "listen_addresses=127.0.0.1",
            "max_connections=100",
            "max_replication_slots=40",
            "fsync=off",
            &format!("wal_level={}", self.wal_level),
        ];
        command.args(settings.iter().flat_map(|setting| ["-c", setting]));
        self.running = Some(Guarded::start(&command, &self.folder));
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() || !self.is_ready() {
            let output = || std::fs::read_to_string(self.folder.join("out")).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE, "PostgreSQL did not start:\n{}", output());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A server that recovers accepts connections and refuses sessions.
    fn is_ready(&self) -> bool {
        let mut ask = self.command("pg_isready");
        ask.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]).status().is_ok_and(|status| status.success())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A program of PostgreSQL, as a user that it accepts.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.running.is_some() {
            let _ = self.command("pg_ctl").args(["stop", "-m", "immediate", "-D"]).arg(self.data()).output();
        }
        let _ = std::fs::remove_file(self.folder.join("keep"));
        drop(self.running.take());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs a program, which must succeed.
pub fn run(command: &mut Command) {
    let output = command.current_dir("/").output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    // The owner of the files of this process.
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("Linux")) == 0
}

/// The folder of the programs: the newest version.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folder =
        |entry: std::fs::DirEntry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")));
    let found = versions.filter_map(folder).filter(|(_, bin)| Path::new(bin).join("initdb").exists()).max();
    assert!(found.is_some() || std::env::var_os("CI").is_none(), "no PostgreSQL: install postgresql (.ci/run does)");
    if found.is_none() {
        eprintln!("SKIPPED: no PostgreSQL; install the package postgresql");
    }
    found.map(|(_, bin)| bin)
}

/// A database of a server.
pub struct Database {
    pub name: String,
    port: u16,
}

impl Database {
    pub fn connect(&self) -> Session {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url("postgres"), NoTls).await.expect("connects");
            tokio::spawn(connection);
            client
        });
        Session { runtime, client }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL for a user with the password of the tests.
    pub fn url(&self, user: &str) -> String {
        format!("postgres://{user}:{PASSWORD}@127.0.0.1:{}/{}", self.port, self.name)
    }

    /// The settings of a server with the connection `shop`.
    pub fn settings(&self) -> String {
        self.settings_of("postgres")
    }

    pub fn settings_of(&self, user: &str) -> String {
        format!("[connections.shop]\nkind = \"postgres\"\nurl = \"{}\"\n", self.url(user))
    }
}

/// A connection.
pub struct Session {
    runtime: Runtime,
    client: Client,
}

impl Session {
    /// Runs statements.
    pub fn run(&self, statements: &str) {
        self.runtime.block_on(self.client.batch_execute(statements)).unwrap_or_else(|error| {
            let why = error.as_db_error().map_or_else(|| format!("{error:?}"), ToString::to_string);
            panic!("{statements}: {why}")
        });
    }

    /// Runs statements that the server may refuse; returns whether it did not.
    pub fn try_run(&self, statements: &str) -> bool {
        self.runtime.block_on(self.client.batch_execute(statements)).is_ok()
    }

    /// The first column of the rows of a query, as texts.
    pub fn texts(&self, query: &str) -> Vec<String> {
        let found = self.runtime.block_on(self.client.query(query, &[])).expect("rows");
        found.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()
    }
}
