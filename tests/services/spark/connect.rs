//! Starts the server of Spark Connect that comes with `pyspark`, on a free port of loopback.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::driver::python;
use crate::guarded::Guarded;

/// Longest wait for a start.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server of Spark Connect.
pub struct ConnectServer {
    home: PathBuf,
    folder: PathBuf,
    port: u16,
    /// Options of `spark-submit` beside those of every server.
    options: Vec<String>,
    server: Option<Guarded>,
}

/// The server that tests share, unless they stop it. `None`, with a message, if there is no Spark on this machine.
pub fn shared() -> Option<&'static ConnectServer> {
    static SHARED: OnceLock<Option<ConnectServer>> = OnceLock::new();
    SHARED.get_or_init(|| ConnectServer::start(&[])).as_ref()
}

impl ConnectServer {
    /// Starts a server with more options of `spark-submit`, and waits until it accepts connections.
    pub fn start(options: &[String]) -> Option<ConnectServer> {
        let find = "import os, pyspark; print(os.path.dirname(pyspark.__file__))";
        let found = Command::new(python()?).args(["-c", find]).output().expect("Python runs");
        let home = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
        assert!(home.join("bin/spark-submit").exists(), "pyspark is not in {}", home.display());
        let folder = tempfile::Builder::new().prefix("trueup-spark-").tempdir().expect("a folder").keep();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut server = ConnectServer { home, folder, port, options: options.to_vec(), server: None };
        server.launch();
        Some(server)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The connection of a settings file.
    pub fn settings(&self) -> String {
        format!("[connections.spark]\nkind = \"spark\"\nurl = \"sc://127.0.0.1:{}\"\n", self.port)
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        std::fs::write(self.folder.join("keep"), "").expect("a file");
        self.server = None;
    }

    /// Starts a server that was killed, at the same address.
    pub fn start_again(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("keep"));
        self.launch();
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("out")).unwrap_or_default()
    }

    fn launch(&mut self) {
        let folder = self.folder.display();
        let settings = [
            format!("spark.connect.grpc.binding.port={}", self.port),
            "spark.connect.grpc.binding.address=127.0.0.1".to_owned(),
            "spark.driver.host=127.0.0.1".to_owned(),
            "spark.ui.enabled=false".to_owned(),
            "spark.sql.shuffle.partitions=2".to_owned(),
            format!("spark.sql.warehouse.dir={folder}"),
            format!("spark.local.dir={folder}"),
            // The machine's zone must not matter.
            format!("spark.driver.extraJavaOptions=-Duser.timezone=Asia/Kathmandu -Dderby.system.home={folder}"),
        ];
        let mut server = Command::new(self.home.join("bin/spark-submit"));
        server
            .args(["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"])
            .args(["--master", "local[2]", "--driver-memory", "1g"])
            .args(settings.iter().flat_map(|setting| ["--conf", setting]))
            .args(&self.options)
            .arg("spark-internal")
            .env("SPARK_HOME", &self.home)
            .env("SPARK_LOCAL_IP", "127.0.0.1");
        self.server = Some(Guarded::start(&server, &self.folder));
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begin.elapsed() < PATIENCE, "Spark did not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
