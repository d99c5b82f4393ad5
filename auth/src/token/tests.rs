//! Tests tokens that are made here, and the example of RFC 7515 for RSA.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use shared::clock::ManualClock;
use shared::time::Micros;

use super::*;
use crate::scope::Action;

const NOW_S: i64 = 1_700_000_000;

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

struct Issuer {
    ecdsa: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Issuer {
        let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
        Issuer { ecdsa, ed25519: Ed25519KeyPair::generate().expect("a key pair") }
    }

    fn verifier(&self) -> TokenVerifier {
        let point = self.ecdsa.public_key().as_ref();
        let keys = json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "a", "x": encoded(&point[1..33]), "y": encoded(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": "b", "use": "sig", "x": encoded(self.ed25519.public_key().as_ref())},
            {"kty": "oct", "kid": "c", "k": "c2VjcmV0"},
            {"kty": "OKP", "crv": "Ed25519", "kid": "d", "use": "enc", "x": encoded(self.ed25519.public_key().as_ref())},
        ]});
        let settings = TokenSettings {
            rates: Vec::new(),
            issuer: "https://login.example/".to_owned(),
            audience: "trueup".to_owned(),
            clock_skew_s: 60,
        };
        let verifier = TokenVerifier::new(settings, Arc::new(ManualClock::at(Micros(NOW_S * MICROS_PER_SECOND))));
        verifier.set_keys(KeySet::parse(keys.to_string().as_bytes()).expect("keys"));
        verifier
    }

    fn token(&self, header: Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
        let signature = match header["kid"].as_str() {
            Some("b" | "d") => self.ed25519.sign(message.as_bytes()).as_ref().to_vec(),
            _ => self.ecdsa.sign(&SystemRandom::new(), message.as_bytes()).expect("signed").as_ref().to_vec(),
        };
        format!("{message}.{}", encoded(&signature))
    }
}

fn claims() -> Value {
    json!({"iss": "https://login.example/", "aud": ["other", "trueup"], "sub": "ada", "exp": NOW_S + 300,
           "scope": "openid read:sales run:*", "trueup_where": "country = 'AT'"})
}

#[test]
fn a_valid_token_gives_its_scopes_and_its_row_filter() {
    let issuer = Issuer::new();
    for header in [json!({"alg": "ES256", "kid": "a"}), json!({"alg": "ES256"}), json!({"alg": "EdDSA", "kid": "b"})] {
        let access = issuer.verifier().access(&issuer.token(header, &claims())).expect("valid");
        assert_eq!(access.to_string(), "token of ada");
        assert!(access.may(Action::Read, "sales") && access.may(Action::Run, "x") && !access.may(Action::Read, "x"));
        assert_eq!(access.row_filter().map(|filter| &**filter), Some("country = 'AT'"));
    }
}

#[test]
fn the_key_decides_the_algorithm_and_every_signature_is_checked() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier();
    for (header, refusal) in [
        (json!({"alg": "none", "kid": "a"}), TokenRefusal::UnknownKey),
        (json!({"alg": "HS256", "kid": "c"}), TokenRefusal::UnknownKey),
        (json!({"alg": "EdDSA", "kid": "a"}), TokenRefusal::UnknownKey),
        (json!({"alg": "ES256", "kid": "x"}), TokenRefusal::UnknownKey),
        (json!({"alg": "EdDSA", "kid": "d"}), TokenRefusal::UnknownKey),
        (json!({"alg": "ES256", "kid": "a", "crit": ["b64"]}), TokenRefusal::Unreadable),
        (json!({"kid": "a"}), TokenRefusal::Unreadable),
    ] {
        assert_eq!(verifier.access(&issuer.token(header.clone(), &claims())).err(), Some(refusal), "{header}");
    }
    let token = issuer.token(json!({"alg": "ES256", "kid": "a"}), &claims());
    let (message, signature) = token.rsplit_once('.').expect("parts");
    let other = encoded(json!({"sub": "eve"}).to_string().as_bytes());
    let (header, _) = message.split_once('.').expect("parts");
    for forged in [format!("{header}.{other}.{signature}"), format!("{message}."), format!("{message}.AAAA")] {
        assert_eq!(verifier.access(&forged).err(), Some(TokenRefusal::Signature), "{forged}");
    }
    for text in ["", ".", "..", "a.b.c", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
        assert_eq!(verifier.access(text).err(), Some(TokenRefusal::Unreadable), "{text}");
    }
    let stranger = Issuer::new().token(json!({"alg": "ES256", "kid": "a"}), &claims());
    assert_eq!(verifier.access(&stranger).err(), Some(TokenRefusal::Signature));
}

#[test]
fn claims_have_to_be_there_with_their_types_and_times() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier();
    for (name, value, refusal) in [
        ("iss", json!("https://evil.example/"), Some(TokenRefusal::Issuer)),
        ("iss", Value::Null, Some(TokenRefusal::Claim("iss"))),
        ("aud", json!("other"), Some(TokenRefusal::Audience)),
        ("aud", json!("trueup"), None),
        ("aud", json!([]), Some(TokenRefusal::Audience)),
        ("exp", json!(NOW_S - 59), None),
        ("exp", json!(NOW_S - 60), Some(TokenRefusal::Expired)),
        // A time as text must not count as no time.
        ("exp", json!("9999999999"), Some(TokenRefusal::Claim("exp"))),
        ("exp", Value::Null, Some(TokenRefusal::Claim("exp"))),
        ("nbf", json!(NOW_S + 60), None),
        ("nbf", json!(NOW_S + 61), Some(TokenRefusal::Early)),
        ("nbf", json!("0"), Some(TokenRefusal::Claim("nbf"))),
        ("sub", json!(7), Some(TokenRefusal::Claim("sub"))),
        ("scope", json!(["admin"]), Some(TokenRefusal::Claim("scope"))),
        ("trueup_where", json!(true), Some(TokenRefusal::Claim("trueup_where"))),
    ] {
        let mut claims = claims();
        claims[name] = value.clone();
        let token = issuer.token(json!({"alg": "ES256", "kid": "a"}), &claims);
        assert_eq!(verifier.access(&token).err(), refusal, "{name}: {value}");
    }
}

#[test]
fn rsa_signatures_are_checked_as_in_rfc_7515() {
    let keys = json!({"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]});
    let keys = KeySet::parse(keys.to_string().as_bytes()).expect("keys");
    let key = keys.find("RS256", None).expect("a key");
    let message = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = decoded("cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw").expect("base64");
    assert!(key.has_signed(message, &signature));
    assert!(!key.has_signed(&message[1..], &signature));
    assert!(KeySet::parse(b"{\"keys\": []}").is_err());
}
