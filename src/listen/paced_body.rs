//! Passes the bodies of HTTP/2 responses to hyper in pieces, and detects clients that do not read them.
//!
//! Over HTTP/2, a client that does not read stalls only its own streams; the socket stays writable, so
//! [`super::paced_stream`] detects nothing. hyper takes the next piece of a body only when the client can receive some
//! of it. If hyper takes no piece for a while although the body has one, the client does not read.
//!
//! hyper keeps each piece until it is sent. A large body is therefore cut into copied pieces: its memory, and the
//! accounting of that memory, live only as long as the body itself.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use shared::limits::HTTP2_PIECE_BYTES;
use tokio::time::Instant;

/// The requests of one connection that are not answered in full.
pub struct InFlight {
    begin: Instant,
    /// Requests whose response body still exists.
    requests: AtomicUsize,
    /// Milliseconds from `begin` to the end of the last request.
    ended_ms: AtomicU64,
    /// Bodies in more than one piece.
    bodies: Mutex<Vec<Weak<Taken>>>,
}

/// When the last piece of a body was taken, in milliseconds from the begin of the connection.
struct Taken(AtomicU64);

/// The body waits for its source, and so not for the client.
const WAITS_FOR_SOURCE: u64 = u64::MAX;

impl InFlight {
    pub fn new() -> Arc<InFlight> {
        Arc::new(InFlight {
            begin: Instant::now(),
            requests: AtomicUsize::new(0),
            ended_ms: AtomicU64::new(0),
            bodies: Mutex::default(),
        })
    }

    fn now_ms(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }

    /// Counts a request until the returned value, or the body made of it, is dropped.
    pub fn enter(self: &Arc<InFlight>) -> Entered {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Entered(Arc::clone(self))
    }

    /// Returns how long no request has been in flight.
    pub fn idle(&self) -> Duration {
        match self.requests.load(Ordering::Relaxed) {
            0 => Duration::from_millis(self.now_ms().saturating_sub(self.ended_ms.load(Ordering::Relaxed))),
            _ => Duration::ZERO,
        }
    }

    /// Returns whether the client has taken nothing of some body for `stall_max`.
    pub fn is_stalled(&self, stall_max: Duration) -> bool {
        let now_ms = self.now_ms();
        let mut is_stalled = false;
        self.bodies.lock().retain(|body| {
            let Some(taken) = body.upgrade() else { return false };
            let taken_ms = taken.0.load(Ordering::Relaxed);
            is_stalled |=
                taken_ms != WAITS_FOR_SOURCE && now_ms.saturating_sub(taken_ms) >= stall_max.as_millis() as u64;
            true
        });
        is_stalled
    }
}

/// A request in flight.
pub struct Entered(Arc<InFlight>);

impl Entered {
    /// Wraps the body of the response.
    pub fn body(self, inner: Body) -> Body {
        let is_small = inner.size_hint().exact().is_some_and(|bytes| bytes <= HTTP2_PIECE_BYTES as u64);
        Body::new(PacedBody { inner, rest: Bytes::new(), taken: None, is_small, entered: self })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.ended_ms.store(self.0.now_ms(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body in pieces of at most [`HTTP2_PIECE_BYTES`].
struct PacedBody {
    inner: Body,
    /// The rest of the last frame of `inner`.
    rest: Bytes,
    taken: Option<Arc<Taken>>,
    /// It is one piece, which hyper takes at once.
    is_small: bool,
    entered: Entered,
}

impl PacedBody {
    fn mark(&mut self, taken_ms: u64) {
        let taken = self.taken.get_or_insert_with(|| {
            let taken = Arc::new(Taken(AtomicU64::new(WAITS_FOR_SOURCE)));
            self.entered.0.bodies.lock().push(Arc::downgrade(&taken));
            taken
        });
        taken.0.store(taken_ms, Ordering::Relaxed);
    }
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_small {
            return Pin::new(&mut self.inner).poll_frame(cx);
        }
        if self.rest.is_empty() {
            self.mark(WAITS_FOR_SOURCE);
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let now_ms = self.entered.0.now_ms();
        self.mark(now_ms);
        let piece = match self.rest.len() {
            0..=HTTP2_PIECE_BYTES => std::mem::take(&mut self.rest),
            _ => Bytes::copy_from_slice(&self.rest.split_to(HTTP2_PIECE_BYTES)),
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, inner) = (self.rest.len() as u64, self.inner.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest + inner.lower());
        if let Some(upper) = inner.upper() {
            hint.set_upper(rest + upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(10);

    /// The next piece of a body, as hyper takes it.
    async fn next_piece(body: &mut Body) -> Option<Bytes> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        frame.expect("no error").into_data().ok()
    }

    #[tokio::test]
    async fn a_client_that_takes_no_piece_is_stalled_and_one_that_takes_some_is_not() {
        let in_flight = InFlight::new();
        let bytes = 3 * HTTP2_PIECE_BYTES + 1;
        let mut body = in_flight.enter().body(Body::from(vec![b'x'; bytes]));
        assert_eq!(body.size_hint().exact(), Some(bytes as u64));
        let mut taken = 0;
        for _ in 0..3 {
            taken += next_piece(&mut body).await.expect("a piece").len();
            assert_eq!(body.size_hint().exact(), Some((bytes - taken) as u64));
            assert!(!in_flight.is_stalled(LONG));
        }
        tokio::time::sleep(2 * SHORT).await;
        assert!(in_flight.is_stalled(SHORT) && !in_flight.is_stalled(LONG));
        taken += next_piece(&mut body).await.expect("a piece").len();
        assert!(!in_flight.is_stalled(LONG));
        assert_eq!((taken, body.is_end_stream()), (bytes, true));
        assert_eq!(in_flight.idle(), Duration::ZERO);
        drop(body);
        tokio::time::sleep(2 * SHORT).await;
        assert!(!in_flight.is_stalled(SHORT), "nothing is left to take");
        assert!(in_flight.idle() >= SHORT && in_flight.idle() < LONG);
    }

    #[tokio::test]
    async fn a_body_that_waits_for_its_source_stalls_nothing() {
        let in_flight = InFlight::new();
        let events = stream::iter([Ok::<_, std::io::Error>("first")]).chain(stream::pending());
        let mut body = in_flight.enter().body(Body::from_stream(events));
        assert_eq!(next_piece(&mut body).await.expect("a piece"), "first");
        let waiting = tokio::time::timeout(2 * SHORT, next_piece(&mut body)).await;
        assert!(waiting.is_err() && !in_flight.is_stalled(SHORT) && !in_flight.is_stalled(Duration::ZERO));
    }
}
