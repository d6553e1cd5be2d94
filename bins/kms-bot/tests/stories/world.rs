//! Ann and Bob with their phones, in a sandbox.

use std::time::{Duration, Instant};

use bot_api_sim::{ButtonKind, Message, Phone};
use kms_client::{Page, hash_password};
use kms_sandbox::{Stage, StageOptions};
use kms_types::wire::{
    Account, ConfirmTransfer, ExportKey, HistoryEntry, QuoteTransfer, Transfer, Unfreeze,
};
use kms_types::{Asset, TelegramId, TransferId, Wei};

use crate::texts::{self, label};

/// The messages that show work in progress.
pub(crate) const WORKING: [&str; 8] = [
    "start-creating",
    "send-looking-up",
    "send-sending",
    "still-working",
    "contact-working",
    "freeze-working",
    "password-changing",
    "recover-working",
];

pub(crate) const ANNS: &str = "orange ladder seldom sings";
pub(crate) const BOBS: &str = "marmalade for the night train";

/// A sandbox and the two phones in it.
pub(crate) struct World {
    pub(crate) stage: Stage,
    pub(crate) ann: Phone,
    pub(crate) bob: Phone,
}

/// Replaces in transcripts what differs between runs.
pub(crate) const FILTERS: [(&str, &str); 9] = [
    ("(bot|chat)-[0-9a-f]{8}[0-9a-f-]*", "<token>"),
    (r"0x[0-9a-f]{64}", "<transaction>"),
    (r"0x[0-9a-fA-F]{40}", "<address>"),
    // The same as it is typed in other forms.
    (r"[0-9a-fA-F]{40}", "<40 digits>"),
    (r"\d+\.\d{5,}", "<fine amount>"),
    (r"Block \d+", "Block <n>"),
    (r"\d{1,2} [A-Z][a-z]{2} \d{4}, \d\d:\d\d UTC", "<time>"),
    (r"\d{1,2} [A-Z][a-z]+ \d{4}", "<date>"),
    (r"again in \d+ \w+", "again in <duration>"),
];

/// Compares a text with its snapshot.
macro_rules! assert_text {
    ($name:literal, $text:expr) => {
        insta::with_settings!({ filters => $crate::world::FILTERS, omit_expression => true }, {
            insta::assert_snapshot!($name, $text);
        });
    };
}
pub(crate) use assert_text;

/// Compares the transcript of a phone with its snapshot.
macro_rules! assert_transcript {
    ($name:literal, $phone:expr) => {
        $crate::world::assert_text!($name, $phone.transcript());
    };
}
pub(crate) use assert_transcript;

/// The steps of a story. Texts and buttons are named by their Fluent ids.
pub(crate) trait Plays {
    /// Waits until the bot sends this message, and returns it. Returns an empty one for a notice,
    /// which is not a message.
    async fn bot(&mut self, id: &str) -> Message;
    /// Waits until the bot sends this message with these values in it.
    async fn bot_with(&mut self, id: &str, values: &[&str]) -> Message;
    /// Presses a button.
    fn press(&self, id: &str);
    /// Requests a payment and presses `Confirm`; the bot then waits for the password.
    async fn confirms(&mut self, payment: &str);
}

impl Plays for Phone {
    async fn bot(&mut self, id: &str) -> Message {
        self.bot_with(id, &[]).await
    }

    async fn bot_with(&mut self, id: &str, values: &[&str]) -> Message {
        let expected = format!("{id} {values:?}");
        let matches = |text: &str| texts::is_with(id, values, text);
        match self.hears_matching(&expected, matches).await {
            Ok(message) => message.unwrap_or_default(),
            Err(unheard) => panic!("{unheard}"),
        }
    }

    fn press(&self, id: &str) {
        self.presses(&label(id)).unwrap_or_else(|error| panic!("{error}\n{}", self.transcript()));
    }

    async fn confirms(&mut self, payment: &str) {
        self.says(payment);
        self.bot("send-quote").await;
        self.press("send-confirm-button");
        self.bot("send-ask-password").await;
    }
}

impl World {
    /// No user has a wallet.
    pub(crate) async fn new() -> Self {
        Self::with(StageOptions::default()).await
    }

    pub(crate) async fn with(options: StageOptions) -> Self {
        let stage = Stage::start(options).await.unwrap();
        let ann = stage.sim.phone(4711, "Ann", Some("ann"));
        let bob = stage.sim.phone(4712, "Bob", Some("bob"));
        Self { stage, ann, bob }
    }

    /// Both have wallets. Ann has ten coins and was notified of them.
    pub(crate) async fn with_wallets(options: StageOptions) -> Self {
        let mut world = Self::with(options).await;
        world.onboard().await;
        world
    }

    /// Gives both a wallet, and ten coins to Ann.
    pub(crate) async fn onboard(&mut self) {
        for (phone, password) in [(&mut self.ann, ANNS), (&mut self.bob, BOBS)] {
            phone.says("/start");
            phone.bot("start-welcome").await;
            phone.says(password);
            phone.bot("start-created").await;
            phone.bot("contact-offer").await;
            phone.forget();
        }
        let ann = self.account(&self.ann).await;
        self.stage.faucet(ann.address, coins("10")).await.unwrap();
        self.ann.bot_with("notice-received", &["10 ETH"]).await;
        self.ann.forget();
    }

