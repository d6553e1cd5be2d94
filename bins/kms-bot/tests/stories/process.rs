//! `kms-bot` as a process of its own, configured for the sandbox.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};

use kms_sandbox::Stage;

/// The program with an argument.
pub(crate) fn command(stage: &Stage, argument: &str) -> Command {
    let settings = stage.bot_settings().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kms-bot"));
    command
        .arg(argument)
        .env("KMS_BOT__TELEGRAM__TOKEN", settings.telegram.token.expose())
        .env("KMS_BOT__TELEGRAM__API_URL", settings.telegram.api_url.unwrap().as_str())
        .env("KMS_BOT__SERVER__URL", settings.server.url.as_str())
        .env("KMS_BOT__SERVER__TOKEN", settings.server.token.expose())
        .env("KMS_BOT__SERVER__CA", settings.server.ca.unwrap())
        .env("RUST_LOG", "trace")
        .current_dir(stage.directory());
    command
}

/// A running bot whose log the test reads.
pub(crate) struct BotProcess {
    child: Child,
    log: PathBuf,
}

impl BotProcess {
    pub(crate) fn start(stage: &Stage) -> Self {
        // A pipe without a reader would fill up and block the bot.
        let log = stage.directory().join("bot.log");
        let file = File::create(&log).unwrap();
        let mut command = command(stage, "serve");
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log }
    }

    /// Kills the bot: it stops wherever it is.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops the bot with SIGTERM, as a container runtime does, and returns its log.
    pub(crate) fn terminate(mut self) -> String {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(self.child.wait().unwrap().success(), "SIGTERM is a clean stop");
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for BotProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
