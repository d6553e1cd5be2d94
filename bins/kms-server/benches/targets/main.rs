//! `just bench`: measures the server against its performance targets. Prints a table and writes
//! `target/bench.json`.
//!
//! CPU time is that of the server's process, as the operating system accounts it, so that load and
//! databases on the same machine do not distort it. Both sides of a ratio are measured in one run.
//! A subject is a file here whose `rows` are added in `main`.
//!
//! `cargo bench -p kms-server --bench targets -- secrets reads` runs only those subjects.
//! `BENCH_ACCOUNTS` (1,000,000), `BENCH_TRANSFERS` (1,000), `BENCH_STORED_TRANSFERS` (1,000,000)
//! and `BENCH_BLOCK_SECONDS` (12) set the size of the data and the pace of the chain. Fails if a
//! target is missed.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking, and prints its results"
)]

mod counting_proxy;
mod express;
mod measure;
mod money;
mod page;
mod reads;
mod row;
mod scale;
mod secrets;
mod stage;

use crate::stage::Stage;

fn main() {
    let only: Vec<_> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    // `cargo test --benches` only checks that it builds.
    if only.is_empty() && !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = actix_web::rt::System::new();
    let rows = runtime.block_on(async {
        let stage = Stage::start().await;
        let wanted = |subject: &str| only.is_empty() || only.iter().any(|it| it == subject);
        let mut rows = Vec::new();
        if wanted("secrets") {
            rows.extend(secrets::rows(&stage).await);
        }
        if wanted("page") {
            rows.extend(page::rows(&stage).await);
        }
        if wanted("reads") {
            rows.extend(reads::rows(&stage).await);
        }
        if wanted("money") {
            rows.extend(money::rows(&stage).await);
        }
        if wanted("scale") {
            rows.extend(scale::rows(&stage).await);
        }
        // Not among all: it needs Node.
        if only.iter().any(|it| it == "express") {
            rows.extend(express::rows(&stage).await);
        }
        rows
    });
    row::print(&rows);
    let missed = rows.iter().filter(|row| !row.ok()).count();
    println!("\n{missed} of {} targets are missed", rows.len());
    assert_eq!(missed, 0, "targets are missed");
}
