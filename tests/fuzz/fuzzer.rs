//! Mutates inputs at random, and reports the smallest one found for which a check panics, needs too much memory or does not
//! return.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Seeds and mutants kept at once.
const POOL_MAX: usize = 2_000;
/// Longest input of most targets, in bytes.
const INPUT_BYTES_MAX: usize = 4_096;
/// Address space of the process, in bytes: an allocation beyond it aborts, and its input is in the file of the current one.
const ADDRESS_SPACE_MAX: u64 = 32 << 30;
/// Longest time of one input. After it the process aborts.
const HANG: Duration = Duration::from_secs(90);
/// Held alone while an input's memory is measured, and together for all other inputs.
static MEASURED: RwLock<()> = RwLock::new(());
/// Attempts to make a failing input smaller.
const SHRINK_STEPS_MAX: usize = 2_000;

/// The code under test and its inputs.
pub struct Target<'a> {
    /// Names the folder of inputs that failed.
    pub name: &'static str,
    pub seeds: Vec<Vec<u8>>,
    /// Texts that mutations insert.
    pub tokens: &'a [&'a str],
    /// Number of inputs if no time is set.
    pub inputs: u64,
    /// Longest input, in bytes.
    pub bytes_max: usize,
    /// Bytes by which the memory in use may grow for one input; `None`: unlimited.
    pub memory_max: Option<u64>,
    /// Changes an input by what it means; used for a part of the mutants.
    pub mutate: Option<Mutate>,
}

/// Changes an input by what it means.
pub type Mutate = fn(&mut StdRng, &[u8]) -> Vec<u8>;

impl Default for Target<'_> {
    fn default() -> Self {
        let (bytes_max, memory_max, mutate) = (INPUT_BYTES_MAX, None, None);
        Target { name: "", seeds: Vec::new(), tokens: &[], inputs: 0, bytes_max, memory_max, mutate }
    }
}

