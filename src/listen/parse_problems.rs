//! Gives a body to the responses that hyper sends for requests it cannot parse, and a response to those whose headers do not
//! arrive in time.
//!
//! hyper answers such a request itself, before any service sees it: 400, 414 or 431 with an empty body, and closes the
//! connection. It offers no hook for this response, so [`ParseProblems`] stands between hyper and the socket, recognises
//! the response by its complete head and sends a problem instead. It remembers the start of the request, so that the
//! problem can name the parameter that has to be encoded. All other bytes pass unchanged.
//!
//! hyper closes a connection whose headers take too long without a word. For the first request of a connection this module
//! sends 408 shortly before. On a connection that has had a response, a response may still be under way, so it is closed.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use problem::{CONTENT_TYPE, Code, Problem};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes of a request that are remembered: enough for the request line of nearly every request.
const REMEMBERED_BYTES: usize = 4 * 1024;
/// Longest head of a response that hyper makes itself: status line, `connection`, `content-length`, `date`.
const OWN_HEAD_BYTES_MAX: usize = 256;

/// A connection that replaces hyper's responses to unparsable requests with problems.
pub struct ParseProblems<S> {
    inner: S,
    /// The start of the request, or of what was read since the last write.
    request: Vec<u8>,
    /// True if something was written since the last read, so that the next bytes start a new request.
    has_written: bool,
    /// A problem that is being sent, and how much of it has been.
    sending: Option<(Vec<u8>, usize)>,
    first_head: FirstHead,
}

/// The headers of the first request of a connection.
struct FirstHead {
    /// When they have to be complete.
    due: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    state: HeadState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeadState {
    /// No byte has arrived.
    Silent,
    /// Some bytes have; so many of the last ones are line feeds, carriage returns aside.
    Partial { line_feeds: u8 },
    /// The head is complete, or something was written.
    Done,
    /// It did not arrive in time: 408 is being sent, and then the connection ends.
    Late,
}

impl FirstHead {
    fn observe(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let line_feeds = match self.state {
                HeadState::Silent => 0,
                HeadState::Partial { line_feeds } => line_feeds,
                HeadState::Done | HeadState::Late => return,
            };
            self.state = match byte {
                b'\n' if line_feeds == 1 => HeadState::Done,
                b'\n' => HeadState::Partial { line_feeds: 1 },
                b'\r' => HeadState::Partial { line_feeds },
                _ => HeadState::Partial { line_feeds: 0 },
            };
        }
    }

    /// Completes when the rest of a head that has started to arrive is late.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.state {
            HeadState::Silent | HeadState::Done => Poll::Pending,
            HeadState::Late => Poll::Ready(()),
            HeadState::Partial { .. } => {
                let due = self.due;
                self.timer.get_or_insert_with(|| Box::pin(sleep_until(due))).as_mut().poll(cx)
            }
        }
    }
}

impl<S> ParseProblems<S> {
    /// Wraps a connection, whose first request has to arrive before `due`.
    pub fn new(inner: S, due: Instant) -> ParseProblems<S> {
        let first_head = FirstHead { due, timer: None, state: HeadState::Silent };
        ParseProblems { inner, request: Vec::new(), has_written: false, sending: None, first_head }
    }

