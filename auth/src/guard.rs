//! Stands in front of every endpoint: finds the principal of a request, and refuses what it may not do.
//!
//! In this order: credentials, CSRF token, rates, requirement of the route. A request that passes carries its
//! [`Access`]. Without any key the server asks for none, and every client may do everything.

mod cookies;
mod refusal;

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use problem::{Code, Problem};
use shared::clock::Clock;

pub use self::cookies::{SessionCookies, session_id};
use self::refusal::{anonymous, too_many_requests};
use crate::access::{Access, Principal};
use crate::keyring::KeyRing;
use crate::rate::{RateLimiter, RateState};
use crate::requirement::Requirement;
use crate::session::Sessions;
use crate::token::TokenVerifier;

/// The header in which pages send the token of their session with every change.
pub const CSRF_HEADER: &str = "x-trueup-csrf";

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATE_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATE_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// How a guard works.
#[derive(Debug, Clone, Copy, Default)]
pub struct GuardSettings {
    /// True if credentials are asked for even before there is a key.
    pub is_required: bool,
    /// True if browsers send the cookies over TLS only.
    pub has_tls: bool,
}

/// Finds and checks principals.
#[derive(Debug)]
pub struct Guard {
    /// `None`: every client may do everything.
    keys: Option<KeyRing>,
    /// Tokens are accepted beside keys.
    tokens: Option<Arc<TokenVerifier>>,
    settings: GuardSettings,
    sessions: Sessions,
    limiter: RateLimiter,
    clock: Arc<dyn Clock>,
}

/// A guard and the requirements of all routes.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub guard: Arc<Guard>,
    /// Returns the requirement of a method and the pattern of a path.
    pub requirement: fn(&Method, &str) -> Requirement,
}

/// Credentials that are valid.
struct Credentials {
    access: Access,
    /// True if a browser added them by itself, so that the request may come from any page.
    is_ambient: bool,
    /// Whether the request has the token that proves the contrary.
    has_csrf_token: bool,
}

/// A request that may pass.
struct Admission {
    access: Access,
    rate: Option<RateState>,
    is_public: bool,
}

impl Guard {
    /// Makes a guard that lets every client do everything.
    pub fn open(clock: Arc<dyn Clock>) -> Guard {
        Guard { keys: None, ..Guard::empty(clock) }
    }

    /// Makes a guard that asks for credentials as soon as there is a key.
    pub fn new(keys: KeyRing, settings: GuardSettings, clock: Arc<dyn Clock>) -> Guard {
        Guard { keys: Some(keys), settings, ..Guard::empty(clock) }
    }

    /// Accepts tokens, too. From now on requests need credentials.
    pub fn with_tokens(self, tokens: Arc<TokenVerifier>) -> Guard {
        Guard { tokens: Some(tokens), ..self }
    }

    fn empty(clock: Arc<dyn Clock>) -> Guard {
        let settings = GuardSettings::default();
        let (sessions, limiter) = (Sessions::default(), RateLimiter::default());
        Guard { keys: None, tokens: None, settings, sessions, limiter, clock }
    }

    /// Returns true if requests need credentials.
    pub fn is_required(&self) -> bool {
        let is_in_use = |keys: &KeyRing| self.tokens.is_some() || self.settings.is_required || keys.is_in_use();
        self.keys.as_ref().is_some_and(is_in_use)
    }

    /// Returns true if this request needs credentials. One that has some may have those of the first key, which counts at
    /// once.
    fn is_required_for(&self, headers: &HeaderMap) -> bool {
        if let Some(keys) = self.keys.as_ref().filter(|_| headers.contains_key(header::AUTHORIZATION)) {
            keys.refresh_now();
        }
        self.is_required()
    }

    /// Opens a session for the holder of a key.
    pub fn log_in(&self, key: &str) -> Result<SessionCookies, Problem> {
        let unknown = || Problem::new(Code::InvalidCredentials, "this server has no keys; no login is needed");
        let access = self.keys.as_ref().ok_or_else(unknown)?.access(key.trim())?;
        let Principal::Key { id, .. } = access.principal() else { return Err(unknown()) };
        tracing::info!(key = %id, "session opened");
        Ok(SessionCookies::of(&self.sessions.open(id.clone(), self.clock.now()), self.settings.has_tls))
    }

    /// Ends the session of the request, if it has one.
    pub fn log_out(&self, headers: &HeaderMap) -> SessionCookies {
        if let Some(id) = session_id(headers) {
            self.sessions.close(&id);
        }
        SessionCookies::removed(self.settings.has_tls)
    }

