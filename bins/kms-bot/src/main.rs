//! `kms-bot`: see `kms-bot --help`.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match kms_bot::cli::run(kms_bot::cli::Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "operators read it here")]
            {
                eprintln!("kms-bot: {}", kms_process::ErrorChain(&*error));
            }
            ExitCode::FAILURE
        }
    }
}
