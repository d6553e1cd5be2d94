//! A bot whose users do every act on the vault page never has a password, its hash or a code in its
//! memory.
//!
//! The bot runs in a process of its own, so that the search does not find the test's own copies.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use kms_bot::Bot;
use kms_bot::config::Settings;
use kms_sandbox::{Stage, StageOptions};
use kms_testkit::writable_memory;
use kms_types::wire::{
    ChangeEmail, ChangePassword, CompleteRecovery, ConfirmCode, ExportKey, ReplaceTransfer,
    RequestRecovery, SetLimitByPassword, Unfreeze,
};
use kms_types::{Asset, RecoveryId, ReplacementId};
use serde_json::json;

use crate::account::{code, mail};
use crate::page::{confirms, creates, hash, opens};
use crate::process::configure;
use crate::waiting::{rpc, too_expensive};
use crate::world::{ANNS, BOBS, Plays, World, coins};

const CHILD: &str = "KMS_TEST_BOT_MEMORY_SEARCH";

/// The bot of the test below, when that test runs it in a process of its own; does nothing
/// otherwise. Unlike `kms-bot`, it does not make its memory unreadable.
#[tokio::test(flavor = "multi_thread")]
async fn chats_for_the_memory_search() {
    #[expect(clippy::disallowed_methods, reason = "the test passes it to its own process")]
    if std::env::var(CHILD).is_err() {
        return;
    }
    let bot = Bot::start(Settings::load(None).unwrap()).await.unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\npolls as {}", bot.username()).unwrap();
    out.flush().unwrap();
    // Until the test is over.
    let ended = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    tokio::task::spawn_blocking(ended).await.unwrap().unwrap();
    std::process::exit(0);
}

struct Searched(Child);

impl Searched {
    fn start(stage: &Stage) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["memory::chats_for_the_memory_search", "--exact", "--nocapture"]);
        configure(&mut command, stage);
        let command = command.env(CHILD, "1").env_remove("RUST_LOG");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("polls as")), "the bot did not start");
        Self(child)
    }
}

impl Drop for Searched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A secret as its bytes, in hex, in base64, and in UTF-16.
fn encodings(secret: &[u8]) -> [Vec<u8>; 4] {
    let wide = String::from_utf8_lossy(secret);
    let wide = wide.encode_utf16().flat_map(u16::to_le_bytes).collect();
    [secret.to_vec(), hex(secret).into_bytes(), STANDARD_NO_PAD.encode(secret).into_bytes(), wide]
}

fn contains(memory: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(memory, text).is_some()
}

