//! Follows the README's section *Running it*, and `deploy/prepare.sh`, literally: every command is
//! taken from the text and run by a shell, with real PostgreSQL, mongod and anvil, and a simulated
//! Telegram.
//!
//! `cargo build` is not run again. Links with the names of both programs point to this test binary,
//! which runs the program that it is called as.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Output, Stdio};
use std::time::Duration;

use bot_api_sim::Sim;
use clap::Parser;
use kms_server_testing::commands::checks;
use kms_testkit::{Anvil, Mongod, Postgres};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PASSWORD: &str = "orange ladder seldom sings";
/// The deadline of steps that take a second or two on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

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

const TESTS: [(&str, fn()); 4] = [
    ("the_readme_leads_to_a_running_server_and_bot", follow_the_readme),
    ("prepare_can_be_repeated_and_its_certificate_is_trusted", prepare_for_compose),
    ("the_build_context_is_an_allow_list", check_docker_ignore),
    ("no_source_is_ignored_by_git_or_left_out_of_the_build_context", check_ignored_sources),
];

/// A directory that looks like a fresh clone in which `cargo build --release` was run.
struct Checkout(tempfile::TempDir);

/// A program that runs until it is stopped.
struct Running {
    child: Child,
    output: std::thread::JoinHandle<String>,
}

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

    let port = free_port();
    checkout.fill_in(
        "run/server/.env",
        &[
            ("KMS_SERVER__LISTEN", &format!("127.0.0.1:{port}")),
            ("KMS_SERVER__DATABASE__URL", &database),
            ("KMS_SERVER__KEY_DATABASE__URL", &Mongod::shared().unwrap().url()),
            ("KMS_SERVER__CHAIN__RPC_URLS", &anvil.url()),
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

    // An account in the database shows that the bot reached both Telegram and the server.
    tokio::runtime::Handle::current().block_on(async {
        let ann = sim.person(1, "Ann", Some("ann"));
        ann.says("/start");
        until(&sim, || sim.messages(1).iter().any(|message| message.from != 1)).await;
        ann.says(PASSWORD);
        let name = database.rsplit('/').next().unwrap().to_owned();
        let count = || postgres.execute(&name, "select count(*) from accounts").unwrap();
        until(&sim, || count() == "1").await;
    });
    let (status, said) = bot.stop();
    assert!(status.success(), "{said}");
    assert_eq!(checks(&said), [("telegram", true), ("server", true)], "{said}");
    let (status, said) = server.stop();
    assert!(status.success(), "{said}");
    assert!(checks(&said).contains(&("database", true)), "{said}");
    assert!(checks(&said).iter().all(|(_, is_ok)| *is_ok), "{said}");
    checkout.assert_git_sees_nothing_secret();
}

/// Runs the commands at the head of `compose.yaml` that need no containers.
fn prepare_for_compose() {
    let checkout = Checkout::new();
    let (anvil, sim) = (Anvil::start().unwrap(), Sim::start().unwrap());
    let prepare = |server: &str, input: &str| {
        let uid = rustix::process::geteuid().as_raw();
        let line = format!("KMS_SERVER={server} KMS_UID={uid} deploy/prepare.sh");
        checkout.shell(&line, input)
    };
    // Simulates an image that cannot be built, and a mistyped token.
    assert!(!prepare("/bin/false", "").status.success());
    assert!(!prepare("target/release/kms-server", "hello\n").status.success());
    let token = format!("{}\n", sim.token());
    let done = prepare("target/release/kms-server", &token);
    assert!(done.status.success(), "{}", text(&done));
    let made = checkout.secrets();
    let again = prepare("/bin/false", "");
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(checkout.secrets(), made);

    let port = free_port();
    let database = Postgres::shared().unwrap().create_database().unwrap();
    let environment = format!(
        "cd deploy/secrets/server\n\
         export KMS_SERVER__LISTEN=127.0.0.1:{port} KMS_SERVER__DATABASE__URL={database}\n\
         export KMS_SERVER__KEY_DATABASE__URL='{}' KMS_SERVER__KEY_DATABASE__NAME=compose\n\
         export KMS_SERVER__CHAIN__RPC_URLS={}\n",
        Mongod::shared().unwrap().url(),
        anvil.url(),
    );
    checkout.run(
        &format!(
            "umask 077\n{environment}../../../target/release/kms-server migrate\n\
             ../../../target/release/kms-server token new bot --scopes bot >../bot/server-token"
        ),
        "",
    );
    let serve = format!("{environment}../../../target/release/kms-server serve");
    let server = checkout.start(&serve, "", |line| is_log(line, "listening"));
    let check = format!(
        "cd deploy/secrets/bot\n\
         export KMS_BOT__SERVER__URL=https://localhost:{port} KMS_BOT__TELEGRAM__API_URL={}\n\
         ../../../target/release/kms-bot check-config",
        sim.api_url()
    );
    let checked = checkout.run(&check, "");
    assert!(checks(&text(&checked)).contains(&("server", true)), "{}", text(&checked));
    let (status, said) = server.stop();
    assert!(status.success(), "{said}");

    // A certificate that expires soon is renewed; the authority that the bot trusts stays.
    checkout.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 10 \
         -subj /CN=server -keyout deploy/secrets/old.key -out deploy/secrets/server/tls.pem",
        "",
    );
    let certificates = || {
        let read = |name| fs::read(checkout.0.path().join("deploy/secrets").join(name)).unwrap();
        (read("server/tls.pem"), read("bot/server.pem"))
    };
    let (soon_expired, authority) = certificates();
    let renewed = prepare("/bin/false", "");
    assert!(renewed.status.success(), "{}", text(&renewed));
    assert_ne!(certificates().0, soon_expired);
    assert_eq!(certificates().1, authority);
    let verify = "openssl verify -purpose sslserver -CAfile deploy/secrets/bot/server.pem \
                  deploy/secrets/server/tls.pem";
    checkout.run(verify, "");
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

impl Checkout {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for folder in ["deploy", "target/release"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in [
            ".gitignore",
            "deploy/server.env.example",
            "deploy/bot.env.example",
            "deploy/prepare.sh",
        ] {
            fs::copy(format!("{REPOSITORY}/{file}"), root.join(file)).unwrap();
        }
        for name in ["kms-server", "kms-bot"] {
            let link = root.join("target/release").join(name);
            symlink(std::env::current_exe().unwrap(), link).unwrap();
        }
        Self(directory)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", line]).current_dir(self.0.path()).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs commands with this text on their standard input.
    fn shell(&self, commands: &str, input: &str) -> Output {
        let mut child = self.command(commands).spawn().unwrap();
        write_input(&mut child, input);
        child.wait_with_output().unwrap()
    }

    /// Runs commands, all of which must succeed.
    fn run(&self, commands: &str, input: &str) -> Output {
        let output = self.shell(commands, input);
        assert!(output.status.success(), "{commands}\n{}", text(&output));
        output
    }

    /// Runs commands, of which the last one keeps running, and waits until it prints a matching
    /// line.
    fn start(&self, commands: &str, input: &str, is_ready: impl Fn(&str) -> bool) -> Running {
        // `exec` lets signals reach the program instead of the shell.
        let (before, last) = commands.rsplit_once('\n').unwrap();
        let mut child = self.command(&format!("{before}\nexec {last} 2>&1")).spawn().unwrap();
        write_input(&mut child, input);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        while !said.lines().next_back().is_some_and(&is_ready) {
            let Some(line) = lines.next() else {
                child.wait().unwrap();
                let mut errors = String::new();
                child.stderr.unwrap().read_to_string(&mut errors).unwrap();
                panic!("it ended: {commands}\n{said}{errors}");
            };
            said += &(line.unwrap() + "\n");
        }
        let output = std::thread::spawn(move || {
            lines.map_while(Result::ok).fold(said, |said, line| said + &line + "\n")
        });
        Running { child, output }
    }

    /// Sets variables of a `.env` that are there, commented out or not.
    fn fill_in(&self, file: &str, values: &[(&str, &str)]) {
        let path = self.0.path().join(file);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut lines: Vec<_> =
            fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        for (name, value) in values {
            let is_it =
                |line: &&mut String| line.trim_start_matches("# ").split('=').next() == Some(name);
            let line = lines.iter_mut().find(is_it).unwrap_or_else(|| panic!("{file}: {name}"));
            *line = format!("{name}={value}");
        }
        fs::write(&path, lines.join("\n") + "\n").unwrap();
    }

    /// The content of all files below `deploy/secrets`.
    fn secrets(&self) -> String {
        text(&self.run("find deploy/secrets -type f | sort | xargs sha256sum", ""))
    }

    /// Checks that nothing that the commands made would be committed by `git add`.
    fn assert_git_sees_nothing_secret(&self) {
        let seen = self.run("git init -q .; git status --porcelain --untracked-files=all", "");
        let seen = text(&seen);
        let copied = ["?? .gitignore", "?? deploy/bot.env.example", "?? deploy/prepare.sh"];
        let copied = copied.into_iter().chain(["?? deploy/server.env.example"]);
        assert_eq!(seen.lines().collect::<Vec<_>>(), copied.collect::<Vec<_>>());
    }
}

impl Running {
    /// Stops it as a service manager does, and returns what it printed.
    fn stop(mut self) -> (ExitStatus, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        (status, self.output.join().unwrap())
    }
}

/// The shell blocks of the section *Running it*.
fn commands_of_the_readme() -> Vec<String> {
    let readme = fs::read_to_string(format!("{REPOSITORY}/README.md")).unwrap();
    let section = readme.split("\n## ").find(|section| section.starts_with("Running it\n"));
    let blocks = section.unwrap().split("```sh\n").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap().to_owned()).collect()
}

/// Waits until a condition holds; checks it again after every change in Telegram.
async fn until(sim: &Sim, is_so: impl Fn() -> bool) {
    let mut changes = sim.watch();
    let waiting = async {
        while !is_so() {
            // The database may change shortly before the bot writes to Telegram.
            let _ = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the condition did not become true");
}

/// Whether a line is a log line that contains this text.
fn is_log(line: &str, part: &str) -> bool {
    line.starts_with('{') && line.contains(part)
}

fn write_input(child: &mut Child, input: &str) {
    // The program may end without reading its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
