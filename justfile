# What people run. `just ci` is what CI runs.

# Shows this list.
default:
    @just --list

# Installs what the checks need and this machine lacks.
setup:
    #!/usr/bin/env bash
    set -euo pipefail
    as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
    missing=()
    command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing+=(postgresql)
    [ -e /usr/include/openssl/ssl.h ] || missing+=(libssl-dev)
    command -v c++ >/dev/null || missing+=(g++)
    command -v npm >/dev/null || missing+=(npm)
    python3 -m venv --help >/dev/null 2>&1 || missing+=(python3-venv)
    python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
    command -v chromium >/dev/null || missing+=(chromium)
    command -v chromedriver >/dev/null || missing+=(chromium-driver)
    fc-list 2>/dev/null | grep -qi emoji || missing+=(fonts-noto-color-emoji)
    if [ ${#missing[@]} -gt 0 ]; then
        as_root apt-get update -q
        as_root apt-get install -q -y --no-install-recommends "${missing[@]}"
    fi
    command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny

# Everything that has to be green.
ci: format clippy docs deny test (fuzz "10") tour

# Formatting.
format:
    cargo fmt --all --check

# Lints; warnings fail.
clippy:
    cargo clippy --workspace --all-targets -- -D warnings

# The documentation builds without a warning.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Layers, licences and sources of every dependency.
deny:
    cargo deny --all-features check bans licenses sources

# Known advisories. Needs the advisory database, so it is not part of `ci`.
advisories:
    cargo deny --all-features check advisories

# All tests, against real PostgreSQL, mongod and anvil.
test:
    INSTA_UPDATE=no cargo test --workspace

# Renders the initial migrations of both SQL dialects from migrations/schema.sql.
migrations:
    UPDATE_MIGRATIONS=1 cargo test -p kms-store --test conformance migrations

# Fuzzes every parser of untrusted input for SECONDS each, two at a time.
fuzz SECONDS="60":
    fuzz/run.sh {{SECONDS}}

# Money under faults: so many runs, from this seed on. One that fails names its seed.
faults runs="1000" seed="1":
    FAULT_SEED={{seed}} FAULT_RUNS={{runs}} cargo test -p kms-server --test faults money -- --nocapture

# What the design asks for, measured: two tables, target/bench.json and target/bench-custody.json.
bench: bench-custody
    cargo bench -p kms-server --bench targets

# The story of two people in their chats; twice at once after that.
tour:
    cargo run --release -p kms-sandbox -- tour
    target/release/kms-sandbox tour >target/tour & target/release/kms-sandbox tour && wait $!

# How fast custody's stores are; fails where a target is missed. Built as tests are, so that it takes
# no second tree; figures are in target/bench-custody.json.
bench-custody:
    cargo bench --profile dev -p kms-store --no-default-features --features postgres,sqlite --bench custody

# The picture in the README, from the page's test.
picture:
    cargo test -p kms-sandbox --test page
    cp target/tmp/laptop-light.png docs/sandbox.png
