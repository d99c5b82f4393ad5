//! Divides groups into a power of two of buckets by a hash of the encoded key that never changes.
//!
//! Runs that do not fit in memory compute and compare bucket by bucket, and files record which bucket they hold.

use std::fmt;
use std::str::FromStr;

use crate::partial::keys::HashedKey;

/// The tag of a view's file that names its bucket. A file without it may hold any group.
pub const BUCKET_TAG: &str = "bucket";
/// Goes up when keys are encoded or hashed in another way: buckets of another edition say nothing.
const EDITION: u32 = 1;
/// Bits of the hash that buckets use at most. Hash tables use those above and below.
const BITS_MAX: u32 = 24;
const BITS_ABOVE: u32 = 8;

/// The groups whose hash begins with certain bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    number: u32,
    bits: u32,
}

impl Bucket {
    /// All groups.
    pub const ALL: Bucket = Bucket { number: 0, bits: 0 };

    /// All buckets of which there are at least `count`.
    pub fn each_of(count: u64) -> impl Iterator<Item = Bucket> {
        Bucket::ALL.split(count)
    }

    /// The parts of this bucket, at least `count` where the hash has the bits for it.
    pub fn split(self, count: u64) -> impl Iterator<Item = Bucket> {
        let more = (u64::BITS - count.max(1).saturating_sub(1).leading_zeros()).min(BITS_MAX - self.bits);
        let first = self.number << more;
        (first..first + (1 << more)).map(move |number| Bucket { number, bits: self.bits + more })
    }

    /// Its two halves; `None`: it cannot be made smaller.
    pub fn halves(self) -> Option<[Bucket; 2]> {
        let half = |number| Bucket { number, bits: self.bits + 1 };
        (self.bits < BITS_MAX).then(|| [half(self.number * 2), half(self.number * 2 + 1)])
    }

    /// Returns whether the group with this encoded key is in the bucket.
    #[inline]
    pub fn holds(self, key: &[u8]) -> bool {
        self.bits == 0 || self.holds_hashed(HashedKey::new(key))
    }

    /// Returns whether the group with this encoded key is in the bucket.
    #[inline]
    pub fn holds_hashed(self, key: HashedKey<'_>) -> bool {
        self.bits == 0 || key.hash << BITS_ABOVE >> (64 - self.bits) == u64::from(self.number)
    }

    /// Returns whether a group can be in both buckets.
    pub fn meets(self, other: Bucket) -> bool {
        let bits = self.bits.min(other.bits);
        self.number >> (self.bits - bits) == other.number >> (other.bits - bits)
    }

    /// Returns the bucket of a file's tag. A file without a known tag may hold any group.
    pub fn of_tag(tag: Option<&String>) -> Bucket {
        tag.and_then(|tag| tag.parse().ok()).unwrap_or(Bucket::ALL)
    }
}

/// As a tag: edition, then which of how many.
impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{EDITION}:{}/{}", self.number, 1u32 << self.bits)
    }
}

impl FromStr for Bucket {
    type Err = ();
    fn from_str(text: &str) -> Result<Bucket, ()> {
        let (edition, rest) = text.split_once(':').ok_or(())?;
        let (number, of) = rest.split_once('/').ok_or(())?;
        let (number, of): (u32, u32) = (number.parse().map_err(|_| ())?, of.parse().map_err(|_| ())?);
        let is_known = edition == EDITION.to_string() && of.is_power_of_two() && number < of && of <= 1 << BITS_MAX;
        if is_known { Ok(Bucket { number, bits: of.trailing_zeros() }) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringViewArray};

    use super::*;
    use crate::partial::keys::KeyLayout;
    use crate::types::DataType;

    #[test]
    fn every_key_is_in_one_bucket_and_in_one_of_its_halves() {
        for key in 0..2_000u32 {
            let key = key.to_le_bytes();
            let holding: Vec<Bucket> = Bucket::each_of(5).filter(|bucket| bucket.holds(&key)).collect();
            let [bucket] = holding[..] else { panic!("{holding:?}") };
            assert_eq!(bucket.halves().expect("halves").iter().filter(|half| half.holds(&key)).count(), 1);
            assert_eq!(bucket.split(8).filter(|part| part.holds(&key) && part.meets(bucket)).count(), 1);
            assert_eq!(bucket.to_string().parse(), Ok(bucket));
        }
        assert_eq!(Bucket::each_of(5).count(), 8);
        assert_eq!(Bucket::each_of(1).collect::<Vec<_>>(), [Bucket::ALL]);
        let [left, right] = Bucket::ALL.halves().expect("halves");
        assert!(left.meets(Bucket::ALL) && !left.meets(right) && left.meets(left.halves().expect("halves")[1]));
    }

    #[test]
    fn invalid_tags_match_every_bucket() {
        for tag in ["", "1:4/4", "2:0/4", "1:0/3", "0/4", "1:x/4"] {
            assert_eq!(Bucket::of_tag(Some(&tag.to_owned())), Bucket::ALL, "{tag}");
        }
    }

    /// If this fails, keys are encoded or hashed in another way than in the files there are: raise `EDITION`.
    #[test]
    fn hashes_match_existing_files() {
        let layout = KeyLayout::new(vec![DataType::String, DataType::BigInt]).expect("a layout");
        let texts: ArrayRef =
            Arc::new(StringViewArray::from(vec![Some("a"), None, Some("a text of more than twelve")]));
        let longs: ArrayRef = Arc::new(Int64Array::from(vec![Some(-1), Some(7), None]));
        let rows = layout.encode(&[texts, longs]).expect("encodes");
        let hashes: Vec<u64> = rows.iter().map(|row| HashedKey::new(row.data()).hash << BITS_ABOVE).collect();
        assert_eq!(hashes, [16607691975295416832, 15384990074093682944, 17574130721068918784]);
    }
}
