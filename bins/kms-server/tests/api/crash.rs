//! Crashes between two writes leave the old state or the new one, in which every wallet opens by a
//! password and by the KMS key.

use kms_core::ports::AccountStore;
use kms_server_testing::commands::succeeds;
use kms_server_testing::requests::{
    COIN, confirm, create, hash, quote, recover, recover_as, telegram,
};
use kms_server_testing::{ServerProcess, Stores, TestEnv, TestServer};
use kms_store::Scope;
use kms_types::wire::{ChangePassword, TransferState};
use kms_types::{RecoveryId, U256, Wei};
use serde_json::json;

/// Failpoints within the creation of a wallet, a change of password and a recovery.
const CUSTODY: [&str; 6] = [
    "create-after-sck",
    "create-after-commit",
    "change-password-after-sck",
    "change-password-after-commit",
    "recover-after-sck",
    "recover-after-commit",
];

async fn a_crash_between_the_databases(stores: Stores) {
    for failpoint in CUSTODY {
        let env = TestEnv::new(stores).unwrap();
        let database = env.migrate().await.unwrap();
        let token = env.issue_token(&database, Scope::Bot).await.unwrap();
        let (recovery, new) = (RecoveryId::random(), "the new password");
        let before = if failpoint.starts_with("create") {
            None
        } else {
            let server = ServerProcess::start(&env, None, "info");
            let made = server.client(&env, &token).create_account(&create(1, "ann", "old")).await;
            server.terminate();
            Some(made.unwrap())
        };
        let server = ServerProcess::start(&env, Some(failpoint), "info");
        let client = server.client(&env, &token);
        let refused = match failpoint.split('-').next() {
            Some("create") => client.create_account(&create(1, "ann", "old")).await.map(drop),
            Some("change") => {
                let (old_password_hash, new_password_hash) = (hash("old"), hash(new));
                let body = ChangePassword { old_password_hash, new_password_hash };
                client.change_password(telegram(1), &body).await
            }
            _ => recover_as(&client, 1, recovery, new).await.map(drop),
        };
        assert!(refused.is_err(), "{failpoint}: the dead server answered");
        server.died();
        // What was committed without its outcome contradicts nothing.
        succeeds(&env, "audit verify --against-state --without-checkpoints");

        let test = TestServer::start(env).await;
        let client = &test.client;
        let address = match &before {
            // Onboarding again succeeds, and does not create a second wallet.
            None => client.create_account(&create(1, "ann", "old")).await.unwrap().address,
            Some(account) => account.address,
        };
        let mut accepted = Vec::new();
        for words in ["old", new] {
            if let Ok(account) = client.create_account(&create(1, "ann", words)).await {
                assert_eq!(account.address, address, "{failpoint}");
                accepted.push(words);
            }
        }
        let committed = failpoint.ends_with("after-commit") && before.is_some();
        assert_eq!(accepted, [if committed { new } else { "old" }], "{failpoint}");
        // A completed recovery may be repeated.
        if failpoint == "recover-after-commit" {
            recover_as(client, 1, recovery, new).await.unwrap();
        } else {
            // The correct password above has cancelled the open recovery.
            recover(client, 1, new).await.unwrap();
        }
        assert_eq!(client.create_account(&create(1, "ann", new)).await.unwrap().address, address);
    }
}

#[actix_web::test]
async fn a_crash_between_the_embedded_stores_breaks_no_wallet() {
    a_crash_between_the_databases(Stores::Embedded).await;
}

#[actix_web::test]
async fn a_crash_between_postgresql_and_mongodb_breaks_no_wallet() {
    a_crash_between_the_databases(Stores::Servers).await;
}

