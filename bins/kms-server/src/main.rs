//! `kms-server`: see `kms-server --help`.

use std::process::ExitCode;

use clap::Parser;

#[actix_web::main]
async fn main() -> ExitCode {
    match kms_server::cli::run(kms_server::cli::Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "this is where people read it")]
            {
                eprintln!("kms-server: {}", kms_process::ErrorChain(&*error));
            }
            ExitCode::FAILURE
        }
    }
}
