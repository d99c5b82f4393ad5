//! Computes entity tags: a hash of everything a response depends on, so that an unchanged one is not computed again.

use std::fmt::Write;

use axum::http::header::IF_NONE_MATCH;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use xxhash_rust::xxh3::xxh3_128;

use crate::pin::ViewPin;
use crate::query::bound::BoundQuery;

/// Clients may store the response, but must revalidate it before use.
const REVALIDATE: &str = "no-cache";
/// A response from a version of the past never changes; valid for a day, since the version may be deleted.
const IMMUTABLE: &str = "max-age=86400, immutable";

/// The tag of one response. Weak: the same values may be sent with another `as_of`, or compressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntityTag {
    text: String,
    /// A hash of what was asked: of two tags with equal hashes, the later one takes the place of the earlier.
    question: u128,
    /// True for a version of the past that the client named by its number.
    is_fixed: bool,
}

impl EntityTag {
    /// Computes the tag of the response to `query` in `format`, from what was pinned: the version and its seam, the end of
    /// the generations per partition, and the watermark, which moves finality.
    pub fn of(query: &BoundQuery, pinned: &ViewPin, format: &str) -> EntityTag {
        let published = &pinned.published;
        let is_fixed = query.request.names_version && pinned.past.is_some();
        let mut text = format!("{format}\n{:016x}\n{}\n", query.request.fingerprint, published.definition_hash);
        let mut put = |value: &dyn std::fmt::Debug| {
            writeln!(text, "{value:?}").expect("a String takes everything");
        };
        put(&query.request.limit);
        put(&query.request.shape);
        put(&query.request.cursor);
        put(&pinned.past.as_ref().filter(|_| is_fixed).and(published.version.as_ref().map(|version| version.version)));
        let question = xxh3_128(text.as_bytes());
        let mut put = |value: &dyn std::fmt::Debug| {
            writeln!(text, "{value:?}").expect("a String takes everything");
        };
        put(&published.version.as_ref().map(|version| version.version));
        put(&published.seam.offsets());
        for generation in &pinned.speed.generations {
            put(&(generation.partition, generation.from, generation.to));
        }
        put(&pinned.speed.watermark);
        put(&pinned.complete);
        if let Some(instant) = query.instant {
            put(&instant);
        }
        let text = format!("W/\"{:032x}\"", xxh3_128(text.as_bytes()));
        EntityTag { text, question, is_fixed }
    }

    /// A tag for tests.
    #[cfg(test)]
    pub fn named(name: &str) -> EntityTag {
        EntityTag { text: format!("W/\"{name}\""), question: xxh3_128(name.as_bytes()), is_fixed: false }
    }

    /// The same question, asked later.
    #[cfg(test)]
    pub fn later(&self) -> EntityTag {
        EntityTag { text: format!("{}-later", self.text), ..self.clone() }
    }

    /// Returns the hash of what was asked, without the state of the data.
    pub fn question(&self) -> u128 {
        self.question
    }

    /// Returns true if the client has this response already.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        let own = opaque(&self.text);
        let lists = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        lists.flat_map(|list| list.split(',')).map(str::trim).any(|tag| tag == "*" || opaque(tag) == own)
    }

    /// Returns the 304 response.
    pub fn not_modified(&self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        self.describe(response.headers_mut());
        response
    }

    /// Adds `ETag` and `Cache-Control` to the headers.
    pub fn describe(&self, headers: &mut HeaderMap) {
        headers.insert(header::ETAG, HeaderValue::try_from(self.text.as_str()).expect("hexadecimal digits"));
        let caching = if self.is_fixed { IMMUTABLE } else { REVALIDATE };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    }
}

/// Strips the mark of a weak tag, which makes no difference for complete responses.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_matches_itself_alone_in_a_list_and_the_star() {
        let tag = EntityTag::named("abc");
        for (sent, known) in [
            ("W/\"abc\"", true),
            ("\"abc\"", true),
            ("\"x\", W/\"abc\"", true),
            ("*", true),
            ("\"x\"", false),
            ("", false),
            ("abc", false),
        ] {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(sent))]);
            assert_eq!(tag.matches(&headers), known, "{sent}");
        }
        assert!(!tag.matches(&HeaderMap::new()));
    }
}