/// A wallet under an older KDF is re-encrypted under the current one after the answer is sent.
#[actix_web::test]
async fn a_crash_while_a_wallet_changes_its_kdf_breaks_no_wallet() {
    for stores in [Stores::Embedded, Stores::Servers] {
        for failpoint in ["reseal-after-sck", "reseal-after-commit"] {
            let mut env = TestEnv::new(stores).unwrap();
            let database = env.migrate().await.unwrap();
            let token = env.issue_token(&database, Scope::Bot).await.unwrap();
            let older = "argon2id:m=8192,t=1,p=1".to_owned();
            env.variables.push(("KMS_SERVER__PASSWORD__KDF".to_owned(), older.clone()));
            let server = ServerProcess::start(&env, None, "info");
            let made = server.client(&env, &token).create_account(&create(1, "ann", "a")).await;
            let ann = made.unwrap();
            server.terminate();
            env.variables.clear();
            let server = ServerProcess::start(&env, Some(failpoint), "info");
            // The server may die before it answers, but the request itself is complete.
            let _ = server.client(&env, &token).create_account(&create(1, "ann", "a")).await;
            server.died();

            let kdf = async || {
                let account = database.account(telegram(1)).await.unwrap().unwrap();
                account.wallet.kdf.to_string()
            };
            assert_eq!(kdf().await == older, failpoint == "reseal-after-sck");
            let test = TestServer::start(env).await;
            assert_eq!(test.onboard(1, "ann", "a").await, ann);
            while kdf().await == older {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            assert_eq!(test.onboard(1, "ann", "a").await, ann);
            recover(&test.client, 1, "new").await.unwrap();
            assert_eq!(test.onboard(1, "ann", "new").await.address, ann.address);
        }
    }
}

#[actix_web::test]
async fn a_recovery_that_crashed_after_its_commit_has_cleared_the_lock() {
    let env = TestEnv::new(Stores::Embedded).unwrap();
    let database = env.migrate().await.unwrap();
    let token = env.issue_token(&database, Scope::Bot).await.unwrap();
    let server = ServerProcess::start(&env, Some("recover-after-commit"), "info");
    let client = server.client(&env, &token);
    client.create_account(&create(1, "ann", "old")).await.unwrap();
    for _ in 0..5 {
        client.create_account(&create(1, "ann", "a guess")).await.unwrap_err();
    }
    let recovery = RecoveryId::random();
    assert!(recover_as(&client, 1, recovery, "new").await.is_err());
    server.died();
    let test = TestServer::start(env).await;
    recover_as(&test.client, 1, recovery, "new").await.unwrap();
    test.client.create_account(&create(1, "ann", "new")).await.unwrap();
}

#[actix_web::test]
async fn a_crash_at_the_broadcast_neither_loses_nor_repeats_a_transfer() {
    for stores in [Stores::Embedded, Stores::Servers] {
        for failpoint in ["transfer-before-broadcast", "transfer-after-broadcast"] {
            let env = TestEnv::new(stores).unwrap();
            let database = env.migrate().await.unwrap();
            let token = env.issue_token(&database, Scope::Bot).await.unwrap();
            let server = ServerProcess::start(&env, Some(failpoint), "info");
            let client = server.client(&env, &token);
            let ann = client.create_account(&create(1, "ann", "a")).await.unwrap();
            client.create_account(&create(2, "bob", "b")).await.unwrap();
            env.fund(&ann, 10 * COIN).unwrap();
            let quoted = client.quote(&quote(1, "@bob", "1")).await.unwrap();
            assert!(client.confirm(quoted.id, &confirm(&quoted, "a")).await.is_err());
            server.died();

            let test = TestServer::start(env).await;
            let mined = test.until(quoted.id, TransferState::Mined).await;
            // A second confirmation, as of an impatient user, sends nothing new.
            let again = test.client.confirm(quoted.id, &confirm(&quoted, "a")).await.unwrap();
            assert_eq!(again.tx_hash, mined.tx_hash);
            let bob = test.balance(telegram(2)).await;
            assert_eq!(bob.wei, Wei(U256::from(COIN)), "{failpoint}");
            let count = json!([ann.address.to_string(), "latest"]);
            let count = test.env.anvil.rpc("eth_getTransactionCount", count).unwrap();
            assert_eq!(count, json!("0x1"), "{failpoint}");
        }
    }
}

#[actix_web::test]
async fn a_crash_at_a_replacement_neither_loses_nor_repeats_a_transfer() {
    for stores in [Stores::Embedded, Stores::Servers] {
        for failpoint in ["transfer-before-replacement", "transfer-after-replacement"] {
            let mut env = TestEnv::new(stores).unwrap();
            let database = env.migrate().await.unwrap();
            let token = env.issue_token(&database, Scope::Bot).await.unwrap();
            let server = ServerProcess::start(&env, Some(failpoint), "info");
            let client = server.client(&env, &token);
            let ann = client.create_account(&create(1, "ann", "a")).await.unwrap();
            client.create_account(&create(2, "bob", "b")).await.unwrap();
            env.fund(&ann, 10 * COIN).unwrap();
            env.anvil.rpc("evm_setAutomine", json!([false])).unwrap();
            let quoted = client.quote(&quote(1, "@bob", "1")).await.unwrap();
            let sent = client.confirm(quoted.id, &confirm(&quoted, "a")).await.unwrap();
            env.price_out(sent.tx_hash.as_deref().unwrap()).unwrap();
            server.died();

            env.chain.replace_after = 3_600;
            let test = TestServer::start(env).await;
            let replaced = test.client.transfer(quoted.id).await.unwrap().unwrap();
            test.until_known(replaced.tx_hash.as_deref().unwrap()).await;
            test.env.anvil.rpc("anvil_mine", json!(["0x1"])).unwrap();
            let mined = test.until(quoted.id, TransferState::Mined).await;
            assert_eq!(mined.tx_hash, replaced.tx_hash, "{failpoint}");
            let bob = test.balance(telegram(2)).await;
            assert_eq!(bob.wei, Wei(U256::from(COIN)), "{failpoint}");
            let count = json!([ann.address.to_string(), "latest"]);
            let count = test.env.anvil.rpc("eth_getTransactionCount", count).unwrap();
            assert_eq!(count, json!("0x1"), "{failpoint}");
        }
    }
}
