//! A test environment: an own chain, a store in memory, and accounts with wallets.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use kms_chain::follower::{DepositStore, ExternalDeposit, Finality, Follower, FollowerConfig};
use kms_chain::spending::SpendingRules;
use kms_chain::transfer::{Asked, Party, Transfer, TransferState};
use kms_chain::{
    Chain, Checked, ConfirmError, PricePolicy, QuoteError, QuoteRequest, Ready, Shown, Tokens,
    TransferConfig, Transfers,
};
use kms_core::account::Account;
use kms_core::audit::{Action, Caller};
use kms_core::{
    CreateWallet, Created, Custody, CustodyError, KdfParams, KdfPool, KeyRing, OpenWallet, Ports,
    Sealer, ServerKeys,
};
use kms_key_local::LocalMasterKey;
use kms_store::{Database, SqliteKeyDatabase};
use kms_testkit::Anvil;
use kms_types::{
    Asset, EthAddress, EventCursor, EventStream, PasswordHash, QuoteAmount, Timestamp, Token,
    TransferId, U256, Units, Wei,
};
use serde_json::{Value, json};

/// The blocks after which a block is finalized.
pub(crate) const CONFIRMATIONS: u64 = 3;
pub(crate) const QUOTE_LIFETIME: Duration = Duration::from_secs(120);
/// Longer than the longest time between two checks of a transfer.
pub(crate) const CHECK: Duration = Duration::from_secs(6 * 60);
/// Blocks with other transactions after which a step is spent.
pub(crate) const REPLACE_AFTER: u64 = 2;

/// Wei of a coin.
pub(crate) const COIN: u128 = 1_000_000_000_000_000_000;

/// An address without an account.
pub(crate) const STRANGER: &str = "0x00000000000000000000000000000000000000cc";

/// Shared by all tests, because generating a key takes seconds.
static KMS_KEY: LazyLock<KeyRing> = LazyLock::new(|| {
    let key = LocalMasterKey::generate("test".parse().unwrap(), 3072).unwrap();
    KeyRing::new(Arc::new(key), Vec::new()).unwrap()
});

pub(crate) struct World {
    pub(crate) anvil: Anvil,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) database: Database,
    blocks: Follower,
    keys: Arc<ServerKeys>,
    pub(crate) custody: Custody,
    clock: AtomicI64,
}

impl World {
    /// Blocks are mined by [`World::mine`] only.
    pub(crate) async fn new() -> Self {
        Self::with(Anvil::start().unwrap(), Vec::new()).await
    }

    /// Like [`World::new`], with these tokens.
    pub(crate) async fn with(anvil: Anvil, tokens: Vec<Token>) -> Self {
        anvil.rpc("evm_setAutomine", json!([false])).unwrap();
        let keys = Arc::new(ServerKeys::random());
        let database = Database::connect("sqlite::memory:", 1, Arc::clone(&keys));
        let database = database.await.unwrap();
        database.migrate().await.unwrap();
        let chain = Chain::new(&anvil.url(), anvil.chain_id()).unwrap();
        let blocks = follower(&database, chain, tokens.clone(), Finality::Blocks(CONFIRMATIONS));
        let transfers = engine(&database, &anvil.url(), &anvil, &keys, tokens);
        Self {
            blocks,
            custody: custody(&database, &keys).await,
            transfers: Arc::new(transfers),
            clock: AtomicI64::new(wall_clock().0),
            anvil,
            database,
            keys,
        }
    }

    /// Another server over the same database, whose endpoint is unreachable.
    pub(crate) fn cut_off(&self) -> Transfers {
        self.through("http://127.0.0.1:1")
    }

    /// Another server over the same database, with its own endpoint.
    pub(crate) fn through(&self, url: &str) -> Transfers {
        engine(&self.database, url, &self.anvil, &self.keys, self.tokens())
    }

    /// Like [`World::cut_off`], with other server keys: no other server can open what it seals.
    pub(crate) fn cut_off_with_another_key(&self) -> Transfers {
        let keys = Arc::new(ServerKeys::random());
        engine(&self.database, "http://127.0.0.1:1", &self.anvil, &keys, self.tokens())
    }

    /// Another server over the same database and chain, with other tokens.
    pub(crate) fn with_tokens(&self, tokens: Vec<Token>) -> Transfers {
        engine(&self.database, &self.anvil.url(), &self.anvil, &self.keys, tokens)
    }

    /// Another server over the same database, with its own endpoints.
    pub(crate) fn over(&self, chain: Chain) -> Transfers {
        engine_over(&self.database, chain, &self.keys, self.tokens())
    }

