//! Tests TLS through the program: keys and certificates, their renewal, and certificates of clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use world::{World, program};

const DEFINITIONS: &str = "
CREATE STREAM orders (at TIMESTAMP, shop STRING) WITH (event_time = 'at');
CREATE VIEW sales AS SELECT window_start, shop, COUNT(*) AS orders FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR), shop;
";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).expect("a fixture")
}

/// A server with a copy of the certificate, so that it can be renewed.
struct TlsWorld {
    world: World,
    url: String,
    runtime: tokio::runtime::Runtime,
}

impl TlsWorld {
    /// Starts a server; `more` are further lines of `[tls]`.
    fn start(more: &str) -> TlsWorld {
        let mut world = World::new(DEFINITIONS);
        world.stop();
        let folder = world.data.path().to_owned();
        let install =
            |name: &str, fixture: &str| std::fs::copy(self::fixture(fixture), folder.join(name)).expect("copied");
        install("tls.crt", "server.crt");
        install("tls.key", "server.key");
        let path = |name: &str| folder.join(name).display().to_string();
        let settings = format!("[tls]\ncertificate = {:?}\nkey = {:?}\n{more}", path("tls.crt"), path("tls.key"));
        std::fs::write(folder.join("trueup.toml"), settings).expect("written");
        world.start_whatever_comes();
        let url = world.url().to_owned();
        assert!(url.starts_with("https://"), "{url}: {}", world.log());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        TlsWorld { world, url, runtime }
    }

    /// Asks with a client that trusts the authority of the tests only; returns the status.
    fn ask(&self, identity: Option<&str>) -> Result<u16, String> {
        let mut client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20));
        client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(&read("ca.crt")).expect("a certificate"));
        if let Some(name) = identity {
            let pem = [read(&format!("{name}.crt")), read(&format!("{name}.key"))].concat();
            client = client.identity(reqwest::Identity::from_pem(&pem).expect("an identity"));
        }
        let client = client.build().expect("a client");
        let sent = self.runtime.block_on(async { client.get(format!("{}/livez", self.url)).send().await });
        let status = |response: reqwest::Response| {
            // Also on a response without a page: a browser takes it from any.
            let header = response.headers().get("strict-transport-security").expect("a header");
            assert_eq!(header, "max-age=31536000");
            assert_eq!(response.version(), reqwest::Version::HTTP_2, "chosen by ALPN");
            response.status().as_u16()
        };
        sent.map(status).map_err(|error| format!("{error:?}"))
    }

    /// Returns the certificate that the server presents.
    fn certificate(&self) -> Vec<u8> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_info(true)
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&read("ca.crt")).expect("a certificate"));
        let client = client.build().expect("a client");
        let response = self.runtime.block_on(async { client.get(format!("{}/livez", self.url)).send().await });
        let response = response.expect("a response");
        let info = response.extensions().get::<reqwest::tls::TlsInfo>().expect("a TLS connection");
        info.peer_certificate().expect("a certificate").to_vec()
    }
}

#[test]
fn connections_are_encrypted_and_a_renewed_certificate_needs_no_restart() {
    let server = TlsWorld::start("");
    assert_eq!(server.ask(None), Ok(200));
    // The command line trusts what the environment names.
    let query = |variables: &[(&str, &str)]| {
        let mut command = program::trueup_in(server.world.data.path());
        command.args(["query", "sales", "-o", "json", "--url", &server.url]).env_remove("TRUEUP_CA_FILE");
        command.envs(variables.iter().copied()).output().expect("the program runs").status.success()
    };
    let authority = fixture("ca.crt").display().to_string();
    assert!(query(&[("TRUEUP_CA_FILE", &authority)]));
    assert!(!query(&[]), "an unknown authority is not trusted");

    let first = server.certificate();
    let folder = server.world.data.path();
    // A certificate without its key is not used; with both, the next connections get it.
    std::fs::copy(fixture("renewed.crt"), folder.join("tls.crt")).expect("copied");
    std::fs::copy(fixture("renewed.key"), folder.join("tls.key")).expect("copied");
    server.world.wait_for("the renewed certificate", |_| server.certificate() != first);
    assert_eq!(server.ask(None), Ok(200));
}

#[test]
fn clients_need_a_certificate_if_an_authority_for_them_is_named() {
    let server = TlsWorld::start(&format!("client_ca = {:?}\n", fixture("ca.crt").display().to_string()));
    assert!(server.ask(None).is_err(), "without a certificate");
    assert_eq!(server.ask(Some("client")), Ok(200));
}
