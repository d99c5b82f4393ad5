//! Reads the public keys of an issuer (JWKS, RFC 7517) and checks signatures with them.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// The public keys of an issuer.
#[derive(Debug, Default)]
pub struct KeySet(Vec<PublicKey>);

/// A text that is not a key set.
#[derive(Debug, thiserror::Error)]
pub enum WrongKeySet {
    #[error("not a JSON Web Key Set: {0}")]
    Json(#[from] serde_json::Error),
    #[error("no key for signatures with RS256, RS384, RS512, ES256, ES384 or EdDSA")]
    Empty,
}

/// A key, and the one algorithm that it is for.
#[derive(Debug)]
pub(super) struct PublicKey {
    id: Option<String>,
    algorithm: &'static str,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Other(Vec<u8>),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Entry>,
}

/// The members of a key that count; others are allowed.
#[derive(Deserialize)]
struct Entry {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    used_for: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Parses a key set. Keys of other kinds are ignored.
    pub fn parse(text: &[u8]) -> Result<KeySet, WrongKeySet> {
        let document: Document = serde_json::from_slice(text)?;
        let keys: Vec<_> = document.keys.into_iter().filter_map(Entry::public_key).collect();
        if keys.is_empty() { Err(WrongKeySet::Empty) } else { Ok(KeySet(keys)) }
    }

    /// Returns the key for `algorithm` with the id `id`; without an id, the only key for the algorithm.
    pub(super) fn find(&self, algorithm: &str, id: Option<&str>) -> Option<&PublicKey> {
        let mut keys = self.0.iter().filter(|key| key.algorithm == algorithm);
        match id {
            Some(id) => keys.find(|key| key.id.as_deref() == Some(id)),
            None => keys.next().filter(|_| keys.next().is_none()),
        }
    }
}

impl Entry {
    fn public_key(self) -> Option<PublicKey> {
        if self.used_for.is_some_and(|used_for| used_for != "sig") {
            return None;
        }
        let bytes = |text: &Option<String>| text.as_deref().and_then(decoded);
        let point = || {
            let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
            // An uncompressed point.
            Some([&[4][..], &x, &y].concat())
        };
        let (usual, material) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => ("RS256", Material::Rsa { modulus: bytes(&self.n)?, exponent: bytes(&self.e)? }),
            ("EC", Some("P-256")) => ("ES256", Material::Other(point()?)),
            ("EC", Some("P-384")) => ("ES384", Material::Other(point()?)),
            ("OKP", Some("Ed25519")) => ("EdDSA", Material::Other(bytes(&self.x)?)),
            _ => return None,
        };
        let algorithm = match self.alg.as_deref() {
            None => usual,
            Some(named) if named == usual => usual,
            Some("RS384") if usual == "RS256" => "RS384",
            Some("RS512") if usual == "RS256" => "RS512",
            Some(_) => return None,
        };
        Some(PublicKey { id: self.kid, algorithm, material })
    }
}

impl PublicKey {
    /// Returns true if `signature` is that of `message` with this key.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { modulus, exponent } => {
                let parameters: &RsaParameters = match self.algorithm {
                    "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &RSA_PKCS1_2048_8192_SHA384,
                    _ => &RSA_PKCS1_2048_8192_SHA512,
                };
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, signature).is_ok()
            }
            Material::Other(key) => {
                let algorithm: &'static dyn VerificationAlgorithm = match self.algorithm {
                    "ES256" => &ECDSA_P256_SHA256_FIXED,
                    "ES384" => &ECDSA_P384_SHA384_FIXED,
                    _ => &ED25519,
                };
                UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
            }
        }
    }
}

/// Decodes base64url without padding.
pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
