//! Passwords are found nowhere afterwards: not in the bot's log, not in Telegram.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use kms_sandbox::{Stage, StageOptions};

use crate::world::{Plays, World, coins, id};

/// The program, configured for the sandbox.
fn command(stage: &Stage, argument: &str) -> Command {
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

/// A bot in a process of its own, whose log a test may read.
struct BotProcess {
    child: Child,
    log: PathBuf,
}

impl BotProcess {
    fn start(stage: &Stage) -> Self {
        // A pipe that nobody reads would fill up and hold the bot.
        let log = stage.directory().join("bot.log");
        let file = File::create(&log).unwrap();
        let mut command = command(stage, "serve");
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log }
    }

    /// Asks it to stop, as a container would be, and gives what it wrote.
    fn terminate(mut self) -> String {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(self.child.wait().unwrap().success(), "SIGTERM is a regular end");
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for BotProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_neither_logged_nor_left_in_a_chat() {
    let options = StageOptions {
        bot: false,
        recovery_wait: Duration::from_secs(1),
        ..StageOptions::default()
    };
    let mut world = World::with(options).await;
    let bot = BotProcess::start(&world.stage);
    let ann = &mut world.ann;
    let [first, second, third] =
        ["canary one in the coal mine", "canary two in the coal mine", "canary three in the mine"];
    ann.says("/start");
    ann.bot("Choose a password").await;
    ann.says("canary");
    ann.bot("too short").await;
    ann.says("/canary is no command");
    ann.bot("can not begin with a slash").await;
    ann.says(first);
    ann.bot("Your wallet is ready").await;
    let address = world.stage.client.account(id(ann).into()).await.unwrap().unwrap().address;
    world.stage.faucet(address, coins("1")).await.unwrap();
    ann.bot("You received 1 ETH from 0x").await;
    ann.confirms("/send 0x000000000000000000000000000000000000dEaD 0.5").await;
    ann.says("canary zero in the coal mine");
    ann.bot("That password is wrong").await;
    ann.says(first);
    ann.bot("Paid 0.5 ETH").await;
    ann.says("/password");
    ann.bot("Write both passwords").await;
    ann.says(&format!("{first}\n{second}"));
    ann.bot("Your new password works").await;
    ann.says("/recover");
    ann.bot("You forgot your password").await;
    ann.press("🛟 Ask for a new password");
    ann.bot("The wait is over").await;
    ann.press("🔑 Set the new password");
    ann.bot("Send the new password").await;
    ann.says(third);
    ann.bot("Your wallet is recovered").await;
    ann.bot("Your wallet was recovered").await;
    let stored = world.stage.sim.stored();
    assert!(!stored.contains("canary"), "a password is still at Telegram");

    // What the bot does not look at is not logged either.
    let hello = ann.person().says("hello");
    ann.person().edits(hello, "edited canary").unwrap();
    ann.bot("I deleted this one").await;
    ann.person().forwards("forwarded canary");
    ann.bot("I deleted this one").await;
    let hello = ann.last_of_bot().unwrap().id;
    ann.person().forges(ann.person().id(), hello, "canary").unwrap();
    ann.bot("does not work any more").await;
    world.stage.stop_server().await;
    ann.says("/recover");
    ann.bot("can not reach the wallet service").await;
    let log = bot.terminate();
    assert!(log.contains("an update could not be handled"), "the log was read:\n{log}");
    assert!(!log.contains("canary"), "the log has what people write");
    let settings = world.stage.bot_settings().unwrap();
    for secret in [settings.telegram.token.expose(), settings.server.token.expose()] {
        let secret = secret.split(':').next_back().unwrap();
        assert!(!log.contains(secret), "the log has a token");
    }
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_tries_both_connections_and_shows_no_secret() {
    let options = StageOptions { bot: false, ..StageOptions::default() };
    let mut stage = Stage::start(options).await.unwrap();
    let run = |stage: &Stage| {
        let output = command(stage, "check-config").output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (good, said) = run(&stage);
    assert!(good && said.contains("ok      telegram: @wallet_kms_bot"), "{said}");
    assert!(said.contains("ok      server: Sandbox (chain 31337)"), "{said}");
    for secret in [stage.sim.token(), &stage.bearer] {
        assert!(!said.contains(secret));
    }
    stage.stop_server().await;
    let (good, said) = run(&stage);
    assert!(!good && said.contains("failed  server"), "{said}");
    stage.stop().await;
}
