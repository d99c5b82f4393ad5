//! Starts a real S3 server on loopback (moto, from PyPI) for the data of servers under test.

pub mod proxy;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use proxy::Proxy;

use crate::{Elsewhere, program};

/// The key, which must never be in a log or an error.
pub const SECRET: &str = "GeheimerSchluesselDenNiemandSieht0123456";

/// The server, which keeps its objects in memory.
pub struct S3 {
    child: Child,
    pub proxy: Proxy,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl S3 {
    /// Starts it behind a proxy that injects faults. Returns `None`, with a message, if Python and its packages are
    /// missing.
    pub fn start(seed: u64) -> Option<Arc<S3>> {
        let python = program::python()?;
        let script = crate::root().join("tests/python/s3.py");
        // It stops at the end of its standard input, which ends with this process.
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Python starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the S3 server did not start: {line:?}"));
        Some(Arc::new(S3 { child, proxy: Proxy::start(port, seed) }))
    }

    /// A location for one server's data: a prefix of its own in the bucket.
    pub fn place(&self) -> Elsewhere {
        Elsewhere {
            data: format!("s3://lake/{}", uuid::Uuid::new_v4()),
            variables: self.variables(),
            options: Vec::new(),
            limits: "store_request_timeout_ms = 700\nstore_retry_ms = 4000\n".to_owned(),
        }
    }

    pub fn variables(&self) -> Vec<(String, String)> {
        let variables = [
            ("AWS_ENDPOINT_URL", self.proxy.url()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
