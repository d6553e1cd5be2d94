//! An attacker who can write to the account database exchanges one column between two rows: every
//! column of every table, as the schema has them. What owners, callers and operators do then is
//! refused, or ends as it would have ended, and the audit has an alarm.
//!
//! A column that both rows agree about is changed in both instead.

pub(crate) mod pair;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kms_client::ClientError;
use kms_server_testing::commands::{kms_server, succeeds};
use kms_server_testing::requests::{COIN, confirm, create, hash, quote, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_store::{Database, Scope};
use kms_types::wire::{
    Account, ChangeEmail, ChangePassword, CompleteRecovery, ExportKey, LimitAmount,
    RequestRecovery, SetLimit, SpendingLimits, Transfer, TransferState,
};
use kms_types::{Asset, ErrorCode, RecoveryId, U256};
use serde_json::json;

use self::pair::{Pair, columns, is_sqlite};
use crate::page::World;
use crate::recoveries::{ann_with_email, code, mails, mails_to, request, with_mail};
use crate::rollbacks::on_each_store;

/// The tables that are attacked below.
const ATTACKED: [&str; 14] = [
    "accounts",
    "api_tokens",
    "audit",
    "email_changes",
    "launches",
    "names",
    "orphaned_scks",
    "proposals",
    "recoveries",
    "spending_limits",
    "spends",
    "switches",
    "transfers",
    "wallets",
];

/// Tables whose rows are not exchanged here, and what an exchange gains.
const LISTED: &[(&str, &str)] = &[
    ("name_observations", "decides only whether an update is too old; claims carry a MAC"),
    ("settlements", "releases no spend: spending_limits::a_forged_settlement_releases_nothing"),
    ("transfer_checks", "decides only when to look"),
    ("signed_transactions", "the bytes are sealed for their transfer and kind, and signed"),
    ("transfer_waits", "is shown only"),
    ("replacements", "a replacement is signed with the password"),
    ("chain_cursors", "is read from the chain again"),
    ("wallet_balances", "decides notices only"),
    ("external_deposits", "is shown only"),
    ("events", "notices can be stopped by a database writer: docs/security.md"),
    ("event_cursors", "as events"),
    (
        "password_attempts",
        "the audit counts as well: rollbacks::an_emptied_lockout_leaves_the_limit_of_the_audit",
    ),
    ("rate_limits", "deleting a row gains the same: ADR 66"),
    ("leases", "stops background work: docs/security.md"),
    ("audit_head", "one row, which each append compares with the chain"),
    ("signs", "decides nothing"),
    ("server_key_checks", "a false one refuses the start"),
    ("key_database_claim", "one row; a false one refuses the start"),
    ("writer_fence", "one row; a false one refuses the start"),
];

/// Columns that no MAC covers: without an alarm, everything ends as it would have.
const WITHOUT_ALARM: &[(&str, &[&str], &str)] = &[
    ("names", &["id"], "the place in the table; the claims on a username are chained"),
    ("api_tokens", &["created_at", "last_used_at"], "is shown only"),
    ("launches", &["is_proof"], "decides only for how long the row is kept"),
    ("proposals", &["action"], "there is no proposal of another act"),
    ("audit", &["*"], "verification reports it; what is wrong with the chain is not added to it"),
    ("transfers", &["*"], "the confirmation repeats what was shown, and the audit has signatures"),
];

const STRANGER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const AS_QUOTED: &str = "as quoted: true";
const INTERNAL: Result<String, ErrorCode> = Err(ErrorCode::Internal);

/// What parties did, and how each ended.
type Ends = Vec<(&'static str, Result<String, ErrorCode>)>;

fn end<T>(
    result: Result<T, ClientError>,
    shown: impl FnOnce(T) -> String,
) -> Result<String, ErrorCode> {
    result.map(shown).map_err(|error| error.code().unwrap())
}

/// An act that would succeed without the exchange, and must not be done.
fn refused() -> (&'static str, Result<String, ErrorCode>) {
    ("", INTERNAL)
}

fn alarms(env: &TestEnv) -> u32 {
    env.sql("select count(*) from audit where phase = 'alarm'").unwrap().parse().unwrap()
}

/// Whether there is an alarm more than before, which may be written after the answer.
async fn is_alarmed(env: &TestEnv, before: u32) -> bool {
    for _ in 0..1_200 {
        if alarms(env) > before {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    false
}

/// Exchanges each column of the table, and lets the parties act. `intact` is how that ends without
/// an exchange.
async fn attack(
    mut test: TestServer,
    table: &'static str,
    intact: &Ends,
    prepare: impl AsyncFn(&TestServer) -> (Pair, Vec<Transfer>),
    acts: impl AsyncFn(&TestServer, &[Transfer]) -> Ends,
) -> TestServer {
    assert!(ATTACKED.contains(&table), "{table} is not in the list");
    for (column, kind) in columns(&test.env, table) {
        let what = format!("{table}.{column}");
        let (pair, quoted) = prepare(&test).await;
        let before = alarms(&test.env);
        let was_exchanged = pair.exchange(&test.env, &column, &kind);
        // An alarm of a row is recorded once a minute by each process.
        test.env.sql("delete from rate_limits").unwrap();
        test = test.restart().await;
        let ends = acts(&test, &quoted).await;
        assert_eq!(ends.len(), intact.len(), "{what}");
        for ((act, now), (_act, intact)) in ends.iter().zip(intact) {
            assert!(now.is_err() || now == intact, "{what}: {act}: {now:?}, not {intact:?}");
        }
        let mut listed = WITHOUT_ALARM.iter().filter(|(listed, ..)| *listed == table);
        let is_listed = listed
            .any(|(_, columns, _)| columns.contains(&column.as_str()) || columns.contains(&"*"));
        assert!(is_listed || is_alarmed(&test.env, before).await, "{what}: no alarm: {ends:?}");
        pair.undo(&test.env, &column, &kind, was_exchanged);
    }
    test.restart().await
}

on_each_store!(
    what_decides_about_accounts,
    what_decides_about_payments,
    recoveries_and_addresses_that_wait,
    tokens_and_pauses,
    openings_of_the_page,
    proposals_of_operators,
    orphaned_keys_and_the_audit,
    every_table_is_attacked_or_listed_with_the_reason,
);

/// Ann and Bob pay, read and export. They quoted before the exchange.
async fn owners_act(test: &TestServer, quoted: &[Transfer]) -> Ends {
    let client = &test.client;
    let mut ends = Ends::new();
    for (id, name, words) in [(1, "ann", "ann's"), (2, "bob", "bob's")] {
        let account = client.account(telegram(id)).await;
        // Which username is shown with an account decides nothing: one that is paid is verified.
        let shown = |account: Option<Account>| {
            format!("{:?}", account.map(|account| Account { username: None, ..account }))
        };
        ends.push(("account", end(account, shown)));
        let name = client.name(&name.parse().unwrap()).await;
        ends.push(("name", end(name, |name| format!("{name:?}"))));
        let limits = client.limits(telegram(id)).await;
        let own = |limits: SpendingLimits| {
            let limits = limits.limits.iter();
            let limits: Vec<_> = limits.map(|it| (it.limit, it.own, it.later.clone())).collect();
            format!("{limits:?}")
        };
        ends.push(("limits", end(limits, own)));
        let body = ExportKey { password_hash: hash(words) };
        let exported = client.export(telegram(id), &body).await;
        ends.push(("export", end(exported, |key| key.address.to_string())));
    }
    let quote = client.quote(&quote(1, "@bob", "0.001")).await;
    ends.push(("quote", end(quote, |quote| format!("{:?}", quote.to))));
    for (quoted, words) in quoted.iter().zip(["ann's", "bob's"]) {
        let sent = client.confirm(quoted.id, &confirm(quoted, words)).await;
        if sent.is_err() {
            let signed = format!(
                "select count(*) from signed_transactions where transfer_id = '{}'",
                quoted.id
            );
            assert_eq!(test.env.sql(&signed).unwrap(), "0", "{sent:?}");
        }
        ends.push(("confirm", end(sent, |sent| as_on_chain(test, quoted, &sent))));
    }
    ends
}

/// Whether what the chain has is what was quoted.
fn as_on_chain(test: &TestServer, quoted: &Transfer, sent: &Transfer) -> String {
    let Some(hash) = &sent.tx_hash else { return "nothing was sent".to_owned() };
    let found = test.env.anvil.rpc("eth_getTransactionByHash", json!([hash])).unwrap();
    let field = |name: &str| found[name].as_str().unwrap().to_owned();
    let value = U256::from_str_radix(field("value").trim_start_matches("0x"), 16).unwrap();
    let is_same = field("from") == quoted.from.address.to_string().to_lowercase()
        && field("to") == quoted.to.address.to_string().to_lowercase()
        && value == quoted.value.0;
    format!("as quoted: {is_same}")
}

/// Ann's quote, to Bob's name, and Bob's, to an address.
async fn two_quotes(test: &TestServer) -> Vec<Transfer> {
    vec![
        test.client.quote(&quote(1, "@bob", "0.001")).await.unwrap(),
        test.client.quote(&quote(2, STRANGER, "0.002")).await.unwrap(),
    ]
}

/// Ann and Bob have contacts, limits, and a payment each.
async fn owners(stores: Stores) -> TestServer {
    let mut env = TestEnv::new(stores).unwrap();
    env.limits.exports = "1000/day".parse().unwrap();
    env.limits.quotes_a_day = "1000/day".parse().unwrap();
    let test = TestServer::start(env).await;
    for (id, name, words) in [(1, "ann", "ann's"), (2, "bob", "bob's")] {
        let mut body = create(id, name, words);
        body.email = Some(format!("{name}@example.org").parse().unwrap());
        body.mobile = Some(format!("+4915112345{id}00").parse().unwrap());
        let account = test.client.create_account(&body).await.unwrap();
        test.env.fund(&account, 10 * COIN).unwrap();
    }
    for (id, amount) in [(1, "5"), (1, "6"), (2, "7")] {
        let amount = LimitAmount::try_from(amount.to_owned()).unwrap();
        let body = SetLimit { asset: Asset::Native, chain_id: None, amount };
        test.client.set_limit(telegram(id), &body).await.unwrap();
    }
    for (quoted, words) in two_quotes(&test).await.iter().zip(["ann's", "bob's"]) {
        test.client.confirm(quoted.id, &confirm(quoted, words)).await.unwrap();
        test.until(quoted.id, TransferState::Mined).await;
    }
    test
}

/// The rows of the table that belong to Ann and Bob, who quote before each exchange.
async fn attack_owners(mut test: TestServer, tables: &[(&'static str, &str, &str)]) {
    let quoted = two_quotes(&test).await;
    let intact = owners_act(&test, &quoted).await;
    assert!(intact.iter().all(|(_, end)| end.is_ok()), "{intact:?}");
    assert!(intact[intact.len() - 2..].iter().all(|(_, end)| *end == Ok(AS_QUOTED.to_owned())));
    for (table, key, of) in tables {
        let rows = [1, 2].map(|id| test.env.sql(&of.replace('?', &id.to_string())).unwrap());
        let pair = Pair::new(table, key, rows.each_ref().map(String::as_str));
        let prepare = async |test: &TestServer| (pair.clone(), two_quotes(test).await);
        test = attack(test, table, &intact, prepare, owners_act).await;
        let quoted = two_quotes(&test).await;
        assert_eq!(owners_act(&test, &quoted).await, intact, "{table}");
    }
}

async fn what_decides_about_accounts(stores: Stores) {
    let id = "select id from accounts where telegram_id = ?";
    let claim = "select id from names where telegram_id = ?";
    let tables = [("accounts", "id", id), ("wallets", "account_id", id), ("names", "id", claim)];
    attack_owners(owners(stores).await, &tables).await;
}

async fn what_decides_about_payments(stores: Stores) {
    let id = "select id from accounts where telegram_id = ?";
    let spend = "select transfer_id from spends s join accounts a on a.id = s.account_id \
                 where telegram_id = ? order by at desc limit 1";
    let tables = [("spending_limits", "account_id", id), ("spends", "transfer_id", spend)];
    let test = owners(stores).await;
    let intact = owners_act(&test, &two_quotes(&test).await).await;
    let prepare = async |test: &TestServer| {
        let quoted = two_quotes(test).await;
        let ids = [&quoted[0], &quoted[1]].map(|quoted| quoted.id.to_string());
        (Pair::new("transfers", "id", ids.each_ref().map(String::as_str)), quoted)
    };
    let test = attack(test, "transfers", &intact, prepare, owners_act).await;
    attack_owners(test, &tables).await;
}

/// Ann's recovery waits for a week or its code, Bob's is ready; Carl and Dora were sent the codes
/// of their addresses.
async fn recoveries_and_addresses_that_wait(stores: Stores) {
    let (mut env, mailbox) = with_mail(stores);
    let day = Duration::from_secs(24 * 60 * 60);
    (env.recovery.code_lifetime, env.recovery.open_for) = (day, day);
    let test = TestServer::start(env).await;
    ann_with_email(&test, &mailbox).await;
    test.onboard(2, "bob", "bob's").await;
    let anns = request(&test).await.unwrap().id;
    let anns_code = code(mails(&mailbox, 3).await.last().unwrap());
    let bobs = RecoveryId::random();
    let body = RequestRecovery { id: bobs };
    test.client.request_recovery(telegram(2), &body).await.unwrap();
    let stage = format!("select stage from recoveries where id = '{bobs}'");
    while test.env.sql(&stage).unwrap() != "ready" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let complete = async |test: &TestServer, id: i64, recovery| {
        let body = CompleteRecovery { new_password_hash: hash("eve") };
        let done = test.client.complete_recovery(telegram(id), recovery, &body).await;
        end(done, |done| format!("{:?}", done.state))
    };
    let confirm = async |test: &TestServer| {
        let done = test.client.confirm_recovery(telegram(1), anns, &anns_code).await;
        end(done, |done| format!("{:?}", done.state))
    };
    let acts = async |test: &TestServer, _: &[Transfer]| {
        vec![
            ("complete Ann's", complete(test, 1, anns).await),
            ("complete Bob's", complete(test, 2, bobs).await),
            ("confirm Ann's", confirm(test).await),
        ]
    };
    let intact = vec![refused(); 3];
    let pair = Pair::new("recoveries", "id", [&anns.to_string(), &bobs.to_string()]);
    let prepare = async |_: &TestServer| (pair.clone(), Vec::new());
    let test = attack(test, "recoveries", &intact, prepare, acts).await;
    assert_eq!(complete(&test, 1, anns).await, Err(ErrorCode::RecoveryNotReady));
    complete(&test, 2, bobs).await.unwrap();
    confirm(&test).await.unwrap();

    let mut codes = Vec::new();
    let mut accounts = Vec::new();
    for (id, name) in [(3, "carl"), (4, "dora")] {
        accounts.push(test.onboard(id, name, name).await.id.to_string());
        let address = format!("{name}@example.org");
        let email = Some(address.parse().unwrap());
        let body = ChangeEmail { email, password_hash: hash(name) };
        test.client.change_email(telegram(id), &body).await.unwrap();
        codes.push((id, code(&mails_to(&mailbox, &address, 1).await[0])));
    }
    let acts = async |test: &TestServer, _: &[Transfer]| {
        let mut ends = Ends::new();
        for (id, code) in &codes {
            let confirmed = test.client.confirm_email(telegram(*id), code).await;
            ends.push(("confirm an address", end(confirmed, |()| String::new())));
        }
        ends
    };
    let intact = vec![refused(); 2];
    let pair = Pair::new("email_changes", "account_id", [&accounts[0], &accounts[1]]);
    let prepare = async |_: &TestServer| (pair.clone(), Vec::new());
    let test = attack(test, "email_changes", &intact, prepare, acts).await;
    assert!(acts(&test, &[]).await.iter().all(|(_, end)| end.is_ok()));
}

async fn tokens_and_pauses(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    test.ann_and_bob().await;
    let mut tokens = Vec::new();
    for scope in [Scope::Chat, Scope::Read] {
        tokens.push(test.env.issue_token(&test.database, scope).await.unwrap());
    }
    let id = |scope: &str| {
        test.env.sql(&format!("select id from api_tokens where scopes = '{scope}'")).unwrap()
    };
    let pair = Pair::new("api_tokens", "id", [&id("chat"), &id("read")]);
    let acts = async |test: &TestServer, _: &[Transfer]| {
        let port = test.server.address().port();
        let [chat, read] = [0, 1].map(|at: usize| test.env.client(port, &tokens[at]).unwrap());
        vec![
            ("chat", end(chat.networks().await, |_| String::new())),
            ("read", end(read.networks().await, |_| String::new())),
            ("more than read", end(read.freeze(telegram(1)).await, |_| String::new())),
        ]
    };
    let intact = acts(&test, &[]).await;
    assert_eq!(intact[2].1, Err(ErrorCode::Forbidden));
    let prepare = async |_: &TestServer| (pair.clone(), Vec::new());
    let test = attack(test, "api_tokens", &intact, prepare, acts).await;

    succeeds(&test.env, "recoveries pause");
    succeeds(&test.env, "payments pause");
    succeeds(&test.env, "payments resume --all --reason ticket-9");
    let pair = Pair::new("switches", "name", ["recoveries", "payments/all"]);
    let acts = async |test: &TestServer, _: &[Transfer]| {
        let quoted = test.client.quote(&quote(1, "@bob", "1")).await;
        vec![
            ("recovery", end(request(test).await, |_| String::new())),
            ("quote", end(quoted, |_| String::new())),
        ]
    };
    let test = test.restart().await;
    let intact = acts(&test, &[]).await;
    assert_eq!(intact[0].1, Err(ErrorCode::RecoveriesPaused));
    let prepare = async |_: &TestServer| (pair.clone(), Vec::new());
    let test = attack(test, "switches", &intact, prepare, acts).await;
    assert_eq!(acts(&test, &[]).await, intact);
}

async fn openings_of_the_page(stores: Stores) {
    let mut world = World::new(stores).await;
    // The pages stay open when the server is restarted, also on a busy machine.
    let port = kms_testkit::free_port().unwrap();
    world.test.env.page.listen.set_port(port);
    world.test = world.test.restart().await;
    world.onboard().await;
    let pages = [world.open(1, "").await, world.open(2, "p").await];
    let test = world.test;
    let acts = async |_: &TestServer, _: &[Transfer]| {
        let mut ends = Ends::new();
        for page in &pages {
            let account = loop {
                match page.account().await {
                    // A connection of the server before.
                    Err(ClientError::Unreachable(_)) => {}
                    other => break other,
                }
            };
            ends.push(("account", end(account, |account| account.address.to_string())));
        }
        ends
    };
    let intact = acts(&test, &[]).await;
    assert!(intact.iter().all(|(_, end)| end.is_ok()), "{intact:?}");
    let rows = test.env.sql("select id from launches order by opened_at desc limit 2").unwrap();
    let rows: Vec<_> = rows.lines().collect();
    let pair = Pair::new("launches", "id", [rows[0], rows[1]]);
    let prepare = async |_: &TestServer| (pair.clone(), Vec::new());
    let test = attack(test, "launches", &intact, prepare, acts).await;
    assert_eq!(acts(&test, &[]).await, intact);
}

async fn proposals_of_operators(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    let (ann, bob) = test.ann_and_bob().await;
    test.env.sql("update accounts set recovered_at = 5").unwrap();
    let of = [(1, &ann), (2, &bob)].map(|(id, it)| format!("telegram:{id}={}", it.address));
    for wallet in &of {
        let propose = "account rescue propose --person pat --reason ticket-1";
        succeeds(&test.env, &format!("{propose} {wallet}"));
    }
    let acts = async |test: &TestServer, _: &[Transfer]| {
        let mut ends = Ends::new();
        for wallet in &of {
            let command = format!("account rescue approve --person kim {wallet}");
            let output = kms_server(&test.env, &command).output().unwrap();
            let end = if output.status.success() { Ok(String::new()) } else { INTERNAL };
            ends.push(("approve", end));
        }
        ends
    };
    let intact = vec![refused(); 2];
    let pair = Pair::new("proposals", "subject", [&ann.id.to_string(), &bob.id.to_string()]);
    let prepare = async |_: &TestServer| (pair.clone(), Vec::new());
    let test = attack(test, "proposals", &intact, prepare, acts).await;
    assert!(acts(&test, &[]).await.iter().all(|(_, end)| end.is_ok()));
}

async fn orphaned_keys_and_the_audit(stores: Stores) {
    let test = TestServer::start(TestEnv::new(stores).unwrap()).await;
    test.ann_and_bob().await;
    let mut orphaned = Vec::new();
    for (id, words) in [(1, "ann's password"), (2, "bob's password")] {
        let of = "select sck_id from wallets w join accounts a on a.id = w.account_id";
        let sck = test.env.sql(&format!("{of} where telegram_id = {id}")).unwrap();
        orphaned.push(sck);
        let change =
            ChangePassword { old_password_hash: hash(words), new_password_hash: hash("new") };
        test.client.change_password(telegram(id), &change).await.unwrap();
    }
    // What the sweeper does.
    let sweep = async |test: &TestServer, of: &[String]| {
        let scks = of.iter().map(|id| id.parse().unwrap()).collect();
        // Another process, which has raised no alarm yet.
        let keys = Arc::new(test.env.server_keys().unwrap());
        let database = Database::connect(&test.env.database, 1, keys).await.unwrap();
        let now = database.now().await.unwrap();
        database.orphaned_for(Duration::ZERO, scks, now).await
    };
    for one in &orphaned {
        assert_eq!(sweep(&test, std::slice::from_ref(one)).await.unwrap(), []);
    }
    let acts = async |test: &TestServer, _: &[Transfer]| {
        let mut ends = Ends::new();
        for one in &orphaned {
            let due = sweep(test, std::slice::from_ref(one)).await;
            ends.push(("sweep", due.map(|_| String::new()).map_err(|_failed| ErrorCode::Internal)));
        }
        ends
    };
    let intact = vec![refused(); 2];
    let pair = Pair::new("orphaned_scks", "sck_id", [&orphaned[0], &orphaned[1]]);
    let prepare = async |_: &TestServer| (pair.clone(), Vec::new());
    let test = attack(test, "orphaned_scks", &intact, prepare, acts).await;
    assert_eq!(sweep(&test, &orphaned).await.unwrap().len(), 2);

    let acts = async |test: &TestServer, _: &[Transfer]| {
        let output = kms_server(&test.env, "audit verify --without-checkpoints").output().unwrap();
        let end = if output.status.success() { Ok(String::new()) } else { INTERNAL };
        vec![("verify", end)]
    };
    let intact = vec![refused()];
    let pair = Pair::new("audit", "chain_seq", ["1", "2"]);
    let prepare = async |_: &TestServer| (pair.clone(), Vec::new());
    let test = attack(test, "audit", &intact, prepare, acts).await;
    assert_eq!(acts(&test, &[]).await, [("verify", Ok(String::new()))]);
}

/// The tables of the schema are those that are attacked above, and those of the list.
async fn every_table_is_attacked_or_listed_with_the_reason(stores: Stores) {
    let env = TestEnv::new(stores).unwrap();
    env.migrate().await.unwrap();
    let query = if is_sqlite(&env) {
        "select name from sqlite_master where type = 'table' and name not like 'sqlite%'"
    } else {
        "select table_name from information_schema.tables where table_schema = 'public'"
    };
    let tables = env.sql(query).unwrap();
    let tables = tables.lines().filter(|table| !table.starts_with("__diesel"));
    let listed = LISTED.iter().map(|(table, _why)| *table);
    let known: BTreeSet<_> = ATTACKED.into_iter().chain(listed).collect();
    assert_eq!(tables.collect::<BTreeSet<_>>(), known);
}
