//! Floods of payments and of messages delay no user, and nothing is dropped without a word.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bot_api_sim::{Change, Fault};
use kms_client::Page;
use kms_sandbox::{Stage, StageOptions};
use kms_types::wire::HistoryEntry;
use kms_types::{EthAddress, Timestamp};
use serde_json::json;

use crate::texts;
use crate::world::{ANNS, Plays, World, assert_text, assert_transcript, coins, id, report};

/// Pays an address this many wei at a time, and mines until all payments are final.
async fn dust(stage: &Stage, to: EthAddress, count: usize, wei: u64) {
    let anvil = Arc::clone(&stage.anvil);
    let paid = move || {
        let from = anvil.rpc("eth_accounts", json!([])).unwrap()[1].clone();
        anvil.rpc("evm_setAutomine", json!([false])).unwrap();
        for number in 0..count {
            let payment = json!({
                "from": from, "to": to.to_string(), "value": format!("{wei:#x}"), "gas": "0x5208",
                "nonce": format!("{number:#x}"),
            });
            anvil.rpc("eth_sendTransaction", json!([payment])).unwrap();
            if number % 1_000 == 999 {
                anvil.rpc("anvil_mine", json!(["0x1"])).unwrap();
            }
        }
        anvil.rpc("evm_setAutomine", json!([true])).unwrap();
        anvil.rpc("anvil_mine", json!(["0x3"])).unwrap();
    };
    tokio::task::spawn_blocking(paid).await.unwrap();
}

/// How many received payments a message reports.
fn count(text: &str) -> usize {
    if !texts::is("notice-received-largest", text) {
        return usize::from(texts::is("notice-received", text));
    }
    let digits = text.lines().next().unwrap().chars().filter(char::is_ascii_digit);
    digits.collect::<String>().parse().unwrap()
}

/// Of what Ann does during a flood, what counts in CI is what comes first: how long it takes
/// depends on the machine.
struct During<'a> {
    world: &'a mut World,
    since: Instant,
    before: usize,
}

impl<'a> During<'a> {
    fn new(world: &'a mut World) -> Self {
        let before = world.ann.person().chat().len();
        Self { world, since: Instant::now(), before }
    }

    /// Waits for the answer to an act that added this many messages of Ann's.
    async fn answered(self, id: &str, own: usize, what: &str, limit: u64) {
        self.world.ann.bot(id).await;
        report(&format!("dust: {what} after"), self.since, limit);
        let after = self.world.ann.person().chat().len();
        let between = after.saturating_sub(self.before + own + 1);
        assert!(between <= 3, "{what}: {between} notices came before it");
    }
}

