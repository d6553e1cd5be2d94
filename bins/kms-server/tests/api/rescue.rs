//! Rescue of accounts whose rows fail their integrity check: two persons, the address from the
//! owner, frozen afterwards; and every wallet comes back after the row key was lost.

use std::time::Duration;

use kms_server_testing::commands::{fails, kms_server, succeeds};
use kms_server_testing::requests::{confirm, create, hash, quote, recover, telegram};
use kms_server_testing::{Stores, TestEnv, TestServer};
use kms_types::wire::{
    Account, AccountState, ChangePassword, LimitAmount, RequestRecovery, SetLimit, TransferState,
    Unfreeze,
};
use kms_types::{Asset, ErrorCode, RecoveryId};

use crate::recoveries::failed;
use crate::runbooks::commands;

const WORDS: &str = "ann's password";

fn environment(stores: Stores) -> TestEnv {
    let mut env = TestEnv::new(stores).unwrap();
    env.recovery.unfreeze_wait = Duration::ZERO;
    env.recovery.hold = Duration::ZERO;
    env
}

fn of(account: &Account) -> String {
    format!("telegram:{}={}", account.telegram_id, account.address)
}

fn propose(person: &str, wallets: &str) -> String {
    format!("account rescue propose --person {person} --reason ticket-7 {wallets}")
}

fn approve(person: &str, wallets: &str) -> String {
    format!("account rescue approve --person {person} {wallets}")
}

async fn state(test: &TestServer, id: i64) -> AccountState {
    test.client.account(telegram(id)).await.unwrap().unwrap().state
}

