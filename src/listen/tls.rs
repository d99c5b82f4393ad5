//! Accepts TLS connections. Certificates and keys are read again when their files change, so renewals need no restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderValue;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, crypto};
use shared::clock::monotonic_now;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::secret_files::is_readable_by_others;
use crate::settings::TlsSettings;

/// Keeps browsers that were here once from plain HTTP for a year. Names below this one are not included: others may own them.
pub const STRICT_TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Longest time until a changed file is noticed.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The certificate of a server, and the files it comes from.
pub struct Tls {
    settings: TlsSettings,
    current: Mutex<CurrentConfig>,
}

struct CurrentConfig {
    config: Arc<ServerConfig>,
    stamps: Vec<FileStamp>,
    checked: Instant,
}

/// Distinguishes versions of a file; `None` while there is none.
type FileStamp = Option<(SystemTime, u64)>;

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read the certificate or key {path}: {cause}", path = .path.display())]
    Pem { path: PathBuf, cause: pem::Error },
    #[error("there is no certificate in {path}", path = .path.display())]
    Empty { path: PathBuf },
    #[error("cannot use the certificate {certificate} with the key {key}: {cause}", certificate = .certificate.display(), key = .key.display())]
    Pair { certificate: PathBuf, key: PathBuf, cause: rustls::Error },
    #[error("cannot use TLS: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("cannot use the certificates of clients: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.settings).finish()
    }
}

impl Tls {
    /// Reads the files.
    pub fn load(settings: TlsSettings) -> Result<Tls, TlsError> {
        let (stamps, config) = (stamps(&settings), config(&settings)?);
        if is_readable_by_others(&settings.key) {
            warn!(key = %settings.key.display(), "other users of this machine can read the private key; chmod 600 it");
        }
        let current = CurrentConfig { config: Arc::new(config), stamps, checked: monotonic_now() };
        Ok(Tls { settings, current: Mutex::new(current) })
    }

    /// Returns what the next connection is accepted with.
    pub fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock();
        let now = monotonic_now();
        if now.duration_since(current.checked) >= CHECK_EVERY {
            current.checked = now;
            self.reload(&mut current);
        }
        TlsAcceptor::from(Arc::clone(&current.config))
    }

    fn reload(&self, current: &mut CurrentConfig) {
        let stamps = stamps(&self.settings);
        if stamps == current.stamps {
            return;
        }
        match config(&self.settings) {
            Ok(config) => {
                info!("the certificate has changed");
                (current.config, current.stamps) = (Arc::new(config), stamps);
            }
            // Certificate and key are two files: the other one may follow.
            Err(error) => warn!(%error, "cannot read the changed certificate; the previous one stays active"),
        }
    }
}

fn stamps(settings: &TlsSettings) -> Vec<FileStamp> {
    let files = [Some(&settings.certificate), Some(&settings.key), settings.client_ca.as_ref()];
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len()))
    };
    files.into_iter().flatten().map(stamp).collect()
}

fn config(settings: &TlsSettings) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|cause| in_file(&settings.key, cause))?;
    let pair = builder.with_single_cert(certificates(&settings.certificate)?, key);
    let (certificate, key) = (settings.certificate.clone(), settings.key.clone());
    let mut config = pair.map_err(|cause| TlsError::Pair { certificate, key, cause })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|cause| in_file(path, cause))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|cause| in_file(path, cause))?;
    if found.is_empty() { Err(TlsError::Empty { path: path.to_owned() }) } else { Ok(found) }
}

fn in_file(path: &Path, cause: pem::Error) -> TlsError {
    TlsError::Pem { path: path.to_owned(), cause }
}