/// Under Telegram's own rate limits.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_payments_of_dust_delay_neither_answers_nor_other_notices() {
    const DUST: usize = 10_000;
    let recovery_wait = Duration::from_secs(3_600);
    let options = StageOptions { telegram_speed: 1, recovery_wait, ..StageOptions::default() };
    let mut world = World::with_wallets(options).await;
    let ann = world.account(&world.ann).await.address;
    let bob = world.account(&world.bob).await.address;
    world.ann.says("/recover");
    world.ann.bot("recover-ask").await;
    world.ann.press("recover-start-button");
    world.ann.bot("notice-recovery-waiting").await;
    world.ann.says("/password");
    world.ann.bot("password-ask").await;
    dust(&world.stage, ann, DUST, 10_000_000_000_000_000).await;
    world.ann.bot("notice-received-largest").await;
    let during = During::new(&mut world);
    during.world.ann.press("recover-stop-button");
    during.answered("notice-recovery-cancelled", 0, "a recovery is stopped", 2).await;
    let during = During::new(&mut world);
    // Her message is deleted.
    during.world.ann.says(&format!("{ANNS}\nseven quiet harbours at dawn"));
    during.answered("password-changed", 0, "a password is changed", 5).await;
    let during = During::new(&mut world);
    during.world.ann.press("balance-button");
    during.answered("balance-coin", 0, "a press is answered", 2).await;
    let during = During::new(&mut world);
    during.world.ann.says("/balance");
    during.answered("balance-coin", 1, "a command is answered", 2).await;
    let during = During::new(&mut world);
    during.world.export(&during.world.ann, "seven quiet harbours at dawn").await;
    during.answered("notice-key-exported", 0, "a security notice is sent", 5).await;
    let paid = Instant::now();
    world.stage.faucet(bob, coins("0.7")).await.unwrap();
    world.bob.bot_with("notice-received", &["0.7 ETH"]).await;
    report("dust: another user's deposit is reported after", paid, 5);
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let chat = world.ann.person().chat();
        let reported: usize = chat.iter().map(|message| count(&message.text)).sum();
        // With the first ten coins.
        if reported == DUST + 1 {
            break;
        }
        assert!(Instant::now() < deadline, "{reported} payments were reported");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.stage.sim.ignored_waits(), [""; 0]);
    world.stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_flood_drops_is_answered_and_a_dropped_password_is_deleted() {
    let mut world = World::with_wallets(StageOptions::default()).await;
    world.ann.says("/balance");
    world.ann.bot("balance-coin").await;
    world.ann.confirms("/send @bob 0.5").await;
    world.stage.sim.break_next("SendMessage", Fault::Slow(Duration::from_secs(2)));
    for _ in 0..30 {
        world.ann.says("hello, are you there?");
    }
    world.ann.press("balance-refresh-button");
    world.ann.says(ANNS);
    world.ann.bot("busy-notice").await;
    world.ann.bot("flood").await;
    let chat = world.ann.person().chat();
    let floods: Vec<_> = chat.iter().filter(|message| texts::is("flood", &message.text)).collect();
    assert_eq!(floods.len(), 1);
    assert_text!("flood", floods[0].text);
    let busy = world.ann.person().changes().into_iter().find_map(|change| match change {
        Change::Notice { text } => Some(text).filter(|text| texts::is("busy-notice", text)),
        Change::Sent { .. }
        | Change::Edited { .. }
        | Change::Deleted { .. }
        | Change::Pressed { .. } => None,
    });
    assert_text!("busy", busy.unwrap());
    world.forgets(ANNS).await;
    assert_eq!(world.stage.sim.unanswered_presses(), 0);
    world.stage.stop().await;
}

/// A stranger's dust is one line of the history and one message a day.
#[tokio::test(flavor = "multi_thread")]
async fn small_deposits_are_one_message_a_day() {
    const DUST: u64 = 100;
    let notice_from = BTreeMap::from([("ETH".to_owned(), "0.0001".parse().unwrap())]);
    let options = StageOptions { notice_from, ..StageOptions::default() };
    let mut world = World::with_wallets(options).await;
    let ann = world.account(&world.ann).await.address;
    let before = world.ann.person().chat().len();
    dust(&world.stage, ann, usize::try_from(DUST).unwrap(), 1).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while recorded(&world).await < DUST {
        assert!(Instant::now() < deadline, "the deposits are not recorded");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A later event of the same stream is reported, and so none of the earlier ones is.
    world.stage.faucet(ann, coins("0.5")).await.unwrap();
    world.ann.bot_with("notice-received", &["0.5 ETH"]).await;
    let digests = |world: &World| {
        let chat = world.ann.person().chat();
        chat.iter().filter(|message| texts::is("notice-received-small", &message.text)).count()
    };
    assert_eq!((world.ann.person().chat().len(), digests(&world)), (before + 1, 0));
    #[expect(clippy::disallowed_methods, reason = "the server has a clock of its own")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let tomorrow = now + Duration::from_secs(24 * 60 * 60);
    let tomorrow = Timestamp(tomorrow.as_millis().try_into().unwrap());
    for digests in [1, 0] {
        assert_eq!(world.stage.database.notify_digests(tomorrow, 10).await.unwrap(), digests);
    }
    world.ann.bot_with("notice-received-small", &["100"]).await;
    world.ann.says("/history");
    world.ann.bot_with("history-received-small", &["100"]).await;
    assert_eq!(digests(&world), 1);
    assert_transcript!("small_deposits", world.ann);
    world.end().await;
}

/// How many small deposits the server has summed up for Ann.
async fn recorded(world: &World) -> u64 {
    let of = id(&world.ann).into();
    let page = world.stage.client.transfers(of, Page::Newest, 100).await.unwrap();
    let counts = page.entries.iter().map(|entry| match entry {
        HistoryEntry::Deposit { deposit, .. } if deposit.tx_hash.is_none() => deposit.count,
        _ => 0,
    });
    counts.sum()
}
