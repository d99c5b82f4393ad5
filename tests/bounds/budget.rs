//! Adds up the budgets that an attack can fill, and compares the peak of the server's memory with the sum.

use shared::limits;
use world::World;

pub const MIB: usize = 1 << 20;
/// Memory of the process without load: code, stacks, caches of threads, the lake's and the log's own state.
const BASELINE: usize = 128 * MIB;
/// Memory of a connection beside its buffers: socket, task, request.
const CONNECTION: usize = 32 * 1024;

/// The bytes that each part of the server may hold at the same time.
pub struct Budget(Vec<(&'static str, usize)>);

impl Budget {
    pub fn new() -> Budget {
        Budget(vec![("process without load", BASELINE)])
    }

    pub fn and(mut self, part: &'static str, bytes: usize) -> Budget {
        self.0.push((part, bytes));
        self
    }

    /// Adds open connections with their buffers.
    pub fn connections(self, count: usize) -> Budget {
        self.and("connections", count * (CONNECTION + 2 * limits::CONNECTION_BUFFER_BYTES_MAX))
    }

    /// Adds bodies of events: at most `in_flight` bytes are sent at the same time.
    pub fn bodies(self, in_flight: usize) -> Budget {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let decoded = 2 * limits::EVENT_BODY_BYTES_MAX;
        self.and("bodies", in_flight.min(limits::BODIES_BYTES_MAX))
            .and("decoders: decompressed bytes and rows", cores * in_flight.min(decoded))
    }

    /// Adds the buffers of one partition of a stream, with at most `in_flight` bytes of requests at the same time, and `sent`
    /// bytes in all.
    pub fn partition(self, in_flight: usize, sent: usize) -> Budget {
        self.and("queue of the log writer", in_flight.min(limits::WRITER_QUEUE_BYTES_MAX))
            .and(
                "a group being written: rows, frame",
                2 * in_flight.min(limits::GROUP_COMMIT_BYTES_MAX + limits::EVENT_BODY_BYTES_MAX),
            )
            .and("queues of speed and archiver", 2 * sent.min(limits::HANDOFF_QUEUE_BYTES_MAX))
            .and("rows being archived, a copy by date, files", 3 * sent.min(limits::ARCHIVE_FILE_BYTES))
    }

    /// Adds queries that run at the same time, each with `bytes_max` of merged rows, and its response being written.
    pub fn queries(self, bytes_max: usize) -> Budget {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let at_once = cores * limits::QUERIES_AT_ONCE_PER_CORE + 1;
        self.and("queries", at_once * bytes_max)
            .and("batch merge cache", limits::BATCH_MERGE_CACHE_BYTES)
            .and("response cache", limits::RESPONSE_CACHE_BYTES)
    }

    /// Adds responses that clients do not read.
    pub fn responses(self, connections: usize) -> Budget {
        self.and("responses being sent", limits::RESPONSES_BYTES_MAX)
            .and("small responses, not counted", connections * limits::RESPONSE_BYTES_UNCOUNTED)
    }

    /// Returns the sum, in bytes. The allocator keeps freed memory for some seconds, and fragments: a quarter more.
    pub fn sum(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes).sum::<usize>() * 5 / 4
    }

    /// Checks the peak of the server so far, and prints it with the budgets.
    #[track_caller]
    pub fn holds(&self, attack: &str, world: &World) {
        self.holds_for(attack, peak(world.id()));
    }

    /// The same, for the peak of another process.
    #[track_caller]
    pub fn holds_for(&self, attack: &str, peak: usize) {
        let parts: Vec<String> = self.0.iter().map(|(part, bytes)| format!("{part} {}", bytes.div_ceil(MIB))).collect();
        println!(
            "{attack}: peak {} MiB of {} MiB ({}; a quarter for the allocator)",
            peak / MIB,
            self.sum() / MIB,
            parts.join(", ")
        );
        assert!(
            peak <= self.sum(),
            "{attack}: {} MiB are more than the {} MiB of all budgets",
            peak / MIB,
            self.sum() / MIB
        );
    }
}

/// Returns the largest resident memory of a process so far, in bytes; 0 if it has ended.
pub fn peak(process: u32) -> usize {
    of_status(process, "VmHWM:")
}

/// Returns the resident memory of a process, in bytes.
pub fn resident(process: u32) -> usize {
    of_status(process, "VmRSS:")
}

fn of_status(process: u32, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) * 1024
}
