//! An attacker who can write to the databases, or who guesses passwords on many connections: no key
//! is opened, nothing is signed, and the audit records the attempt.

use std::time::Duration;

use kms_server::Server;
use kms_server_testing::commands::succeeds;
use kms_server_testing::requests::{COIN, confirm, create, hash, quote, recover, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};
use kms_store::Scope;
use kms_types::wire::{
    Account, CompleteRecovery, ExportKey, RequestRecovery, Transfer, TransferState,
};
use kms_types::{ErrorCode, RecoveryId};
use mongodb::Collection;
use mongodb::bson::{Document, doc};

use crate::exchanges::pair::{Pair, columns};
use crate::rollbacks::on_each_store;

/// Exchanges the values of columns between two rows while `work` runs.
async fn exchanged(pair: &Pair, env: &TestEnv, names: &[&str], work: impl AsyncFnOnce()) {
    let mut done = Vec::new();
    for (column, kind) in columns(env, pair.table) {
        if names.contains(&column.as_str()) {
            done.push((pair.exchange(env, &column, &kind), column, kind));
        }
    }
    assert_eq!(done.len(), names.len(), "{names:?}");
    work().await;
    for (was_exchanged, column, kind) in done {
        pair.undo(env, &column, &kind, was_exchanged);
    }
}

on_each_store!(
    values_exchanged_between_accounts_open_no_wallet,
    values_exchanged_between_usernames_resolve_to_no_account,
    an_api_token_cannot_be_given_the_scopes_of_another,
    servers_check_five_of_two_hundred_password_guesses,
    a_pause_of_recoveries_cannot_be_removed_from_one_database,
    wrapped_keys_exchanged_between_accounts_recover_no_wallet,
    a_forged_recovery_row_is_refused_and_raises_an_alarm,
);

/// A collection of the key database in MongoDB.
async fn of_keys(env: &TestEnv, name: &str) -> Collection<Document> {
    let mongo = mongodb::Client::with_uri_str(env.key_database_of_admin().unwrap()).await.unwrap();
    mongo.database(&env.key_database_name).collection(name)
}

/// Exchanges fields of the wrapped SCKs of two wallets, which keep their ids.
async fn exchange_documents(env: &TestEnv, accounts: [&str; 2], fields: &[&str]) {
    let scks = of_keys(env, "wrapped_scks").await;
    let mut found = Vec::new();
    for account in accounts {
        found.push(scks.find_one(doc! { "account": account }).await.unwrap().unwrap());
    }
    for (id, from) in [(&found[0], &found[1]), (&found[1], &found[0])] {
        let mut set = Document::new();
        for field in fields {
            set.insert(*field, from.get(field).unwrap().clone());
        }
        let which = doc! { "_id": id.get_str("_id").unwrap() };
        scks.update_one(which, doc! { "$set": set }).await.unwrap();
    }
}

/// The same in SQLite.
fn exchange_sql_keys(env: &TestEnv, [one, other]: [&str; 2], fields: &[&str]) {
    let set = fields.iter().map(|field| {
        let column = if *field == "account" { "account_id" } else { field };
        format!("{column} = (select {column} from kept where kept.id <> wrapped_scks.id)")
    });
    let set: Vec<_> = set.collect();
    let pair = format!("account_id in ('{one}', '{other}')");
    env.sql_of_keys(&format!(
        "drop table if exists kept; create table kept as select * from wrapped_scks where {pair}; \
         update wrapped_scks set {} where {pair}",
        set.join(", ")
    ))
    .unwrap();
}

struct Attack {
    test: TestServer,
    ann: Account,
    bob: Account,
    quoted: Transfer,
}

impl Attack {
    async fn new(stores: Stores) -> Self {
        let mut env = TestEnv::new(stores).unwrap();
        env.upkeep.check_interval = Duration::from_secs(3_600);
        let test = TestServer::start(env).await;
        for (id, name) in [(1, "ann"), (2, "bob"), (3, "carl"), (4, "dora")] {
            let mut body = create(id, name, name);
            body.email = Some(format!("{name}@example.org").parse().unwrap());
            body.mobile = Some(format!("+4915112345{id}00").parse().unwrap());
            test.client.create_account(&body).await.unwrap();
        }
        let ann = test.client.account(telegram(1)).await.unwrap().unwrap();
        let bob = test.client.account(telegram(2)).await.unwrap().unwrap();
        test.env.fund(&ann, 10 * COIN).unwrap();
        test.env.fund(&bob, 10 * COIN).unwrap();
        let to = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
        let quoted = test.client.quote(&quote(1, to, "1")).await.unwrap();
        Self { test, ann, bob, quoted }
    }

    async fn alarms(&self) -> usize {
        let rows = self.test.database.audit_after(0, 10_000).await.unwrap();
        rows.iter().filter(|row| row.phase == "alarm").count()
    }

