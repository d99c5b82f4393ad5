//! Verifies JSON Web Tokens (RFC 7519) of an issuer that the operator trusts, and reads scopes from them.
//!
//! The algorithm belongs to the key, never to the token: a token whose header names another one is refused. Every claim that
//! counts has to be present with its type. The signatures are those of the TLS library; tokens are short, so the rest is
//! written here rather than by a library that would need another cryptographic back end.

mod key_set;

use std::sync::Arc;

use parking_lot::RwLock;
use problem::{Code, Problem};
use serde::Deserialize;
use serde_json::{Map, Value};
use shared::clock::Clock;
use shared::limits::TOKEN_BYTES_MAX;
use shared::time::MICROS_PER_SECOND;

use crate::access::Access;
use crate::rate::Rate;
use crate::scope::Scopes;

use self::key_set::decoded;
pub use self::key_set::{KeySet, WrongKeySet};

/// The issuer whose tokens are accepted, and the audience they must be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    /// The claim `iss`.
    pub issuer: String,
    /// A value of the claim `aud`.
    pub audience: String,
    /// Seconds by which the clocks of issuer and server may differ.
    pub clock_skew_s: u32,
    /// The rates of each subject, over all its tokens.
    pub rates: Vec<Rate>,
}

/// Verifies the tokens of one issuer.
#[derive(Debug)]
pub struct TokenVerifier {
    settings: TokenSettings,
    keys: RwLock<Arc<KeySet>>,
    clock: Arc<dyn Clock>,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    #[error("the token is not a signed JSON Web Token")]
    Unreadable,
    #[error("the token is signed with a key or an algorithm that the issuer does not publish")]
    UnknownKey,
    #[error("the signature of the token is wrong")]
    Signature,
    #[error("the token comes from another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired; get another one from its issuer")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("the claim {0} of the token is missing, or has the wrong type")]
    Claim(&'static str),
}

impl From<TokenRefusal> for Problem {
    fn from(refusal: TokenRefusal) -> Problem {
        Problem::new(Code::InvalidCredentials, refusal.to_string())
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that a verifier has to understand; this one understands none.
    crit: Option<Value>,
}

impl TokenVerifier {
    /// Makes a verifier, without keys at first.
    pub fn new(settings: TokenSettings, clock: Arc<dyn Clock>) -> TokenVerifier {
        TokenVerifier { settings, keys: RwLock::default(), clock }
    }

    /// Replaces the keys of the issuer.
    pub fn set_keys(&self, keys: KeySet) {
        *self.keys.write() = Arc::new(keys);
    }

    /// Returns the access of the holder of a token.
    pub fn access(&self, token: &str) -> Result<Access, TokenRefusal> {
        let claims = self.verified(token)?;
        self.check(&claims)?;
        let subject = text(&claims, "sub")?;
        let row_filter = match claims.get("trueup_where") {
            None => None,
            Some(_) => Some(text(&claims, "trueup_where")?),
        };
        Ok(Access::of_token(subject, scopes(&claims)?, row_filter, &self.settings.rates))
    }

    /// Returns the claims of a token with a valid signature.
    fn verified(&self, token: &str) -> Result<Map<String, Value>, TokenRefusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefusal::Unreadable);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenRefusal::Unreadable)?;
        let (header, payload) = message.split_once('.').ok_or(TokenRefusal::Unreadable)?;
        let [header, payload, signature] = [header, payload, signature].map(decoded);
        let header: Header = parsed(header)?;
        if header.crit.is_some() {
            return Err(TokenRefusal::Unreadable);
        }
        let keys = Arc::clone(&self.keys.read());
        let key = keys.find(&header.alg, header.kid.as_deref()).ok_or(TokenRefusal::UnknownKey)?;
        let signature = signature.ok_or(TokenRefusal::Unreadable)?;
        if !key.has_signed(message.as_bytes(), &signature) {
            return Err(TokenRefusal::Signature);
        }
        parsed(payload)
    }

    fn check(&self, claims: &Map<String, Value>) -> Result<(), TokenRefusal> {
        if text(claims, "iss")? != self.settings.issuer {
            return Err(TokenRefusal::Issuer);
        }
        let is_for = |audience: &Value| audience.as_str() == Some(&self.settings.audience);
        match claims.get("aud") {
            Some(Value::Array(audiences)) if audiences.iter().any(is_for) => {}
            Some(audience) if is_for(audience) => {}
            _ => return Err(TokenRefusal::Audience),
        }
        let now = self.clock.now().0 as f64 / MICROS_PER_SECOND as f64;
        let skew = f64::from(self.settings.clock_skew_s);
        if now >= seconds(claims, "exp")? + skew {
            return Err(TokenRefusal::Expired);
        }
        if claims.contains_key("nbf") && now + skew < seconds(claims, "nbf")? {
            return Err(TokenRefusal::Early);
        }
        Ok(())
    }
}

/// Reads the scopes: of `scope`, separated by spaces, or of the list `scp`. Scopes of other systems are ignored.
fn scopes(claims: &Map<String, Value>) -> Result<Scopes, TokenRefusal> {
    match (claims.get("scope"), claims.get("scp")) {
        (Some(Value::String(text)), _) | (None, Some(Value::String(text))) => Ok(known(text.split(' '))),
        (None, Some(Value::Array(list))) => Ok(known(list.iter().filter_map(Value::as_str))),
        (None, None) => Ok(Scopes::default()),
        _ => Err(TokenRefusal::Claim("scope")),
    }
}

fn known<'a>(texts: impl Iterator<Item = &'a str>) -> Scopes {
    Scopes(texts.filter_map(|text| text.parse().ok()).collect())
}

fn parsed<T: serde::de::DeserializeOwned>(bytes: Option<Vec<u8>>) -> Result<T, TokenRefusal> {
    serde_json::from_slice(&bytes.ok_or(TokenRefusal::Unreadable)?).map_err(|_| TokenRefusal::Unreadable)
}

fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, TokenRefusal> {
    claims.get(name).and_then(Value::as_str).ok_or(TokenRefusal::Claim(name))
}

fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<f64, TokenRefusal> {
    claims.get(name).and_then(Value::as_f64).ok_or(TokenRefusal::Claim(name))
}

#[cfg(test)]
mod tests;
