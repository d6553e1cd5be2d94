//! Rotation of the five server keys, beside a server with load and killed at every write: at the
//! end the old version opens and verifies nothing.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kms_client::Client;
use kms_core::account::{ContactChange, EmailChange};
use kms_core::ports::{AccountStore, EmailChangeStore, RecoveryStore};
use kms_core::recovery::{Recovery, RecoveryRules};
use kms_core::{Sealer, ServerKeySet};
use kms_server_testing::commands::{fails, kms_server, output_text, succeeds};
use kms_server_testing::requests::{COIN, confirm, create, hash, quote, recover_as, telegram};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};
use kms_store::{ApiToken, Database, Scope};
use kms_types::wire::{
    ChangePassword, ConfirmCode, LimitAmount, RequestRecovery, SetLimit, TransferState,
};
use kms_types::{Asset, ErrorCode, RecoveryId, SckId, Timestamp, TransferId};
use serde_json::{Value, json};

use crate::recoveries::{ann_with_email, code, failed, kind as subject, mails, request, with_mail};

const BOTH: [Stores; 2] = [Stores::Embedded, Stores::Servers];
const NEW: &str = "ee";
const KEYS: [&str; 6] = ["pepper", "contact", "row", "audit", "codes", "checkpoint"];

/// Writes version 2 of a server key in front of version 1, as the operator does.
fn add_version(env: &mut TestEnv, kind: &str) {
    let (_, text) = env.server_keys.iter_mut().find(|(name, _)| *name == kind).unwrap();
    *text = format!("2:{},{text}", NEW.repeat(32));
}

/// Replaces `1:` of a server key by this text, or removes the version.
fn replace_old(env: &mut TestEnv, kind: &str, prefix: Option<&str>) {
    let (_, text) = env.server_keys.iter_mut().find(|(name, _)| *name == kind).unwrap();
    let (newest, old) = text.split_once(',').unwrap();
    *text = match prefix {
        Some(prefix) => format!("{newest},{prefix}{}", old.split_once(':').unwrap().1),
        None => newest.to_owned(),
    };
}

/// What depends on a version, by table.
fn dependants(env: &TestEnv, key: &str) -> Value {
    let listed: Value = serde_json::from_str(&succeeds(env, "keys list --json")).unwrap();
    let lines = listed.as_array().unwrap().iter();
    lines.filter(|line| line["key"] == key).map(|line| line["of"].clone()).next().unwrap()
}