    /// Whether there are so many alarms, which may be written after the answer.
    async fn is_alarmed(&self, expected: usize) -> bool {
        for _ in 0..1_500 {
            if self.alarms().await >= expected {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Checks that neither password, nor the KMS key, opens either wallet.
    async fn nothing_opens(&self, what: &str) {
        let client = &self.test.client;
        for words in ["ann", "bob"] {
            let sent = client.confirm(self.quoted.id, &confirm(&self.quoted, words)).await;
            assert!(sent.is_err(), "{what}: sent by {words}");
            for id in [self.ann.id, self.bob.id] {
                let body = ExportKey { password_hash: hash(words) };
                assert!(
                    client.export(id.into(), &body).await.is_err(),
                    "{what}: exported by {words}"
                );
            }
        }
        for id in [1, 2] {
            assert!(recover(client, id, "eve").await.is_err(), "{what}: recovered");
        }
        let signed = self.test.env.sql("select count(*) from signed_transactions").unwrap();
        assert_eq!(signed, "0", "{what}: something was signed");
        self.test.env.sql("delete from password_attempts").unwrap();
        self.test.env.sql("delete from rate_limits").unwrap();
    }
}

async fn values_exchanged_between_accounts_open_no_wallet(stores: Stores) {
    let attack = Attack::new(stores).await;
    let (env, client) = (&attack.test.env, &attack.test.client);
    let (ann, bob) = (attack.ann.id.to_string(), attack.bob.id.to_string());
    for (table, key, columns) in [
        ("accounts", "id", ["telegram_id"].as_slice()),
        ("accounts", "id", &["created_at"]),
        ("accounts", "id", &["mac"]),
        ("wallets", "account_id", &["address"]),
        ("wallets", "account_id", &["public_key"]),
        ("wallets", "account_id", &["sealed_key"]),
        ("wallets", "account_id", &["sck_id"]),
        ("wallets", "account_id", &["commitment"]),
        ("wallets", "account_id", &["salt"]),
        ("wallets", "account_id", &["wrapped_hash"]),
        ("wallets", "account_id", &["address", "sealed_key"]),
        ("wallets", "account_id", &["sealed_key", "sck_id"]),
        ("wallets", "account_id", &["sealed_key", "salt", "commitment", "sck_id"]),
    ] {
        let what = format!("{table}: {}", columns.join(" and "));
        let before = attack.alarms().await;
        let work = async || {
            attack.nothing_opens(&what).await;
            assert!(attack.is_alarmed(before + 1).await, "{what}: {before} alarms");
        };
        exchanged(&Pair::new(table, key, [&ann, &bob]), env, columns, work).await;
    }
    // Contacts are not shown to the other user. Each column has its own pair of users, because the
    // same alarm is written once a minute only.
    for (column, owners) in [("mobile", [1, 2]), ("email", [3, 4])] {
        let id_of = async |id| {
            let account = client.account(telegram(id)).await;
            account.unwrap().unwrap().id.to_string()
        };
        let [one, other] = [id_of(owners[0]).await, id_of(owners[1]).await];
        let before = attack.alarms().await;
        let work = async || {
            for id in owners {
                let shown = client.account(telegram(id)).await;
                assert_eq!(shown.unwrap_err().code(), Some(ErrorCode::Internal), "{column}");
            }
            assert!(attack.is_alarmed(before + 2).await, "{column}");
        };
        exchanged(&Pair::new("accounts", "id", [&one, &other]), env, &[column], work).await;
        assert_eq!(attack.alarms().await, before + 2, "{column}");
    }
    // With the values back in place the password works: it was the exchange that was refused.
    let sent = client.confirm(attack.quoted.id, &confirm(&attack.quoted, "ann")).await;
    attack.test.until(sent.unwrap().id, TransferState::Mined).await;
}

/// A pause holds if either database says so, whatever an attacker does to the other one.
async fn a_pause_of_recoveries_cannot_be_removed_from_one_database(stores: Stores) {
    let attack = Attack::new(stores).await;
    let (env, client) = (&attack.test.env, &attack.test.client);
    let refused = async |what: &str| {
        let refused = recover(client, 1, "eve").await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::RecoveriesPaused), "{what}");
    };
    succeeds(env, "recoveries pause");
    refused("paused").await;
    env.sql("delete from switches").unwrap();
    refused("deleted from the account database").await;
    succeeds(env, "recoveries pause");
    match stores {
        Stores::Embedded => drop(env.sql_of_keys("delete from pause").unwrap()),
        Stores::Servers => drop(of_keys(env, "pause").await.delete_many(doc! {}).await.unwrap()),
    }
    refused("deleted from the key database").await;
    env.sql("update switches set paused = false").unwrap();
    refused("modified in the account database").await;
    assert!(succeeds(env, "recoveries list").contains("paused: the switches row"));
    succeeds(env, "recoveries resume --reason ticket-9");
    recover(client, 1, "new").await.unwrap();
}

/// A modified claim on a username resolves to no account.
async fn values_exchanged_between_usernames_resolve_to_no_account(stores: Stores) {
    let attack = Attack::new(stores).await;
    let (env, client) = (&attack.test.env, &attack.test.client);
    let bob = || async { client.quote(&quote(1, "@bob", "1")).await };
    let pair = Pair::new("names", "canonical", ["bob", "carl"]);
    for column in ["telegram_id", "shown", "claimed_at", "seen_at", "mac"] {
        let work = async || {
            let refused = bob().await.unwrap_err();
            assert_eq!(refused.code(), Some(ErrorCode::Internal), "{column}");
            let refused = client.name(&"bob".parse().unwrap()).await.unwrap_err();
            assert_eq!(refused.code(), Some(ErrorCode::Internal), "{column}");
        };
        exchanged(&pair, env, &[column], work).await;
        assert_eq!(bob().await.unwrap().to.address, attack.bob.address, "{column}");
    }
}

async fn wrapped_keys_exchanged_between_accounts_recover_no_wallet(stores: Stores) {
    let attack = Attack::new(stores).await;
    let env = &attack.test.env;
    let (ann, bob) = (attack.ann.id.to_string(), attack.bob.id.to_string());
    let exchange = async |fields: &[&str]| match stores {
        Stores::Embedded => exchange_sql_keys(env, [&ann, &bob], fields),
        Stores::Servers => exchange_documents(env, [&ann, &bob], fields).await,
    };
    for fields in [["bytes"].as_slice(), &["bytes", "account"]] {
        let before = attack.alarms().await;
        exchange(fields).await;
        for id in [1, 2] {
            let refused = recover(&attack.test.client, id, "eve").await.unwrap_err();
            assert_eq!(refused.code(), Some(ErrorCode::Internal), "{fields:?}");
        }
        assert_eq!(attack.alarms().await, before + 2, "{fields:?}");
        exchange(fields).await;
        env.sql("delete from rate_limits").unwrap();
    }
    // Sending with a password does not use the wrapped keys.
    let sent = attack.test.client.confirm(attack.quoted.id, &confirm(&attack.quoted, "ann")).await;
    attack.test.until(sent.unwrap().id, TransferState::Mined).await;
    for id in [1, 2] {
        recover(&attack.test.client, id, "new").await.unwrap();
    }
}

async fn an_api_token_cannot_be_given_the_scopes_of_another(stores: Stores) {
    let env = TestEnv::new(stores).unwrap();
    let database = env.migrate().await.unwrap();
    let (bot, reader) = (
        env.issue_token(&database, Scope::Bot).await.unwrap(),
        env.issue_token(&database, Scope::Read).await.unwrap(),
    );
    for change in [
        "update api_tokens set scopes = 'bot' where scopes = 'read'",
        "update api_tokens set expires_at = 4102444800000 where scopes = 'read'",
        "delete from api_tokens where scopes = 'bot'; \
         update api_tokens set scopes = 'bot', mac = (select mac from kept where scopes = 'bot')",
    ] {
        env.sql("drop table if exists kept; create table kept as select * from api_tokens")
            .unwrap();
        env.sql(change).unwrap();
        let server = Server::start(env.settings().unwrap()).await.unwrap();
        let client = env.client(server.address().port(), &reader).unwrap();
        let refused = client.create_account(&create(3, "eve", "eve")).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Internal), "{change}");
        let rows = database.audit_after(0, 1_000).await.unwrap();
        let last = rows.iter().rfind(|row| row.action == "authenticate").unwrap();
        assert_eq!((&*last.phase, last.outcome.as_deref()), ("alarm", Some("tampered")));
        server.stop().await.unwrap();
        env.sql("delete from api_tokens; insert into api_tokens select * from kept").unwrap();
    }
    let server = Server::start(env.settings().unwrap()).await.unwrap();
    let client = |token: &str| env.client(server.address().port(), token).unwrap();
    client(&bot).create_account(&create(1, "ann", "ann")).await.unwrap();
    let refused = client(&reader).create_account(&create(3, "eve", "eve")).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::Forbidden));
}

