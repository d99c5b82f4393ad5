//! Names a value inside an event's JSON, as a JSON Pointer (RFC 6901).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Levels of the deepest pointer.
const LEVELS_MAX: usize = 32;

/// Where a column's value lies in an event: names of members, or indexes of array elements, from the outside in. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldPath(Vec<String>);

/// Why a text is not a pointer to a value inside an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPointer {
    #[error("the pointer '' is the whole event, which is not a value of a column")]
    Empty,
    #[error("a JSON Pointer begins with `/`")]
    NoSlash,
    #[error("in a JSON Pointer `~` stands only in `~0`, which is `~`, and `~1`, which is `/`")]
    BadEscape,
    #[error("a pointer has at most {LEVELS_MAX} levels")]
    TooDeep,
}

impl FieldPath {
    /// The member `name` of the event itself.
    pub fn member(name: impl Into<String>) -> FieldPath {
        FieldPath(vec![name.into()])
    }

    /// Reads a pointer such as `/user/id` or `/items/0/price`.
    pub fn parse(pointer: &str) -> Result<FieldPath, InvalidPointer> {
        if pointer.is_empty() {
            return Err(InvalidPointer::Empty);
        }
        let levels = pointer.strip_prefix('/').ok_or(InvalidPointer::NoSlash)?.split('/');
        let levels = levels.map(unescape).collect::<Option<Vec<String>>>().ok_or(InvalidPointer::BadEscape)?;
        if levels.len() > LEVELS_MAX { Err(InvalidPointer::TooDeep) } else { Ok(FieldPath(levels)) }
    }

    /// The levels, from the outside in.
    pub fn levels(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|level| write!(f, "/{}", level.replace('~', "~0").replace('/', "~1")))
    }
}

fn unescape(level: &str) -> Option<String> {
    let mut plain = String::with_capacity(level.len());
    let mut chars = level.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_round_trip() {
        for (text, levels) in [
            ("/a", vec!["a"]),
            ("/user/id", vec!["user", "id"]),
            ("/items/0", vec!["items", "0"]),
            ("/a~1b/~0~01", vec!["a/b", "~~1"]),
            ("/", vec![""]),
            ("/ /é", vec![" ", "é"]),
        ] {
            let path = FieldPath::parse(text).expect(text);
            assert_eq!(path.levels(), levels, "{text}");
            assert_eq!(path.to_string(), text);
        }
        assert_eq!(FieldPath::parse(""), Err(InvalidPointer::Empty));
        assert_eq!(FieldPath::parse("user/id"), Err(InvalidPointer::NoSlash));
        for text in ["/~", "/a~2", "/~~0"] {
            assert_eq!(FieldPath::parse(text), Err(InvalidPointer::BadEscape), "{text}");
        }
        assert_eq!(FieldPath::parse(&"/a".repeat(33)), Err(InvalidPointer::TooDeep));
    }
}
