# Commands for contributors; CONTRIBUTING.md explains them.

# List the recipes.
default:
    @just --list

# Compile everything without linking.
check:
    cargo check --release --workspace --all-targets

# Run all tests, or those that the arguments select.
test *ARGS="--workspace":
    cargo test --release {{ARGS}}

# Replay real flights, with batch runs every five seconds.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# Run everything that a merge requires.
ci:
    .ci/run

# Build a binary with line tables, for perf.
profile:
    CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none cargo build --release