    /// Ends a story in which the bot was not killed.
    pub(crate) async fn end(self) {
        let vain = self.stage.sim.vain_edits();
        assert_eq!(vain, 0, "edits that change nothing:\n{}", self.ann.transcript());
        self.stage.stop().await;
    }

    /// Waits until all faults that the story ordered have happened, so that they hit no other user.
    pub(crate) async fn faults_happen(&self) {
        let mut watch = self.stage.sim.watch();
        while self.stage.sim.faults_left() > 0 {
            watch.changed().await.unwrap();
        }
    }

    /// Waits until the bot has answered all presses.
    pub(crate) async fn presses_are_answered(&self) {
        let (mut watch, sim) = (self.stage.sim.watch(), &self.stage.sim);
        let answered = async {
            while sim.unanswered_presses() > 0 {
                watch.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(120), answered).await.unwrap();
    }

    /// Waits until Telegram stores a secret nowhere: neither in a chat nor in an update that the
    /// bot has not acknowledged.
    pub(crate) async fn forgets(&self, secret: &str) {
        // A handler that waits for a server that hangs holds its update for many seconds.
        for _ in 0..3_000 {
            if !self.stage.sim.stored().to_lowercase().contains(&secret.to_lowercase()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{secret} is still at Telegram");
    }

    pub(crate) async fn account(&self, of: &Phone) -> Account {
        self.stage.client.account(id(of).into()).await.unwrap().unwrap()
    }

    pub(crate) async fn balance(&self, of: &Phone) -> Wei {
        self.stage.chain_balance(self.account(of).await.address).unwrap()
    }

    pub(crate) async fn transfers(&self, of: &Phone) -> Vec<Transfer> {
        transfers_of(&self.stage, id(of)).await
    }

    /// Exports the key without the bot, as another client would.
    pub(crate) async fn export(&self, whose: &Phone, password: &str) {
        let body = ExportKey { password_hash: hash_password(id(whose), password).await };
        self.stage.client.export(id(whose).into(), &body).await.unwrap();
    }

    /// Requests to unfreeze the wallet without the bot, as another client would.
    pub(crate) async fn unfreeze(&self, whose: &Phone, password: &str) {
        let body = Unfreeze { password_hash: hash_password(id(whose), password).await };
        self.stage.client.unfreeze(id(whose).into(), &body).await.unwrap();
    }

    /// Sends a payment without the bot, as another client would.
    pub(crate) async fn pay(&self, from: &Phone, to: &str, amount: &str) -> Transfer {
        let quote = QuoteTransfer {
            id: TransferId::random(),
            from: id(from).into(),
            to: to.parse().unwrap(),
            amount: amount.to_owned().try_into().unwrap(),
            asset: Asset::Native,
            chain_id: None,
            client_ref: None,
        };
        let quoted = self.stage.client.quote(&quote).await.unwrap();
        let confirm = ConfirmTransfer {
            password_hash: hash_password(id(from), ANNS).await,
            chain_id: quoted.chain_id,
            to_address: quoted.to.address,
            token: quoted.token,
            value: quoted.value,
            max_fee: quoted.max_fee,
        };
        self.stage.client.confirm(quoted.id, &confirm).await.unwrap()
    }
}

/// Compares a time that the machine's load decides with its limit. `just chat-speed`, which sets
/// `CHAT_SPEED`, prints all of them; elsewhere a missed limit is no failure.
#[expect(clippy::print_stdout, reason = "read with --nocapture")]
pub(crate) fn report(what: &str, since: Instant, limit_seconds: u64) {
    let (took, limit) = (since.elapsed(), Duration::from_secs(limit_seconds));
    let verdict = if took <= limit { "met" } else { "MISSED" };
    println!("{what}: {:.2} s (limit: {limit_seconds} s, {verdict})", took.as_secs_f64());
    assert!(took <= limit || std::env::var_os("CHAT_SPEED").is_none(), "{what}: too late");
}

/// The last hundred transfers of a user.
pub(crate) async fn transfers_of(stage: &Stage, of: TelegramId) -> Vec<Transfer> {
    let page = stage.client.transfers(of.into(), Page::Newest, 100).await.unwrap();
    let transfers = page.entries.into_iter().filter_map(|entry| match entry {
        HistoryEntry::Transfer { transfer } => Some(*transfer),
        _ => None,
    });
    transfers.collect()
}

pub(crate) fn id(phone: &Phone) -> TelegramId {
    phone.person().id().try_into().unwrap()
}

/// The callback data of a button.
pub(crate) fn data(message: &Message, id: &str) -> String {
    match &message.button(&label(id)).unwrap().kind {
        ButtonKind::Callback(data) => data.clone(),
        other => panic!("{id} is {other:?}"),
    }
}

/// The transfer that a confirm screen shows.
pub(crate) fn transfer_of(screen: &Message) -> TransferId {
    data(screen, "send-confirm-button").split(':').nth(2).unwrap().parse().unwrap()
}

pub(crate) fn coins(coins: &str) -> Wei {
    Wei::try_from(&coins.parse().unwrap()).unwrap()
}
