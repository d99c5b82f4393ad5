//! Reads and writes the cookies of sessions.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use shared::limits::SESSION_MS;

use crate::session::NewSession;

/// The cookie that identifies the session; scripts cannot read it.
const SESSION_COOKIE: &str = "trueup-session";
/// The cookie with the token that pages send in a header.
const CSRF_COOKIE: &str = "trueup-csrf";

/// The cookies of a response.
#[derive(Debug)]
pub struct SessionCookies([String; 2]);

impl SessionCookies {
    pub(super) fn of(session: &NewSession, has_tls: bool) -> SessionCookies {
        let seconds = SESSION_MS / 1_000;
        SessionCookies([
            cookie(SESSION_COOKIE, session.id.reveal(), seconds, "; HttpOnly", has_tls),
            cookie(CSRF_COOKIE, session.csrf.reveal(), seconds, "", has_tls),
        ])
    }

    pub(super) fn removed(has_tls: bool) -> SessionCookies {
        SessionCookies([cookie(SESSION_COOKIE, "", 0, "; HttpOnly", has_tls), cookie(CSRF_COOKIE, "", 0, "", has_tls)])
    }

    /// Returns the headers.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.0.iter().filter_map(|text| Some((header::SET_COOKIE, HeaderValue::try_from(text).ok()?)))
    }
}

fn cookie(name: &str, value: &str, seconds: u64, attribute: &str, has_tls: bool) -> String {
    let secure = if has_tls { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={seconds}; SameSite=Strict{attribute}{secure}")
}

/// Returns the id of the session in the cookies of a request.
pub fn session_id(headers: &HeaderMap) -> Option<String> {
    let lists = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = lists.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
    cookies.find(|(name, value)| *name == SESSION_COOKIE && !value.is_empty()).map(|(_, value)| value.to_owned())
}
