#!/usr/bin/env bash
# Builds all fuzz targets with the stable compiler's coverage instrumentation (the flags of `cargo fuzz`,
# without a sanitizer) and runs each for the given number of seconds, two at a time. The corpus is
# kept in target/corpus, and crashing inputs in target/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1"
# With --target, RUSTFLAGS do not apply to build scripts and procedural macros.
cargo build --quiet --release --target "$host"
run() {
    mkdir -p "target/corpus/$1" "target/artifacts/$1"
    if ! "target/$2/release/$1" -max_total_time="$3" -timeout=5 -rss_limit_mb=1024 -verbosity=0 \
        -artifact_prefix="target/artifacts/$1/" "target/corpus/$1" "seeds/$1" \
        >"target/artifacts/$1.log" 2>&1; then
        tail -n 40 "target/artifacts/$1.log"
        echo "fuzz: $1 failed; see fuzz/target/artifacts/$1"
        exit 255
    fi
    echo "fuzz: $1 passed for $3 seconds"
}
export -f run
for target in fuzz_targets/*.rs; do basename "$target" .rs; done |
    xargs -P 2 -I TARGET bash -c "run TARGET $host $seconds"
