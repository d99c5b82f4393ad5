//! How is a piece of a file sent? Readers of Parquet fetch its end first and then the columns they need, in several
//! requests that must meet the same bytes: while figures move on, the answer of the first request is kept for the rest.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use parking_lot::Mutex;
use shared::limits::{RANGED_ANSWER_IDLE_MS, RANGED_ANSWERS_BYTES_MAX};

/// A whole file, with the headers that describe it.
#[derive(Debug, Clone)]
pub struct Whole {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Files that are being read in pieces, by URL.
#[derive(Debug, Default)]
pub struct KeptAnswers(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    url: String,
    used: Instant,
    whole: Whole,
}

/// Is this the first, or a further, request of a reader in pieces?
pub fn in_pieces(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::HEAD || headers.contains_key(header::RANGE)
}

impl KeptAnswers {
    /// The file at `url`, if it was asked for a moment ago.
    pub fn get(&self, url: &str) -> Option<Whole> {
        let now = Instant::now();
        let mut kept = self.0.lock();
        kept.retain(|entry| now.duration_since(entry.used) < Duration::from_millis(RANGED_ANSWER_IDLE_MS));
        let entry = kept.iter_mut().find(|entry| entry.url == url)?;
        entry.used = now;
        Some(entry.whole.clone())
    }

    /// Keeps a file for the next pieces. The oldest ones make room; one that is too large alone is not kept.
    pub fn keep(&self, url: &str, whole: Whole) {
        let mut kept = self.0.lock();
        kept.retain(|entry| entry.url != url);
        kept.push_back(Kept { url: url.to_owned(), used: Instant::now(), whole });
        while kept.iter().map(|entry| entry.whole.body.len()).sum::<usize>() > RANGED_ANSWERS_BYTES_MAX {
            kept.pop_front();
        }
    }
}

impl Whole {
    /// The piece that the request asks for; all of it without a range, or with one of a kind we do not know.
    pub fn piece(self, request: &HeaderMap) -> Response {
        let length = self.body.len() as u64;
        let range = request.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(|r| parse(r, length));
        let mut response = match range {
            None => Response::new(Body::from(self.body)),
            Some(Some(range)) => {
                let mut response = Response::new(Body::from(self.body.slice(range.start as usize..range.end as usize)));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let place = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                response.headers_mut().insert(header::CONTENT_RANGE, place.try_into().expect("digits"));
                response
            }
            Some(None) => {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                let place = format!("bytes */{length}");
                response.headers_mut().insert(header::CONTENT_RANGE, place.try_into().expect("digits"));
                response
            }
        };
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        response
    }
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n` of a file of `length` bytes. `None`: nothing we know, so all is sent, as RFC 9110
/// allows; `Some(None)`: no byte of the file is in it.
fn parse(header: &str, length: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = header.strip_prefix("bytes=")?.trim().split_once('-')?;
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Ok(first), Err(_)) if last.is_empty() => first..length,
        (Err(_), Ok(count)) if first.is_empty() => length.saturating_sub(count)..length,
        _ => return None,
    };
    Some(Some(range).filter(|range| range.start < range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        for (header, expected) in [
            ("bytes=0-3", Some(Some(0..4))),
            ("bytes=8-", Some(Some(8..10))),
            ("bytes=-4", Some(Some(6..10))),
            ("bytes=-40", Some(Some(0..10))),
            ("bytes=5-500", Some(Some(5..10))),
            ("bytes=10-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=4-3", None),
            ("bytes=0-1,4-5", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(parse(header, 10), expected, "{header}");
        }
    }

    #[test]
    fn kept_files_are_found_by_url_and_bounded_in_bytes() {
        let kept = KeptAnswers::default();
        let whole = |size: usize| Whole { headers: HeaderMap::new(), body: Bytes::from(vec![0; size]) };
        kept.keep("a", whole(10));
        kept.keep("b", whole(20));
        assert_eq!(kept.get("a").map(|w| w.body.len()), Some(10));
        assert!(kept.get("c").is_none());
        kept.keep("c", whole(RANGED_ANSWERS_BYTES_MAX));
        assert!(kept.get("a").is_none() && kept.get("b").is_none() && kept.get("c").is_some());
        kept.keep("d", whole(RANGED_ANSWERS_BYTES_MAX + 1));
        assert!(kept.get("d").is_none());
    }
}
