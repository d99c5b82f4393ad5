//! Several files as one input: a line `@path` before each. Mutations change single lines of JSON, or whole files.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;

use crate::json_mutations;

/// A file of a bundle: path and content.
pub type BundledFile = (String, Vec<u8>);

pub fn encode(files: &[BundledFile]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, content) in files {
        bytes.extend_from_slice(b"@");
        bytes.extend_from_slice(path.as_bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(content);
        bytes.push(b'\n');
    }
    bytes
}

pub fn decode(bytes: &[u8]) -> Vec<BundledFile> {
    let mut starts: Vec<usize> = Vec::new();
    for at in 0..bytes.len() {
        if bytes[at] == b'@' && (at == 0 || bytes[at - 1] == b'\n') {
            starts.push(at);
        }
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let file = |(start, end): (usize, usize)| {
        let text = &bytes[start + 1..end];
        let line = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        let content = text.get(line + 1..).unwrap_or_default();
        let content = content.strip_suffix(b"\n").unwrap_or(content);
        (String::from_utf8_lossy(&text[..line]).into_owned(), content.to_vec())
    };
    starts.iter().copied().zip(ends).map(file).collect()
}

/// Changes a bundle of files whose lines are JSON.
pub fn mutate(random: &mut StdRng, input: &[u8]) -> Vec<u8> {
    let mut files = decode(input);
    for _ in 0..1 << random.random_range(0..3) {
        if files.is_empty() {
            return input.to_vec();
        }
        let at = random.random_range(0..files.len());
        match random.random_range(0..12) {
            0 => _ = files.remove(at),
            1 => {
                let (_, content) = files[at].clone();
                files.push((other_version(random, &files[at].0), content));
            }
            2 => files[at].0 = other_version(random, &files[at].0),
            3 => {
                let other = random.random_range(0..files.len());
                let content = files[other].1.clone();
                files[at].1 = content;
            }
            _ => change_line(random, &mut files[at].1),
        }
    }
    encode(&files)
}

/// Returns the path with another number in its name.
fn other_version(random: &mut StdRng, path: &str) -> String {
    let version = match random.random_range(0..4) {
        0..2 => random.random_range(0..8),
        2 => *[i64::MAX as u64, u64::MAX, 99_999_999_999_999_999].choose(random).expect("numbers"),
        _ => 100,
    };
    match path.split_once('/') {
        Some((folder, name)) if name.len() >= 20 && name.is_char_boundary(20) => {
            format!("{folder}/{version:020}{}", &name[20..])
        }
        _ => path.to_owned(),
    }
}

fn change_line(random: &mut StdRng, content: &mut Vec<u8>) {
    let mut lines: Vec<Vec<u8>> = content.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let at = random.random_range(0..lines.len());
    match random.random_range(0..8) {
        0 => _ = lines.remove(at),
        1 => lines.insert(at, lines[random.random_range(0..lines.len())].clone()),
        _ => match serde_json::from_slice::<Value>(&lines[at]) {
            Ok(mut value) => {
                json_mutations::mutate(random, &mut value);
                lines[at] = value.to_string().into_bytes();
            }
            Err(_) => {
                let end = random.random_range(0..=lines[at].len());
                lines[at].truncate(end);
            }
        },
    }
    *content = lines.join(&b'\n');
}
