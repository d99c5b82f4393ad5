//! Tests who may do what, through the program: every route with every kind of credentials, forged tokens, rates of token
//! subjects, paths that are written in other ways, and what a tenant can learn about the others.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use aws_lc_rs::{encoding, hmac};
use serde_json::{Value, json};
use world::requests::{Reply, ask, ask_until, id, key, trueup, with_key};
use world::{World, encoded, program};

const DEFINITIONS: &str = "
CREATE STREAM orders (at TIMESTAMP, country STRING, shop STRING, amount BIGINT) WITH (event_time = 'at'); CREATE STREAM other (at TIMESTAMP) WITH (event_time = 'at'); CREATE VIEW sales AS SELECT window_start, country, shop, COUNT(*) AS orders, SUM(amount) AS amount FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR), country, shop; CREATE VIEW others AS SELECT window_start, COUNT(*) AS n FROM other GROUP BY TUMBLE(at, INTERVAL '1' HOUR);
CREATE STREAM carts (cart STRING, at TIMESTAMP) WITH (event_time = 'at', entity = 'cart'); CREATE VIEW cart_states AS SELECT cart, COUNT(*) AS n FROM carts GROUP BY cart; CREATE TABLE bins (bin STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at');
";
const EVENTS: &str = r#"{"at":"2024-01-01T10:00:00Z","country":"AT","shop":"a","amount":5}
{"at":"2024-01-01T10:10:00Z","country":"DE","shop":"zzz","amount":70}
{"at":"2024-01-01T10:20:00Z","country":"AT","shop":"b","amount":3}
"#;

/// What a route needs, as docs/security.md says it. Written apart from the table of the program, which it checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// Any valid credentials: the response has what they may see.
    Credentials,
    Scope(&'static str),
}

fn need(method: &str, path: &str) -> Need {
    match (method, path) {
        (_, "/livez" | "/readyz") => Need::Nothing,
        (_, "/metrics") => Need::Scope("read:*"),
        ("POST", "/v1/events/{stream}") => Need::Scope("ingest:orders"),
        ("POST", "/v1/entities/{stream}" | "/v1/entities/{stream}/{id}/events") => Need::Scope("ingest:carts"),
        (_, "/v1/entities/{stream}/{id}/events" | "/v1/entities/{stream}/{id}/live") => Need::Scope("read:carts"),
        (_, path) if path.starts_with("/v1/tables/") => Need::Scope("read:*"),
        ("DELETE", "/v1/entities/{stream}/{id}") | (_, "/v1/erasures") => Need::Scope("admin"),
        (_, p) if ["/v1/entities/", "/v1/alerts", "/v1/sinks"].iter().any(|of| p.starts_with(of)) => Need::Credentials,
        (_, "/v1/views" | "/v1/streams" | "/v1/runs" | "/v1/streams/{stream}" | "/v1/runs/{run}") => Need::Credentials,
        ("POST", "/v1/views/{view}/runs" | "/v1/views/{view}/checkpoints") => Need::Scope("run:sales"),
        ("GET", path) if path.starts_with("/v1/views/{view}") => Need::Scope("read:sales"),
        (_, path) if path.starts_with("/v1/") => {
            let ends = ["vacuum", "compact", "late", "ahead", "failed", "quarantine"];
            assert!(ends.iter().any(|end| path.ends_with(end)), "{method} {path}");
            Need::Scope("admin")
        }
        _ => Need::Credentials,
    }
}

/// The status of a response, without waiting for the end of a stream of events.
fn status(world: &World, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    match path.ends_with("/live") {
        true => ask_until(world, method, path, headers, "\r\n\r\n"),
        false => ask(world, method, path, headers, ""),
    }
}

#[test]
fn every_route_of_the_description_accepts_the_right_credentials_and_no_others() {
    let world = World::new(DEFINITIONS);
    world.post("/v1/events/orders", EVENTS);
    for (of, event) in [("carts", "{\"cart\":\"c1\",\"at\":0}"), ("bins", "{\"bin\":\"c1\",\"at\":0}")] {
        world.post(&format!("/v1/events/{of}"), event);
    }
    assert_eq!(world.run("sales", false)["state"], "published");
    let admin = key(&world, &["--scope", "admin"]);
    let expired = key(&world, &["--scope", "admin", "--expires", "1ms"]);
    let revoked = key(&world, &["--scope", "admin"]);
    let store = world.store().display().to_string();
    assert!(trueup(&["key", "revoke", id(&revoked), "--data", &store], &[]).status.success());
    let refused = |world: &World, key: &str| with_key(world, key, "GET", "/v1/views", "").code();
    world.wait_for("the revocation", |world| refused(world, &revoked) == "invalid_credentials");
    assert_eq!(refused(&world, &expired), "invalid_credentials");
    let scopes = ["read:sales", "run:sales", "ingest:orders", "read:carts", "ingest:carts", "read:*", "admin"];
    let right: Vec<_> = scopes.iter().map(|scope| (*scope, key(&world, &["--scope", scope]))).collect();
    // Every other view and stream, and every action: all but what a route of `sales` or `orders` needs.
    let wrong = |needed: &str| {
        let others = ["read:others", "run:others", "ingest:other", "read:cart_states"].iter().chain(&scopes[..5]);
        let others = others.filter(|scope| **scope != needed);
        key(&world, &others.flat_map(|scope| ["--scope", scope]).collect::<Vec<_>>())
    };
    let wrong: Vec<(&str, String)> = scopes.iter().map(|scope| (*scope, wrong(scope))).collect();
    let forged = format!("trueup_{}_{}", id(&admin), "0".repeat(64));
    let description = with_key(&world, &admin, "GET", "/openapi.json", "").json();
    let mut checked = 0;
    for (pattern, methods) in description["paths"].as_object().expect("paths") {
        let path = pattern.replace("entities/{stream}", "entities/carts").replace("tables/{stream}", "tables/bins");
        let path = path.replace("{id}", "c1").replace("{key}", "c1");
        let path = path.replace("{view}", "sales").replace("{stream}", "orders").replace("{run}", "r0");
        for method in methods.as_object().expect("methods").keys().map(|method| method.to_uppercase()) {
            let asked = format!("{method} {path}");
            let with = |key: &str| status(&world, &method, &path, &[("authorization", &format!("Bearer {key}"))]);
            let needed = need(&method, pattern);
            let anonymous = status(&world, &method, &path, &[]);
            if needed == Need::Nothing {
                assert_eq!(anonymous.status, 200, "{asked}");
                continue;
            }
            assert_eq!((anonymous.status, anonymous.code()), (401, "authentication_required".into()), "{asked}");
            for bad in [&expired, &revoked, &forged, &format!("{admin}0"), &String::new()] {
                let reply = with(bad);
                assert_eq!((reply.status, reply.code()), (401, "invalid_credentials".into()), "{asked}: {bad}");
            }
            for scheme in ["Basic", "bearer", "Token"] {
                let reply = status(&world, &method, &path, &[("authorization", &format!("{scheme} {forged}"))]);
                assert_eq!(reply.status, 401, "{asked}: {scheme}");
            }
            if let Need::Scope(scope) = needed {
                let of = |keys: &[(&str, String)]| keys.iter().find(|(of, _)| *of == scope).expect("a key").1.clone();
                let reply = with(&of(&wrong));
                assert_eq!((reply.status, reply.code()), (403, "missing_scope".into()), "{asked}");
                let reply = with(&of(&right));
                assert!(![401, 403, 404, 405].contains(&reply.status), "{asked}: {} {}", reply.status, reply.body);
            }
            assert!(![401, 403].contains(&with(&admin).status), "{asked}");
            checked += 1;
        }
    }
    assert!(checked > 25, "{checked} routes");
}

/// Ways to write a path that another program might take for `/v1/views/sales/rows`.
const TRICKS: [&str; 26] = [
    "//v1/views/sales/rows",
    "/v1//views/sales/rows",
    "/v1/views//sales/rows",
    "/./v1/views/sales/rows",
    "/v1/./views/sales/rows",
    "/v1/views/./sales/rows",
    "/v1/views/others/../sales/rows",
    "/v1/views/others/%2e%2e/sales/rows",
    "/v1/views/others/%2E%2E%2fsales/rows",
    "/v1/views/others%2f..%2fsales/rows",
    "/v1/views/others%2Frows/../../sales/rows",
    "/v1/views/%73ales/rows",
    "/v1/views/sale%73/rows.json",
    "/v1/views/sales%00/rows",
    "/v1/views/sales%20/rows",
    "/v1/views/sales;x=others/rows",
    "/v1/views/sales/rows/",
    "/v1/views/sales/rows%2ejson",
    "/v1/views/sales/rows.json/",
    "/V1/views/sales/rows",
    "/v1/VIEWS/sales/rows",
    "/v1/views/SALES/rows",
    "/v1/views/sales/ROWS.JSON",
    "/v1/views/sales\\..\\others/rows",
    "/v1/views/sales/rows?view=others",
    "/assets/../v1/views/sales/rows",
];

#[test]
fn no_way_to_write_a_path_and_no_header_gets_around_a_scope() {
    let world = World::new(DEFINITIONS);
    world.post("/v1/events/orders", EVENTS);
    let reader = key(&world, &["--scope", "read:sales"]);
    let other = key(&world, &["--scope", "read:others", "--scope", "ingest:other", "--scope", "run:others"]);
    let bearer = |key: &str| format!("Bearer {key}");
    let (reader, other) = (bearer(&reader), bearer(&other));
    assert!(ask(&world, "GET", "/v1/views/sales/rows", &[("authorization", &reader)], "").body.contains("\"zzz\""));
    let absolute = format!("{}/v1/views/sales/rows", world.url());
    for target in TRICKS.iter().copied().chain([absolute.as_str(), "http://evil.example/v1/views/sales/rows", "*"]) {
        for method in ["GET", "HEAD", "POST", "get", "OPTIONS", "TRACE", "PUT", "PATCH", "CONNECT"] {
            for credentials in [None, Some(&other)] {
                let headers: Vec<_> = credentials.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
                let reply = ask(&world, method, target, &headers, "");
                assert!(
                    !reply.body.contains("zzz") && !reply.body.contains("\"amount\""),
                    "{method} {target}: {}",
                    reply.body
                );
                let is_refused =
                    reply.status >= 400 || reply.status == 303 || (reply.status == 308 && reply.body.is_empty());
                // A preflight says what pages may do, and nothing else.
                assert!(is_refused || method == "OPTIONS", "{method} {target}: {} {}", reply.status, reply.body);
            }
        }
    }
    for (name, value) in [
        ("x-original-url", "/v1/views/others/rows"),
        ("x-rewrite-url", "/v1/views/others/rows"),
        ("x-http-method-override", "GET"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "localhost"),
        ("forwarded", "for=127.0.0.1;host=localhost"),
        ("cookie", "trueup-session=; trueup-csrf="),
        ("cookie", "trueup-session=0000; trueup-session=../keys.json"),
        ("x-request-id", "\"}],\"rows\":[{"),
        ("accept", "text/html, */*;q=0.0, application/json;q=999999999999999999999"),
        ("range", "bytes=0-18446744073709551615,0-"),
        ("if-none-match", "*"),
        ("last-event-id", "ffffffffffffffff-18446744073709551615"),
    ] {
        for method in ["GET", "POST", "HEAD"] {
            for path in ["/v1/views/sales/rows", "/v1/views/sales/rows.parquet", "/v1/events/orders"] {
                let reply = ask(&world, method, path, &[("authorization", &other), (name, value)], "");
                assert!([403, 405].contains(&reply.status), "{method} {path} {name}: {value}: {}", reply.status);
                assert!(!reply.body.contains("zzz"), "{name}: {value}");
            }
        }
    }
    // Two headers of one name: neither may be checked while the other is used.
    for headers in [
        [("authorization", reader.as_str()), ("authorization", other.as_str())],
        [("authorization", other.as_str()), ("authorization", reader.as_str())],
    ] {
        let reply = ask(&world, "GET", "/v1/views/sales/rows", &headers, "");
        let first = if headers[0].1 == reader { 200 } else { 403 };
        assert!([first, 400, 401].contains(&reply.status), "{}", reply.status);
    }
    for host in
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "[::1"]
    {
        let reply = ask(&world, "GET", "/v1/views/sales/rows", &[("authorization", &reader), ("host", host)], "");
        assert!([400, 421].contains(&reply.status), "{host}: {}", reply.status);
    }
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).for_each(|digit| text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize])));
    }
    text
}

