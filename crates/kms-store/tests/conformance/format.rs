//! The rows that carry a MAC are those of `FORMAT.md`: rows written by the real code equal the
//! vectors in `kms-core/vectors/rows.json`, which the second implementation verifies from that
//! page.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use kms_chain::ports::{ChainView, SignOutcome, TransferStore};
use kms_chain::settlement::Outcome;
use kms_chain::spending::SpendingRules;
use kms_chain::transfer::Transfer;
use kms_core::account::{
    Account, ContactChange, EmailChange, NewAccount, SeenNames, SwapReason, WalletSwap,
};
use kms_core::audit::{Action, AuditRecord, Caller, Details, Phase};
use kms_core::freeze::FreezeChange;
use kms_core::page_only::PageChange;
use kms_core::ports::{AccountStore, AuditLog, EmailChangeStore, FreezeStore, RecoveryStore};
use kms_core::recovery::{Recovery, RecoveryCode, RecoveryStage};
use kms_store::{
    ApiToken, Database, OpenedLaunch, Pausable, Proposal, Raises, Scope, open_key_database,
};
use kms_types::{
    AccountId, AssetId, EthAddress, NameOrigin, RecoveryId, SckId, Timestamp, Token, TransferId,
    U256, Units,
};
use serde_json::{Value, json};

use crate::fixtures::{Subject, account, saw, transfer};
use crate::transfers::{settle, sign, view};

const VECTORS: &str = include_str!("../../../kms-core/vectors/rows.json");
const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Writes rows to every table with a MAC. Returns the line of the key database, and a checkpoint of
/// the audit.
pub(crate) async fn fill(subject: &Subject) -> (String, String) {
    let database = &subject.database;
    accounts(database).await;
    recoveries(database).await;
    email_changes(database).await;
    frozen_by_owner(database).await;
    former_email(database).await;
    page_only(database).await;
    tokens(database).await;
    spending_limits(database).await;
    spends(subject).await;
    orphaned_scks(database).await;
    proposals(database).await;
    names(database).await;
    let keys = open_key_database("sqlite::memory:", "").await.unwrap();
    database.pause(Pausable::Recoveries, &*keys, NOW).await.unwrap();
    let pause = keys.pause_line("recoveries").await.unwrap().unwrap();
    let opened = OpenedLaunch { opened_at: NOW, ..crate::launches::launch("ann", 1) };
    database.open_launch(opened, true).await.unwrap();
    (pause, audit(database).await)
}

#[tokio::test]
async fn rows_with_a_mac_are_the_published_vectors() {
    let subject = Subject::file().await;
    let (pause, checkpoint) = fill(&subject).await;
    let path = subject.url.strip_prefix("sqlite:").unwrap();
    let mut dump = Dump(SqliteConnection::establish(path).unwrap());
    let mut tables: BTreeMap<String, Value> = BTreeMap::new();
    for table in dump.tables_with_column("mac") {
        let rows = dump.rows(&table);
        assert!(!rows.is_empty(), "{table} has a MAC and no vector");
        tables.insert(table, rows.into());
    }
    let found = json!({
        "row_key": subject.keys[2],
        "audit_key": subject.keys[3],
        "checkpoint_public_key": subject.database.checkpoint_keys().to_string(),
        "tables": tables,
        "wallets": dump.rows("wallets"),
        "audit": dump.rows("audit"),
        "checkpoints": [checkpoint],
        "pause_lines": [pause],
    });
    let published: Value = serde_json::from_str(VECTORS).unwrap();
    if found != published {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rows.json");
        std::fs::write(&path, format!("{found:#}\n")).unwrap();
        panic!(
            "the rows differ from the vectors. If the format changes on purpose, describe it in \
             FORMAT.md and copy {} to crates/kms-core/vectors/rows.json",
            path.display()
        );
    }
}

fn id(byte: u8) -> [u8; 16] {
    [byte; 16]
}

/// The account of [`account`] with ids that do not change from run to run.
fn fixed(telegram_id: i64) -> Account {
    let byte = u8::try_from(telegram_id).unwrap();
    let mut account = account(telegram_id);
    account.id = AccountId::from_bytes(id(byte));
    account.wallet.sck_id = SckId::from_bytes(id(0x50 + byte));
    account
}

async fn create(database: &Database, telegram_id: i64) -> Account {
    let account = fixed(telegram_id);
    let new = NewAccount { account: account.clone(), names: None };
    assert!(database.create_account(new).await.unwrap().is_some());
    account
}

