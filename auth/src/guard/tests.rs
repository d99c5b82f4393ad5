//! Tests the guard in front of a small router.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::get;
use shared::clock::ManualClock;
use shared::time::Micros;
use tower::ServiceExt;

use super::*;
use crate::key_file::{KeyFile, NewKey};
use crate::scope::{Action, Scopes};

struct World {
    file: KeyFile,
    clock: ManualClock,
    guard: Arc<Guard>,
    _folder: tempfile::TempDir,
}

fn requirement(method: &Method, path: &str) -> Requirement {
    match (method, path) {
        (_, "/login") => Requirement::Public,
        (&Method::GET, "/view/{view}") => Requirement::Scope(Action::Read),
        (&Method::POST, "/view/{view}") => Requirement::Scope(Action::Run),
        (_, "/sums/{view}") => Requirement::ScopeOfAllRows(Action::Read),
        _ => Requirement::Admin,
    }
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::in_folder(folder.path());
        let clock = ManualClock::at(Micros(1_000_000));
        let ring = KeyRing::open(file.clone(), Arc::new(clock.clone())).expect("no keys");
        let guard = Arc::new(Guard::new(ring, GuardSettings::default(), Arc::new(clock.clone())));
        World { file, clock, guard, _folder: folder }
    }

    fn key(&self, scopes: &[&str], edit: impl FnOnce(&mut NewKey)) -> String {
        let mut new = NewKey {
            scopes: Scopes(scopes.iter().map(|scope| scope.parse().expect("a scope")).collect()),
            ..NewKey::default()
        };
        edit(&mut new);
        self.file.create(new, self.clock.now()).expect("created").1
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let check = async |State(checkpoint): State<Checkpoint>, request: Request, next: Next| {
            checkpoint.check(request, |request| next.run(request)).await
        };
        let checkpoint = Checkpoint { guard: Arc::clone(&self.guard), requirement };
        let routes = Router::new()
            .route("/login", get(async || "login"))
            .route("/view/{view}", get(async |access: Access| access.to_string()).post(async || "changed"))
            .route("/sums/{view}", get(async || "sums"))
            .route("/forgotten", get(async || "forgotten"))
            .layer(from_fn_with_state(checkpoint, check));
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        routes.oneshot(request.body(Body::empty()).expect("a request")).await.expect("infallible")
    }

    async fn status(&self, method: Method, path: &str, key: &str) -> u16 {
        self.ask(method, path, &[("authorization", &format!("Bearer {key}"))]).await.status().as_u16()
    }
}

#[tokio::test]
async fn without_keys_everything_is_open_and_the_first_key_closes_it() {
    let world = World::new();
    assert_eq!(world.ask(Method::POST, "/view/a", &[]).await.status(), StatusCode::OK);
    let key = world.key(&["read:a"], |_| ());
    // The file is looked at once a second, or when a key is unknown.
    assert_eq!(
        world.guard.keys.as_ref().expect("keys").access(&key).map(|access| access.to_string().len()).ok(),
        Some(16)
    );
    let refused = world.ask(Method::GET, "/view/a", &[]).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.headers().contains_key(header::WWW_AUTHENTICATE));
    assert_eq!(world.ask(Method::GET, "/login", &[]).await.status(), StatusCode::OK);
    assert_eq!(world.ask(Method::GET, "/unknown", &[]).await.status(), StatusCode::UNAUTHORIZED);
    let page = world.ask(Method::GET, "/view/a", &[("accept", "text/html,*/*")]).await;
    assert_eq!((page.status(), page.headers()[header::LOCATION].as_bytes()), (StatusCode::SEE_OTHER, &b"/login"[..]));
}

