//! Encodes events as frames of `text/event-stream`, once for all subscribers.

use std::sync::Arc;

use bytes::Bytes;

use super::memory::LiveMemory;

/// An encoded event and its number in the feed.
#[derive(Debug, Clone)]
pub struct Frame {
    /// From 0, one more with every event of the feed.
    pub number: u64,
    pub bytes: Bytes,
}

impl Frame {
    /// Encodes the event `name` of the feed with this epoch. `data` is one line of JSON. `None` if `memory` has no room.
    pub fn new(epoch: u64, number: u64, name: &str, data: &[u8], memory: &Arc<LiveMemory>) -> Option<Frame> {
        let mut bytes = format!("id: {epoch:016x}-{number}\nevent: {name}\ndata: ").into_bytes();
        let share = memory.reserve(bytes.len() + data.len() + 2)?;
        bytes.reserve_exact(data.len() + 2);
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\n\n");
        Some(Frame { number, bytes: share.hold(bytes) })
    }
}

/// Parses an event id into the epoch of the feed and the number.
pub fn parse_id(id: &str) -> Option<(u64, u64)> {
    let (epoch, number) = id.split_once('-')?;
    Some((u64::from_str_radix(epoch, 16).ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_frame_round_trips() {
        let frame = Frame::new(0xabc, 17, "change", b"{}", &LiveMemory::of_all()).expect("there is room");
        assert_eq!(&frame.bytes[..], b"id: 0000000000000abc-17\nevent: change\ndata: {}\n\n");
        assert_eq!(parse_id("0000000000000abc-17"), Some((0xabc, 17)));
        assert_eq!(parse_id("17"), None);
        assert_eq!(parse_id("x-y"), None);
    }
}
