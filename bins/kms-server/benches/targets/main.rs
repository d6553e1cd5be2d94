//! `just bench`: what the design asks for, measured. A table on the terminal, and JSON in
//! `target/bench.json`.
//!
//! CPU time is the process's own, from the operating system, so that neither the load nor the
//! databases on the same machine blur it; both sides of a ratio are measured in one run. A subject
//! is a file here whose `rows` are added in `main`.
//!
//! `cargo bench -p kms-server --bench targets -- secrets reads` runs those subjects alone.
//! `BENCH_ACCOUNTS` (1,000,000) and `BENCH_TRANSFERS` (1,000) may be made smaller.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement fails by panicking, and prints"
)]

mod measure;
mod money;
mod reads;
mod row;
mod secrets;
mod stage;

use crate::stage::Stage;

fn main() {
    // `cargo test --benches` only asks whether it builds.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = actix_web::rt::System::new();
    let rows = runtime.block_on(async {
        let stage = Stage::set().await;
        let only: Vec<_> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
        let wanted = |subject: &str| only.is_empty() || only.iter().any(|it| it == subject);
        let mut rows = Vec::new();
        if wanted("secrets") {
            rows.extend(secrets::rows(&stage).await);
        }
        if wanted("reads") {
            rows.extend(reads::rows(&stage).await);
        }
        if wanted("money") {
            rows.extend(money::rows(&stage).await);
        }
        rows
    });
    row::print(&rows);
    let missed = rows.iter().filter(|row| !row.ok()).count();
    println!("\n{missed} of {} are missed", rows.len());
}
