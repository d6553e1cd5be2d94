//! A bot whose users act on the vault page never has a password or its hash in its memory.
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
use kms_types::RecoveryId;
use kms_types::wire::{ChangePassword, CompleteRecovery, ExportKey, RequestRecovery};

use crate::page::{confirms, creates, hash, opens};
use crate::process::configure;
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

#[tokio::test(flavor = "multi_thread")]
async fn no_password_and_no_hash_reaches_the_bots_memory() {
    let options = StageOptions {
        bot: false,
        chat_passwords: false,
        recovery_wait: std::time::Duration::from_secs(1),
        ..StageOptions::default()
    };
    let World { stage, mut ann, mut bob } = World::with(options).await;
    let bot = Searched::start(&stage);
    let (second, third) = ("seven quiet harbours at dawn", "velvet tractor ate my homework");
    for (phone, password) in [(&mut ann, ANNS), (&mut bob, BOBS)] {
        phone.says("/start");
        phone.bot("start-welcome-on-page").await;
        creates(&stage, phone, password).await;
        phone.bot("start-created").await;
    }
    let account = stage.client.account(crate::world::id(&ann).into()).await.unwrap().unwrap();
    stage.faucet(account.address, coins("10")).await.unwrap();
    ann.bot_with("notice-received", &["10 ETH"]).await;
    ann.says("/send @bob 1");
    ann.bot("send-quote").await;
    confirms(&stage, &ann).await;
    ann.bot("transfer-confirmed").await;
    ann.says("/password");
    ann.bot("password-on-page").await;
    let change = ChangePassword {
        old_password_hash: hash(&ann, ANNS).await,
        new_password_hash: hash(&ann, second).await,
    };
    opens(&stage, &ann, "page-button").await.change_password(&change).await.unwrap();
    ann.bot("notice-password-changed").await;
    ann.says("/export");
    ann.bot("export-on-page").await;
    let export = ExportKey { password_hash: hash(&ann, second).await };
    let exported = opens(&stage, &ann, "page-button").await.export(&export).await.unwrap();
    ann.bot("notice-key-exported").await;
    ann.says("/recover");
    ann.bot("recover-ask").await;
    let ask = RequestRecovery { id: RecoveryId::random() };
    opens(&stage, &ann, "recover-start-button").await.request_recovery(&ask).await.unwrap();
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
    assert!(!contains(&memory, exported.passphrase.expose().as_bytes()));
    drop(bot);
    stage.stop().await;
}
