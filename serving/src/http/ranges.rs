//! Serves byte ranges of Parquet responses. Parquet readers fetch the end of a file first and then the columns they need.
//!
//! All requests must see the same bytes although the view moves on, so the response of the first one is cached for the rest.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use parking_lot::Mutex;
use problem::{Code, Problem};
use shared::limits::{RANGED_RESPONSE_IDLE_MS, RANGED_RESPONSES_BYTES_MAX};

/// A complete response: the encoded rows and the headers that describe them.
#[derive(Debug, Clone)]
pub struct CompleteResponse {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Responses that clients are reading in ranges, by URL.
#[derive(Debug, Default)]
pub struct RangeCache(Mutex<VecDeque<CachedRange>>);

#[derive(Debug)]
struct CachedRange {
    url: String,
    used: Instant,
    response: CompleteResponse,
}

/// Returns true if the client reads in ranges: HEAD first, then `Range`.
pub fn is_ranged(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::HEAD || headers.contains_key(header::RANGE)
}

impl RangeCache {
    /// Returns the response cached for `url`.
    pub fn get(&self, url: &str) -> Option<CompleteResponse> {
        let now = shared::clock::monotonic_now();
        let mut entries = self.0.lock();
        entries.retain(|entry| now.duration_since(entry.used) < Duration::from_millis(RANGED_RESPONSE_IDLE_MS));
        let entry = entries.iter_mut().find(|entry| entry.url == url)?;
        entry.used = now;
        Some(entry.response.clone())
    }

    /// Caches a response for further ranges. The oldest ones make room; one larger than the cache is not cached.
    pub fn insert(&self, url: &str, response: CompleteResponse) {
        let mut entries = self.0.lock();
        entries.retain(|entry| entry.url != url);
        entries.push_back(CachedRange { url: url.to_owned(), used: shared::clock::monotonic_now(), response });
        while entries.iter().map(|entry| entry.response.body.len()).sum::<usize>() > RANGED_RESPONSES_BYTES_MAX {
            entries.pop_front();
        }
    }
}

impl CompleteResponse {
    /// Returns the range that the request asks for; everything without a range, or with one of an unknown unit.
    /// Of a range, only its own bytes count as being sent: several requests read the same cached response.
    pub fn range(self, request: &HeaderMap) -> Response {
        let length = self.body.len() as u64;
        let header = request.get(header::RANGE).and_then(|value| value.to_str().ok());
        let mut response = match header.map_or(ByteRange::Whole, |header| ByteRange::parse(header, length)) {
            ByteRange::Whole => Response::new(Body::from(self.body)),
            ByteRange::Part(range) => {
                let part = self.body.slice(range.start as usize..range.end as usize);
                let mut response = Response::new(Body::from(part));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let extent = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                response.headers_mut().insert(header::CONTENT_RANGE, extent.try_into().expect("digits"));
                response
            }
            ByteRange::Outside => {
                let detail = format!("no byte of the range is in the response, which has {length} bytes");
                let extent = HeaderValue::try_from(format!("bytes */{length}")).expect("digits");
                let problem = Problem::new(Code::RangeNotSatisfiable, detail);
                return problem.with_header(header::CONTENT_RANGE, extent).into_response();
            }
        };
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        response
    }
}

/// The bytes of a body that a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum ByteRange {
    /// Everything, as RFC 9110 allows for an unknown unit and for several ranges.
    Whole,
    Part(Range<u64>),
    /// No byte of the body is in the range.
    Outside,
}

impl ByteRange {
    /// Parses `bytes=a-b`, `bytes=a-` or `bytes=-n` of a body of `length` bytes.
    fn parse(header: &str, length: u64) -> ByteRange {
        match bounds(header, length) {
            None => ByteRange::Whole,
            Some(range) if range.is_empty() => ByteRange::Outside,
            Some(range) => ByteRange::Part(range),
        }
    }
}

/// Returns the first byte and the end of a range within a body of `length` bytes; `None` if it is not a single range of bytes.
fn bounds(header: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = header.strip_prefix("bytes=")?.trim().split_once('-')?;
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => Some(first..last.saturating_add(1).min(length)),
        (Ok(first), Err(_)) if last.is_empty() => Some(first..length),
        (Err(_), Ok(count)) if first.is_empty() => Some(length.saturating_sub(count)..length),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_as_rfc_9110_defines_them() {
        for (header, expected) in [
            ("bytes=0-3", ByteRange::Part(0..4)),
            ("bytes=8-", ByteRange::Part(8..10)),
            ("bytes=-4", ByteRange::Part(6..10)),
            ("bytes=-40", ByteRange::Part(0..10)),
            ("bytes=5-500", ByteRange::Part(5..10)),
            ("bytes=10-", ByteRange::Outside),
            ("bytes=-0", ByteRange::Outside),
            ("bytes=4-3", ByteRange::Whole),
            ("bytes=0-1,4-5", ByteRange::Whole),
            ("lines=0-1", ByteRange::Whole),
        ] {
            assert_eq!(ByteRange::parse(header, 10), expected, "{header}");
        }
    }

    #[test]
    fn cached_responses_are_found_by_url_and_bounded_in_bytes() {
        let cache = RangeCache::default();
        let response = |size: usize| CompleteResponse { headers: HeaderMap::new(), body: Bytes::from(vec![0; size]) };
        cache.insert("a", response(10));
        cache.insert("b", response(20));
        assert_eq!(cache.get("a").map(|w| w.body.len()), Some(10));
        assert!(cache.get("c").is_none());
        cache.insert("c", response(RANGED_RESPONSES_BYTES_MAX));
        assert!(cache.get("a").is_none() && cache.get("b").is_none() && cache.get("c").is_some());
        cache.insert("d", response(RANGED_RESPONSES_BYTES_MAX + 1));
        assert!(cache.get("d").is_none());
    }
}
