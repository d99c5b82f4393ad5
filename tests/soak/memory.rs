//! Samples the resident memory of a process every second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Samples in bytes, in order of time.
pub struct Samples(Vec<usize>);

/// Samples being taken.
pub struct Sampler {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<usize>>,
}

impl Samples {
    pub fn start(process: u32) -> Sampler {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                samples.push(resident(process));
                std::thread::sleep(INTERVAL);
            }
            samples
        });
        Sampler { over, thread }
    }

    /// Returns the samples without those of the first time.
    pub fn after(self, warm_up: Duration) -> Samples {
        let skipped = (warm_up.as_millis() / INTERVAL.as_millis()) as usize;
        Samples(self.0.into_iter().skip(skipped).collect())
    }

    /// Returns the medians of the first and of the second half, in bytes.
    pub fn medians(&self) -> (usize, usize) {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        (tenth(first, 5), tenth(second, 5))
    }

    /// Returns the medians of both halves as text.
    pub fn halves(&self) -> String {
        let (first, second) = self.medians();
        let share = second as f64 * 100.0 / first.max(1) as f64;
        format!(
            "{} and {} ({share:.1} %); at most {}",
            first >> 20,
            second >> 20,
            self.0.iter().max().unwrap_or(&0) >> 20
        )
    }

    /// Returns what each half is above for nine tenths of the time, and for one: between runs, and during them.
    pub fn ranges(&self) -> String {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        let of = |samples: &[usize]| format!("{} to {}", tenth(samples, 1) >> 20, tenth(samples, 9) >> 20);
        format!("{} and {}", of(first), of(second))
    }

    /// Returns the median of every tenth as text.
    pub fn tenths(&self) -> String {
        let of = |samples: &[usize]| (tenth(samples, 5) >> 20).to_string();
        self.0.chunks(self.0.len().div_ceil(10).max(1)).map(of).collect::<Vec<_>>().join(", ")
    }
}

impl Sampler {
    pub fn stop(self) -> Samples {
        self.over.store(true, Ordering::SeqCst);
        Samples(self.thread.join().expect("samples"))
    }
}

/// The sample that `tenths` tenths of all are not above; five are the median.
fn tenth(samples: &[usize], tenths: usize) -> usize {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() * tenths / 10).copied().unwrap_or(0)
}

fn resident(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) * 1024
}
