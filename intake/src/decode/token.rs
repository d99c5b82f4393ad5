//! Scans JSON scalars: where each ends and of which kind it is.
//!
//! Both ways of reading an object use it, so a value means the same on either. Nested values are not scanned here.

/// A JSON value as it stands in the body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) raw: &'a str,
    pub(super) kind: Kind,
}

/// What kind of value a token is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Null,
    Boolean(bool),
    /// A number of at most 18 digits without fraction or exponent.
    Integer(i64),
    /// Any other number.
    Number,
    /// A string; `escaped` if it has a backslash.
    String {
        escaped: bool,
    },
    /// An array or an object.
    Nested,
}

impl<'a> Token<'a> {
    /// The token of a text that is one valid JSON value without space around it.
    pub(super) fn of(raw: &'a str) -> Token<'a> {
        match Scanner::new(raw, 0).scalar() {
            Some(token) => token,
            None => Token { raw, kind: Kind::Nested },
        }
    }
}

/// A place in a text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str, at: usize) -> Scanner<'a> {
        Scanner { text, bytes: text.as_bytes(), at }
    }

    /// The byte at this place.
    #[inline(always)]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Steps over `byte` if it is next.
    #[inline(always)]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    /// Steps over `expected` if it is next.
    #[inline(always)]
    pub(super) fn take_all(&mut self, expected: &[u8]) -> bool {
        let next = self.bytes.get(self.at..self.at + expected.len()) == Some(expected);
        if next {
            self.at += expected.len();
        }
        next
    }

    /// Steps over spaces and tabs, and over line ends if `line_ends`.
    #[inline(always)]
    pub(super) fn skip_space(&mut self, line_ends: bool) {
        while let Some(byte) = self.peek() {
            let space = byte <= b' ' && (matches!(byte, b' ' | b'\t') || line_ends && matches!(byte, b'\n' | b'\r'));
            if !space {
                break;
            }
            self.at += 1;
        }
    }

    /// Reads a string, a number, `true`, `false` or `null`; nothing if another thing is next.
    #[inline(always)]
    pub(super) fn scalar(&mut self) -> Option<Token<'a>> {
        let start = self.at;
        let kind = match self.peek()? {
            b'"' => return self.string(),
            b'-' | b'0'..=b'9' => return self.number(),
            b't' => self.take_all(b"true").then_some(Kind::Boolean(true)),
            b'f' => self.take_all(b"false").then_some(Kind::Boolean(false)),
            b'n' => self.take_all(b"null").then_some(Kind::Null),
            _ => None,
        }?;
        Some(Token { raw: &self.text[start..self.at], kind })
    }

    /// Reads a string with its quotes. Escapes are stepped over, not checked.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Option<Token<'a>> {
        let start = self.at;
        if !self.take(b'"') {
            return None;
        }
        let mut escaped = false;
        loop {
            self.at += plain_bytes(&self.bytes[self.at..]);
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    // The escaped byte is a control character only in an invalid string.
                    if *self.bytes.get(self.at + 1)? < b' ' {
                        return None;
                    }
                    self.at += 2;
                }
                _ => return None,
            }
        }
        self.at += 1;
        Some(Token { raw: self.text.get(start..self.at)?, kind: Kind::String { escaped } })
    }

    /// Reads a number by the grammar of JSON.
    #[inline(always)]
    fn number(&mut self) -> Option<Token<'a>> {
        let start = self.at;
        let negative = self.take(b'-');
        let first = self.at;
        let mut value = 0i64;
        while let Some(digit @ 0..=9) = self.digit() {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
            self.at += 1;
        }
        let digits = self.at - first;
        if digits == 0 || digits > 1 && self.bytes[first] == b'0' {
            return None;
        }
        let mut whole = digits <= 18;
        if self.take(b'.') {
            whole = false;
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            whole = false;
            if !self.take(b'-') {
                self.take(b'+');
            }
            self.digits()?;
        }
        let kind = if whole { Kind::Integer(if negative { -value } else { value }) } else { Kind::Number };
        Some(Token { raw: &self.text[start..self.at], kind })
    }

    #[inline(always)]
    fn digit(&self) -> Option<u8> {
        self.peek().map(|byte| byte.wrapping_sub(b'0'))
    }

    /// Steps over at least one digit.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(0..=9) = self.digit() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// How many bytes from the start of `bytes` are neither a quote, nor a backslash, nor a control character.
///
/// Eight at a time: strings of events are too short for a vectorised search to pay for its call.
#[inline]
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    // Sets the high bit of every byte that is below `limit`; a borrow may also set one after (never before) a real hit.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;

    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let hits = below(word, 0x20) | below(word ^ (ONES * b'"' as u64), 1) | below(word ^ (ONES * b'\\' as u64), 1);
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_bytes_end_where_a_search_byte_by_byte_ends(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let special = |b: &u8| matches!(b, b'"' | b'\\' | 0..0x20);
            prop_assert_eq!(plain_bytes(&bytes), bytes.iter().position(special).unwrap_or(bytes.len()));
        }

        /// A scalar that the scanner reads to the end of a text is one for `serde_json`, and the other way round.
        #[test]
        fn scalars_are_those_of_serde_json(text in "(-?[0-9]{0,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?|true|false|nul{1,2}|\"[a-z\\n\u{e9}]{0,9}\")") {
            let mut scanner = Scanner::new(&text, 0);
            let whole = scanner.scalar().is_some() && scanner.at == text.len();
            prop_assert_eq!(whole, serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
        }
    }

    #[test]
    fn eighteen_digits_are_an_integer_and_nineteen_a_number() {
        assert_eq!(Token::of("-999999999999999999").kind, Kind::Integer(-999_999_999_999_999_999));
        assert_eq!(Token::of("9223372036854775807").kind, Kind::Number);
        assert_eq!(Token::of("0.5").kind, Kind::Number);
        assert_eq!(Token::of("{\"a\":1}").kind, Kind::Nested);
    }
}
