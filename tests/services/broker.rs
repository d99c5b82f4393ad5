//! Starts a real Kafka in KRaft mode on free ports of loopback, with its data in a temporary folder.
//!
//! Its jars come from Maven, once (`tests/services/pom.xml`). Without Maven and without the jars, the broker is `noida-db` if
//! `TRUEUP_NOIDA` names it; it speaks the protocol without logins and TLS. With `CI` set, Kafka itself is required.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest wait for a start.
const PATIENCE: Duration = Duration::from_secs(60);
/// The users of the logins, all with this password.
pub const PASSWORD: &str = "secret-of-the-test";
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";
/// Ends the broker and removes its folder when its input ends: with this process, however that ends.
const GUARD: &str = r#"folder=$1; shift; "$@" </dev/null >"$folder/out" 2>&1 & child=$!; read _; kill -9 $child; wait $child 2>/dev/null
    [ -e "$folder/keep" ] || rm -rf "$folder""#;

/// A broker.
pub struct Broker {
    kind: BrokerKind,
    folder: PathBuf,
    ports: Ports,
    guard: Option<(Child, ChildStdin)>,
}

/// The program that a broker is.
#[derive(Clone)]
enum BrokerKind {
    /// Apache Kafka, with the path of its jars.
    Kafka(PathBuf),
    Noida(PathBuf),
}

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    controller: u16,
    sasl: u16,
    tls: u16,
}

/// The broker that tests share, unless they stop it. `None`, with a message, if there is none on this machine.
pub fn shared() -> Option<&'static Broker> {
    static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
    SHARED.get_or_init(Broker::start).as_ref()
}

impl Broker {
    /// Starts a broker and waits until it answers.
    pub fn start() -> Option<Broker> {
        let kind = kind()?;
        // Outlives this process if a guard removes it.
        let folder = tempfile::Builder::new().prefix("trueup-kafka-").tempdir().expect("a folder").keep();
        let [plain, controller, sasl, tls] = free_ports();
        let mut broker = Broker { kind, folder, ports: Ports { plain, controller, sasl, tls }, guard: None };
        broker.prepare();
        broker.launch();
        Some(broker)
    }

    /// The address of the listener without login and TLS.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// The address of the listener with logins; `None`: the broker has none.
    pub fn sasl_address(&self) -> Option<String> {
        matches!(self.kind, BrokerKind::Kafka(_)).then(|| format!("127.0.0.1:{}", self.ports.sasl))
    }

    /// The address of the listener with TLS, which requires a certificate of the client.
    pub fn tls_address(&self) -> Option<String> {
        matches!(self.kind, BrokerKind::Kafka(_)).then(|| format!("127.0.0.1:{}", self.ports.tls))
    }

    /// Whether it is Apache Kafka.
    pub fn is_kafka(&self) -> bool {
        matches!(self.kind, BrokerKind::Kafka(_))
    }

    /// Kills the broker; its data stay.
    pub fn kill(&mut self) {
        std::fs::write(self.folder.join("keep"), "").expect("a file");
        self.end();
    }