    /// Returns the credentials of a request; `None` if it has none.
    fn credentials(&self, headers: &HeaderMap) -> Result<Option<Credentials>, Problem> {
        let Some(keys) = &self.keys else { return Ok(None) };
        if let Some(given) = headers.get(header::AUTHORIZATION) {
            let given = bearer(given)?;
            let access = match &self.tokens {
                // A token has dots, a key has none.
                Some(tokens) if given.contains('.') => tokens.access(given)?,
                _ => keys.access(given)?,
            };
            return Ok(Some(Credentials { access, is_ambient: false, has_csrf_token: false }));
        }
        let Some(session) = session_id(headers).and_then(|id| self.sessions.find(&id, self.clock.now())) else {
            return Ok(None);
        };
        let token = headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok());
        let has_csrf_token = token.is_some_and(|token| session.has_csrf_token(token));
        Ok(Some(Credentials { access: keys.access_of(&session.key)?, is_ambient: true, has_csrf_token }))
    }

    /// Checks everything but the requirement.
    fn identify(&self, method: &Method, headers: &HeaderMap, is_public: bool) -> Result<Admission, Box<Response>> {
        if !self.is_required_for(headers) {
            return Ok(Admission { access: Access::everything(), rate: None, is_public: true });
        }
        let credentials = match self.credentials(headers) {
            // A browser with an old cookie has to reach the login page.
            Err(_) if is_public => None,
            found => found.map_err(|problem| boxed(refusal::challenge(problem)))?,
        };
        let Some(credentials) = credentials else {
            return match is_public {
                true => Ok(Admission { access: Access::visitor(), rate: None, is_public }),
                false => Err(Box::new(anonymous(method, headers))),
            };
        };
        let is_read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if credentials.is_ambient && !is_read && !credentials.has_csrf_token && !is_public {
            let detail = format!(
                "a change with the cookie of a session needs its token in {CSRF_HEADER}; programs send a key instead"
            );
            return Err(refused(Problem::new(Code::MissingCsrfToken, detail), &credentials.access));
        }
        let access = credentials.access;
        let rate = match access.principal() {
            Principal::Key { id, .. } => self.limiter.count(id.as_str(), access.rates(), self.clock.now()),
            // The id of a key has no space.
            Principal::Token { subject } => {
                self.limiter.count(&format!("token {subject}"), access.rates(), self.clock.now())
            }
            Principal::Everyone | Principal::Visitor => None,
        };
        if let Some(state) = rate.filter(|state| state.is_exceeded) {
            let mut response = refused(too_many_requests(&access, &state), &access);
            describe_rate(&state, response.headers_mut());
            return Err(response);
        }
        Ok(Admission { access, rate, is_public })
    }
}

impl Checkpoint {
    /// Has `respond` answer a request that may pass, with its [`Access`], or refuses it.
    pub async fn check<F: Future<Output = Response>>(
        &self,
        request: Request,
        respond: impl FnOnce(Request) -> F,
    ) -> Response {
        let (mut parts, body) = request.into_parts();
        let Admission { access, rate, is_public } = match self.admit(&mut parts).await {
            Ok(admission) => admission,
            Err(refusal) => return *refusal,
        };
        let principal = access.principal().clone();
        parts.extensions.insert(access);
        let mut response = respond(Request::from_parts(parts, body)).await;
        // For the trail.
        response.extensions_mut().insert(principal);
        if let Some(state) = rate {
            describe_rate(&state, response.headers_mut());
        }
        if !is_public {
            make_private(response.headers_mut());
        }
        response
    }

    async fn admit(&self, parts: &mut Parts) -> Result<Admission, Box<Response>> {
        let path = parts.extensions.get::<MatchedPath>().cloned();
        // An unknown path has no endpoint to protect; only principals learn that.
        let requirement = match &path {
            Some(path) => (self.requirement)(&parts.method, path.as_str()),
            None => Requirement::Authenticated,
        };
        let is_public = requirement == Requirement::Public;
        let admission = self.guard.identify(&parts.method, &parts.headers, is_public)?;
        let names = match path {
            Some(_) => Some(RawPathParams::from_request_parts(parts, &()).await.map_err(boxed)?),
            None => None,
        };
        let names = names.iter().flatten().map(|(_, value)| value);
        match requirement.check(&admission.access, names) {
            Ok(()) => Ok(admission),
            Err(problem) => Err(refused(problem, &admission.access)),
        }
    }
}

/// Refuses a principal.
fn refused(problem: Problem, access: &Access) -> Box<Response> {
    let mut response = boxed(problem);
    response.extensions_mut().insert(access.principal().clone());
    response
}

fn boxed(refusal: impl IntoResponse) -> Box<Response> {
    Box::new(refusal.into_response())
}

/// Returns the key of an `Authorization` header.
fn bearer(given: &HeaderValue) -> Result<&str, Problem> {
    let text = given.to_str().unwrap_or_default();
    let key = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    key.map(|(_, key)| key.trim()).ok_or_else(|| {
        Problem::new(Code::InvalidCredentials, "cannot read Authorization: send \"Authorization: Bearer KEY\"")
    })
}

fn describe_rate(state: &RateState, headers: &mut HeaderMap) {
    headers.insert(RATE_LIMIT, state.rate.requests.into());
    headers.insert(RATE_REMAINING, state.remaining.into());
    headers.insert(RATE_RESET, state.reset_s.into());
}

/// Keeps responses that depend on the principal out of caches that others share.
fn make_private(headers: &mut HeaderMap) {
    let directives = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or("no-cache");
    if let Ok(value) = HeaderValue::try_from(format!("private, {directives}")) {
        headers.insert(header::CACHE_CONTROL, value);
    }
}

#[cfg(test)]
mod tests;