/// Checks inputs until the target's number, or the time of `TRUEUP_FUZZ_SECONDS`, is used up. `check` panics if the
/// property does not hold, and returns a summary of what it saw: mutants with a new summary are kept.
///
/// # Panics
/// With the smallest failing input found.
pub fn fuzz(target: &Target<'_>, check: impl Fn(&[u8]) -> String) {
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let seconds = std::env::var("TRUEUP_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut random = StdRng::seed_from_u64(seed);
    // An input that aborts the process, or never returns, is in this file.
    let current = std::env::temp_dir().join(format!("trueup-fuzz-{}-{}", target.name, std::process::id()));
    let current_file = std::fs::File::create(&current).expect("the temporary folder can be written");
    let _ = rlimit::Resource::AS.get().map(|(_, hard)| rlimit::Resource::AS.set(ADDRESS_SPACE_MAX.min(hard), hard));
    let watchdog = Watchdog::start(target.name);
    let attempt = |input: &[u8]| {
        // The memory of the process is that of all targets: one that measures it runs alone.
        let (_alone, _beside) = match target.memory_max {
            Some(_) => (Some(MEASURED.write().unwrap_or_else(PoisonError::into_inner)), None),
            None => (None, Some(MEASURED.read().unwrap_or_else(PoisonError::into_inner))),
        };
        let _watched = watchdog.watch();
        let memory = target.memory_max.and_then(|bytes| Some((bytes, Memory::begin()?)));
        // Not truncated to nothing, which would make some file systems write it to the disk.
        current_file.write_all_at(input, 0).expect("the temporary folder can be written");
        current_file.set_len(input.len() as u64).expect("the temporary folder can be written");
        let checked = catch_unwind(AssertUnwindSafe(|| check(input))).map_err(|panic| message(&*panic))?;
        match memory.map(|(bytes, memory)| (bytes, memory.grown())) {
            Some((allowed, grown)) if grown > allowed => Err(format!("it needs {grown} bytes of memory")),
            _ => Ok(checked),
        }
    };
    let mut pool: Vec<Vec<u8>> = failed_before(target.name);
    pool.extend(target.seeds.iter().cloned());
    let mut summaries = HashSet::new();
    for input in &pool {
        match attempt(input) {
            Ok(summary) => _ = summaries.insert(hash(&summary)),
            Err(message) => report(target, seed, input, &message, &attempt),
        }
    }
    let mut checked = 0;
    while until.map_or(checked < target.inputs, |until| Instant::now() < until) {
        checked += 1;
        let input = mutant(&mut random, &pool, target);
        match attempt(&input) {
            Err(message) => report(target, seed, &input, &message, &attempt),
            Ok(summary) if summaries.insert(hash(&summary)) => {
                if pool.len() >= POOL_MAX {
                    let replaced = random.random_range(0..pool.len());
                    pool.swap_remove(replaced);
                }
                pool.push(input);
            }
            Ok(_) => {}
        }
    }
    println!("{}: {checked} inputs, {} behaviours, seed {seed}", target.name, summaries.len());
    let _ = std::fs::remove_file(&current);
}

/// Returns the inputs in `tests/fuzz/failed/NAME`.
fn failed_before(name: &str) -> Vec<Vec<u8>> {
    let folder = world::root().join("tests/fuzz/failed").join(name);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a kept input")).collect()
}

/// Panics with the smallest input for which `attempt` fails too, and writes it to a file.
fn report(
    target: &Target<'_>,
    seed: u64,
    input: &[u8],
    message: &str,
    attempt: &impl Fn(&[u8]) -> Result<String, String>,
) -> ! {
    let small = shrunk(input, &|input| attempt(input).is_err());
    let why = attempt(&small).err().unwrap_or_else(|| message.to_owned());
    let file = std::env::temp_dir().join(format!("{}-{:016x}", target.name, hash(&small)));
    std::fs::write(&file, &small).expect("the temporary folder can be written");
    panic!(
        "{}, seed {seed}: {why}\ninput: {}\nTo keep it as a test: cp {} tests/fuzz/failed/{}/",
        target.name,
        small.escape_ascii(),
        file.display(),
        target.name
    );
}

/// Removes parts of `input` as long as it still fails.
fn shrunk(input: &[u8], fails: &dyn Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut small = input.to_vec();
    let (mut steps, mut length) = (0, small.len().div_ceil(2));
    while length > 0 && steps < SHRINK_STEPS_MAX {
        let (mut from, before) = (0, small.len());
        while from < small.len() && steps < SHRINK_STEPS_MAX {
            let mut shorter = small.clone();
            shorter.drain(from..(from + length).min(small.len()));
            steps += 1;
            if fails(&shorter) {
                small = shorter;
            } else {
                from += length;
            }
        }
        // A length that helped may help again.
        length = if small.len() < before { length.min(small.len().max(1)) } else { length / 2 };
    }
    small
}

/// Returns an input from the pool with a few random changes.
fn mutant(random: &mut StdRng, pool: &[Vec<u8>], target: &Target<'_>) -> Vec<u8> {
    let tokens = target.tokens;
    let mut input = pool.choose(random).cloned().unwrap_or_default();
    if let Some(mutate) = target.mutate.filter(|_| random.random_bool(0.6)) {
        input = mutate(random, &input);
        input.truncate(target.bytes_max);
        return input;
    }
    for _ in 0..1 << random.random_range(0..4) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..10) {
            0 | 1 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            2 if at < input.len() => input[at] = interesting_byte(random),
            3 => input.insert(at, interesting_byte(random)),
            4 => {
                let end = random.random_range(at..=input.len().min(at + 16));
                input.drain(at..end);
            }
            5 => input.truncate(at),
            6 | 7 => {
                let token = tokens.choose(random).copied().unwrap_or("0");
                input.splice(at..at, token.bytes());
            }
            8 => {
                // A part of this or another input, perhaps several times.
                let other = pool.choose(random).cloned().unwrap_or_default();
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len().min(from + 64));
                for _ in 0..random.random_range(1..4) {
                    input.splice(at..at, other[from..to].iter().copied());
                }
            }
            _ => {
                let end = random.random_range(at..=input.len().min(at + 8));
                let number = *[0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 53].choose(random).expect("numbers");
                input.splice(at..end, number.to_string().bytes());
            }
        }
    }
    input.truncate(target.bytes_max);
    input
}