    /// Another server, which replaces a transaction after so many blocks.
    pub(crate) fn replacing_after(&self, blocks: u64) -> Transfers {
        let chain = Chain::new(&self.anvil.url(), self.anvil.chain_id()).unwrap();
        let config = TransferConfig { replace_after: blocks, ..config() };
        let (store, sealer) = (Arc::new(self.database.clone()), Sealer::new(self.keys.clone()));
        Transfers::new(store, chain, sealer, config, self.tokens(), SpendingRules::default())
    }

    /// Another server over the same database and chain, with another policy for prices.
    pub(crate) fn with_prices(&self, prices: PricePolicy) -> Transfers {
        let chain = Chain::new(&self.anvil.url(), self.anvil.chain_id()).unwrap();
        let config = TransferConfig { prices, ..config() };
        let (store, sealer) = (Arc::new(self.database.clone()), Sealer::new(self.keys.clone()));
        Transfers::new(store, chain, sealer, config, self.tokens(), SpendingRules::default())
    }

    fn tokens(&self) -> Vec<Token> {
        self.transfers.tokens().to_vec()
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.load(Ordering::SeqCst))
    }

    pub(crate) fn pass(&self, time: Duration) {
        let milliseconds = i64::try_from(time.as_millis()).unwrap();
        self.clock.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Mines blocks with other transactions and without those that wait, which the node forgets:
    /// enough for a step to be spent.
    pub(crate) fn pass_over(&self) {
        for _ in 0..REPLACE_AFTER {
            self.rpc("anvil_dropAllTransactions", json!([]));
            let accounts = self.rpc("eth_accounts", json!([]));
            let other = json!({
                "from": accounts.get(0), "to": accounts.get(1), "value": "0x1",
                "maxFeePerGas": "0x174876e800", "maxPriorityFeePerGas": "0x1",
            });
            self.rpc("eth_sendTransaction", json!([other]));
            self.mine(1);
        }
    }

    /// The owner freezes the account.
    pub(crate) async fn freeze(&self, account: &Account) {
        let id = account.id.into();
        self.custody.freeze_by_owner(id, &caller(), self.now()).await.unwrap();
    }

    /// Reads all new blocks, and then checks all transfers that are in none. Returns the number of
    /// these.
    pub(crate) async fn tick(&self) -> usize {
        self.pass(CHECK);
        self.read_blocks().await;
        self.transfers.tick(self.now()).await.unwrap()
    }

    /// Reads all new blocks.
    pub(crate) async fn read_blocks(&self) {
        // A round that finds a reorganisation, or none, reads nothing; the next one does.
        for _ in 0..3 {
            while self.blocks.round(self.now()).await.unwrap() {}
        }
    }

    pub(crate) fn rpc(&self, method: &str, params: Value) -> Value {
        self.anvil.rpc(method, params).unwrap()
    }

    pub(crate) fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([format!("{blocks:#x}")]));
    }

    pub(crate) fn balance(&self, address: EthAddress) -> U256 {
        let balance = self.rpc("eth_getBalance", json!([address.to_string(), "latest"]));
        balance.as_str().unwrap().parse().unwrap()
    }

    /// The number of the account's mined transactions.
    pub(crate) fn sent(&self, account: &Account) -> u64 {
        let address = account.wallet.address.to_string();
        let count = self.rpc("eth_getTransactionCount", json!([address, "latest"]));
        let digits = count.as_str().unwrap().trim_start_matches("0x").to_owned();
        u64::from_str_radix(&digits, 16).unwrap()
    }

    /// A new account whose wallet has this balance.
    pub(crate) async fn account(&self, telegram_id: i64, wei: u128) -> Account {
        let request = CreateWallet {
            telegram_id: telegram_id.try_into().unwrap(),
            password: password(),
            names: None,
            mobile: None,
            email: None,
        };
        let (caller, now) = (caller(), self.now());
        let admit = || async { Ok::<_, CustodyError>(()) };
        let created = self.custody.create(request, &caller, now, admit).await;
        let Created::New(account) = created.unwrap() else {
            panic!("{telegram_id} already has a wallet");
        };
        let address = account.wallet.address.to_string();
        self.anvil.set_balance(&address, wei).unwrap();
        account
    }

    pub(crate) async fn open(&self, account: &Account) -> OpenWallet {
        // Of a payment that the audit has as sent, the store expects a spend.
        let action = Action::Replace(TransferId::random());
        let work = |wallet| async move { Ok::<_, CustodyError>(wallet) };
        self.custody
            .with_wallet(account.id.into(), password(), action, &caller(), self.now(), work)
            .await
            .unwrap()
    }

    /// Quotes as the server does.
    pub(crate) async fn try_quote(&self, request: QuoteRequest) -> Result<Transfer, QuoteError> {
        let QuoteRequest { id, from, asked, client_ref, .. } = &request;
        let sender = from.account.ok_or(QuoteError::NoSender)?;
        let known = self.transfers.quoted(*id, sender, asked, client_ref.as_deref()).await?;
        match known {
            Some(known) => Ok(known),
            None => self.transfers.quote(request, self.now()).await,
        }
    }

    pub(crate) async fn quote(&self, from: &Account, to: Party, amount: &str) -> Transfer {
        let quote = self.try_quote(request(from, to, amount)).await.unwrap();
        assert_eq!(quote.state, TransferState::Quoted);
        quote
    }

    /// Checks a confirmation that repeats the quote.
    pub(crate) async fn check(&self, quote: &Transfer) -> Result<Checked<Ready>, ConfirmError> {
        self.transfers.check(quote.id, shown(quote)).await
    }

    /// Like [`World::ready`], by another server.
    pub(crate) async fn ready_by(&self, engine: &Transfers, quote: &Transfer) -> Ready {
        match engine.check(quote.id, shown(quote)).await.unwrap() {
            Checked::Ready(ready) => ready,
            Checked::Done(done) => panic!("{done:?}"),
        }
    }

    pub(crate) async fn ready(&self, quote: &Transfer) -> Ready {
        match self.check(quote).await.unwrap() {
            Checked::Ready(ready) => ready,
            Checked::Done(done) => panic!("{done:?}"),
        }
    }

    pub(crate) async fn confirm(
        &self,
        from: &Account,
        quote: &Transfer,
    ) -> Result<Transfer, ConfirmError> {
        self.confirm_at(&self.transfers, from, quote).await
    }

    /// Checks the confirmation on this world's server; `server` signs and broadcasts.
    pub(crate) async fn confirm_at(
        &self,
        server: &Transfers,
        from: &Account,
        quote: &Transfer,
    ) -> Result<Transfer, ConfirmError> {
        // The first blocks that are read, unless some were.
        self.read_blocks().await;
        let ready = self.ready(quote).await;
        let wallet = self.open(from).await;
        server.sign_and_send(ready, wallet, self.now()).await
    }

    /// The transfer as it is stored.
    pub(crate) async fn stored(&self, transfer: &Transfer) -> Transfer {
        let stored = self.transfers.transfer(transfer.id).await;
        stored.unwrap().unwrap()
    }

    /// A follower of the chain.
    pub(crate) fn follower(&self) -> Follower {
        self.follower_through(&self.anvil.url())
    }

    /// A follower with its own endpoint.
    pub(crate) fn follower_through(&self, url: &str) -> Follower {
        self.follower_over(Chain::new(url, self.anvil.chain_id()).unwrap())
    }

    /// A follower with its own endpoints.
    pub(crate) fn follower_over(&self, chain: Chain) -> Follower {
        follower(&self.database, chain, self.tokens(), Finality::Blocks(CONFIRMATIONS))
    }

    /// A follower with its own endpoints and finality.
    pub(crate) fn follower_of(&self, chain: Chain, finality: Finality) -> Follower {
        follower(&self.database, chain, self.tokens(), finality)
    }

    /// A follower that finds coin that arrives inside contract calls. The others do not, because
    /// tests set balances.
    pub(crate) fn comparing_follower(&self) -> Follower {
        self.comparing_follower_over(Chain::new(&self.anvil.url(), self.anvil.chain_id()).unwrap())
    }

    /// A follower with the tokens of an engine.
    pub(crate) fn follower_with(&self, tokens: Tokens) -> Follower {
        let chain = Chain::new(&self.anvil.url(), self.anvil.chain_id()).unwrap();
        follower(&self.database, chain, tokens, Finality::Blocks(CONFIRMATIONS))
    }

    /// Like [`World::comparing_follower`], with its own endpoints.
    pub(crate) fn comparing_follower_over(&self, chain: Chain) -> Follower {
        let config = FollowerConfig {
            finality: Finality::Blocks(CONFIRMATIONS),
            prove_receipts: true,
            compare_balances: true,
            tokens: self.tokens().into(),
        };
        Follower::new(Arc::new(self.database.clone()), chain, config)
    }

    /// The external deposits that were reported to the account.
    pub(crate) async fn deposits_of(&self, account: &Account) -> Vec<ExternalDeposit> {
        let page = self
            .database
            .events_after(EventStream::Payments, EventCursor::default(), 1_000)
            .await
            .unwrap();
        let events = page.events.into_iter().filter(|event| event.account == account.id);
        let mut payments = Vec::new();
        for id in events.filter_map(|event| event.deposit) {
            payments.push(self.database.external_deposit(id).await.unwrap().unwrap());
        }
        payments
    }

    /// The number of the last final block.
    pub(crate) async fn database_cursor(&self) -> u64 {
        self.database.cursor(self.anvil.chain_id()).await.unwrap().unwrap().number
    }

    /// The number of events of the account's payments.
    pub(crate) async fn event_count(&self, account: &Account) -> usize {
        let page = self
            .database
            .events_after(EventStream::Payments, EventCursor::default(), 1_000)
            .await
            .unwrap();
        page.events.iter().filter(|event| event.account == account.id).count()
    }

    pub(crate) async fn state(&self, transfer: &Transfer) -> TransferState {
        self.stored(transfer).await.state
    }
}