/// An issuer of tokens.
struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Issuer {
        Issuer(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    fn jwks(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256", "x": x, "y": y}]})
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
        format!("{message}.{}", base64url(signature.as_ref()))
    }

    /// A world that trusts the issuer; `more` are further lines of `[jwt]`.
    fn world(&self, more: &str) -> World {
        let mut world = World::new(DEFINITIONS);
        world.post("/v1/events/orders", EVENTS);
        world.stop();
        let jwks = world.data.path().join("jwks.json");
        std::fs::write(&jwks, self.jwks().to_string()).expect("written");
        let (jwks, issuer) = (jwks.display().to_string(), "https://login.example/");
        let settings = format!("[jwt]\nissuer = {issuer:?}\naudience = \"trueup\"\njwks = {jwks:?}\n{more}");
        std::fs::write(world.data.path().join("trueup.toml"), settings).expect("written");
        world.start();
        // The keys are read in the background.
        let token = self.token(&json!({"alg": "ES256", "kid": "k"}), &claims("probe"));
        world.wait_for("the keys", |world| with_key(world, &token, "GET", "/v1/views/sales", "").status == 200);
        world
    }
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()))
}

fn claims(subject: &str) -> Value {
    json!({"iss": "https://login.example/", "aud": "trueup", "sub": subject, "exp": 4_102_444_800u64, "scope": "read:sales"})
}

