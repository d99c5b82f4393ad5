//! Mutates what authentication reads: tokens, the key set of their issuer, and the file of keys. No changed token gives
//! access, and no content makes the reader fail without a reason.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use auth::key_file::{KeyFile, NewKey, parse_key};
use auth::token::{KeySet, TokenSettings, TokenVerifier};
use rand::rngs::StdRng;
use serde_json::Value;
use shared::clock::ManualClock;
use shared::time::Micros;

use crate::fuzzer::{Target, fuzz, kind_of};
use crate::json_mutations;

/// A token that the first key of [`KEYS`] signed; it expires in 2100.
const TOKEN: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6ImIifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUvIiwiYXVkIjpbInRydWV1cCJdLCJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDAsIm5iZiI6MSwic2NvcGUiOiJyZWFkOioiLCJ0cnVldXBfd2hlcmUiOiJvcmlnaW4gPSAnQVRMJyJ9.RhJUwp3lm13I9c8sQFwq10CPgLl_JywYtkJNA5RLmxl2Wxp1xq2FPEU38uhbTkqEehixl_Q9cHEAXorg_oIKAg";
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"b","use":"sig","x":"ZHu5UQHVkauV60xGDIQDW5FWqh89y5c_kmjCtCgNn2U"},
{"kty":"RSA","kid":"r","alg":"RS256","n":"ns-nO3zFbvlWvzA-8MXLhE5Ph3GfLGDd10tBWN1OCnnaKjrZwC0l8oYSL9mF0YVWq-u6F5vcBD-lirpPO2CqMvaHde0wJxUIRbKlszfzmC-QsI8EESL3Y1UC2vlEQZZDFO6SbPk0IBa-w4LfuujR9PwWeiGItupSBXREDyJQdxdL-krus9X0GCV0QRwaSLcZPGwiC2vH-l-EJ_5QYBFuwrrGEhlsTQGTn4L_QQRXJBCQ-CsWhuVt62xMLVUbz5XnS1M1MvPjxfBaUhsa7ShC8mp_NArBBE6_rA5fj-jQMSy0nNU7B8de6JaTNNjxzXydBIS3dNNdYyyy2ZJGkGi5qw","e":"AQAB"},
{"kty":"EC","crv":"P-256","kid":"a","x":"vpujTeAaRUe45Oi_TjfrDNxumNZQAdvBIN-DEtamwcQ","y":"Pf4TQC31WZPMs7x_LFhsyPRUoy6u76ptTFWDFzhpjVk"},
{"kty":"oct","kid":"c","k":"c2VjcmV0"}]}"#;

fn verifier(keys: KeySet) -> TokenVerifier {
    let settings = TokenSettings {
        issuer: "https://login.example/".to_owned(),
        audience: "trueup".to_owned(),
        clock_skew_s: 60,
        rates: Vec::new(),
    };
    let verifier = TokenVerifier::new(settings, Arc::new(ManualClock::at(Micros(1_700_000_000_000_000))));
    verifier.set_keys(keys);
    verifier
}

fn mutate(random: &mut StdRng, input: &[u8]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(input) else { return input.to_vec() };
    json_mutations::mutate(random, &mut value);
    value.to_string().into_bytes()
}

#[test]
fn only_the_signed_token_gives_access() {
    let verifier = verifier(KeySet::parse(KEYS.as_bytes()).expect("keys"));
    assert!(verifier.access(TOKEN).is_ok());
    let tokens = [".", "..", "eyJhbGciOiJub25lIn0", "eyJhbGciOiJFZERTQSJ9", "=", "A", "e30"];
    let target =
        Target { name: "token", seeds: vec![TOKEN.into()], tokens: &tokens, inputs: 20_000, ..Target::default() };
    fuzz(&target, |input| {
        let text = String::from_utf8_lossy(input);
        let is_key = parse_key(&text).is_some();
        match verifier.access(&text) {
            Ok(_) => {
                assert_eq!(text, TOKEN, "a changed token gives access");
                "accepted".to_owned()
            }
            Err(refusal) => format!("{is_key} {}", kind_of(&refusal.to_string())),
        }
    });
}

#[test]
fn key_sets_are_used_or_refused() {
    let tokens = ["\"kid\":\"b\"", "\"alg\":\"EdDSA\"", "\"alg\":\"none\"", "AQAB", "\"kty\":\"RSA\"", "null"];
    let seeds = vec![KEYS.into()];
    let target =
        Target { name: "key_set", seeds, tokens: &tokens, inputs: 10_000, mutate: Some(mutate), ..Target::default() };
    fuzz(&target, |input| match KeySet::parse(input) {
        Err(error) => kind_of(&error.to_string()),
        // A changed key has signed nothing; the unchanged one may still be there.
        Ok(keys) => verifier(keys).access(TOKEN).err().map_or("accepted".to_owned(), |refusal| refusal.to_string()),
    });
}

#[test]
fn key_files_are_read_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = KeyFile::in_folder(folder.path());
    let new = NewKey {
        label: Some("sensors".to_owned()),
        scopes: "ingest:s".parse().map(|scope| auth::Scopes(vec![scope])).expect("a scope"),
        row_filter: Some("origin = 'ATL'".to_owned()),
        rates: Vec::new(),
        expires_at: Some(Micros(i64::MAX)),
    };
    file.create(new, Micros(1)).expect("created");
    let seeds = vec![std::fs::read(file.path()).expect("readable")];
    let tokens = ["\"admin\"", "\"*:*\"", "null", "\"revoked_at\":1,", "9999999999999999999"];
    let target =
        Target { name: "key_file", seeds, tokens: &tokens, inputs: 4_000, mutate: Some(mutate), ..Target::default() };
    fuzz(&target, |input| {
        // Not truncated to nothing, which would make some file systems write it to the disk.
        let stored = std::fs::File::options().write(true).open(file.path()).expect("a file");
        stored.write_all_at(input, 0).and_then(|()| stored.set_len(input.len() as u64)).expect("writes");
        match file.read() {
            Ok(keys) => format!("{} keys", keys.len().min(3)),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("keys.json"), "{text}");
                kind_of(&text.replace(&folder.path().display().to_string(), ""))
            }
        }
    });
}