/// Runs a command on another thread, so that requests continue.
async fn run(env: &TestEnv, arguments: &str, failpoint: Option<&str>) -> Output {
    let mut command = kms_server(env, arguments);
    if let Some(failpoint) = failpoint {
        command.env("KMS_FAILPOINT", failpoint);
    }
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Runs a command again and again, killed before and after each of its writes, until it has none
/// left. Returns how often it was killed.
async fn killed_at_every_write(env: &TestEnv, command: &str) -> u32 {
    for killed in 0_u32.. {
        let place = if killed.is_multiple_of(2) { "before" } else { "after" };
        let failpoint = format!("{command}-{place}-write");
        let ended = run(env, &format!("keys {command}"), Some(&failpoint)).await;
        if ended.status.success() {
            return killed;
        }
        assert_eq!(ended.status.code(), None, "{}", output_text(&ended));
    }
    unreachable!()
}

/// Requests that must succeed at any time, at least once each, until they are stopped.
struct Load(Arc<AtomicBool>, tokio::task::JoinHandle<()>);

impl Load {
    fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let requests = async move {
            loop {
                for (old, new) in [("right", "other"), ("other", "right")] {
                    let (old_password_hash, new_password_hash) = (hash(old), hash(new));
                    let body = ChangePassword { old_password_hash, new_password_hash };
                    client.change_password(telegram(4), &body).await.unwrap();
                }
                for id in [1, 2, 4] {
                    let account = client.account(telegram(id)).await.unwrap().unwrap();
                    assert!(account.mobile.is_some(), "{account:?}");
                }
                client.quote(&quote(1, "@name2", "0.001")).await.unwrap();
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        Self(stop, tokio::spawn(requests))
    }

    async fn stop(self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.await.unwrap();
    }
}

/// Four wallets with contacts, the first with a verified e-mail address that replaced another; an
/// open recovery of the third; a limit; a pending transfer; and what has expired.
struct World {
    env: TestEnv,
    token: String,
    recovery: RecoveryId,
    transfer: TransferId,
}

impl World {
    async fn new(stores: Stores) -> Self {
        let mut env = TestEnv::new(stores).unwrap();
        let often = ("KMS_SERVER__LIMITS__PASSWORD_CHANGES", "100000/day");
        env.variables.push((often.0.to_owned(), often.1.to_owned()));
        let database = env.migrate().await.unwrap();
        let token = env.issue_token(&database, Scope::Bot).await.unwrap();
        let server = ServerProcess::start(&env, None, "info");
        let client = server.client(&env, &token);
        for id in 1..=4 {
            let mut body = create(id, &format!("name{id}"), "right");
            body.email = Some(format!("name{id}@example.org").parse().unwrap());
            body.mobile = Some(format!("+4915112345{id}00").parse().unwrap());
            client.create_account(&body).await.unwrap();
        }
        let ann = client.account(telegram(1)).await.unwrap().unwrap();
        env.fund(&ann, 10 * COIN).unwrap();
        let amount = LimitAmount::try_from("5".to_owned()).unwrap();
        let limit = SetLimit { asset: Asset::Native, chain_id: None, amount };
        client.set_limit(telegram(1), &limit).await.unwrap();
        env.anvil.rpc("evm_setAutomine", json!([false])).unwrap();
        let quoted = client.quote(&quote(1, "@name2", "1")).await.unwrap();
        client.confirm(quoted.id, &confirm(&quoted, "right")).await.unwrap();
        let recovery = RecoveryId::random();
        client.request_recovery(telegram(3), &RequestRecovery { id: recovery }).await.unwrap();
        server.terminate();
        Self::fill(&env, &database).await;
        Self { env, token, recovery, transfer: quoted.id }
    }

    /// Writes what takes an e-mail server or days to come about.
    async fn fill(env: &TestEnv, database: &Database) {
        let sealer = Sealer::new(Arc::new(env.server_keys().unwrap()));
        let ann = database.account(telegram(1)).await.unwrap().unwrap().id;
        let expired = EmailChange {
            account: database.account(telegram(2)).await.unwrap().unwrap().id,
            email: sealer.seal_contact(ann, "email", "old@example.org"),
            requested_at: Timestamp(1),
            tries: 0,
            codes_key: 1.try_into().unwrap(),
        };
        assert!(database.request_email_change(expired, 1).await.unwrap());
        for address in ["one@example.org", "two@example.org"] {
            let sealed = sealer.seal_contact(ann, "email", address);
            let trusted_after = std::time::Duration::from_secs(1);
            let change = ContactChange::Email { email: Some(sealed), trusted_after };
            assert!(database.set_contact(ann, 1, change, Timestamp(1)).await.unwrap());
        }
        let far = Timestamp(4_000_000_000_000);
        let retention = std::time::Duration::from_secs(1);
        database.orphaned_for(retention, vec![SckId::random()], far).await.unwrap();
    }

    /// Starts a server with load, and does what moves the dependants of a key beside it.
    async fn rotate(&mut self, kind: &str) {
        let (old, newest) = (format!("{kind} 1"), format!("{kind} 2"));
        add_version(&mut self.env, kind);
        let env = &self.env;
        let needed = fails(env, &format!("keys retire {old}"));
        let server = ServerProcess::start(env, None, "info");
        let client = server.client(env, &self.token);
        let load = Load::start(client.clone());
        match kind {
            "row" => assert!(killed_at_every_write(env, "remac").await > 12),
            "contact" => assert!(killed_at_every_write(env, "reseal").await > 12),
            "codes" => {
                assert!(needed.contains("1 email_changes, 1 recoveries. Codes of"), "{needed}");
                recover_as(&client, 3, self.recovery, "right").await.unwrap();
                succeeds(env, "keys remac");
            }
            "pepper" => {
                assert!(needed.contains("wallets. A wallet moves at its owner's"), "{needed}");
                for id in 1..=3 {
                    let body = create(id, &format!("name{id}"), "right");
                    client.create_account(&body).await.unwrap();
                }
                while dependants(env, &old) != json!({}) {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
            _ => assert!(needed.contains("no checkpoint was written since"), "{needed}"),
        }
        load.stop().await;
        let log = server.terminate();
        assert!(!log.contains("integrity_alarm") && !log.contains("unreadable"), "{log}");
        if !["audit", "checkpoint"].contains(&kind) {
            assert_eq!(dependants(env, &old), json!({}), "{kind}");
        }
        // The recovery is completed, and no other is open.
        assert_eq!(dependants(env, &newest) == json!({}), kind == "codes", "{kind}");
        let advice = succeeds(env, &format!("keys retire {old}"));
        assert!(advice.contains("Write `retired-1:` in place of `1:`"), "{advice}");
        assert_eq!(advice.contains("links that freeze an account"), old.contains("codes"));
        assert!(fails(env, &format!("keys retire {newest}")).contains("is the newest version"));
    }

    /// Checks that everything works, and that no alarm is logged.
    async fn works(&self) {
        let server = ServerProcess::start(&self.env, None, "info");
        let client = server.client(&self.env, &self.token);
        for id in 1..=4 {
            let body = create(id, &format!("name{id}"), "right");
            let account = client.create_account(&body).await.unwrap();
            assert!(account.mobile.is_some() && account.email.is_some(), "{account:?}");
        }
        client.quote(&quote(1, "@name2", "0.001")).await.unwrap();
        assert!(succeeds(&self.env, "keys verify --decrypt").contains("all 4 wallets"));
        succeeds(&self.env, "token list");
        let log = server.terminate();
        assert!(!log.contains("integrity_alarm") && !log.contains("unreadable"), "{log}");
    }

    /// The signed bytes, sealed under the newest contact key, are sent again and mined.
    async fn pending_transfer_arrives(&self) {
        self.env.anvil.rpc("anvil_dropAllTransactions", json!([])).unwrap();
        self.env.anvil.rpc("evm_setAutomine", json!([true])).unwrap();
        // It is checked more and more rarely.
        self.env.sql("update transfer_checks set next_at = 0").unwrap();
        let server = ServerProcess::start(&self.env, None, "info");
        let client = server.client(&self.env, &self.token);
        for _ in 0..1_200 {
            let transfer = client.transfer(self.transfer).await.unwrap().unwrap();
            if matches!(transfer.state, TransferState::Mined | TransferState::Final) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the transfer did not arrive: {}", server.terminate());
    }
}

async fn every_server_key_is_rotated_to_the_end(stores: Stores) {
    let mut world = World::new(stores).await;
    for kind in ["codes", "row", "contact", "audit", "pepper", "checkpoint"] {
        world.rotate(kind).await;
        replace_old(&mut world.env, kind, Some("retired-1:"));
        world.works().await;
    }
    assert!(succeeds(&world.env, "audit verify").contains("the audit chain is intact"));
    for kind in KEYS {
        replace_old(&mut world.env, kind, None);
    }
    world.works().await;
    world.pending_transfer_arrives().await;
}

#[actix_web::test]
async fn every_server_key_is_rotated_to_the_end_in_the_embedded_stores() {
    every_server_key_is_rotated_to_the_end(Stores::Embedded).await;
}

#[actix_web::test]
async fn every_server_key_is_rotated_to_the_end_in_postgresql_and_mongodb() {
    every_server_key_is_rotated_to_the_end(Stores::Servers).await;
}

/// A party that has the old row key and writes to the database forges a token: after the rotation
/// it opens nothing, and a retired version is an alarm.
#[actix_web::test]
async fn a_leaked_old_row_key_forges_no_row() {
    for stores in BOTH {
        let mut env = TestEnv::new(stores).unwrap();
        succeeds(&env, "migrate");
        let leaked = env.migrate().await.unwrap();
        let token = env.issue_token(&leaked, Scope::Bot).await.unwrap();
        add_version(&mut env, "row");
        succeeds(&env, "keys remac");
        let forged = kms_core::PlainToken::generate();
        let row = ApiToken {
            id: "forged".to_owned(),
            name: "forged".to_owned(),
            scopes: vec![Scope::Bot],
            created_at: Timestamp(1),
            expires_at: None,
            revoked_at: None,
        };
        leaked.insert_api_token(row, forged.hash()).await.unwrap();
        let refused = fails(&env, "keys retire row 1");
        assert!(refused.contains("row 1 is still needed: 1 api_tokens"), "{refused}");
        for (prefix, code, alarms) in [
            (Some("retired-1:"), ErrorCode::Internal, true),
            (None, ErrorCode::StoreUnavailable, false),
        ] {
            replace_old(&mut env, "row", prefix);
            let server = ServerProcess::start(&env, None, "info");
            let attacker = server.client(&env, forged.expose());
            let refused = attacker.account(telegram(1)).await.unwrap_err();
            assert_eq!(refused.code(), Some(code), "{refused}");
            server.client(&env, &token).account(telegram(1)).await.unwrap();
            let log = server.terminate();
            assert_eq!(log.contains("integrity_alarm"), alarms, "{log}");
            assert_eq!(log.contains("version 1 of the key is retired"), alarms, "{log}");
        }
    }
}

/// A party that has the bot's token and an old version of the codes key or of the row key confirms
/// no recovery that was requested after the rotation, and cancels none.
#[actix_web::test]
async fn a_leaked_old_key_makes_no_code() {
    for stores in BOTH {
        let (mut env, mailbox) = with_mail(stores);
        let leaked = env.server_keys().unwrap();
        add_version(&mut env, "codes");
        add_version(&mut env, "row");
        let test = TestServer::start(env).await;
        ann_with_email(&test, &mailbox).await;
        let asked = request(&test).await.unwrap();
        let stored = test.database.recovery(asked.id).await.unwrap().unwrap();
        assert_eq!(stored.codes_key.as_u8(), 2);
        let forged = Recovery { codes_key: 1.try_into().unwrap(), ..stored };
        for keys in [&leaked.codes, &leaked.row] {
            let code = ConfirmCode { code: forged.code(keys).unwrap() };
            let refused = test.client.confirm_recovery(telegram(1), asked.id, &code).await;
            assert_eq!(failed(refused), Some(ErrorCode::WrongCode));
            let mac = forged.cancel_mac(keys).unwrap();
            let link = test.url(&format!("/recoveries/{}/cancel/{mac}", asked.id));
            let refused = test.raw().post(&link).send().await.unwrap();
            assert_eq!(refused.status(), 404);
        }
        let right = code(&mails(&mailbox, 3).await[2]);
        test.client.confirm_recovery(telegram(1), asked.id, &right).await.unwrap();
    }
}

/// While servers are restarted with a new version one after the other, the e-mail of a row that
/// another one wrote under it waits, and is not lost.
#[actix_web::test]
async fn an_e_mail_that_needs_a_newer_key_waits_for_the_restart() {
    for kind in ["codes", "row"] {
        let (env, mailbox) = with_mail(Stores::Embedded);
        let test = TestServer::start(env).await;
        ann_with_email(&test, &mailbox).await;
        let ann = test.database.account(telegram(1)).await.unwrap().unwrap();
        let TestServer { mut env, server, client, token, database } = test;
        add_version(&mut env, kind);
        let keys = env.server_keys().unwrap();
        let now = Timestamp(ann.created_at.0 + 60_000);
        let codes_key = keys.codes.current();
        let rules = RecoveryRules::default();
        let recovery = Recovery::request(RecoveryId::random(), &ann, &rules, codes_key, now);
        let newer = Database::connect(&env.database, 1, Arc::new(keys)).await.unwrap();
        assert!(newer.insert_recovery(recovery).await.unwrap());
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(mailbox.mails_to("ann@example.org").len(), 2, "{kind}");
        let _test = TestServer { env, server, client, token, database }.restart().await;
        assert_eq!(subject(&mails(&mailbox, 3).await[2]), "recovery-requested", "{kind}");
    }
}

/// A row that fails its check is named and keeps its MAC, however often the command runs.
#[actix_web::test]
async fn remac_names_a_row_that_fails_its_check() {
    for stores in BOTH {
        let mut env = TestEnv::new(stores).unwrap();
        succeeds(&env, "migrate");
        let database = env.migrate().await.unwrap();
        env.issue_token(&database, Scope::Read).await.unwrap();
        let other: ServerKeySet = format!("1:{}", "77".repeat(32)).parse().unwrap();
        let mut keys = env.server_keys().unwrap();
        keys.row = other;
        let forger = Database::connect(&env.database, 1, Arc::new(keys)).await.unwrap();
        let row = ApiToken {
            id: "forged".to_owned(),
            name: "forged".to_owned(),
            scopes: vec![Scope::Bot],
            created_at: Timestamp(1),
            expires_at: None,
            revoked_at: None,
        };
        forger.insert_api_token(row, [7; 32].into()).await.unwrap();
        add_version(&mut env, "row");
        for moved in [1, 0] {
            let text = fails(&env, "keys remac");
            assert!(text.contains("the api_tokens row of forged failed its integrity"), "{text}");
            assert!(text.contains(&format!("{moved} moved to row 2, 1 left")), "{text}");
        }
        assert_eq!(dependants(&env, "row 1"), json!({ "api_tokens": 1 }));
    }
}