pub(crate) fn request(from: &Account, to: Party, amount: &str) -> QuoteRequest {
    QuoteRequest {
        id: TransferId::random(),
        from: party(from),
        recovered_at: from.recovered_at,
        asked: Asked {
            to: to.address.to_string(),
            amount: amount.to_owned(),
            asset: Asset::Native,
        },
        to,
        amount: QuoteAmount::try_from(amount.to_owned()).unwrap(),
        client_ref: None,
        name_reassigned: false,
    }
}

pub(crate) fn shown(quote: &Transfer) -> Shown {
    Shown {
        chain_id: quote.chain_id,
        to_address: quote.to.address,
        token: quote.token.clone(),
        value: quote.value,
        max_fee: quote.max_fee(),
    }
}

pub(crate) fn party(account: &Account) -> Party {
    Party {
        account: Some(account.id),
        username: None,
        address: account.wallet.address,
        since: Some(account.created_at),
    }
}

pub(crate) fn stranger() -> Party {
    Party { account: None, username: None, address: STRANGER.parse().unwrap(), since: None }
}

pub(crate) fn units(units: u128) -> Units {
    Units(U256::from(units))
}

pub(crate) fn wei(wei: u128) -> Wei {
    Wei(U256::from(wei))
}

fn follower(
    database: &Database,
    chain: Chain,
    tokens: impl Into<Tokens>,
    finality: Finality,
) -> Follower {
    let tokens = tokens.into();
    let config = FollowerConfig { finality, prove_receipts: true, compare_balances: false, tokens };
    Follower::new(Arc::new(database.clone()), chain, config)
}