#[tokio::test]
async fn a_key_may_do_what_its_scopes_name() {
    let world = World::new();
    let reader = world.key(&["read:a", "run:b"], |_| ());
    let admin = world.key(&["admin"], |_| ());
    for (method, path, of_reader) in [
        (Method::GET, "/view/a", 200),
        (Method::HEAD, "/view/a", 403),
        (Method::GET, "/view/%61", 200),
        (Method::GET, "/view/b", 403),
        (Method::GET, "/view/%ff", 400),
        (Method::POST, "/view/a", 403),
        (Method::POST, "/view/b", 200),
        (Method::GET, "/sums/a", 200),
        (Method::GET, "/forgotten", 403),
        (Method::GET, "/unknown", 404),
    ] {
        assert_eq!(world.status(method.clone(), path, &reader).await, of_reader, "{method} {path}");
        let of_admin = if of_reader == 403 { 200 } else { of_reader };
        assert_eq!(world.status(method, path, &admin).await, of_admin, "{path}");
    }
    assert_eq!(world.status(Method::GET, "/view/a", "trueup_00_00").await, 401);
    let basic = world.ask(Method::GET, "/view/a", &[("authorization", "Basic eDp5")]).await;
    assert_eq!(basic.status(), StatusCode::UNAUTHORIZED);
    let response = world.ask(Method::GET, "/view/a", &[("authorization", &format!("bearer {reader}"))]).await;
    assert_eq!(response.headers()[header::CACHE_CONTROL], "private, no-cache");
}

#[tokio::test]
async fn a_row_filter_closes_endpoints_that_cannot_apply_it() {
    let world = World::new();
    let tenant = world.key(&["read:*"], |new| new.row_filter = Some("country = 'AT'".to_owned()));
    assert_eq!(world.status(Method::GET, "/view/a", &tenant).await, 200);
    assert_eq!(world.status(Method::GET, "/sums/a", &tenant).await, 403);
    let admin = world.key(&["admin"], |new| new.row_filter = Some("country = 'AT'".to_owned()));
    assert_eq!(world.status(Method::GET, "/forgotten", &admin).await, 403);
}

#[tokio::test]
async fn requests_beyond_the_rate_of_a_key_are_refused() {
    let world = World::new();
    let key = world.key(&["read:*"], |new| new.rates = vec!["2/m".parse().expect("a rate")]);
    assert_eq!(world.status(Method::GET, "/view/a", &key).await, 200);
    assert_eq!(world.status(Method::GET, "/view/a", &key).await, 200);
    let refused = world.ask(Method::GET, "/view/a", &[("authorization", &format!("Bearer {key}"))]).await;
    let headers = refused.headers();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        (&headers["ratelimit-limit"], &headers["ratelimit-remaining"]),
        (&"2".parse().unwrap(), &"0".parse().unwrap())
    );
    assert_eq!(headers["ratelimit-reset"], headers[header::RETRY_AFTER]);
    world.clock.set(Micros(61_000_000));
    assert_eq!(world.status(Method::GET, "/view/a", &key).await, 200);
}

#[tokio::test]
async fn a_session_needs_its_token_for_changes_and_ends_with_its_key() {
    let world = World::new();
    let key = world.key(&["read:*", "run:*"], |_| ());
    assert!(world.guard.log_in("trueup_00_00").is_err());
    let cookies = world.guard.log_in(&key).expect("logged in");
    let set: Vec<String> = cookies.headers().map(|(_, value)| value.to_str().expect("text").to_owned()).collect();
    assert!(set[0].contains("; HttpOnly") && !set[1].contains("HttpOnly"), "{set:?}");
    assert!(set.iter().all(|cookie| cookie.contains("SameSite=Strict") && cookie.contains("Path=/")), "{set:?}");
    let pair = |cookie: &str| cookie.split(';').next().expect("a pair").to_owned();
    let cookie = format!("theme=dark; {}; {}", pair(&set[0]), pair(&set[1]));
    let token = pair(&set[1]).split_once('=').expect("a value").1.to_owned();
    let with = |extra: &[(&'static str, String)]| -> Vec<(String, String)> {
        let mut headers = vec![("cookie".to_owned(), cookie.clone())];
        headers.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        headers
    };
    let status = async |method: Method, headers: Vec<(String, String)>| {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        world.ask(method, "/view/a", &headers).await.status().as_u16()
    };
    assert_eq!(status(Method::GET, with(&[])).await, 200);
    assert_eq!(status(Method::POST, with(&[])).await, 403);
    assert_eq!(status(Method::POST, with(&[("x-trueup-csrf", "0".repeat(64))])).await, 403);
    assert_eq!(status(Method::POST, with(&[("x-trueup-csrf", token)])).await, 200);
    let headers = HeaderMap::from_iter([(header::COOKIE, cookie.parse().expect("a cookie"))]);
    world.guard.log_out(&headers);
    assert_eq!(status(Method::GET, with(&[])).await, 401);
}