/// New, with a verified address, frozen by an operator and by its owner, and recovered.
async fn accounts(database: &Database) {
    create(database, 1).await;
    let verified = create(database, 2).await;
    let email = email_change(0xee);
    assert!(database.set_contact(verified.id, 1, email, NOW).await.unwrap());
    let frozen = create(database, 3).await;
    let mobile = ContactChange::Mobile(None);
    assert!(database.set_contact(frozen.id, 1, mobile, NOW).await.unwrap());
    database.change_freeze(frozen.id, FreezeChange::ByOperator, NOW).await.unwrap().unwrap();
    let recovered = create(database, 4).await;
    let email = email_change(0xef);
    assert!(database.set_contact(recovered.id, 1, email, NOW).await.unwrap());
    let recovery = recovery(4, recovered.id, RecoveryCode::None);
    assert!(database.insert_recovery(recovery).await.unwrap());
    let completed = Recovery { written: RecoveryStage::Completed, version: 2, ..recovery };
    let mut wallet = recovered.wallet;
    wallet.sck_id = SckId::from_bytes(id(0x64));
    wallet.version = 2;
    let swap = WalletSwap {
        account: recovered.id,
        replaces: 1,
        wallet,
        reason: SwapReason::Recovery(completed),
        at: NOW,
    };
    assert!(database.swap_wallet(swap).await.unwrap());
}

fn email_change(byte: u8) -> ContactChange {
    let trusted_after = Duration::from_secs(7 * 24 * 60 * 60);
    ContactChange::Email { email: Some(vec![byte; 45]), trusted_after }
}

/// With an address that replaced a trusted one.
async fn former_email(database: &Database) {
    let account = create(database, 8).await.id;
    for (byte, at) in [(0xea, Timestamp(0)), (0xeb, NOW)] {
        assert!(database.set_contact(account, 1, email_change(byte), at).await.unwrap());
    }
}

/// Used on the vault page alone, which its owner requested to leave; made by a bearer token.
async fn page_only(database: &Database) {
    let account = Account { created_by: Some("bot".to_owned()), ..fixed(9) };
    let id = account.id;
    assert!(database.create_account(NewAccount { account, names: None }).await.unwrap().is_some());
    let leave = PageChange::RequestLeave { wallet_version: 1, until: Timestamp(NOW.0 + 1) };
    for change in [PageChange::Enter { now: NOW }, leave] {
        database.change_page(id, change, NOW).await.unwrap().unwrap();
    }
}

/// Frozen by its owner, who requested to unfreeze it.
async fn frozen_by_owner(database: &Database) {
    let account = create(database, 7).await.id;
    let lift = FreezeChange::RequestLift { wallet_version: 1, until: Timestamp(NOW.0 + 1) };
    for change in [FreezeChange::ByOwner, lift] {
        database.change_freeze(account, change, NOW).await.unwrap().unwrap();
    }
}

fn recovery(byte: u8, account: AccountId, code: RecoveryCode) -> Recovery {
    Recovery {
        id: RecoveryId::from_bytes(id(0x70 + byte)),
        account,
        written: RecoveryStage::Waiting,
        code,
        codes_key: 1.try_into().unwrap(),
        moves_to: None,
        requested_at: NOW,
        ready_at: NOW.plus(Duration::from_secs(60)),
        expires_at: NOW.plus(Duration::from_secs(120)),
        version: 1,
    }
}

/// Waiting with a code that was tried once, with a confirmed one, and for a move.
async fn recoveries(database: &Database) {
    for (byte, code) in [
        (5, RecoveryCode::Sent { until: NOW.plus(Duration::from_secs(10)), tries: 1 }),
        (6, RecoveryCode::Confirmed),
    ] {
        let account = create(database, byte.into()).await;
        assert!(database.insert_recovery(recovery(byte, account.id, code)).await.unwrap());
    }
    let account = create(database, 10).await;
    let moves_to = Some(11.try_into().unwrap());
    let moved = Recovery { moves_to, ..recovery(10, account.id, RecoveryCode::None) };
    assert!(database.insert_recovery(moved).await.unwrap());
}

async fn email_changes(database: &Database) {
    let change = EmailChange {
        account: fixed(1).id,
        email: vec![0xed; 45],
        requested_at: NOW,
        tries: 0,
        codes_key: 1.try_into().unwrap(),
    };
    assert!(database.request_email_change(change.clone(), 1).await.unwrap());
    assert!(database.count_email_code_attempt(change).await.unwrap());
}

async fn tokens(database: &Database) {
    let token = |name: &str, scopes: &[Scope], expires_at| ApiToken {
        id: format!("{name}-id"),
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        created_at: NOW,
        expires_at,
        revoked_at: None,
    };
    let lasting = token("bot", &[Scope::Bot], None);
    database.insert_api_token(lasting, [1; 32].into()).await.unwrap();
    let until = Some(NOW.plus(Duration::from_secs(60)));
    let revoked = token("operator", &[Scope::Admin, Scope::Read], until);
    database.insert_api_token(revoked, [2; 32].into()).await.unwrap();
    assert!(database.revoke_api_token("operator", NOW).await.unwrap());
}

