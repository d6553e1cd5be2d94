//! A checkout in a temporary directory, in which operators' commands are run by a shell.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use bot_api_sim::Sim;

use crate::{PASSWORD, REPOSITORY};

/// The deadline of steps that take a second or two on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The files of a fresh clone that the commands use, in git's order.
const COPIED: [&str; 8] = [
    ".gitignore",
    "deploy/backup.sh",
    "deploy/bot.env.example",
    "deploy/mongodb/roles.js",
    "deploy/postgres/roles.sql",
    "deploy/prepare.sh",
    "deploy/server.env.example",
    "deploy/upgrade.sh",
];

/// A directory that looks like a fresh clone in which `cargo build --release` was run.
pub(crate) struct Checkout(tempfile::TempDir);

/// A program that runs until it is stopped.
pub(crate) struct Running {
    child: Child,
    output: std::thread::JoinHandle<String>,
}

impl Checkout {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for folder in ["deploy/postgres", "deploy/mongodb", "target/release"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in COPIED {
            fs::copy(format!("{REPOSITORY}/{file}"), root.join(file)).unwrap();
        }
        for name in ["kms-server", "kms-bot"] {
            let link = root.join("target/release").join(name);
            symlink(std::env::current_exe().unwrap(), link).unwrap();
        }
        Self(directory)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-ec", line]).current_dir(self.0.path()).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs commands with this text on their standard input.
    pub(crate) fn shell(&self, commands: &str, input: &str) -> Output {
        let mut child = self.command(commands).spawn().unwrap();
        write_input(&mut child, input);
        child.wait_with_output().unwrap()
    }

    /// Runs commands, all of which must succeed.
    pub(crate) fn run(&self, commands: &str, input: &str) -> Output {
        let output = self.shell(commands, input);
        assert!(output.status.success(), "{commands}\n{}", text(&output));
        output
    }

    /// Runs commands, of which the last one keeps running, and waits until it prints a matching
    /// line.
    pub(crate) fn start(
        &self,
        commands: &str,
        input: &str,
        is_ready: impl Fn(&str) -> bool,
    ) -> Running {
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
    pub(crate) fn fill_in(&self, file: &str, values: &[(&str, &str)]) {
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
    pub(crate) fn secrets(&self) -> String {
        text(&self.run("find deploy/secrets -type f | sort | xargs sha256sum", ""))
    }

    /// Checks that nothing that the commands made would be committed by `git add`.
    pub(crate) fn assert_git_sees_nothing_secret(&self) {
        let seen = self.run("git init -q .; git status --porcelain --untracked-files=all", "");
        let seen = text(&seen);
        let copied = COPIED.map(|file| format!("?? {file}"));
        assert_eq!(seen.lines().collect::<Vec<_>>(), copied);
    }
}

impl Running {
    /// Stops it as a service manager does, and returns what it printed.
    pub(crate) fn stop(mut self) -> (ExitStatus, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        (status, self.output.join().unwrap())
    }
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

/// Creates a wallet in the chat. An account in the database shows that the bot reached both
/// Telegram and the server.
pub(crate) fn onboard(sim: &Sim, count_accounts: impl Fn() -> String) {
    tokio::runtime::Handle::current().block_on(async {
        let ann = sim.person(1, "Ann", Some("ann"));
        ann.says("/start");
        until(sim, || sim.messages(1).iter().any(|message| message.from != 1)).await;
        ann.says(PASSWORD);
        until(sim, || count_accounts() == "1").await;
    });
}

/// Whether a line is a log line that contains this text.
pub(crate) fn is_log(line: &str, part: &str) -> bool {
    line.starts_with('{') && line.contains(part)
}

fn write_input(child: &mut Child, input: &str) {
    // The program may end without reading its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}