    /// Starts a broker that was killed.
    pub fn start_again(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("keep"));
        self.launch();
    }

    fn end(&mut self) {
        if let Some((mut guard, input)) = self.guard.take() {
            drop(input);
            guard.wait().expect("the guard ends");
        }
    }

    /// Writes the configuration and formats the folder of the data.
    fn prepare(&self) {
        let BrokerKind::Kafka(jars) = &self.kind else { return };
        let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let text = |name: &str| std::fs::read_to_string(tls.join(name)).expect("a file of tests/tls");
        std::fs::write(self.folder.join("server.pem"), text("server.key") + &text("server.crt")).expect("written");
        std::fs::write(self.folder.join("ca.pem"), text("ca.crt")).expect("written");
        std::fs::write(self.properties(), self.configuration()).expect("written");
        let scram = |mechanism: &str| format!("{mechanism}=[name=scram,password={PASSWORD}]");
        let formatted = java(jars)
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"])
            .arg(self.properties())
            .args(["--add-scram", &scram("SCRAM-SHA-256"), "--add-scram", &scram("SCRAM-SHA-512")])
            .output()
            .expect("java runs");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
    }

    fn properties(&self) -> PathBuf {
        self.folder.join("kafka.properties")
    }

    fn configuration(&self) -> String {
        let (folder, Ports { plain, controller, sasl, tls }) = (self.folder.display(), self.ports);
        let login = "org.apache.kafka.common.security";
        format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
             listener.name.sasl.plain.sasl.jaas.config={login}.plain.PlainLoginModule required user_plain=\"{PASSWORD}\";\n\
             listener.name.sasl.scram-sha-256.sasl.jaas.config={login}.scram.ScramLoginModule required;\n\
             listener.name.sasl.scram-sha-512.sasl.jaas.config={login}.scram.ScramLoginModule required;\n\
             listener.name.sasl.oauthbearer.sasl.jaas.config={login}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"x\";\n\
             listener.name.tls.ssl.client.auth=required\n\
             ssl.keystore.type=PEM\n\
             ssl.keystore.location={folder}/server.pem\n\
             ssl.truststore.type=PEM\n\
             ssl.truststore.location={folder}/ca.pem\n\
             log.dirs={folder}/data\n\
             auto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=2\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.num.partitions=2\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n"
        )
    }

    fn launch(&mut self) {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard"]).arg(&self.folder);
        match &self.kind {
            BrokerKind::Kafka(jars) => {
                command.args(["java", "-Xmx512m", "-cp"]).arg(classes(jars)).arg("kafka.Kafka").arg(self.properties());
            }
            BrokerKind::Noida(program) => {
                command.arg(program).args(["start", "--only", "kafka", "--kafka-port", &self.ports.plain.to_string()]);
                command.arg("--data-dir").arg(self.folder.join("data"));
            }
        }
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut guard = spawned.expect("sh starts");
        let input = guard.stdin.take().expect("stdin is piped");
        self.guard = Some((guard, input));
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.ports.plain)).is_err() {
            let output = || std::fs::read_to_string(self.folder.join("out")).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE, "the broker did not start:\n{}", output());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("keep"));
        self.end();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn java(jars: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(classes(jars));
    command
}

fn classes(jars: &Path) -> String {
    format!("{}/*", jars.display())
}

/// Four ports that are free now.
fn free_ports() -> [u16; 4] {
    let listeners = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// The broker of this machine.
fn kind() -> Option<BrokerKind> {
    let cache = PathBuf::from(std::env::var_os("HOME")?).join(".cache/trueup-kafka");
    let jars = cache.join("jars");
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/pom.xml");
    if has_kafka(&jars) || (fetch(&pom, &jars) && has_kafka(&jars)) {
        return Some(BrokerKind::Kafka(jars));
    }
    assert!(std::env::var_os("CI").is_none(), "no Kafka: install maven and a Java runtime (.ci/run does)");
    match std::env::var_os("TRUEUP_NOIDA") {
        Some(program) => {
            eprintln!("without Maven: the broker is noida-db, not Apache Kafka");
            Some(BrokerKind::Noida(PathBuf::from(program)))
        }
        None => {
            eprintln!(
                "SKIPPED: no Kafka; install maven and a Java runtime, or set TRUEUP_NOIDA to the program of noida-db"
            );
            None
        }
    }
}

fn has_kafka(jars: &Path) -> bool {
    let mut names = std::fs::read_dir(jars).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().starts_with("kafka_2.13"))
        && Command::new("java").arg("-version").output().is_ok()
}

/// Fetches the jars of a project file with Maven; returns whether they are there.
pub fn fetch(pom: &Path, jars: &Path) -> bool {
    // Complete under its name only: an interrupted download leaves nothing that looks complete.
    let draft = jars.with_extension(format!("{}", std::process::id()));
    let fetched = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"])
        .arg(pom)
        .arg(format!("-DoutputDirectory={}", draft.display()))
        .output();
    match fetched {
        Ok(output) if output.status.success() => std::fs::rename(&draft, jars).is_ok(),
        _ => false,
    }
}
