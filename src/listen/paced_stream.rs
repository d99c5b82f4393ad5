//! Ends connections whose client makes no progress, and lets clients that are still sending read the response.
//!
//! A client that does not read keeps a response in memory. Once a write has to wait, [`PacedStream`] expects the client to
//! read a least amount within a time, again and again; otherwise the write fails.
//!
//! A socket that is closed with unread data resets the connection, and the client loses the response: that of a large body
//! that was refused early, for example. So after the end of the response the stream reads on for a while, and drops what
//! it reads.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use shared::limits::{EVENT_BODY_BYTES_MAX, LINGER_MS, WRITE_PROGRESS_BYTES, WRITE_STALL_MS};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

/// Bytes read at once after the end of a response.
const DROPPED_AT_ONCE: usize = 16 * 1024;

/// A connection with time limits for writing.
pub struct PacedStream<S> {
    inner: S,
    /// Runs while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    stall_max: Duration,
    /// Bytes written since `stalled` started.
    written: usize,
    /// Set once nothing more will be written.
    linger: Option<Linger>,
    stop: watch::Receiver<bool>,
}

/// The time and the bytes that a closed connection is still read.
struct Linger {
    until: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl<S> PacedStream<S> {
    /// Wraps a connection. Once `stop` is true, it closes without reading on.
    pub fn new(inner: S, stop: watch::Receiver<bool>) -> PacedStream<S> {
        let stall_max = Duration::from_millis(WRITE_STALL_MS);
        PacedStream { inner, stalled: None, stall_max, written: 0, linger: None, stop }
    }

    fn count(&mut self, written: usize) {
        self.written = self.written.saturating_add(written);
        if self.written >= WRITE_PROGRESS_BYTES {
            self.stalled = None;
        }
    }

    /// Waits for the time limit of a write that waits for the client; then fails.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let stalled = self.stalled.get_or_insert_with(|| {
            self.written = 0;
            Box::pin(sleep(self.stall_max))
        });
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client does not read the response"))
    }

    fn paced(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                self.count(count);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_stalled(cx).map(Err),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.paced(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.paced(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Pending => self.poll_stalled(cx).map(Err),
            Poll::Ready(flushed) => {
                // Everything is written: nothing waits for the client.
                self.stalled = None;
                Poll::Ready(flushed)
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let linger = match &mut this.linger {
            Some(linger) => linger,
            None => {
                ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
                let until = Box::pin(sleep(Duration::from_millis(LINGER_MS)));
                this.linger.insert(Linger { until, bytes_left: 2 * EVENT_BODY_BYTES_MAX })
            }
        };
        let mut scratch = [0; DROPPED_AT_ONCE];
        while linger.bytes_left > 0 && !*this.stop.borrow() {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.inner).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    linger.bytes_left = linger.bytes_left.saturating_sub(buf.filled().len());
                }
                // The client has closed its side, or is gone.
                Poll::Ready(_) => break,
                Poll::Pending => {
                    ready!(linger.until.as_mut().poll(cx));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn paced(inner: tokio::io::DuplexStream, stall_max: Duration) -> PacedStream<tokio::io::DuplexStream> {
        PacedStream { stall_max, ..PacedStream::new(inner, watch::channel(false).1) }
    }

    #[tokio::test]
    async fn a_write_that_the_client_does_not_read_fails() {
        let (server, client) = tokio::io::duplex(1_000);
        let mut server = paced(server, Duration::from_millis(20));
        let error = server.write_all(&[0; 100_000]).await.expect_err("the client never reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test]
    async fn a_client_that_reads_a_few_bytes_now_and_then_is_too_slow() {
        let (server, mut client) = tokio::io::duplex(1_000);
        let mut server = paced(server, Duration::from_millis(50));
        let write = async { server.write_all(&[0; 1 << 20]).await };
        // It would take minutes to read everything.
        let drip = async {
            while client.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let error = tokio::select! {
            written = write => written.expect_err("too slow"),
            () = drip => panic!("the server closes first"),
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn progress_ends_the_wait() {
        let mut server = paced(tokio::io::duplex(1).0, Duration::from_secs(60));
        server.stalled = Some(Box::pin(sleep(Duration::from_secs(60))));
        server.count(WRITE_PROGRESS_BYTES - 1);
        assert!(server.stalled.is_some());
        server.count(1);
        assert!(server.stalled.is_none());
    }
}
