//! Runs the benchmarks: `cargo bench --bench figures --
//! [ingest|workloads|growth|batch|query|serve|visibility|alerts|replay|layers|dialect|lookups|entities|history|compaction|memory|years|planning|spark]...` prints
//! the figures of `docs/performance.md`; without a name, all of them.
//!
//! Everything runs against the real binary over loopback, on temporary data. Rates are printed beside a baseline that
//! is measured in the same run, because the speed of the machine drifts.

mod alerts;
mod archived;
mod batch;
mod compaction;
mod dialect;
mod entities;
mod events;
mod history;
mod ingest;
mod layers;
mod lookups;
mod memory;
mod planning;
mod query;
mod replay;
mod serve;
mod server;
mod spark;
mod visibility;
mod workloads;
mod years;

/// The allocator of the program, so that measurements of this process hold for it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((memory::CHILD, rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return memory::child(rest);
    }
    let named: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|n| n == name);
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("TRUEUP_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    println!("cores: {}", std::thread::available_parallelism().map_or(1, usize::from));
    for (name, measure) in [
        ("ingest", ingest::measure as fn()),
        ("workloads", workloads::measure),
        ("growth", workloads::growth),
        ("batch", batch::measure),
        ("query", query::measure),
        ("serve", serve::measure),
        ("visibility", visibility::measure),
        ("alerts", alerts::measure),
        ("replay", replay::measure),
        ("layers", layers::measure),
        ("dialect", dialect::measure),
        ("lookups", lookups::measure),
        ("memory", memory::measure),
        ("years", years::measure),
        ("planning", planning::measure),
        ("entities", entities::measure),
        ("history", history::measure),
        ("compaction", compaction::measure),
        ("spark", spark::measure),
    ] {
        if wanted(name) {
            println!("\n== {name}");
            measure();
        }
    }
}