/// The owner's password ends the freeze.
async fn unfreeze(test: &TestServer, id: i64, words: &str) {
    assert_eq!(state(test, id).await, AccountState::FrozenByOwner);
    let wrong =
        test.client.unfreeze(telegram(id), &Unfreeze { password_hash: hash("guess") }).await;
    assert_eq!(failed(wrong), Some(ErrorCode::WrongPassword));
    test.client.unfreeze(telegram(id), &Unfreeze { password_hash: hash(words) }).await.unwrap();
    for _ in 0..600 {
        if state(test, id).await == AccountState::Active {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the account of {id} stays frozen");
}

#[actix_web::test]
async fn a_damaged_account_is_rescued_by_two_persons_with_its_owners_address() {
    let test = TestServer::start(environment(Stores::Servers)).await;
    let (ann, bob) = test.ann_and_bob().await;
    let (env, anns) = (&test.env, of(&ann));
    let sound = fails(env, &propose("pat", &anns));
    assert!(sound.contains("there is nothing to rescue"), "{sound}");
    env.sql("update accounts set recovered_at = 5 where telegram_id = 1").unwrap();
    let refused = failed(test.client.account(telegram(1)).await);
    assert_eq!(refused, Some(ErrorCode::Internal));

    // Not for an address that the ciphertexts are not of.
    let bobs = format!("telegram:1={}", bob.address);
    assert!(fails(env, &propose("pat", &bobs)).contains("belongs to another wallet"));
    assert!(fails(env, &approve("kim", &anns)).contains("no rescue of this account is proposed"));
    let proposed = succeeds(env, &propose("pat", &anns));
    assert!(proposed.contains("damaged: accounts"), "{proposed}");
    assert!(fails(env, &approve("Pat", &anns)).contains("the same person"));
    assert!(fails(env, &approve("kim", &bobs)).contains("is not what was proposed"));
    // Not what another party wrote after the proposal, or who proposed it.
    let salt = env.sql("select encode(salt, 'hex') from wallets order by 1 limit 1").unwrap();
    let set = |salt: &str| {
        let of_ann = format!("account_id = '{}'", ann.id);
        env.sql(&format!("update wallets set salt = decode('{salt}', 'hex') where {of_ann}"))
    };
    let anns_salt =
        format!("select encode(salt, 'hex') from wallets where account_id = '{}'", ann.id);
    let kept = env.sql(&anns_salt).unwrap();
    set(&salt.chars().rev().collect::<String>()).unwrap();
    assert!(fails(env, &approve("kim", &anns)).contains("is not what was proposed"));
    set(&kept).unwrap();
    env.sql("update proposals set person = 'eve'").unwrap();
    assert!(fails(env, &approve("kim", &anns)).contains("failed its integrity check"));
    env.sql("update proposals set person = 'pat'").unwrap();

    // Killed before and after the account is written.
    for (failpoint, ends) in [("rescue-before-write", false), ("rescue-after-write", true)] {
        let command = approve("kim", &anns);
        let died = kms_server(env, &command).env("KMS_FAILPOINT", failpoint).output();
        assert_eq!(died.unwrap().status.code(), None, "{failpoint}");
        assert_eq!(test.client.account(telegram(1)).await.is_ok(), ends, "{failpoint}");
    }
    assert!(fails(env, &approve("kim", &anns)).contains("there is nothing to rescue"));

    let quoted = test.client.quote(&quote(1, "@bob", "1")).await.unwrap();
    let frozen = failed(test.client.confirm(quoted.id, &confirm(&quoted, WORDS)).await);
    assert_eq!(frozen, Some(ErrorCode::AccountFrozen));
    unfreeze(&test, 1, WORDS).await;
    test.client.confirm(quoted.id, &confirm(&quoted, WORDS)).await.unwrap();
    test.until(quoted.id, TransferState::Mined).await;
    let by_id = succeeds(env, &format!("audit show --account {}", ann.id));
    assert!(by_id.contains("account rescue approve by kim, proposed by pat: ticket-7"), "{by_id}");
    assert!(by_id.contains("\tpropose_rescue\t"), "{by_id}");
    succeeds(env, "audit verify --without-checkpoints");
}

/// An attacker who writes to both databases puts a wallet of their own in the place of another.
#[actix_web::test]
async fn a_wallet_in_the_place_of_another_is_not_rescued() {
    let test = TestServer::start(environment(Stores::Servers)).await;
    let (ann, bob) = test.ann_and_bob().await;
    let env = &test.env;
    let exchange = format!(
        "update wallets set address = 'x' || address, sck_id = 'x' || sck_id \
         where account_id = '{bob}'; \
         update wallets ann set address = substr(bob.address, 2), public_key = bob.public_key, \
         sealed_key = bob.sealed_key, kdf = bob.kdf, salt = bob.salt, \
         commitment = bob.commitment, sck_id = substr(bob.sck_id, 2), \
         wrapped_hash = bob.wrapped_hash from wallets bob \
         where ann.account_id = '{ann}' and bob.account_id = '{bob}'",
        ann = ann.id,
        bob = bob.id,
    );
    env.sql(&exchange).unwrap();
    for address in [ann.address, bob.address] {
        let wallet = format!("telegram:1={address}");
        let refused = fails(env, &propose("pat", &wallet));
        assert!(refused.contains("belongs to another wallet"), "{refused}");
    }
}

/// Executes the commands of the runbook.
#[actix_web::test]
async fn every_wallet_comes_back_after_the_row_key_was_lost() {
    for stores in [Stores::Embedded, Stores::Servers] {
        let test = TestServer::start(environment(stores)).await;
        let mut wallets = Vec::new();
        for id in 1..=3 {
            let mut body = create(id, &format!("name{id}"), "right");
            body.email = Some(format!("name{id}@example.org").parse().unwrap());
            wallets.push(test.client.create_account(&body).await.unwrap());
        }
        let change =
            ChangePassword { old_password_hash: hash("right"), new_password_hash: hash("newer") };
        test.client.change_password(telegram(2), &change).await.unwrap();
        let amount = LimitAmount::try_from("5".to_owned()).unwrap();
        let limit = SetLimit { asset: Asset::Native, chain_id: None, amount };
        test.client.set_limit(telegram(1), &limit).await.unwrap();
        let open = RequestRecovery { id: RecoveryId::random() };
        test.client.request_recovery(telegram(3), &open).await.unwrap();
        let TestServer { mut env, server, database, .. } = test;
        server.stop().await.unwrap();
        drop(database);
        env.server_keys[2].1 = format!("2:{}", "ee".repeat(32));

        let wallets_text = wallets.iter().map(of).collect::<Vec<_>>().join(" ");
        assert!(fails(&env, "keys verify").contains("3 of 3 wallets cannot be recovered"));
        for command in commands("rescue.md", "The row key is lost") {
            if command.starts_with("delete ") {
                env.sql(&command).unwrap();
                continue;
            }
            let arguments = command.replace("$WALLETS", &wallets_text);
            succeeds(&env, arguments.strip_prefix("kms-server ").unwrap());
        }
        let test = TestServer::start(env).await;
        for (wallet, words) in wallets.iter().zip(["right", "newer", "right"]) {
            let id = wallet.telegram_id.as_i64();
            unfreeze(&test, id, words).await;
            let known = test.onboard(id, &format!("name{id}"), words).await;
            assert_eq!((known.id, known.address), (wallet.id, wallet.address));
            recover(&test.client, id, "recovered").await.unwrap();
            test.onboard(id, &format!("name{id}"), "recovered").await;
        }
    }
}
