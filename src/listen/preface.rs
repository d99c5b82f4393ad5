//! Distinguishes HTTP/2 from HTTP/1.1 by the first bytes of a connection, and replays those bytes to its next reader.
//!
//! Does not negotiate: over TLS, ALPN does; without TLS, the client decides by its first bytes ("prior knowledge",
//! RFC 9113 §3.3).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

/// What a client of HTTP/2 sends first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The version of HTTP that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Reads until the protocol is certain, the stream ends or `due` has come; then it is HTTP/1.1, whose reader says what is
/// missing. Returns `None` if no byte has arrived.
pub async fn detect<S: AsyncRead + Unpin>(mut stream: S, due: Instant) -> io::Result<Option<(Protocol, Replayed<S>)>> {
    let mut first = [0; PREFACE.len()];
    let mut filled = 0;
    while filled < PREFACE.len() && first[..filled] == PREFACE[..filled] {
        match timeout_at(due, stream.read(&mut first[filled..])).await {
            Ok(Ok(0)) | Err(_) => break,
            Ok(read) => filled += read?,
        }
    }
    if filled == 0 {
        return Ok(None);
    }
    let protocol = if first == *PREFACE { Protocol::Http2 } else { Protocol::Http1 };
    Ok(Some((protocol, Replayed { first, next: 0, filled, inner: stream })))
}

/// A stream that starts with bytes that were read from it before.
pub struct Replayed<S> {
    first: [u8; PREFACE.len()],
    next: usize,
    filled: usize,
    inner: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.next == self.filled {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = buf.remaining().min(self.filled - self.next);
        buf.put_slice(&self.first[self.next..self.next + count]);
        self.next += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_protocol_is_known_however_the_bytes_arrive_and_none_is_lost() {
        let due = || Instant::now() + Duration::from_secs(60);
        let long_head = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
        for (sent, expected) in [
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes", Some(Protocol::Http2)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Protocol::Http2)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Some(Protocol::Http1)),
            ("P", Some(Protocol::Http1)),
            ("GET / HTTP/1.1\r\n\r\n", Some(Protocol::Http1)),
            (long_head, Some(Protocol::Http1)),
            ("", None),
        ] {
            for piece in [1, 7, 1_000] {
                let (server, mut client) = tokio::io::duplex(64);
                let sending = async {
                    for part in sent.as_bytes().chunks(piece) {
                        client.write_all(part).await.expect("sent");
                        tokio::task::yield_now().await;
                    }
                    drop(client);
                };
                let reading = async {
                    let (protocol, mut stream) = detect(server, due()).await.expect("no error")?;
                    let mut all = String::new();
                    stream.read_to_string(&mut all).await.expect("text");
                    Some((protocol, all))
                };
                let found = tokio::join!(sending, reading).1;
                assert_eq!(
                    found,
                    expected.map(|protocol| (protocol, sent.to_owned())),
                    "{sent:?} in pieces of {piece}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_silent_client_and_half_a_preface_end_in_time() {
        let soon = || Instant::now() + Duration::from_millis(20);
        let (server, mut client) = tokio::io::duplex(64);
        assert!(detect(server, soon()).await.expect("no error").is_none());
        assert!(client.write_all(b"x").await.is_err());
        let (server, mut client) = tokio::io::duplex(64);
        client.write_all(b"PRI").await.expect("sent");
        let (protocol, _) = detect(server, soon()).await.expect("no error").expect("bytes");
        assert_eq!(protocol, Protocol::Http1);
    }
}