#[test]
fn forged_tokens_are_refused() {
    let issuer = Issuer::new();
    let world = issuer.world("");
    let header = json!({"alg": "ES256", "kid": "k"});
    let with = |name: &str, value: Value| {
        let mut claims = claims("ada");
        claims[name] = value;
        claims
    };
    let right = issuer.token(&header, &claims("ada"));
    assert_eq!(with_key(&world, &right, "GET", "/v1/views/sales/rows", "").status, 200);
    let point = issuer.0.public_key().as_ref();
    let spki = encoding::AsDer::<encoding::PublicKeyX509Der<'_>>::as_der(issuer.0.public_key()).expect("DER");
    let mac = |secret: &[u8]| {
        let message = message(&json!({"alg": "HS256", "kid": "k"}), &with("scope", json!("admin")));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", base64url(tag.as_ref()))
    };
    let unsigned = |alg: &str| message(&json!({"alg": alg, "kid": "k"}), &with("scope", json!("admin")));
    let (body, signature) = right.rsplit_once('.').expect("a signature");
    let (_, payload) = body.split_once('.').expect("a payload");
    let forged = [
        format!("{}.", unsigned("none")),
        format!("{}.", unsigned("None")),
        format!("{}.", unsigned("ES256")),
        format!("{}.{signature}", unsigned("none")),
        format!("{}.{signature}", unsigned("ES256")),
        mac(point),
        mac(spki.as_ref()),
        mac(b""),
        format!("{}.{payload}.{signature}", base64url(json!({"alg": "ES256"}).to_string().as_bytes())),
        Issuer::new().token(&header, &claims("ada")),
        issuer.token(&json!({"alg": "ES256", "kid": "unknown"}), &claims("ada")),
        issuer.token(&json!({"alg": "ES256", "kid": "k", "crit": ["exp"]}), &claims("ada")),
        issuer.token(&json!({"alg": "ES256", "jwk": issuer.jwks()["keys"][0], "kid": "other"}), &claims("ada")),
        issuer.token(&header, &with("exp", json!(1_500_000_000))),
        issuer.token(&header, &with("exp", json!("4102444800"))),
        issuer.token(&header, &with("exp", Value::Null)),
        issuer.token(&header, &with("nbf", json!(4_102_444_000u64))),
        issuer.token(&header, &with("iss", json!("https://login.example"))),
        issuer.token(&header, &with("iss", json!(["https://login.example/"]))),
        issuer.token(&header, &with("aud", json!("trueup2"))),
        issuer.token(&header, &with("aud", json!({"trueup": true}))),
        issuer.token(&header, &with("sub", Value::Null)),
        format!("{right}."),
        format!(".{right}"),
        format!("{right}="),
    ];
    for token in forged {
        for path in ["/v1/views/sales/rows", "/v1/views", "/metrics"] {
            let reply = with_key(&world, &token, "GET", path, "");
            assert_eq!((reply.status, reply.code()), (401, "invalid_credentials".into()), "{token}: {}", reply.body);
        }
    }
    // A token cannot be a session, nor log in.
    let cookie = format!("trueup-session={right}");
    assert_eq!(ask(&world, "GET", "/v1/views", &[("cookie", &cookie)], "").status, 401);
    assert_eq!(ask(&world, "POST", "/login", &[], &format!("key={right}")).status, 401);
    // A filter in the token holds as one of a key does.
    let filtered = issuer.token(&header, &with("trueup_where", json!("country = 'AT'")));
    let rows = with_key(&world, &filtered, "GET", "/v1/views/sales/rows", "");
    assert!(rows.body.contains("\"AT\"") && !rows.body.contains("\"DE\""), "{}", rows.body);
}

