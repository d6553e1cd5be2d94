//! Passwords leave no trace: neither in the bot's log nor in Telegram.

use std::time::Duration;

use kms_sandbox::{Stage, StageOptions};
use serde_json::Value;

use crate::process::{BotProcess, command};
use crate::world::{Plays, World, coins, id};

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
    ann.bot("start-welcome").await;
    ann.says("canary");
    ann.bot("password-too-short").await;
    ann.says("/canary-is-no-command");
    ann.bot("unknown-command-deleted").await;
    ann.says(first);
    ann.bot("start-created").await;
    let address = world.stage.client.account(id(ann).into()).await.unwrap().unwrap().address;
    world.stage.faucet(address, coins("1")).await.unwrap();
    ann.bot_with("notice-received", &["1 ETH"]).await;
    ann.confirms("/send 0x000000000000000000000000000000000000dEaD 0.5").await;
    ann.says("canary zero in the coal mine");
    ann.bot("send-wrong-password").await;
    // Telegram refuses to edit the screen from now on.
    ann.person().deletes(ann.last_of_bot().unwrap().id).unwrap();
    ann.says(first);
    ann.bot_with("transfer-confirmed", &["0.5 ETH"]).await;
    ann.says("/password");
    ann.bot("password-ask").await;
    ann.says(&format!("{first}\n{second}"));
    ann.bot("password-changed").await;
    ann.says("/recover");
    ann.bot("recover-ask").await;
    ann.press("recover-start-button");
    ann.bot("notice-recovery-ready").await;
    ann.press("recover-set-button");
    ann.bot("recover-ask-password").await;
    ann.says(third);
    ann.bot("recover-done").await;
    world.forgets("canary").await;
    let ann = &mut world.ann;

    // What the bot does not handle is not logged either.
    let hello = ann.person().says("hello");
    ann.bot("unexpected-text").await;
    ann.person().edits(hello, "edited canary of the mine").unwrap();
    ann.bot("other-deleted").await;
    ann.person().forwards("forwarded canary of the mine");
    ann.bot("other-deleted").await;
    let hello = ann.last_of_bot().unwrap().id;
    ann.person().forges(ann.person().id(), hello, "canary").unwrap();
    ann.bot("expired-button-notice").await;
    world.stage.stop_server().await;
    ann.says("/recover");
    ann.bot("problem-unreachable").await;
    let log = bot.terminate();
    // A failed handler names its update, and a refused call its method.
    let lines = || log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let failed = lines().find(|line| line["event"] == "update_failed");
    let failed = failed.unwrap_or_else(|| panic!("the log is not the bot's:\n{log}"));
    assert!(failed["update"].is_u64() && failed["error"].is_string(), "{failed}");
    let refused = lines().find(|line| line["message"] == "call refused by Telegram").unwrap();
    assert!(refused["method"].is_string() && refused["error"].is_string(), "{refused}");
    assert!(!log.contains("canary"), "the log has what users write");
    let settings = world.stage.bot_settings().unwrap();
    for secret in [settings.telegram.token.expose(), settings.server.token.expose()] {
        let secret = secret.split(':').next_back().unwrap();
        assert!(!log.contains(secret), "the log has a token");
    }
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_tests_the_connections_and_shows_no_secret() {
    let options = StageOptions { bot: false, ..StageOptions::default() };
    let mut stage = Stage::start(options).await.unwrap();
    let run = |stage: &Stage| {
        let output = command(stage, "check-config").output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (passed, output) = run(&stage);
    let fine = [("ok", "telegram"), ("ok", "server"), ("ok", "passwords")];
    assert!(passed && checks(&output) == fine, "{output}");
    for found in ["@wallet_kms_bot", "Sandbox", "31337"] {
        assert!(output.contains(found), "{output}");
    }
    for secret in [stage.sim.token(), &stage.bearer] {
        assert!(!output.contains(secret));
    }
    stage.stop_server().await;
    let (passed, output) = run(&stage);
    let down = [("ok", "telegram"), ("failed", "server"), ("failed", "passwords")];
    assert!(!passed && checks(&output) == down, "{output}");
    stage.stop().await;
}

/// The checks of a report: how each ended, and of what.
fn checks(report: &str) -> Vec<(&str, &str)> {
    let lines = report.lines().filter_map(|line| line.split_once("  "));
    let checks = lines.filter(|(end, _)| ["ok", "failed"].contains(end));
    checks.map(|(end, rest)| (end, rest.trim().split(':').next().unwrap())).collect()
}
