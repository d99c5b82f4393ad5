//! Makes random secrets, and keeps of each one only a hash.
//!
//! A secret has 256 random bits. It cannot be guessed, so a plain SHA-256 protects it as well as a slow hash would.

use std::fmt;

use aws_lc_rs::{constant_time, digest, rand};
use serde::{Deserialize, Serialize};

/// The random bytes of a secret.
const SECRET_BYTES: usize = 32;

/// A secret in text form: hexadecimal digits. It is shown once, and never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The SHA-256 of a secret, as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Makes a secret from the random numbers of the system.
    pub fn random() -> Secret {
        Secret(random_hex(SECRET_BYTES))
    }

    /// Takes a secret that a client sent.
    pub fn of(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    /// Returns the text, to send or to show it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the hash under which the secret is stored.
    pub fn hash(&self) -> SecretHash {
        SecretHash(hex(digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref()))
    }
}

impl SecretHash {
    /// Returns true if this is the hash of `secret`, in a time that does not depend on where the two differ.
    pub fn is_of(&self, secret: &Secret) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), secret.hash().0.as_bytes()).is_ok()
    }
}

/// Returns `bytes` random bytes as hexadecimal digits.
pub fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    rand::fill(&mut random).expect("the system has random numbers");
    hex(&random)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_fits_its_secret_only_and_secrets_are_not_printed() {
        let (one, other) = (Secret::random(), Secret::random());
        assert!(one.hash().is_of(&one) && !one.hash().is_of(&other));
        assert_eq!(one.reveal().len(), 2 * SECRET_BYTES);
        assert_eq!(format!("{one:?}"), "Secret(..)");
        let known = Secret::of("abc").hash();
        assert_eq!(known.0, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