/// Two servers with PostgreSQL; SQLite serves one.
async fn servers_check_five_of_two_hundred_password_guesses(stores: Stores) {
    let mut env = TestEnv::new(stores).unwrap();
    env.variables.push(("KMS_SERVER__PASSWORD__WAITING".to_owned(), "500".to_owned()));
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let count = match stores {
        Stores::Servers => 2,
        Stores::Embedded => 1,
    };
    let servers: Vec<_> = (0..count).map(|_| ServerProcess::start(&env, None, "info")).collect();
    let clients: Vec<_> = servers.iter().map(|server| server.client(&env, &token)).collect();
    clients[0].create_account(&create(1, "ann", "right")).await.unwrap();
    let guesses = (0..200).map(|n| {
        let client = clients[n % count].clone();
        async move {
            let body = ExportKey { password_hash: hash(&format!("guess {n}")) };
            let change = kms_types::wire::ChangePassword {
                old_password_hash: body.password_hash,
                new_password_hash: hash("eve"),
            };
            client.change_password(telegram(1), &change).await.unwrap_err().code()
        }
    });
    let answers = futures::future::join_all(guesses).await;
    let count = |code| answers.iter().filter(|answer| **answer == Some(code)).count();
    assert_eq!(count(ErrorCode::WrongPassword), 5, "{answers:?}");
    // Who waited for too long was refused as well.
    let refused = count(ErrorCode::PasswordLocked) + count(ErrorCode::Busy);
    assert_eq!(refused, 195, "{answers:?}");
    let rows = database.audit_after(0, 10_000).await.unwrap();
    let tried =
        |row: &&kms_store::AuditRow| row.action == "change_password" && row.phase == "intent";
    assert_eq!(rows.iter().filter(tried).count(), 5, "each check is an INTENT");
    let locked = rows.iter().filter(|row| row.outcome.as_deref() == Some("locked")).count();
    assert!((1..=2).contains(&locked), "at most one a minute: {locked}");
    for server in servers {
        server.terminate();
    }
}