#[test]
fn subjects_of_tokens_have_rates_of_their_own_that_new_tokens_do_not_reset() {
    let issuer = Issuer::new();
    let world = issuer.world("rates = [\"5/d\"]\n");
    let token = |subject: &str, number: u64| {
        let mut claims = claims(subject);
        claims["jti"] = json!(number);
        issuer.token(&json!({"alg": "ES256", "kid": "k"}), &claims)
    };
    for (number, expected) in (0..).zip([200, 200, 200, 200, 200, 429, 429]) {
        let reply = with_key(&world, &token("ada", number), "GET", "/v1/views/sales", "");
        assert_eq!(reply.status, expected, "request {number}");
        assert_eq!(reply.headers("ratelimit-limit"), ["5"]);
        if expected == 429 {
            assert_eq!(reply.code(), "rate_limited");
            assert_eq!(reply.headers("retry-after").len(), 1);
        }
    }
    assert_eq!(with_key(&world, &token("eve", 0), "GET", "/v1/views/sales", "").status, 200, "another subject");
    // A key has the rates that it was created with.
    let key = key(&world, &["--scope", "read:sales"]);
    (0..8).for_each(|_| assert_eq!(with_key(&world, &key, "GET", "/v1/views/sales", "").status, 200));
}

#[test]
fn a_tenant_learns_nothing_about_the_values_of_others() {
    let world = World::new(DEFINITIONS);
    world.post("/v1/events/orders", EVENTS);
    assert_eq!(world.run("sales", false)["state"], "published");
    world.post("/v1/events/orders", EVENTS);
    let admin = key(&world, &["--scope", "admin"]);
    let tenant =
        key(&world, &["--scope", "read:*", "--scope", "run:*", "--scope", "ingest:*", "--where", "country = 'AT'"]);
    let get = |key: &str, path: &str| with_key(&world, key, "GET", path, "");
    // Conditions that fail for the values of others only: a failure would say that such values exist.
    let grow = |text: &str| {
        (0..4).fold("shop".to_owned(), |inner, _| format!("REPLACE({inner},'{text}','{}')", text.repeat(90)))
    };
    let probes = [
        format!("LENGTH({}) > 0", grow("z")),
        format!("country = 'DE' AND LENGTH({}) > 0", grow("z")),
        format!("CASE WHEN shop = 'zzz' THEN LENGTH({}) > 0 ELSE true END", grow("z")),
        format!("orders > 0 OR LENGTH({}) > 0", grow("z")),
    ];
    for probe in &probes {
        let path = format!("/v1/views/sales/rows.json?where={}", encoded(probe));
        let reply = get(&tenant, &path);
        assert_eq!(reply.status, 200, "{probe}: {}", reply.body);
        assert!(!reply.body.contains("zzz") && !reply.body.contains("\"DE\""), "{}", reply.body);
    }
    let path = format!("/v1/views/sales/rows.json?where={}", encoded(&probes[0]));
    assert_eq!(get(&admin, &path).code(), "query_too_large", "the probe does fail for a client that may read all");

    // Every route that the description has, with what the tenant may ask for: no value of another tenant is in a response.
    let description = get(&admin, "/openapi.json").json();
    for (pattern, methods) in description["paths"].as_object().expect("paths") {
        let path = pattern.replace("{view}", "sales").replace("{stream}", "orders").replace("{run}", "r0");
        for method in methods.as_object().expect("methods").keys().map(|method| method.to_uppercase()) {
            for suffix in [
                "",
                "?version=1",
                "?as_of=1",
                "?layer=batch",
                "?from=2024-01-01",
                "?limit=1&cursor=AAAA",
                "?order_by=-shop",
            ] {
                let target = format!("{path}{suffix}");
                let bearer = format!("Bearer {tenant}");
                let until = if path.ends_with("/live") { "\"next\":" } else { "no such text" };
                let reply = ask_until(&world, &method, &target, &[("authorization", &bearer)], until);
                assert!(
                    !reply.body.contains("zzz") && !reply.body.contains("\"DE\""),
                    "{method} {target}: {}",
                    reply.body
                );
            }
        }
    }
    // Comparisons are of all tenants, wherever they are shown.
    let view = get(&tenant, "/v1/views/sales").json();
    assert_eq!((&view["reconciliation"], &view["alarm"]), (&Value::Null, &Value::Null), "{view}");
    assert_eq!(get(&tenant, "/v1/views").json()["views"][0]["reconciliation"], Value::Null);
    assert_ne!(get(&admin, "/v1/views/sales").json()["reconciliation"], Value::Null);
    // Messages about a wrong query repeat the query, and no data.
    for wrong in ["shop = zzz", "shopp = 'a'", "shop = 5", "amount / 0 = 1 AND", "CAST(shop AS BIGINT) > 0"] {
        let reply = get(&tenant, &format!("/v1/views/sales/rows?where={}", encoded(wrong)));
        assert!(!reply.body.contains("\"DE\""), "{}", reply.body);
    }
}

