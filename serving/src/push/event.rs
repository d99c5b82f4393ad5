//! How is an event written? As a frame of `text/event-stream`, once for all who listen.

use bytes::Bytes;

/// An event in its frame, with its place in the feed.
#[derive(Debug, Clone)]
pub struct Frame {
    /// From 0, one more with every event of the feed.
    pub number: u64,
    pub bytes: Bytes,
}

impl Frame {
    /// A frame of the event `name` of the feed called `epoch`. `data` is one line of JSON.
    pub fn new(epoch: u64, number: u64, name: &str, data: &[u8]) -> Frame {
        let mut bytes = format!("id: {epoch:016x}-{number}\nevent: {name}\ndata: ").into_bytes();
        bytes.reserve(data.len() + 2);
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\n\n");
        Frame { number, bytes: bytes.into() }
    }
}

/// The feed and the number that an id names.
pub fn parse_id(id: &str) -> Option<(u64, u64)> {
    let (epoch, number) = id.split_once('-')?;
    Some((u64::from_str_radix(epoch, 16).ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_an_id_that_is_read_again() {
        let frame = Frame::new(0xabc, 17, "change", b"{}");
        assert_eq!(&frame.bytes[..], b"id: 0000000000000abc-17\nevent: change\ndata: {}\n\n");
        assert_eq!(parse_id("0000000000000abc-17"), Some((0xabc, 17)));
        assert_eq!(parse_id("17"), None);
        assert_eq!(parse_id("x-y"), None);
    }
}
