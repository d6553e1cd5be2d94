//! Follows the README's section *Running it*, and the scripts of `deploy`, literally: every command
//! is taken from the text and run by a shell, with real PostgreSQL, mongod and anvil, and a
//! simulated Telegram.
//!
//! `cargo build` is not run again. Links with the names of both programs point to this test binary,
//! which runs the program that it is called as.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bot_api_sim::Sim;
use clap::Parser;
use kms_server_testing::commands::checks;
use kms_testkit::{Anvil, Mongod, Postgres, free_port};

use checkout::{Checkout, is_log, onboard, text};

mod checkout;
mod compose;
mod compose_file;
mod units;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PASSWORD: &str = "orange ladder seldom sings";

fn main() -> ExitCode {
    let name = std::env::args_os().next().map(PathBuf::from);
    let name = name.as_deref().and_then(Path::file_name).and_then(OsStr::to_str);
    match name {
        Some("kms-server") => {
            let command = kms_server::cli::run(kms_server::cli::Cli::parse());
            exit_code(actix_web::rt::System::new().block_on(command))
        }
        Some("kms-bot") => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            exit_code(runtime.block_on(kms_bot::cli::run(kms_bot::cli::Cli::parse())))
        }
        _ => run_tests(),
    }
}

#[expect(clippy::print_stderr, reason = "errors are printed as by the binaries")]
fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The test harness of this binary: runs what a filter of `cargo test` selects.
#[expect(clippy::print_stdout, reason = "this is where `cargo test` prints")]
fn run_tests() -> ExitCode {
    let filters: Vec<_> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let lists = std::env::args().any(|argument| argument == "--list");
    // Telegram is simulated on it.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    for (name, test) in TESTS {
        let selected = filters.is_empty() || filters.iter().any(|filter| name.contains(filter));
        if lists {
            println!("{name}: test");
        } else if selected {
            test();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

const TESTS: [(&str, fn()); 8] = [
    ("the_readme_leads_to_a_running_server_and_bot", follow_the_readme),
    ("prepare_can_be_interrupted_at_each_step", compose::interrupt_prepare),
    ("what_prepare_made_runs_with_separate_roles", compose::run_what_prepare_made),
    ("upgrade_stops_backs_up_migrates_and_starts", compose::upgrade),
    ("compose_isolates_and_hardens_its_services", compose_file::check),
    ("the_systemd_units_are_hardened", units::check),
    ("the_build_context_is_an_allow_list", check_docker_ignore),
    ("no_source_is_ignored_by_git_or_left_out_of_the_build_context", check_ignored_sources),
];

fn follow_the_readme() {
    let checkout = Checkout::new();
    let (postgres, anvil, sim) =
        (Postgres::shared().unwrap(), Anvil::start().unwrap(), Sim::start().unwrap());
    let database = postgres.create_database().unwrap();
    let commands = commands_of_the_readme();
    let [build, prepare, serve, token, bot] = commands.as_slice() else { panic!("{commands:?}") };
    let bot = &format!("{token}\n{bot}");
    assert_eq!(build, "cargo build --release -p kms-server -p kms-bot");
    checkout.run(prepare, "");

    let port = free_port().unwrap();
    checkout.fill_in(
        "run/server/.env",
        &[
            ("KMS_SERVER__LISTEN", &format!("127.0.0.1:{port}")),
            ("KMS_SERVER__DATABASE__URL", &database),
            ("KMS_SERVER__KEY_DATABASE__URL", &Mongod::shared().unwrap().url()),
            ("KMS_SERVER__CHAINS__LOCAL__RPC_URLS", &anvil.url()),
        ],
    );
    let server = checkout.start(serve, "", |line| is_log(line, "listening"));

    checkout.fill_in(
        "run/bot/.env",
        &[
            ("KMS_BOT__SERVER__URL", &format!("https://localhost:{port}")),
            ("KMS_BOT__TELEGRAM__API_URL", &sim.api_url()),
        ],
    );
    let token = format!("{}\n", sim.token());
    let bot = checkout.start(bot, &token, |line| is_log(line, ""));

    let name = database.rsplit('/').next().unwrap();
    onboard(&sim, || postgres.execute(name, "select count(*) from accounts").unwrap());
    let (status, said) = bot.stop();
    assert!(status.success(), "{said}");
    let all = [("telegram", true), ("server", true), ("passwords", true)];
    assert_eq!(checks(&said), all, "{said}");
    let (status, said) = server.stop();
    assert!(status.success(), "{said}");
    assert!(checks(&said).contains(&("database", true)), "{said}");
    assert!(checks(&said).iter().all(|(_, is_ok)| *is_ok), "{said}");
    checkout.assert_git_sees_nothing_secret();
}

/// Files that operators create in a checkout are not sent to the image builder.
fn check_docker_ignore() {
    let rules = fs::read_to_string(format!("{REPOSITORY}/.dockerignore")).unwrap();
    let rules: Vec<_> =
        rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(rules.first(), Some(&"*"), "everything is left out first");
    let sources = "!crates/*/src/keys";
    let rules: Vec<_> = rules.into_iter().filter(|rule| *rule != sources).collect();
    let allowed: Vec<_> = rules.iter().filter_map(|rule| rule.strip_prefix('!')).collect();
    for path in &allowed {
        assert!(Path::new(REPOSITORY).join(path).exists(), "{path}");
    }
    for secret in ["run", "keys", ".env", "deploy", "tls.pem", "bot-token", "kms.db", ".git"] {
        assert!(!allowed.contains(&secret), "{secret}");
    }
    let last_allowed = rules.iter().rposition(|rule| rule.starts_with('!')).unwrap();
    for rule in ["**/target", "**/keys", "**/.env", "**/*.pem", "**/*-token", "**/*.db"] {
        assert!(rules.iter().position(|known| *known == rule) > Some(last_allowed), "{rule}");
    }
}

/// What protects secrets by their names must not match a source: `cargo build` in the image would
/// miss it, or `git add` would leave it out.
fn check_ignored_sources() {
    let directory = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("--git-dir").arg(directory.path().join("git")).args(arguments);
        let output = git.current_dir(REPOSITORY).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    git(&["init", "-q"]);
    // Docker's patterns begin at the root; git's do only with a slash.
    let rules = fs::read_to_string(format!("{REPOSITORY}/.dockerignore")).unwrap();
    let anchored = rules.lines().map(|rule| match rule.strip_prefix('!') {
        Some(rule) => format!("!/{rule}\n"),
        None if rule.is_empty() || rule.starts_with(['#', '/']) => format!("{rule}\n"),
        None => format!("/{rule}\n"),
    });
    let docker = directory.path().join("docker");
    fs::write(&docker, anchored.collect::<String>()).unwrap();
    for rules in [docker.to_str().unwrap(), ".gitignore"] {
        let rules = format!("--exclude-from={rules}");
        let sources = ["rs", "toml", "sql", "ftl"]
            .map(|end| ["bins", "crates", "migrations"].map(|folder| format!("{folder}/*.{end}")));
        let work_tree = format!("--work-tree={REPOSITORY}");
        let list = [&work_tree, "ls-files", "--others", "--ignored", &rules, "--"];
        let sources = sources.iter().flatten().map(String::as_str);
        let ignored = git(&list.into_iter().chain(sources).collect::<Vec<_>>());
        assert_eq!(ignored, "", "{rules}");
    }
}

/// The shell blocks of the section *Running it*.
fn commands_of_the_readme() -> Vec<String> {
    let readme = fs::read_to_string(format!("{REPOSITORY}/README.md")).unwrap();
    let section = readme.split("\n## ").find(|section| section.starts_with("Running it\n"));
    let blocks = section.unwrap().split("```sh\n").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap().to_owned()).collect()
}