/// Texts that must appear nowhere but in the response that hands them out.
struct Canaries(Vec<(&'static str, String)>);

impl Canaries {
    fn check(&self, place: &str, text: &str) {
        for (kind, secret) in &self.0 {
            assert!(!text.contains(secret.as_str()), "the {kind} is in {place}: {text}");
        }
    }
}

#[test]
fn secrets_are_in_no_log_error_answer_metric_help_or_process_list() {
    let issuer = Issuer::new();
    let s3_secret = "canary-s3-secret-0123456789";
    let url_secret = "canary-url-token-0123456789";
    let mut world =
        World::with_environment(DEFINITIONS, &[("AWS_SECRET_ACCESS_KEY", s3_secret), ("URL_TOKEN", url_secret)]);
    world.stop();
    // An issuer that cannot be reached: its URL, which has a token, is in the warnings.
    let jwks = "http://127.0.0.1:9/keys?token=${URL_TOKEN}";
    let settings = format!("[jwt]\nissuer = \"https://login.example/\"\naudience = \"trueup\"\njwks = \"{jwks}\"\n");
    std::fs::write(world.data.path().join("trueup.toml"), settings).expect("written");
    world.start();
    let admin = key(&world, &["--scope", "admin"]);
    let secret_of = |key: &str| key.rsplit('_').next().expect("a secret").to_owned();
    let token = issuer.token(&json!({"alg": "ES256", "kid": "k"}), &claims("ada"));
    let login = ask(&world, "POST", "/login", &[], &format!("key={admin}"));
    let pairs: Vec<String> =
        login.headers("set-cookie").iter().filter_map(|cookie| Some(cookie.split(';').next()?.to_owned())).collect();
    let value = |pair: &str| pair.split_once('=').expect("a value").1.to_owned();
    let canaries = Canaries(vec![
        ("key", secret_of(&admin)),
        ("secret of the object store", s3_secret.to_owned()),
        ("secret in a URL", url_secret.to_owned()),
        ("token", token.rsplit('.').next().expect("a signature").to_owned()),
        ("session cookie", value(&pairs[0])),
        ("CSRF token", value(&pairs[1])),
    ]);
    let cookie = pairs.join("; ");
    let csrf = value(&pairs[1]);
    let bearer = format!("Bearer {admin}");
    let credentials: [&[(&str, &str)]; 6] = [
        &[("authorization", &bearer)],
        &[("authorization", &format!("Bearer {token}"))],
        &[("authorization", &format!("Basic {admin}"))],
        &[("authorization", &format!("Bearer {admin}x"))],
        &[("cookie", &cookie)],
        &[("cookie", &cookie), ("x-trueup-csrf", &csrf)],
    ];
    let description = with_key(&world, &admin, "GET", "/openapi.json", "").json();
    let mut targets: Vec<(String, String)> = Vec::new();
    for (pattern, methods) in description["paths"].as_object().expect("paths") {
        let path = pattern.replace("{view}", "sales").replace("{stream}", "orders").replace("{run}", "r0");
        methods.as_object().expect("methods").keys().for_each(|m| targets.push((m.to_uppercase(), path.clone())));
    }
    // Secrets in the wrong place: in a path, a query, a body, and a request that cannot be parsed.
    for page in ["/", "/view/sales", "/compare/sales", "/batch", "/streams", "/login", "/docs/"] {
        targets.push(("GET".to_owned(), page.to_owned()));
    }
    targets.push(("POST".to_owned(), "/v1/views/none/runs".to_owned()));
    for (method, target) in &targets {
        for headers in credentials {
            let reply = match target.ends_with("/live") {
                true => ask_until(&world, method, target, headers, "\r\n\r\n"),
                false => ask(&world, method, target, headers, ""),
            };
            canaries.check(&format!("{method} {target}"), &format!("{}{}", reply.head, reply.body));
        }
    }
    let metrics = with_key(&world, &admin, "GET", "/metrics", "");
    canaries.check("the metrics", &metrics.body);
    // A wrong login, and a key of the right form that is not known.
    for wrong in [format!("{admin}0"), admin.replace("trueup_", "Trueup_"), format!("{token}.")] {
        let reply = ask(&world, "POST", "/login", &[], &format!("key={wrong}"));
        canaries.check("a wrong login", &reply.body);
    }
    canaries.check("the log", &world.log());
    assert!(world.log().contains("cannot read the keys of the token issuer"), "{}", world.log());
    // What other users of the machine see of the process.
    let process = std::fs::read(format!("/proc/{}/cmdline", world.id())).unwrap_or_default();
    canaries.check("the process list", &String::from_utf8_lossy(&process));
    // Commands: help, lists, errors, with the key in the environment.
    let store = world.store().display().to_string();
    let variables = [("TRUEUP_KEY", admin.as_str()), ("AWS_SECRET_ACCESS_KEY", s3_secret), ("URL_TOKEN", url_secret)];
    let settings = world.data.path().join("trueup.toml").display().to_string();
    let wrong = world.data.path().join("wrong.toml");
    std::fs::write(&wrong, "[limits]\nspool_bytes = \"${URL_TOKEN}\"\n").expect("written");
    // A private key that cannot be read: its file is named, its content is not.
    let tls_key = "canaryTlsKey0123456789";
    let key_file = world.data.path().join("tls.key");
    std::fs::write(&key_file, format!("-----BEGIN PRIVATE KEY-----\n{tls_key}\n-----END PRIVATE KEY-----\n"))
        .expect("written");
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/server.crt");
    let tls = world.data.path().join("tls.toml");
    std::fs::write(&tls, format!("[tls]\ncertificate = {certificate:?}\nkey = {:?}\n", key_file.display().to_string()))
        .expect("written");
    let (tls, definitions) = (tls.display().to_string(), world.definitions().display().to_string());
    let refused = trueup(&["serve", &definitions, "--config", &tls, "--listen", "127.0.0.1:0"], &variables);
    let refused = (refused.status.code(), program::text(&refused));
    assert!(refused.0 == Some(2) && refused.1.contains("tls.key") && !refused.1.contains(tls_key), "{refused:?}");
    let (wrong, url) = (wrong.display().to_string(), world.url().to_owned());
    for arguments in [
        vec!["--help"],
        vec!["serve", "--help"],
        vec!["key", "create", "--help"],
        vec!["key", "list", "--data", &store],
        vec!["key", "list", "-o", "json", "--data", &store],
        vec!["query", "none", "--url", &url],
        vec!["query", "sales", "--url", "http://127.0.0.1:9"],
        vec!["serve", "none.sql", "--config", &settings],
        vec!["serve", "none.sql", "--config", &wrong],
        vec!["serve", "none.sql", "--data", "s3://canary-bucket/x"],
    ] {
        let output = trueup(&arguments, &variables);
        canaries.check(&format!("trueup {arguments:?}"), &program::text(&output));
    }
    let stored = std::fs::read_to_string(world.store().join("keys.json")).expect("the keys");
    canaries.check("the file of the keys", &stored);
    // A panic prints a message, and no request.
    let mut world = World::with_environment(
        DEFINITIONS,
        &[("TRUEUP_PANIC_IN", "log-orders-0"), ("AWS_SECRET_ACCESS_KEY", s3_secret)],
    );
    let admin = key(&world, &["--scope", "admin"]);
    let canaries = Canaries(vec![("key", secret_of(&admin)), ("secret of the object store", s3_secret.to_owned())]);
    let _ = world.try_post("/v1/events/orders", EVENTS.into(), &[("authorization", &format!("Bearer {admin}"))]);
    let (_, log) = world.end_by_itself();
    assert!(log.contains("panicked"), "{log}");
    canaries.check("the log of a panic", &log);
}

#[cfg(unix)]
#[test]
fn files_with_secrets_that_others_can_read_are_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new(DEFINITIONS);
    key(&world, &["--scope", "admin"]);
    world.stop();
    let (keys, settings) = (world.store().join("keys.json"), world.data.path().join("trueup.toml"));
    let secret = world.data.path().join("host");
    std::fs::write(&secret, "figures.example\n").expect("written");
    let text = format!(
        "allowed_hosts = [\"file:{}\"]\n[jwt]\nissuer = \"i\"\naudience = \"a\"\njwks = \"http://u:p@127.0.0.1:9/k\"\n",
        secret.display()
    );
    std::fs::write(&settings, text).expect("written");
    let warned = |world: &World, path: &std::path::Path| {
        let shown = path.display().to_string();
        world.log().lines().filter(|line| line.contains("other users of this machine") && line.contains(&shown)).count()
    };
    let allow = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("changed");
    };
    for path in [&keys, &settings, &secret] {
        allow(path, 0o600);
    }
    world.start();
    let before: Vec<usize> = [&keys, &settings, &secret].map(|path| warned(&world, path)).to_vec();
    assert_eq!(before, [0, 0, 0], "{}", world.log());
    world.stop();
    for (path, mode) in [(&keys, 0o640), (&settings, 0o604), (&secret, 0o620)] {
        allow(path, mode);
    }
    world.start();
    for (number, path) in [&keys, &settings, &secret].into_iter().enumerate() {
        assert_eq!(warned(&world, path), before[number] + 1, "{}: {}", path.display(), world.log());
    }
}
