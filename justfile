# Short names for the commands of the README. `just` alone lists them.

_list:
    @just --list

# Simulator and gateway on loopback, with a trace that shows what the cache saves
demo:
    cargo run --locked -- demo

# Every check, as continuous integration runs it
test:
    ./test

# Format all code
fmt:
    cargo fmt --all

# Lints, warnings being errors
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Build the documentation of the code and open it
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --open

# Check the manifests, the image, the compose file and the unit
deploy:
    deploy/check

# Bans, licences and sources of all dependencies (needs cargo-deny)
deny:
    cargo deny --locked check bans licenses sources

# What a request costs, beside nginx, HAProxy and Varnish (minutes; see benches/README.md)
bench-peers *flags:
    benches/peers {{flags}}

# Instructions of the hot path, under callgrind
bench-instructions *flags:
    benches/instructions {{flags}}

# Upstream calls for traces of callers
bench-replay *flags:
    benches/replay {{flags}}

# Memory, and the time to ready
bench-footprint *flags:
    benches/footprint {{flags}}

# Fuzz one target until it fails or is stopped; `just fuzz page -max_total_time=60` (see fuzz/README.md)
fuzz target *flags:
    fuzz/run {{target}} {{flags}}

# Kills, failovers and partitions of real processes (minutes; the table of docs/correctness.md)
kill-storm *flags:
    cargo nextest run --locked --run-ignored only -E 'test(/^faults::/)' --success-output final --no-fail-fast {{flags}}

# All runs of the lease with two or three faults (ten minutes): states, steps, and calls above a limit by kinds of faults
model-check:
    CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test --locked --lib -- --ignored --nocapture two_or_three_faults

# The simulated fleet, for as many seeds as one likes; `just simulate-fleet --seeds 10000`
simulate-fleet *flags:
    tests/simulate-fleet {{flags}}

# Thousands of schedules of each test of concurrent code (some minutes; see src/sync.rs). `INTERLEAVINGS=100000` runs more
interleavings:
    cargo nextest run --locked --lib --features interleavings -E 'test(/interleavings::/)' --no-fail-fast

# Run the code on the pages of docs/recipes/, with the packages that it names (installs them, in target/recipes)
recipes *flags:
    cargo build --locked
    docs/recipes/check {{flags}}

# Test the status page in Chromium (installs Playwright, in target/status-page-check)
status-page:
    cargo build --locked
    tests/status-page/check

# Hold docs/openapi.json against a gateway: Schemathesis and a generated client (installs them, in target/openapi)
openapi *flags:
    cargo build --locked
    tests/openapi-check {{flags}}
