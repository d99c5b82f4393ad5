//! Runs the program with mutated files: settings, and events to import. It ends with one of its exit codes and a reason, never
//! by a signal or a panic, and does not use more memory than a limit.

use std::path::Path;
use std::process::{Command, Output};

use world::program::{text, trueup_in};

use crate::fuzzer::{Target, fuzz, kind_of};

const DEFINITIONS: &str = "
    CREATE STREAM s (id STRING, at TIMESTAMP, n BIGINT, x DOUBLE) WITH (event_time = 'at');
    CREATE VIEW v AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";
/// Address space of the program, in KiB: far above what it needs, far below what a hostile length asks for.
const ADDRESS_SPACE_KIB: u64 = 8 << 20;

/// Runs a command with a limit of its memory; returns what it printed.
fn run(command: &mut Command) -> Output {
    let limited = format!("ulimit -v {ADDRESS_SPACE_KIB} && exec \"$0\" \"$@\"");
    let mut shell = Command::new("bash");
    shell.args(["-c", &limited]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(command.get_current_dir().expect("a folder")).output().expect("bash starts")
}

fn check(output: &Output, expected: &[i32], folder: &Path) -> String {
    let printed = text(output);
    let code = output.status.code().unwrap_or_else(|| panic!("ended by {}: {printed}", output.status));
    // A panic of the Parquet library is reported as an error of the file; all others are defects.
    let mut panics = printed.lines().filter(|line| line.contains("panicked"));
    assert!(expected.contains(&code) && panics.all(|line| line.contains("/parquet-")), "exit code {code}: {printed}");
    assert!(code == 0 || !output.stderr.is_empty(), "exit code {code} without a reason");
    let printed = printed.replace(&folder.display().to_string(), "");
    let last = printed.lines().last().unwrap_or_default();
    format!("{code} {}", kind_of(last).chars().take(100).collect::<String>())
}

#[test]
fn settings_files_are_accepted_or_refused_with_a_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let seeds = [
        "listen = \"127.0.0.1:9000\"\ndata = \"d\"\ncors_origins = [\"http://a\"]\n[limits]\nbatch_cache_bytes = \"512 MiB\"\n\
         log_segment_bytes = 4096\narchive_wait_ms = 5\n[batch]\nmemory_limit = \"1 GiB\"\nthreads = 2\n",
        "[jwt]\nissuer = \"https://i\"\naudience = \"a\"\njwks = \"keys.json\"\nclock_skew_s = 5\n[auth]\nrequired = true\n",
        "[tls]\ncertificate = \"c.pem\"\nkey = \"${HOME}/k.pem\"\nclient_ca = \"file:c.pem\"\n",
    ];
    let tokens =
        ["[limits]\n", "= ", "\"", "'''", "${HOME}", "${", "}", "18446744073709551616", "1e400", "{a=1}", "#", "nan"];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec()).to_vec();
    let target = Target { name: "settings", seeds, tokens: &tokens, inputs: 120, ..Target::default() };
    fuzz(&target, |input| {
        std::fs::write(folder.path().join("trueup.toml"), input).expect("writes");
        // The settings are read first, and the definitions are not there.
        let mut serve = trueup_in(folder.path());
        serve.args(["serve", "no-such.sql", "--config", "trueup.toml"]);
        check(&run(&mut serve), &[2], folder.path())
    });
}

#[test]
fn files_of_events_are_imported_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("s.sql"), DEFINITIONS).expect("writes");
    let lines = b"{\"id\":\"a\",\"at\":\"2001-01-01T00:00:00Z\",\"n\":1}\n{\"at\":1,\"x\":0.5}\nnonsense\n".to_vec();
    let mut seeds = vec![lines.clone(), zstd::encode_all(&lines[..], 1).expect("memory")];
    seeds.push(zstd::encode_all(&vec![b'\n'; 10_000_000][..], 1).expect("memory"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &lines).expect("memory");
    seeds.push(gzip.finish().expect("memory"));
    // Not `delta_encodings`: for a damaged page of such texts the `parquet` crate asks for any memory.
    for name in ["snappy", "pages_v2", "nested", "other_types", "expands", "int96", "large_text"] {
        let path = world::root().join(format!("tests/fuzz/seeds/parquet/{name}.parquet"));
        seeds.push(std::fs::read(path).expect("a seed"));
    }
    let target = Target {
        name: "import",
        seeds,
        tokens: &["{\"at\":0}\n", "PAR1", "\u{1f}\u{8b}\u{8}", "(\u{b5}/\u{fd}"],
        inputs: 60,
        bytes_max: 32 * 1024,
        mutate: Some(crate::parquet_files::mutate),
        ..Target::default()
    };
    fuzz(&target, |input| {
        std::fs::write(folder.path().join("events"), input).expect("writes");
        let _ = std::fs::remove_dir_all(folder.path().join("data"));
        let mut ingest = trueup_in(folder.path());
        ingest.args(["ingest", "s", "--historical", "--definitions", "s.sql", "--data", "data", "events"]);
        check(&run(&mut ingest), &[0, 1, 2], folder.path())
    });
}