async fn pays_and_speeds_up(world: &mut World) {
    world.ann.says("/send @bob 1");
    world.ann.bot("send-quote").await;
    confirms(&world.stage, &world.ann).await;
    world.ann.bot("transfer-confirmed").await;
    rpc(world, "evm_setAutomine", json!([false]));
    world.ann.says("/send @bob 0.5");
    world.ann.bot("send-quote").await;
    confirms(&world.stage, &world.ann).await;
    world.ann.bot("transfer-waits-for-network").await;
    too_expensive(world).await;
    let page = opens(&world.stage, &world.ann, "page-speed-up-button").await;
    let max_fee = page.replacement_fee().await.unwrap().max_fee;
    let (id, password_hash) = (ReplacementId::random(), hash(&world.ann, ANNS).await);
    page.replace(&ReplaceTransfer { id, password_hash, max_fee }).await.unwrap();
    world.ann.bot("transfer-waits-replaced").await;
    rpc(world, "evm_setAutomine", json!([true]));
    rpc(world, "anvil_mine", json!(["0x1"]));
    world.ann.bot("transfer-confirmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_and_no_hash_reaches_the_bots_memory() {
    let options = StageOptions {
        bot: false,
        chat_passwords: false,
        recovery_wait: std::time::Duration::from_secs(1),
        ..StageOptions::default()
    };
    let mut world = World::with(options).await;
    let bot = Searched::start(&world.stage);
    let (second, third) = ("seven quiet harbours at dawn", "velvet tractor ate my homework");
    for (phone, password) in [(&mut world.ann, ANNS), (&mut world.bob, BOBS)] {
        phone.says("/start");
        phone.bot("start-welcome-on-page").await;
        creates(&world.stage, phone, password).await;
        phone.bot("start-created").await;
    }
    let account = world.account(&world.ann).await;
    world.stage.faucet(account.address, coins("10")).await.unwrap();
    world.ann.bot_with("notice-received", &["10 ETH"]).await;
    pays_and_speeds_up(&mut world).await;
    let World { stage, mut ann, bob } = world;
    ann.says("/password");
    ann.bot("password-on-page").await;
    let change = ChangePassword {
        old_password_hash: hash(&ann, ANNS).await,
        new_password_hash: hash(&ann, second).await,
    };
    opens(&stage, &ann, "page-button").await.change_password(&change).await.unwrap();
    ann.bot("notice-password-changed").await;
    ann.says("/limit 5");
    ann.bot("limit-title").await;
    ann.says("/limit 6");
    ann.bot("limit-on-page").await;
    let raise = SetLimitByPassword {
        asset: Asset::Native,
        chain_id: None,
        amount: "6".to_owned().try_into().unwrap(),
        password_hash: hash(&ann, second).await,
    };
    opens(&stage, &ann, "page-button").await.set_limit(&raise).await.unwrap();
    ann.bot("notice-limit-raise-requested").await;
    ann.says("/export");
    ann.bot("export-on-page").await;
    let export = ExportKey { password_hash: hash(&ann, second).await };
    let exported = opens(&stage, &ann, "page-button").await.export(&export).await.unwrap();
    ann.bot("notice-key-exported").await;
    ann.says("/freeze");
    ann.bot("freeze-ask").await;
    ann.press("freeze-now-button");
    ann.bot("freeze-frozen").await;
    ann.press("freeze-lift-button");
    ann.bot("freeze-on-page").await;
    let lift = Unfreeze { password_hash: hash(&ann, second).await };
    opens(&stage, &ann, "page-button").await.unfreeze(&lift).await.unwrap();
    ann.bot("notice-account-unfrozen").await;
    ann.says("/contact");
    ann.bot("contact-none").await;
    ann.press("contact-add-button");
    ann.bot("contact-on-page").await;
    let page = opens(&stage, &ann, "page-button").await;
    let email = Some("ann@example.org".parse().unwrap());
    let password_hash = hash(&ann, second).await;
    page.change_email(&ChangeEmail { email, password_hash }).await.unwrap();
    ann.bot("notice-email-change-requested").await;
    let typed = |code: &str| ConfirmCode { code: code.parse().unwrap() };
    let email_code = code(&mail(&stage, 1).await);
    page.confirm_email(&typed(&email_code)).await.unwrap();
    ann.bot("notice-email-changed").await;
    mail(&stage, 2).await;
    ann.says("/recover");
    ann.bot("recover-ask").await;
    let ask = RequestRecovery { id: RecoveryId::random() };
    opens(&stage, &ann, "recover-start-button").await.request_recovery(&ask).await.unwrap();
    ann.bot("notice-recovery-code-on-page").await;
    let recovery_code = code(&mail(&stage, 3).await);
    let page = opens(&stage, &ann, "page-recover-button").await;
    page.confirm_recovery(&typed(&recovery_code)).await.unwrap();
    ann.bot("notice-recovery-ready").await;
    let page = opens(&stage, &ann, "page-recover-button").await;
    let new_password_hash = hash(&ann, third).await;
    page.complete_recovery(&CompleteRecovery { new_password_hash }).await.unwrap();
    ann.bot("notice-recovery-completed").await;

    let memory = writable_memory(bot.0.id()).unwrap();
    // What the bot has to know, so a search that misses it is broken.
    for known in [stage.sim.token(), &stage.bearer, &account.address.to_string()] {
        assert!(contains(&memory, known.as_bytes()), "the search is broken");
    }
    for (phone, password) in [(&ann, ANNS), (&bob, BOBS), (&ann, second), (&ann, third)] {
        let hash = hash(phone, password).await;
        let hash = hash.expose();
        for secret in [password.as_bytes(), hash.as_slice()] {
            for encoded in encodings(secret) {
                assert!(!contains(&memory, &encoded), "{password:?} is in memory");
            }
        }
    }
    for typed in [exported.passphrase.expose(), &email_code, &recovery_code] {
        assert!(!contains(&memory, typed.as_bytes()), "{typed} is in memory");
    }
    drop(bot);
    stage.stop().await;
}