fn engine(
    database: &Database,
    url: &str,
    anvil: &Anvil,
    keys: &Arc<ServerKeys>,
    tokens: Vec<Token>,
) -> Transfers {
    let chain = Chain::new(url, anvil.chain_id()).unwrap();
    engine_over(database, chain, keys, tokens)
}

/// The settings of the engine.
fn config() -> TransferConfig {
    TransferConfig {
        quote_lifetime: QUOTE_LIFETIME,
        replace_after: REPLACE_AFTER,
        check_after: Duration::from_secs(13),
        prices: PricePolicy { max_fee: None, max_share: 100, min_tip: 1_000_000 },
        never_paid: Arc::default(),
    }
}

fn engine_over(
    database: &Database,
    chain: Chain,
    keys: &Arc<ServerKeys>,
    tokens: Vec<Token>,
) -> Transfers {
    let sealer = Sealer::new(Arc::clone(keys));
    let spending = SpendingRules::default();
    Transfers::new(Arc::new(database.clone()), chain, sealer, config(), tokens, spending)
}

async fn custody(database: &Database, keys: &Arc<ServerKeys>) -> Custody {
    let scks = Arc::new(SqliteKeyDatabase::open(":memory:").await.unwrap());
    let ports = Ports::new(Arc::new(database.clone()), scks);
    let one = NonZeroUsize::MIN;
    // The cheapest parameters that custody accepts.
    let kdf = KdfParams::Argon2id { memory: 8 * 1024, passes: 1, lanes: 1 };
    let pool = KdfPool::new(one, 16).unwrap();
    Custody::new(ports, KMS_KEY.clone(), Arc::clone(keys), pool, kdf)
}

#[expect(clippy::disallowed_methods, reason = "quotes expire by the clock of the database")]
fn wall_clock() -> Timestamp {
    SystemTime::now().into()
}

pub(crate) fn password() -> PasswordHash {
    PasswordHash::fill(|bytes| bytes.fill(7))
}

pub(crate) fn caller() -> Caller {
    Caller::new("test", "test")
}