/// A limit in force, and one that is raised later.
async fn spending_limits(database: &Database) {
    let owner = fixed(1).id;
    let units = |units: u64| Some(Units(U256::from(units)));
    let coin = AssetId::native(31_337);
    let token = AssetId { contract: Some(EthAddress::from([0xab; 20])), ..coin };
    let day = Duration::from_secs(24 * 60 * 60);
    let set = async |asset, units, now| {
        database
            .set_spending_limit(owner, asset, units, (day, Raises::Always), now)
            .await
            .unwrap()
            .unwrap();
    };
    set(coin, units(5_000), NOW).await;
    set(token, units(70), NOW).await;
    set(token, None, NOW).await;
}

/// A payment in coin, and one in a token that a block does not pay.
async fn spends(subject: &Subject) {
    let database = &subject.database;
    let (ann, bob) = (fixed(1), fixed(2));
    let address = [0xab; 20].into();
    let token = Token { symbol: "USDC".parse().unwrap(), address, decimals: 6 };
    for (byte, token) in [(0xc1, None), (0xc2, Some(token))] {
        let id = TransferId::from_bytes(id(byte));
        database
            .insert_quote(Transfer { id, token, ..transfer(&ann, &bob, 50, NOW) })
            .await
            .unwrap();
        let view = ChainView { token: Units(U256::from(100)), ..view(1, 1_000_000, 0) };
        let signed = database.sign(id, view, SpendingRules::default(), NOW, sign()).await.unwrap();
        assert!(matches!(signed, SignOutcome::Signed(_)), "{signed:?}");
        if byte == 0xc2 {
            settle(database, id, 1, 1, Outcome::Reverted, 7).await;
        }
    }
}

async fn orphaned_scks(database: &Database) {
    let scks = vec![SckId::from_bytes(id(0x99))];
    // Later than the database's clock, so that the stored time does not change from run to run.
    let far = Timestamp(4_000_000_000_000);
    let due = database.orphaned_for(Duration::from_secs(1), scks, far).await.unwrap();
    assert_eq!(due, []);
}

/// One that ended, and the reassigned and proved one after it.
async fn names(database: &Database) {
    for (id, name, at, origin) in
        [(1, "ann", 100, NameOrigin::Token), (2, "Ann", 200, NameOrigin::Launch)]
    {
        let names = SeenNames { origin, ..saw(&[name], at) };
        database.seen_usernames(id.try_into().unwrap(), names).await.unwrap();
    }
}

async fn proposals(database: &Database) {
    let proposal = Proposal {
        action: "rescue".to_owned(),
        subject: fixed(1).id.to_string(),
        digest: [0xd1; 32],
        person: "ann".to_owned(),
        reason: "ticket 7".to_owned(),
        proposed_at: NOW,
    };
    database.propose(proposal).await.unwrap();
}

/// Records with and without each optional field. Returns a checkpoint of them.
async fn audit(database: &Database) -> String {
    let caller = Caller::new("bot", "r-1");
    let owner = fixed(1);
    let send = Action::Send(TransferId::from_bytes(id(0xcc)));
    let payment = Details::default().with("to", "0xab").with("chain", 1);
    let none = Details::default;
    for (action, phase, account, telegram_id, details) in [
        (send, Phase::Intent, Some(owner.id), Some(owner.telegram_id), payment.clone()),
        (send, Phase::Outcome("ok"), Some(owner.id), Some(owner.telegram_id), payment),
        (Action::Create, Phase::Outcome("busy"), None, Some(owner.telegram_id), none()),
        (Action::ProbeKmsKey, Phase::Alarm("kms_key_differs"), None, None, none()),
    ] {
        let caller = caller.clone();
        let record = AuditRecord { at: NOW, caller, action, phase, account, telegram_id, details };
        database.append(record).await.unwrap();
    }
    database.audit_checkpoint(NOW).await.unwrap().unwrap().to_string()
}

/// Reads rows as they are stored: numbers as numbers, texts as texts, bytes as hex.
struct Dump(SqliteConnection);

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

impl Dump {
    fn lines(&mut self, sql: &str) -> Vec<String> {
        let lines: Vec<Line> = diesel::sql_query(sql).load(&mut self.0).unwrap();
        lines.into_iter().map(|line| line.line).collect()
    }

    fn tables_with_column(&mut self, column: &str) -> Vec<String> {
        self.lines(&format!(
            "select m.name as line from sqlite_master m join pragma_table_info(m.name) c \
             where m.type = 'table' and c.name = '{column}' order by m.name"
        ))
    }

    fn rows(&mut self, table: &str) -> Vec<Value> {
        // Column names and their SQL expressions, as the arguments of `json_object`.
        let columns = self.lines(&format!(
            "select quote(name) || ', ' || iif(lower(type) = 'blob', \
             'iif(' || name || ' is null, null, lower(hex(' || name || ')))', name) as line \
             from pragma_table_info('{table}') order by name"
        ));
        let rows = self.lines(&format!(
            "select json_object({}) as line from {table} order by rowid",
            columns.join(", ")
        ));
        rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
    }
}
