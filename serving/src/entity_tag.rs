//! Has the answer changed since the reader last asked? A tag names everything the answer was made from, so that an
//! unchanged one need not be made again.

use std::fmt::Write;

use axum::http::header::IF_NONE_MATCH;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use xxhash_rust::xxh3::xxh3_128;

use crate::pin::Pinned;
use crate::query::Query;
use crate::query::as_of::AsOf;

/// Answers may be kept, but whoever keeps one asks before showing it again.
const ASKED_AGAIN: &str = "no-cache";
/// What a version of the past answers never changes; for a day, since the version may be let go.
const IMMUTABLE: &str = "max-age=86400, immutable";

/// The tag of one answer. Weak: the same figures may come with another moment of asking (`as_of`), or compressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntityTag {
    text: String,
    /// Is the answer that of a version of the past, named by its number?
    is_fixed: bool,
}

impl EntityTag {
    /// The tag of the answer to `query` in the format called `format`, out of what was pinned: the version and its seam,
    /// how far speed has come in each partition, and the watermark, which moves finality.
    pub fn of(query: &Query, pinned: &Pinned, format: &str) -> EntityTag {
        let published = &pinned.published;
        let mut text = format!("{format}\n{:016x}\n{}\n", query.fingerprint, published.definition_hash);
        let mut put = |value: &dyn std::fmt::Debug| {
            writeln!(text, "{value:?}").expect("a String takes everything");
        };
        put(&query.limit);
        put(&query.shape);
        put(&query.cursor);
        put(&published.version.as_ref().map(|version| version.version));
        put(&published.seam.offsets());
        for generation in &pinned.speed.generations {
            put(&(generation.partition, generation.from, generation.to));
        }
        put(&pinned.speed.watermark);
        put(&pinned.complete);
        if let Some(AsOf::At(instant)) = query.as_of {
            put(&instant);
        }
        let text = format!("W/\"{:032x}\"", xxh3_128(text.as_bytes()));
        EntityTag { text, is_fixed: query.version && pinned.past.is_some() }
    }

    /// A tag for tests.
    #[cfg(test)]
    pub fn named(name: &str) -> EntityTag {
        EntityTag { text: format!("W/\"{name}\""), is_fixed: false }
    }

    /// Does the reader have this answer already?
    pub fn is_known(&self, request: &HeaderMap) -> bool {
        let own = opaque(&self.text);
        let lists = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        lists.flat_map(|list| list.split(',')).map(str::trim).any(|tag| tag == "*" || opaque(tag) == own)
    }

    /// The answer of whom has it already.
    pub fn not_modified(&self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        self.describe(response.headers_mut());
        response
    }

    /// Notes the tag, and whether it is to be asked for.
    pub fn describe(&self, headers: &mut HeaderMap) {
        headers.insert(header::ETAG, HeaderValue::try_from(self.text.as_str()).expect("hexadecimal digits"));
        let caching = if self.is_fixed { IMMUTABLE } else { ASKED_AGAIN };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    }
}

/// A tag without the mark of weakness, which makes no difference to readers of whole answers.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_by_itself_in_a_list_or_by_the_star() {
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
            assert_eq!(tag.is_known(&headers), known, "{sent}");
        }
        assert!(!tag.is_known(&HeaderMap::new()));
    }
}