/// The memory of the process before an input.
struct Memory {
    before: u64,
}

impl Memory {
    /// Returns the memory in use, and forgets how much it once was. `None` where the system does not say.
    fn begin() -> Option<Memory> {
        std::fs::write("/proc/self/clear_refs", "5").ok()?;
        Some(Memory { before: resident("VmRSS:")? })
    }

    /// Returns the most bytes in use since then.
    fn grown(&self) -> u64 {
        resident("VmHWM:").unwrap_or(0).saturating_sub(self.before)
    }
}

fn resident(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Aborts the process if an input takes too long.
struct Watchdog {
    begin: Instant,
    /// When the current input started, in milliseconds after `begin` plus one; 0: there is none.
    started: Arc<AtomicU64>,
}

struct Watched<'a>(&'a AtomicU64);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Watchdog {
    fn start(name: &'static str) -> Watchdog {
        let (begin, started) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let weak = Arc::downgrade(&started);
        std::thread::spawn(move || {
            while let Some(started) = weak.upgrade() {
                let since = started.load(Ordering::Relaxed);
                if since > 0 && begin.elapsed() > Duration::from_millis(since) + HANG {
                    eprintln!("{name}: an input takes more than {} s", HANG.as_secs());
                    std::process::abort();
                }
                drop(started);
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        Watchdog { begin, started }
    }

    fn watch(&self) -> Watched<'_> {
        self.started.store(self.begin.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
        Watched(&self.started)
    }
}

fn interesting_byte(random: &mut StdRng) -> u8 {
    let bytes = b"\0\n\r\t \"'\\/{}[](),:;.-+eE0123456789_aZ%&=<>|*\x7f\x80\xc3\xe2\xf0\xff";
    bytes.choose(random).copied().unwrap_or_else(|| random.random())
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}

/// Replaces numbers and quoted texts, so that messages of one kind are equal.
pub fn kind_of(text: &str) -> String {
    let mut kind = String::new();
    let mut is_quoted = false;
    for c in text.chars() {
        match c {
            '"' | '`' => is_quoted = !is_quoted,
            _ if is_quoted => continue,
            c if c.is_ascii_digit() => {
                if kind.ends_with('0') {
                    continue;
                }
                kind.push('0');
                continue;
            }
            _ => {}
        }
        kind.push(c);
    }
    kind
}

#[test]
fn failing_inputs_are_found_and_shrunk() {
    let seeds = vec![b"abcdef".to_vec()];
    let target = Target { name: "none", seeds, tokens: &["xyz"], inputs: 10_000, ..Target::default() };
    let found = catch_unwind(|| {
        fuzz(&target, |input| {
            assert!(!input.windows(3).any(|part| part == b"xyz"), "found it");
            String::new()
        });
    });
    let text = message(&*found.expect_err("it must be found"));
    assert!(text.contains("found it") && text.contains("input: xyz\n"), "{text}");
    assert_eq!(shrunk(b"1234567890", &|input| input.contains(&b'3') && input.contains(&b'9')), b"39");
}

#[test]
fn inputs_that_need_too_much_memory_are_found() {
    let (seeds, memory_max) = (vec![b"abcdef".to_vec()], Some(64 << 20));
    if Memory::begin().is_none() {
        return;
    }
    let target = Target { name: "none", seeds, tokens: &["xyz"], inputs: 10_000, memory_max, ..Target::default() };
    let found = catch_unwind(|| {
        fuzz(&target, |input| {
            let bytes = if input.windows(3).any(|part| part == b"xyz") { 1 << 28 } else { 1 };
            format!("{}", vec![1_u8; bytes].iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>() > 0)
        });
    });
    let text = message(&*found.expect_err("it must be found"));
    assert!(text.contains("bytes of memory") && text.contains("input: xyz\n"), "{text}");
}