    fn remember(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.first_head.observe(bytes);
        if std::mem::take(&mut self.has_written) {
            self.request.clear();
        }
        let room = REMEMBERED_BYTES.saturating_sub(self.request.len());
        self.request.extend_from_slice(&bytes[..room.min(bytes.len())]);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ParseProblems<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.first_head.state != HeadState::Late
            && let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, buf)
        {
            read?;
            self.remember(&buf.filled()[before..]);
            return Poll::Ready(Ok(()));
        }
        ready!(self.first_head.poll_late(cx));
        if self.first_head.state != HeadState::Late {
            self.first_head.state = HeadState::Late;
            let problem = Problem::new(Code::Stalled, "the headers of the request arrived too slowly");
            self.sending = Some((response(&problem), 0));
        }
        ready!(self.poll_send(cx, 0))?;
        // Nothing more comes: hyper closes the connection.
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> ParseProblems<S> {
    /// Sends the rest of a problem; then hyper's response, `replaced` bytes long, counts as written.
    fn poll_send(&mut self, cx: &mut Context<'_>, replaced: usize) -> Poll<io::Result<usize>> {
        while let Some((bytes, sent)) = &mut self.sending {
            if *sent == bytes.len() {
                self.sending = None;
                break;
            }
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &bytes[*sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *sent += count,
            }
        }
        Poll::Ready(Ok(replaced))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ParseProblems<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.sending.is_none()
            && let Some(status) = own_refusal(buf)
        {
            self.sending = Some((response(&problem(status, &self.request)), 0));
        }
        self.has_written = true;
        self.first_head.state = HeadState::Done;
        match self.sending {
            Some(_) => self.poll_send(cx, buf.len()),
            None => Pin::new(&mut self.inner).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut parts = bufs.iter().filter(|part| !part.is_empty());
        if let (Some(only), None) = (parts.next(), parts.next())
            && only.len() <= OWN_HEAD_BYTES_MAX
        {
            return self.poll_write(cx, only);
        }
        self.has_written = true;
        self.first_head.state = HeadState::Done;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Returns the status if `written` is exactly the head of a response that hyper made itself. Responses of services have
/// other headers too, and bodies never consist of such a head alone.
fn own_refusal(written: &[u8]) -> Option<u16> {
    if written.len() > OWN_HEAD_BYTES_MAX || !written.starts_with(b"HTTP/1.1 4") {
        return None;
    }
    let head = std::str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?;
    let (line, headers) = head.split_once("\r\n")?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let is_own = |header: &str| {
        let name = header.split(':').next().unwrap_or_default();
        ["connection", "date"].contains(&name) || header == "content-length: 0"
    };
    let is_refusal = matches!(status, 400 | 414 | 431) && headers.contains("content-length: 0");
    (is_refusal && headers.split("\r\n").all(is_own)).then_some(status)
}

fn problem(status: u16, request: &[u8]) -> Problem {
    // The buffer may be full before hyper sees that the target alone is too long for it.
    let is_target_long = request.len() == REMEMBERED_BYTES && !request.contains(&b'\n');
    match status {
        431 if is_target_long => Problem::new(Code::UriTooLong, "the request target is too long"),
        414 => Problem::new(Code::UriTooLong, "the request target is too long"),
        431 => Problem::new(Code::HeadersTooLarge, "the headers are too large or too many"),
        _ => Problem::new(Code::BadRequest, unparsable(request)),
    }
}

/// Says what is wrong with a request that cannot be parsed, from its first line.
fn unparsable(request: &[u8]) -> String {
    let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let whole = "cannot parse the request line; expected a method, a path and HTTP/1.1";
    let Some(start) = line.iter().position(|byte| !byte.is_ascii_alphabetic()).filter(|at| line[*at] == b' ') else {
        return whole.to_owned();
    };
    let end = line.windows(8).rposition(|bytes| bytes.starts_with(b" HTTP/")).unwrap_or(line.len());
    let Some(target) = line.get(start + 1..end).filter(|target| target.starts_with(b"/")) else {
        return whole.to_owned();
    };
    match target.iter().position(|byte| !is_allowed(*byte)) {
        Some(at) => encode_hint(target, at),
        None if [&b" HTTP/1.1"[..], b" HTTP/1.0"].contains(&&line[end..]) => "cannot parse the headers".to_owned(),
        None => whole.to_owned(),
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"')
}

/// Names the byte at `at` of the request target, and the parameter it is in.
fn encode_hint(target: &[u8], at: usize) -> String {
    let byte = target[at];
    let shown =
        if byte.is_ascii_graphic() || byte == b' ' { format!("`{}`", char::from(byte)) } else { "the byte".to_owned() };
    let place = match target[..at].iter().position(|byte| *byte == b'?') {
        None => "in the path".to_owned(),
        Some(query) => {
            let pair = target[query + 1..at].rsplit(|byte| *byte == b'&').next().unwrap_or_default();
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
            format!("in parameter `{}`", String::from_utf8_lossy(name))
        }
    };
    format!("encode {shown} as %{byte:02X} {place}")
}

/// Writes a complete response, after which the connection is closed.
pub fn response(problem: &Problem) -> Vec<u8> {
    let (status, body) = (problem.status(), problem.to_json());
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_heads_of_hyper_are_replaced() {
        let own = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(own_refusal(own), Some(400));
        for other in [
            &own[..own.len() - 1],
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: a\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 10\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"",
        ] {
            assert_eq!(own_refusal(other), None);
        }
    }

    #[test]
    fn the_detail_names_what_to_encode() {
        for (request, expected) in [
            ("GET /v1/views/v/rows?limit=3&where=n>2 HTTP/1.1\r\n", "encode `>` as %3E in parameter `where`"),
            ("GET /v1/views/v/rows?where=a <b HTTP/1.1\r\n", "encode ` ` as %20 in parameter `where`"),
            ("GET /v1/views/a\"b/rows HTTP/1.1\r\n", "encode `\"` as %22 in the path"),
            ("GET /v1/views?a=\u{1} HTTP/1.1\r\n", "encode the byte as %01 in parameter `a`"),
            ("GET /v1/views HTTP/1.1\r\nbad header\r\n", "cannot parse the headers"),
            ("GET /livez HTTP/9.9\r\n", "cannot parse the request line; expected a method, a path and HTTP/1.1"),
            ("hello\r\n", "cannot parse the request line; expected a method, a path and HTTP/1.1"),
            ("", "cannot parse the request line; expected a method, a path and HTTP/1.1"),
        ] {
            assert_eq!(unparsable(request.as_bytes()), expected, "{request:?}");
        }
    }
}