/// A recovery that an attacker moves to another account, or makes ready early, opens nothing, and
/// its answer reveals nothing.
async fn a_forged_recovery_row_is_refused_and_raises_an_alarm(stores: Stores) {
    let mut env = TestEnv::new(stores).unwrap();
    env.recovery.wait_without_email = Duration::from_secs(3_600);
    let test = TestServer::start(env).await;
    let ann = test.onboard(1, "ann", "ann").await;
    let bob = test.onboard(2, "bob", "bob").await;
    let id = RecoveryId::random();
    test.client.request_recovery(telegram(1), &RequestRecovery { id }).await.unwrap();
    let alarms = || {
        let count = test.env.sql("select count(*) from audit where phase = 'alarm'").unwrap();
        count.parse::<u32>().unwrap()
    };
    let before = test.env.sql("select ready_at from recoveries").unwrap();
    for (who, change) in [
        (2, format!("account_id = '{}'", bob.id)),
        (1, format!("account_id = '{}', ready_at = 1", ann.id)),
        (1, format!("ready_at = {before}, stage = 'ready'")),
    ] {
        test.env.sql(&format!("update recoveries set {change}")).unwrap();
        let body = CompleteRecovery { new_password_hash: hash("eve") };
        let before = alarms();
        let refused = test.client.complete_recovery(telegram(who), id, &body).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::Internal), "{change}");
        // One of the request, and one of the row, which a minute later is another.
        assert!(alarms() > before, "{change}");
    }
    test.env.sql("update recoveries set stage = 'waiting'").unwrap();
    let body = CompleteRecovery { new_password_hash: hash("eve") };
    let early = test.client.complete_recovery(telegram(1), id, &body).await.unwrap_err();
    assert_eq!(early.code(), Some(ErrorCode::RecoveryNotReady));
    for (who, name, words) in [(1, "ann", "ann"), (2, "bob", "bob")] {
        test.onboard(who, name, words).await;
    }
}

#[actix_web::test]
async fn a_flood_of_forged_tokens_causes_a_few_queries() {
    let test = TestServer::start(TestEnv::new(Stores::Servers).unwrap()).await;
    let scans = || {
        let sql = "select seq_scan + idx_scan from pg_stat_user_tables \
                   where relname = 'api_tokens'";
        test.env.sql(sql).unwrap().parse::<u64>().unwrap()
    };
    let http = test.raw();
    let (before, started) = (scans(), std::time::Instant::now());
    let mut refused = 0;
    for _ in 0..20 {
        let forged = (0..50).map(|_| {
            let token = kms_core::PlainToken::generate();
            http.get(test.url("/v1/networks")).bearer_auth(token.expose()).send()
        });
        let answers = futures::future::join_all(forged).await;
        refused +=
            answers.into_iter().filter(|answer| answer.as_ref().unwrap().status() == 401).count();
        test.client.networks().await.unwrap();
    }
    assert_eq!(refused, 1_000);
    let elapsed = started.elapsed();
    // PostgreSQL publishes its statistics within a second or two.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let caused = scans() - before;
    assert!(caused <= 10 + 6 * (elapsed.as_secs() + 1), "{caused} queries in {elapsed:?}");
}
