//! Ann and Bob, and where they live.

use bot_api_sim::{ButtonKind, Message, Phone};
use kms_client::{Turn, hash_password};
use kms_sandbox::{Stage, StageOptions};
use kms_types::wire::{Account, ConfirmTransfer, ExportKey, HistoryEntry, QuoteTransfer, Transfer};
use kms_types::{Asset, TelegramId, TransferId, Wei};

pub(crate) const ANNS: &str = "orange ladder seldom sings";
pub(crate) const BOBS: &str = "marmalade for the night train";

/// A sandbox and the two phones in it.
pub(crate) struct World {
    pub(crate) stage: Stage,
    pub(crate) ann: Phone,
    pub(crate) bob: Phone,
}

/// What differs from run to run, as transcripts show it.
pub(crate) const FILTERS: [(&str, &str); 7] = [
    (r"0x[0-9a-f]{64}", "<transaction>"),
    (r"0x[0-9a-fA-F]{40}", "<address>"),
    (r"\d+\.\d{7,}", "<fine amount>"),
    (r"In block \d+", "In block <n>"),
    (r"\d{1,2} [A-Z][a-z]{2} \d{4}, \d\d:\d\d UTC", "<time>"),
    (r"\d{1,2} [A-Z][a-z]+ \d{4}", "<date>"),
    (r"again in \d+ \w+", "again in <wait>"),
];

/// Compares the transcript of a phone with the one that was written down.
macro_rules! assert_transcript {
    ($name:literal, $phone:expr) => {
        insta::with_settings!({ filters => $crate::world::FILTERS, omit_expression => true }, {
            insta::assert_snapshot!($name, $phone.transcript());
        });
    };
}
pub(crate) use assert_transcript;

/// The builder of a story: what the bot must say, and which button is pressed.
pub(crate) trait Plays {
    /// Waits until the bot says this, and gives the message. A notice in passing gives an empty
    /// one.
    async fn bot(&mut self, says: &str) -> Message;
    /// Presses a button.
    fn press(&self, button: &str);
    /// Asks for a payment and confirms it, as far as the password.
    async fn confirms(&mut self, payment: &str);
}

impl Plays for Phone {
    async fn bot(&mut self, says: &str) -> Message {
        match self.hears(says).await {
            Ok(message) => message.unwrap_or_default(),
            Err(unheard) => panic!("{unheard}"),
        }
    }

    fn press(&self, button: &str) {
        self.presses(button).unwrap_or_else(|error| panic!("{error}\n{}", self.transcript()));
    }

    async fn confirms(&mut self, payment: &str) {
        self.says(payment);
        self.bot("Total: at most").await;
        self.press("✅ Confirm");
        self.bot("Send your password").await;
    }
}

impl World {
    /// Nobody has a wallet.
    pub(crate) async fn new() -> Self {
        Self::with(StageOptions::default()).await
    }

    pub(crate) async fn with(options: StageOptions) -> Self {
        let stage = Stage::start(options).await.unwrap();
        let ann = stage.sim.phone(4711, "Ann", Some("ann"));
        let bob = stage.sim.phone(4712, "Bob", Some("bob"));
        Self { stage, ann, bob }
    }

    /// Both have wallets, and Ann has ten coins, of which she was told.
    pub(crate) async fn with_wallets(options: StageOptions) -> Self {
        let mut world = Self::with(options).await;
        for (phone, password) in [(&mut world.ann, ANNS), (&mut world.bob, BOBS)] {
            phone.says("/start");
            phone.bot("Choose a password").await;
            phone.says(password);
            phone.bot("Your wallet is ready").await;
            phone.forget();
        }
        let ann = world.account(&world.ann).await;
        world.stage.faucet(ann.address, coins("10")).await.unwrap();
        world.ann.bot("You received 10 ETH from 0x").await;
        world.ann.forget();
        world
    }

    pub(crate) async fn account(&self, of: &Phone) -> Account {
        self.stage.client.account(id(of).into()).await.unwrap().unwrap()
    }

    pub(crate) async fn balance(&self, of: &Phone) -> Wei {
        self.stage.chain_balance(self.account(of).await.address).unwrap()
    }

    pub(crate) async fn transfers(&self, of: &Phone) -> Vec<Transfer> {
        let page = self.stage.client.transfers(id(of).into(), Turn::Newest, 100).await.unwrap();
        let transfers = page.entries.into_iter().filter_map(|entry| match entry {
            HistoryEntry::Transfer { transfer } => Some(*transfer),
            _ => None,
        });
        transfers.collect()
    }

    /// Takes the key out without the bot, as another client would.
    pub(crate) async fn export(&self, whose: &Phone, password: &str) {
        let body = ExportKey { password_hash: hash_password(id(whose), password).await };
        self.stage.client.export(id(whose).into(), &body).await.unwrap();
    }

    /// Pays without the bot, as another client would.
    pub(crate) async fn pay(&self, from: &Phone, to: &str, amount: &str) -> Transfer {
        let quote = QuoteTransfer {
            id: TransferId::random(),
            from: id(from).into(),
            to: to.parse().unwrap(),
            amount: amount.to_owned().try_into().unwrap(),
            asset: Asset::Native,
            client_ref: None,
        };
        let quoted = self.stage.client.quote(&quote).await.unwrap();
        let confirm = ConfirmTransfer {
            password_hash: hash_password(id(from), ANNS).await,
            to_address: quoted.to.address,
            token: quoted.token,
            value: quoted.value,
            max_fee: quoted.max_fee,
        };
        self.stage.client.confirm(quoted.id, &confirm).await.unwrap()
    }
}

pub(crate) fn id(phone: &Phone) -> TelegramId {
    phone.person().id().try_into().unwrap()
}

/// The data that comes back when a button is pressed.
pub(crate) fn data(message: &Message, button: &str) -> String {
    match &message.button(button).unwrap().kind {
        ButtonKind::Callback(data) => data.clone(),
        other => panic!("{button} is {other:?}"),
    }
}

/// The transfer that a confirm screen shows.
pub(crate) fn transfer_of(screen: &Message) -> TransferId {
    data(screen, "✅ Confirm").split(':').nth(1).unwrap().parse().unwrap()
}

pub(crate) fn coins(coins: &str) -> Wei {
    Wei::try_from(&coins.parse().unwrap()).unwrap()
}
