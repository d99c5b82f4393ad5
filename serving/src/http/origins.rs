//! Admits pages of other origins (CORS). Without configuration there are none.
//!
//! Browsers send a POST without asking first, so [`Origins::check`] refuses changes from pages of origins that are not admitted.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, header};
use problem::{Code, Problem};

use crate::http::event_response::LAST_EVENT_ID;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Time for which a browser may cache the result of a preflight request.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(3_600);

/// The admitted origins, such as `https://app.example`, or all.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    named: Vec<HeaderValue>,
    all: bool,
}

/// A text that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not an origin: use scheme, host and (unless it is the default) port, such as https://app.example, or * for all"
)]
pub struct WrongOrigin(String);

impl Origins {
    /// Parses origins; `*` stands for all.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Origins, WrongOrigin> {
        let mut origins = Origins::default();
        for text in texts {
            let wrong = || WrongOrigin(text.to_owned());
            if text == "*" {
                origins.all = true;
                continue;
            }
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(wrong)?;
            if host.is_empty() || host.contains(['/', '?', '#', ' ', '*']) {
                return Err(wrong());
            }
            origins.named.push(HeaderValue::try_from(text).map_err(|_| wrong())?);
        }
        Ok(origins)
    }

    /// Returns true if a page of `origin`, which reached this server as `host`, may change something.
    fn may_change(&self, origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
        let text = origin.to_str().unwrap_or_default();
        let own = text.split_once("://").map(|(_, host)| host);
        let reached = host.and_then(|host| host.to_str().ok());
        self.all || (own.is_some() && own == reached) || self.named.contains(origin)
    }

    /// Refuses changes from pages of origins that are not admitted.
    pub(super) fn check(&self, request: &Request) -> Result<(), Problem> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let headers = request.headers();
        let Some(origin) = headers.get(header::ORIGIN).filter(|_| !is_read) else { return Ok(()) };
        if self.may_change(origin, headers.get(header::HOST)) {
            return Ok(());
        }
        let origin = origin.to_str().unwrap_or("an invalid origin");
        let detail = format!("pages of {origin} may not change anything here; admit them with --cors-origin");
        Err(Problem::new(Code::CrossOrigin, detail))
    }

    /// Answers preflight requests of browsers. Without origins it adds no header, which browsers take as a refusal.
    pub(crate) fn layer(&self) -> CorsLayer {
        let allowed = match self.all {
            true => AllowOrigin::any(),
            false => AllowOrigin::list(self.named.iter().cloned()),
        };
        let own = [
            "trueup-version",
            "trueup-seam",
            "trueup-watermark",
            "trueup-as-of",
            "trueup-complete",
            "trueup-failed-rows",
            "trueup-next",
        ];
        let own = own.into_iter().map(HeaderName::from_static);
        let layer = CorsLayer::new().allow_origin(allowed);
        if self.named.is_empty() && !self.all {
            return layer;
        }
        let sent = [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::IF_NONE_MATCH, header::RANGE];
        let sent = sent
            .into_iter()
            .chain([HeaderName::from_static("idempotency-key"), HeaderName::from_static(LAST_EVENT_ID)]);
        let standard =
            [header::ETAG, header::CONTENT_RANGE, header::ACCEPT_RANGES, header::RETRY_AFTER, header::LOCATION];
        layer
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
            .allow_headers(sent.collect::<Vec<_>>())
            .expose_headers(standard.into_iter().chain(own).collect::<Vec<_>>())
            .max_age(PREFLIGHT_MAX_AGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_a_scheme_and_a_host_and_nothing_else() {
        for right in ["https://app.example", "http://127.0.0.1:3000", "*"] {
            assert!(Origins::parse([right]).is_ok(), "{right}");
        }
        for wrong in ["", "app.example", "https://", "https://app.example/", "https://*.example", "ftp://x", "null"] {
            assert!(Origins::parse([wrong]).is_err(), "{wrong}");
        }
    }
}
